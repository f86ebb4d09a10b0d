"""/v1: models, chat completions and completions, as OpenAI's clients expect them.

Owns the mapping between HTTP and the chat service. The body of a stream is a pure reader of a run that the process
owns: nothing here is metered, and nothing here can lose a settlement.
"""

from typing import Annotated, Any, Final
from uuid import UUID

from litestar import Request, Response, Router, get, post
from litestar.background_tasks import BackgroundTask
from litestar.params import Parameter
from litestar.response import Stream

from tenantry.platform.core import ids
from tenantry.platform.core.errors import NotFound
from tenantry.platform.core.paging import cut
from tenantry.platform.core.policy import tenant, under
from tenantry.platform.gateway.chat import ChatService, Opened
from tenantry.platform.gateway.openai import ChatRequest, CompletionRequest
from tenantry.platform.gateway.schemas import AdapterOf, ModelList, ModelView
from tenantry.platform.registry.models import Version
from tenantry.platform.registry.service import Registry
from tenantry.platform.tenants.principal import Principal

_INFERENCE = under(tenant("inference"))
MAX_MODELS: Final = 1000
ModelLimit = Annotated[int, Parameter(ge=1, le=MAX_MODELS, description="Most adapters in the answer.")]
AfterModel = Annotated[str | None, Parameter(max_length=200, description="The `next` of the page before.")]
PartOfName = Annotated[str | None, Parameter(max_length=63, description="Part of a name.")]
_STREAM_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


@get("/models", opt=_INFERENCE)
async def list_models(
    principal: Principal,
    registry: Registry,
    limit: ModelLimit = MAX_MODELS,
    after: AfterModel = None,
    name: PartOfName = None,
) -> ModelList:
    """The base model and the tenant's own adapters, by name; nobody else's."""
    found = await registry.callable_models(principal.tenant_id, limit + 1, after, name or None)
    rows, more = cut([_adapter_model(principal, registry, *one) for one in found], limit)
    base = [_base_model(registry)] if after is None and (name or "") in registry.base.name else []
    return ModelList(base + rows, more, rows[-1].id if more else None)


@get("/models/{model:str}", opt=_INFERENCE)
async def get_model(model: str, principal: Principal, registry: Registry) -> ModelView:
    if model == registry.base.name:
        return _base_model(registry)
    adapter = model.partition("@")[0]
    for one in await registry.callable_models(principal.tenant_id, MAX_MODELS, name=adapter):
        if one[0] == model:
            return _adapter_model(principal, registry, *one)
    raise NotFound("There is no such model, or this key may not use it.", code="model_not_found", param="model")


@post("/chat/completions", opt=_INFERENCE, status_code=200)
async def chat_completions(
    data: ChatRequest, request: Request[Principal, Any, Any], principal: Principal, chat: ChatService
) -> Response[Any] | Stream:
    return await _answer(data, request, principal, chat)


@post("/completions", opt=_INFERENCE, status_code=200)
async def completions(
    data: CompletionRequest, request: Request[Principal, Any, Any], principal: Principal, chat: ChatService
) -> Response[Any] | Stream:
    return await _answer(data, request, principal, chat)


async def _answer(
    data: ChatRequest | CompletionRequest,
    request: Request[Principal, Any, Any],
    principal: Principal,
    chat: ChatService,
) -> Response[Any] | Stream:
    opened = await chat.open(principal, data, request_id_of(request))
    return await answer(opened, data.streams, request)


def request_id_of(request: Request[Principal, Any, Any]) -> UUID:
    """The id that the edge gave this request; an admitted one goes by it in the books as well."""
    return ids.from_text("request", request.scope["state"]["request_id"])


async def answer(opened: Opened, streams: bool, request: Request[Principal, Any, Any]) -> Response[Any] | Stream:
    """The reply of a run: whole, or as a stream that only reads."""
    run = opened.run
    if not streams:
        return Response(await run.whole(request.receive), media_type="application/json", headers=opened.headers)
    await run.start_of_stream(request.receive)
    # litestar runs the background task however the response ends, so a disconnect before the first read counts too
    return Stream(
        run.frames(),
        media_type="text/event-stream",
        headers={**_STREAM_HEADERS, **opened.headers},
        background=BackgroundTask(run.left),
    )


def _base_model(registry: Registry) -> ModelView:
    base = registry.base
    created = base.id.int >> 80  # a uuidv7 begins with its milliseconds
    return ModelView(base.name, created // 1000, "tenantry", ids.to_text("base", base.id))


def _adapter_model(principal: Principal, registry: Registry, name: str, version: Version) -> ModelView:
    assert version.digest is not None, "only ready versions have aliases that answer"
    return ModelView(
        name, int(version.created_at.timestamp()), principal.tenant_name, ids.to_text("base", registry.base.id),
        AdapterOf(registry.base.name, version.number, version.digest.hex()),
    )  # fmt: skip


router = Router("/v1", route_handlers=[list_models, get_model, chat_completions, completions], tags=["inference"])
