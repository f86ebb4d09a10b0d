"""The engine's journal: what each request cost, on disk before the client has the tokens.

Owns the files: append-only segments `<epoch>-<index>.journal` of CRC-framed msgpack records, one writer per
directory. It must not know prices, tenants or text; `receipt` is the platform's, opaque here.

Guarantee: append() returns after write(2), so the records survive the death of the process however it dies.
They survive the loss of the machine once synced, every SYNC_PERIOD_S, off the step's path.
Frame: MAGIC, length and CRC-32 (big-endian uint32 each), payload. The CRC covers length and payload.
"""

import fcntl
import os
import re
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import msgspec

from tenantry.runtime.errors import MeteringUnavailable
from tenantry.runtime.messages import Usage

SEGMENT_BYTES: Final = 64 << 20
SYNC_PERIOD_S: Final = 0.05
MAX_RECORD_BYTES: Final = 4 << 20
MAGIC: Final = b"\xd7TNJ"
_HEADER: Final = struct.Struct(">4sII")
_SEGMENT: Final = re.compile(r"([0-9a-z]{1,64})-(\d{8})\.journal")


class Opened(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """A request was accepted. Nothing is owed yet. attempt: see messages.Submit."""

    request_id: str
    receipt: bytes
    attempt: int = 0


class Counted(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """What requests have used so far: totals since their start, never less than in an earlier record."""

    usage: dict[str, Usage]


class Closed(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """The final count. reason: a FinishReason, or "refused" for a request that was accepted and never ran."""

    request_id: str
    usage: Usage
    reason: str


Record = Opened | Counted | Closed


class JournalWriter:
    """The one writer of a directory, which it makes (0700) if absent. epoch: names this life of the engine and
    sorts after earlier ones; [0-9a-z]. Every method raises MeteringUnavailable when the disk refuses; after that
    the writer is broken and says so each time."""

    def __init__(self, directory: Path, epoch: str, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._directory, self._epoch, self._limit = directory, epoch, segment_bytes
        self._encoder = msgspec.msgpack.Encoder()
        self._index, self._written = 0, 0
        self._dirty: set[int] = set()  # descriptors with unsynced bytes; all but self._file are closed once synced
        self._swap, self._stop = threading.Lock(), threading.Event()
        self._failure: OSError | None = None
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(directory / "writer.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._file = self._open_segment()
        except OSError as error:
            raise MeteringUnavailable(None, f"the journal cannot be opened: {error.strerror}") from error
        self._syncer = threading.Thread(target=self._sync_forever, name="journal-sync", daemon=True)
        self._syncer.start()

    def append(self, records: Sequence[Record]) -> None:
        """Write the records with one write(2), in order. On return they outlive this process."""
        if not records:
            return
        data = b"".join(_frame(self._encoder.encode(record)) for record in records)
        self._check()
        try:
            if self._written and self._written + len(data) > self._limit:
                self._rotate()
            done = os.write(self._file, data)
        except OSError as error:
            self._failure = error
            self._check()
        if done != len(data):
            self._failure = OSError("short write")
            self._check()
        self._written += len(data)
        with self._swap:
            self._dirty.add(self._file)

    def sync(self) -> None:
        """Everything appended is on the disk when this returns."""
        self._check()
        try:
            self._sync_once()
        except OSError as error:
            self._failure = error
        self._check()

    def close(self) -> None:
        """Sync and let go of the directory."""
        self._stop.set()
        self._syncer.join()
        try:
            self.sync()
        finally:
            os.close(self._file)
            os.close(self._lock)

    def _check(self) -> None:
        if self._failure is not None:
            raise MeteringUnavailable(None, f"the journal cannot be written: {self._failure.strerror or 'torn'}")

    def _rotate(self) -> None:
        sealed = self._file
        self._index += 1
        self._file, self._written = self._open_segment(), 0
        with self._swap:
            self._dirty.add(sealed)

    def _open_segment(self) -> int:
        path = self._directory / f"{self._epoch}-{self._index:08d}.journal"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        return file

    def _sync_forever(self) -> None:
        while not self._stop.wait(SYNC_PERIOD_S):
            try:
                self._sync_once()
            except OSError as error:  # the kernel may have dropped the pages: never retried, append() reports it
                self._failure = error
                return

    def _sync_once(self) -> None:
        with self._swap:
            files, self._dirty = self._dirty, set()
            current = self._file
        for file in files:
            os.fsync(file)
            if file != current:
                os.close(file)


_NOTHING = Usage()


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """What the journal knows of one request. receipt: None if its first record was lost to damage.

    epoch: the life of the engine that ran it: if that life is over, usage is final though closed is False.
    attempt: a later one owes nothing for an earlier one, of which no token was seen; it begins from nothing.
    """

    request_id: str
    epoch: str
    receipt: bytes | None = None
    usage: Usage = _NOTHING
    closed: bool = False
    reason: str | None = None
    attempt: int = 0


@dataclass(slots=True)
class _Segment:
    path: Path
    epoch: str
    index: int
    offset: int = 0
    finished: bool = False  # it is sealed and was read to its end
    requests: set[str] = field(default_factory=set)


class JournalTail:
    """Follows a directory of segments as it grows. Never raises over damage: it is skipped and counted.

    quarantined: damaged stretches with good records behind them. torn: bytes at the ends of sealed segments that
    form no record (a process died in its write). Several tails may read at once; none of them writes.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._segments: dict[str, _Segment] = {}
        self._forgotten: set[str] = set()
        self.entries: dict[str, JournalEntry] = {}
        self.quarantined = 0
        self.torn = 0

    def poll(self) -> dict[str, JournalEntry]:
        """Read what is new. Returns the entries that changed; `entries` has all that were not forgotten."""
        changed: dict[str, JournalEntry] = {}
        ordered = self._discover()
        for i, segment in enumerate(ordered):
            if not segment.finished:
                self._read(segment, sealed=i + 1 < len(ordered), changed=changed)
        return changed

    def forget(self, request_id: str) -> None:
        """The request is settled: later records of it are ignored, and it holds no segment back any more."""
        self.entries.pop(request_id, None)
        self._forgotten.add(request_id)

    def removable(self) -> list[Path]:
        """Sealed and read segments whose requests are all forgotten, oldest first. See remove_segment."""
        done = [s for s in self._segments.values() if s.finished and s.requests <= self._forgotten]
        return [s.path for s in sorted(done, key=lambda s: (s.epoch, s.index))]

    def _discover(self) -> list[_Segment]:
        found = {path.name: path for path in segments(self._directory)}
        for name in self._segments.keys() - found.keys():
            gone = self._segments.pop(name)
            kept = set().union(*(s.requests for s in self._segments.values()))
            self._forgotten -= gone.requests - kept
        for name, path in found.items():
            match = _SEGMENT.fullmatch(name)
            if match and name not in self._segments:
                self._segments[name] = _Segment(path, match[1], int(match[2]))
        return sorted(self._segments.values(), key=lambda s: (s.epoch, s.index))

    def _read(self, segment: _Segment, sealed: bool, changed: dict[str, JournalEntry]) -> None:
        # `sealed` was decided before these bytes are read, so a sealed segment is read whole.
        with segment.path.open("rb") as file:
            file.seek(segment.offset)
            data = file.read()
        used = 0
        for record, start, end in _frames(data):
            self.quarantined += start != used
            used = end
            if record is None:
                self.quarantined += 1
                continue
            for request_id, entry in self._apply(record, segment).items():
                self.entries[request_id] = changed[request_id] = entry
        segment.offset += used
        if sealed:
            self.torn += len(data) - used
            segment.finished = True

    def _apply(self, record: Record, segment: _Segment) -> dict[str, JournalEntry]:
        counted = record.usage if isinstance(record, Counted) else {record.request_id: Usage()}
        segment.requests |= counted.keys()
        known = {r: self._known(r, segment.epoch) for r in counted if r not in self._forgotten}
        match record:
            case Opened():
                return {r: self._opened(e, record, segment.epoch) for r, e in known.items()}
            case Counted():
                return {r: replace(e, usage=highest(e.usage, counted[r])) for r, e in known.items()}
            case Closed():
                return {
                    r: replace(e, usage=highest(e.usage, record.usage), closed=True, reason=record.reason)
                    for r, e in known.items()
                }

    @staticmethod
    def _opened(entry: JournalEntry, record: Opened, epoch: str) -> JournalEntry:
        if record.attempt > entry.attempt:
            return JournalEntry(entry.request_id, epoch, record.receipt, attempt=record.attempt)
        return replace(entry, receipt=record.receipt)

    def _known(self, request_id: str, epoch: str) -> JournalEntry:
        return self.entries.get(request_id) or JournalEntry(request_id, epoch)


def seal(directory: Path, epoch: str) -> bool:
    """Nobody writes here any more: a new, empty segment makes final what earlier lives left open. False: somebody
    still does, or the disk refuses, and nothing was done."""
    try:
        JournalWriter(directory, epoch).close()
    except MeteringUnavailable:
        return False
    return True


def read_counters(directory: Path) -> dict[str, JournalEntry]:
    """Everything in the journal, by request id, as of now."""
    tail = JournalTail(directory)
    tail.poll()
    return tail.entries


def segments(directory: Path) -> list[Path]:
    """The segments of a directory, oldest first."""
    return sorted(path for path in directory.glob("*.journal") if _SEGMENT.fullmatch(path.name))


def remove_segment(path: Path) -> None:
    """Delete a segment whose requests are all settled. Repeating it is harmless."""
    path.unlink(missing_ok=True)


def highest(a: Usage, b: Usage) -> Usage:
    """Counters only grow, so of two readings the larger is the later."""
    return Usage(*map(max, msgspec.structs.astuple(a), msgspec.structs.astuple(b)))


_DECODER = msgspec.msgpack.Decoder(Record)


def _frame(payload: bytes) -> bytes:
    if len(payload) > MAX_RECORD_BYTES:
        raise MeteringUnavailable(None, "a journal record is too long")
    return _HEADER.pack(MAGIC, len(payload), _crc(payload)) + payload


def _crc(payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(len(payload).to_bytes(4, "big")))


def _payload_at(data: bytes, at: int) -> bytes | None:
    if len(data) - at < _HEADER.size:
        return None
    magic, length, crc = _HEADER.unpack_from(data, at)
    payload = data[at + _HEADER.size : at + _HEADER.size + length]
    good = magic == MAGIC and length == len(payload) and length <= MAX_RECORD_BYTES and _crc(payload) == crc
    return payload if good else None


def _frames(data: bytes) -> Iterator[tuple[Record | None, int, int]]:
    """(record, start, end) of every sound frame; record is None if the payload is sound and not ours. After damage
    it looks for the next sound frame; what follows the last one is left to the caller."""
    at = 0
    while at != -1:
        payload = _payload_at(data, at)
        if payload is None:
            at = data.find(MAGIC, at + 1)
            continue
        end = at + _HEADER.size + len(payload)
        try:
            record = _DECODER.decode(payload)
        except msgspec.DecodeError:
            record = None
        yield record, at, end
        at = end
