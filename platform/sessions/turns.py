"""A turn: a response that is generated from a history kept here, and becomes part of it together with its bill.

Owns where a turn goes (a conversation, behind another response, or nowhere), which adapter version answers it, and
what is written when it is settled. Generating is the chat service's; money is metering's.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import msgspec

from tenantry.platform.core import ids
from tenantry.platform.core.database import Connection, Database
from tenantry.platform.core.errors import PlatformError, TimedOut
from tenantry.platform.gateway.chat import ChatService, Opened, Turn
from tenantry.platform.gateway.render import Piece, TokenBytes
from tenantry.platform.gateway.runs import Runs
from tenantry.platform.registry.models import Target
from tenantry.platform.registry.service import Registry
from tenantry.platform.sessions import items, replies, requests
from tenantry.platform.sessions.models import Item, Policy, Response, Session, absent, named
from tenantry.platform.sessions.render import ResponseRenderer, finished
from tenantry.platform.sessions.repository import Repository
from tenantry.platform.sessions.service import Sessions, busy, session_of
from tenantry.platform.sessions.versions import target_of
from tenantry.platform.tenants.principal import Principal
from tenantry.runtime.messages import Usage

CANCEL_WAIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a turn goes. session: None when it begins one. previous_id: what it continues. history: said before."""

    session: Session | None = None
    previous_id: UUID | None = None
    history: tuple[Item, ...] = ()

    @property
    def in_conversation(self) -> bool:
        return self.session is not None and self.previous_id is None


