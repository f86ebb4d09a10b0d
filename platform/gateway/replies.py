"""The response structs of the two completion endpoints, shaped as the `openai` client's own types.

Owns the shapes and the pre-encoded bytes of one server-sent event. Must not know requests, tenants or engines.
Extensions beyond OpenAI's: token_ids and prompt_token_ids, present only when return_token_ids was asked.
"""

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from tenantry.runtime.messages import Usage

FinishWord = Literal["stop", "length"]
DONE = b"data: [DONE]\n\n"
_encoder = msgspec.json.Encoder()


class PromptTokensDetails(msgspec.Struct, frozen=True):
    """Of the cached tokens, x_ says how many came back from lower tiers; the device had the others."""

    cached_tokens: int
    x_cached_host_tokens: int = 0
    x_cached_disk_tokens: int = 0


class CompletionTokensDetails(msgspec.Struct, frozen=True):
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0
    reasoning_tokens: int = 0


class UsageReply(msgspec.Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails

    @classmethod
    def of(cls, usage: Usage) -> "UsageReply":
        """Predictions are the engine's own guesses: the client predicted none."""
        return cls(
            prompt_tokens=usage.prompt,
            completion_tokens=usage.completion,
            total_tokens=usage.prompt + usage.completion,
            prompt_tokens_details=PromptTokensDetails(usage.cached, usage.cached_host, usage.cached_disk),
            completion_tokens_details=CompletionTokensDetails(
                accepted_prediction_tokens=usage.accepted, rejected_prediction_tokens=usage.rejected
            ),
        )


class TopLogprob(msgspec.Struct, frozen=True):
    token: str
    bytes: list[int] | None
    logprob: float


class ChatTokenLogprob(msgspec.Struct, frozen=True):
    token: str
    bytes: list[int] | None
    logprob: float
    top_logprobs: list[TopLogprob]


class ChatLogprobs(msgspec.Struct, frozen=True):
    content: list[ChatTokenLogprob]
    refusal: None = None


class TextLogprobs(msgspec.Struct, frozen=True):
    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] | None
    text_offset: list[int]


class ChatMessage(msgspec.Struct, frozen=True):
    content: str
    role: str = "assistant"
    refusal: None = None


class ChatChoice(msgspec.Struct, frozen=True):
    index: int
    message: ChatMessage
    finish_reason: FinishWord
    logprobs: ChatLogprobs | None = None
    token_ids: list[int] | UnsetType = UNSET


class ChatCompletion(msgspec.Struct, frozen=True):
    id: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: UsageReply
    object: Literal["chat.completion"] = "chat.completion"
    system_fingerprint: str | None = None
    prompt_token_ids: list[int] | UnsetType = UNSET


class Delta(msgspec.Struct, frozen=True, omit_defaults=True):
    role: str | None = None
    content: str | None = None


class ChatChunkChoice(msgspec.Struct, frozen=True):
    index: int
    delta: Delta
    finish_reason: FinishWord | None = None
    logprobs: ChatLogprobs | None = None
    token_ids: list[int] | UnsetType = UNSET


class ChatChunk(msgspec.Struct, frozen=True):
    id: str
    created: int
    model: str
    choices: list[ChatChunkChoice]
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    system_fingerprint: str | None = None
    usage: UsageReply | UnsetType | None = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET


class TextChoice(msgspec.Struct, frozen=True):
    index: int
    text: str
    finish_reason: FinishWord | None
    logprobs: TextLogprobs | None = None
    token_ids: list[int] | UnsetType = UNSET


class TextCompletion(msgspec.Struct, frozen=True):
    """Also the shape of a streamed chunk: OpenAI uses one object for both."""

    id: str
    created: int
    model: str
    choices: list[TextChoice]
    object: Literal["text_completion"] = "text_completion"
    system_fingerprint: str | None = None
    usage: UsageReply | UnsetType | None = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET


def event(reply: object) -> bytes:
    """One server-sent event. JSON holds no raw newline, so one data line is always enough."""
    return b"data: " + _encoder.encode(reply) + b"\n\n"
