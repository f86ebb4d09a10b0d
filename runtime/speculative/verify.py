"""Which guesses stand: pure functions from a tree and what the target drew to the tokens that are committed.

`match` is the default and exact: every position's noise is keyed by (seed, choice, position), so the target draws the
same token after the same text with speculation on or off, and a guess stands when it is that token. `reject` is for
drafts that were drawn from a distribution q of their own (Leviathan et al. 2023; trees: SpecInfer, Miao et al. 2024);
`typical` (Medusa, Cai et al. 2024) is lossy and never a default. It must not know models, pages or requests.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tenantry.runtime.speculative.tree import ROOT, DraftTree

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Verdict:
    """accepted: node indices from the root down. tokens: theirs, and one more that the target drew after them."""

    accepted: tuple[int, ...]
    tokens: tuple[int, ...]


def children(tree: DraftTree) -> dict[int, list[int]]:
    """Node (or ROOT) to its children, in order."""
    found: dict[int, list[int]] = {}
    for node, parent in enumerate(tree.parents):
        found.setdefault(parent, []).append(node)
    return found


def match(tree: DraftTree, drawn: Sequence[int]) -> Verdict:
    """drawn[0]: the target's token after the root; drawn[i + 1]: after node i, given the path to it."""
    place = {edge: node for node, edge in enumerate(zip(tree.parents, tree.tokens, strict=True))}
    at = ROOT
    accepted: list[int] = []
    tokens: list[int] = []
    while True:
        token = drawn[at + 1]
        tokens.append(token)
        following = place.get((at, token))
        if following is None:
            return Verdict(tuple(accepted), tuple(tokens))
        accepted.append(following)
        at = following


def reject(tree: DraftTree, p: Floats, q: Floats, uniform: Callable[[int, int], float]) -> Verdict:
    """p: [nodes + 1, V], the target's distribution after the root and after each node, all of Sampling applied.
    q: [nodes + 1, V], what children of the root and of each node were drawn from, independently of each other.
    uniform(at, attempt): noise in [0, 1) for a node's attempt-th question; the last draw asks once more.

    A child x stands with probability min(1, p(x) / q(x)); after each failure p becomes norm(max(p - q, 0)), and the
    token drawn in the end comes from what is left: whatever q is, tokens are distributed as p.
    """
    below, at = children(tree), ROOT
    accepted: list[int] = []
    tokens: list[int] = []
    while True:
        left, guess = p[at + 1], q[at + 1]
        attempt, following = 0, None
        for node in below.get(at, ()):
            token = tree.tokens[node]
            attempt += 1
            if uniform(at, attempt - 1) * guess[token] < left[token]:
                following = node
                break
            left = np.maximum(left - guess, 0)
            total = left.sum()
            left = left / total if total > 0 else p[at + 1]
        if following is None:
            tokens.append(inverse(left, uniform(at, attempt)))
            return Verdict(tuple(accepted), tuple(tokens))
        accepted.append(following)
        tokens.append(tree.tokens[following])
        at = following


def typical(tree: DraftTree, p: Floats, drawn: Sequence[int], epsilon: float = 0.09, delta: float = 0.3) -> Verdict:
    """The longest path on which every token has p(x) > min(epsilon, delta * exp(-entropy(p))). Lossy: the text is
    plausible, not the target's own. p, drawn: as in reject and match."""
    entropy = -(p * np.log(np.maximum(p, 1e-300))).sum(-1)
    threshold = np.minimum(epsilon, delta * np.exp(-entropy))
    best: list[int] = []
    paths: list[list[int]] = []
    for parent, token in zip(tree.parents, tree.tokens, strict=True):
        before = [] if parent == ROOT else paths[parent]
        stands = (parent == ROOT or bool(before)) and p[parent + 1, token] > threshold[parent + 1]
        paths.append([*before, len(paths)] if stands else [])
        best = max(best, paths[-1], key=len)
    last = best[-1] if best else ROOT
    return Verdict(tuple(best), (*(tree.tokens[node] for node in best), drawn[last + 1]))


def inverse(p: Floats, u: float) -> int:
    """The token at quantile u of p: [V], summing to about 1."""
    mass = p.cumsum()
    return int(min(np.searchsorted(mass, u * mass[-1], side="right"), len(p) - 1))
