"""Prewarming: a session's history is computed ahead of its next turn, so that the turn finds its KV.

Owns the request that does it: one token, of which nothing is kept but its bill.
"""

from uuid import UUID

from tenantry.platform.core.database import Database
from tenantry.platform.core.errors import Conflict, PlatformError
from tenantry.platform.gateway.cache_options import Kept, session_key
from tenantry.platform.gateway.chat import ChatService, Turn
from tenantry.platform.gateway.openai import ChatRequest, Message
from tenantry.platform.gateway.render import Piece
from tenantry.platform.gateway.runs import Receive
from tenantry.platform.registry.service import Registry
from tenantry.platform.sessions import items
from tenantry.platform.sessions.models import Item, Session
from tenantry.platform.sessions.repository import Repository
from tenantry.platform.sessions.service import Sessions, session_of
from tenantry.platform.sessions.versions import target_of
from tenantry.platform.tenants.principal import Principal
from tenantry.runtime.messages import Usage


class Prewarmer:
    def __init__(self, sessions: Sessions, registry: Registry, chat: ChatService) -> None:
        self._database: Database = sessions.database
        self._registry = registry
        self._chat = chat

    async def warm(self, principal: Principal, session_id: UUID, request_id: UUID, receive: Receive) -> Usage:
        """Raises Conflict for a session without turns, and whatever a turn would be refused with."""
        async with self._database.tenant(principal.tenant_id) as connection:
            repository = Repository(connection, principal.tenant_id)
            session = await session_of(repository, session_id)
            history = await _newest(repository, session)
        if session.model is None or not history:
            raise Conflict("This session has had no turn yet.", code="session_empty")
        target = await target_of(self._registry, principal.tenant_id, session.model, session)
        said = items.turns(history, None)
        if said[-1][0] == "assistant":  # the template wants somebody to answer; the next turn begins like this
            said.append(("user", ""))
        request = ChatRequest(
            model=session.model,
            messages=[Message(role, text) for role, text in said],
            max_completion_tokens=1,
            temperature=0.0,
            speculate=False,
        )
        key = session_key(principal.isolation, "session", session_id.bytes)
        turn = Turn(target, _Silent(), kept=Kept(key, session.keep_s, session.pinned))
        opened = await self._chat.open(principal, request, request_id, turn)
        await opened.run.whole(receive)
        assert opened.run.usage is not None
        return opened.run.usage


async def _newest(repository: Repository, session: Session) -> list[Item]:
    """The conversation's own line; of a thread, the line of its newest response."""
    if session.kind == "conversation":
        return await repository.listed(session.id, items.MAX_ITEMS)
    newest = await repository.responses(session.id, None, 1, "desc")
    found = await repository.history(newest[0].id) if newest else None
    return found[1] if found else []


class _Silent:
    """A renderer of nothing."""

    def first(self) -> bytes:
        return b""

    def piece(self, piece: Piece) -> bytes:
        return b""

    def last(self, usage: Usage) -> bytes:
        return b""

    def failed(self, error: PlatformError, request_id: str) -> bytes:
        return b""

    def whole(self, pieces: object, usage: Usage) -> bytes:
        return b""
