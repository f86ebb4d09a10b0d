"""uvicorn with our limits, and a SIGTERM that drains before it closes anything.

Owns the listener. First signal: readiness turns 503 and nothing new is admitted while streams end and settlements are
written; then the socket closes. A second signal does not wait.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from types import FrameType

import uvicorn
from litestar.types import ASGIApp

from tenantry.platform.gateway.protocol import BoundedProtocol

BACKLOG = 1024
KEEP_ALIVE_S = 15
CLOSE_S = 5


def config(app: ASGIApp, host: str, port: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=BoundedProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=CLOSE_S,
    )


class DrainingServer(uvicorn.Server):
    """drain: called once, before the listener closes."""

    def __init__(self, config: uvicorn.Config, drain: Callable[[], Awaitable[None]]) -> None:
        super().__init__(config)
        self._drain = drain
        self._draining: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._loop is None or self._draining is not None:
            super().handle_exit(sig, frame)
            return
        self._loop.call_soon_threadsafe(self.drain_and_exit)

    def drain_and_exit(self) -> None:
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain_then_exit())

    @property
    def port(self) -> int:
        """The port that was bound, when 0 was asked for."""
        return int(self.servers[0].sockets[0].getsockname()[1])

    async def _drain_then_exit(self) -> None:
        try:
            await self._drain()
        finally:
            self.should_exit = True
