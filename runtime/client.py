"""The gateway's side of the engine: submit a request, read its events, hear at once when the engine is lost.

Owns one socket, the ping loop and the promise that every Generation ends. It must not load torch, and knows no
tenants and no text. One event loop owns a client; nothing here is thread-safe.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final
from uuid import uuid4

import msgspec
import structlog
import zmq
import zmq.asyncio

from tenantry.runtime import link
from tenantry.runtime.counts import Guessing, Stats
from tenantry.runtime.errors import EngineUnavailable, RuntimeRefusal
from tenantry.runtime.messages import (
    Abort,
    AskGuesses,
    ChoiceFinished,
    Command,
    Compute,
    DropAdapter,
    DropNamespace,
    DropSession,
    DropTenant,
    Event,
    Finished,
    Guesses,
    HandedOver,
    HandOff,
    KeepSession,
    Ping,
    Pong,
    Refused,
    Release,
    Submit,
    Take,
    Tokens,
    WarmAdapter,
)

log = structlog.get_logger("engine-client")

PING_PERIOD_S: Final = 1.0
SILENCE_S: Final = 10.0
QUEUE_EVENTS: Final = 8192
_ENDS = (Finished, Refused, HandedOver)


class Generation:
    """One request in the engine: an async iterator of Tokens and ChoiceFinished, ended by one Finished or Refused
    (or HandedOver, for a hand_off request).

    Iteration raises EngineUnavailable if the engine was lost under the request, after the events that came before.
    A reader that falls QUEUE_EVENTS behind has the request aborted: it misses events but gets the Finished.
    """

    def __init__(self, client: "EngineClient", request_id: str) -> None:
        self.request_id = request_id
        self._client = client
        self._queue: deque[Event] = deque()
        self._more = asyncio.Event()
        self._error: RuntimeRefusal | None = None
        self._over = False  # the terminal event was handed out, or the error raised
        self._overflowed = False

    def __aiter__(self) -> "Generation":
        return self

    async def __anext__(self) -> Event:
        while not self._queue:
            if self._over:
                raise StopAsyncIteration
            if self._error is not None:
                self._over = True
                raise self._error
            self._more.clear()
            await self._more.wait()
        event = self._queue.popleft()
        self._over = isinstance(event, _ENDS)
        return event

    def abort(self) -> None:
        """Ask the engine to stop; go on reading for the Finished. Harmless once it has ended."""
        self._client._abort(self.request_id)

    def _put(self, event: Event) -> None:
        if not isinstance(event, _ENDS) and (self._overflowed or len(self._queue) >= QUEUE_EVENTS):
            if not self._overflowed:
                self._overflowed = True
                self.abort()
            return
        self._queue.append(event)
        self._more.set()

    def _fail(self, error: RuntimeRefusal) -> None:
        self._error = error
        self._more.set()


class EngineClient:
    """socket: the worker's ipc:// address. It need not be there yet, and may be restarted at the same address."""

    def __init__(self, socket: str) -> None:
        self._address = socket
        self._context = zmq.asyncio.Context(io_threads=1)
        self._pulse = self._context.socket(zmq.SUB)
        self._socket: zmq.asyncio.Socket | None = None
        self._monitor: zmq.asyncio.Socket | None = None
        self._epoch = b""
        self._pending: dict[str, Generation] = {}
        self._pong: Pong | None = None
        self._heard = 0.0
        self._ponged: asyncio.Future[Pong] | None = None
        self._asked: dict[str, asyncio.Future[tuple[Guessing, ...]]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def connect(self) -> None:
        """Start the loops. Returns at once; see `ready`."""
        self._open()
        self._pulse.setsockopt(zmq.SUBSCRIBE, b"")
        self._pulse.setsockopt(zmq.RECONNECT_IVL_MAX, 500)
        self._pulse.connect(link.beat_address(self._address))
        loops = (self._receive_forever, self._ping_forever, self._watch_forever, self._feel_pulse_forever)
        self._tasks = [asyncio.create_task(self._keep(loop)) for loop in loops]

    async def close(self) -> None:
        """End the loops; what is pending gets EngineUnavailable."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._lose("this gateway lets go of the engine")
        self._shut()
        self._pulse.close(0)
        self._context.term()

    @property
    def ready(self) -> bool:
        """The engine answered within SILENCE_S and said that it takes requests."""
        return self._pong is not None and self._pong.ready and time.monotonic() - self._heard < SILENCE_S

    @property
    def last_pong(self) -> Pong | None:
        """The newest answer of the engine's present life, or None."""
        return self._pong

    @property
    def stats(self) -> Stats | None:
        return self._pong.stats if self._pong is not None else None

    @property
    def open(self) -> int:
        """Requests of this client that have not ended."""
        return len(self._pending)

    def generate(self, submit: Submit) -> Generation:
        """Send a request. It always gives a Generation: what goes wrong is raised by its iteration."""
        generation = Generation(self, submit.request_id)
        if not self.ready:
            generation._fail(EngineUnavailable(None, "the engine is not ready"))
        elif submit.request_id in self._pending:
            raise ValueError("request ids are unique")
        else:
            try:
                self._send(submit)
            except RuntimeRefusal as refusal:
                generation._fail(refusal)
            else:
                self._pending[submit.request_id] = generation
        return generation

    def warm(self, digest: bytes) -> None:
        """Ask for an adapter to be loaded; Stats.adapters says what became of it."""
        self._send(WarmAdapter(digest))

    def drop(self, digest: bytes) -> None:
        """Retire an adapter in the engine."""
        self._send(DropAdapter(digest))

    def keep_session(self, session: bytes, keep_s: float, pin: bool = False) -> None:
        """Keep the KV of a session's last turn so long from now on."""
        self._send(KeepSession(session, keep_s, pin))

    def drop_session(self, session: bytes) -> None:
        """Forget a session's KV in every tier."""
        self._send(DropSession(session))

    def drop_namespace(self, namespace: bytes, abort: bool = False) -> None:
        """Forget a namespace's KV in every tier. abort: end its requests."""
        self._send(DropNamespace(namespace, abort))

    def drop_tenant(self, tenant: str, abort: bool = False) -> None:
        """As drop_namespace. tenant: a share_key up to its first "/"."""
        self._send(DropTenant(tenant, abort))

    def take(self, request_id: str, hand_off: HandOff) -> None:
        """The prompt of an expected request is computed. Raises EngineUnavailable, as the next two do."""
        self._send(Take(request_id, hand_off))

    def compute(self, request_id: str) -> None:
        """Nobody else computes the prompt of an expected request."""
        self._send(Compute(request_id))

    def release(self, request_id: str) -> None:
        """What was handed over for a request is wanted no more."""
        self._send(Release(request_id))

    async def ping(self, timeout_s: float = 2.0) -> Pong | None:
        """A fresh answer or pulse, or None if none came in time."""
        if self._ponged is None or self._ponged.done():
            self._ponged = asyncio.get_running_loop().create_future()
        waiter = self._ponged
        try:
            self._send(Ping())
            async with asyncio.timeout(timeout_s):  # not wait_for: in Python 3.11 that can swallow a cancellation
                return await asyncio.shield(waiter)
        except (TimeoutError, EngineUnavailable):
            return None

    async def guesses(self, timeout_s: float = 2.0) -> tuple[Guessing, ...]:
        """What guessing did since the engine started. Raises EngineUnavailable if no answer came in time."""
        ask = uuid4().hex
        answer: asyncio.Future[tuple[Guessing, ...]] = asyncio.get_running_loop().create_future()
        self._asked[ask] = answer
        try:
            self._send(AskGuesses(ask))
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise EngineUnavailable(None, "the engine does not answer") from None
        finally:
            del self._asked[ask]

    def engine_lost(self, why: str = "the engine died") -> None:
        """The supervisor knows that the engine is gone: every pending Generation is told now. Idempotent."""
        self._lose(why)
        if self._socket is not None:
            self._open()

    def _abort(self, request_id: str) -> None:
        if request_id in self._pending:
            try:
                self._send(Abort(request_id))
            except EngineUnavailable as error:
                self._pending.pop(request_id)._fail(error)

    def _open(self) -> None:
        """A new socket with a new name: whatever the old one had not sent is never delivered to anyone."""
        self._shut()
        socket = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.IDENTITY, b"c" + uuid4().bytes)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RECONNECT_IVL, 50)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 500)
        socket.setsockopt(zmq.SNDHWM, 4096)
        socket.setsockopt(zmq.RCVHWM, 4096)
        self._monitor = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        socket.connect(self._address)
        self._socket = socket

    def _shut(self) -> None:
        if self._socket is not None and self._monitor is not None:
            socket, monitor, self._socket, self._monitor = self._socket, self._monitor, None, None
            socket.disable_monitor()
            monitor.close(0)
            socket.close(0)

    def _send(self, command: Command) -> None:
        if self._socket is None:
            raise EngineUnavailable(None, "the client is not connected")
        body = link.pack(command)
        sent = self._socket.send_multipart([self._epoch, body], zmq.NOBLOCK)
        assert isinstance(sent, asyncio.Future), "zmq.asyncio answers with a future"
        assert sent.done(), "and a NOBLOCK send is over at once"
        if sent.exception() is not None:
            raise EngineUnavailable(None, "the engine does not take commands")

    async def _keep(self, loop: Callable[[], Awaitable[None]]) -> None:
        """A loop that fails is a bug; those that wait hear of it, and the next requests find it running again."""
        while True:
            try:
                await loop()
            except Exception as error:
                log.error("engine_client_failed", loop=loop.__name__, kind=type(error).__name__)
                self.engine_lost("the connection to the engine failed")
                await asyncio.sleep(PING_PERIOD_S)

    async def _receive_forever(self) -> None:
        while True:
            socket = self._socket
            assert socket is not None
            try:
                frames = await socket.recv_multipart()
            except (zmq.ZMQError, asyncio.CancelledError):
                if socket is self._socket:
                    raise
                continue  # it was replaced while we waited
            if len(frames) == 2 and socket is self._socket:
                self._frame(*frames)

    async def _feel_pulse_forever(self) -> None:
        """Pulses come from a thread of the worker's own, also in the middle of a long step."""
        while True:
            frames = await self._pulse.recv_multipart()
            if len(frames) == 2 and frames[0] >= self._epoch:  # epochs sort by time: not a dead worker's last one
                self._frame(*frames)

    async def _watch_forever(self) -> None:
        """A worker that dies takes its end of the socket with it, long before silence would tell."""
        while True:
            monitor = self._monitor
            assert monitor is not None
            try:
                await monitor.recv_multipart()
            except (zmq.ZMQError, asyncio.CancelledError):
                if monitor is self._monitor:
                    raise
                continue  # it was replaced while we waited
            if monitor is self._monitor:
                self.engine_lost("the connection to the engine broke")

    def _frame(self, epoch: bytes, body: bytes) -> None:
        try:
            events = link.unpack_events(body).events
        except msgspec.MsgspecError:
            log.error("malformed_frame", bytes=len(body))
            return
        for event in events:
            if isinstance(event, Pong):
                self._on_pong(event, epoch)
            elif isinstance(event, Guesses):
                if event.ask in self._asked and not self._asked[event.ask].done():
                    self._asked[event.ask].set_result(event.counts)
            elif epoch == self._epoch:
                self._route(event)

    def _on_pong(self, pong: Pong, epoch: bytes) -> None:
        if epoch != self._epoch:
            if self._epoch:
                self._lose("the engine was restarted")
            self._epoch = epoch
            log.info("engine_found", epoch=pong.epoch)
        self._pong, self._heard = pong, time.monotonic()
        if self._ponged is not None and not self._ponged.done():
            self._ponged.set_result(pong)

    def _route(self, event: Tokens | ChoiceFinished | Finished | Refused | HandedOver) -> None:
        ended = isinstance(event, _ENDS)
        generation = (self._pending.pop if ended else self._pending.get)(event.request_id, None)
        if generation is not None:
            generation._put(event)

    async def _ping_forever(self) -> None:
        while True:
            await self.ping(PING_PERIOD_S)
            await asyncio.sleep(PING_PERIOD_S)
            if self._pong is not None and time.monotonic() - self._heard > SILENCE_S:
                self.engine_lost("the engine has been silent for too long")

    def _lose(self, why: str) -> None:
        pending, self._pending, self._pong = self._pending, {}, None
        for generation in pending.values():
            generation._fail(EngineUnavailable(None, why))
        if pending:
            log.warning("engine_lost", pending=len(pending), why=why)
