"""The canonical blob: the only form in which an adapter reaches an engine, and the digest that names it.

    magic 8 | header length u32 LE | header JSON | zeros to a multiple of 256 | tensors, each 256-byte aligned

Tensors are layer-major, in fused-site order (q k v | o | gate up | down), A before B. A is [padded_rank, in], B is
[out, padded_rank], row-major, in the uploaded dtype; rows and columns past the true rank are zero. Offsets are
relative to the data section. Same adapter, same bytes. It must not know PEFT, stores, or devices.
"""

import hashlib
import mmap
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from tenantry.adapters.errors import BlobCorrupt, BlobMissing
from tenantry.adapters.manifest import DTYPE_BYTES, MODULES, AdapterManifest, ModuleEntry, padded_rank

MAGIC = b"TNYLORA1"
ALIGNMENT = 256
_PREFIX = len(MAGIC) + 4
_MAX_HEADER = 8 << 20
_CONFIG = struct.Struct(">QQQQd")
_DOMAIN = b"tenantry-adapter-v1"
NUMPY_DTYPES: dict[str, np.dtype[Any]] = {"F16": np.dtype("<f2"), "BF16": np.dtype("<u2"), "F32": np.dtype("<f4")}

Array = NDArray[Any]
Fetch = Callable[[ModuleEntry], tuple[Array, Array]]


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    manifest: AdapterManifest
    offsets: tuple[tuple[int, int], ...]


def aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def padded_sizes(entry: ModuleEntry, dtype: str) -> tuple[int, int]:
    """Bytes of A and B at padded rank, before alignment."""
    width = padded_rank(entry.rank) * DTYPE_BYTES[dtype]
    return width * entry.in_features, width * entry.out_features


def layout(modules: Sequence[ModuleEntry], dtype: str) -> tuple[tuple[tuple[int, int], ...], int]:
    """Offset of each module's A and B in the data section, and the section's size."""
    offsets, end = [], 0
    for entry in modules:
        a, b = padded_sizes(entry, dtype)
        offsets.append((end, end + aligned(a)))
        end += aligned(a) + aligned(b)
    return tuple(offsets), end


class Identity:
    """Accumulates an AdapterDigest: sha256 over length-framed base digest, dtype and, per module in canonical
    order, its config and true (unpadded) tensor bytes. File order, metadata and names of files do not enter it."""

    def __init__(self, base_digest: bytes, dtype: str) -> None:
        self._hash = hashlib.sha256()
        for field in (_DOMAIN, base_digest, dtype.encode()):
            self._frame(field)

    def _frame(self, field: bytes | memoryview) -> None:
        self._hash.update(len(field).to_bytes(8, "big"))
        self._hash.update(field)

    def add(self, entry: ModuleEntry, a: Array, b: Array) -> None:
        """a: [rank, in], b: [out, rank], raw."""
        self._frame(_CONFIG.pack(entry.layer, entry.rank, entry.in_features, entry.out_features, entry.scale))
        self._frame(entry.module.encode())
        for tensor in (a, b):
            self._frame(np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data)

    def digest(self) -> bytes:
        return self._hash.digest()


def write(
    file: BinaryIO, base_digest: bytes, dtype: str, modules: Sequence[ModuleEntry], fetch: Fetch
) -> AdapterManifest:
    """Write a blob into an empty seekable file; one module's tensors are in memory at a time.

    fetch(entry) gives A [rank, in] and B [out, rank] with the raw dtype of NUMPY_DTYPES (bf16 as uint16).
    The caller makes the file durable.
    """
    modules = tuple(sorted(modules, key=lambda m: m.order))
    offsets, size = layout(modules, dtype)
    unnamed = AdapterManifest(bytes(32), base_digest, dtype, size, modules)
    start = aligned(_PREFIX + len(msgspec.json.encode(_Header(unnamed, offsets))))
    identity = Identity(base_digest, dtype)
    for entry, (at_a, at_b) in zip(modules, offsets, strict=True):
        a, b = fetch(entry)
        identity.add(entry, a, b)
        for at, tensor in ((at_a, _pad(a, entry, axis=0)), (at_b, _pad(b, entry, axis=1))):
            file.seek(start + at)
            file.write(tensor.reshape(-1).view(np.uint8).data)
    file.truncate(start + size)
    manifest = msgspec.structs.replace(unnamed, digest=identity.digest())
    header = msgspec.json.encode(_Header(manifest, offsets))
    file.seek(0)
    file.write(MAGIC + len(header).to_bytes(4, "little") + header)
    return manifest


