"""What is spent on guesses that are not expected to pay, so that it is noticed when they would.

Owns one account: a small share of the time that steps take flows in, each trial's cost flows out, and without credit
there are no trials: whatever guesses cost, trying them cannot slow serving by more than that share. Pure.
"""

from typing import Final

SHARE: Final = 0.01


class Trials:
    """share: of the time. most: steps whose whole time may be saved up."""

    def __init__(self, share: float = SHARE, most: float = 1.0) -> None:
        self._share, self._most = share, most
        self._credit = 0.0

    def earn(self, seconds: float) -> None:
        """A step took so long."""
        self._credit = min(self._credit + self._share * seconds, self._most * seconds)

    def may(self, seconds: float) -> bool:
        """Whether a trial may cost so much more than a step without it."""
        return seconds <= self._credit

    def spend(self, seconds: float) -> None:
        """What it cost; more than there is must be earned before the next one."""
        self._credit -= seconds
