"""Who guesses what in the next step: candidates in, guesses out, verdicts remembered.

Owns what is known of each sequence that takes guesses, and the choice between lookup and the runner's proposer. It
must not know pages, queues or tensors: proposals of models come in with the results of the step that made them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain

import msgspec

from tenantry.runtime.counts import Guessing, ProposerCounts
from tenantry.runtime.speculative.acceptance import Acceptance, at_depth, graded
from tenantry.runtime.speculative.asking import LONGEST_REST, Asker, Asking, Cost, Times
from tenantry.runtime.speculative.depth import share
from tenantry.runtime.speculative.growth import node_budget
from tenantry.runtime.speculative.lead import Lead, looked_up, outcomes, proposed
from tenantry.runtime.speculative.lookup import KIND, Lookup
from tenantry.runtime.speculative.tally import Tally
from tenantry.runtime.speculative.tree import MAX_NODES, DraftTree
from tenantry.runtime.speculative.trials import Trials

LONGEST = 48  # tokens that are copied at once
TOGETHER = 128  # guesses of all rows from which the knapsack chooses, while each has its FEWEST
FEWEST = 4


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
    follow: bool = False

    @property
    def room(self) -> int:
        """Positions that guesses for the step after the next one take."""
        return max(self.ahead, self.nodes)


NOTHING = Guess()
FOLLOWED = Guess(follow=True)
Opening = Callable[[int, bytes | None, int], Guess]


def no_opening(sequence: int, adapter: bytes | None, prompt: int) -> Guess:
    """Nobody guesses."""
    return NOTHING


class Judged(msgspec.Struct, frozen=True):
    """One row's verdict. tokens: drawn, of which the first `accepted` are guesses that stood, of a tree `draft`."""

    sequence: int
    draft: DraftTree
    tokens: Sequence[int]
    accepted: int


class _Followed:
    """A sequence that takes guesses. length: of its text when it was last looked at; counted: of the part that the
    tally knows; steps: that the tally does not know yet. lead: what its guesses in the step under way come from.
    rest, patience: steps until texts are searched for it again, and how many they were the last time. begun: length
    of its text at first. whole: the runner's proposer follows its text from the beginning."""

    __slots__ = ("begun", "candidate", "counted", "lead", "length", "patience", "rest", "steps", "whole")

    def __init__(self, candidate: Candidate, whole: bool) -> None:
        self.candidate, self.whole = candidate, whole
        self.begun = self.length = self.counted = len(candidate.tokens)
        self.steps = self.rest = self.patience = 0
        self.lead: Lead | None = None


