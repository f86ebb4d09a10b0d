"""Every number a client may send, bounded against the real model before anything is tokenised or queued.

Owns the limits and the translation from request fields to runtime.Sampling. The engine checks again: it never
trusts a gateway.
"""

import secrets
from dataclasses import dataclass
from typing import NoReturn

from tenantry.platform.core.errors import InvalidInput
from tenantry.platform.gateway.openai import ChatRequest, CompletionRequest, GenerationFields
from tenantry.runtime.messages import Sampling

MAX_CHOICES = 8
MAX_TOP_LOGPROBS = 20
MAX_LOGIT_BIAS = 1024
MAX_STOPS = 4
MAX_STOP_BYTES = 256
MAX_STOP_IDS = 64
MAX_FAN_OUT = 1 << 19
MAX_PRIORITY = 100
GREEDY_BELOW = 1e-6
_INT64 = 1 << 63


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """What the loaded model can take. vocab_size: ids the tokenizer knows, without the padding rows of the output
    matrix. context: prompt and completion together. control: ids of special tokens."""

    vocab_size: int
    context: int
    default_max_tokens: int = 512
    control: frozenset[int] = frozenset()


def check_numbers(request: ChatRequest | CompletionRequest, limits: ModelLimits) -> None:
    """Refuse out-of-range fields by name. Raises InvalidInput."""
    _between("n", request.n, 1, MAX_CHOICES)
    _between(*_max_tokens_field(request), 1, limits.context)
    _between("min_tokens", request.min_tokens, 0, limits.context)
    _between("temperature", request.temperature, 0.0, 2.0)
    _between("top_p", request.top_p, 0.0, 1.0)
    _between("min_p", request.min_p, 0.0, 1.0)
    _between("top_k", request.top_k, -1, limits.vocab_size)
    _between("presence_penalty", request.presence_penalty, -2.0, 2.0)
    _between("frequency_penalty", request.frequency_penalty, -2.0, 2.0)
    _between("repetition_penalty", request.repetition_penalty, 0.01, 10.0)
    _between("seed", request.seed, -_INT64, _INT64 - 1)
    _between("priority", request.priority, -MAX_PRIORITY, MAX_PRIORITY)
    if request.top_p == 0:
        _out_of_range("top_p", "must be greater than 0")
    _check_stop(request, limits)
    _logit_bias(request, limits)
    _logprobs(request)


def check_ids(ids: list[int], limits: ModelLimits, control_allowed: bool) -> None:
    """Refuse ids the tokenizer does not know, and control ids without the right to send them."""
    for i, token in enumerate(ids):
        if not 0 <= token < limits.vocab_size:
            _out_of_range(f"prompt[{i}]", f"token ids lie in 0..{limits.vocab_size - 1}")
        if not control_allowed and token in limits.control:
            raise InvalidInput("This key may not send control tokens.", code="control_token", param=f"prompt[{i}]")


def sampling(request: ChatRequest | CompletionRequest, prompt_tokens: int, limits: ModelLimits) -> Sampling:
    """The engine's view of a checked request, with max_tokens fitted to what the prompt leaves.

    Raises InvalidInput (context_length_exceeded, or by the field at fault).
    """
    prompt_field = "messages" if isinstance(request, ChatRequest) else "prompt"
    if prompt_tokens == 0:
        raise InvalidInput("The prompt holds no tokens.", code="invalid_value", param=prompt_field)
    room = limits.context - prompt_tokens
    if room < 1:
        too_long(prompt_field, f"the prompt alone holds {prompt_tokens}", limits)
    field, asked = _max_tokens_field(request)
    max_tokens = asked if asked is not None else min(limits.default_max_tokens, room)
    if max_tokens > room:
        too_long(field, f"the prompt's {prompt_tokens} and {max_tokens} to generate do not fit", limits)
    if (request.min_tokens or 0) > max_tokens:
        _out_of_range("min_tokens", "must not exceed max_tokens")
    n, logprobs = request.n or 1, _logprobs(request)
    if n * max_tokens * (1 + (logprobs or 0)) > MAX_FAN_OUT:
        _out_of_range("n", f"n × max_tokens × (1 + logprobs) must not exceed {MAX_FAN_OUT}")
    temperature = 1.0 if request.temperature is None else request.temperature
    return Sampling(
        max_tokens=max_tokens,
        min_tokens=request.min_tokens or 0,
        n=n,
        temperature=temperature if temperature >= GREEDY_BELOW else 0.0,
        top_p=1.0 if request.top_p is None else request.top_p,
        top_k=max(0, request.top_k or 0),
        min_p=request.min_p or 0.0,
        presence_penalty=request.presence_penalty or 0.0,
        frequency_penalty=request.frequency_penalty or 0.0,
        repetition_penalty=1.0 if request.repetition_penalty is None else request.repetition_penalty,
        logit_bias=_logit_bias(request, limits),
        seed=secrets.randbits(63) if request.seed is None else request.seed,
        stop=_stops(request),
        stop_token_ids=tuple(request.stop_token_ids or ()),
        ignore_eos=bool(request.ignore_eos),
        logprobs=logprobs,
    )


