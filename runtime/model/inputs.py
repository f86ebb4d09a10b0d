"""A decode step's inputs at addresses that do not change: one host buffer, its twin on the device, one copy.

Owns the buffer's layout and what padding rows hold: token 0 at position 0, a slot that is not written, no adapter and
no query. It must not know what is done with the inputs. Host buffers take turns, so that the next step's inputs are
built while the device is at this one's: all but the tokens, which nobody knows yet.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tenantry.kernels.attention.plan import AttentionPlan, Capacity
from tenantry.kernels.lora.plan import LoraPlan
from tenantry.kernels.lora.table import LoraTable
from tenantry.runtime.model.batch import Batch
from tenantry.runtime.plan import Row

NOT_STORED = -1
EVEN = 2  # words of an int64


@dataclass(frozen=True, slots=True)
class Host:
    """One buffer in host memory, and its parts."""

    buffer: Tensor
    tokens: NDArray[np.int64]
    positions: NDArray[np.int64]
    slots: NDArray[np.int64]
    attention: Tensor
    block_table: NDArray[np.int32]
    lora: Tensor


@dataclass(frozen=True, slots=True)
class Expected:
    """What a buffer holds already. rows: (sequence, start, adapter's slot) of each. pages: as far as they were known.
    epoch: of the adapters' table."""

    rows: list[tuple[int, int, int | None]]
    pages: list[list[int]]
    epoch: int


class DecodeInputs:
    """For up to `rows` rows of one token each, of at most `length` positions. batch is what the model reads, base the
    same without adapters: their tensors lie in one device buffer, so that a graph captured over them replays with
    whatever fill() has put there."""

    def __init__(self, rows: int, length: int, page_size: int, device: str) -> None:
        self.rows = rows
        self.page_size = page_size
        self._capacity = Capacity(rows, 1, length)
        empty = self._attention([], [])
        sizes = (EVEN * rows, EVEN * rows, EVEN * rows, empty.buffer.numel(), LoraPlan.words(rows, rows))
        starts = np.cumsum([0, *(size + size % EVEN for size in sizes)]).tolist()
        pinned = device != "cpu"
        self._hosts = [_host(sizes, starts, empty, pinned) for _ in range(2)]  # the first is the next to be filled
        self._expected: Expected | None = None
        self._device = torch.zeros(starts[-1], dtype=torch.int32, device=device)
        parts = [self._device[start : start + size] for start, size in zip(starts, sizes, strict=False)]
        tokens, positions, slots = (part.view(torch.int64) for part in parts[:3])
        self.lora = LoraPlan.reserve(rows, rows, device=device, buffer=parts[4])
        last = torch.arange(rows, device=device)
        self.batch = Batch(tokens, positions, slots, empty.over(parts[3]), self.lora, last, tuple(range(rows)))
        self.base = replace(self.batch, lora=None)

    def fill(self, rows: Sequence[Row], adapters: Sequence[int | None], table: LoraTable) -> None:
        """Queue one copy of these rows' inputs. adapters: the slot of each row's adapter. The copy before the last
        one must be done. Raises ValueError for rows that do not fit, or a slot that is not resident."""
        host, expected, self._expected = self._hosts[0], self._expected, None
        if expected is not None and expected.rows == _identity(rows, adapters):
            self._correct(host, expected, rows)
            if expected.epoch != table.epoch:
                self._adapt(host, adapters, table)
        else:
            self._write(host, [row.start for row in rows], [row.pages for row in rows])
            self._adapt(host, adapters, table)
        for i, row in enumerate(rows):
            (host.tokens[i],) = row.tokens
        self._hosts.reverse()
        self._device.copy_(host.buffer, non_blocking=True)

    def expect(self, rows: Sequence[Row], adapters: Sequence[int | None], table: LoraTable) -> None:
        """Build the inputs of a step in which each of these rows, which fit, is one token longer, while they compute:
        fill() then writes the tokens and what has come out otherwise. The copy before the last one must be done."""
        starts = [row.start + 1 for row in rows]
        pages = [list(row.pages) for row in rows]
        for start, known in zip(starts, pages, strict=True):
            known += [0] * (start // self.page_size + 1 - len(known))  # not leased yet
        self._write(self._hosts[0], starts, pages)
        self._adapt(self._hosts[0], adapters, table)
        identity = [(row.sequence, start, slot) for row, start, slot in zip(rows, starts, adapters, strict=True)]
        self._expected = Expected(identity, pages, table.epoch)

    def _write(self, host: Host, starts: Sequence[int], pages: Sequence[Sequence[int]]) -> None:
        """All but tokens and adapters."""
        host.tokens[:], host.positions[:], host.slots[:] = 0, 0, NOT_STORED
        for i, (start, own) in enumerate(zip(starts, pages, strict=True)):
            host.positions[i], host.slots[i] = start, self._slot(start, own)
        host.attention.copy_(self._attention([start + 1 for start in starts], pages).buffer)

    def _adapt(self, host: Host, adapters: Sequence[int | None], table: LoraTable) -> None:
        self.lora.refill(adapters, [1] * len(adapters), table.ranks, table.epoch, host.lora)

    def _correct(self, host: Host, expected: Expected, rows: Sequence[Row]) -> None:
        """Pages that were leased or moved since."""
        for i, (row, pages) in enumerate(zip(rows, expected.pages, strict=True)):
            if row.pages != pages:
                used = row.start // self.page_size + 1
                host.slots[i] = self._slot(row.start, row.pages)
                host.block_table[i, :used] = row.pages[:used]

    def _slot(self, position: int, pages: Sequence[int]) -> int:
        return pages[position // self.page_size] * self.page_size + position % self.page_size

    def _attention(self, lengths: Sequence[int], pages: Sequence[Sequence[int]]) -> AttentionPlan:
        return AttentionPlan.build([1] * len(lengths), lengths, pages, self.page_size, capacity=self._capacity)


def _identity(rows: Sequence[Row], adapters: Sequence[int | None]) -> list[tuple[int, int, int | None]]:
    return [(row.sequence, row.start, slot) for row, slot in zip(rows, adapters, strict=True)]


def _host(sizes: Sequence[int], starts: Sequence[int], empty: AttentionPlan, pinned: bool) -> Host:
    buffer = torch.zeros(starts[-1], dtype=torch.int32, pin_memory=pinned)
    parts = [buffer[start : start + size] for start, size in zip(starts, sizes, strict=False)]
    tokens, positions, slots = (part.view(torch.int64).numpy() for part in parts[:3])
    return Host(buffer, tokens, positions, slots, parts[3], empty.over(parts[3]).block_table.numpy(), parts[4])
