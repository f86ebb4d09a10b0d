"""The closed request structs of /v1/chat/completions and /v1/completions.

Owns which fields exist, which are known and harmless to ignore, and which are refused by name. Numbers are
bounded in bounds.py; responses are in replies.py. Nothing is ignored that could change an answer.
"""

from typing import Any

import msgspec

from tenantry.platform.core.errors import InvalidInput
from tenantry.platform.gateway.cache_options import CacheOptions

MAX_MESSAGES = 2048
MAX_LABEL = 512
ROLES = ("system", "developer", "user", "assistant")

# Fields of OpenAI's own API, or of other servers, whose meaning cannot be honoured here: refused by name.
_TEMPLATE = "Chat templates are part of the base model and cannot be sent."
_REFUSED: dict[str, tuple[str, str]] = {
    "chat_template": ("template_not_allowed", _TEMPLATE),
    "chat_template_kwargs": ("template_not_allowed", _TEMPLATE),
    "audio": ("modality_not_supported", "Only text is supported."),
    "image": ("modality_not_supported", "Only text is supported."),
    **{
        name: ("unsupported_parameter", f"{name} is not supported.")
        for name in (
            "functions", "function_call", "prediction", "moderation", "reasoning_effort", "verbosity",
            "web_search_options", "cache_salt", "lora_path", "lora_request", "model_path",
            "extra_body", "custom_logit_processor", "logits_processors", "logit_processors", "prompt_embeds",
            "prompt_logprobs", "guided_json", "guided_regex", "guided_choice", "guided_grammar",
            "guided_decoding_backend", "guided_whitespace_pattern", "structured_outputs", "json_schema", "regex",
            "ebnf", "use_beam_search", "length_penalty", "early_stopping", "echo", "suffix", "best_of",
            "allowed_token_ids", "bad_words", "kv_transfer_params", "session_params",
        )
    },
}  # fmt: skip
# A client that spells out the default asks for nothing, so it is not refused.
_DEFAULTS: dict[str, tuple[Any, ...]] = {
    "echo": (False,), "suffix": ("",), "best_of": (1,), "use_beam_search": (False,), "length_penalty": (1, 1.0),
    "early_stopping": (False,), "chat_template_kwargs": ({},), "functions": ([],), "function_call": ("none",),
}  # fmt: skip


class StreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ResponseFormat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: str
    json_schema: dict[str, Any] | None = None
    schema: dict[str, Any] | None = None


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One turn. The trailing fields are null in what the `openai` client hands back; nothing else is supported."""

    role: str
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    refusal: None = None
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None
    tool_calls: list[Any] | None = None
    tool_call_id: str | None = None


class GenerationFields(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What both endpoints share. The second group is this field's common extensions, the third is ignored, the fourth
    says what shall be kept for the next request."""

    model: str
    max_tokens: int | None = None
    n: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    min_tokens: int | None = None
    ignore_eos: bool | None = None
    stop_token_ids: list[int] | None = None
    return_token_ids: bool | None = None
    speculate: bool | None = None
    priority: int | None = None

    user: str | None = None
    metadata: dict[str, str] | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_retention: str | None = None

    prompt_cache_key: str | None = None
    prompt_cache_options: CacheOptions | None = None

    @classmethod
    def screen(cls, fields: dict[str, Any]) -> dict[str, Any]:
        """Refuse by name before decoding; drops refused names that carry null or their own default."""
        kept = {}
        for name, value in fields.items():
            if name not in _REFUSED or name in cls.__struct_fields__:
                kept[name] = value
            elif value is not None and not _is_default(name, value):
                code, message = _REFUSED[name]
                raise InvalidInput(message, code=code, param=name)
        return kept

    @property
    def streams(self) -> bool:
        return self.stream is True

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage is True

    @property
    def prewarms(self) -> bool:
        """Nothing shall be generated."""
        return self.prompt_cache_options is not None and self.prompt_cache_options.prewarm is True

    def check_shared(self) -> None:
        if self.prompt_cache_options is not None:
            self.prompt_cache_options.check()
        if self.stream_options is not None and not self.streams:
            raise InvalidInput("stream_options needs stream: true.", code="invalid_value", param="stream_options")
        if self.service_tier not in (None, "auto", "default"):
            raise InvalidInput(
                "There is one service tier: default.", code="unsupported_parameter", param="service_tier"
            )
        for name in ("user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"):
            if len(getattr(self, name) or "") > MAX_LABEL:
                raise InvalidInput(f"{name} holds at most {MAX_LABEL} characters.", code="invalid_value", param=name)
        if self.metadata is not None and len(self.metadata) > 16:
            raise InvalidInput("metadata holds at most 16 entries.", code="invalid_value", param="metadata")


