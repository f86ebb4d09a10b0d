"""The runtime's errors, as one tree.

RuntimeRefusal                     an answer to a caller: names the field at fault
├── InvalidNamespace
├── InvalidRequest                 a number or list out of bounds (400)
├── ContextExceeded                prompt + max_tokens over the context (400)
├── AdapterUnavailable             blob missing, corrupt, or can never fit (409/503)
├── QueueFull                      too many waiting requests, or a deadline that the queue cannot meet (503)
│   └── ShareFull                  the same, for what this tenant alone has waiting (429)
└── EngineUnavailable              the engine is away or died under the request (503)
    └── MeteringUnavailable        token counts cannot be written down, so nothing is served (503)

UnusableModel                      a model directory that cannot be served: the start is refused
"""

from math import ceil


class RuntimeRefusal(Exception):
    """`code` is stable and machine-readable; `param` is the request field at fault, or None. retry_s: when the same
    request would most likely be taken; 0 if that is not known, or if it never would."""

    code = "runtime_refusal"

    def __init__(self, param: str | None, message: str, retry_s: float = 0.0) -> None:
        super().__init__(message)
        self.param = param
        self.message = message
        self.retry_s = retry_s

    @property
    def retry_ms(self) -> int:
        return ceil(1000 * self.retry_s)


class InvalidNamespace(RuntimeRefusal):
    code = "invalid_namespace"


class InvalidRequest(RuntimeRefusal):
    code = "invalid_request"


class ContextExceeded(RuntimeRefusal):
    code = "context_length_exceeded"


class AdapterUnavailable(RuntimeRefusal):
    code = "adapter_unavailable"


class QueueFull(RuntimeRefusal):
    code = "overloaded"


class ShareFull(QueueFull):
    code = "too_many_waiting"


class EngineUnavailable(RuntimeRefusal):
    code = "engine_unavailable"


class MeteringUnavailable(EngineUnavailable):
    code = "metering_unavailable"


_BY_CODE: dict[str, type[RuntimeRefusal]] = {
    kind.code: kind
    for kind in (
        InvalidNamespace, InvalidRequest, ContextExceeded, AdapterUnavailable, QueueFull, ShareFull,
        EngineUnavailable, MeteringUnavailable,
    )
}  # fmt: skip


def refusal(code: str, param: str | None, message: str, retry_s: float = 0.0) -> RuntimeRefusal:
    """The error that a code read off the wire stands for."""
    return _BY_CODE.get(code, EngineUnavailable)(param, message, retry_s)


class UnusableModel(Exception):
    """A file of the model directory is missing, malformed or of a kind this runtime does not know."""
