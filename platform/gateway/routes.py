"""/v1: models, chat completions and completions, as OpenAI's clients expect them.

Owns the mapping between HTTP and the chat service. The body of a stream is a pure reader of a run that the process
owns: nothing here is metered, and nothing here can lose a settlement.
"""

from typing import Any
from uuid import UUID

from litestar import Request, Response, Router, get, post
from litestar.background_tasks import BackgroundTask
from litestar.response import Stream

from tenantry.platform.core import ids
from tenantry.platform.core.errors import NotFound
from tenantry.platform.core.policy import tenant, under
from tenantry.platform.gateway.chat import ChatService, Opened
from tenantry.platform.gateway.openai import ChatRequest, CompletionRequest
from tenantry.platform.gateway.schemas import AdapterOf, ModelList, ModelView
from tenantry.platform.registry.service import Registry
from tenantry.platform.tenants.principal import Principal

_INFERENCE = under(tenant("inference"))
_STREAM_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


@get("/models", opt=_INFERENCE)
async def list_models(principal: Principal, registry: Registry) -> ModelList:
    """The base model and the tenant's own adapters; nobody else's."""
    return ModelList(await _models(principal, registry))


@get("/models/{model:str}", opt=_INFERENCE)
async def get_model(model: str, principal: Principal, registry: Registry) -> ModelView:
    for view in await _models(principal, registry):
        if view.id == model:
            return view
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


async def _models(principal: Principal, registry: Registry) -> list[ModelView]:
    base = registry.base
    base_id = ids.to_text("base", base.id)
    created = base.id.int >> 80  # a uuidv7 begins with its milliseconds
    views = [ModelView(base.name, created // 1000, "tenantry", base_id)]
    for name, version in await registry.callable_models(principal.tenant_id):
        assert version.digest is not None, "only ready versions have aliases that answer"
        views.append(
            ModelView(
                name, int(version.created_at.timestamp()), principal.tenant_name, base_id,
                AdapterOf(base.name, version.number, version.digest.hex()),
            )
        )  # fmt: skip
    return views


router = Router("/v1", route_handlers=[list_models, get_model, chat_completions, completions], tags=["inference"])
