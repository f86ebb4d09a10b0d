"""The outermost layer: what every request passes before any route is looked up.

Owns request ids, header hygiene (duplicates, stripped names), path hygiene (nothing is normalised) and the access
log line. It must not know routes, keys or bodies. Litestar runs its own middleware after routing, which is too late
for all of this.
"""

import re
import time
from typing import Any

import structlog
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Send

from tenantry.platform.core import ids
from tenantry.platform.core.errors import InvalidInput, MethodNotAllowed, NotFound, PlatformError
from tenantry.platform.core.telemetry import Telemetry
from tenantry.platform.gateway import envelope

log = structlog.get_logger("gateway")

METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
# Names a proxy or a hop sets. None is ever read, and none may be forged past us to whoever comes next.
STRIPPED = frozenset(
    {b"forwarded", b"x-real-ip", b"x-tenant-id", b"x-cache-salt", b"x-request-id", b"x-http-method-override"}
)
STRIPPED_PREFIXES = (b"x-forwarded-", b"x-tenantry-")
SINGLE = frozenset(
    {
        b"authorization",
        b"host",
        b"content-type",
        b"content-encoding",
        b"content-digest",
        b"idempotency-key",
        b"if-match",
        b"cookie",
        b"x-csrf-token",
    }
)
_TYPED = frozenset({"/", "/admin/"})  # by people, who end a place with a slash
_PATH = re.compile(r"(?:/[A-Za-z0-9_@:~.-]*[A-Za-z0-9_@:~-])+")
_RAW_ESCAPES = re.compile(rb"%(?!40|3[Aa])")
_HOST = re.compile(rb"[A-Za-z0-9._-]{1,253}(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](?::[0-9]{1,5})?")
_LABEL = re.compile(rb"[A-Za-z0-9_-]{1,64}")


class Edge:
    """ASGI around the litestar app. `scope["state"]["request_id"]` is ours; a client's id is only a log label."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self.app = app
        self._telemetry = telemetry

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008, "reason": ""})
            return
        request_id = ids.to_text("request", ids.uuid7())
        started = time.perf_counter()
        scope.setdefault("state", {})
        scope["state"]["request_id"] = request_id
        status = 0

        async def stamped(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                millis = round((time.perf_counter() - started) * 1000)
                message["headers"] = [
                    *message.get("headers", []),
                    (b"x-request-id", request_id.encode()),
                    (b"openai-processing-ms", str(millis).encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        headers = scope["headers"]
        label = next((v for k, v in headers if k == b"x-request-id" and _LABEL.fullmatch(v)), b"").decode()
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                _check(scope)
                scope["headers"] = [(k, v) for k, v in headers if not _stripped(k)]
                await self.app(scope, receive, stamped)
            except PlatformError as error:
                await envelope.send(error, request_id, stamped)
            finally:
                seconds = time.perf_counter() - started
                route = scope.get("path_template", "unmatched")
                self._telemetry.requests.labels(route, str(status or 499)).inc()
                self._telemetry.request_seconds.observe(seconds)
                log.info(
                    "request",
                    method=scope["method"],
                    route=route,
                    status=status or 499,
                    ms=round(seconds * 1000, 1),
                    client_label=label or None,
                )


def _stripped(name: bytes) -> bool:
    return name in STRIPPED or name.startswith(STRIPPED_PREFIXES)


def _check(scope: HTTPScope) -> None:
    names = [name for name, _ in scope["headers"] if name in SINGLE]
    for name in set(names):
        if names.count(name) > 1:
            raise InvalidInput(
                f"{name.decode()} was sent more than once.", code="duplicate_header", param=name.decode()
            )
    host = next((value for name, value in scope["headers"] if name == b"host"), None)
    if host is None or not _HOST.fullmatch(host):
        raise InvalidInput("The Host header is missing or malformed.", code="invalid_host", param="Host")
    raw = (scope.get("raw_path") or scope["path"].encode()).partition(b"?")[0]
    if _RAW_ESCAPES.search(raw) or not (scope["path"] in _TYPED or _PATH.fullmatch(scope["path"])):
        raise NotFound("There is nothing here.")
    if scope["method"] not in METHODS:
        raise MethodNotAllowed("This method is not allowed.", headers={"allow": ", ".join(sorted(METHODS))})
