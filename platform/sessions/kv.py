"""What the engine is told about a session's KV between its turns: keep it so long, or let go of it in every tier.

Owns what it means that an engine cannot be told: its lease ends by itself in time, so that is a warning and no more.
"""

from collections.abc import Callable
from uuid import UUID

import structlog

from tenantry.platform.gateway.cache_options import session_key
from tenantry.platform.gateway.chat import Engine
from tenantry.runtime.errors import RuntimeRefusal

log = structlog.get_logger(__name__)


class SessionKv:
    """Call it after what it follows from was committed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def keep(self, tenant_id: UUID, session_id: UUID, keep_s: int, pinned: bool) -> None:
        self._tell(lambda: self._engine.keep_session(_key(tenant_id, session_id), keep_s, pinned))

    def forget(self, tenant_id: UUID, session_id: UUID) -> None:
        self._tell(lambda: self._engine.drop_session(_key(tenant_id, session_id)))

    @staticmethod
    def _tell(command: Callable[[], None]) -> None:
        try:
            command()
        except RuntimeRefusal as error:
            log.warning("engine_not_told", error=error.message)


def _key(tenant_id: UUID, session_id: UUID) -> bytes:
    return session_key(tenant_id.bytes, "session", session_id.bytes)
