"""Rates follow what was judged, of all, of an adapter and of a sequence; trials cost no more than their share."""

import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from tenantry.runtime.speculative.acceptance import GRADES, Acceptance, Basis, at_depth, found_grades, graded
from tenantry.runtime.speculative.lead import outcomes
from tenantry.runtime.speculative.lookup import Mark
from tenantry.runtime.speculative.tree import DraftTree
from tenantry.runtime.speculative.trials import SHARE, Trials
from tenantry.runtime.speculative.verify import match

DRAFT = ("draft", Basis.DEPTH)


def judged(accepted, depth):
    return [(at_depth(at), at <= accepted) for at in range(1, min(accepted + 1, depth) + 1)]


def test_rates_follow_what_was_seen_and_start_from_the_neighbours():
    known, rng = Acceptance(), random.Random(1)
    assert known.rate(b"a", 0, DRAFT, 0) == Basis.DEPTH.prior(0)
    for i in range(600):
        accepted = sum(1 for _ in itertools.takewhile(lambda _: rng.random() < 0.9, range(4)))
        known.observe(b"a", i, DRAFT, judged(accepted, 4))
        known.observe(b"b", i, DRAFT, judged(0, 4))
    assert abs(known.rate(b"a", -1, DRAFT, 0) - 0.9) < 0.12
    assert known.rate(b"b", -1, DRAFT, 0) < 0.15
    assert known.rate(b"b", -1, DRAFT, 0) < known.rate(b"new", -1, DRAFT, 0) < known.rate(b"a", -1, DRAFT, 0)
    known.forget(b"a")
    assert known.rate(b"a", -1, DRAFT, 0) == known.rate(b"new", -1, DRAFT, 0)


def test_a_sequence_has_rates_of_its_own_until_it_ends():
    known = Acceptance()
    for _ in range(30):
        known.observe(None, 1, DRAFT, [(0, True)])
        known.observe(None, 2, DRAFT, [(0, False)])
    assert known.rate(None, 1, DRAFT, 0) > 0.75
    assert known.rate(None, 2, DRAFT, 0) < 0.25
    known.end(1)
    assert known.rate(None, 1, DRAFT, 0) == known.rate(None, 3, DRAFT, 0)


def test_a_guess_whose_ancestor_fell_teaches_nothing():
    known = Acceptance()
    for _ in range(50):
        known.observe(None, 1, DRAFT, judged(0, 4))
    assert known.rate(None, 1, DRAFT, 0) < 0.3
    assert known.rate(None, 1, DRAFT, 1) == Basis.DEPTH.prior(1)


def test_a_copy_is_graded_by_how_long_it_agreed_and_by_what_was_foreseeable():
    for mark in Mark:
        for agreed in range(2, 60):
            grades = found_grades(agreed, [mark] * 20)
            assert grades == sorted(grades)
            assert found_grades(agreed + 1, [mark] * 19) == grades[1:]
            assert 0 <= grades[0] <= grades[-1] < GRADES
    of = {mark: {g for n in range(2, 60) for g in found_grades(n, [mark])} for mark in Mark}
    assert not of[Mark.NEW] & of[Mark.SAME]
    assert not of[Mark.SAME] & of[Mark.CHANGED]
    assert max(map(Basis.FOUND.prior, of[Mark.CHANGED])) < min(map(Basis.FOUND.prior, of[Mark.NEW]))
    assert max(map(Basis.FOUND.prior, of[Mark.NEW])) < min(map(Basis.FOUND.prior, of[Mark.SAME]))


def test_a_proposers_own_chance_is_the_grade_given_the_path():
    tree = DraftTree((1, 2, 3, 4), (-1, -1, 0, 2), (0.9, 0.05, 0.45, 0.45), "draft")
    (kind, basis), grades = graded(tree)
    assert (kind, basis) == ("draft", Basis.SURE)
    assert grades == [13, 0, 7, 14]
    assert all(abs(basis.prior(g) - c) < 1 / GRADES for g, c in zip(grades, (0.9, 0.05, 0.5, 1.0), strict=True))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 7)), min_size=1, max_size=8), st.data())
def test_only_guesses_on_the_way_of_the_text_are_judged(drawn, data):
    nodes: list[tuple[int, int]] = []
    for token, parent in drawn:
        edge = (min(parent, len(nodes)) - 1, token)
        if edge not in nodes:
            nodes.append(edge)
    tree = DraftTree(tuple(t for _, t in nodes), tuple(p for p, _ in nodes))
    target = data.draw(st.lists(st.integers(0, 2), min_size=len(nodes) + 1, max_size=len(nodes) + 1))
    verdict = match(tree, target)
    tried = outcomes(tree, verdict.tokens, list(range(len(nodes))))
    stood = [node for level in tried for node, stands in level if stands]
    assert tuple(stood) == verdict.accepted
    for level, before in zip(tried, (-1, *stood), strict=False):
        assert {node for node, _ in level} == {n for n, p in enumerate(tree.parents) if p == before}
    assert len(stood) <= len(tried) <= len(stood) + 1


@given(st.lists(st.tuples(st.floats(0.001, 0.1), st.floats(0.0001, 1)), min_size=1, max_size=200))
def test_trials_never_cost_more_than_their_share_and_one_step(steps):
    trials, took, cost = Trials(), 0.0, 0.0
    for step, dear in steps:
        if trials.may(dear):
            trials.spend(dear)
            cost += dear
        trials.earn(step)
        took += step
    assert cost <= SHARE * took + 1e-9


def test_a_trial_that_cost_more_than_expected_is_paid_before_the_next():
    trials = Trials()
    for _ in range(100):
        trials.earn(1.0)
    assert trials.may(0.9)
    trials.spend(3.0)
    for _ in range(201):
        assert not trials.may(0.01)
        trials.earn(1.0)
    trials.earn(1.0)
    assert trials.may(0.01)
