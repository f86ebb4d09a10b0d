"""/v1/conversations: conversations and their items, as OpenAI's clients expect them.

Owns the mapping between HTTP and the sessions service.
"""

from typing import Annotated

from litestar import Router, delete, get, post
from litestar.params import Parameter

from tenantry.platform.core import ids
from tenantry.platform.core.paging import Limit
from tenantry.platform.core.policy import tenant, under
from tenantry.platform.sessions import items, replies
from tenantry.platform.sessions.models import named
from tenantry.platform.sessions.requests import (
    ConversationCreate,
    ConversationUpdate,
    ItemsCreate,
    Order,
    check_metadata,
)
from tenantry.platform.sessions.service import MAX_NEW_ITEMS, Sessions
from tenantry.platform.tenants.principal import Principal

_INFERENCE = under(tenant("inference"))
Id = Annotated[str, Parameter(description="conv_ and 32 hex digits.")]
ItemId = Annotated[str, Parameter(description="msg_ and 32 hex digits.")]
AfterItem = Annotated[str | None, Parameter(description="The last item of the page before.")]


@post("/conversations", opt=_INFERENCE, status_code=200)
async def create_conversation(
    data: ConversationCreate, principal: Principal, sessions: Sessions
) -> replies.Conversation:
    check_metadata(data.metadata)
    new = items.read(data.items, "items", MAX_NEW_ITEMS) if data.items else []
    session = await sessions.create(principal.tenant_id, new, data.metadata or {}, data.x_version_policy)
    return replies.Conversation.of(session)


@get("/conversations/{conversation_id:str}", opt=_INFERENCE)
async def get_conversation(conversation_id: Id, principal: Principal, sessions: Sessions) -> replies.Conversation:
    found = await sessions.conversation(principal.tenant_id, named("conversation", conversation_id))
    return replies.Conversation.of(found)


@post("/conversations/{conversation_id:str}", opt=_INFERENCE, status_code=200)
async def update_conversation(
    conversation_id: Id, data: ConversationUpdate, principal: Principal, sessions: Sessions
) -> replies.Conversation:
    check_metadata(data.metadata)
    session_id = named("conversation", conversation_id)
    changed = await sessions.update(principal.tenant_id, session_id, data.metadata or {}, data.x_version_policy)
    return replies.Conversation.of(changed)


@delete("/conversations/{conversation_id:str}", opt=_INFERENCE, status_code=200)
async def delete_conversation(conversation_id: Id, principal: Principal, sessions: Sessions) -> replies.Deleted:
    session_id = named("conversation", conversation_id)
    await sessions.delete(principal.tenant_id, session_id, "conversation")
    return replies.Deleted(ids.to_text("conversation", session_id), "conversation.deleted")


@post("/conversations/{conversation_id:str}/items", opt=_INFERENCE, status_code=200)
async def create_items(
    conversation_id: Id, data: ItemsCreate, principal: Principal, sessions: Sessions
) -> replies.ItemList:
    new = items.read(data.items, "items", MAX_NEW_ITEMS)
    await sessions.add_items(principal.tenant_id, named("conversation", conversation_id), new)
    return replies.ItemList.of(new, False)


@get("/conversations/{conversation_id:str}/items", opt=_INFERENCE)
async def list_items(
    conversation_id: Id,
    principal: Principal,
    sessions: Sessions,
    limit: Limit = 20,
    after: AfterItem = None,
    order: Order = "desc",
) -> replies.ItemList:
    begin = named("item", after, "after") if after is not None else None
    session_id = named("conversation", conversation_id)
    return replies.ItemList.of(*await sessions.items(principal.tenant_id, session_id, limit, begin, order))


@get("/conversations/{conversation_id:str}/items/{item_id:str}", opt=_INFERENCE)
async def get_item(conversation_id: Id, item_id: ItemId, principal: Principal, sessions: Sessions) -> items.Message:
    session_id = named("conversation", conversation_id)
    return items.Message.of(await sessions.item(principal.tenant_id, session_id, named("item", item_id)))


@delete("/conversations/{conversation_id:str}/items/{item_id:str}", opt=_INFERENCE, status_code=200)
async def delete_item(
    conversation_id: Id, item_id: ItemId, principal: Principal, sessions: Sessions
) -> replies.Conversation:
    session_id = named("conversation", conversation_id)
    left = await sessions.delete_item(principal.tenant_id, session_id, named("item", item_id))
    return replies.Conversation.of(left)


router = Router(
    "/v1",
    route_handlers=[
        create_conversation, get_conversation, update_conversation, delete_conversation, create_items, list_items,
        get_item, delete_item,
    ],
    tags=["conversations"],
)  # fmt: skip
