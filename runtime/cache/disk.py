"""Pages of KV in files, one each, written behind and read ahead on threads of their own. Nothing here is trusted.

Owns the folder, the files' format and the threads. A file is read into a slot, and believed only if it is, byte for
byte, what was asked for: format, namespace, weights, parent, tokens, length, and a checksum over all of it. It must
not know who wants a page or why, nor tensors.

    folder/<format>/<owner>/<tenant>-<weights>-<namespace>/<key>[.<session>].kv = prefix | page | blake2b-128

format: a digest of everything that a page's bytes depend on: pages of another model or layout are in another folder.
owner: engines on one machine have a folder each, held by a lock. Files are not synced: a torn one is a miss.
"""

import fcntl
import os
import re
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from time import perf_counter
from typing import Final

from tenantry.runtime.plan import Copied, Copies, CopyEnd, DiskPage, Erase

MAGIC: Final = b"TNYKV\0\0\1"
CHECKSUM_BYTES: Final = 16
OWNERS: Final = 64
BASE: Final = "base"
_FOLDER: Final = re.compile(r"([0-9a-f]{16})-([0-9a-f]{64}|base)-([0-9a-f]{64})")
_FILE: Final = re.compile(r"([0-9a-f]{64})(?:\.([0-9a-f]{16}))?\.kv")
_FORMAT: Final = re.compile(r"[0-9a-f]{64}")


