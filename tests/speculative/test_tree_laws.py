"""Shape laws of draft trees, against brute force."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.runtime.errors import InvalidRequest
from tenantry.runtime.speculative.tree import ROOT, DraftTree, ancestor_masks, depths, keep, likeliest, path


@st.composite
def trees(draw):
    parents, tokens = [], []
    for i in range(draw(st.integers(0, 20))):
        parent = draw(st.integers(ROOT, i - 1))
        taken = {t for p, t in zip(parents, tokens, strict=True) if p == parent}
        tokens.append(draw(st.integers(0, 40).filter(lambda t, taken=taken: t not in taken)))
        parents.append(parent)
    shares = draw(st.lists(st.floats(0.1, 1), min_size=len(tokens), max_size=len(tokens)))
    chance: list[float] = []
    for parent, share in zip(parents, shares, strict=True):
        chance.append(share * (1.0 if parent == ROOT else chance[parent]))
    tree = DraftTree(tuple(tokens), tuple(parents), tuple(chance), "any")
    tree.check()
    return tree


@given(trees(), st.integers(1, 5))
def test_a_node_sees_the_real_tokens_its_ancestors_and_itself(tree, before):
    masks = ancestor_masks(tree, before)
    for node in range(len(tree.tokens)):
        seen = {i for i in range(64) if masks[before + node] >> i & 1}
        assert seen == set(range(before)) | {before + n for n in path(tree, node)}
    assert masks[:before] == [(2 << i) - 1 for i in range(before)]


@given(trees())
def test_depth_is_the_length_of_the_path(tree):
    assert depths(tree) == [len(path(tree, node)) for node in range(len(tree.tokens))]


@given(trees(), st.integers(0, 20))
def test_pruning_keeps_the_likeliest_nodes_and_whole_paths(tree, count):
    kept = likeliest(tree, count)
    kept.check()
    assert len(kept.tokens) == min(count, len(tree.tokens))

    def texts(of):
        return {tuple(of.tokens[n] for n in path(of, node)) for node in range(len(of.tokens))}

    assert texts(kept) <= texts(tree)
    assert sorted(kept.chance, reverse=True) == sorted(tree.chance, reverse=True)[: len(kept.chance)]


def test_a_chain_is_its_own_path():
    chain = DraftTree.chain([5, 6, 7])
    assert chain.is_chain
    assert path(chain, 2) == [0, 1, 2]
    assert not DraftTree((5, 6), (ROOT, ROOT)).is_chain


def test_orphans_are_refused():
    with pytest.raises(ValueError, match="not kept"):
        keep(DraftTree.chain([1, 2, 3]), [0, 2])


@pytest.mark.parametrize(
    "broken",
    [
        DraftTree((1,), ()),
        DraftTree((1, 2), (1, ROOT)),
        DraftTree((1, 1), (ROOT, ROOT)),
        DraftTree((1, 2), (ROOT, 0), (0.5,)),
        DraftTree(tuple(range(64)), (ROOT,) * 64),
        DraftTree((1,), (-2,)),
    ],
)
def test_what_is_no_tree_is_refused(broken):
    with pytest.raises(InvalidRequest) as caught:
        broken.check()
    assert caught.value.param == "draft"
