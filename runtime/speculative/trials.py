"""What is spent on guesses that are not expected to pay, so that it is noticed when they would.

Owns one account: a small share of the time that steps take flows in, each trial's cost flows out, and without credit
there are no trials: whatever guesses cost, trying them cannot slow serving by more than that share. Pure.
"""

from typing import Final

SHARE: Final = 0.01


class Trials:
    def __init__(self) -> None:
        self._credit = 0.0

    def earn(self, seconds: float) -> None:
        """A step took so long; no more than that is ever saved up."""
        self._credit = min(self._credit + SHARE * seconds, seconds)

    def may(self, seconds: float) -> bool:
        """Whether a trial may cost so much more than a step without it."""
        return seconds <= self._credit

    def spend(self, seconds: float) -> None:
        """What it cost; more than there is must be earned before the next one."""
        self._credit -= seconds
