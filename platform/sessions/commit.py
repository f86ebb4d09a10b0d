"""What becomes of a turn: its place is taken before the first token, and it is written together with its bill.

Owns the two moments at which a turn touches what is remembered. Must not know requests, engines or money.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from tenantry.platform.core.database import Connection, Database
from tenantry.platform.gateway.cache_options import CacheOptions, Kept
from tenantry.platform.gateway.render import Piece
from tenantry.platform.registry.models import Target
from tenantry.platform.sessions import replies
from tenantry.platform.sessions.models import Item, Policy, Response, Session, absent
from tenantry.platform.sessions.render import ResponseRenderer, counts_of
from tenantry.platform.sessions.repository import Repository
from tenantry.platform.sessions.service import Lifetime, busy
from tenantry.runtime.messages import Usage


@dataclass(frozen=True, slots=True)
class Place:
    """Where a turn goes. session: None when it begins one. previous_id: what it continues. history: said before."""

    session: Session | None = None
    previous_id: UUID | None = None
    history: tuple[Item, ...] = ()

    @property
    def in_conversation(self) -> bool:
        return self.session is not None and self.previous_id is None


@dataclass(frozen=True, slots=True)
class Pending:
    """A turn that is being generated. Its id is its request's; said: the items that it brings; asked: what it changes
    about what its session keeps."""

    tenant_id: UUID
    id: UUID
    session_id: UUID
    place: Place
    said: list[Item]
    target: Target
    policy: Policy
    kept: Kept
    asked: CacheOptions | None
    draft: replies.Response
    renderer: ResponseRenderer
    lifetime: Lifetime

    async def claim(self, database: Database) -> None:
        """Take the conversation's turn. Raises Conflict when anything happened to it since its history was read."""
        session = self.place.session
        assert session is not None
        async with database.tenant(self.tenant_id) as connection:
            if not await Repository(connection, self.tenant_id).claim(session.id, session.revision, self.id):
                raise busy()

    async def store(self, connection: Connection, pieces: Sequence[Piece], usage: Usage) -> None:
        """In the transaction that settles it. Raises NotFound when what it belonged to is gone meanwhile."""
        repository, place, kept = Repository(connection, self.tenant_id), self.place, self.kept
        retention_s = self.lifetime.retention_s
        if place.session is None:
            await repository.add_session(
                self.session_id, "thread", self.policy, {}, int(kept.keep_s), kept.pin, retention_s
            )
        new = [*self.said, self.renderer.item(pieces)]
        first = await repository.take_seqs(self.session_id, len(new), retention_s)
        if first is None and place.in_conversation:
            raise absent("conversation", "conversation")
        if first is None:
            raise absent("response", "previous_response_id")
        if self.asked is not None:
            await repository.change_session(self.session_id, keep_s=self.asked.keep_s, pinned=self.asked.pin)
        target = self.target
        await repository.settle_on(self.session_id, target.model, target.adapter_id, target.version_id)
        created, in_conversation = datetime.fromtimestamp(self.draft.created_at, UTC), place.in_conversation
        echo = {name: getattr(self.draft, name) for name in replies.Echo.__struct_fields__}
        turn = Response(
            self.id, self.session_id, place.previous_id, first if in_conversation else None, new[-1].status, echo,
            created, self.renderer.end, counts_of(usage), None,
        )  # fmt: skip
        await repository.add_response(turn)
        await repository.add_items(self.session_id, first, new, in_conversation, self.id)
