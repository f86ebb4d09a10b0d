"""Adapters made by hand for tests of any room: any byte of an upload can be bent before it is written.

Owns a tiny base model's shape and an Upload. It needs neither torch nor PEFT.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenantry.adapters.manifest import PARENT, BaseSpec

BASE = BaseSpec(
    family="llama", layers=2, hidden=32, intermediate=48, heads=4, kv_heads=2, head_dim=8, vocab=64, digest=b"b" * 32
)


def name_of(layer: int, module: str, side: str) -> str:
    """PEFT's name of a tensor; side is A or B."""
    return f"base_model.model.model.layers.{layer}.{PARENT[module]}.{module}.lora_{side}.weight"


@dataclass
class Upload:
    """An adapter before it is written: config fields, tensors as (dtype, shape, bytes), and extra files."""

    config: dict[str, Any]
    tensors: dict[str, tuple[str, list[int], bytes]]
    metadata: dict[str, Any] | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    raw_config: bytes | None = None
    raw_weights: bytes | None = None

    def put(self, name: str, values: NDArray[Any], dtype: str = "F32") -> None:
        self.tensors[name] = (dtype, list(values.shape), np.ascontiguousarray(values).tobytes())

    def header(self) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        at = 0
        for name, (dtype, shape, raw) in self.tensors.items():
            entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(raw)]}
            at += len(raw)
        return entries if self.metadata is None else {"__metadata__": self.metadata} | entries

    def data(self) -> bytes:
        return b"".join(raw for _, _, raw in self.tensors.values())

    def weights(self) -> bytes:
        return self.raw_weights if self.raw_weights is not None else framed(self.header(), self.data())

    def write(self, directory: Path) -> Path:
        """Write everything into directory, made if absent, and return it."""
        directory.mkdir(exist_ok=True)
        config = self.raw_config if self.raw_config is not None else json.dumps(self.config).encode()
        everything = {"adapter_config.json": config, "adapter_model.safetensors": self.weights()} | self.files
        for name, content in everything.items():
            (directory / name).write_bytes(content)
        return directory


def framed(header: dict[str, Any] | bytes, data: bytes) -> bytes:
    """A safetensors file of any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def make_upload(
    modules: Sequence[str] = ("q_proj", "down_proj"),
    rank: int = 4,
    base: BaseSpec = BASE,
    seed: int = 0,
    **config: Any,
) -> Upload:
    """A sound float32 adapter with random weights. Further fields go into its config."""
    rng = np.random.default_rng(seed)
    upload = Upload({"peft_type": "LORA", "r": rank, "lora_alpha": 8, "target_modules": list(modules)} | config, {})
    for layer in range(base.layers):
        for module in modules:
            out, in_ = base.shape(module)
            upload.put(name_of(layer, module, "A"), rng.standard_normal((rank, in_), np.float32))
            upload.put(name_of(layer, module, "B"), rng.standard_normal((out, rank), np.float32))
    return upload
