"""Pre-training of the demo's base model and of its draft: two Llama shapes, one text, AdamW on the CPU.

Owns the shapes, the schedule and the saved weights (bfloat16 safetensors). Must not know the adapters' tasks.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from demo.corpus import END_OF_TEXT, TURN_END, documents
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TOKENS_PER_STEP = 2048


@dataclass(frozen=True, slots=True)
class Recipe:
    """One training run, in rounds of so many steps, each with its own warm-up and decay (SGDR, arXiv 1608.03983).
    In a round sequence lengths grow: cheap short ones first, 1,024 tokens at the end."""

    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    rounds: tuple[int, ...]
    peak_rate: float
    warmup: int = 50
    lengths: tuple[tuple[float, int], ...] = ((0.75, 256), (0.9, 512), (1.0, 1024))

    def length_at(self, step: int, steps: int) -> int:
        return next(length for share, length in self.lengths if step < share * steps)

    def rate_at(self, step: int, steps: int) -> float:
        """Linear warm-up, then a cosine down to a fiftieth."""
        if step < self.warmup:
            return self.peak_rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / (steps - self.warmup)
        return self.peak_rate * (0.02 + 0.98 * (1 + math.cos(math.pi * progress)) / 2)


BASE = Recipe(
    "model", hidden=256, layers=4, heads=8, kv_heads=4, intermediate=688, rounds=(800, 1500), peak_rate=2e-3
)
DRAFT = Recipe(
    "draft", hidden=64, layers=2, heads=2, kv_heads=1, intermediate=176, rounds=(800, 1500), peak_rate=4e-3
)


def build(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=recipe.hidden, num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads, num_key_value_heads=recipe.kv_heads, head_dim=32,
        intermediate_size=recipe.intermediate, max_position_embeddings=2048, tie_word_embeddings=False,
        rms_norm_eps=1e-5, bos_token_id=None, eos_token_id=tokenizer.convert_tokens_to_ids(TURN_END),
        pad_token_id=tokenizer.convert_tokens_to_ids(END_OF_TEXT), attn_implementation="sdpa",
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    _prepare_to_copy(model)
    return model


@torch.no_grad()
def _prepare_to_copy(model: LlamaForCausalLM) -> None:
    """Start near the identity, after Trockman and Kolter's mimetic initialisation (arXiv 2305.09828).

    Names and digits stand in for each other in the text: at the usual 0.02 their vectors drift together and
    nothing can tell them apart. Wide embeddings, an output head that points the same way, and o_proj = v_proj^T
    make every head a copier from the first step, so that only where to look is left to learn.
    """
    embedding = torch.nn.init.normal_(model.model.embed_tokens.weight, std=0.5)
    model.lm_head.weight.copy_(embedding * 0.04)
    for layer in model.model.layers:
        attention = layer.self_attn
        value = torch.nn.init.orthogonal_(attention.v_proj.weight, gain=0.5)
        groups = value.view(-1, attention.head_dim, value.shape[1])
        shared = groups.repeat_interleave(attention.num_key_value_groups, dim=0)
        attention.o_proj.weight.copy_(shared.reshape(-1, value.shape[1]).T)


def pretrain(recipe: Recipe, tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """Train from scratch, a round after the other, each on text of its own."""
    torch.manual_seed(seed)
    model = build(recipe, tokenizer)
    print(f"{recipe.name}: {sum(p.numel() for p in model.parameters()) / 1e6:.2f}M parameters", flush=True)
    for index in range(len(recipe.rounds)):
        train_round(model, recipe, index, _tokens(tokenizer, seed + index))
    return model


def train_round(model: LlamaForCausalLM, recipe: Recipe, index: int, stream: Iterator[torch.Tensor]) -> None:
    """`recipe.rounds[index]` steps of TOKENS_PER_STEP tokens each, in place; prints the loss as it goes."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "layers" in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "layers" not in name]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.peak_rate, betas=(0.9, 0.95), fused=True)
    steps, started, recent = recipe.rounds[index], time.monotonic(), 0.0
    label = f"{recipe.name}, round {index + 1}/{len(recipe.rounds)}"
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate_at(step, steps)
        batch = next(stream).view(-1, recipe.length_at(step, steps))
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        recent = loss.item() if step == 0 else 0.95 * recent + 0.05 * loss.item()
        if (step + 1) % 25 == 0:
            left = (time.monotonic() - started) / (step + 1) * (steps - step - 1) / 60
            print(f"{label}: step {step + 1}/{steps}  loss {recent:.3f}  {left:.1f} min left", flush=True)


def save(model: LlamaForCausalLM, directory: Path) -> None:
    """Round the weights to bfloat16, in place, and write config.json and model.safetensors."""
    model.to(torch.bfloat16)
    config = model.config
    model.generation_config = GenerationConfig(
        eos_token_id=[config.eos_token_id, config.pad_token_id], pad_token_id=config.pad_token_id, do_sample=False
    )
    model.save_pretrained(directory)


def load(directory: Path, dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(directory, dtype=dtype).eval()


def _tokens(tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[torch.Tensor]:
    """Documents end to end, cut every TOKENS_PER_STEP tokens; texts cross the cuts, so contexts start anywhere."""
    waiting: list[int] = []
    for text in documents(seed):
        waiting += tokenizer(text).input_ids
        while len(waiting) >= TOKENS_PER_STEP:
            yield torch.tensor(waiting[:TOKENS_PER_STEP])
            del waiting[:TOKENS_PER_STEP]
