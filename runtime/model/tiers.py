"""The tiers below the device as a runner has them: memory for slots, a folder for pages, and the copies of a plan.

Owns their making out of the configuration and the order of copies within a step. Which page goes where is decided
above; a disk that cannot be used is done without.
"""

from collections.abc import Sequence
from hashlib import blake2b

from tenantry.runtime.cache.disk import DiskPages
from tenantry.runtime.cache.host import HostPages
from tenantry.runtime.cache.nodes import TOKEN_BYTES
from tenantry.runtime.cache.pool import KvPool
from tenantry.runtime.cache.tiers import Tiers
from tenantry.runtime.config import EngineConfig
from tenantry.runtime.plan import NOTHING_COPIED, Copied, Copies

_FORMAT = b"tenantry-kv-format-1"  # to be changed with anything that changes KV and is not part of the digest below


class LowerTiers:
    """pools: whose pages of one id belong together. model: the base's digest. problem: why disk is not used, or not
    all of it, if it was to be."""

    def __init__(self, config: EngineConfig, pools: Sequence[KvPool], model: bytes) -> None:
        self.host = HostPages(pools, config.host_cache_bytes)
        self.disk: DiskPages | None = None
        self.problem: str | None = None
        self._disk_pages = config.disk_cache_bytes // self.host.page_bytes
        self._tenant_pages = config.disk_tenant_bytes // self.host.page_bytes
        if self._disk_pages and self.host.slots:
            self.disk = self._open(config, _form(config, pools, model))

    def books(self) -> Tiers:
        """Who decides: with what disk holds of an earlier life."""
        page = self.host.page_bytes
        if self.disk is None:
            tiers = Tiers(self.host.slots, page_bytes=page)
            tiers.pinned = self.host.pinned
            return tiers
        tiers = Tiers(self.host.slots, self._disk_pages, self._tenant_pages, page)
        tiers.pinned = self.host.pinned
        try:
            tiers.adopt(self.disk.found())
        except OSError as error:
            self.problem = f"what is there cannot be read: {error.strerror}"
        return tiers

    def save(self, copies: Copies) -> None:
        """Before anything else in a step: pages are still where the plan's saves say."""
        if copies.released:
            self.host.release(copies.released)
        if copies.saves:
            self.host.save(copies.saves)

    def restore(self, copies: Copies) -> None:
        """After moves, before rows; what disk has to do goes on meanwhile."""
        if copies.restores:
            self.host.restore(copies.restores)
        if self.disk is not None and copies:
            self.disk.start(copies)

    def settle(self) -> Copied:
        return NOTHING_COPIED if self.disk is None else self.disk.settle()

    def close(self) -> None:
        if self.disk is not None:
            self.disk.close()

    def _open(self, config: EngineConfig, form: bytes) -> DiskPages | None:
        host, tokens = self.host, config.cache.page_size * TOKEN_BYTES
        try:
            return DiskPages(config.disk_cache_dir, form, host.page_bytes, tokens, host.bytes_of, host.wait)
        except OSError as error:
            self.problem = str(error.strerror)
            return None


def _form(config: EngineConfig, pools: Sequence[KvPool], model: bytes) -> bytes:
    """The digest of everything that a page's bytes depend on beside its tokens and its adapter."""
    shapes = [(str(t.dtype), tuple(t.shape[1:])) for pool in pools for t in pool.tensors()]
    fields = (
        config.dtype, config.kv_dtype, config.kv_group, config.weights, config.adapter_dtype, config.device,
        config.cache.page_size, config.speculate, shapes,
    )  # fmt: skip
    return blake2b(_FORMAT + model + repr(fields).encode(), digest_size=32).digest()
