"""Where keys and values lie: pages, their scales, and which pages each row of a step reads.

Owns the layout that every attention kernel and every cache tier agrees on. Knows no model, request or scheduler.
Symmetric int8: value = int8 * scale, scale = amax / 127 over a group of neighbouring values of one token and head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

QUERIES = 8  # of one row that share a pass over its pages


@dataclass(frozen=True, slots=True)
class LayerPages:
    """One layer's cache.

    k, v: [pages, kv_heads, page_size, head_dim], int8, or a float type without scales.
    k_scale, v_scale: [pages, kv_heads, page_size, head_dim // group], or None with a float type.
    Pages may lie any distance apart (an arena keeps one page of all layers together), the same for k and v, and the
    same for both scales; within a page each tensor is contiguous.
    """

    k: Tensor
    v: Tensor
    k_scale: Tensor | None = None
    v_scale: Tensor | None = None

    def __post_init__(self) -> None:
        if self.k.shape != self.v.shape or self.k.dim() != 4 or self.k.dtype != self.v.dtype:
            raise ValueError("k and v: both [pages, kv_heads, page_size, head_dim] of one dtype")
        scales = (self.k_scale, self.v_scale)
        if (self.k.dtype == torch.int8) != all(s is not None for s in scales) or (scales[0] is None) != (
            scales[1] is None
        ):
            raise ValueError("k_scale and v_scale: both present with int8 pages, both absent otherwise")
        for scale in scales:
            if scale is not None and (scale.shape[:3] != self.k.shape[:3] or self.head_dim % scale.shape[3]):
                raise ValueError("scales: [pages, kv_heads, page_size, head_dim // group]")
        for a, b in ((self.k, self.v), scales):
            if a is not None and b is not None:
                if a.stride(0) != b.stride(0) or a.shape != b.shape or a.dtype != b.dtype:
                    raise ValueError("keys and values: pages equally far apart, of one shape and dtype")
                if not all(t[:1].is_contiguous() for t in (a, b)):
                    raise ValueError("pages: contiguous within a page")

    @property
    def page_stride(self) -> int:
        """Values from one page's keys to the next one's."""
        return self.k.stride(0)

    @property
    def scale_stride(self) -> int:
        """Scales from one page's to the next one's; 0 without scales."""
        return 0 if self.k_scale is None else self.k_scale.stride(0)

    @property
    def groups(self) -> int:
        """Scales per token and head; 1 without scales."""
        return 1 if self.k_scale is None else self.k_scale.shape[3]

    @property
    def kv_heads(self) -> int:
        return self.k.shape[1]

    @property
    def page_size(self) -> int:
        return self.k.shape[2]

    @property
    def head_dim(self) -> int:
        return self.k.shape[3]


@dataclass(frozen=True, slots=True)
class PageLayout:
    """Shape and type of one layer's pages. group: values per scale along head_dim; 0 means head_dim.

    dtype torch.int8 stores scales of scale_dtype; any float dtype stores values as they are, without scales.
    """

    kv_heads: int
    head_dim: int
    page_size: int
    group: int = 0
    dtype: torch.dtype = torch.int8
    scale_dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        if min(self.kv_heads, self.head_dim, self.page_size) < 1:
            raise ValueError("kv_heads, head_dim and page_size must be positive")
        if self.group < 0 or self.head_dim % (self.group or self.head_dim):
            raise ValueError(f"group: {self.group} does not divide head_dim {self.head_dim}")

    @property
    def groups(self) -> int:
        return self.head_dim // (self.group or self.head_dim)

    @property
    def bytes_per_page(self) -> int:
        """Bytes of one page of one layer, keys and values together."""
        values = self.head_dim * self.dtype.itemsize
        scales = self.groups * self.scale_dtype.itemsize if self.dtype == torch.int8 else 0
        return 2 * self.kv_heads * self.page_size * (values + scales)

    def allocate(self, pages: int, device: str = "cpu") -> LayerPages:
        """Zeroed pages for one layer."""
        shape = (pages, self.kv_heads, self.page_size, self.head_dim)
        k, v = (torch.zeros(shape, dtype=self.dtype, device=device) for _ in range(2))
        if self.dtype != torch.int8:
            return LayerPages(k, v)
        scales = (*shape[:3], self.groups)
        return LayerPages(k, v, *(torch.zeros(scales, dtype=self.scale_dtype, device=device) for _ in range(2)))


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """Which tokens attend to which pages in one step; built once, read by every layer.

    cu_q: int32 [rows + 1], row b owns query tokens cu_q[b] .. cu_q[b+1]-1 of the step.
    lengths: int32 [rows], tokens of row b in its pages, this step's included; query i of row b sits at absolute
    position lengths[b] - q_len[b] + i and attends to positions up to its own.
    block_table: int32 [rows, max_pages], entry i holds positions [i * page_size, (i+1) * page_size); unused
    entries are 0 and never read.
    seen: int32 [T], how many positions each query attends to.
    blocks: int64 [N, 3]: row, first and past query of at most QUERIES; those that see most come first.
    q_lens, totals: q_len and lengths once more, on the host.
    """

    cu_q: Tensor
    lengths: Tensor
    block_table: Tensor
    seen: Tensor
    blocks: Tensor
    q_lens: tuple[int, ...]
    totals: tuple[int, ...]

    @classmethod
    def build(
        cls,
        q_lens: Sequence[int],
        lengths: Sequence[int],
        pages: Sequence[Sequence[int]],
        page_size: int,
        device: str = "cpu",
    ) -> Self:
        """pages[b]: page ids of row b, covering lengths[b] positions. Raises ValueError where they do not."""
        if not len(q_lens) == len(lengths) == len(pages):
            raise ValueError("q_lens, lengths and pages: one entry per row")
        used = [-(-n // page_size) for n in lengths]
        for q_len, length, row, need in zip(q_lens, lengths, pages, used, strict=True):
            if not 0 < q_len <= length or len(row) < need:
                raise ValueError(f"row of {q_len} queries and {length} tokens in {len(row)} pages of {page_size}")
        table = torch.zeros((len(used), max(used, default=0)), dtype=torch.int32)
        for row_table, row, need in zip(table, pages, used, strict=True):
            row_table[:need] = torch.tensor(row[:need], dtype=torch.int32)
        seen = [n for q, length in zip(q_lens, lengths, strict=True) for n in range(length - q + 1, length + 1)]
        blocks = [
            (row, first, min(first + QUERIES, q_len))
            for row, q_len in enumerate(q_lens)
            for first in range(0, q_len, QUERIES)
        ]
        blocks.sort(key=lambda block: -(lengths[block[0]] - q_lens[block[0]] + block[2]) * (block[2] - block[1]))
        cu_q = torch.tensor([0, *q_lens], dtype=torch.int32).cumsum(0, dtype=torch.int32)
        return cls(
            cu_q.to(device),
            torch.tensor(lengths, dtype=torch.int32, device=device),
            table.to(device),
            torch.tensor(seen, dtype=torch.int32, device=device),
            torch.tensor(blocks, dtype=torch.int64, device=device).view(-1, 3),
            tuple(q_lens),
            tuple(lengths),
        )
