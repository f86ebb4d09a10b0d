"""LoRAs of a head, one for each adapter of the target that has its own: which they are, and where they lie.

Owns a head's `adapters` folder: canonical blobs by digest, and index.json, from an adapter's digest to that of the
head's LoRA for it. For an adapter without a usable one the head guesses as it is: worse perhaps, never wrong.
"""

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from tenantry.adapters.base_digest import digest_model
from tenantry.adapters.store import LocalStore
from tenantry.kernels.lora.table import LoraTable
from tenantry.runtime.cache.pool import KvPool
from tenantry.runtime.model.errors import ModelUnsupported
from tenantry.runtime.model.lora import Adapters
from tenantry.runtime.plan import Load

INDEX = "index.json"
log = logging.getLogger(__name__)


def adapters_of(head: Path) -> Path:
    return head / "adapters"


def read_index(head: Path) -> dict[bytes, bytes]:
    """An adapter's digest to that of the head's LoRA for it. Raises ModelUnsupported for a file that is none of
    ours."""
    path = adapters_of(head) / INDEX
    try:
        found = json.loads(path.read_bytes())
        return {bytes.fromhex(adapter): bytes.fromhex(lora) for adapter, lora in found.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError, TypeError):
        raise ModelUnsupported(INDEX, "expected an object of digests") from None


def register(head: Path, adapter: bytes, lora: bytes) -> None:
    """Name the head's LoRA for an adapter; whoever reads sees the file as it was or as it is."""
    known = read_index(head) | {adapter: lora}
    path = adapters_of(head) / INDEX
    written = path.with_suffix(".part")
    written.write_text(json.dumps({a.hex(): b.hex() for a, b in sorted(known.items())}, indent=2) + "\n")
    written.rename(path)


class HeadAdapters:
    """All of a head's LoRAs, read when it is made: a head's layer is one of many, so they are small. table: the
    head's. pool: anything, since these are not the arena's."""

    def __init__(self, head: Path, table: LoraTable, pool: KvPool) -> None:
        """Raises ModelUnsupported. One that is missing, damaged or of another head is told of and left out."""
        known = read_index(head)
        self._slots: dict[bytes, int] = {}
        if not known:
            return
        adapters = Adapters(LocalStore(adapters_of(head)), table, digest_model(head), pool)
        waiting = set(known.values())
        for lora in waiting:
            adapters.start(Load(lora))
        while waiting:
            ended = adapters.settle()
            for lora, reason in ended.failed:
                log.warning("a head's LoRA %s is left out: %s", lora.hex(), reason)
            waiting -= {*ended.loaded, *(lora for lora, _ in ended.failed)}
            time.sleep(0.001)
        adapters.close()
        resident = {adapter: lora for adapter, lora in known.items() if lora in adapters.resident}
        slots = adapters.slots(list(resident.values()))
        self._slots = {adapter: slot for adapter, slot in zip(resident, slots, strict=True) if slot is not None}

    def slots(self, adapters: Sequence[bytes | None]) -> list[int | None]:
        """Where the table holds each one's LoRA, None for the head as it is."""
        return [None if adapter is None else self._slots.get(adapter) for adapter in adapters]
