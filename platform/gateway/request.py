"""How a handler's `data` argument is read: a litestar Request whose JSON is strict.

Owns the body's media type, encoding, deadline and decoding into the handler's own struct. Litestar would coerce
("1" to 1), drop unknown fields and answer 500 for bad UTF-8; nothing here does.
"""

import asyncio
from typing import Any

from litestar import Request
from litestar.datastructures import State

from tenantry.platform.core.errors import BodyTimedOut, InvalidInput, UnsupportedMediaType
from tenantry.platform.gateway import strict_json
from tenantry.platform.tenants.principal import Principal

BODY_DEADLINE_S = 30.0


class StrictRequest(Request[Principal, Any, State]):
    """Litestar calls body() and json() for a `data` argument alone; uploads read stream() themselves."""

    async def body(self) -> bytes:
        """The whole body. Raises UnsupportedMediaType, BodyTimedOut, InvalidInput when empty."""
        content_type = self.headers.get("content-type", "")
        kind, _, charset = content_type.partition(";")
        if kind.strip().lower() != "application/json":
            raise UnsupportedMediaType("Send application/json.")
        if charset.strip().lower().replace('"', "") not in ("", "charset=utf-8"):
            raise UnsupportedMediaType("Send UTF-8.")
        if self.headers.get("content-encoding", "identity").lower() != "identity":
            raise UnsupportedMediaType("Content-Encoding is not supported.")
        try:
            async with asyncio.timeout(BODY_DEADLINE_S):
                raw = await super().body()
        except TimeoutError:
            raise BodyTimedOut("The body did not arrive in time.") from None
        if not raw:
            raise InvalidInput("The body is empty.", code="malformed_json")
        return raw

    async def json(self) -> Any:
        """The body as the handler's own `data` struct."""
        fields = strict_json.parse(await self.body())
        data = self.route_handler.parsed_data_field
        if data is None:
            return fields
        kind: Any = data.annotation
        screen = getattr(kind, "screen", None)
        return strict_json.decode(screen(fields) if screen is not None else fields, kind)
