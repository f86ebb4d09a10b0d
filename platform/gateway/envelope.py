"""Every exception becomes one error envelope, and every bug becomes a 500 that says nothing.

Owns the mapping from litestar's and the runtime's exceptions to the platform's tree. It must not know routes.
"""

from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.types import Send

from tenantry.platform.core import errors
from tenantry.platform.core.errors import PlatformError
from tenantry.runtime.errors import RuntimeRefusal

log = structlog.get_logger("gateway")

_RUNTIME: dict[str, type[PlatformError]] = {
    "context_length_exceeded": errors.InvalidInput,
    "invalid_request": errors.InvalidInput,
    "overloaded": errors.Overloaded,
    "too_many_waiting": errors.QueueLimited,
    "adapter_unavailable": errors.Unavailable,
    "engine_unavailable": errors.EngineAway,
}
_HTTP: dict[int, type[PlatformError]] = {
    400: errors.InvalidInput,
    401: errors.InvalidInput,
    403: errors.PermissionDenied,
    404: errors.NotFound,
    405: errors.MethodNotAllowed,
    413: errors.PayloadTooLarge,
    415: errors.UnsupportedMediaType,
}
_MESSAGES = {
    404: "There is nothing here.",
    405: "This method is not allowed.",
    413: "The body is too large.",
    415: "This media type is not supported.",
}
DEFAULT_RETRY_MS = 1000


class InternalError(PlatformError):
    """A bug. Its cause is in the log under the request id, and nowhere else."""

    status, type, default_code = 500, "api_error", "internal_error"


def of(error: Exception) -> PlatformError:
    """The answer for any exception. Logs the ones that are bugs."""
    match error:
        case PlatformError():
            return error
        case RuntimeRefusal():
            return refusal(error.code, error.message, error.param, error.retry_ms)
        case ValidationException():
            return _validation(error)
        case HTTPException() if error.status_code in _HTTP:
            kind = _HTTP[error.status_code]
            allow = (error.headers or {}).get("allow")
            message = _MESSAGES.get(error.status_code, "The request is not valid.")
            return kind(message, headers={"allow": allow} if allow else None)
        case _:
            log.error("internal_error", exc_info=error)
            return InternalError("Something went wrong on our side. The request id finds it in our log.")


def refusal(code: str, message: str, param: str | None, retry_ms: int = 0) -> PlatformError:
    """The engine's refusal as an answer. retry_ms: when it may be asked again, if it knows."""
    kind = _RUNTIME.get(code, errors.EngineAway)
    if issubclass(kind, errors.Unavailable):
        return kind(message, code=code, retry_ms=retry_ms or DEFAULT_RETRY_MS)
    if issubclass(kind, errors.RateLimited):
        return kind(message, retry_ms=retry_ms or DEFAULT_RETRY_MS)
    return kind(message, code=code, param=param)


def handle(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    """litestar's exception handler."""
    answer = of(error)
    request_id = request.scope["state"].get("request_id")
    return Response(answer.envelope(request_id), status_code=answer.status, headers=answer.headers)


async def send(answer: PlatformError, request_id: str, send: Send) -> None:
    """The same, for the layer outside of litestar."""
    body = msgspec.json.encode(answer.envelope(request_id))
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.encode(), value.encode()) for name, value in answer.headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _validation(error: ValidationException) -> PlatformError:
    """litestar checks path and query parameters; their names are safe to say, its sentences are not."""
    first: Any = error.extra[0] if isinstance(error.extra, list) and error.extra else {}
    param = first.get("key") if isinstance(first, dict) else None
    return errors.InvalidInput(f"{param or 'A parameter'} is not valid.", param=param)


def event(answer: PlatformError, request_id: str | None) -> bytes:
    """The same inside a stream that has begun; clients raise it. No [DONE] may follow."""
    return b"data: " + msgspec.json.encode(answer.envelope(request_id)) + b"\n\n"