class ChatRequest(GenerationFields, frozen=True, forbid_unknown_fields=True, kw_only=True):
    messages: list[Message]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None

    store: bool | None = None
    parallel_tool_calls: bool | None = None
    tools: list[Any] | None = None
    tool_choice: str | None = None
    response_format: ResponseFormat | None = None
    modalities: list[str] | None = None

    def check(self) -> None:
        """Everything that needs no knowledge of the model. Raises InvalidInput."""
        self.check_shared()
        if self.tools or self.tool_choice not in (None, "none", "auto"):
            raise InvalidInput("Tools are not supported.", code="unsupported_parameter", param="tools")
        if self.response_format is not None and self.response_format.type != "text":
            raise InvalidInput(
                "Only the text format is supported.", code="unsupported_parameter", param="response_format"
            )
        if self.modalities not in (None, ["text"]):
            raise InvalidInput("Only text is supported.", code="modality_not_supported", param="modalities")
        if self.store:
            raise InvalidInput("Completions are never stored.", code="unsupported_parameter", param="store")
        if (
            None not in (self.max_tokens, self.max_completion_tokens)
            and self.max_tokens != self.max_completion_tokens
        ):
            raise InvalidInput(
                "max_tokens and max_completion_tokens disagree.", code="invalid_value", param="max_tokens"
            )
        self._check_messages()

    def _check_messages(self) -> None:
        if not 1 <= len(self.messages) <= MAX_MESSAGES:
            raise InvalidInput(f"messages holds 1 to {MAX_MESSAGES} turns.", code="invalid_value", param="messages")
        for i, message in enumerate(self.messages):
            at = f"messages[{i}]"
            if message.role == "tool" or message.tool_calls or message.tool_call_id is not None:
                raise InvalidInput("Tools are not supported.", code="unsupported_parameter", param=f"{at}.role")
            if message.role not in ROLES:
                raise InvalidInput(f"role is one of {', '.join(ROLES)}.", code="invalid_value", param=f"{at}.role")
            if message.name is not None:
                raise InvalidInput("name is not supported.", code="unsupported_parameter", param=f"{at}.name")
        if self.messages[-1].role == "assistant":
            raise InvalidInput("The last turn must not be the assistant's.", code="invalid_value", param="messages")

    @property
    def turns(self) -> list[dict[str, str]]:
        """(role, text) of every turn, for the chat template. Raises InvalidInput for anything but text."""
        return [
            {"role": "system" if m.role == "developer" else m.role, "content": _text(m.content, f"messages[{i}]")}
            for i, m in enumerate(self.messages)
        ]


class CompletionRequest(GenerationFields, frozen=True, forbid_unknown_fields=True, kw_only=True):
    prompt: str | list[str | int | list[int]]
    logprobs: int | None = None

    def check(self) -> None:
        """Everything that needs no knowledge of the model. Raises InvalidInput."""
        self.check_shared()
        self.single_prompt  # noqa: B018 - raises for batches

    @property
    def single_prompt(self) -> str | list[int]:
        """Text or token ids. Raises InvalidInput for batches and mixtures."""
        prompt = self.prompt
        if isinstance(prompt, str):
            return prompt
        if len(prompt) == 1 and not isinstance(prompt[0], int):
            return prompt[0]
        if any(isinstance(part, (str, list)) for part in prompt):
            raise InvalidInput(
                "One prompt per request: batches are not supported.", code="unsupported_parameter", param="prompt"
            )
        return [part for part in prompt if isinstance(part, int)]


def _is_default(name: str, value: Any) -> bool:
    return any(type(value) is type(default) and value == default for default in _DEFAULTS.get(name, ()))


def _text(content: str | list[dict[str, Any]] | None, at: str) -> str:
    if isinstance(content, str):
        return content
    if not content:
        raise InvalidInput("content must be text.", code="invalid_value", param=f"{at}.content")
    parts: list[str] = []
    for i, part in enumerate(content):
        where = f"{at}.content[{i}]"
        if part.get("type") != "text":
            raise InvalidInput("Only text parts are supported.", code="modality_not_supported", param=f"{where}.type")
        if set(part) != {"type", "text"} or not isinstance(part["text"], str):
            raise InvalidInput("A text part holds type and text.", code="invalid_value", param=where)
        parts.append(part["text"])
    return "".join(parts)
