"""Rows that prove who is asking: looked up once for all who wait, and believed for a moment, misses included.

Owns the bounded cache of them. Knows neither keys nor cookies; who calls compares the digests.
"""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from cachetools import TTLCache

from tenantry.platform.tenants.principal import Principal

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Proof:
    """mac: of the secret, under the pepper of that version. live: neither revoked nor expired nor suspended.
    note_use: that it is used has not been written down for a minute."""

    principal: Principal
    pepper_id: int
    mac: bytes
    live: bool
    note_use: bool = False


class Proofs(Generic[Key]):
    """ttl: seconds that an answer is believed. clock: seconds, monotonic. queries: look-ups made so far."""

    def __init__(
        self,
        look_up: Callable[[Key], Coroutine[Any, Any, Proof | None]],
        size: int,
        ttl: float,
        clock: Callable[[], float],
    ) -> None:
        self._look_up = look_up
        self._believed: TTLCache[Key, Proof | None] = TTLCache(size, ttl, clock)
        self._lookups: dict[Key, asyncio.Task[Proof | None]] = {}
        self.queries = 0

    async def get(self, key: Key) -> Proof | None:
        """Raises what the look-up raises; nothing of that is kept."""
        try:
            return self._believed[key]
        except KeyError:
            pass
        task = self._lookups.get(key)
        if task is None:  # one for all who wait, owned by none of them, so that no cancelled caller breaks it
            task = asyncio.create_task(self._ask(key))
            self._lookups[key] = task
            task.add_done_callback(lambda done: self._asked(key, done))
        return await asyncio.shield(task)

    def put(self, key: Key, proof: Proof) -> None:
        self._believed[key] = proof

    def forget(self, key: Key) -> None:
        self._believed.pop(key, None)
        self._lookups.pop(key, None)  # its answer may be older than what the caller knows

    async def _ask(self, key: Key) -> Proof | None:
        self.queries += 1
        started, mine = self._believed.timer(), asyncio.current_task()
        proof = await self._look_up(key)
        if self._believed.timer() - started < self._believed.ttl and self._lookups.get(key) is mine:
            self._believed[key] = proof  # unless the answer was slow or forgotten: then it may be old already
        return proof

    def _asked(self, key: Key, task: asyncio.Task[Proof | None]) -> None:
        if self._lookups.get(key) is task:
            del self._lookups[key]
        if not task.cancelled():
            task.exception()  # whoever still waits hears it; when all have gone away, nobody needs to
