"""The engine's own bounds on a request: it trusts no gateway.

Owns every limit that a Submit must meet before it may wait. Refusals are typed and name the field. It must not know
queues, pages in use or anything that changes from step to step.
"""

from math import isfinite

from tenantry.runtime.config import ScheduleConfig
from tenantry.runtime.errors import ContextExceeded, InvalidNamespace, InvalidRequest
from tenantry.runtime.messages import Sampling, Submit
from tenantry.runtime.namespace import DIGEST_BYTES

MAX_CHOICES = 8
MAX_LOGPROBS = 20
MAX_BIASES = 1024
MAX_STOPS = 64
MAX_PRIORITY = 100
MAX_WEIGHT = 1000.0
MAX_SHARE_KEY = 256
MAX_SESSION_BYTES = 64
MAX_KEEP_S = 366 * 86400.0
_INT64 = 1 << 63


def validate(submit: Submit, adapter_bytes: int, config: ScheduleConfig, room: int, vocab_size: int) -> None:
    """room: tokens whose KV always finds a place. Raises InvalidRequest, InvalidNamespace or ContextExceeded for the
    first field out of bounds."""
    if not 1 <= len(submit.request_id) <= 256:
        raise InvalidRequest("request_id", "must hold 1 to 256 characters")
    if len(submit.namespace) != DIGEST_BYTES:
        raise InvalidNamespace("namespace", f"must be {DIGEST_BYTES} bytes")
    if submit.adapter is not None and len(submit.adapter) != DIGEST_BYTES:
        raise InvalidRequest("adapter", f"must be a {DIGEST_BYTES}-byte digest")
    if submit.adapter is not None and adapter_bytes < 1:
        raise InvalidRequest("adapter", "an adapter occupies at least one byte")
    _range("deadline", submit.deadline, 0.0, float("inf"))
    _range("priority", submit.priority, -MAX_PRIORITY, MAX_PRIORITY)
    _range("weight", submit.weight, 1 / MAX_WEIGHT, MAX_WEIGHT)
    if len(submit.share_key) > MAX_SHARE_KEY:
        raise InvalidRequest("share_key", f"at most {MAX_SHARE_KEY} characters")
    if len(submit.session) > MAX_SESSION_BYTES:
        raise InvalidRequest("session", f"holds at most {MAX_SESSION_BYTES} bytes")
    _range("keep_s", submit.keep_s, 0.0, MAX_KEEP_S)
    if not submit.prompt:
        raise InvalidRequest("prompt", "must hold at least one token")
    _tokens("prompt", submit.prompt, vocab_size)
    _sampling(submit.sampling, vocab_size)
    total = len(submit.prompt) + submit.sampling.max_tokens
    if total > config.max_context:
        raise ContextExceeded(
            "max_tokens", f"prompt and max_tokens make {total}, the context is {config.max_context}"
        )
    if total - 1 > room:  # the last token drawn is never computed
        raise ContextExceeded("max_tokens", f"prompt and max_tokens make {total}, the cache holds {room + 1}")


def _sampling(sampling: Sampling, vocab_size: int) -> None:
    if sampling.max_tokens < 1:
        raise InvalidRequest("max_tokens", "must be at least 1")
    _range("min_tokens", sampling.min_tokens, 0, sampling.max_tokens)
    _range("n", sampling.n, 1, MAX_CHOICES)
    _range("temperature", sampling.temperature, 0.0, 2.0)
    _range("top_p", sampling.top_p, 0.0, 1.0)
    if sampling.top_p <= 0.0:
        raise InvalidRequest("top_p", "must be above 0")
    _range("top_k", sampling.top_k, 0, vocab_size)
    _range("min_p", sampling.min_p, 0.0, 1.0)
    _range("presence_penalty", sampling.presence_penalty, -2.0, 2.0)
    _range("frequency_penalty", sampling.frequency_penalty, -2.0, 2.0)
    _range("repetition_penalty", sampling.repetition_penalty, 0.0, 10.0)
    if sampling.repetition_penalty <= 0.0:
        raise InvalidRequest("repetition_penalty", "must be above 0")
    _range("seed", sampling.seed, -_INT64, _INT64 - 1)
    if sampling.logprobs is not None:
        _range("logprobs", sampling.logprobs, 0, MAX_LOGPROBS)
    if len(sampling.logit_bias) > MAX_BIASES:
        raise InvalidRequest("logit_bias", f"at most {MAX_BIASES} entries")
    if sampling.logit_bias:
        _tokens("logit_bias", [token for token, _ in sampling.logit_bias], vocab_size)
        for _, bias in sampling.logit_bias:
            _range("logit_bias", bias, -100.0, 100.0)
    if len(sampling.stop) > MAX_STOPS or not all(sampling.stop):
        raise InvalidRequest("stop", f"at most {MAX_STOPS} strings, none of them empty")
    if len(sampling.stop_token_ids) > MAX_STOPS:
        raise InvalidRequest("stop_token_ids", f"at most {MAX_STOPS} ids")
    if sampling.stop_token_ids:
        _tokens("stop_token_ids", sampling.stop_token_ids, vocab_size)


def _range(field: str, value: float, low: float, high: float) -> None:
    if not isfinite(value) or not low <= value <= high:
        raise InvalidRequest(field, f"must be between {low} and {high}")


def _tokens(field: str, tokens: tuple[int, ...] | list[int], vocab_size: int) -> None:
    if min(tokens) < 0 or max(tokens) >= vocab_size:
        raise InvalidRequest(field, f"token ids must be between 0 and {vocab_size - 1}")
