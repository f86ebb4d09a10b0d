"""Which guesses stand: pure functions from a tree and what the target drew to the tokens that are committed.

`match` is the default and exact: every position's noise is keyed by (seed, choice, position), so the target draws the
same token after the same text with speculation on or off, and a guess stands when it is that token. `reject` is for
drafts that were drawn from a distribution q of their own: the text is distributed as the target's, though another;
`typical` (Medusa, Cai et al. 2024) is lossy and never a default. It must not know models, pages or requests.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tenantry.runtime.speculative.tree import ROOT, DraftTree

Floats = NDArray[np.float64]
Verify = Literal["sample", "reject", "typical"]  # how an engine judges: by match, or by one of the others


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


class Odds(NamedTuple):
    """What rejection sampling needs to know of one draft before any noise.

    below: each node's children. stands[i]: chance that node i stands, when its parent did and its siblings before it
    fell. rest: what the target draws after the root and after each node when none of its children stands: cumulative,
    [V] each.
    """

    below: dict[int, list[int]]
    stands: list[float]
    rest: list[Floats]


def odds(tree: DraftTree, p: Floats, q: Floats) -> Odds:
    """p: [nodes + 1, V], the target's distribution after the root and after each node, all of Sampling applied.
    q: [nodes + 1, V], what the children of the root and of each node were drawn from: one after the other, without
    replacement (recursive rejection sampling: Jeon et al. 2024; chains: Leviathan et al. 2023).

    A child x stands with chance min(1, p(x) / q(x)). After each that falls, p becomes norm(max(p - q, 0)) and q loses
    x; what is drawn when all have fallen comes from the p that is left. So tokens are distributed as the target has
    them, whatever q is, as long as nobody chose among drawn children by what they are.
    """
    stands = [0.0] * len(tree.tokens)
    rest: list[Floats] = []
    below = children(tree)
    for at in range(ROOT, len(tree.tokens)):
        left, guess = p[at + 1], q[at + 1]
        for node in below.get(at, ()):
            token = tree.tokens[node]
            if guess[token] > 0:
                stands[node] = min(1.0, float(left[token] / guess[token]))
            left = _norm(np.maximum(left - guess, 0), left)
            guess = guess.copy()
            guess[token] = 0
            guess = _norm(guess, guess)
        rest.append(left.cumsum())
    return Odds(below, stands, rest)


def reject(tree: DraftTree, chances: Odds, uniform: Callable[[int], float]) -> Verdict:
    """uniform(question): noise in [0, 1) for each question of the walk, counted from 0: does this child stand, and in
    the end: which token comes after the last that does."""
    at, question = ROOT, 0
    accepted: list[int] = []
    while True:
        following = None
        for node in chances.below.get(at, ()):
            question += 1
            if uniform(question - 1) < chances.stands[node]:
                following = node
                break
        if following is None:
            token = quantile(chances.rest[at + 1], uniform(question))
            return Verdict(tuple(accepted), (*(tree.tokens[node] for node in accepted), token))
        accepted.append(following)
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


def quantile(mass: Floats, u: float) -> int:
    """The token at quantile u of a distribution, never one without mass. mass: [V], its cumulative sums."""
    total = mass[-1]
    return int(np.searchsorted(mass, min(u * total, np.nextafter(total, 0)), side="right"))


def _norm(p: Floats, otherwise: Floats) -> Floats:
    """Scaled to sum to one; `otherwise` where nothing is left (rounding, or a child that could not fall)."""
    total = p.sum()
    return p / total if total > 0 else otherwise
