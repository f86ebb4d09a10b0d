"""One step's rows as the tensors that every layer reads: built once, from a StepPlan's rows.

Owns the flattening: all rows' tokens in one line, row after row, whether they prefill or decode.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from tenantry.kernels.attention.layout import AttentionPlan
from tenantry.kernels.lora.plan import LoraPlan
from tenantry.runtime.plan import Row


@dataclass(frozen=True, slots=True)
class Batch:
    """tokens, positions, slots: int64 [T]; slots are where each token's keys and values go. attention, lora: the
    step's plans. last: int64 [drawing rows], each one's last token. drawing: indices of the rows that draw."""

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
        q_lens = [len(row.tokens) for row in rows]
        lengths = [row.start + len(row.tokens) for row in rows]
        attention = AttentionPlan.build(q_lens, lengths, [row.pages for row in rows], page_size, device)
        tokens = np.concatenate([np.asarray(row.tokens, np.int64) for row in rows])
        positions = np.concatenate([np.arange(row.start, n) for row, n in zip(rows, lengths, strict=True)])
        pages = np.concatenate(
            [np.asarray(row.pages, np.int64)[np.arange(row.start, n) // page_size]
             for row, n in zip(rows, lengths, strict=True)]
        )  # fmt: skip
        drawing = tuple(i for i, row in enumerate(rows) if row.draw is not None)
        last = np.cumsum(q_lens)[list(drawing)] - 1
        arrays = (tokens, positions, pages * page_size + positions % page_size, last)
        tokens_at, positions_at, slots_at, last_at = (torch.from_numpy(a).to(device) for a in arrays)
        return cls(tokens_at, positions_at, slots_at, attention, lora, last_at, drawing)
