"""The memory behind block ids, allocated once: every layer's keys and values, and adapters among them.

Owns tensors and their size. It must not know which block is whose: that is arena.py, and it never meets a tensor.
"""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from tenantry.kernels.attention.layout import LayerPages, PageLayout
from tenantry.runtime.cache.extents import Extent, offsets
from tenantry.runtime.config import EngineConfig

_ALIGN = 64  # bytes, of every tensor in a block, and of blocks


class KvPool:
    """layers[i] is one layer's cache; page ids 0 .. pages - 1 mean the same positions in every layer."""

    def __init__(self, layout: PageLayout, layers: int, pages: int, device: str = "cpu") -> None:
        self.layout = layout
        self.layers: tuple[LayerPages, ...] = tuple(layout.allocate(pages, device) for _ in range(layers))
        self.block_bytes = self.bytes_per_page(layout, layers)
        self.nbytes = self.block_bytes * pages

    @staticmethod
    def bytes_per_page(layout: PageLayout, layers: int) -> int:
        """Bytes that one page id stands for: all layers, keys, values and scales."""
        return layout.bytes_per_page * layers

    def move(self, moves: Sequence[tuple[int, int]]) -> None:
        """Copy pages, (from, to): all are read before any is written."""
        if moves:
            sources, targets = zip(*moves, strict=True)
            for tensor in self.tensors():
                tensor[list(targets)] = tensor[list(sources)]

    def tensors(self) -> list[Tensor]:
        """All that page ids index, [pages, ...]; together they are a page's whole content."""
        parts = [t for layer in self.layers for t in (layer.k, layer.v, layer.k_scale, layer.v_scale)]
        return [tensor for tensor in parts if tensor is not None]

    def buffers(
        self, pieces: Sequence[int], extents: Sequence[Extent], asked: Sequence[int] | None = None
    ) -> list[Tensor]:
        """Memory for an adapter's pieces, uint8, in extents that were chosen for `asked`, if those are larger.
        Raises ValueError if the extents are too small."""
        raise ValueError("adapters have no place among pages that are allocated layer by layer")


class ArenaPool(KvPool):
    """Blocks that hold one page of all layers each, or parts of adapters.

    A block is [layer 0: k, v, scales of k, scales of v | layer 1 ...]; `layers` are views, one block apart. On a
    CPU memory is the operating system's until it is first written.
    """

    def __init__(self, layout: PageLayout, layers: int, blocks: int, device: str = "cpu") -> None:
        self.layout = layout
        self.block_bytes = self.bytes_per_page(layout, layers)
        self.nbytes = blocks * self.block_bytes
        memory = torch.empty(self.nbytes + _ALIGN, dtype=torch.uint8, device=device)
        self.data = memory[-memory.data_ptr() % _ALIGN :][: self.nbytes]
        self.blocks = self.data.view(blocks, self.block_bytes)
        sizes = _part_sizes(layout)
        starts = list(accumulate(sizes, initial=0))
        self.layers = tuple(self._layer(index * starts[-1], starts) for index in range(layers))

    @staticmethod
    def bytes_per_page(layout: PageLayout, layers: int) -> int:
        """Bytes of a block: a little more than of a page, since its tensors are aligned."""
        return sum(_part_sizes(layout)) * layers

    def move(self, moves: Sequence[tuple[int, int]]) -> None:
        if moves:
            sources, targets = zip(*moves, strict=True)
            self.blocks[list(targets)] = self.blocks[list(sources)]

    def tensors(self) -> list[Tensor]:
        page = super().bytes_per_page(self.layout, len(self.layers))
        return [self.blocks] if page == self.block_bytes else super().tensors()  # what lies between is nobody's

    def buffers(
        self, pieces: Sequence[int], extents: Sequence[Extent], asked: Sequence[int] | None = None
    ) -> list[Tensor]:
        starts = offsets(pieces, extents, self.block_bytes, asked)
        return [self.data[start : start + size] for start, size in zip(starts, pieces, strict=True)]

    def _layer(self, base: int, starts: Sequence[int]) -> LayerPages:
        layout = self.layout
        values = [self._pages(base + start, layout.dtype, layout.head_dim) for start in starts[:2]]
        if layout.dtype != torch.int8:
            return LayerPages(*values)
        scales = [self._pages(base + start, layout.scale_dtype, layout.groups) for start in starts[2:4]]
        return LayerPages(*values, *scales)

    def _pages(self, start: int, dtype: torch.dtype, width: int) -> Tensor:
        """[blocks, kv_heads, page_size, width] at a byte offset of every block."""
        layout = self.layout
        size = layout.kv_heads * layout.page_size * width * dtype.itemsize
        part = self.blocks[:, start : start + size].view(dtype)
        return part.view(len(part), layout.kv_heads, layout.page_size, width)


def make_pool(config: EngineConfig, layout: PageLayout, layers: int, device: str) -> KvPool:
    """As large as the config says. Raises InvalidRequest."""
    if config.memory == "split":
        return KvPool(layout, layers, config.cache.pages, device)
    arena = config.arena(ArenaPool.bytes_per_page(layout, layers))
    return ArenaPool(layout, layers, arena.blocks, device)


def _part_sizes(layout: PageLayout) -> list[int]:
    """Bytes of one layer's k, v and, if it has them, scales of both, in one block."""
    cells = layout.kv_heads * layout.page_size
    sizes = [cells * layout.head_dim * layout.dtype.itemsize] * 2
    if layout.dtype == torch.int8:
        sizes += [cells * layout.groups * layout.scale_dtype.itemsize] * 2
    return [-(-size // _ALIGN) * _ALIGN for size in sizes]
