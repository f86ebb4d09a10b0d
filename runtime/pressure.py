"""How full the memory is that this process may have, and how far its engine has to step back for that.

Owns reading the memory's counters, the order of giving up (what is kept for later first, then who waits, then who
comes) and this process's place in the system's own order. It must not know who does the giving up, nor how.
"""

from collections.abc import Callable, Iterator
from enum import IntEnum
from pathlib import Path

PROC = Path("/proc")
GROUPS = Path("/sys/fs/cgroup")
EVERY_S = 1.0
REST_S = 30.0  # of ease, before anything is kept again
EASE = 0.05  # below the limit, as a share of the memory: more than what was given up must be free
RETRY_S = 5.0
FIRST_TO_GO = 500
"""oom_score_adj of an engine; what nobody has set has 0."""

# limit, use, and counters of what the system takes back by itself, in control groups of both kinds
_Names = tuple[str, str, tuple[str, ...]]
_SECOND: _Names = ("memory.max", "memory.current", ("inactive_file", "active_file"))
_FIRST: _Names = (
    "memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file"),
)  # fmt: skip


class Stage(IntEnum):
    """Each includes the ones before it."""

    NONE = 0
    SHED_CACHE = 1
    SHED_QUEUE = 2
    REFUSE = 3


class Pressure:
    """limit: share of the memory from which on the engine steps back; 0 never. share: how much of it is used, read
    every every_s seconds. Each reading at the limit or above is one stage more, so that what the last one gave up
    can help; each below it one less, since who refuses for longer than it must may do so for ever, if the rest is
    another's. Only the cache waits for rest_s seconds of ease: it would fill what it has just given up."""

    def __init__(
        self, limit: float, share: Callable[[], float], every_s: float = EVERY_S, rest_s: float = REST_S
    ) -> None:
        self.limit, self._share = limit, share
        self._every_s, self._rest_s = every_s, rest_s
        self._next = self._pressed = float("-inf")
        self.stage = Stage.NONE
        self.used = 0.0

    def turn(self, now: float) -> bool:
        """To be asked every step: whether there was a reading, after which `stage` and `used` are new."""
        if not self.limit or now < self._next:
            return False
        self._next = now + self._every_s
        self.used = self._share()
        if self.used >= self.limit - EASE:
            self._pressed = now
        if self.used >= self.limit:
            self.stage = Stage(min(self.stage + 1, Stage.REFUSE))
        elif self.stage > Stage.SHED_CACHE:
            self.stage = Stage(self.stage - 1)
        elif now - self._pressed >= self._rest_s:
            self.stage = Stage.NONE
        return True


def used_share(proc: Path = PROC, groups: Path = GROUPS) -> float:
    """Of the memory that this process may have, by the tightest limit above it, without what the system takes back
    by itself. 0 if nothing can be read."""
    return max([_of_group(*place) for place in _places(proc, groups)] + [_of_machine(proc)])


def go_first(proc: Path = PROC) -> None:
    """When memory is out all the same, the system ends this process before others: what an engine holds can be made
    again, what the database and the gateway hold cannot. Raises OSError or ValueError where it cannot be said."""
    file = proc / "self" / "oom_score_adj"
    file.write_text(str(max(FIRST_TO_GO, int(file.read_text()))))


def _places(proc: Path, groups: Path) -> Iterator[tuple[Path, _Names]]:
    """This process's control groups, from its own up to the root."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root, names = (groups / "memory", _FIRST) if controllers else (groups, _SECOND)
        place = root / path.strip("/")
        yield place, names
        while place != root:
            place = place.parent
            yield place, names


def _of_group(place: Path, names: _Names) -> float:
    limit_name, used_name, reclaimed = names
    try:
        limit, used = int((place / limit_name).read_text()), int((place / used_name).read_text())
        counters = dict(line.split() for line in (place / "memory.stat").read_text().splitlines())
        return (used - sum(int(counters.get(name, 0)) for name in reclaimed)) / limit
    except (OSError, ValueError, ZeroDivisionError):  # not mounted here, or "max": no limit that could be reached
        return 0.0


def _of_machine(proc: Path) -> float:
    try:
        lines = dict(line.split(":", 1) for line in (proc / "meminfo").read_text().splitlines())
        return 1 - int(lines["MemAvailable"].split()[0]) / int(lines["MemTotal"].split()[0])
    except (OSError, ValueError, KeyError, ZeroDivisionError):
        return 0.0
