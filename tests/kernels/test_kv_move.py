"""Moving single positions of a cache: bytes as they are, in order, and nothing else is touched."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tenantry.kernels.attention import cpu_move, reference
from tenantry.kernels.attention.layout import LayerPages, PageLayout
from tenantry.kernels.testing import arena_pages

LAYOUTS = [
    PageLayout(2, 32, 16),
    PageLayout(1, 64, 4, 16),
    PageLayout(3, 24, 5, dtype=torch.float32),
    PageLayout(2, 8, 1, dtype=torch.bfloat16),
]


def filled(layout: PageLayout, pages: int, seed: int = 0) -> LayerPages:
    """An arena's pages of random bytes, NaN among the floats."""
    made = arena_pages(layout, pages)
    noise = torch.Generator().manual_seed(seed)
    for store in (made.k, made.v, made.k_scale, made.v_scale):
        if store is not None:
            size = [*store.shape[:3], store.shape[3] * store.element_size()]
            store.view(torch.uint8).copy_(torch.randint(0, 256, size, generator=noise, dtype=torch.uint8))
    return made


def raw(pages: LayerPages) -> list[torch.Tensor]:
    stores = (pages.k, pages.v, pages.k_scale, pages.v_scale)
    return [store.contiguous().view(torch.uint8).clone() for store in stores if store is not None]


def expected(pages: LayerPages, moves: list[tuple[int, int]]) -> list[torch.Tensor]:
    """One position after the other, by hand."""
    tensors, size = raw(pages), pages.page_size
    for source, target in moves:
        for tensor in tensors:
            tensor[target // size, :, target % size] = tensor[source // size, :, source % size].clone()
    return tensors


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("move_kv", [reference.move_kv, cpu_move.move_kv])
def test_paths_close_their_gaps(layout, move_kv):
    pages = filled(layout, 40 // layout.page_size + 1)
    moves = [[(3, 2), (5, 3), (9, 4)], [(21, 20)], [(33, 31), (35, 32)]]
    want = expected(pages, [move for row in moves for move in row])
    padded = [row + [(-1, -1)] * (3 - len(row)) for row in moves]
    sources, targets = torch.tensor(padded, dtype=torch.int64).unbind(-1)
    move_kv(pages, sources, targets)
    assert all(torch.equal(a, b) for a, b in zip(raw(pages), want, strict=True))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 19), st.integers(-1, 19)), max_size=8), st.integers(0, 3))
def test_a_rows_moves_happen_in_order(moves, which):
    pages = filled(LAYOUTS[which], 20 // LAYOUTS[which].page_size + 1, len(moves))
    want = expected(pages, [move for move in moves if move[1] >= 0])
    sources, targets = torch.tensor(moves, dtype=torch.int64).view(1, -1, 2).unbind(-1)
    cpu_move.move_kv(pages, sources, targets)
    assert all(torch.equal(a, b) for a, b in zip(raw(pages), want, strict=True))
