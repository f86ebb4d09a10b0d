"""Triton's move of cached positions, through the interpreter without a GPU, bit for bit against the reference."""

import pytest
import torch

from tenantry.kernels.attention import gpu_move, reference
from tenantry.kernels.attention.layout import LayerPages, PageLayout
from tenantry.kernels.testing import arena_pages

pytestmark = pytest.mark.triton
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def pair(layout: PageLayout) -> tuple[LayerPages, LayerPages]:
    """Two caches of the same random content."""
    made = arena_pages(layout, 12, DEVICE), arena_pages(layout, 12, DEVICE)
    k, v = torch.randn(2, 12 * layout.page_size, layout.kv_heads, layout.head_dim, device=DEVICE)
    for pages in made:
        reference.write_kv(k, v, pages, torch.arange(len(k), device=DEVICE))
    return made


@pytest.mark.parametrize(
    "layout", [PageLayout(2, 32, 4), PageLayout(1, 80, 3, 20), PageLayout(2, 64, 4, dtype=torch.float16)]
)
def test_paths_close_their_gaps(layout):
    mine, oracle = pair(layout)
    moves = torch.tensor([[(1, 0), (3, 1), (8, 2)], [(14, 13), (-1, -1), (-1, -1)], [(30, 21), (31, 30), (21, 31)]])
    sources, targets = moves.to(DEVICE).unbind(-1)
    before = mine.k.clone()
    gpu_move.move_kv(mine, sources, targets)
    reference.move_kv(oracle, sources, targets)
    assert not torch.equal(before, mine.k)
    for a, b in zip(
        (mine.k, mine.v, mine.k_scale, mine.v_scale),
        (oracle.k, oracle.v, oracle.k_scale, oracle.v_scale),
        strict=True,
    ):
        assert a is b is None or torch.equal(a, b)
