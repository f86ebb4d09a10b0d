"""How long a step takes, and guessing for the next one, learned while serving and never constants in the code.

Owns the fits: Kalman filters whose coefficients wander (Haykin, Adaptive Filter Theory, ch. 14), one update per step.
Pure floats; the runner measures, this only remembers. In milliseconds inside, since a step takes some.
"""

from collections import deque
from collections.abc import Sequence
from heapq import nlargest

from tenantry.runtime.counts import StepTimes
from tenantry.runtime.plan import Row

DOUBT = 100.0  # standard deviation, in ms, of a coefficient about which nothing is known: or this many
UNSURE = 5.0  # times the first measurement, of a machine or model so slow that this is more
MEMORY = 200  # measurements after which one counts little: coefficients are taken to wander that slowly
NOISE = 0.1  # a measurement is off by so much of itself
QUIETEST = 0.02  # and by so many ms at least
LATELY = 64  # measurements over which it is averaged how far off they were
SHARED = 300  # steps that prompts shared with decoding rows, of which the second latest is told
LEARNED = 16  # measurements after which one may be called strange, and the fit may be relied upon


class Fit:
    """seconds = coefficients . features, no coefficient counted below 0. first: what to believe at first, in ms."""

    def __init__(self, first: Sequence[float]) -> None:
        self._at = list(first)
        self._most = DOUBT**2
        self._doubt: list[list[float]] = []
        self.seen = 0

    def observe(self, features: Sequence[float], seconds: float) -> None:
        """One measurement. Ten times what was expected, once there is something to expect, counts as twice: a page
        fault or a compiler must not teach it."""
        took, expected = 1e3 * seconds, 1e3 * self.seconds(features)
        if not self.seen:
            self._most, every = max(DOUBT, UNSURE * took) ** 2, range(len(self._at))
            self._doubt = [[self._most if i == j else 0.0 for j in every] for i in every]
        if self.seen > LEARNED and took > 10 * expected:
            took = 2 * expected
        used = [i for i, x in enumerate(features) if x]
        gain = [sum(row[j] * features[j] for j in used) for row in self._doubt]
        noise = max(NOISE * took, QUIETEST) ** 2
        scale = noise + sum(features[i] * gain[i] for i in used)
        error = (took - sum(self._at[i] * features[i] for i in used)) / scale
        for i, g in enumerate(gain):
            self._at[i] += g * error
            row, part = self._doubt[i], g / scale
            for j, other in enumerate(gain):
                row[j] -= part * other
            if row[i] < self._most:
                row[i] += noise / MEMORY**2
        self._project()
        self.seen += 1

    def _project(self) -> None:
        """No coefficient below 0: the nearest that is none, by how much each is doubted with the others (D. Simon,
        Kalman filtering with state constraints, 2010). Cutting them off alone would leave too much in those with
        which they go together, where steps are alike for long."""
        at = self._at
        for _ in at:
            worst = min(range(len(at)), key=at.__getitem__)
            if at[worst] >= 0:
                return
            shift = at[worst] / self._doubt[worst][worst]
            for j, row in enumerate(self._doubt):
                at[j] -= row[worst] * shift
            at[worst] = 0.0

    @property
    def coefficients(self) -> tuple[float, ...]:
        """In ms, as they are fitted."""
        return tuple(self._at)

    def seconds(self, features: Sequence[float]) -> float:
        """Positive, whatever noise made of the fit."""
        return max(1e-3 * sum(max(a, 0.0) * x for a, x in zip(self._at, features, strict=True)), 1e-6)


