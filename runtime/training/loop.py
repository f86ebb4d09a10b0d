"""The training of a head: AdamW over batches of texts, with checkpoints that a later run goes on from.

Owns the loss, the schedule and the checkpoint's file. It must not know which head it trains.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from tenantry.runtime.training import corpus
from tenantry.runtime.training.config import TrainConfig
from tenantry.runtime.training.heads import Guessed, Texts, Trainee, take

CHECKPOINT = "checkpoint.safetensors"
EVERY = 50  # steps between checkpoints
LATER = 0.9  # weight of each level, in that of the one before: it only counts if that one stood
FEATURE = 0.1  # weight of the guessed feature's error beside the token's
WARMUP = 0.05

Tell = Callable[[int, int, float, list[float]], None]
"""(steps done, of how many, loss, share of right tokens at each level)."""


@dataclass(frozen=True, slots=True)
class Loss:
    """total: what is minimised. right: share of tokens guessed right at each level, on the text's own path."""

    total: Tensor
    right: list[float]


def loss_of(trainee: Trainee, batch: corpus.Batch, levels: int) -> Loss:
    """Token cross-entropy at every position of the answers and every level, and where the head guesses features,
    smooth L1 to the target's."""
    most = int((batch.lengths - batch.prompts).max())
    at = batch.prompts.unsqueeze(1) - 1 + torch.arange(most)
    texts = Texts(batch.features, batch.tokens, at)
    total, right = torch.zeros(()), []
    for level, guessed in enumerate(trainee.guess(texts, levels)):
        there = at + 2 + level < batch.lengths.unsqueeze(1)
        if not there.any():
            break
        wanted = take(batch.tokens, at + 2 + level)[there]
        logits = trainee.logits(guessed.states[there], level)
        part = functional.cross_entropy(logits, wanted) + _feature_error(guessed, batch, at + 1 + level, there)
        total = total + LATER**level * part
        right.append((logits.argmax(-1) == wanted).float().mean().item())
    return Loss(total, right)


def _feature_error(guessed: Guessed, batch: corpus.Batch, at: Tensor, there: Tensor) -> Tensor:
    if guessed.feature is None:
        return torch.zeros(())
    return FEATURE * functional.smooth_l1_loss(guessed.feature[there], take(batch.features, at)[there])


class Training:
    """One run over the texts of a corpus; goes on from a checkpoint of the same run if there is one."""

    def __init__(self, config: TrainConfig, trainee: nn.Module, texts: corpus.Corpus, folder: Path) -> None:
        """folder: where the checkpoint is."""
        self._config, self._texts, self._path = config, texts, folder / CHECKPOINT
        self._module: Any = trainee
        parameters = [p for _, p in self._trained()]
        self._optimizer = torch.optim.AdamW(parameters, lr=config.rate, betas=(0.9, 0.95), weight_decay=0.01)
        self._per_epoch = -(-texts.texts // config.batch)
        self.steps, self.done = config.epochs * self._per_epoch, 0
        if self._path.exists():
            self._resume()

    def run(self, tell: Tell) -> None:
        """All steps that are left."""
        config = self._config
        while self.done < self.steps:
            epoch, first = divmod(self.done, self._per_epoch)
            for batch in self._texts.epoch(config.batch, config.seed + epoch, first):
                loss = self._step(batch)
                tell(self.done, self.steps, loss.total.item(), loss.right)
                if self.done % EVERY == 0:
                    self.save()
        self.save()

    def _step(self, batch: corpus.Batch) -> Loss:
        self.done += 1
        for group in self._optimizer.param_groups:
            group["lr"] = self._config.rate * _share(self.done, self.steps)
        loss = loss_of(self._module, batch, self._config.levels)
        if not loss.right:  # answers of a single token: there is nothing to guess
            return loss
        loss.total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._module.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return loss

    def save(self) -> None:
        """Weights, and AdamW's two moments of each; replaces the last checkpoint at once."""
        tensors = {f"weight/{name}": p.detach() for name, p in self._trained()}
        for name, state in self._moments().items():
            tensors |= {f"{key}/{name}": state[key] for key in ("exp_avg", "exp_avg_sq")}
        written = self._path.with_suffix(".part")
        save_file({k: t.contiguous() for k, t in tensors.items()}, written, {"step": str(self.done)})
        written.rename(self._path)

    def _moments(self) -> dict[str, dict[str, Any]]:
        states = self._optimizer.state
        return {name: states[p] for name, p in self._trained() if states.get(p)}

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, p) for name, p in self._module.named_parameters() if p.requires_grad]

    def _resume(self) -> None:
        with safe_open(self._path, framework="pt") as file:
            self.done = int(file.metadata()["step"])
            for name, p in self._trained():
                p.data.copy_(file.get_tensor(f"weight/{name}"))
                if f"exp_avg/{name}" in file.keys():  # noqa: SIM118 - not a mapping
                    state = {key: file.get_tensor(f"{key}/{name}") for key in ("exp_avg", "exp_avg_sq")}
                    self._optimizer.state[p] = {"step": torch.tensor(float(self.done)), **state}


def _share(step: int, steps: int) -> float:
    """Of the peak rate: linear warm-up, then a cosine down to a fiftieth."""
    warm = max(1, int(WARMUP * steps))
    if step <= warm:
        return step / warm
    return 0.02 + 0.98 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))) / 2
