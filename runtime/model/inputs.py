"""A decode step's inputs at addresses that do not change: one host buffer, its twin on the device, one copy.

Owns the buffer's layout and what padding rows hold: token 0 at position 0, a slot that is not written, no adapter and
no query. It must not know what is done with the inputs.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from tenantry.kernels.attention.plan import AttentionPlan, Capacity
from tenantry.kernels.lora.plan import LoraPlan
from tenantry.kernels.lora.table import LoraTable
from tenantry.runtime.model.batch import Batch
from tenantry.runtime.plan import Row

NOT_STORED = -1
EVEN = 2  # words of an int64


class DecodeInputs:
    """For up to `rows` rows of one token each, of at most `length` positions. batch is what the model reads, base the
    same without adapters: their tensors lie in one device buffer, so that a graph captured over them replays with
    whatever fill() has put there."""

    def __init__(self, rows: int, length: int, page_size: int, device: str) -> None:
        self.rows = rows
        self.page_size = page_size
        self._capacity = Capacity(rows, 1, length)
        empty = self._attention([], [])
        lora_words = LoraPlan.words(rows, rows)
        sizes = (EVEN * rows, EVEN * rows, EVEN * rows, empty.buffer.numel(), lora_words)
        starts = np.cumsum([0, *(size + size % EVEN for size in sizes)]).tolist()
        self._host = torch.zeros(starts[-1], dtype=torch.int32, pin_memory=device != "cpu")
        self._device = torch.zeros(starts[-1], dtype=torch.int32, device=device)

        def part(buffer: Tensor, index: int) -> Tensor:
            return buffer[starts[index] : starts[index] + sizes[index]]

        self._tokens, self._positions, self._slots = (part(self._host, i).view(torch.int64).numpy() for i in range(3))
        self._attention_words, self._lora_words = part(self._host, 3), part(self._host, 4)
        tokens, positions, slots = (part(self._device, i).view(torch.int64) for i in range(3))
        attention = empty.over(part(self._device, 3))
        self.lora = LoraPlan.reserve(rows, rows, device=device, buffer=part(self._device, 4))
        last = torch.arange(rows, device=device)
        self.batch = Batch(tokens, positions, slots, attention, self.lora, last, tuple(range(rows)))
        self.base = replace(self.batch, lora=None)

    def fill(self, rows: Sequence[Row], adapters: Sequence[int | None], table: LoraTable) -> None:
        """Queue one copy of these rows' inputs. adapters: the slot of each row's adapter. The copy that fill queued
        before must be done. Raises ValueError for rows that do not fit, or a slot that is not resident."""
        size = self.page_size
        self._tokens[:], self._positions[:], self._slots[:] = 0, 0, NOT_STORED
        for i, row in enumerate(rows):
            (token,) = row.tokens
            self._tokens[i], self._positions[i] = token, row.start
            self._slots[i] = row.pages[row.start // size] * size + row.start % size
        lengths, pages = [row.start + 1 for row in rows], [row.pages for row in rows]
        self._attention_words.copy_(self._attention(lengths, pages).buffer)
        self.lora.refill(adapters, [1] * len(rows), table.ranks, table.epoch, self._lora_words)
        self._device.copy_(self._host, non_blocking=True)

    def _attention(self, lengths: Sequence[int], pages: Sequence[Sequence[int]]) -> AttentionPlan:
        return AttentionPlan.build([1] * len(lengths), lengths, pages, self.page_size, capacity=self._capacity)
