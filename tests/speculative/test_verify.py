"""Verification is exact: by equality with plain decoding, by enumeration of all drafts, and by chi-square."""

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.runtime.speculative.tree import ROOT, DraftTree, path
from tenantry.runtime.speculative.verify import match, odds, quantile, reject, typical

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


def without_replacement(q, count):
    """Every way to draw `count` tokens one after the other from q, with its chance."""
    for tokens in permutations(np.flatnonzero(q).tolist(), count):
        chance, left = 1.0, q
        for token in tokens:
            chance *= left[token] / left.sum()
            left = np.where(np.arange(len(q)) == token, 0, left)
        yield tokens, chance


def told(tree, chances):
    """Chance of every text that a walk over one tree can give, by following both answers to every question."""
    found = Counter()
    open_ends = [(ROOT, (), 1.0)]
    while open_ends:
        at, text, chance = open_ends.pop()
        for node in chances.below.get(at, ()):
            stands = chances.stands[node]
            open_ends.append((node, (*text, tree.tokens[node]), chance * stands))
            chance *= 1 - stands
        rest = np.diff(chances.rest[at + 1], prepend=0)
        for token, share in enumerate(rest / rest.sum()):
            found[*text, token] += chance * share
    return found


def drafts(q, widths):
    """Every tree whose first node of a level has the next level's children, with its chance. q: by last token."""
    trees = [((), (), ROOT, 1.0)]
    for width in widths:
        grown = []
        for tokens, parents, spine, chance in trees:
            line = q[0] if spine == ROOT else q[1 + tokens[spine]]
            for drawn, c in without_replacement(line, width):
                grown.append(((*tokens, *drawn), (*parents, *([spine] * width)), len(tokens), chance * c))
        trees = grown
    return [(DraftTree(tokens, parents), chance) for tokens, parents, _, chance in trees]


def lines(table, tree):
    """table: what follows, by last token, what follows the root first. One line for the root and each node."""
    return np.stack([table[0], *(table[1 + token] for token in tree.tokens)])


def tables(seed, size=4):
    """A target's and a drafter's distributions, the first of them with a token that is never drawn."""
    rng = np.random.default_rng(seed)
    p, q = rng.dirichlet(np.ones(size), size + 1), rng.dirichlet(np.ones(size), size + 1)
    p[0, 1] = q[1, 2] = 0
    return p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)


@pytest.mark.parametrize("widths", [(1,), (2,), (3,), (1, 1), (2, 2), (3, 1)])
def test_rejection_is_exact_by_enumeration(widths):
    """Over all drafts and all answers: the first token, and the pair of the first two, are the target's."""
    p, q = tables(len(widths) + widths[0])
    found, firsts = Counter(), Counter()
    for tree, chance in drafts(q, widths):
        for text, share in told(tree, odds(tree, lines(p, tree), lines(q, tree))).items():
            firsts[text[0]] += chance * share
            if len(text) > 1:
                found[text[:2]] += chance * share
            else:
                found.update({(text[0], x): chance * share * p[1 + text[0], x] for x in range(4)})
    for x in range(4):
        assert firsts[x] == pytest.approx(p[0, x])
        for y in range(4):
            assert found[x, y] == pytest.approx(p[0, x] * p[1 + x, y])


def test_rejection_passes_chi_square_over_a_million_draws():
    widths = (2, 2)
    p, q = tables(7)
    rng, rounds = np.random.default_rng(11), 1_000_000
    every = drafts(q, widths)
    counts, accepted = np.zeros((4, 4)), 0
    for (tree, _), times in zip(every, rng.multinomial(rounds, [c for _, c in every]).tolist(), strict=True):
        chances = odds(tree, lines(p, tree), lines(q, tree))
        for noise in rng.random((times, sum(widths) + 2)).tolist():
            verdict = reject(tree, chances, noise.__getitem__)
            accepted += len(verdict.accepted)
            if len(verdict.tokens) > 1:
                counts[verdict.tokens[:2]] += 1
            else:
                second = quantile(p[1 + verdict.tokens[0]].cumsum(), noise[-1])
                counts[verdict.tokens[0], second] += 1
    expected = p[0][:, None] * p[1:] * rounds
    possible = expected > 0
    assert counts[~possible].sum() == 0
    k = int(possible.sum()) - 1
    most = k * (1 - 2 / (9 * k) + 3.09 * (2 / (9 * k)) ** 0.5) ** 3  # 1 in 1000 (Wilson and Hilferty 1931)
    assert chi_square(counts[possible], expected[possible]) < most
    assert accepted > rounds / 3


def test_rejection_lets_everything_stand_when_the_drafter_is_the_target():
    p, _ = tables(1)
    for tree, _ in drafts(p, (1, 1)):
        assert odds(tree, lines(p, tree), lines(p, tree)).stands == [1, 1]


def test_a_second_child_stands_more_often_after_the_first_has_fallen():
    """By hand: p = (1/2, 1/2), q = (3/4, 1/4). The first falls by 1/3; then all of p is on the other, and so is q."""
    tree = DraftTree((0, 1), (ROOT, ROOT))
    table = np.array([[0.5, 0.5]] * 3), np.array([[0.75, 0.25]] * 3)
    assert odds(tree, *table).stands == pytest.approx([2 / 3, 1])


def test_typical_accepts_the_plausible_and_only_that():
    flat, sharp = np.full(4, 0.25), np.array([0.97, 0.01, 0.01, 0.01])
    tree = DraftTree.chain([2, 0, 3])
    verdict = typical(tree, np.stack([flat, sharp, sharp, flat]), [0, 0, 1, 2])
    assert verdict.accepted == (0, 1)
    assert verdict.tokens == (2, 0, 1)


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 2**31))
def test_a_quantile_is_never_what_is_impossible(u, seed):
    p = np.random.default_rng(seed).dirichlet(np.ones(3))
    p = np.array([0, *p, 0])
    assert p[quantile(p.cumsum(), u)] > 0
