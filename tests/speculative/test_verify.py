"""Verification is exact: by enumeration, by equality with plain decoding, and by chi-square."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.runtime.speculative.tree import ROOT, DraftTree, path
from tenantry.runtime.speculative.verify import inverse, match, reject, typical

from .test_tree_laws import trees


def target(text):
    """A deterministic next token of a text."""
    return hash((7, *text)) % 5


def drawn_at(tree, tell):
    return [tell(())] + [tell(tuple(tree.tokens[n] for n in path(tree, node))) for node in range(len(tree.tokens))]


@given(trees())
def test_match_commits_what_plain_decoding_would(tree):
    verdict = match(tree, drawn_at(tree, target))
    plain: list[int] = []
    while len(plain) < len(verdict.tokens):
        plain.append(target(plain))
    assert list(verdict.tokens) == plain
    assert [tree.tokens[n] for n in verdict.accepted] == plain[:-1]


@given(trees())
def test_match_takes_the_longest_path_that_stands(tree):
    verdict = match(tree, drawn_at(tree, target))
    standing = [
        node
        for node in range(len(tree.tokens))
        if all(tree.tokens[n] == target(tuple(tree.tokens[m] for m in path(tree, n)[:-1])) for n in path(tree, node))
    ]
    assert len(verdict.accepted) == max((len(path(tree, node)) for node in standing), default=0)


def chi_square(counts, expected):
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("branches", [1, 3])
def test_reject_gives_the_targets_distribution(branches):
    """Children drawn from q, two deep: the pair of first two tokens is distributed as the target has it."""
    rng, size, rounds = np.random.default_rng(branches), 4, 40_000
    p = rng.dirichlet(np.ones(size), size + 1)  # p[0] first, p[1 + x] after x
    q = rng.dirichlet(np.ones(size), size + 1)
    counts = np.zeros((size, size))
    for _ in range(rounds):
        firsts = list(dict.fromkeys(rng.choice(size, branches, p=q[0]).tolist())) if branches == 1 else None
        if firsts is None:  # independent draws may repeat; a repeated sibling is asked once more, as SpecInfer does
            firsts = rng.choice(size, branches, p=q[0]).tolist()
        seconds = [int(rng.choice(size, p=q[1 + x])) for x in firsts]
        tree = DraftTree((*firsts, *seconds), (ROOT,) * branches + tuple(range(branches)))
        rows_p = np.stack([p[0], *(p[1 + x] for x in firsts), *([p[0]] * branches)])
        rows_q = np.stack([q[0], *(q[1 + x] for x in firsts), *([q[0]] * branches)])
        noise = rng.random((2 * branches + 1, branches + 2))
        verdict = reject(tree, rows_p, rows_q, lambda at, attempt, noise=noise: noise[at + 1, attempt])
        tokens = list(verdict.tokens)[:2]
        if len(tokens) == 1:
            tokens.append(int(rng.choice(size, p=p[1 + tokens[0]])))
        counts[tokens[0], tokens[1]] += 1
    expected = p[0][:, None] * p[1:] * rounds
    assert chi_square(counts, expected) < 37.7  # 15 degrees of freedom, 1 in 1000


def test_reject_accepts_everything_when_the_drafter_is_the_target():
    p = np.array([[0.2, 0.8], [0.5, 0.5], [0.5, 0.5]])
    rng = random.Random(3)
    for _ in range(200):
        tree = DraftTree.chain([inverse(p[0], rng.random()), inverse(p[1], rng.random())])
        assert len(reject(tree, p, p, lambda at, attempt: rng.random()).accepted) == 2


def test_typical_accepts_the_plausible_and_only_that():
    flat, sharp = np.full(4, 0.25), np.array([0.97, 0.01, 0.01, 0.01])
    tree = DraftTree.chain([2, 0, 3])
    verdict = typical(tree, np.stack([flat, sharp, sharp, flat]), [0, 0, 1, 2])
    assert verdict.accepted == (0, 1)
    assert verdict.tokens == (2, 0, 1)


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 2**31))
def test_inverse_never_draws_the_impossible(u, seed):
    p = np.random.default_rng(seed).dirichlet(np.ones(3))
    p = np.array([0, *p, 0])
    assert p[inverse(p, u)] > 0
