"""Decides from an engine's answers whether it is alive and moving.

Owns no process and no clock: `now` is passed in, so every path is tested without waiting. Health is forward
progress, not an open socket: an engine that has work and does not move is hung, however politely it answers.
"""

from dataclasses import dataclass
from enum import StrEnum

from tenantry.runtime.messages import Pong


class Verdict(StrEnum):
    STARTING = "starting"
    HEALTHY = "healthy"
    SILENT = "silent"  # no answer for too long
    HUNG = "hung"  # answers, has running work, makes no step


@dataclass(slots=True)
class Watchdog:
    """silence and stall: seconds without an answer, or without a step while requests run, before it is given up.
    A pulse comes from a thread of its own, so silence means a stopped process; a step may take many seconds on a slow
    or crowded machine, so the stall is longer. start: seconds that loading the model may take."""

    silence: float = 10.0
    stall: float = 60.0
    start: float = 600.0
    _spawned: float = 0.0
    _heard: float | None = None
    _progress: int = -1
    _moved: float = 0.0
    _busy: bool = False

    def spawned(self, now: float) -> None:
        """A new process was started; all earlier answers are another life's."""
        self._spawned, self._heard, self._progress, self._moved, self._busy = now, None, -1, now, False

    def heard(self, pong: Pong, now: float) -> None:
        busy = pong.stats.running > 0
        if pong.progress != self._progress or not busy or not self._busy:
            self._progress, self._moved = pong.progress, now
        self._busy = busy
        if pong.ready:
            self._heard = now

    def verdict(self, now: float) -> Verdict:
        if self._heard is None:
            return Verdict.STARTING if now - self._spawned < self.start else Verdict.SILENT
        if now - self._heard > self.silence:
            return Verdict.SILENT
        if self._busy and now - self._moved > self.stall:
            return Verdict.HUNG
        return Verdict.HEALTHY


@dataclass(slots=True)
class Backoff:
    """Seconds to wait before the next start: 0 at first, then 1, 2, 4 … `ceiling`, forgotten after `stable` seconds
    of life, so that a crash loop cannot burn the machine and a rare crash costs nothing."""

    ceiling: float = 60.0
    stable: float = 60.0
    _failures: int = 0

    def died(self, lived: float) -> float:
        """The process lived that many seconds; returns the delay before the next start."""
        if lived >= self.stable:
            self._failures = 0
        self._failures += 1
        return 0.0 if self._failures == 1 else min(self.ceiling, 2.0 ** (self._failures - 2))
