"""What validation and loading need to know of a base model and of an adapter: plain frozen data.

Owns the names and shapes of the modules an adapter may change, and their one canonical order. It must not know
files, tensors' values, or what a tenant is.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from tenantry.adapters.errors import BaseUnsupported

DIGEST_BYTES = 32
RANK_MULTIPLE = 16
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")

SITES: dict[str, tuple[str, ...]] = {
    "qkv": ("q_proj", "k_proj", "v_proj"),
    "o": ("o_proj",),
    "gate_up": ("gate_proj", "up_proj"),
    "down": ("down_proj",),
}
MODULES: tuple[str, ...] = tuple(module for slices in SITES.values() for module in slices)
PARENT = {m: "mlp" if m in ("gate_proj", "up_proj", "down_proj") else "self_attn" for m in MODULES}
DTYPE_BYTES = {"F16": 2, "BF16": 2, "F32": 4}


def padded_rank(rank: int) -> int:
    """rank rounded up to the multiple that kernels need; never to any pool's maximum."""
    return -(-rank // RANK_MULTIPLE) * RANK_MULTIPLE


class Limits(msgspec.Struct, frozen=True):
    """Bounds on an upload. max_bytes: the safetensors file. The last five bound an archive and the validator's
    process, whose CPU seconds grow with the upload."""

    max_rank: int = 512
    max_scale: float = 1024.0
    max_abs_weight: float = 1e4
    max_bytes: int = 2 << 30
    max_tensors: int = 4096
    max_header_bytes: int = 1 << 20
    max_config_bytes: int = 64 << 10
    max_readme_bytes: int = 1 << 20
    max_problems: int = 100
    max_archive_entries: int = 8
    max_archive_ratio: int = 2
    cpu_seconds: int = 10
    cpu_seconds_per_gib: int = 60
    address_bytes: int = 4 << 30


class BaseSpec(msgspec.Struct, frozen=True):
    """A decoder's shape. digest: 32 bytes naming the base model's weights (see base_digest.digest_model)."""

    family: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    digest: bytes

    def __post_init__(self) -> None:
        if len(self.digest) != DIGEST_BYTES:
            raise BaseUnsupported(f"digest must hold {DIGEST_BYTES} bytes")

    @classmethod
    def from_config(cls, config: Mapping[str, Any], digest: bytes) -> "BaseSpec":
        """Read a Hugging Face config.json. Raises BaseUnsupported naming the key it cannot use."""
        family = config.get("model_type")
        if family not in FAMILIES:
            raise BaseUnsupported(f"model_type: expected one of {', '.join(FAMILIES)}")

        def size(key: str, default: int | None = None) -> int:
            value = config.get(key)
            value = default if value is None else value
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 1 << 31:
                raise BaseUnsupported(f"{key}: expected a positive integer")
            return value

        hidden, heads = size("hidden_size"), size("num_attention_heads")
        return cls(
            family=family,
            layers=size("num_hidden_layers"),
            hidden=hidden,
            intermediate=size("intermediate_size"),
            heads=heads,
            kv_heads=size("num_key_value_heads", heads),
            head_dim=size("head_dim", 128 if family == "qwen3" else hidden // heads),
            vocab=size("vocab_size"),
            digest=digest,
        )

    def shape(self, module: str) -> tuple[int, int]:
        """(out, in) of a module's weight, for a name of MODULES."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (q, self.hidden),
            "k_proj": (kv, self.hidden),
            "v_proj": (kv, self.hidden),
            "o_proj": (self.hidden, q),
            "gate_proj": (self.intermediate, self.hidden),
            "up_proj": (self.intermediate, self.hidden),
            "down_proj": (self.hidden, self.intermediate),
        }[module]


class ModuleEntry(msgspec.Struct, frozen=True):
    """One adapted module. scale is what multiplies B·A: alpha/rank, or alpha/√rank for rsLoRA."""

    layer: int
    module: str
    rank: int
    scale: float
    in_features: int
    out_features: int

    @property
    def site(self) -> str:
        return next(site for site, slices in SITES.items() if self.module in slices)

    @property
    def order(self) -> tuple[int, int]:
        """Sort key of the canonical order: layer-major, then fused-site order."""
        return self.layer, MODULES.index(self.module)


class AdapterManifest(msgspec.Struct, frozen=True):
    """An adapter without its weights. digest is its identity; modules are in canonical order.

    dtype: F16, BF16 or F32, of every tensor. bytes: what it occupies when resident: all tensors at padded rank,
    each rounded up to 256 bytes.
    """

    digest: bytes
    base_digest: bytes
    dtype: str
    bytes: int
    modules: tuple[ModuleEntry, ...]

    @property
    def max_rank(self) -> int:
        return max(m.rank for m in self.modules)
