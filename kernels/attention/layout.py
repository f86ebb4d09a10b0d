"""Where keys and values lie: pages and their scales.

Owns the layout that every attention kernel and every cache tier agrees on. Knows no model, request or scheduler.
Symmetric int8: value = int8 * scale, scale = amax / 127 over a group of neighbouring values of one token and head.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


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
    scale_dtype: torch.dtype = torch.float16

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