class StepTimeModel:
    """A step of `rows` that draw a token, with `nodes` guesses judged beside them (the first costs more than the
    next), `prompt` tokens of prompts, all of which look at `attended` positions, summed over rows, and the prompts'
    tokens at `pairs` of them, summed over tokens. And guessing for the next one: `levels` one after the other, of
    `guesses` in all, and `followed` tokens of prompts that whoever guesses computes as well.

    error: how far expectations were off, relative to what was measured then, over about the last LATELY steps, each
    counted as 1 at most. expected, took_lately: seconds, over the same steps.
    late: nearly all steps that prompts share with decoding rows take at most so many times what was expected, as the
    last SHARED did: whatever the distribution, 2 of 301 will take longer (split conformal prediction; Vovk et al.,
    Algorithmic Learning in a Random World, 2005).
    """

    def __init__(self) -> None:
        self._step = Fit((1.0, 0.1, 0.0, 0.1, 1.0, 0.1, 0.0))
        self._guessing = Fit((0.1, 0.5, 0.1, 1.0))
        self.error = self.expected = self.took_lately = 0.0
        self.late = 1.1
        self._lateness: deque[float] = deque(maxlen=SHARED)

    @property
    def learned(self) -> bool:
        """Whether anything may be refused or cut on the word of this model."""
        return self._step.seen > LEARNED

    def took(self, rows: Sequence[Row], seconds: float, guessing_seconds: float = 0.0) -> None:
        """A step with these rows was measured, its guessing for the next one apart."""
        decoding = prompt = attended = pairs = nodes = deepest = guesses = followed = 0
        for row in rows:
            count = len(row.tokens)
            attended += row.start + count
            if count == 1:
                decoding += 1
                nodes += len(row.draft.tokens) if row.draft is not None else 0
            else:
                prompt += count
                pairs += looked_at(row.start, count)
                followed += count if row.follow else 0
            deepest, guesses = max(deepest, row.ahead), guesses + row.ahead
        self.observe(decoding, nodes, prompt, attended, seconds, pairs)
        self.observe_guessing(deepest, guesses, followed, guessing_seconds)

    def observe(self, rows: int, nodes: int, prompt: int, attended: int, seconds: float, pairs: int = 0) -> None:
        work = _work(rows, nodes, prompt, attended, pairs)
        if self.learned and seconds > 0:
            expected, part = self._step.seconds(work), 1 / min(LATELY, self._step.seen - LEARNED)
            self.error += (min(abs(expected / seconds - 1), 1.0) - self.error) * part
            self.expected += (expected - self.expected) * part
            self.took_lately += (seconds - self.took_lately) * part
            if rows and prompt:
                self._lateness.append(seconds / expected)
                self.late = max(1.0, min(nlargest(2, self._lateness)))
        self._step.observe(work, seconds)

    def seconds(self, rows: int, nodes: int = 0, prompt: int = 0, attended: int = 0, pairs: int = 0) -> float:
        """Expected time of the step."""
        return self._step.seconds(_work(rows, nodes, prompt, attended, pairs))

    def observe_guessing(self, levels: int, guesses: int, followed: int, seconds: float) -> None:
        if levels or followed:
            self._guessing.observe((1.0, float(levels), guesses / 8, followed / 128), seconds)

    def guessing(self, levels: int, guesses: int) -> float:
        """Expected time of guessing; none takes none."""
        return self._guessing.seconds((1.0, float(levels), guesses / 8, 0.0)) if levels else 0.0

    def following(self, tokens: int) -> float:
        """Expected time that so many tokens of a prompt cost whoever guesses."""
        return self._guessing.seconds((0.0, 0.0, 0.0, tokens / 128)) if tokens else 0.0

    def report(self) -> StepTimes:
        """As it stands: no coefficient below 0, which is how they are counted."""
        step, row, first, guess, prompt, attended, pairs = (max(a, 0.0) / 1e3 for a in self._step.coefficients)
        return StepTimes(
            measured=self._step.seen,
            error=self.error,
            expected=self.expected,
            took=self.took_lately,
            step=step,
            row=row / 8,
            first_guess=first,
            guess=guess / 8,
            prompt_token=prompt / 128,
            kilo_attended=attended / 4.096,
            kilo_prompt_attended=pairs / 131.072,
        )


def looked_at(start: int, count: int) -> int:
    """Positions that `count` prompt tokens look at, one after the other, the first of them at `start`."""
    return count * start + count * (count + 1) // 2


def _work(rows: int, nodes: int, prompt: int, attended: int, pairs: int) -> tuple[float, ...]:
    """Of similar size, so that one doubt suits them all."""
    return (1.0, rows / 8, 1.0 if nodes else 0.0, nodes / 8, prompt / 128, attended / 4096, pairs / 131_072)
