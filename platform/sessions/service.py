"""Conversations and stored responses of one tenant at a time: making, reading, changing and deleting them.

Owns the rules that need no engine; a turn itself is in turns.py. Every method takes the authenticated tenant's id.
"""

from dataclasses import dataclass, replace
from uuid import UUID

from tenantry.platform.core import ids
from tenantry.platform.core.database import Connection, Database
from tenantry.platform.core.errors import Conflict
from tenantry.platform.core.paging import cut
from tenantry.platform.sessions.kv import SessionKv
from tenantry.platform.sessions.models import Item, Kind, Policy, Response, Session, Totals, absent
from tenantry.platform.sessions.repository import Order, Repository

MAX_NEW_ITEMS = 20


@dataclass(frozen=True, slots=True)
class Lifetime:
    """Seconds. retention: how long after its last turn a session is remembered. keep: how long its KV is, unless the
    client asks for more or less."""

    retention_s: float
    keep_s: int


class Sessions:
    def __init__(self, database: Database, lifetime: Lifetime, kv: SessionKv) -> None:
        self.database = database
        self.lifetime = lifetime
        self._kv = kv

    async def create(self, tenant_id: UUID, items: list[Item], metadata: dict[str, str], policy: Policy) -> Session:
        """A conversation that begins with these items."""
        session_id = ids.uuid7()
        async with self.database.tenant(tenant_id) as connection:
            repository = Repository(connection, tenant_id)
            await repository.add_session(
                session_id, "conversation", policy, metadata, self.lifetime.keep_s, False, self.lifetime.retention_s
            )
            if items:
                first = await repository.take_seqs(session_id, len(items), self.lifetime.retention_s)
                assert first is not None
                await repository.add_items(session_id, first, items, True)
            return await session_of(repository, session_id)

    async def conversation(self, tenant_id: UUID, session_id: UUID) -> Session:
        async with self.database.tenant(tenant_id) as connection:
            return await session_of(Repository(connection, tenant_id), session_id, "conversation")

    async def update(
        self, tenant_id: UUID, session_id: UUID, metadata: dict[str, str], policy: Policy | None
    ) -> Session:
        async with self.database.tenant(tenant_id) as connection:
            repository = Repository(connection, tenant_id)
            await session_of(repository, session_id, "conversation")
            await repository.change_session(session_id, metadata=metadata, policy=policy)
            return await session_of(repository, session_id)

    async def delete(self, tenant_id: UUID, session_id: UUID, kind: Kind | None = None) -> None:
        """All of its content. A turn under way ends without being stored; usage stays."""
        async with self.database.tenant(tenant_id) as connection:
            repository = Repository(connection, tenant_id)
            await session_of(repository, session_id, kind)
            await repository.delete_session(session_id)
        self._kv.forget(tenant_id, session_id)

    async def overview(
        self,
        tenant_id: UUID,
        after: UUID | None,
        limit: int,
        kind: Kind | None,
        model: str | None,
        pinned: bool | None,
    ) -> list[tuple[Session, Totals]]:
        async with self.database.tenant(tenant_id) as connection:
            repository = Repository(connection, tenant_id)
            found = await repository.sessions(after, limit, kind, model, pinned)
            totals = await repository.totals(session.id for session in found)
        return [(session, totals.get(session.id, Totals())) for session in found]

    async def summary(self, tenant_id: UUID, session_id: UUID) -> tuple[Session, Totals]:
        async with self.database.tenant(tenant_id) as connection:
            return await _summary(Repository(connection, tenant_id), session_id)

    async def turns(self, tenant_id: UUID, session_id: UUID, after: UUID | None, limit: int) -> list[Response]:
        """Newest first."""
        async with self.database.tenant(tenant_id) as connection:
            repository = Repository(connection, tenant_id)
            await session_of(repository, session_id)
            return await repository.responses(session_id, after, limit, "desc")

    async def change(
        self,
        tenant_id: UUID,
        session_id: UUID,
        metadata: dict[str, str] | None,
        policy: Policy | None,
        keep_s: int | None,
        pinned: bool | None,
    ) -> tuple[Session, Totals]:
        """None leaves a value as it is."""
        async with self.database.tenant(tenant_id) as connection:
            repository = Repository(connection, tenant_id)
            await session_of(repository, session_id)
            await repository.change_session(session_id, metadata, policy, keep_s, pinned)
            session, totals = await _summary(repository, session_id)
        if keep_s is not None or pinned is not None:
            self._kv.keep(tenant_id, session_id, session.keep_s, session.pinned)
        return session, totals

    async def fork(self, tenant_id: UUID, session_id: UUID, response_id: UUID) -> tuple[Session, Totals]:
        """A conversation of its own that remembers what was said up to the end of this response."""
        async with self.database.tenant(tenant_id) as connection:
            repository = Repository(connection, tenant_id)
            session = await session_of(repository, session_id)
            response = await repository.response(response_id)
            found = await repository.history(response_id)
            if response is None or found is None or found[0] != session_id:
                raise absent("response", "response")
            copies = [replace(item, id=ids.uuid7()) for item in found[1]]
            made = ids.uuid7()
            await repository.add_session(
                made, "conversation", session.policy, session.metadata, session.keep_s, session.pinned,
                self.lifetime.retention_s,
            )  # fmt: skip
            first = await repository.take_seqs(made, len(copies), self.lifetime.retention_s)
            assert first is not None
            await repository.add_items(made, first, copies, True)
            version = response.version
            await repository.settle_on(
                made, response.settings["model"], version.adapter_id if version else None,
                version.id if version else None,
            )  # fmt: skip
            return await _summary(repository, made)

    async def items(
        self, tenant_id: UUID, session_id: UUID, limit: int, after: UUID | None, order: Order
    ) -> tuple[list[Item], bool]:
        async with self.database.tenant(tenant_id) as connection:
            repository = Repository(connection, tenant_id)
            await session_of(repository, session_id, "conversation")
            if after is not None:
                await _listed_item(repository, session_id, after, "after")
            return cut(await repository.listed(session_id, limit + 1, after, order), limit)

    async def item(self, tenant_id: UUID, session_id: UUID, item_id: UUID) -> Item:
        async with self.database.tenant(tenant_id) as connection:
            repository = Repository(connection, tenant_id)
            await session_of(repository, session_id, "conversation")
            return await _listed_item(repository, session_id, item_id)

    async def add_items(self, tenant_id: UUID, session_id: UUID, items: list[Item]) -> None:
        async with self.database.tenant(tenant_id) as connection:
            await self._append(connection, tenant_id, session_id, len(items), items)

    async def delete_item(self, tenant_id: UUID, session_id: UUID, item_id: UUID) -> Session:
        async with self.database.tenant(tenant_id) as connection:
            repository = Repository(connection, tenant_id)
            await self._append(connection, tenant_id, session_id, 0, [])
            await _listed_item(repository, session_id, item_id)
            await repository.delete_item(session_id, item_id)
            return await session_of(repository, session_id)

    async def response(self, tenant_id: UUID, response_id: UUID) -> tuple[Response, Session, list[Item]]:
        """(response, its session, what was generated)."""
        async with self.database.tenant(tenant_id) as connection:
            repository = Repository(connection, tenant_id)
            found = await response_of(repository, response_id)
            session = await session_of(repository, found.session_id)
            return found, session, await repository.items_of([response_id], output=True)

    async def input_items(
        self, tenant_id: UUID, response_id: UUID, limit: int, after: UUID | None, order: Order
    ) -> tuple[list[Item], bool]:
        async with self.database.tenant(tenant_id) as connection:
            repository = Repository(connection, tenant_id)
            await response_of(repository, response_id)
            if after is not None and after not in {i.id for i in await repository.items_of([response_id], False)}:
                raise absent("item", "after")
            return cut(await repository.items_of([response_id], False, limit + 1, after, order), limit)

    async def delete_response(self, tenant_id: UUID, response_id: UUID) -> None:
        async with self.database.tenant(tenant_id) as connection:
            repository = Repository(connection, tenant_id)
            response = await response_of(repository, response_id)
            whole = await repository.delete_response(response)
        if whole:
            self._kv.forget(tenant_id, response.session_id)

    async def _append(
        self, connection: Connection, tenant_id: UUID, session_id: UUID, places: int, items: list[Item]
    ) -> None:
        """Change a conversation's items between turns, and never during one. Raises Conflict."""
        repository = Repository(connection, tenant_id)
        session = await session_of(repository, session_id, "conversation")
        if session.busy:
            raise busy()
        first = await repository.take_seqs(session_id, places, self.lifetime.retention_s, session.revision)
        if first is None:
            raise busy()
        await repository.add_items(session_id, first, items, True)


async def session_of(repository: Repository, session_id: UUID, kind: Kind | None = None) -> Session:
    """Raises the NotFound of whatever name the caller knows it by."""
    session = await repository.session(session_id, kind)
    if session is None:
        raise absent("conversation" if kind == "conversation" else "session")
    return session


async def response_of(repository: Repository, response_id: UUID) -> Response:
    response = await repository.response(response_id)
    if response is None:
        raise absent("response")
    return response


def busy() -> Conflict:
    """Somebody else's turn came between. The other one's answer is not lost, and this one may be sent again."""
    return Conflict(
        "Another turn of this conversation is under way: wait for it, or fork with previous_response_id.",
        code="session_busy", param="conversation", headers={"retry-after": "1"},
    )  # fmt: skip


async def _summary(repository: Repository, session_id: UUID) -> tuple[Session, Totals]:
    session = await session_of(repository, session_id)
    return session, (await repository.totals([session_id])).get(session_id, Totals())


async def _listed_item(repository: Repository, session_id: UUID, item_id: UUID, param: str = "id") -> Item:
    item = await repository.item(session_id, item_id)
    if item is None:
        raise absent("item", param)
    return item
