"""Canonical blobs in a local directory, named by digest: written once, never modified in place.

Owns atomicity and permissions. It must not know tenants: the registry decides who may use a digest and when no
one does. A put always writes every byte, so its time does not tell whether the content was already there.
"""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tenantry.adapters import canonical
from tenantry.adapters.errors import BlobCorrupt, BlobMissing
from tenantry.adapters.manifest import DIGEST_BYTES, AdapterManifest, ModuleEntry

_SUFFIX = ".adapter"
_TEMPORARY = ".incoming-"
_LEAVING = ".leaving-"


class LocalStore:
    """root is made with mode 0700 if absent; blobs have mode 0600."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def put(
        self, base_digest: bytes, dtype: str, modules: Sequence[ModuleEntry], fetch: canonical.Fetch
    ) -> AdapterManifest:
        """Write a blob (see canonical.write) and publish it under its digest, durably: a reader sees all or nothing.

        Idempotent: the same content replaces itself by rename, which no open reader notices.
        """
        handle, name = tempfile.mkstemp(prefix=_TEMPORARY, dir=self.root)
        try:
            with os.fdopen(handle, "w+b") as file:
                manifest = canonical.write(file, base_digest, dtype, modules, fetch)
                file.flush()
                os.fsync(file.fileno())
            os.rename(name, self.path(manifest.digest))
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        self._sync_directory()
        return manifest

    def path(self, digest: bytes) -> Path:
        """Where the blob is or would be. Raises ValueError for anything but a 32-byte digest."""
        if len(digest) != DIGEST_BYTES:
            raise ValueError(f"a digest holds {DIGEST_BYTES} bytes")
        return self.root / (digest.hex() + _SUFFIX)

    def exists(self, digest: bytes) -> bool:
        return self.path(digest).is_file()

    def size(self, digest: bytes) -> int:
        """Bytes the adapter occupies when resident (AdapterManifest.bytes). Raises as open does."""
        with self.open(digest) as reader:
            return reader.manifest.bytes

    def open(self, digest: bytes) -> canonical.CanonicalReader:
        """Raises BlobMissing, or BlobCorrupt when the blob is damaged or its header bears another digest."""
        reader = canonical.CanonicalReader(self.path(digest))
        if reader.manifest.digest != digest:
            reader.close()
            raise BlobCorrupt("the blob bears another digest than its name")
        return reader

    def delete(self, digest: bytes) -> None:
        """Remove the name; open readers keep their bytes. Raises BlobMissing."""
        try:
            self.path(digest).unlink()
        except FileNotFoundError:
            raise BlobMissing("no such blob") from None
        self._sync_directory()

    def purge(self, digest: bytes, before: float) -> bool:
        """Remove a blob that was last written before that time (as time.time); one that was put again since stays.
        Open readers keep their bytes. Raises BlobMissing."""
        leaving = self.root / f"{_LEAVING}{digest.hex()}"
        try:
            os.rename(self.path(digest), leaving)  # first, so that what is looked at is what is removed
        except FileNotFoundError:
            raise BlobMissing("no such blob") from None
        old = leaving.stat().st_mtime < before
        if old:
            leaving.unlink()
        else:
            os.rename(leaving, self.path(digest))
        self._sync_directory()
        return old

    def digests(self) -> list[bytes]:
        """Every published digest, sorted."""
        return sorted(bytes.fromhex(p.name.removesuffix(_SUFFIX)) for p in self.root.glob(f"{'?' * 64}{_SUFFIX}"))

    def sweep(self) -> int:
        """Remove what interrupted puts left behind; call when no put is under way. Returns how many."""
        leftovers = list(self.root.glob(f"{_TEMPORARY}*"))
        for path in leftovers:
            path.unlink(missing_ok=True)
        return len(leftovers)

    def _sync_directory(self) -> None:
        handle = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
