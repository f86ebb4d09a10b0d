"""A stream of small facts for pages that are open: how fast it goes now, and that something new was settled.

Owns how many may watch at once and for how long. It reads memory only, so watching costs the database nothing.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from typing import Final
from uuid import UUID

import msgspec

from tenantry.platform.core.errors import RateLimited

EVERY_S: Final = 2.0
LIFE_S: Final = 600.0  # then the browser asks again, and proves again who it is
AT_ONCE: Final = 32


class Watchers:
    """stopping: whether the gateway drains; then every stream ends."""

    def __init__(self, stopping: Callable[[], bool], every_s: float = EVERY_S, life_s: float = LIFE_S) -> None:
        self._stopping = stopping
        self._every = every_s
        self._life = life_s
        self._open: Counter[UUID] = Counter()

    def watch(self, tenant_id: UUID, look: Callable[[], msgspec.Struct]) -> AsyncGenerator[bytes, None]:
        """Server-sent events. Raises RateLimited when a tenant has too many open already."""
        if self._open[tenant_id] >= AT_ONCE:
            raise RateLimited(f"At most {AT_ONCE} live views of a tenant at once.", retry_ms=5000)
        return self._stream(tenant_id, look)

    async def _stream(self, tenant_id: UUID, look: Callable[[], msgspec.Struct]) -> AsyncGenerator[bytes, None]:
        self._open[tenant_id] += 1
        try:
            yield b"retry: 3000\n\n"
            for _ in range(max(1, int(self._life / self._every))):
                if self._stopping():
                    return
                yield b"data: " + msgspec.json.encode(look()) + b"\n\n"
                await asyncio.sleep(self._every)
        finally:
            self._open[tenant_id] -= 1
            if not self._open[tenant_id]:
                del self._open[tenant_id]
