"""Host memory that keeps copies of device pages: one slot per page id's worth of bytes, over all pools.

Owns the bytes and the copies between slots and pages. Which slot holds what is tiers.py's. Copies are queued on the
stream of the steps, so they come after what was asked of the device before and before what is asked after.
"""

import mmap
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from tenantry.runtime.cache.pool import KvPool

_ALIGN = 64
_FEW = 4  # pages up to which a copy each is cheaper than gathering them (5 us a tensor against 25)


class HostPages:
    """pools: whose pages of one id belong together. nbytes: how much memory may be used. On a CPU it is the operating
    system's until a slot is first written, and again once it is released; beside another device it is pinned, for
    good."""

    def __init__(self, pools: Sequence[KvPool], nbytes: int) -> None:
        tensors = [tensor for pool in pools for tensor in pool.tensors()]
        sizes = [-(-t[0].numel() * t.itemsize // _ALIGN) * _ALIGN for t in tensors]
        self.page_bytes = sum(sizes)
        self.slots = nbytes // self.page_bytes
        self._on_device = self.pinned = tensors[0].is_cuda
        self._mapping: mmap.mmap | None = None
        shape = self.slots, self.page_bytes
        if self.pinned or not self.slots:
            self.memory = torch.zeros(shape, dtype=torch.uint8, pin_memory=self.pinned)
        else:
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
            self._mapping = mmap.mmap(-1, self.slots * self.page_bytes, flags)
            self.memory = torch.frombuffer(self._mapping, dtype=torch.uint8).view(shape)
        self._pairs: list[tuple[Tensor, Tensor]] = []
        at = 0
        for tensor, size in zip(tensors, sizes, strict=True):
            part = self.memory[:, at : at + tensor[0].numel() * tensor.itemsize].view(tensor.dtype)
            self._pairs.append((tensor, part.view(self.slots, *tensor.shape[1:])))
            at += size
        self._saved: torch.cuda.Event | None = None

    def save(self, copies: Sequence[tuple[int, int]]) -> None:
        """(page, slot): copy pages down."""
        each = self._on_device or len(copies) <= _FEW
        pages, slots = map(list, zip(*copies, strict=True))
        for tensor, part in self._pairs:
            if each:
                for page, slot in copies:
                    part[slot].copy_(tensor[page], non_blocking=True)
            else:
                part[slots] = tensor[pages]
        if self._on_device:
            self._saved = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._saved.record()

    def restore(self, copies: Sequence[tuple[int, int]]) -> None:
        """(slot, page): copy pages up."""
        each = self._on_device or len(copies) <= _FEW
        slots, pages = map(list, zip(*copies, strict=True))
        for tensor, part in self._pairs:
            if each:
                for slot, page in copies:
                    tensor[page].copy_(part[slot], non_blocking=True)
            else:
                tensor[pages] = part[slots]

    def release(self, slots: Sequence[int]) -> None:
        """Give the memory of these back to the system, as far as it is whole pages of the system's; they hold
        nothing afterwards. Pinned memory stays."""
        if self._mapping is None:
            return
        for first, end in _runs(sorted(slots)):
            start = -(-first * self.page_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
            length = end * self.page_bytes // mmap.PAGESIZE * mmap.PAGESIZE - start
            if length > 0:
                self._mapping.madvise(mmap.MADV_DONTNEED, start, length)

    def wait(self) -> None:
        """Until slots hold what was saved to them so far: for who reads them from another thread."""
        if self._saved is not None:
            self._saved.synchronize()

    def bytes_of(self, slot: int) -> memoryview:
        """A slot, to be read from or written into while nothing else does."""
        return self.memory[slot].numpy().data


def _runs(slots: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Slots in order as runs: first, and the one after the last."""
    begin = 0
    for end in range(1, len(slots) + 1):
        if end == len(slots) or slots[end] != slots[end - 1] + 1:
            yield slots[begin], slots[end - 1] + 1
            begin = end
