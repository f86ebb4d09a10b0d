"""What the engine's journal says of each request, in the platform's own terms: receipt decoded, ids as uuids.

Owns the bridge to runtime.journal (which alone knows the files) and how long settled segments are kept. Nothing is
forgotten before its event was seen in the database. Blocking: call it from a thread, one call at a time.

Every engine writes a directory of its own: the journal's (a lone engine) or one below it. A request has one owner at
a time. When an engine is lost before a token was told, the router gives the request to another with a higher
`attempt`, and that stream alone is owed: the engine that was lost may have counted work that nobody saw, or the very
work that the next one repeats, so neither the sum nor the larger of the two would be what the tenant received.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

import msgspec

from tenantry.platform.metering.receipt import Receipt, decode
from tenantry.runtime.journal import JournalEntry, JournalTail, remove_segment, segments
from tenantry.runtime.messages import Usage

KEEP_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Entry:
    """The last counters of one request. final: the engine closed it or is dead, so they cannot grow."""

    receipt: Receipt
    usage: Usage
    final: bool


class Journal:
    """A reader that follows the directory. keep_s: how long a segment outlives the settlement of all it holds."""

    def __init__(self, directory: Path, keep_s: float = KEEP_S) -> None:
        self._directory = directory
        self._keep = keep_s
        self._tails = {directory: JournalTail(directory)}
        self._entries: dict[UUID, Entry] = {}
        self._names: dict[UUID, str] = {}
        self.unreadable = 0

    def read(self) -> dict[UUID, Entry]:
        """Every request that was not forgotten, as of now. Those without our receipt are dropped and counted."""
        owners: dict[str, tuple[JournalEntry, bool]] = {}
        for directory, tail in self._follow():
            names = [path.name for path in segments(directory)]
            newest = names[-1].rsplit("-", 1)[0] if names else ""
            tail.poll()
            for name, found in tail.entries.items():
                if name not in owners or found.attempt > owners[name][0].attempt:
                    owners[name] = found, found.closed or found.epoch < newest
        self._entries = {}
        for name, (found, final) in owners.items():
            parsed = _parse(found, final)
            if parsed is not None:
                self._entries[parsed[0]] = parsed[1]
                self._names[parsed[0]] = name
            elif found.receipt is not None:  # bytes that will never become a receipt: not a request of this platform
                self.unreadable += 1
                self._forget(name)
        return dict(self._entries)

    def forget(self, requests: Iterable[UUID]) -> None:
        """Their events are in the database. Segments whose every request is forgotten go once they are old enough."""
        for request_id in requests:
            self._forget(self._names.pop(request_id, str(request_id)))
        limit = time.time() - self._keep
        for tail in self._tails.values():
            for path in tail.removable():
                if path.stat().st_mtime < limit:
                    remove_segment(path)

    def _forget(self, name: str) -> None:
        for tail in self._tails.values():
            tail.forget(name)

    def _follow(self) -> Iterable[tuple[Path, JournalTail]]:
        """Engines may come and go while this process lives."""
        for directory in engine_directories(self._directory):
            if directory not in self._tails:
                self._tails[directory] = JournalTail(directory)
        return self._tails.items()


def engine_directories(directory: Path) -> list[Path]:
    """Where engines write: the journal's own directory, and those below it."""
    return [directory, *sorted(path for path in directory.glob("*") if path.is_dir())]


def _parse(found: JournalEntry, final: bool) -> tuple[UUID, Entry] | None:
    if found.receipt is None:
        return None
    try:
        return UUID(found.request_id), Entry(decode(found.receipt), found.usage, final)
    except (ValueError, msgspec.DecodeError):
        return None
