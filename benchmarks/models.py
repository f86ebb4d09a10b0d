"""Makes the benchmark's model and adapters from a seed, without any download.

A Qwen2 of the 0.5B shape (vocabulary cut to 32,000) with random weights, a real byte-level tokenizer trained on
the standard library's own text, and 32 PEFT-format adapters of ranks 8, 16, 32, 64 in turn on all seven
projections. The text is noise; the shapes and the work per token are real, and each adapter changes the output.
"""

import json
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

VOCAB = 32000
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
RANKS = (8, 16, 32, 64)
SEED = 20260
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SHAPE = {
    "hidden_size": 896,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "intermediate_size": 4864,
}


def standard_library_text() -> Iterator[str]:
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        try:
            yield path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def make_tokenizer(out: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    room = VOCAB - len(SPECIALS)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=room, show_progress=False, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(standard_library_text(), trainer)
    tokenizer.add_tokens([f"<|unused_{i}|>" for i in range(room - tokenizer.get_vocab_size())])
    tokenizer.add_special_tokens(SPECIALS)
    tokenizer.save(str(out / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": SPECIALS[2],
        "pad_token": SPECIALS[0],
        "clean_up_tokenization_spaces": False,
        "chat_template": TEMPLATE,
    }
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=1))


def make_base(out: Path) -> None:
    from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=VOCAB,
        max_position_embeddings=32768,
        tie_word_embeddings=True,
        rms_norm_eps=1e-6,
        bos_token_id=VOCAB - 3,
        eos_token_id=VOCAB - 1,
        pad_token_id=VOCAB - 3,
        architectures=["Qwen2ForCausalLM"],
        **SHAPE,
    )
    model = Qwen2ForCausalLM(config)
    noise = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            if "norm" in name:
                p.fill_(1.0)
            elif name.endswith("bias") or "embed_tokens" in name:
                p.normal_(0.0, 0.02, generator=noise)
            else:  # keep the activations' variance through the depth
                p.normal_(0.0, p.shape[1] ** -0.5, generator=noise)
    model = model.to(torch.bfloat16)
    ends = {"eos_token_id": VOCAB - 1, "pad_token_id": VOCAB - 3, "bos_token_id": VOCAB - 3}
    model.generation_config = GenerationConfig(do_sample=False, **ends)
    model.save_pretrained(out)


def projections() -> dict[str, tuple[int, int]]:
    """Module path within a layer -> (out, in)."""
    h, i = SHAPE["hidden_size"], SHAPE["intermediate_size"]
    kv = h // SHAPE["num_attention_heads"] * SHAPE["num_key_value_heads"]
    attention = {"q_proj": (h, h), "k_proj": (kv, h), "v_proj": (kv, h), "o_proj": (h, h)}
    mlp = {"gate_proj": (i, h), "up_proj": (i, h), "down_proj": (h, i)}
    return {f"self_attn.{k}": v for k, v in attention.items()} | {f"mlp.{k}": v for k, v in mlp.items()}


def make_adapter(out: Path, index: int) -> None:
    """PEFT's own file layout. B is scaled so that delta-W has a few per cent of a base weight's norm."""
    rank = RANKS[index % len(RANKS)]
    noise = torch.Generator().manual_seed(SEED * 1000 + index)
    tensors = {}
    for layer in range(SHAPE["num_hidden_layers"]):
        for module, (rows, columns) in projections().items():
            name = f"base_model.model.model.layers.{layer}.{module}"
            a = torch.randn(rank, columns, generator=noise) * columns**-0.5
            b = torch.randn(rows, rank, generator=noise) * 0.1 * rank**-0.5
            tensors[f"{name}.lora_A.weight"] = a.bfloat16()
            tensors[f"{name}.lora_B.weight"] = b.bfloat16()
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "benchmark",
        "r": rank,
        "lora_alpha": 2 * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
        "target_modules": sorted(m.split(".")[1] for m in projections()),
    }
    (out / "adapter_config.json").write_text(json.dumps(config, indent=1))


def make(folder: Path, adapters: int = 32) -> Path:
    """folder/base, folder/adapters/00 … ; made once, then reused."""
    base = folder / "base"
    if not (base / "model.safetensors").exists():
        base.mkdir(parents=True, exist_ok=True)
        print("making the 0.5B-shaped model and its tokenizer", flush=True)
        make_tokenizer(base)
        make_base(base)
    for index in range(adapters):
        out = folder / "adapters" / f"{index:02d}"
        if not (out / "adapter_config.json").exists():
            print(f"making adapter {index + 1} of {adapters}", flush=True)
            make_adapter(out, index)
    return folder
