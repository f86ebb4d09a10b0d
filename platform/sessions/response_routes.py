"""/v1/responses: turns with a memory, as OpenAI's clients expect them.

Owns the mapping between HTTP and turns. A streamed body is a pure reader, exactly as for chat.
"""

from typing import Annotated, Any

from litestar import Request, Router, delete, get, post
from litestar import Response as HttpResponse
from litestar.params import Parameter
from litestar.response import Stream

from tenantry.platform.core import ids
from tenantry.platform.core.errors import InvalidInput
from tenantry.platform.core.paging import Limit
from tenantry.platform.core.policy import tenant, under
from tenantry.platform.gateway.routes import answer, request_id_of
from tenantry.platform.sessions import replies
from tenantry.platform.sessions.conversation_routes import AfterItem
from tenantry.platform.sessions.models import named
from tenantry.platform.sessions.requests import Order, ResponseRequest
from tenantry.platform.sessions.service import Sessions
from tenantry.platform.sessions.turns import Turns
from tenantry.platform.tenants.principal import Principal

_INFERENCE = under(tenant("inference"))
Id = Annotated[str, Parameter(description="resp_ and 32 hex digits.")]
Again = Annotated[bool, Parameter(query="stream", description="Not supported: streams cannot be read again.")]


@post("/responses", opt=_INFERENCE, status_code=200)
async def create_response(
    data: ResponseRequest, request: Request[Principal, Any, Any], principal: Principal, turns: Turns
) -> HttpResponse[Any] | Stream:
    opened = await turns.open(principal, data, request_id_of(request))
    return await answer(opened, data.streams, request)


@get("/responses/{response_id:str}", opt=_INFERENCE)
async def get_response(response_id: Id, principal: Principal, turns: Turns, again: Again = False) -> replies.Response:
    if again:
        raise InvalidInput("A response cannot be streamed again.", code="unsupported_parameter", param="stream")
    return await turns.retrieve(principal.tenant_id, named("response", response_id))


@delete("/responses/{response_id:str}", opt=_INFERENCE, status_code=200)
async def delete_response(response_id: Id, principal: Principal, sessions: Sessions) -> replies.Deleted:
    found = named("response", response_id)
    await sessions.delete_response(principal.tenant_id, found)
    return replies.Deleted(ids.to_text("response", found), "response")


@post("/responses/{response_id:str}/cancel", opt=_INFERENCE, status_code=200)
async def cancel_response(response_id: Id, principal: Principal, turns: Turns) -> replies.Response:
    return await turns.cancel(principal.tenant_id, named("response", response_id))


@get("/responses/{response_id:str}/input_items", opt=_INFERENCE)
async def list_input_items(
    response_id: Id,
    principal: Principal,
    sessions: Sessions,
    limit: Limit = 20,
    after: AfterItem = None,
    order: Order = "desc",
) -> replies.ItemList:
    begin = named("item", after, "after") if after is not None else None
    found = named("response", response_id)
    return replies.ItemList.of(*await sessions.input_items(principal.tenant_id, found, limit, begin, order))


router = Router(
    "/v1",
    route_handlers=[create_response, get_response, delete_response, cancel_response, list_input_items],
    tags=["responses"],
)
