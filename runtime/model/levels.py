"""The same rows one token further, level after level: what a draft model computes between two steps of its target.

Owns one plan for all levels, whose lengths grow in place: for a draft model as small as they are, making a plan anew
takes as long as a layer. It must not know what tokens are guessed.
"""

from collections.abc import Sequence

import torch

from tenantry.kernels.attention.plan import CHUNK, AttentionPlan
from tenantry.kernels.lora.plan import LoraPlan
from tenantry.runtime.model.batch import Batch


class Levels:
    """starts: each row's first position to compute. most: levels at most, for which its pages have room. lora: the
    plan over these rows, one token each; None when none is adapted."""

    def __init__(
        self,
        starts: Sequence[int],
        pages: Sequence[Sequence[int]],
        most: int,
        page_size: int,
        device: str,
        lora: LoraPlan | None,
    ) -> None:
        self._starts, self._pages, self._most = starts, pages, most
        self._page_size, self._device, self._lora = page_size, device, lora
        self._level = 0
        self._steady = all(start // CHUNK == (start + most - 1) // CHUNK for start in starts)
        self._first = torch.tensor(starts, device=device)
        self._last = torch.arange(len(starts), device=device)
        self._plan = self._build(most)

    def next(self, tokens: Sequence[int]) -> Batch:
        """The next level's batch: one token of each row. The batch before it is no longer what it was."""
        level, size, plan = self._level, self._page_size, self._plan
        assert level < self._most, "there are no pages for further levels"
        self._level += 1
        positions = self._first + level
        if self._steady:
            plan.lengths.copy_(positions).add_(1)
            plan.seen.copy_(plan.lengths)
        else:  # somewhere a piece of attention begins
            plan = self._build(level + 1)
        places = ((start + level, pages) for start, pages in zip(self._starts, self._pages, strict=True))
        slots = torch.tensor([pages[at // size] * size + at % size for at, pages in places], device=self._device)
        drawing = tuple(range(len(tokens)))
        entered = torch.tensor(tokens, device=self._device)
        return Batch(entered, positions, slots, plan, self._lora, self._last, drawing)

    def _build(self, level: int) -> AttentionPlan:
        """As it is at a level, counted from 1."""
        lengths = [start + level for start in self._starts]
        return AttentionPlan.build([1] * len(lengths), lengths, self._pages, self._page_size, self._device)
