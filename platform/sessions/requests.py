"""The closed request structs of /v1/conversations and /v1/responses.

Owns which fields exist and which are refused by name. Numbers are bounded where chat's are: a response is a chat
whose history is kept here, so it becomes a ChatRequest (see asked()).
"""

from typing import Any, Literal

import msgspec

from tenantry.platform.core.errors import InvalidInput
from tenantry.platform.gateway.cache_options import CacheOptions
from tenantry.platform.gateway.openai import ChatRequest, Message, StreamOptions
from tenantry.platform.sessions.models import Policy

MAX_METADATA, MAX_METADATA_KEY, MAX_METADATA_VALUE = 16, 64, 512
LOGPROBS = "message.output_text.logprobs"
# Of OpenAI's own API, with the one or two values that ask for nothing.
_REFUSED: dict[str, tuple[Any, ...]] = {
    "access_programs": (), "background": (False,), "context_management": ([],), "image": (), "max_tool_calls": (),
    "moderation": (), "prompt": (), "reasoning": ({}, {"effort": None}, {"effort": "none"}),
    "tools": ([],), "tool_choice": ("auto", "none"), "truncation": ("disabled",), "generate": (True,),
}  # fmt: skip
_PLAIN_TEXT = ({"type": "text"}, None)
# How chat calls what responses call otherwise.
RENAMED = {"max_completion_tokens": "max_output_tokens", "max_tokens": "max_output_tokens", "messages": "input"}


class TextConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: dict[str, Any] | None = None
    verbosity: str | None = None


class ConversationRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str


class ResponseRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """POST /v1/responses. The second group is accepted and changes nothing, the third says what is kept for the next
    turn and holds extensions of ours.

    x_version_policy: of the session that this begins: `pin` stays on the adapter version that answers first, `follow`
    goes where the alias goes.
    """

    model: str
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    previous_response_id: str | None = None
    conversation: str | ConversationRef | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    include: list[str] | None = None
    metadata: dict[str, str] | None = None
    text: TextConfig | None = None

    user: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    parallel_tool_calls: bool | None = None
    prompt_cache_retention: str | None = None

    prompt_cache_key: str | None = None
    prompt_cache_options: CacheOptions | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    min_tokens: int | None = None
    ignore_eos: bool | None = None
    speculate: bool | None = None
    priority: int | None = None
    x_version_policy: Policy | None = None

    @classmethod
    def screen(cls, fields: dict[str, Any]) -> dict[str, Any]:
        """Refuse by name before decoding; drops refused names that ask for nothing."""
        for name, harmless in _REFUSED.items():
            value = fields.get(name)
            if value is not None and not any(type(value) is type(one) and value == one for one in harmless):
                raise _unsupported(name)
        return {name: value for name, value in fields.items() if name not in _REFUSED}

    @property
    def streams(self) -> bool:
        return self.stream is True

    @property
    def stored(self) -> bool:
        """Whether it becomes a turn. What is only prewarmed is said later."""
        return self.store is not False and not self.prewarms

    @property
    def conversation_id(self) -> str | None:
        return self.conversation.id if isinstance(self.conversation, ConversationRef) else self.conversation

    @property
    def prewarms(self) -> bool:
        return self.prompt_cache_options is not None and self.prompt_cache_options.prewarm is True

    @property
    def wants_logprobs(self) -> bool:
        return LOGPROBS in (self.include or ())

    def check(self) -> None:
        """Everything that needs neither the model nor the history. Raises InvalidInput."""
        if self.previous_response_id is not None and self.conversation is not None:
            raise _conflict("previous_response_id and conversation exclude each other.", "previous_response_id")
        if self.conversation is not None and self.store is False:
            raise _conflict("A turn of a conversation is stored: leave out store: false.", "store")
        if self.x_version_policy is not None and (self.previous_response_id or self.conversation is not None):
            raise _conflict("The policy is chosen where a session begins.", "x_version_policy")
        if self.stream_options is not None and not self.streams:
            raise _conflict("stream_options needs stream: true.", "stream_options")
        if self.top_logprobs and not self.wants_logprobs:
            raise _conflict(f"top_logprobs needs {LOGPROBS} in include.", "top_logprobs")
        for name in self.include or ():
            if name != LOGPROBS:
                raise InvalidInput(f"Only {LOGPROBS} can be included.", code="unsupported_parameter", param="include")
        if self.text is not None and self.text.format not in _PLAIN_TEXT:
            raise _unsupported("text.format")
        if self.text is not None and self.text.verbosity not in (None, "medium"):
            raise _unsupported("text.verbosity")
        check_metadata(self.metadata)
        for name in ("user", "safety_identifier", "prompt_cache_key"):
            if "\0" in (getattr(self, name) or ""):
                raise InvalidInput(f"{name} must not hold a NUL.", code="invalid_value", param=name)

    def asked(self, turns: list[tuple[str, str]]) -> ChatRequest:
        """The same as a chat: `turns` is all that was said, what is said now included."""
        return ChatRequest(
            model=self.model,
            messages=[Message(role, text) for role, text in turns],
            max_completion_tokens=self.max_output_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            logprobs=self.wants_logprobs or None,
            top_logprobs=self.top_logprobs or None,
            stream=self.stream,
            user=self.user,
            service_tier=self.service_tier,
            safety_identifier=self.safety_identifier,
            prompt_cache_key=self.prompt_cache_key,
            prompt_cache_options=self.prompt_cache_options,
            prompt_cache_retention=self.prompt_cache_retention,
            top_k=self.top_k,
            min_p=self.min_p,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            repetition_penalty=self.repetition_penalty,
            logit_bias=self.logit_bias,
            seed=self.seed,
            stop=self.stop,
            stop_token_ids=self.stop_token_ids,
            min_tokens=self.min_tokens,
            ignore_eos=self.ignore_eos,
            speculate=self.speculate,
            priority=self.priority,
        )


class ConversationCreate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    items: list[dict[str, Any]] | None = None
    metadata: dict[str, str] | None = None
    x_version_policy: Policy = "pin"


class ConversationUpdate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    metadata: dict[str, str] | None
    x_version_policy: Policy | None = None


class ItemsCreate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    items: list[dict[str, Any]]


Order = Literal["asc", "desc"]


def check_metadata(metadata: dict[str, str] | None) -> None:
    """Raises InvalidInput beyond 16 pairs of 64 and 512 characters, and for a NUL."""
    pairs = metadata or {}
    if any("\0" in text for pair in pairs.items() for text in pair):
        raise InvalidInput("metadata must not hold a NUL.", code="invalid_value", param="metadata")
    if len(pairs) > MAX_METADATA or any(
        len(key) > MAX_METADATA_KEY or len(value) > MAX_METADATA_VALUE for key, value in pairs.items()
    ):
        raise InvalidInput(
            f"metadata holds at most {MAX_METADATA} pairs, keys of {MAX_METADATA_KEY} and values of "
            f"{MAX_METADATA_VALUE} characters.",
            code="invalid_value", param="metadata",
        )  # fmt: skip


def _unsupported(name: str) -> InvalidInput:
    return InvalidInput(f"{name} is not supported.", code="unsupported_parameter", param=name)


def _conflict(message: str, param: str) -> InvalidInput:
    return InvalidInput(message, code="invalid_value", param=param)
