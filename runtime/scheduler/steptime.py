"""How long a step takes, learned while serving: seconds = a + b * tokens + c * attended, never constants in the code.

Owns the fit: recursive least squares with forgetting (Haykin, Adaptive Filter Theory, ch. 9), one update per step.
Pure floats; the runner measures, this only remembers. tokens: computed in the step. attended: positions that they
attend to, summed over rows, in thousands.
"""

FORGET = 0.995
DOUBT = 1e6  # variance of a coefficient about which nothing is known
FIRST = (1e-3, 1e-5, 1e-6)  # seconds; only until the first steps are measured


class StepTimeModel:
    def __init__(self) -> None:
        self._at = list(FIRST)
        self._spread = [[DOUBT if i == j else 0.0 for j in range(3)] for i in range(3)]
        self.steps = 0

    def observe(self, tokens: int, attended: int, seconds: float) -> None:
        """One measured step. A step ten times slower than expected, once the model has seen some, counts as one twice
        as slow: a page fault or a compiler must not teach it."""
        expected = self.seconds(tokens, attended)
        if self.steps > 16 and seconds > 10 * expected:
            seconds = 2 * expected
        x = (1.0, float(tokens), attended / 1000)
        gain = [sum(row[j] * x[j] for j in range(3)) for row in self._spread]
        scale = FORGET + sum(x[i] * gain[i] for i in range(3))
        error = seconds - sum(a * b for a, b in zip(self._at, x, strict=True))
        self._at = [a + g / scale * error for a, g in zip(self._at, gain, strict=True)]
        spread = [[(self._spread[i][j] - gain[i] * gain[j] / scale) / FORGET for j in range(3)] for i in range(3)]
        if all(spread[i][i] < DOUBT for i in range(3)):  # unexcited directions must not blow up
            self._spread = spread
        self.steps += 1

    def seconds(self, tokens: int, attended: int = 0) -> float:
        """Expected time; rises with tokens and is positive, whatever noise made of the fit."""
        a, b, c = (max(value, 0.0) for value in self._at)
        return max(a + b * tokens + c * attended / 1000, 1e-6)
