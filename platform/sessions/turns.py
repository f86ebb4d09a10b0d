"""A turn: a response that is generated from a history kept here, and becomes part of it together with its bill.

Owns where a turn goes (a conversation, behind another response, or nowhere), which adapter version answers it, and
what is written when it is settled. Generating is the chat service's; money is metering's.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from uuid import UUID

import msgspec

from tenantry.platform.core import ids
from tenantry.platform.core.database import Database
from tenantry.platform.core.errors import PlatformError, TimedOut
from tenantry.platform.gateway.cache_options import TTL_S, CacheOptions, Kept, kept_for, session_key
from tenantry.platform.gateway.chat import ChatService, Opened, Turn
from tenantry.platform.gateway.render import TokenBytes
from tenantry.platform.gateway.runs import Runs
from tenantry.platform.registry.models import Target
from tenantry.platform.registry.service import Registry
from tenantry.platform.sessions import items, replies, requests
from tenantry.platform.sessions.commit import Pending, Place
from tenantry.platform.sessions.models import Item, Policy, Response, Session, absent, named
from tenantry.platform.sessions.render import ResponseRenderer, finished
from tenantry.platform.sessions.repository import Repository
from tenantry.platform.sessions.service import Sessions, busy, session_of
from tenantry.platform.sessions.versions import target_of
from tenantry.platform.tenants.principal import Principal

CANCEL_WAIT_S = 5.0
ROLL_BACK_WAIT_S = 2.0


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
        session = place.session
        target = await target_of(self._registry, principal.tenant_id, request.model, session)
        policy: Policy = session.policy if session else request.x_version_policy or "pin"
        session_id = session.id if session else request_id
        kept = self._kept(principal, request, session_id, session)
        view = _session_view(session_id, place, policy, target)
        draft = self._draft(request, request_id, place, view, target, kept)
        renderer = ResponseRenderer(draft, self._token_bytes, self._clock, request.wants_logprobs, request.prewarms)
        pending = Pending(
            principal.tenant_id, request_id, session_id, place, said, target, policy, kept,
            request.prompt_cache_options, draft, renderer,
            self._sessions.lifetime,
        )  # fmt: skip
        turn = Turn(
            target=target,
            renderer=renderer,
            claim=(lambda: pending.claim(self._database)) if place.in_conversation and request.stored else None,
            store=pending.store if request.stored else None,
            kept=kept,
        )
        asked = request.asked(items.turns([*place.history, *said], request.instructions))
        try:
            opened = await self._chat.open(principal, asked, request_id, turn)
        except PlatformError as error:
            raise _renamed(error) from None
        headers: dict[str, str] = {"x-tenantry-version-policy": policy}
        if request.stored or session is not None:
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
        if request.conversation_id is not None:
            return await self._conversation(tenant_id, named("conversation", request.conversation_id, "conversation"))
        if request.previous_response_id is None:
            return Place()
        previous = named("response", request.previous_response_id, "previous_response_id")
        async with self._database.tenant(tenant_id) as connection:
            repository = Repository(connection, tenant_id)
            found = await repository.history(previous)
            if found is None:
                raise absent("response", "previous_response_id")
            return Place(await session_of(repository, found[0]), previous, tuple(found[1]))

    async def _conversation(self, tenant_id: UUID, session_id: UUID) -> Place:
        """Raises Conflict during somebody's turn; one whose reader has gone is waited for, as it is rolled back."""
        for again in (True, False):
            async with self._database.tenant(tenant_id) as connection:
                repository = Repository(connection, tenant_id)
                session = await repository.session(session_id, "conversation")
                if session is None:
                    raise absent("conversation", "conversation")
                if not session.busy:
                    return Place(session, None, tuple(await repository.listed(session_id, items.MAX_ITEMS + 1)))
            run = self._runs.find(tenant_id, session.turn_id) if session.turn_id else None
            if not again or run is None or not run.leaving:
                break
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ROLL_BACK_WAIT_S):
                    await run.done.wait()
        raise busy()

    def _kept(
        self, principal: Principal, request: requests.ResponseRequest, session_id: UUID, session: Session | None
    ) -> Kept:
        """What the engine keeps: as the request says, else as the session does, else as everybody's."""
        options, keep_s = request.prompt_cache_options, self._sessions.lifetime.keep_s
        if session is None and not request.stored:
            return kept_for(principal, request.prompt_cache_key, options, keep_s)
        asked = options or CacheOptions()
        if session is not None:
            keep_s = session.keep_s
        pin = session.pinned if asked.pin is None and session is not None else bool(asked.pin)
        ttl = keep_s if asked.keep_s is None else asked.keep_s
        return Kept(session_key(principal.isolation, "session", session_id.bytes), ttl, pin)

    def _draft(
        self,
        request: requests.ResponseRequest,
        request_id: UUID,
        place: Place,
        view: replies.SessionView,
        target: Target,
        kept: Kept,
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
            prompt_cache_options=_applied(kept),
            store=request.stored,
            previous_response_id=request.previous_response_id,
            conversation=replies.ConversationOf(ids.to_text("conversation", place.session.id))
            if in_conversation and place.session
            else None,
            x_session=view if request.stored or place.session is not None else None,
        )


def response_view(response: Response, session: Session, output: list[Item]) -> replies.Response:
    """A stored response, equal to what was answered when it was made."""
    version = response.version
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
    return finished(draft, output, response.completed_at, replies.Usage.of(response.counts))


def _session_view(session_id: UUID, place: Place, policy: Policy, target: Target) -> replies.SessionView:
    kind = place.session.kind if place.session else "thread"
    digest = target.digest.hex() if target.digest is not None else None
    return replies.SessionView(ids.to_text("session", session_id), kind, policy, target.model, target.number, digest)


def _applied(kept: Kept) -> replies.CacheApplied | None:
    """In the two words that the client's type knows; any other time is told by /api/v1/sessions."""
    for ttl, keep_s in TTL_S.items():
        if kept.session and kept.keep_s == keep_s:
            return replies.CacheApplied(ttl, pin=kept.pin)
    return None


def _renamed(error: PlatformError) -> PlatformError:
    """Chat's refusal, by the names that responses have for the same fields."""
    field = (error.param or "").partition("[")[0].partition(".")[0]
    name = requests.RENAMED.get(field)
    if name is not None:
        error.message, error.param = error.message.replace(field, name), name
    return error
