"""A draft model's tree: one spine, alternatives beside it, never more nodes than asked for."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tenantry.runtime.messages import Sampling
from tenantry.runtime.model.spine import Spine
from tenantry.runtime.plan import Draw
from tenantry.runtime.speculative.tree import ROOT, depths


def draw(temperature=0.0):
    return Draw(Sampling(max_tokens=99, temperature=temperature), 0, 3, 3, [1, 2, 3])


def test_a_chain_has_no_opinion():
    spine = Spine(draw(), 3, 0)
    for token in (5, 6, 7):
        assert not spine.ended
        spine.grow([(token, 1.0)])
    assert spine.ended
    found = spine.proposal("draft")
    assert found is not None
    assert found.tree.is_chain
    assert (found.tree.tokens, found.tree.chance, found.q) == ((5, 6, 7), (), None)


def test_what_cannot_go_on_ends():
    spine = Spine(draw(), 3, 0)
    spine.grow([])
    assert spine.ended
    assert spine.proposal("draft") is None


def test_alternatives_stand_beside_the_spine_and_the_least_likely_go_first():
    spine = Spine(draw(), 2, 4)
    spine.grow([(1, 0.6), (2, 0.3), (3, 0.05)])
    spine.grow([(4, 0.5), (5, 0.4)])
    assert spine.path == [1, 4]
    found = spine.proposal("draft")
    assert found is not None
    assert found.tree.tokens == (1, 2, 4, 5)
    assert found.tree.parents == (ROOT, ROOT, 0, 0)
    assert found.tree.chance == pytest.approx((0.6, 0.3, 0.3, 0.24))


@given(st.integers(1, 6), st.integers(0, 20))
def test_a_stochastic_tree_has_a_shape_of_its_own_and_every_q(levels, nodes):
    spine, at = Spine(draw(1.0), levels, nodes, stochastic=True), 0
    while not spine.ended:
        width = spine.width
        spine.grow([(10 * at + i, 1.0) for i in range(width)], torch.full((64,), float(at + 1)))
        at += 1
    found = spine.proposal("draft")
    assert found is not None
    tree = found.tree
    assert max(depths(tree)) == at == levels
    assert len(tree.tokens) == max(levels, min(nodes, 4 * levels))
    assert tree.chance == ()
    assert found.q is not None
    for node, parent in enumerate(tree.parents):
        assert found.q[parent + 1, 0] == depths(tree)[node]
    assert spine.path == [10 * i for i in range(levels)]
