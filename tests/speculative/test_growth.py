"""How trees grow: always trees, within every budget, and towards what is likely."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.runtime.speculative.growth import FEWEST, TOGETHER, Growth, Limits, node_budget
from tenantry.runtime.speculative.tree import MAX_NODES, ROOT, DraftTree, depths, path, walk

from .test_tree_laws import trees

CANDIDATES = st.lists(st.integers(1, 50), min_size=1, max_size=6)


@given(
    st.integers(1, 63), st.integers(1, 6), st.integers(1, 5), st.floats(0, 1), st.floats(0, 0.3),
    st.data(),
)  # fmt: skip
def test_what_grows_is_a_tree_within_its_limits(nodes, level, width, top_p, tail, data):
    limits = Limits(nodes, level, width, top_p, tail)
    growth = Growth(limits)
    for _ in range(5):
        candidates = []
        for _ in growth.frontier:
            weights = sorted(data.draw(CANDIDATES), reverse=True)
            candidates.append([(token, weight / (sum(weights) + 1)) for token, weight in enumerate(weights)])
        frontier = growth.grow(candidates)
        assert len(frontier) <= level
        chances = [growth.chance[node] for node in frontier]
        assert chances == sorted(chances, reverse=True)
        assert all(chance >= tail for chance in chances)
    tree = growth.tree("any")
    tree.check()
    assert len(tree.tokens) <= nodes
    for node, parent in enumerate(tree.parents):
        assert parent == ROOT or tree.chance[node] <= tree.chance[parent]
        assert tree.parents.count(node) <= width


def test_siblings_stop_where_their_share_is_reached_but_one_always_grows():
    growth = Growth(Limits(9, top_p=0.6, tail=0.0))
    assert growth.grow([[(1, 0.5), (2, 0.2), (3, 0.2)]]) == [0, 1]
    growth.grow([[(4, 0.95), (5, 0.05)], []])
    assert growth.tree("x") == DraftTree((1, 2, 4), (ROOT, ROOT, 0), (0.5, 0.2, 0.475), "x")


def test_an_unlikely_path_ends_and_so_does_a_tree_of_them():
    growth = Growth(Limits(9, tail=0.1, top_p=1.0))
    growth.grow([[(1, 0.3), (2, 0.05)]])
    assert growth.tokens == [1]
    assert growth.grow([[(3, 0.3)]]) == []
    assert growth.grow([]) == []


def test_a_level_goes_to_the_likeliest_of_all_its_parents():
    growth = Growth(Limits(20, level=3, top_p=1.0, tail=0.0))
    growth.grow([[(1, 0.6), (2, 0.3)]])
    growth.grow([[(3, 0.5), (4, 0.4), (5, 0.1)], [(6, 0.9)]])
    assert [growth.tokens[node] for node in growth.frontier] == [3, 6, 4]


@pytest.mark.parametrize(("rows", "nodes"), [(0, MAX_NODES), (1, MAX_NODES), (4, TOGETHER // 4), (64, FEWEST)])
def test_rows_share_a_steps_nodes(rows, nodes):
    assert node_budget(rows) == nodes


@given(trees(), st.lists(st.integers(0, 40), max_size=5))
def test_walking_a_tree_follows_tokens_as_far_as_it_knows_them(tree, tokens):
    found = walk(tree, tokens)
    assert [tree.tokens[node] for node in found] == tokens[: len(found)]
    assert not found or path(tree, found[-1]) == found
    at = found[-1] if found else ROOT
    ends = [n for n, p in enumerate(tree.parents) if p == at and len(found) < len(tokens)]
    assert all(tree.tokens[n] != tokens[len(found)] for n in ends)
    for node in range(len(tree.tokens)):
        whole = [tree.tokens[n] for n in path(tree, node)]
        assert len(walk(tree, whole)) == depths(tree)[node]
