"""What the engine's journal says of each request, in the platform's own terms: receipt decoded, ids as uuids.

Owns the bridge to runtime.journal (which alone knows the files) and how long settled segments are kept. Nothing is
forgotten before its event was seen in the database. Blocking: call it from a thread, one call at a time.
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
        self._tail = JournalTail(directory)
        self._entries: dict[UUID, Entry] = {}
        self._names: dict[UUID, str] = {}
        self.unreadable = 0

    def read(self) -> dict[UUID, Entry]:
        """Every request that was not forgotten, as of now. Those without our receipt are dropped and counted."""
        names = [path.name for path in segments(self._directory)]
        newest = names[-1].rsplit("-", 1)[0] if names else ""
        self._tail.poll()
        self._entries = {}
        for name, found in list(self._tail.entries.items()):
            parsed = _parse(found, final=found.closed or found.epoch < newest)
            if parsed is not None:
                self._entries[parsed[0]] = parsed[1]
                self._names[parsed[0]] = name
            elif found.receipt is not None:  # bytes that will never become a receipt: not a request of this platform
                self.unreadable += 1
                self._tail.forget(name)
        return dict(self._entries)

    def forget(self, requests: Iterable[UUID]) -> None:
        """Their events are in the database. Segments whose every request is forgotten go once they are old enough."""
        for request_id in requests:
            self._tail.forget(self._names.pop(request_id, str(request_id)))
        limit = time.time() - self._keep
        for path in self._tail.removable():
            if path.stat().st_mtime < limit:
                remove_segment(path)


def _parse(found: JournalEntry, final: bool) -> tuple[UUID, Entry] | None:
    if found.receipt is None:
        return None
    try:
        return UUID(found.request_id), Entry(decode(found.receipt), found.usage, final)
    except (ValueError, msgspec.DecodeError):
        return None
