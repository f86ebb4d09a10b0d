"""What /v1/conversations and /v1/responses answer, shaped as the `openai` client's own types.

Owns the shapes. Extensions of ours begin with x_: x_session says which session a response belongs to, which policy it
has and which adapter version answered.
"""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from tenantry.platform.core import ids
from tenantry.platform.gateway.cache_options import Ttl
from tenantry.platform.sessions.items import Message
from tenantry.platform.sessions.models import Counts, Item, Kind, Policy, Session, Version


class SessionView(msgspec.Struct, frozen=True):
    """version, digest: of the adapter; null for the base model alone."""

    id: str
    kind: Kind
    version_policy: Policy
    model: str | None
    version: int | None
    digest: str | None

    @classmethod
    def of(cls, session: Session) -> "SessionView":
        return view_of(session.id, session.kind, session.policy, session.model, session.version)


def view_of(session_id: Any, kind: Kind, policy: Policy, model: str | None, version: Version | None) -> SessionView:
    return SessionView(
        ids.to_text("session", session_id), kind, policy, model,
        version.number if version else None, version.digest.hex() if version else None,
    )  # fmt: skip


class Conversation(msgspec.Struct, frozen=True):
    id: str
    created_at: int
    metadata: dict[str, str]
    x_session: SessionView
    object: Literal["conversation"] = "conversation"

    @classmethod
    def of(cls, session: Session) -> "Conversation":
        return cls(
            ids.to_text("conversation", session.id), int(session.created_at.timestamp()), session.metadata,
            SessionView.of(session),
        )  # fmt: skip


class Deleted(msgspec.Struct, frozen=True):
    id: str
    object: str
    deleted: bool = True


class ItemList(msgspec.Struct, frozen=True):
    """first_id and last_id are empty text where there are no items: the client's type wants text."""

    data: list[Message]
    has_more: bool
    first_id: str
    last_id: str
    object: Literal["list"] = "list"

    @classmethod
    def of(cls, items: Sequence[Item], has_more: bool) -> "ItemList":
        data = [Message.of(item) for item in items]
        return cls(data, has_more, data[0].id if data else "", data[-1].id if data else "")


class InputTokensDetails(msgspec.Struct, frozen=True):
    """cache_write_tokens is 0: keeping a prefix costs nothing here. x_: those of the cached tokens that came back
    from host memory, and from disk; the device had the others."""

    cached_tokens: int
    x_cached_host_tokens: int = 0
    x_cached_disk_tokens: int = 0
    cache_write_tokens: int = 0


class OutputTokensDetails(msgspec.Struct, frozen=True):
    reasoning_tokens: int = 0


class Usage(msgspec.Struct, frozen=True):
    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()

    @classmethod
    def of(cls, counts: Counts) -> "Usage":
        details = InputTokensDetails(counts.cached, counts.cached_host, counts.cached_disk)
        return cls(counts.prompt, counts.completion, counts.prompt + counts.completion, details)


class ConversationOf(msgspec.Struct, frozen=True):
    id: str


class Reason(msgspec.Struct, frozen=True):
    reason: Literal["max_output_tokens"] = "max_output_tokens"


class Failure(msgspec.Struct, frozen=True):
    """code: the client's type knows server_error among others; ours is told beside it."""

    message: str
    x_code: str
    code: Literal["server_error"] = "server_error"


ResponseStatus = Literal["completed", "incomplete", "in_progress", "failed", "cancelled"]


class CacheApplied(msgspec.Struct, frozen=True):
    ttl: Ttl
    mode: Literal["implicit"] = "implicit"
    pin: bool = False


class Echo(msgspec.Struct, frozen=True, kw_only=True):
    """How a response was asked for, as every reply repeats it and as it is stored."""

    model: str
    instructions: str | None
    metadata: dict[str, str]
    temperature: float
    top_p: float
    max_output_tokens: int | None
    top_logprobs: int
    user: str | None
    safety_identifier: str | None
    prompt_cache_key: str | None
    prompt_cache_options: CacheApplied | None = None


class TextFormat(msgspec.Struct, frozen=True):
    type: Literal["text"] = "text"


class Text(msgspec.Struct, frozen=True):
    format: TextFormat = TextFormat()


class Response(Echo, frozen=True, kw_only=True):
    id: str
    created_at: int
    status: ResponseStatus
    output: list[Message]
    store: bool
    previous_response_id: str | None
    conversation: ConversationOf | None
    x_session: SessionView | None
    completed_at: int | None = None
    error: Failure | None = None
    incomplete_details: Reason | None = None
    usage: Usage | None = None
    object: Literal["response"] = "response"
    background: bool = False
    parallel_tool_calls: bool = True
    tool_choice: Literal["auto"] = "auto"
    tools: list[str] = []
    truncation: Literal["disabled"] = "disabled"
    text: Text = Text()
    service_tier: Literal["default"] = "default"


class StreamEvent(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One event of a streamed response; which fields it has depends on its type."""

    type: str
    sequence_number: int
    response: Response | UnsetType = UNSET
    output_index: int | UnsetType = UNSET
    content_index: int | UnsetType = UNSET
    item_id: str | UnsetType = UNSET
    item: Message | UnsetType = UNSET
    part: dict[str, Any] | UnsetType = UNSET
    delta: str | UnsetType = UNSET
    text: str | UnsetType = UNSET
    logprobs: list[dict[str, Any]] | UnsetType = UNSET
