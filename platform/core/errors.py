"""The platform's errors, as one tree; each carries its status, so routes raise and one handler answers.

PlatformError
├── InvalidInput 400 · Unauthenticated 401 · PermissionDenied 403 · NotFound 404 · Conflict 409
├── MethodNotAllowed 405 · BodyTimedOut 408 · PreconditionFailed 412 · PayloadTooLarge 413
├── UnsupportedMediaType 415 · AdapterInvalid 422
├── RateLimited 429 · ConcurrencyLimited 429 · QueueLimited 429 · QuotaExceeded 429 (never retried by clients)
└── Unavailable 503: DatabaseUnavailable · MeteringUnavailable · EngineAway · Overloaded      TimedOut 504

A message names the field and the bound; never a path, SQL, a class name or a secret. 500 has no class: it is a bug.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

MAX_MESSAGE = 1024


class PlatformError(Exception):
    """status: HTTP. type and code: stable words for machines. param: the field at fault, or None."""

    status: ClassVar[int]
    type: ClassVar[str]
    default_code: ClassVar[str]

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message[:MAX_MESSAGE]
        self.code = code or self.default_code
        self.param = param
        self.headers: dict[str, str] = dict(headers or {})

    def envelope(self, request_id: str | None = None) -> dict[str, Any]:
        """The one shape of an error body."""
        return {
            "error": {
                "type": self.type,
                "code": self.code,
                "message": self.message,
                "param": self.param,
                "request_id": request_id,
            }
        }


class InvalidInput(PlatformError):
    status, type, default_code = 400, "invalid_request_error", "invalid_value"


class Unauthenticated(PlatformError):
    """One message for unknown, revoked, expired, suspended and foreign keys: they must look the same."""

    status, type, default_code = 401, "authentication_error", "invalid_api_key"

    def __init__(self) -> None:
        super().__init__("The API key is missing or not valid.", headers={"www-authenticate": "Bearer"})


class PermissionDenied(PlatformError):
    status, type, default_code = 403, "permission_error", "permission_denied"


class NotFound(PlatformError):
    """Absent and foreign look the same."""

    status, type, default_code = 404, "not_found_error", "not_found"


class MethodNotAllowed(PlatformError):
    status, type, default_code = 405, "invalid_request_error", "method_not_allowed"


class BodyTimedOut(PlatformError):
    status, type, default_code = 408, "timeout", "body_timeout"


class Conflict(PlatformError):
    status, type, default_code = 409, "conflict_error", "conflict"


class PreconditionFailed(PlatformError):
    status, type, default_code = 412, "conflict_error", "etag_mismatch"


class PayloadTooLarge(PlatformError):
    status, type, default_code = 413, "payload_too_large", "payload_too_large"


class UnsupportedMediaType(PlatformError):
    status, type, default_code = 415, "unsupported_media_type", "unsupported_media_type"


class AdapterInvalid(PlatformError):
    status, type, default_code = 422, "adapter_invalid", "adapter_invalid"


class RateLimited(PlatformError):
    """retry_ms: when one more request would be let in."""

    status, type, default_code = 429, "rate_limit_error", "rate_limit_exceeded"

    def __init__(self, message: str, *, retry_ms: int, param: str | None = None) -> None:
        super().__init__(message, param=param, headers=retry_headers(retry_ms))


class ConcurrencyLimited(RateLimited):
    default_code = "concurrency_limit_exceeded"


class QueueLimited(RateLimited):
    """The tenant's own requests wait in the engine, more than may or than could start in time."""

    default_code = "too_many_waiting"


class QuotaExceeded(PlatformError):
    """Money is out: retrying cannot help, and the header tells clients so."""

    status, type, default_code = 429, "insufficient_quota", "insufficient_quota"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message, param=param, headers={"x-should-retry": "false"})


class Unavailable(PlatformError):
    status, type, default_code = 503, "overloaded", "overloaded"

    def __init__(self, message: str, *, code: str | None = None, retry_ms: int = 1000) -> None:
        super().__init__(message, code=code, headers=retry_headers(retry_ms))


class DatabaseUnavailable(Unavailable):
    type, default_code = "overloaded", "database_unavailable"


class MeteringUnavailable(Unavailable):
    type, default_code = "metering_unavailable", "metering_unavailable"


class EngineAway(Unavailable):
    type, default_code = "engine_unavailable", "engine_unavailable"


class Overloaded(Unavailable):
    pass


class TimedOut(PlatformError):
    status, type, default_code = 504, "timeout", "timeout"


class ConfigurationError(Exception):
    """The process cannot start as configured: one clear line that names the key (exit code 78), no traceback."""


def retry_headers(retry_ms: int) -> dict[str, str]:
    """Both spellings that clients read; seconds are rounded up so that obeying them is enough."""
    return {"retry-after": str(max(1, -(-retry_ms // 1000))), "retry-after-ms": str(max(1, retry_ms))}
