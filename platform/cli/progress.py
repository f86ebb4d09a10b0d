"""What a start is doing, for people: which step, how much of it is done, and how long it has been going on.

Owns how that looks on a terminal and in a log. It must not know what the steps are.
"""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Final

from rich.markup import escape
from rich.status import Status

from tenantry.platform.cli.output import err

STILL_S: Final = 10.0  # in a log, one line so often tells that a step still runs


class Progress:
    """What is happening now, and for how long the start has been going on: a moving line on a terminal, elsewhere a
    line for each step, and one now and then for a step that takes long. clock: seconds, monotonic."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._status: Status | None = err.status("") if err.is_terminal else None
        self._last = ""
        self._clock = clock
        self._began = self._told = clock()
        self._over = False

    def __enter__(self) -> "Progress":
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def say(self, line: str) -> None:
        if self._status is not None:
            self._status.update(self._timed(line))
        elif line != self._last:
            err.print(line, markup=False)
        self._last, self._told = line, self._clock()

    async def beat(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(1)
            self.tick()

    def tick(self) -> None:
        """To be called every second: shows that a long step is not a hang."""
        if self._over or not self._last:
            return
        if self._status is not None:
            self._status.update(self._timed(self._last))
        elif self._clock() - self._told >= STILL_S:
            err.print(f"{self._last}, {self._clock() - self._began:.0f} s", markup=False)
            self._told = self._clock()

    def _timed(self, line: str) -> str:
        return f"{escape(line)} [dim]{self._clock() - self._began:.0f} s[/dim]"

    def end(self) -> None:
        self._over = True
        if self._status is not None:
            self._status.stop()
