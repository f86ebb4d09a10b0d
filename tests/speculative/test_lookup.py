"""Prompt lookup: what it finds, what it must not see, what it forgets."""

from hypothesis import given
from hypothesis import strategies as st

from tenantry.runtime.speculative.lookup import FARTHEST, SIZES, Lookup, Mark, NgramIndex

A, B = b"a" * 32, b"b" * 32


def propose(lookup, sequence, namespace, tokens, most):
    match = lookup.find(sequence, namespace, tokens)
    return match.chain(most) if match is not None else None


def test_what_came_before_is_guessed_again():
    tree = propose(Lookup(), 1, A, [1, 2, 3, 4, 5, 9, 1, 2, 3], 3)
    assert tree is not None
    assert tree.tokens == (4, 5, 9)
    assert tree.is_chain


def test_what_repeats_is_guessed_to_go_on():
    tree = propose(Lookup(), 1, A, [7, 1, 2, 3, 1, 2, 3, 1, 2], 5)
    assert tree is not None
    assert tree.tokens == (3, 1, 2, 3, 1)


def test_nothing_known_is_no_guess():
    assert propose(Lookup(), 1, A, list(range(50)), 4) is None


def test_the_latest_place_counts():
    tree = propose(Lookup(), 1, A, [1, 2, 7, 0, 1, 2, 8, 0, 1, 2], 1)
    assert tree is not None
    assert tree.tokens == (8,)


def test_how_far_back_two_places_agree_is_told():
    for agreed in (2, 3, 4, 5, 7, FARTHEST, FARTHEST + 9):
        same = list(range(10, 10 + agreed))
        match = Lookup().find(1, A, [1, *same, 5, 2, *same])
        assert match.agreed == min(agreed, FARTHEST)
        assert match.chain(1).tokens == (5,)


def test_marks_say_what_a_lookup_had_found_and_what_was_another_token():
    match = Lookup().find(1, A, [1, 2, 3, 4, 8, 5, 1, 2, 3, 4, 9, 5, 1, 2, 3])
    assert match.chain(5).tokens == (4, 9, 5, 1, 2)
    assert match.chain_marks(5) == [Mark.SAME, Mark.CHANGED, Mark.NEW, Mark.NEW, Mark.NEW]


def test_a_finished_text_that_agrees_for_longer_is_preferred():
    lookup = Lookup()
    lookup.finish(1, A, [1, 2, 3, 4, 5, 6, 7, 8])
    assert propose(lookup, 2, A, [4, 5, 0, 0, 3, 4, 5], 1).tokens == (6,)
    assert propose(lookup, 3, A, [2, 3, 4, 5, 9, 2, 3, 4, 5], 1).tokens == (9,)


def test_texts_of_another_namespace_are_never_guessed():
    lookup = Lookup()
    lookup.finish(1, A, [1, 2, 3, 4, 5, 6])
    assert propose(lookup, 2, B, [0, 1, 2, 3], 2) is None
    found = propose(lookup, 3, A, [0, 1, 2, 3], 2)
    assert found is not None
    assert found.tokens == (4, 5)


def test_a_retired_adapters_texts_are_forgotten():
    lookup = Lookup()
    lookup.finish(1, A, [1, 2, 3, 4], b"adapter")
    lookup.finish(2, B, [1, 2, 3, 4], None)
    lookup.forget(b"adapter")
    assert propose(lookup, 3, A, [1, 2, 3], 1) is None
    assert propose(lookup, 4, B, [1, 2, 3], 1) is not None


def test_memory_is_bounded():
    index = NgramIndex(100)
    for start in range(0, 5000, 7):
        index.add([start + i for i in range(30)])
        assert len(index) <= 100
        assert len(index._after) <= 100 * len(SIZES)
    lookup = Lookup(namespaces=3)
    for i in range(10):
        lookup.finish(i, bytes([i]), [1, 2, 3])
    assert len(lookup._shared) == 3


@given(st.lists(st.integers(0, 3), min_size=3, max_size=60), st.integers(1, 6))
def test_growing_a_sequence_step_by_step_finds_what_a_fresh_index_finds(tokens, most):
    lookup = Lookup()
    for end in range(3, len(tokens) + 1):
        grown = propose(lookup, 1, A, tokens[:end], most)
    assert grown == propose(Lookup(), 1, A, tokens, most)


@given(st.lists(st.integers(0, 3), min_size=3, max_size=60), st.integers(1, 6))
def test_a_guess_is_what_followed_the_latest_longest_match(tokens, most):
    found = propose(Lookup(), 1, A, tokens, most)
    ends = {
        size: [e for e in range(size, len(tokens)) if tokens[e - size : e] == tokens[len(tokens) - size :]]
        for size in SIZES
    }
    size = next((size for size in SIZES if size <= len(tokens) and ends[size]), None)
    if size is None:
        assert found is None
        return
    at = ends[size][-1]
    assert found is not None
    assert found.tokens[: len(tokens) - at] == tuple(tokens[at : at + most])