class Turns:
    def __init__(
        self,
        sessions: Sessions,
        registry: Registry,
        chat: ChatService,
        runs: Runs,
        token_bytes: TokenBytes,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._sessions = sessions
        self._database: Database = sessions.database
        self._registry = registry
        self._chat = chat
        self._runs = runs
        self._token_bytes = token_bytes
        self._clock = clock

    async def open(self, principal: Principal, request: requests.ResponseRequest, request_id: UUID) -> Opened:
        """Raises the typed refusal of the first step that objects; after it returns, the request will be settled."""
        request.check()
        said = items.read(request.input, "input")
        place = await self._place(principal.tenant_id, request)
        target = await target_of(self._registry, principal.tenant_id, request.model, place.session)
        policy: Policy = place.session.policy if place.session else request.x_version_policy or "pin"
        session_id = place.session.id if place.session else request_id
        draft = self._draft(request, request_id, place, _session_view(session_id, place, policy, target), target)
        renderer = ResponseRenderer(draft, self._token_bytes, self._clock, request.wants_logprobs)

        async def claim() -> None:
            assert place.session is not None
            async with self._database.tenant(principal.tenant_id) as connection:
                repository = Repository(connection, principal.tenant_id)
                if not await repository.claim(place.session.id, place.session.revision, request_id):
                    raise busy()

        async def store(connection: Connection, pieces: Sequence[Piece], usage: Usage) -> None:
            repository = Repository(connection, principal.tenant_id)
            lifetime = self._sessions.lifetime
            if place.session is None:
                await repository.add_session(
                    session_id, "thread", policy, {}, lifetime.keep_s, False, lifetime.retention_s
                )
            new = [*said, renderer.item(pieces)]
            first = await repository.take_seqs(session_id, len(new), lifetime.retention_s)
            if first is None:  # deleted, or expired, while it was being answered
                raise absent("conversation" if place.in_conversation else "response", _param(place))
            await repository.settle_on(session_id, target.model, target.adapter_id, target.version_id)
            await repository.add_response(
                request_id, session_id, place.previous_id, first if place.in_conversation else None,
                new[-1].status, _echo(draft), datetime.fromtimestamp(draft.created_at, UTC), renderer.end,
            )  # fmt: skip
            await repository.add_items(session_id, first, new, place.in_conversation, request_id)

        turn = Turn(
            target=target,
            renderer=renderer,
            claim=claim if place.in_conversation else None,
            store=store if request.stored else None,
        )
        asked = request.asked(items.turns([*place.history, *said], request.instructions))
        try:
            opened = await self._chat.open(principal, asked, request_id, turn)
        except PlatformError as error:
            raise _renamed(error) from None
        headers: dict[str, str] = {"x-tenantry-version-policy": policy}
        if request.stored or place.session is not None:
            headers["x-tenantry-session"] = ids.to_text("session", session_id)
        return Opened(opened.run, {**opened.headers, **headers})

    async def retrieve(self, tenant_id: UUID, response_id: UUID) -> replies.Response:
        return response_view(*await self._sessions.response(tenant_id, response_id))

    async def cancel(self, tenant_id: UUID, response_id: UUID) -> replies.Response:
        """Stop a response that is being generated: it is rolled back, and billed for what there was.

        One that ended is given back as it is.
        """
        run = self._runs.find(tenant_id, response_id)
        if run is None or not isinstance(run.renderer, ResponseRenderer):
            return await self.retrieve(tenant_id, response_id)
        run.leave()
        try:
            async with asyncio.timeout(CANCEL_WAIT_S):
                await run.done.wait()
        except TimeoutError:
            raise TimedOut("The engine did not confirm in time; it was told to stop.") from None
        if run.failure is None:  # its end was quicker
            return await self.retrieve(tenant_id, response_id)
        return run.renderer.cancelled()

    async def _place(self, tenant_id: UUID, request: requests.ResponseRequest) -> Place:
        async with self._database.tenant(tenant_id) as connection:
            repository = Repository(connection, tenant_id)
            if request.conversation_id is not None:
                session_id = named("conversation", request.conversation_id, "conversation")
                session = await repository.session(session_id, "conversation")
                if session is None:
                    raise absent("conversation", "conversation")
                if session.busy:
                    raise busy()
                return Place(session, None, tuple(await repository.listed(session_id, items.MAX_ITEMS + 1)))
            if request.previous_response_id is not None:
                previous = named("response", request.previous_response_id, "previous_response_id")
                found = await repository.history(previous)
                if found is None:
                    raise absent("response", "previous_response_id")
                return Place(await session_of(repository, found[0]), previous, tuple(found[1]))
        return Place()

    def _draft(
        self,
        request: requests.ResponseRequest,
        request_id: UUID,
        place: Place,
        view: replies.SessionView,
        target: Target,
    ) -> replies.Response:
        in_conversation = place.session is not None and place.in_conversation
        return replies.Response(
            id=ids.to_text("response", request_id),
            created_at=int(self._clock()),
            status="in_progress",
            model=target.model,
            output=[],
            instructions=request.instructions,
            metadata=request.metadata or {},
            temperature=1.0 if request.temperature is None else request.temperature,
            top_p=1.0 if request.top_p is None else request.top_p,
            max_output_tokens=request.max_output_tokens,
            top_logprobs=request.top_logprobs or 0,
            user=request.user,
            safety_identifier=request.safety_identifier,
            prompt_cache_key=request.prompt_cache_key,
            store=request.stored,
            previous_response_id=request.previous_response_id,
            conversation=replies.ConversationOf(ids.to_text("conversation", place.session.id))
            if in_conversation and place.session
            else None,
            x_session=view if request.stored or place.session is not None else None,
        )


def response_view(response: Response, session: Session, output: list[Item]) -> replies.Response:
    """A stored response, equal to what was answered when it was made."""
    counts, version = response.counts, response.version
    echo = msgspec.convert(response.settings, replies.Echo)
    draft = replies.Response(
        **msgspec.structs.asdict(echo),
        id=ids.to_text("response", response.id),
        created_at=int(response.created_at.timestamp()),
        status="in_progress",
        output=[],
        store=True,
        previous_response_id=ids.to_text("response", response.previous_id) if response.previous_id else None,
        conversation=replies.ConversationOf(ids.to_text("conversation", session.id))
        if response.in_conversation
        else None,
        x_session=replies.view_of(session.id, session.kind, session.policy, echo.model, version),
    )
    usage = replies.Usage.of(counts.prompt, counts.cached, counts.completion)
    return finished(draft, output, response.completed_at, usage)


def _session_view(session_id: UUID, place: Place, policy: Policy, target: Target) -> replies.SessionView:
    kind = place.session.kind if place.session else "thread"
    digest = target.digest.hex() if target.digest is not None else None
    return replies.SessionView(ids.to_text("session", session_id), kind, policy, target.model, target.number, digest)


def _echo(draft: replies.Response) -> dict[str, object]:
    return {name: getattr(draft, name) for name in replies.Echo.__struct_fields__}


def _param(place: Place) -> str:
    return "conversation" if place.in_conversation else "previous_response_id"


def _renamed(error: PlatformError) -> PlatformError:
    """Chat's refusal, by the names that responses have for the same fields."""
    field = (error.param or "").partition("[")[0].partition(".")[0]
    name = requests.RENAMED.get(field)
    if name is not None:
        error.message, error.param = error.message.replace(field, name), name
    return error
