"""How a computed prompt's bytes get from one engine to another on the same host: a file in memory, mapped by both.

Owns segments: their names, their life and their sweeping. Whoever computes makes a segment and removes it; readers
only read, and what they have mapped outlives its removal. It must not know requests beyond their ids, nor what lies
in a page. Another transport (RDMA, a socket) implements Sender and Receiver.

    FOLDER/<engine>/<epoch>-<number>      FOLDER is this user's alone (0700)

An engine that starts removes what earlier lives of it left: the epoch in the name is not its own.
"""

import mmap
import os
import re
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, Protocol

from tenantry.runtime.disagg.names import checksum
from tenantry.runtime.errors import InvalidRequest
from tenantry.runtime.messages import HandOff, PageDigest

_SEGMENT: Final = re.compile(r"[0-9a-z-]{1,64}/[0-9a-z]{1,64}-\d{1,12}")


class Segment(Protocol):
    """Room for pages, until `remove`. name: what a reader finds it by."""

    @property
    def name(self) -> str: ...
    @property
    def view(self) -> memoryview: ...
    def seal(self, names: Sequence[bytes]) -> tuple[PageDigest, ...]:
        """The pages are written: their digests, in order."""
        ...

    def remove(self) -> None: ...


class Sender(Protocol):
    def make(self, size: int) -> Segment:
        """Raises OSError if there is no room."""
        ...


class Receiver(Protocol):
    """Reading and checking take time and happen beside the engine's steps."""

    def fetch(self, request_id: str, hand_off: HandOff, first: int) -> None:
        """Begin to read the pages from `first` on."""
        ...

    def ended(self) -> list[tuple[str, memoryview | None]]:
        """What was fetched since the last call: the pages' bytes, or None if any is damaged or gone."""
        ...


class MappedSegment:
    def __init__(self, folder: Path, name: str, size: int) -> None:
        self.name = name
        self._path = folder / name
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(file, 0, size)  # or a full memory would end us by a signal, later
            self._map = mmap.mmap(file, size)
        except OSError:
            self._path.unlink()
            raise
        finally:
            os.close(file)

    @property
    def view(self) -> memoryview:
        return memoryview(self._map)

    def seal(self, names: Sequence[bytes]) -> tuple[PageDigest, ...]:
        size = len(self._map) // len(names)
        with memoryview(self._map) as view:
            return tuple(
                PageDigest(name, checksum(view[at * size : (at + 1) * size])) for at, name in enumerate(names)
            )

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


class SharedMemory:
    """Sender and Receiver over a folder that all engines of the host have. engine: this one's name."""

    def __init__(self, folder: Path, engine: str, epoch: str) -> None:
        own = folder / engine
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = folder.stat()
        if state.st_uid != os.getuid() or state.st_mode & 0o077:
            raise InvalidRequest("hand_off_dir", f"{folder.name} must be this user's alone")
        own.mkdir(mode=0o700, exist_ok=True)
        self._folder, self._prefix = folder, f"{engine}/{epoch}"
        self._made = 0
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="hand-off")
        self._reading: dict[str, Future[memoryview | None]] = {}
        for path in own.iterdir():
            if not path.name.startswith(f"{epoch}-"):
                path.unlink(missing_ok=True)

    def make(self, size: int) -> MappedSegment:
        self._made += 1
        return MappedSegment(self._folder, f"{self._prefix}-{self._made}", size)

    def fetch(self, request_id: str, hand_off: HandOff, first: int) -> None:
        self._reading[request_id] = self._reader.submit(self._read, hand_off, first)

    def ended(self) -> list[tuple[str, memoryview | None]]:
        done = [(request_id, future) for request_id, future in self._reading.items() if future.done()]
        for request_id, _ in done:
            del self._reading[request_id]
        return [(request_id, future.result()) for request_id, future in done]

    def close(self) -> None:
        """Lets go of everything this engine made."""
        self._reader.shutdown(cancel_futures=True)
        for path in (self._folder / self._prefix).parent.glob(f"{Path(self._prefix).name}-*"):
            path.unlink(missing_ok=True)

    def _read(self, hand_off: HandOff, first: int) -> memoryview | None:
        size, count = hand_off.page_bytes, len(hand_off.pages)
        if not _SEGMENT.fullmatch(hand_off.segment):
            return None
        try:
            file = os.open(self._folder / hand_off.segment, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                if os.fstat(file).st_size != size * count:
                    return None
                # Ours alone to write to, which nobody does: torch takes no memory that is read-only.
                view = memoryview(mmap.mmap(file, size * count, access=mmap.ACCESS_COPY))
            finally:
                os.close(file)
        except (OSError, ValueError):
            return None
        for at in range(first, count):
            if checksum(view[at * size : (at + 1) * size]) != hand_off.pages[at].checksum:
                return None
        return view[first * size :]
