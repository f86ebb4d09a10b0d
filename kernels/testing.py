"""What every kernel test shares: one tolerance table, one shape vocabulary, poisoned outputs.

In the package because benchmarks and strangers' kernels are checked by the same rules.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tenantry.kernels.attention.layout import LayerPages, PageLayout

# Largest error allowed, relative to the largest expected value, by the dtype that values were stored in.
TOLERANCE = {torch.float32: 3e-6, torch.bfloat16: 3e-6, torch.float16: 2e-3, torch.int8: 3e-6}

RANKS = (4, 8, 16, 17, 64)


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one step: the slot of each (None for the base) and its number of tokens."""

    name: str
    slots: tuple[int | None, ...]
    q_lens: tuple[int, ...]

    @property
    def tokens(self) -> int:
        return sum(self.q_lens)


# Slots 0..4 hold adapters of RANKS; the names say what is unusual.
BATCHES = (
    Batch("one row", (1,), (1,)),
    Batch("all base", (None, None, None), (1, 5, 1)),
    Batch("identical", (2,) * 6, (1,) * 6),
    Batch("distinct", (0, 1, 2, 3, 4), (1,) * 5),
    Batch("base between", (None, 3, None, 0, 3, None, 4), (1, 1, 2, 1, 1, 1, 1)),
    Batch("runs", (4, 4, 0, 0, 0, None, 4), (7, 1, 33, 2, 1, 17, 64)),
    Batch("long", (3,), (113,)),
    Batch("empty", (), ()),
)


def assert_close(actual: Tensor, expected: Tensor, stored: torch.dtype = torch.float32) -> None:
    """expected: the oracle's, fp32 or fp64. stored: dtype that decides the tolerance. Refuses non-finite values."""
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    if expected.numel() == 0:
        return
    assert bool(torch.isfinite(actual).all()), "non-finite values in the result"
    error = (actual.double() - expected.double()).abs().max().item()
    size = expected.double().abs().max().item()
    assert error <= TOLERANCE[stored] * max(size, 1.0), f"error {error:.2e} where values reach {size:.2e}"


def poisoned(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Tensor:
    """NaN everywhere: whatever a kernel leaves unwritten, or reads that it must not, shows."""
    return torch.full(shape, float("nan"), dtype=dtype, device=device)


def arena_pages(layout: PageLayout, pages: int, device: str = "cpu", apart: int = 96) -> LayerPages:
    """Poisoned pages as an arena keeps them: all tensors of a page together, `apart` foreign bytes before the next
    (a multiple of 4). int8 values are 127 where nothing was written, floats NaN."""
    values = (layout.kv_heads, layout.page_size, layout.head_dim)
    parts = [(values, layout.dtype)] * 2
    if layout.dtype == torch.int8:
        parts += [((*values[:2], layout.groups), layout.scale_dtype)] * 2
    sizes = [torch.Size(shape).numel() * dtype.itemsize for shape, dtype in parts]
    page = sum(sizes) + apart
    memory = torch.zeros(pages * page, dtype=torch.uint8, device=device)
    views, first = [], 0
    for (shape, dtype), size in zip(parts, sizes, strict=True):
        stride = (page // dtype.itemsize, shape[1] * shape[2], shape[2], 1)
        view = memory.view(dtype).as_strided((pages, *shape), stride, first // dtype.itemsize)
        views.append(view.fill_(127 if dtype == torch.int8 else float("nan")))
        first += size
    return LayerPages(*views)
