"""Resident adapters: canonical blobs, verified and prepared on a thread of their own, reachable by digest.

Owns digest -> slot and the loads under way. When to load and what to evict is decided above, in bytes; slots are
only small ints here and never a limit. A blob is hashed again on every load: a damaged file is never served.
"""

import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from heapq import heappop, heappush
from typing import NamedTuple

import torch

from tenantry.adapters import canonical
from tenantry.adapters.errors import BlobCorrupt
from tenantry.adapters.manifest import SITES, ModuleEntry
from tenantry.adapters.room import Footprint
from tenantry.adapters.store import LocalStore
from tenantry.kernels.lora.int8 import quantised
from tenantry.kernels.lora.layout import Place, SliceWeights, SlotWeights
from tenantry.kernels.lora.plan import LoraPlan
from tenantry.kernels.lora.table import LoraTable
from tenantry.kernels.lora.transfer import Fence
from tenantry.runtime.cache.pool import KvPool
from tenantry.runtime.model.errors import AdapterNotResident
from tenantry.runtime.plan import Load

TORCH_DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
_PLACES = {module: (site, part) for site, modules in SITES.items() for part, module in enumerate(modules)}


def share_interpreter() -> None:
    """For a process whose steps run beside the loader's thread, once, as it starts.

    A load is thousands of short calls into torch, and each one's end waits for the interpreter: at Python's own 5 ms
    an adapter takes seconds to arrive beside steps that are busy in Python.
    """
    sys.setswitchinterval(5e-5)


class Read(NamedTuple):
    """An adapter in memory. held: bytes of its pieces, if they are smaller than its footprint's."""

    weights: SlotWeights
    held: tuple[int, ...] | None


class Settled(NamedTuple):
    """Loads that ended. failed: and why. held: pieces of those loaded that are smaller than their footprint's."""

    loaded: tuple[bytes, ...]
    failed: tuple[tuple[bytes, str], ...]
    held: dict[bytes, tuple[int, ...]]


class Adapters:
    """Not thread-safe: every method belongs to the thread that runs the steps. int8: hold what loses little so."""

    def __init__(
        self, store: LocalStore, table: LoraTable, base_digest: bytes, pool: KvPool, int8: bool = False
    ) -> None:
        self.table = table
        self._pool = pool
        self._footprints: dict[bytes, Footprint] = {}
        self._int8 = int8
        self._store = store
        self._base_digest = base_digest
        self._slots: dict[bytes, int] = {}
        self._free: list[int] = []
        self._loads: dict[bytes, Future[Read]] = {}
        self._thread = ThreadPoolExecutor(1, "adapter-loader")

    @property
    def resident(self) -> frozenset[bytes]:
        return frozenset(self._slots)

    @property
    def nbytes(self) -> int:
        """Bytes of all resident adapters' weights."""
        return sum(weights.nbytes for weights in self.table.slots.values())

    def footprint(self, digest: bytes) -> Footprint:
        """What an adapter needs to be loaded, in the table's dtype. How much less int8 holds is only known once it
        is read: settle() tells. Raises AdapterError if it is not in the store, ValueError if it does not fit the
        model."""
        known = self._footprints.get(digest)
        if known is not None and self._store.exists(digest):
            return known
        with self._store.open(digest) as reader:
            manifest = reader.manifest
        modules = {}
        for entry in manifest.modules:
            shapes = (entry.rank, entry.in_features), (entry.out_features, entry.rank)
            a, b = (torch.empty(shape, dtype=TORCH_DTYPES[manifest.dtype], device="meta") for shape in shapes)
            modules[_place(entry)] = SliceWeights(a, b, entry.rank, entry.scale)
        footprint = self._footprints[digest] = Footprint(self._pieces(modules))
        return footprint

    def start(self, load: Load) -> None:
        """Begin a load; settle() tells how it ended. Raises AdapterNotResident if it is loaded or loading."""
        digest = load.digest
        if digest in self._slots or digest in self._loads:
            raise AdapterNotResident(f"adapter {digest.hex()} is to be loaded twice")
        self._loads[digest] = self._thread.submit(self._read, load, self.table.fence())

    def settle(self) -> Settled:
        """Take in the loads that have ended."""
        ended = [digest for digest, load in self._loads.items() if load.done()]
        loaded, failed, held = [], [], {}
        for digest in ended:
            load = self._loads.pop(digest)
            error = load.exception()
            if error is None:
                slot = heappop(self._free) if self._free else len(self._slots)
                read = load.result()
                self.table.set_slot(slot, read.weights)
                self._slots[digest] = slot
                if read.held is not None:
                    held[digest] = read.held
                loaded.append(digest)
            elif isinstance(error, Exception):
                failed.append((digest, f"{type(error).__name__}: {error}"))
            else:
                raise error
        return Settled(tuple(loaded), tuple(failed), held)

    def evict(self, digest: bytes) -> None:
        """Free an adapter's memory. Raises AdapterNotResident."""
        if digest not in self._slots:
            raise AdapterNotResident(f"adapter {digest.hex()} is to be evicted but is not resident")
        slot = self._slots.pop(digest)
        self.table.clear_slot(slot)
        heappush(self._free, slot)

    def slots(self, adapters: Sequence[bytes | None]) -> list[int | None]:
        """Where the table holds each; None for the base model. Raises AdapterNotResident."""
        try:
            return [None if digest is None else self._slots[digest] for digest in adapters]
        except KeyError as missing:
            raise AdapterNotResident(f"adapter {missing.args[0].hex()} is in the plan but not resident") from None

    def plan(self, adapters: Sequence[bytes | None], q_lens: Sequence[int]) -> LoraPlan | None:
        """One step's plan; None when every row is of the base model. Raises AdapterNotResident."""
        return self.table.plan(self.slots(adapters), q_lens) if any(adapters) else None

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _pieces(self, modules: Mapping[Place, SliceWeights]) -> tuple[int, ...]:
        return tuple(segment.nbytes for segment in self.table.segments(modules))

    def _read(self, load: Load, after: Fence) -> Read:
        """Runs on the loader's thread. Raises AdapterError for a blob that is missing or damaged, or
        of another base; ValueError for one that does not fit the model."""
        digest = load.digest
        manifest = canonical.verify(self._store.path(digest))
        if manifest.base_digest != self._base_digest:
            raise BlobCorrupt("the adapter was made for another base model")
        with self._store.open(digest) as reader:
            modules = {}
            kind = TORCH_DTYPES[manifest.dtype]
            for index, entry in enumerate(manifest.modules):
                a, b = (torch.from_numpy(x.copy()).view(kind) for x in reader.tensors(index))
                modules[_place(entry)] = SliceWeights(a, b, entry.rank, entry.scale)
        stored = quantised(modules) if self._int8 else modules
        asked, pieces = self._pieces(modules), self._pieces(stored)
        places = self._pool.buffers(pieces, load.extents, asked) if load.extents else None
        return Read(self.table.prepare(stored, places, after), None if pieces == asked else pieces)


def _place(entry: ModuleEntry) -> Place:
    return entry.layer, *_PLACES[entry.module]
