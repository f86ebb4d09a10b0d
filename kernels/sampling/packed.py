"""A batch's DrawSpecs as one tensor of 64-bit words, so that one copy takes them to a device.

Owns the words' order. What is sparse (bias, penalties, forbidden ids) becomes edits: at most one per row and token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tenantry.kernels.sampling.noise import key
from tenantry.kernels.sampling.spec import DrawSpec

SEEN, FORBIDDEN = 1, 2
INTS, FLOATS = 4, 4  # words per row


@dataclass(frozen=True, slots=True)
class PackedSpecs:
    """ints: int64 [R, 4]: key of the noise, top_k (0 for all), first and past of the row's edits. floats: float64
    [R, 4]: temperature (0 is greedy), log of min_p, top_p, repetition penalty; the first and the last are fp32
    values. edits: int64 [E, 2], token and flags. changes: float32 [E, 2], added first and subtracted last.
    All on the device. draws, filters: whether any row needs noise, or a threshold."""

    ints: Tensor
    floats: Tensor
    edits: Tensor
    changes: Tensor
    draws: bool
    filters: bool

    @classmethod
    def build(cls, specs: Sequence[DrawSpec], vocabulary: int, device: torch.device) -> Self:
        """One copy to the device. Raises IndexError for a token that is not in the vocabulary."""
        rows = len(specs)
        ints, floats = np.zeros((rows, INTS), np.int64), np.zeros((rows, FLOATS))
        edits: list[NDArray[np.int64]] = []
        changes: list[NDArray[np.float32]] = []
        past = 0
        for row, spec in enumerate(specs):
            first = past
            if spec.adjusts:
                tokens, added = edits_of(spec)
                if len(tokens) and not 0 <= tokens[0, 0] <= tokens[-1, 0] < vocabulary:
                    raise IndexError("a token to be changed is not in the vocabulary")
                past += len(tokens)
                edits.append(tokens)
                changes.append(added)
            drawn = spec.temperature > 0
            top_k = spec.top_k if drawn and 0 < spec.top_k < vocabulary else 0
            noise = signed(key(spec.seed, spec.choice, spec.position)) if drawn else 0
            ints[row] = noise, top_k, first, past
            floats[row] = (
                np.float32(spec.temperature),
                np.log(spec.min_p) if drawn and spec.min_p > 0 else -np.inf,
                spec.top_p if drawn else 1,
                np.float32(spec.repetition_penalty),
            )
        parts: tuple[NDArray[Any], ...] = (ints, floats, *edits, *changes)
        words = np.concatenate([part.view(np.int64).reshape(-1) for part in parts])
        sent = torch.from_numpy(words)
        if device.type != "cpu":
            sent = sent.pin_memory().to(device, non_blocking=True)
        a, b, c = rows * INTS, rows * (INTS + FLOATS), rows * (INTS + FLOATS) + 2 * past
        return cls(
            sent[:a].view(rows, INTS),
            sent[a:b].view(torch.float64).view(rows, FLOATS),
            sent[b:c].view(past, 2),
            sent[c:].view(torch.float32).view(past, 2),
            any(spec.temperature > 0 for spec in specs),
            any(spec.temperature > 0 and spec.filters for spec in specs),
        )


def edits_of(spec: DrawSpec) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """A row's edits and changes, by rising token."""
    bias = np.array([token for token, _ in spec.logit_bias], np.int64)
    history = np.asarray(spec.history, np.int64)
    seen = np.unique(history) if spec.repetition_penalty != 1 else history[:0]
    counted = spec.presence_penalty or spec.frequency_penalty
    generated, counts = np.unique(history[spec.prompt_length :] if counted else history[:0], return_counts=True)
    forbidden = np.array(spec.forbidden, np.int64)
    tokens = np.unique(np.concatenate((bias, seen, generated, forbidden)))
    edits, changes = np.zeros((len(tokens), 2), np.int64), np.zeros((len(tokens), 2), np.float32)
    edits[:, 0] = tokens
    edits[np.searchsorted(tokens, seen), 1] |= SEEN
    edits[np.searchsorted(tokens, forbidden), 1] |= FORBIDDEN
    changes[np.searchsorted(tokens, bias), 0] = [value for _, value in spec.logit_bias]
    penalty = spec.presence_penalty + spec.frequency_penalty * counts
    changes[np.searchsorted(tokens, generated), 1] = penalty.astype(np.float32)
    return edits, changes


def signed(word: int) -> int:
    """The int64 of a uint64's bits."""
    return word - (1 << 64) if word >> 63 else word
