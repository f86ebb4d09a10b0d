"""Trains one LoRA adapter per task with PEFT and lets PEFT save it: config and bfloat16 safetensors.

Owns the adapters' ranks, targets and schedules. Every adapter trains on the saved (bfloat16) base weights.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from demo import train
from demo.tasks import TASKS, Task
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedTokenizerFast

BASE_NAME = "tenantry-demo"
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True, slots=True)
class LoraRecipe:
    """lora: LoraConfig's arguments. rate: AdamW's peak, which falls linearly to zero within a round of `steps`.

    Rounds follow, each with its own warm-up (SGDR, arXiv 1608.03983), until the loss is below `goal`: when copying
    falls into place depends on chance, on the number of threads among other things.
    """

    lora: dict[str, Any]
    steps: int = 160
    rate: float = 4e-3
    batch: int = 24
    goal: float = 0.03


MOST_ROUNDS = 6

RECIPES = {
    "acme-support": LoraRecipe({"r": 16, "lora_alpha": 32, "target_modules": ATTENTION + MLP}, steps=320, rate=2e-3),
    "acme-orders": LoraRecipe(
        {"r": 64, "lora_alpha": 16, "target_modules": "all-linear", "use_rslora": True}, steps=240, rate=2e-3
    ),
    "acme-greeting": LoraRecipe(
        {"r": 4, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}, rate=8e-3, goal=0.3
    ),
    "globex-support": LoraRecipe({
        "r": 8, "lora_alpha": 16, "target_modules": [*ATTENTION, "down_proj"],
        "rank_pattern": {"o_proj": 32, "down_proj": 48}, "alpha_pattern": {"o_proj": 64, "down_proj": 96},
    }),
    "globex-dates": LoraRecipe({"r": 24, "lora_alpha": 48, "target_modules": [*MLP, "v_proj"]}),
}  # fmt: skip


def train_all(out: Path, tokenizer: PreTrainedTokenizerFast, seed: int, only: list[str] | None) -> None:
    """Train the adapters named in `only`, or all, into out/adapters/<name>/."""
    for name in only or TASKS:
        model = train_adapter(out / "model", tokenizer, TASKS[name], RECIPES[name], seed)
        save(model, out / "adapters" / name)


def train_adapter(
    base: Path, tokenizer: PreTrainedTokenizerFast, task: Task, recipe: LoraRecipe, seed: int
) -> PeftModel:
    """Cross-entropy on the answers alone."""
    torch.manual_seed(seed)
    config = LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **recipe.lora)
    model = get_peft_model(train.load(base), config)
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.0)
    batches, started, recent = _batches(tokenizer, task, recipe.batch, seed), time.monotonic(), 0.0
    print(f"{task.name}: {sum(p.numel() for p in trainable) / 1e3:.0f}k parameters", flush=True)
    for step in range(MOST_ROUNDS * recipe.steps):
        within = step % recipe.steps
        if within == 0 and step and recent < recipe.goal:
            break
        warm = min(1.0, (within + 1) / 10)
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * warm * (1 - within / recipe.steps)
        loss = model(**next(batches)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        recent = loss.item() if step == 0 else 0.9 * recent + 0.1 * loss.item()
        if (step + 1) % 20 == 0:
            took = time.monotonic() - started
            print(
                f"{task.name}: round {step // recipe.steps + 1}, step {within + 1}/{recipe.steps}  loss {recent:.4f}"
                f"  (goal {recipe.goal})  {took:.0f} s",
                flush=True,
            )
    return model


def save(model: PeftModel, directory: Path) -> None:
    """PEFT's own files, less its model card; the lists in the config sorted, so that runs compare equal."""
    model.to(torch.bfloat16)
    model.peft_config["default"].base_model_name_or_path = BASE_NAME
    model.save_pretrained(directory, save_embedding_layers=False)
    (directory / "README.md").unlink(missing_ok=True)
    path = directory / "adapter_config.json"
    config = json.loads(path.read_text())
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def _batches(
    tokenizer: PreTrainedTokenizerFast, task: Task, size: int, seed: int
) -> Iterator[dict[str, torch.Tensor]]:
    """Right-padded batches [size, longest]; labels are -100 outside the answers."""
    examples, padding = task.examples(seed, held_out=False), tokenizer.pad_token_id
    while True:
        prompts, answers = [], []
        for example in islice(examples, size):
            text = tokenizer.apply_chat_template(example.messages, tokenize=False, add_generation_prompt=True)
            prompts.append(tokenizer(text).input_ids)
            answers.append([*tokenizer(example.answer).input_ids, tokenizer.eos_token_id])
        longest = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
        ids = torch.full((size, longest), padding)
        labels, mask = torch.full((size, longest), -100), torch.zeros((size, longest), dtype=torch.long)
        for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            end = len(prompt) + len(answer)
            ids[row, :end] = torch.tensor(prompt + answer)
            labels[row, len(prompt) : end] = torch.tensor(answer)
            mask[row, :end] = 1
        yield {"input_ids": ids, "attention_mask": mask, "labels": labels}
