"""One step's rows as the tensors that every layer reads: built once, from a StepPlan's rows.

Owns the flattening: all rows' tokens in one line, row after row, whether they prefill or decode.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Self

import numpy as np
import torch
from torch import Tensor

from tenantry.kernels.attention.plan import AttentionPlan
from tenantry.kernels.lora.plan import LoraPlan
from tenantry.runtime.plan import Row
from tenantry.runtime.speculative.tree import ancestor_masks, depths


def draft_length(row: Row) -> int:
    """Nodes of a row's draft."""
    return 0 if row.draft is None else len(row.draft.tokens)


def branches(row: Row) -> bool:
    """Whether a row's draft is more than a chain, so that not every token sees all before it."""
    return row.draft is not None and not row.draft.is_chain


def row_lengths(rows: Sequence[Row]) -> list[int]:
    """Tokens that each row computes, guesses included."""
    return [len(row.tokens) + draft_length(row) for row in rows]


@dataclass(frozen=True, slots=True)
class Batch:
    """tokens, positions, slots: int64 [T]; slots are where each token's keys and values go. attention, lora: the
    step's plans. last: int64 [draws], for each row that draws its last token and then the nodes of its draft.
    drawing: indices of the rows that draw. A draft's nodes follow their row's own tokens: each in a slot of its own,
    in order, but at the position of its depth."""

    tokens: Tensor
    positions: Tensor
    slots: Tensor
    attention: AttentionPlan
    lora: LoraPlan | None
    last: Tensor
    drawing: tuple[int, ...]

    @classmethod
    def build(cls, rows: Sequence[Row], page_size: int, lora: LoraPlan | None, device: str = "cpu") -> Self:
        """lora: the plan over the same rows, or None when all are of the base model. Raises ValueError for rows
        whose pages do not cover their tokens."""
        q_lens = row_lengths(rows)
        lengths = [row.start + q_len for row, q_len in zip(rows, q_lens, strict=True)]
        pages, masks = [row.pages for row in rows], _masks(rows, q_lens)
        attention = AttentionPlan.build(q_lens, lengths, pages, page_size, device, masks)
        tokens: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        for row, length in zip(rows, lengths, strict=True):
            tokens += row.tokens
            if row.draft is not None:
                tokens += row.draft.tokens
            for page in range(row.start // page_size, -(-length // page_size)):
                begin = page * page_size
                own = range(max(row.start, begin), min(length, begin + page_size))
                positions += own
                shift = row.pages[page] * page_size - begin
                slots += range(own.start + shift, own.stop + shift)
            if branches(row) and row.draft is not None:
                base = row.start + len(row.tokens) - 1
                positions[-len(row.draft.tokens) :] = [base + depth for depth in depths(row.draft)]
        drawing = tuple(i for i, row in enumerate(rows) if row.draw is not None)
        past = list(accumulate(q_lens))
        last = [at for i in drawing for at in range(past[i] - draft_length(rows[i]) - 1, past[i])]

        def ints(values: list[int]) -> Tensor:
            made = torch.from_numpy(np.array(values, np.int64))
            return made if device == "cpu" else made.to(device)

        return cls(ints(tokens), ints(positions), ints(slots), attention, lora, ints(last), drawing)


def _masks(rows: Sequence[Row], q_lens: Sequence[int]) -> list[int] | None:
    """What each token sees of its own row's, for rows whose drafts branch; None when none does."""
    if not any(map(branches, rows)):
        return None
    masks: list[int] = []
    for row, q_len in zip(rows, q_lens, strict=True):
        if branches(row) and row.draft is not None:
            masks += ancestor_masks(row.draft, len(row.tokens))
        else:
            masks += [0] * q_len
    return masks
