"""What is asked of the runner's own proposer: how deep it guesses for which row, and which texts it follows for that.

Owns the answer to both, from acceptance and times. Following a text costs a proposer about as much as guessing, for
prompts more than that; whoever follows none of a prompt guesses from the end of the text, as well as that goes. Both
kinds of text have rates of their own, so what following is worth is measured. Pure.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import accumulate
from operator import mul
from typing import NamedTuple, Protocol

from tenantry.runtime.speculative.acceptance import Acceptance, Basis, at_depth
from tenantry.runtime.speculative.depth import levels, saved
from tenantry.runtime.speculative.tree import MAX_NODES
from tenantry.runtime.speculative.trials import Trials

DEEPEST = 8  # levels that a model guesses
LATELY = 50  # steps over which it is averaged what copies bring
SINGLY = 8  # rows whose sequences are told apart when it is decided how deep; of more only adapters are
LONGEST_REST = 32  # steps without a look, after guessing did not pay again and again
REMEMBERED = 4096  # sequences that began and drew nothing yet
LENGTH = 64.0  # tokens that a sequence draws, before any has ended
ENDS = 16  # sequences over which that is averaged
FOLLOWING = 0.005  # share of the time in which prompts are followed that are not expected to pay
SAVED = 500  # steps' time that may be saved up for one
COMPARED = 32  # sequences that are followed, until one is not: who is as well guessed so needs no following

Cost = Callable[[int], float]  # seconds of a step, by how many guesses are judged in it


class Times(Protocol):
    """Expected seconds of a step, of the runner's guessing for the next one, and of what following so many tokens of
    a prompt adds: see StepTimeModel. Guesses (nodes) after the first add the same each."""

    def seconds(self, rows: int, nodes: int = 0, prompt: int = 0, attended: int = 0) -> float: ...
    def guessing(self, levels: int, guesses: int) -> float: ...
    def following(self, tokens: int) -> float: ...


class Asker(NamedTuple):
    """A row that may ask. whole: its text is followed from the beginning. copies: it goes on with a text that came
    before, and has no use for other guesses."""

    adapter: bytes | None
    sequence: int
    whole: bool
    copies: bool


class _Prices(NamedTuple):
    rows: int
    cost: Cost
    times: Times


class Asking:
    """model: the proposer's kind, or "" for none. fixed: guess so deep always and follow everything; 0 lets
    acceptance and times decide. trials: pays for what is not expected to."""

    def __init__(self, model: str, fixed: int, acceptance: Acceptance, trials: Trials) -> None:
        self._model, self._fixed = model, fixed
        self._acceptance, self._trials = acceptance, trials
        self._trying = False  # what is guessed in the step under way is a trial
        self._deep = {True: 1, False: 1}  # how deep it is lately guessed, of texts followed whole and of others
        self._quiet = self._patience = 0  # steps for which the proposer is not even considered
        self._copied = self._copy_gain = 0.0  # lately, of rows: share that copied, and tokens that it brought each
        self._length = LENGTH
        self._whole: OrderedDict[int, bool] = OrderedDict()
        self._prices: _Prices | None = None
        self._saved: dict[tuple[bytes | None, bool | None], float] = {}  # at those prices, see _saves
        self._following = Trials(FOLLOWING, SAVED)
        self._compare = COMPARED // 4

    def opening(self, sequence: int, adapter: bytes | None, prompt: int) -> tuple[bool, int]:
        """Whether a prompt, of which so many tokens are left, is followed, and how deep it is guessed at its end.
        Whether: decided once for a sequence, and again after it gave way to others, or was forgotten."""
        if not self._model or self._fixed:
            return bool(self._model), self._fixed
        whole = self._whole.get(sequence)
        if whole is None:
            whole = self._whole[sequence] = self._follows(adapter, prompt)
            if len(self._whole) > REMEMBERED:
                self._whole.popitem(last=False)
        return whole, self._deep[whole]

    def took(self, seconds: float, guessing: float) -> None:
        """The last step, and the runner's guessing after it."""
        self._trials.earn(seconds)
        self._following.earn(seconds)
        if self._trying:
            self._trials.spend(guessing)

    def began(self, sequence: int) -> bool:
        """A sequence takes guesses from now on. Returns whether its text is followed whole."""
        self._quiet = 0  # what did not pay for others may for it
        return self._whole.pop(sequence, bool(self._model))

    def ended(self, tokens: int) -> None:
        """A sequence drew so many."""
        self._length += (tokens - self._length) / ENDS

    def copied(self, rows: int, brought: Sequence[float]) -> None:
        """Of a step's rows: what those that copy a text are expected to bring by it."""
        self._copied += (len(brought) / rows - self._copied) / LATELY
        self._copy_gain += (sum(brought) / rows - self._copy_gain) / LATELY

    def rests(self, rows: int, cost: Cost, times: Times) -> bool:
        """Whether the proposer is not even considered in this step, since guesses did not pay lately. Not to be asked
        again in a step for which it says so."""
        self._trying = False
        if self._fixed:
            return False
        self._prices = _Prices(rows, cost, times)
        self._saved.clear()
        if self._quiet > 0:
            self._quiet -= 1
            return True
        return False

    def ahead(self, askers: Sequence[Asker], cost: Cost, times: Times) -> list[int]:
        """Levels for each row: what pays beside what copies bring anyway."""
        nothing = [0] * len(askers)
        if not self._model or self.rests(len(askers), cost, times):
            return nothing
        if self._fixed:
            return [min(self._fixed, MAX_NODES)] * len(askers)
        known: dict[tuple[bytes | None, int | None, bool], list[float]] = {}
        rows: list[list[float]] = []
        for one in askers:
            key = one.adapter, one.sequence if len(askers) <= SINGLY else None, one.whole
            if not one.copies and key not in known:
                known[key] = self._levels(*key)
            rows.append([] if one.copies else known[key])
        if not any(rows):
            return nothing
        deep = levels(rows, len(askers) * (1 + self._copy_gain), cost, times.guessing)
        for whole in {one.whole for one in askers}:
            self._deep[whole] = max(d for one, d in zip(askers, deep, strict=True) if one.whole == whole)
        if any(deep):
            self._patience = 0
            return deep
        self._patience = self._quiet = min(2 * self._patience + 1, LONGEST_REST)
        left = [(row[0], r) for r, row in enumerate(rows) if row]
        if left and self._trials.may(times.guessing(1, 1) + cost(1) - cost(0)):
            self._trying = True
            deep[max(left)[1]] = 1
        return deep

    def scale(self, whole: bool) -> tuple[str, Basis]:
        """What levels of a text that is followed whole, or not, are graded by."""
        return self._model, Basis.LEVEL if whole else Basis.LATE

    def _levels(self, adapter: bytes | None, sequence: int | None, whole: bool) -> list[float]:
        """Chance that a path of the model's is used, and stands down to each level."""
        grades = [at_depth(level) for level in range(1, DEEPEST + 1)]
        rates = self._acceptance.rates(adapter, sequence, self.scale(whole), grades)
        return list(accumulate(rates, mul, initial=1 - self._copied))[1:]

    def _follows(self, adapter: bytes | None, prompt: int) -> bool:
        """Whether what following a prompt is expected to save over the sequence's life is more than it costs, or is
        not known to be less and may be tried. Of those that are followed some are not, for comparison."""
        if self._prices is None:  # nothing is known of anything
            return True
        price = self._prices.times.following(prompt)
        without = self._saves(self._prices, adapter, whole=False)
        if self._saves(self._prices, adapter, whole=True) - without > price:
            self._compare = self._compare - 1 if self._compare else COMPARED
            return self._compare > 0
        if self._saves(self._prices, None, whole=None) - without > price and self._following.may(price):
            self._following.spend(price)
            return True
        return False

    def _saves(self, prices: _Prices, adapter: bytes | None, whole: bool | None) -> float:
        """Over a sequence's life. whole: of a text that is followed whole, or not; None: if every guess stood. Many
        begin between two steps, of few adapters."""
        key = adapter, whole
        each = self._saved.get(key)
        if each is None:
            rows, cost, times = prices
            chances = [1 - self._copied] * DEEPEST if whole is None else self._levels(adapter, None, whole)
            each = self._saved[key] = saved(chances, rows, 1 + self._copy_gain, cost, times.guessing)
        return self._length * each