class DiskPages:
    """form: 32 bytes, the digest of the format. slot: the memory of a host slot. ready: returns once slots hold what
    was saved to them. Raises OSError if the folder cannot be made or every owner's place in it is taken."""

    def __init__(
        self,
        folder: Path,
        form: bytes,
        page_bytes: int,
        tokens_bytes: int,
        slot: Callable[[int], memoryview],
        ready: Callable[[], None],
    ) -> None:
        self._form, self._slot, self._ready = form, slot, ready
        prefix = _prefix(form, bytes(32), b"", bytes(32), bytes(32), bytes(tokens_bytes))
        self._file_bytes = len(prefix) + page_bytes + CHECKSUM_BYTES  # and 32 with an adapter's digest
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock, self.root = _own(folder / form.hex())
        _sweep(folder, form.hex())
        self._reader = ThreadPoolExecutor(1, "kv-reader")
        self._writer = ThreadPoolExecutor(1, "kv-writer")
        self._tasks: deque[Future[None]] = deque()
        self._fetched: deque[tuple[int, CopyEnd]] = deque()
        self._stored: deque[tuple[int, CopyEnd]] = deque()
        self._fetch_s = 0.0
        self._closing = False

    def found(self) -> Iterator[tuple[str, bytes, bytes | None, bytes, str]]:
        """(tenant, namespace, weights, key, session) of what is here, used longest ago first; what cannot be a page
        is removed. To be asked before the first copy."""
        pages = []
        for folder in os.scandir(self.root):
            match = _FOLDER.fullmatch(folder.name)
            if match is None or not folder.is_dir(follow_symlinks=False):
                continue
            for file in os.scandir(folder.path):
                named, stat = _FILE.fullmatch(file.name), file.stat(follow_symlinks=False)
                if named is None or stat.st_size - 32 * (match[2] != BASE) != self._file_bytes:
                    _remove(Path(file.path))
                else:
                    pages.append((stat.st_mtime_ns, file.name, match, named))
        for _, _, match, named in sorted(pages, key=lambda page: page[:2]):
            weights = None if match[2] == BASE else bytes.fromhex(match[2])
            yield match[1], bytes.fromhex(match[3]), weights, bytes.fromhex(named[1]), named[2] or ""

    def start(self, copies: Copies) -> None:
        """Begin transfers, off the caller's path. A slot is theirs until settle() has told their end."""
        if copies.fetches:
            self._tasks.append(self._reader.submit(self._fetch, copies.fetches))
        if copies.stores or copies.erases:
            self._tasks.append(self._writer.submit(self._store, copies.stores, copies.erases))

    def settle(self) -> Copied:
        """Transfers that ended since the last call."""
        while self._tasks and self._tasks[0].done():
            self._tasks.popleft().result()  # a bug of ours, if it raises: what the disk does is an answer
        fetched, stored = _drain(self._fetched), _drain(self._stored)
        return Copied(fetched, stored, self._fetch_s if fetched else 0.0)

    def close(self) -> None:
        """Waits for the transfer under way and for every erase: what was deleted is not found by the next start."""
        self._closing = True
        self._reader.shutdown(wait=True, cancel_futures=True)
        self._writer.shutdown(wait=True)
        os.close(self._lock)

    def path(self, page: DiskPage | Erase) -> Path:
        """Where a page is or would be; the folder of its namespace for an Erase of all of it."""
        weights = BASE if page.weights is None else page.weights.hex()
        folder = self.root / f"{page.tenant}-{weights}-{page.namespace.hex()}"
        if page.key is None:
            return folder
        return folder / f"{page.key.hex()}{'.' + page.session if page.session else ''}.kv"

    # On the threads

    def _fetch(self, pages: Sequence[DiskPage]) -> None:
        for page in pages:
            began = perf_counter()
            end = self._answer(self._read, page)
            if end == "done":
                self._fetch_s = perf_counter() - began
            self._fetched.append((page.op, end))

    def _store(self, pages: Sequence[DiskPage], erases: Sequence[Erase]) -> None:
        for erase in erases:
            path = self.path(erase)
            if erase.key is None:
                shutil.rmtree(path, ignore_errors=True)
            else:
                _remove(path)
        if pages and not self._closing:
            self._ready()
        for page in pages:
            if self._closing:  # nobody will ask whether it was written
                return
            self._stored.append((page.op, self._answer(self._write, page)))

    def _answer(self, act: Callable[[DiskPage], CopyEnd], page: DiskPage) -> CopyEnd:
        try:
            return act(page)
        except FileNotFoundError:
            return "missing"
        except OSError:
            return "failed"

    def _read(self, page: DiskPage) -> CopyEnd:
        asked = self._prefix(page)
        prefix, room, checksum = bytearray(len(asked)), self._slot(page.slot), bytearray(CHECKSUM_BYTES)
        file = os.open(self.path(page), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            size = len(asked) + len(room) + CHECKSUM_BYTES
            if os.fstat(file).st_size != size or os.readv(file, [prefix, room, checksum]) != size:
                return "bad"
            if prefix != asked or checksum != _checksum(asked, room):
                return "bad"
            os.utime(file)  # used last, for whoever finds it after a restart
        finally:
            os.close(file)
        return "done"

    def _write(self, page: DiskPage) -> CopyEnd:
        path, room, prefix = self.path(page), self._slot(page.slot), self._prefix(page)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        incoming = path.with_suffix(".incoming")
        file = os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            parts: list[bytes | memoryview] = [prefix, room, _checksum(prefix, room)]
            if os.writev(file, parts) != sum(map(len, parts)):
                raise OSError(0, "short write")
            incoming.rename(path)
        except OSError:
            _remove(incoming)
            raise
        finally:
            os.close(file)
        return "done"

    def _prefix(self, page: DiskPage) -> bytes:
        return _prefix(self._form, page.namespace, page.weights or b"", page.key, page.parent, page.tokens)


def _prefix(*fields: bytes) -> bytes:
    """Each field is preceded by its length, so no two different pages share a prefix."""
    return MAGIC + b"".join(len(field).to_bytes(4, "big") + field for field in fields)


def _checksum(prefix: bytes, room: memoryview) -> bytes:
    digest = blake2b(prefix, digest_size=CHECKSUM_BYTES)
    digest.update(room)
    return digest.digest()


def _drain(ended: deque[tuple[int, CopyEnd]]) -> tuple[tuple[int, CopyEnd], ...]:
    return tuple(ended.popleft() for _ in range(len(ended)))


def _own(folder: Path) -> tuple[int, Path]:
    """The first owner's place that no living engine holds, and the lock on it."""
    for index in range(OWNERS):
        place = folder / str(index)
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = _locked(place)
        if lock is not None:
            return lock, place
    raise OSError(0, f"{OWNERS} engines hold the KV cache's folder")


def _locked(place: Path) -> int | None:
    lock = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _sweep(folder: Path, form: str) -> None:
    """Remove what engines of other formats left, unless they live."""
    for other in os.scandir(folder):
        if other.name == form or _FORMAT.fullmatch(other.name) is None or not other.is_dir(follow_symlinks=False):
            continue
        for place in [p for p in Path(other.path).iterdir() if p.is_dir()]:
            lock = _locked(place)
            if lock is not None:
                shutil.rmtree(place, ignore_errors=True)
                os.close(lock)
        with suppress(OSError):  # in use
            os.rmdir(other.path)


def _remove(path: Path) -> None:
    """Best effort: what stays is never believed, and found again by the next start."""
    with suppress(OSError):
        path.unlink(missing_ok=True)