class Speculator:
    """lookup: whether to guess from texts. model: the kind of the runner's own proposer, or "". fixed: guess this
    deep always, for measurements; 0 lets acceptance and times decide.
    """

    def __init__(self, lookup: bool, model: str = "", fixed: int = 0) -> None:
        self._lookup = Lookup() if lookup else None
        self._model = model
        self._fixed = fixed
        self._followed: dict[int, _Followed] = {}
        self._proposals: dict[int, tuple[int, DraftTree]] = {}
        self._acceptance, self._trials = Acceptance(), Trials()
        self._asking = Asking(model, fixed, self._acceptance, self._trials)
        self._tally = Tally()

    def propose(self, candidates: Sequence[Candidate], budget: int, times: Times) -> Mapping[int, Guess]:
        """Guesses for the next step, by sequence. budget: most nodes in all. Sequences that were candidates and are
        none any more are taken for ended: their text is what their namespace may be guessed from."""
        rows, followed = len(candidates), self._follow(candidates)
        if not followed:
            return {}
        cost = _cost(times, rows, sum(one.length for one in followed))
        if self._lookup is None and not self._proposals and self._asking.rests(rows, cost, times):
            return {one.candidate.sequence: FOLLOWED for one in followed if one.whole}
        most = self._fixed or max(FEWEST, min(LONGEST, TOGETHER // rows))
        leads = [self._lead(one, most) for one in followed]
        chances = [
            lead.chances[: one.candidate.nodes] if lead is not None else ()
            for one, lead in zip(followed, leads, strict=True)
        ]
        if self._fixed:
            taken = [len(row) for row in chances]
        else:
            taken = share(chances, rows, budget, cost)
            self._try_a_guess(chances, taken, cost)
        ahead = self._ahead(followed, leads, taken, cost, times)
        guesses: dict[int, Guess] = {}
        most_nodes = 0 if self._fixed else node_budget(rows)
        for one, lead, count, deep in zip(followed, leads, taken, ahead, strict=True):
            one.lead = lead
            if lead is not None:
                one.patience = 0 if count else min(one.patience + 1, rows, LONGEST_REST)
                one.rest = max(0, one.patience - 1)  # a look is cheap where there are few rows
            draft = lead.take(count) if lead is not None else None
            deep = max(0, min(deep, one.candidate.room - 1 - count))
            if draft is not None or deep or one.whole:
                nodes = min(one.candidate.nodes, most_nodes) if deep else 0
                guesses[one.candidate.sequence] = Guess(draft, deep, nodes, one.whole)
        self._proposals.clear()  # what was made for this step and found no use is of none
        return guesses

    def opening(self, sequence: int, adapter: bytes | None, prompt: int) -> Guess:
        """For a row that computes of a prompt, of which so many tokens are left."""
        whole, ahead = self._asking.opening(sequence, adapter, prompt)
        return Guess(None, ahead, follow=whole)

    def proposed(self, sequence: int, length: int, tree: DraftTree) -> None:
        """The runner's proposal for a sequence whose text is `length` tokens long now."""
        self._proposals[sequence] = (length, tree)

    def learn(self, judged: Sequence[Judged]) -> None:
        """What the verdicts of the step that was proposed last say."""
        for row in judged:
            one, tree = self._followed[row.sequence], row.draft
            of = one.candidate
            copied = one.lead if tree.kind == KIND else None  # a chain, of which the first guesses were taken
            scale, grades = (copied.scale, copied.grades) if copied is not None else graded(tree)
            tried = outcomes(tree, row.tokens, grades)
            self._acceptance.observe(of.adapter, of.sequence, scale, chain.from_iterable(tried))
            if tree.kind == self._model:
                level = [(at_depth(at), at <= row.accepted) for at in range(1, len(tried) + 1)]
                self._acceptance.observe(of.adapter, of.sequence, self._asking.scale(one.whole), level)
            kind = f"{tree.kind}+lora" if tree.fitted else tree.kind
            self._tally.judged(of.namespace, of.adapter, kind, len(tree.tokens), len(tried), row.accepted)

    def took(self, seconds: float, guessing: float) -> None:
        """The step that was proposed last, and the runner's guessing after it."""
        self._asking.took(seconds, guessing)

    def forget(self, adapter: bytes) -> None:
        """A retired adapter: what was learned of it, and every text drawn with it."""
        self._acceptance.forget(adapter)
        if self._lookup is not None:
            self._lookup.forget(adapter)

    def totals(self) -> tuple[ProposerCounts, ...]:
        """What each proposer's guesses came to."""
        return self._tally.totals()

    def counts(self) -> Iterable[Guessing]:
        """The same by namespace, and what it saved."""
        for one in self._followed.values():
            self._tell(one)
        return self._tally.counts()

    # What is known of sequences

    def _follow(self, candidates: Sequence[Candidate]) -> list[_Followed]:
        before, self._followed = self._followed, {}
        for candidate in candidates:
            one = before.pop(candidate.sequence, None)
            if one is None:
                one = _Followed(candidate, self._asking.began(candidate.sequence))
            else:
                one.candidate = candidate
                _note(one)
            self._followed[candidate.sequence] = one
        for one in before.values():
            self._close(one)
        return list(self._followed.values())

    def _close(self, one: _Followed) -> None:
        _note(one)
        self._tell(one)
        of = one.candidate
        self._acceptance.end(of.sequence)
        self._asking.ended(1 + one.length - one.begun)
        if self._lookup is not None:
            self._lookup.finish(of.sequence, of.namespace, of.tokens, of.adapter)

    def _tell(self, one: _Followed) -> None:
        self._tally.drew(one.candidate.namespace, one.candidate.adapter, one.steps, one.length - one.counted)
        one.steps, one.counted = 0, one.length

    # What may be guessed

    def _lead(self, one: _Followed, most: int) -> Lead | None:
        """The better of what the model proposed and what came before in texts."""
        of, best = one.candidate, None
        length, tree = self._proposals.get(of.sequence, (0, None))
        if tree is not None and length == one.length:
            best = proposed(tree, of.room, self._acceptance, of.adapter, of.sequence)
        if one.rest > 0:
            one.rest -= 1
        elif self._lookup is not None and of.room > 0:
            match = self._lookup.find(of.sequence, of.namespace, of.tokens)
            if match is not None:
                other = looked_up(match, min(most, of.room), self._acceptance, of.adapter, of.sequence)
                best = other if best is None or other.worth > best.worth else best
        return best

    def _try_a_guess(self, chances: Sequence[Sequence[float]], taken: list[int], cost: Cost) -> None:
        """Judge one guess that is not expected to pay, if that can be afforded: the likeliest."""
        left = [(row[0], r) for r, row in enumerate(chances) if row and not taken[r]]
        if left:
            others = sum(taken)
            extra = cost(others + 1) - cost(others)
            if self._trials.may(extra):
                self._trials.spend(extra)
                taken[max(left)[1]] = 1

    # What the runner should guess for the step after this one

    def _ahead(
        self,
        followed: Sequence[_Followed],
        leads: Sequence[Lead | None],
        taken: Sequence[int],
        cost: Cost,
        times: Times,
    ) -> list[int]:
        """Levels for each row. A row that copies a text goes on with it: the model's guesses are of no use there."""
        found = [sum(lead.chances[:n]) for lead, n in zip(leads, taken, strict=True) if lead and lead.copies and n]
        self._asking.copied(len(leads), found)
        askers = []
        for one, lead, count in zip(followed, leads, taken, strict=True):
            of, copies = one.candidate, lead is not None and lead.copies and count > 1
            askers.append(Asker(of.adapter, of.sequence, one.whole, copies))
        return self._asking.ahead(askers, cost, times)


def _note(one: _Followed) -> None:
    """What its last step drew."""
    length = len(one.candidate.tokens)
    one.steps += length > one.length
    one.length = length


def _cost(times: Times, rows: int, attended: int) -> Cost:
    """Times asked thrice, for however many guesses it is asked itself: those after the first all cost the same."""
    none, first, second = (times.seconds(rows, nodes, attended=attended) for nodes in range(3))
    each = second - first
    return lambda nodes: first + each * (nodes - 1) if nodes else none
