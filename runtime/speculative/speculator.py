"""Who guesses what in the next step: candidates in, guesses out, verdicts remembered.

Owns the proposals that wait for their step, the lookup index and the acceptance rates. It must not know pages,
queues or tensors: proposals of models come in with the results of the step that made them.
"""

from collections.abc import Mapping, Sequence

import msgspec

from tenantry.runtime.speculative.acceptance import Acceptance
from tenantry.runtime.speculative.depth import StepTime, level, share
from tenantry.runtime.speculative.lookup import Lookup
from tenantry.runtime.speculative.tree import MAX_NODES, ROOT, DraftTree, depths, keep, likeliest

DEEPEST = 8  # tokens guessed in a row
WAIT_STEPS = 32  # after guessing did not pay for a sequence, steps until one guess is tried again


class Candidate(msgspec.Struct, frozen=True):
    """A sequence that will draw one token in the next step, and might take guesses.

    tokens: its whole text so far, the scheduler's own list. room: how many tokens it can still use beyond the next.
    nodes: how many guesses it may have in one step, since those that fall are paid for.
    """

    sequence: int
    namespace: bytes
    adapter: bytes | None
    tokens: Sequence[int]
    room: int
    nodes: int = MAX_NODES


class Guess(msgspec.Struct, frozen=True):
    """What a sequence's next row carries: see plan.Row. With fewer nodes than levels ahead, a chain is guessed."""

    draft: DraftTree | None = None
    ahead: int = 0
    nodes: int = 0

    @property
    def room(self) -> int:
        """Positions that guesses for the step after the next one take."""
        return max(self.ahead, self.nodes)


NOTHING = Guess()


class Judged(msgspec.Struct, frozen=True):
    """One row's verdict. accepted: guesses that stood, of a tree `draft`."""

    sequence: int
    adapter: bytes | None
    draft: DraftTree
    accepted: int


