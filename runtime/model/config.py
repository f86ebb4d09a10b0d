"""The shape and arithmetic of a base model, read from Hugging Face's config.json without transformers.

Owns the closed list of what this decoder can do. A field that is neither understood nor known to be inert is
refused by name: serving a model with other arithmetic than it was trained with is worse than not serving it.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tenantry.runtime.model.errors import ModelUnsupported
from tenantry.runtime.model.fields import Fields
from tenantry.runtime.model.rope import Rope, read_rope

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")

INERT = (
    "architectures", "transformers_version", "torch_dtype", "dtype", "use_cache", "initializer_range",
    "attention_dropout", "bos_token_id", "pad_token_id", "pretraining_tp", "output_attentions",
    "output_hidden_states", "return_dict", "chunk_size_feed_forward", "id2label", "label2id", "problem_type",
    "max_window_layers", "keys_to_ignore_at_inference", "unsloth_version", "unsloth_fixed",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A decoder of the Llama line. Biases are of the projections they name; qk_norm is Qwen3's RMSNorm per head.

    max_context: positions for which the arithmetic is the model's own: its trained length, or its attention window
    where that is smaller (inside the window, windowed and full attention are the same).
    """

    family: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    rms_eps: float
    rope: Rope
    qkv_bias: bool
    o_bias: bool
    mlp_bias: bool
    qk_norm: bool
    tied: bool
    max_context: int
    end_tokens: tuple[int, ...]

    @classmethod
    def from_directory(cls, directory: Path) -> Self:
        """Read config.json, and generation_config.json for the end tokens if it is there.
        Raises ModelUnsupported naming the field that is missing, malformed or not supported."""
        return cls.from_fields(Fields(_read_object(directory / "config.json")), directory)

    @classmethod
    def from_fields(cls, fields: Fields, directory: Path) -> Self:
        """As from_directory, of config.json's fields less those that the caller has taken for itself."""
        family = fields.text("model_type", "none")
        if family not in FAMILIES:
            raise ModelUnsupported("model_type", f"{family!r} is not supported; {', '.join(FAMILIES)} are")
        heads, hidden = fields.size("num_attention_heads"), fields.size("hidden_size")
        attention_bias = fields.flag("attention_bias", family == "qwen2")
        if family in ("mistral", "qwen2") and attention_bias != (family == "qwen2"):
            raise ModelUnsupported("attention_bias", f"{attention_bias} is not what {family} does")
        mlp_bias = fields.flag("mlp_bias", False)
        if mlp_bias and family != "llama":
            raise ModelUnsupported("mlp_bias", f"is not what {family} does")
        context = fields.size("max_position_embeddings")
        config = cls(
            family=family,
            layers=fields.size("num_hidden_layers"),
            hidden=hidden,
            intermediate=fields.size("intermediate_size"),
            heads=heads,
            kv_heads=fields.size("num_key_value_heads", heads if family == "llama" else None),
            head_dim=fields.size("head_dim", 128 if family == "qwen3" else hidden // heads),
            vocab=fields.size("vocab_size"),
            rms_eps=fields.number("rms_norm_eps", 1e-6),
            rope=read_rope(fields),
            qkv_bias=attention_bias,
            o_bias=attention_bias and family != "qwen2",
            mlp_bias=mlp_bias,
            qk_norm=family == "qwen3",
            tied=fields.flag("tie_word_embeddings", False),
            max_context=min(context, _window(fields, family, context)),
            end_tokens=_end_tokens(directory, fields),
        )
        fields.only("hidden_act", "silu")
        fields.only("is_encoder_decoder", False)
        fields.only("layer_types", ["full_attention"] * config.layers)
        fields.ignore(INERT)
        fields.close()
        if config.heads % config.kv_heads:
            raise ModelUnsupported("num_key_value_heads", f"does not divide num_attention_heads ({config.heads})")
        if config.head_dim % 2:
            raise ModelUnsupported("head_dim", "must be even")
        if any(token >= config.vocab for token in config.end_tokens):
            raise ModelUnsupported("eos_token_id", "is not in the vocabulary")
        return config


def _window(fields: Fields, family: str, context: int) -> int:
    """The attention window, or context where attention is full. Qwen writes one down that it does not use."""
    if family in ("qwen2", "qwen3"):
        if fields.flag("use_sliding_window", False):
            raise ModelUnsupported("use_sliding_window", "is not supported")
        fields.ignore(["sliding_window"])
        return context
    return fields.size("sliding_window", context) if family == "mistral" else context


def _end_tokens(directory: Path, fields: Fields) -> tuple[int, ...]:
    """generation_config.json speaks first, as it does in transformers."""
    own = fields.ids("eos_token_id")
    path = directory / "generation_config.json"
    if not path.is_file():
        return own
    return Fields(_read_object(path), "generation_config.").ids("eos_token_id") or own


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ModelUnsupported(path.name, "the model's directory has no such file") from None
    except (ValueError, RecursionError):
        raise ModelUnsupported(path.name, "is not JSON") from None
    if not isinstance(value, dict):
        raise ModelUnsupported(path.name, "expected an object")
    return value