def _pad(tensor: Array, entry: ModuleEntry, axis: int) -> Array:
    shape = list(tensor.shape)
    shape[axis] = padded_rank(entry.rank)
    padded = np.zeros(shape, tensor.dtype)
    padded[tuple(slice(0, n) for n in tensor.shape)] = tensor
    return padded


class CanonicalReader:
    """A blob opened read-only through a memory map. The header is checked in full on opening; the tensors'
    bytes only by verify(). Views keep the map alive; close() waits for none of them."""

    def __init__(self, path: Path) -> None:
        """Raises BlobMissing, or BlobCorrupt saying what does not agree."""
        try:
            with path.open("rb") as file:
                self._map = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
        except FileNotFoundError:
            raise BlobMissing("no such blob") from None
        except ValueError:
            raise BlobCorrupt("the blob is empty") from None
        start, header = _read_header(self._map)
        self.manifest = header.manifest
        self.offsets = header.offsets
        self.data: Array = self._map[start:]
        """uint8 [manifest.bytes]: every tensor at padded rank; copying it whole is a complete load."""

    def padded(self, index: int) -> tuple[Array, Array]:
        """A [padded_rank, in] and B [out, padded_rank] of module `index`, as read-only views, raw dtype."""
        entry, (at_a, at_b) = self.manifest.modules[index], self.offsets[index]
        size_a, size_b = padded_sizes(entry, self.manifest.dtype)
        kind, rank = NUMPY_DTYPES[self.manifest.dtype], padded_rank(entry.rank)
        a = self.data[at_a : at_a + size_a].view(kind).reshape(rank, entry.in_features)
        b = self.data[at_b : at_b + size_b].view(kind).reshape(entry.out_features, rank)
        return a, b

    def tensors(self, index: int) -> tuple[Array, Array]:
        """A [rank, in] and B [out, rank] at the true rank, as read-only views, raw dtype (bf16 as uint16)."""
        a, b = self.padded(index)
        rank = self.manifest.modules[index].rank
        return a[:rank], b[:, :rank]

    def __iter__(self) -> Iterator[tuple[ModuleEntry, Array, Array]]:
        for index, entry in enumerate(self.manifest.modules):
            yield entry, *self.tensors(index)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the map; it is unmapped when the last view of it is gone."""
        self._map = self.data = np.empty(0, np.uint8)


def _read_header(blob: Array) -> tuple[int, _Header]:
    raw = blob[:_PREFIX].tobytes()
    if len(raw) < _PREFIX or raw[: len(MAGIC)] != MAGIC:
        raise BlobCorrupt("not a canonical blob")
    length = int.from_bytes(raw[len(MAGIC) :], "little")
    if length > min(_MAX_HEADER, len(blob) - _PREFIX):
        raise BlobCorrupt("the header is longer than the blob")
    try:
        header = msgspec.json.decode(blob[_PREFIX : _PREFIX + length].tobytes(), type=_Header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BlobCorrupt("the header cannot be read") from None
    manifest = header.manifest
    if len(manifest.digest) != 32 or len(manifest.base_digest) != 32 or manifest.dtype not in DTYPE_BYTES:
        raise BlobCorrupt("the manifest is not one of ours")
    if not manifest.modules or any(
        m.module not in MODULES or min(m.rank, m.in_features, m.out_features) < 1 or m.layer < 0
        for m in manifest.modules
    ):
        raise BlobCorrupt("the manifest names no sound modules")
    if any(a.order >= b.order for a, b in zip(manifest.modules, manifest.modules[1:], strict=False)):
        raise BlobCorrupt("the modules are not in canonical order")
    offsets, size = layout(manifest.modules, manifest.dtype)
    start = aligned(_PREFIX + length)
    if offsets != header.offsets or size != manifest.bytes or start + size != len(blob):
        raise BlobCorrupt("the tensors do not fill the blob as the header says")
    return start, header


def verify(path: Path) -> AdapterManifest:
    """Recompute the digest from the bytes, padding included. Raises BlobMissing or BlobCorrupt."""
    with CanonicalReader(path) as reader:
        manifest = reader.manifest
        identity = Identity(manifest.base_digest, manifest.dtype)
        for index, entry in enumerate(manifest.modules):
            identity.add(entry, *reader.tensors(index))
            a, b = reader.padded(index)
            if a[entry.rank :].any() or b[:, entry.rank :].any():
                raise BlobCorrupt("the padding is not zero")
    if identity.digest() != manifest.digest:
        raise BlobCorrupt("the bytes do not have the digest that the header claims")
    return manifest