def _max_tokens_field(request: ChatRequest | CompletionRequest) -> tuple[str, int | None]:
    if isinstance(request, ChatRequest) and request.max_completion_tokens is not None:
        return "max_completion_tokens", request.max_completion_tokens
    return "max_tokens", request.max_tokens


def _between(field: str, value: float | None, low: float, high: float) -> None:
    """NaN and infinities are outside of every range."""
    if value is not None and not low <= value <= high:
        _out_of_range(field, f"must lie between {low} and {high}")


def _out_of_range(field: str, message: str) -> NoReturn:
    raise InvalidInput(f"{field}: {message}.", code="out_of_range", param=field)


def too_long(field: str, why: str, limits: ModelLimits) -> NoReturn:
    """Raises context_length_exceeded."""
    raise InvalidInput(
        f"The context holds {limits.context} tokens; {why}.", code="context_length_exceeded", param=field
    )


def _stops(request: GenerationFields) -> tuple[str, ...]:
    if request.stop is None:
        return ()
    return (request.stop,) if isinstance(request.stop, str) else tuple(request.stop)


def _check_stop(request: GenerationFields, limits: ModelLimits) -> None:
    stops = _stops(request)
    if len(stops) > MAX_STOPS:
        _out_of_range("stop", f"holds at most {MAX_STOPS} strings")
    if any(not 1 <= len(stop.encode()) <= MAX_STOP_BYTES for stop in stops):
        _out_of_range("stop", f"each string holds 1 to {MAX_STOP_BYTES} bytes")
    ids = request.stop_token_ids or []
    if len(ids) > MAX_STOP_IDS:
        _out_of_range("stop_token_ids", f"holds at most {MAX_STOP_IDS} ids")
    if any(not 0 <= token < limits.vocab_size for token in ids):
        _out_of_range("stop_token_ids", f"token ids lie in 0..{limits.vocab_size - 1}")


def _logit_bias(request: GenerationFields, limits: ModelLimits) -> tuple[tuple[int, float], ...]:
    bias = request.logit_bias or {}
    if len(bias) > MAX_LOGIT_BIAS:
        _out_of_range("logit_bias", f"holds at most {MAX_LOGIT_BIAS} entries")
    pairs = []
    for key, value in bias.items():
        token = int(key) if key.isascii() and key.isdigit() and len(key) <= 9 else -1
        if not 0 <= token < limits.vocab_size or str(token) != key:
            _out_of_range("logit_bias", f"keys are token ids in 0..{limits.vocab_size - 1}")
        _between("logit_bias", value, -100.0, 100.0)
        pairs.append((token, value))
    return tuple(pairs)


def _logprobs(request: ChatRequest | CompletionRequest) -> int | None:
    if isinstance(request, CompletionRequest):
        _between("logprobs", request.logprobs, 0, MAX_TOP_LOGPROBS)
        return request.logprobs
    _between("top_logprobs", request.top_logprobs, 0, MAX_TOP_LOGPROBS)
    if request.top_logprobs is not None and not request.logprobs:
        raise InvalidInput("top_logprobs needs logprobs: true.", code="invalid_value", param="top_logprobs")
    return (request.top_logprobs or 0) if request.logprobs else None