class Speculator:
    """lookup: whether to guess from texts. model: the kind of the runner's own proposer, or "". fixed: guess this
    deep always, for measurements; 0 lets acceptance and step time decide.
    """

    def __init__(self, lookup: bool, model: str = "", fixed: int = 0) -> None:
        self._lookup = Lookup() if lookup else None
        self._model = model
        self._fixed = fixed
        self._proposals: dict[int, tuple[int, DraftTree]] = {}
        self._followed: dict[int, Candidate] = {}
        self._rest: dict[int, int] = {}
        self._quiet = 0
        self.acceptance = Acceptance()
        self.guessing_seconds = 0.0  # of the runner's proposer, per token ahead and step

    def propose(self, candidates: Sequence[Candidate], budget: int, step: StepTime) -> Mapping[int, Guess]:
        """Guesses for the next step, by sequence. budget: most nodes in all. Sequences that were candidates and are
        none any more are taken for ended: their text is what their namespace may be guessed from."""
        self._close({c.sequence for c in candidates})
        self._followed = {c.sequence: c for c in candidates}
        trees = [self._tree(c) for c in candidates]
        if self._fixed:
            taken = [
                min(len(tree.tokens), c.nodes) if tree is not None else 0
                for c, tree in zip(candidates, trees, strict=True)
            ]
        else:
            chances = [self._chances(c, t)[: c.nodes] for c, t in zip(candidates, trees, strict=True)]
            taken = share(chances, len(candidates), len(candidates), budget, step)
        guesses: dict[int, Guess] = {}
        deep = self._level(candidates, step)
        for candidate, tree, count in zip(candidates, trees, taken, strict=True):
            draft = likeliest(tree, count) if tree is not None and count else None
            if tree is not None and draft is None:
                self._rest[candidate.sequence] = WAIT_STEPS
            ahead = max(0, min(deep, candidate.room - 1 - (len(draft.tokens) if draft is not None else 0)))
            if draft is not None or ahead:
                guesses[candidate.sequence] = Guess(draft, ahead)
        return guesses

    @property
    def first_ahead(self) -> int:
        """How deep the runner should guess right after a prompt."""
        return (self._fixed or 1) if self._model else 0

    def proposed(self, sequence: int, length: int, tree: DraftTree) -> None:
        """The runner's proposal for a sequence whose text is `length` tokens long now."""
        self._proposals[sequence] = (length, tree)

    def learn(self, judged: Sequence[Judged]) -> None:
        """What a step's verdicts say."""
        for row in judged:
            reach = max(depths(row.draft))
            self.acceptance.observe(row.adapter, row.draft.kind, row.accepted, reach)

    def guessed(self, seconds: float, tokens: int) -> None:
        """The runner's proposer took this long for guesses of so many tokens in a row."""
        if tokens and seconds:
            self.guessing_seconds += 0.1 * (seconds / tokens - self.guessing_seconds)

    def forget(self, adapter: bytes) -> None:
        """A retired adapter: what was learned of it, and every text drawn with it."""
        self.acceptance.forget(adapter)
        if self._lookup is not None:
            self._lookup.forget(adapter)

    def _tree(self, candidate: Candidate) -> DraftTree | None:
        """The better of what the model proposed and what the text suggests, cut to the sequence's room."""
        length, tree = self._proposals.pop(candidate.sequence, (0, None))
        if length != len(candidate.tokens):
            tree = None
        resting = self._rest.get(candidate.sequence, 0)
        if resting > 0:
            self._rest[candidate.sequence] = resting - 1
            return None
        found = None
        most = min(DEEPEST, candidate.room, self._fixed or DEEPEST)
        if self._lookup is not None and most > 0:
            found = self._lookup.propose(candidate.sequence, candidate.namespace, candidate.tokens, most)
        best = max((t for t in (tree, found) if t is not None), key=lambda t: self._worth(candidate, t), default=None)
        return _within(best, candidate.room) if best is not None else None

    def _worth(self, candidate: Candidate, tree: DraftTree) -> float:
        """Expected number of guesses that stand."""
        return sum(self._chances(candidate, tree))

    def _chances(self, candidate: Candidate, tree: DraftTree | None) -> list[float]:
        """Of each node, likeliest first: what was measured at its depth, times its share among its siblings."""
        if tree is None:
            return []
        deep = depths(tree)
        measured = self.acceptance.chances(candidate.adapter, tree.kind, max(deep))
        if tree.is_chain:
            return measured
        shares: list[float] = []
        for node, parent in enumerate(tree.parents):
            siblings = [n for n, p in enumerate(tree.parents) if p == parent]
            total = sum(tree.chance[n] for n in siblings) if tree.chance else float(len(siblings))
            own = tree.chance[node] / total if tree.chance and total > 0 else 1 / len(siblings)
            shares.append(own * (1.0 if parent == ROOT else shares[parent]))
        return sorted((measured[d - 1] * s for d, s in zip(deep, shares, strict=True)), reverse=True)

    def _level(self, candidates: Sequence[Candidate], step: StepTime) -> int:
        """How deep the runner should guess for the step after this one. Where it does not pay, one level is tried
        now and then, so that what has changed is noticed."""
        if not self._model or not candidates:
            return 0
        if self._fixed:
            return min(self._fixed, MAX_NODES)
        rows = len(candidates)
        chances = [self.acceptance.chances(c.adapter, self._model, DEEPEST) for c in candidates]
        deep = level(chances, rows, rows, DEEPEST, step, self.guessing_seconds)
        self._quiet = 0 if deep else self._quiet + 1
        return deep or int(self._quiet % WAIT_STEPS == 0)

    def _close(self, alive: set[int]) -> None:
        for sequence, candidate in self._followed.items():
            if sequence not in alive:
                self._proposals.pop(sequence, None)
                self._rest.pop(sequence, None)
                if self._lookup is not None:
                    self._lookup.finish(sequence, candidate.namespace, candidate.tokens, candidate.adapter)


def _within(tree: DraftTree, room: int) -> DraftTree | None:
    """The part of a tree that is at most `room` deep; None when nothing is left."""
    if room < 1:
        return None
    deep = depths(tree)
    if max(deep) <= room:
        return tree
    return keep(tree, [node for node, depth in enumerate(deep) if depth <= room])
