"""Writes the benchmark's model and adapters as GGUF, for llama.cpp: `python gguf_files.py MODEL ADAPTERS OUT TYPE`.

Runs in the peer's environment, with the converter's package `gguf` and numpy and nothing of ours. Only what the
benchmark needs: Qwen2, whose tensors keep their order; the same bf16 numbers, or llama.cpp's own Q8_0 of them.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np

NAMES = {
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
WHOLE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
TYPES = gguf.GGMLQuantizationType


def tensors(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Name and bf16 bits [uint16] of each tensor of a safetensors file."""
    raw = path.read_bytes()
    header_bytes = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + header_bytes])
    header.pop("__metadata__", None)
    for name, entry in header.items():
        if entry["dtype"] != "BF16":
            raise ValueError(f"{name}: {entry['dtype']}, where only BF16 is expected")
        begin, end = (8 + header_bytes + offset for offset in entry["data_offsets"])
        yield name, np.frombuffer(raw[begin:end], np.uint16).reshape(entry["shape"])


def floats(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def named(name: str) -> str:
    """llama.cpp's name of a Qwen2 tensor. Raises KeyError for one that it has none for."""
    if name in WHOLE:
        return WHOLE[name]
    layer, rest = name.removeprefix("model.layers.").split(".", 1)
    if rest in NAMES:
        return f"blk.{layer}.{NAMES[rest]}"
    module, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{NAMES[module]}.{kind}"


def write_model(model: Path, out: Path, kind: TYPES) -> None:
    config: dict[str, Any] = json.loads((model / "config.json").read_text())
    rope = config.get("rope_parameters") or config
    writer = gguf.GGUFWriter(out, "qwen2")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(rope.get("rope_theta", 10000.0))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    add_tokenizer(writer, json.loads((model / "tokenizer.json").read_text()), config)
    for name, bits in tensors(model / "model.safetensors"):
        if bits.ndim == 1:
            writer.add_tensor(named(name), floats(bits))
        elif kind == TYPES.BF16:
            writer.add_tensor(named(name), bits, raw_dtype=kind)
        else:
            writer.add_tensor(named(name), gguf.quants.quantize(floats(bits), kind), raw_dtype=kind)
    finish(writer)


def add_tokenizer(writer: gguf.GGUFWriter, tokenizer: dict[str, Any], config: dict[str, Any]) -> None:
    """Prompts are sent as token ids, so that how text would be split does not matter."""
    words = tokenizer["model"]["vocab"] | {t["content"]: t["id"] for t in tokenizer["added_tokens"]}
    special = {t["id"] for t in tokenizer["added_tokens"] if t["special"]}
    ordered = [""] * config["vocab_size"]
    for word, index in words.items():
        ordered[index] = word
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(ordered)
    kinds = gguf.TokenType
    writer.add_token_types([kinds.CONTROL if i in special else kinds.NORMAL for i in range(len(ordered))])
    merges = tokenizer["model"]["merges"]
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(False)


def write_adapter(folder: Path, out: Path) -> None:
    config = json.loads((folder / "adapter_config.json").read_text())
    writer = gguf.GGUFWriter(out, "qwen2")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(config["lora_alpha"]))
    for name, bits in tensors(folder / "adapter_model.safetensors"):
        module, side = name.removeprefix("base_model.model.").removesuffix(".weight").rsplit(".lora_", 1)
        writer.add_tensor(f"{named(module + '.weight')}.lora_{side.lower()}", floats(bits).astype(np.float16))
    finish(writer)


def finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main(model: Path, adapters: Path, out: Path, kind: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    if not (made := out / f"model-{kind}.gguf").exists():
        write_model(model, made.with_suffix(".part"), TYPES[kind])
        made.with_suffix(".part").rename(made)
    for folder in sorted(adapters.iterdir()):
        if not (made := out / f"adapter-{folder.name}.gguf").exists():
            write_adapter(folder, made.with_suffix(".part"))
            made.with_suffix(".part").rename(made)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
