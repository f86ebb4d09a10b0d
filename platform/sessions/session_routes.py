"""/api/v1/sessions: what a tenant's sessions are, cost and keep, and what may be done with them.

Owns the mapping between HTTP and the sessions service. Threads and conversations are both sessions here.
"""

from typing import Annotated, Any

from litestar import Request, Router, delete, get, patch, post
from litestar.params import Parameter

from tenantry.platform.core import ids
from tenantry.platform.core.errors import InvalidInput
from tenantry.platform.core.paging import After, Limit, cursor, cut
from tenantry.platform.core.policy import tenant, under
from tenantry.platform.gateway.routes import request_id_of
from tenantry.platform.sessions import session_views as views
from tenantry.platform.sessions.models import Kind, named
from tenantry.platform.sessions.prewarm import Prewarmer
from tenantry.platform.sessions.requests import check_metadata
from tenantry.platform.sessions.service import Sessions
from tenantry.platform.tenants.principal import Principal

_MANAGE = under(tenant("manage"))
MAX_TTL_S = 365 * 86400
Id = Annotated[str, Parameter(description="sess_ and 32 hex digits.")]
ByKind = Annotated[Kind | None, Parameter(query="kind", description="conversation or thread.")]
ByModel = Annotated[str | None, Parameter(query="model", max_length=300, description="As its first turn called it.")]
ByPin = Annotated[bool | None, Parameter(query="cache_pinned", description="Whether its KV is pinned.")]


@get("/sessions", opt=_MANAGE)
async def list_sessions(
    principal: Principal,
    sessions: Sessions,
    limit: Limit = 20,
    after: After = None,
    kind: ByKind = None,
    model: ByModel = None,
    cache_pinned: ByPin = None,
) -> views.SessionPage:
    """Newest first."""
    found = await sessions.overview(
        principal.tenant_id, cursor("session", after), limit + 1, kind, model, cache_pinned
    )
    rows, more = cut(found, limit)
    data = [views.SessionSummary.of(*row) for row in rows]
    return views.SessionPage(data=data, has_more=more, next=data[-1].id if more else None)


@get("/sessions/{session_id:str}", opt=_MANAGE)
async def get_session(session_id: Id, principal: Principal, sessions: Sessions) -> views.SessionSummary:
    return views.SessionSummary.of(*await sessions.summary(principal.tenant_id, named("session", session_id)))


@get("/sessions/{session_id:str}/turns", opt=_MANAGE)
async def list_turns(
    session_id: Id, principal: Principal, sessions: Sessions, limit: Limit = 20, after: After = None
) -> views.TurnPage:
    """Newest first: what of each prompt was found and what was computed, and what was generated."""
    found = await sessions.turns(
        principal.tenant_id, named("session", session_id), cursor("response", after), limit + 1
    )
    rows, more = cut(found, limit)
    data = [views.TurnView.of(row) for row in rows]
    return views.TurnPage(data=data, has_more=more, next=data[-1].id if more else None)


@patch("/sessions/{session_id:str}", opt=_MANAGE)
async def change_session(
    session_id: Id, data: views.SessionPatch, principal: Principal, sessions: Sessions
) -> views.SessionSummary:
    """Pin or unpin its KV, change how long that is kept, its metadata, or whether it follows the adapter's alias."""
    if data.cache_ttl_s is not None and not 0 <= data.cache_ttl_s <= MAX_TTL_S:
        raise InvalidInput(
            f"cache_ttl_s must lie between 0 and {MAX_TTL_S}.", code="out_of_range", param="cache_ttl_s"
        )
    check_metadata(data.metadata)
    found = await sessions.change(
        principal.tenant_id, named("session", session_id), data.metadata, data.version_policy, data.cache_ttl_s,
        data.cache_pinned,
    )  # fmt: skip
    return views.SessionSummary.of(*found)


@post("/sessions/{session_id:str}/fork", opt=_MANAGE)
async def fork_session(
    session_id: Id, data: views.ForkBody, principal: Principal, sessions: Sessions
) -> views.SessionSummary:
    """A new conversation that remembers everything up to one response, and stays with the same adapter version."""
    response_id = named("response", data.response, "response")
    return views.SessionSummary.of(
        *await sessions.fork(principal.tenant_id, named("session", session_id), response_id)
    )


@post("/sessions/{session_id:str}/prewarm", opt=_MANAGE, status_code=200)
async def prewarm_session(
    session_id: Id, request: Request[Principal, Any, Any], principal: Principal, prewarmer: Prewarmer
) -> views.Prewarmed:
    """Compute the history's KV ahead of its next turn. Billed as a request of one token."""
    principal.require("inference")
    request_id = request_id_of(request)
    usage = await prewarmer.warm(principal, named("session", session_id), request_id, request.receive)
    return views.Prewarmed(ids.to_text("request", request_id), usage.prompt, usage.cached)


@delete("/sessions/{session_id:str}", opt=_MANAGE)
async def delete_session(session_id: Id, principal: Principal, sessions: Sessions) -> None:
    """Its content and its KV. What it cost stays in the books."""
    await sessions.delete(principal.tenant_id, named("session", session_id))


router = Router(
    "/api/v1",
    route_handlers=[
        list_sessions, get_session, list_turns, change_session, fork_session, prewarm_session, delete_session,
    ],
    tags=["sessions"],
)  # fmt: skip
