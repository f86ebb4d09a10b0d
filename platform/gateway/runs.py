"""One admitted generation, owned by a task of the process and never by the HTTP response that reads it.

Owns consuming the engine's events, feeding the one reader, aborting when the reader goes away or stops reading, and
settling at every end. It must not know HTTP, tenants' names or the shape of replies beyond Renderer.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

import structlog

from tenantry.platform.core.database import Connection
from tenantry.platform.core.errors import EngineAway, MeteringUnavailable, PlatformError
from tenantry.platform.core.recent import Recent
from tenantry.platform.core.telemetry import Telemetry
from tenantry.platform.gateway import envelope
from tenantry.platform.gateway.render import Piece, Renderer
from tenantry.platform.metering.admission import Ticket
from tenantry.platform.metering.settlement import Outcome, Settler
from tenantry.runtime.errors import RuntimeRefusal
from tenantry.runtime.messages import ChoiceFinished, Event, Finished, Refused, Tokens, Usage

log = structlog.get_logger("gateway")

MAX_UNREAD_BYTES = 256 << 10
STORE_WAIT_S = 15.0


class Decoder(Protocol):
    """Text of one choice. push gives what is certain by now; end gives the rest, cut before `matched`."""

    def push(self, tokens: tuple[int, ...]) -> str: ...
    def end(self, matched: str | None) -> str: ...


class Generation(Protocol):
    """One request in the engine: its events, and the way to stop it."""

    def __aiter__(self) -> "Generation": ...
    async def __anext__(self) -> Event: ...
    def abort(self) -> None: ...


Receive = Callable[[], Awaitable[Any]]
Store = Callable[[Connection, Sequence[Piece], Usage], Awaitable[None]]


@dataclass(slots=True)
class Run:
    """stream: render frames as they come; else collect pieces for one whole reply. begun: the engine has said
    something, so a refusal can still be an HTTP status until then. store: writes what was generated where it is kept,
    in the settlement's own transaction; the reader hears of the end only after it."""

    ticket: Ticket
    generation: Generation
    decoder: Callable[[], Decoder]
    renderer: Renderer
    stream: bool
    telemetry: Telemetry
    recent: Recent = field(default_factory=Recent)
    store: Store | None = None
    usage: Usage | None = None
    failure: PlatformError | None = None
    pieces: list[Piece] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    done: asyncio.Event = field(default_factory=asyncio.Event)
    _frames: deque[bytes] = field(default_factory=deque)
    _unread: int = 0
    _more: asyncio.Event = field(default_factory=asyncio.Event)
    _decoders: dict[int, Decoder] = field(default_factory=dict)
    _left: bool = False
    _cut: bool = False
    _reason: str = ""

    @property
    def leaving(self) -> bool:
        """Its reader has gone, and it has not ended yet."""
        return self._left and not self.done.is_set()

    def leave(self) -> None:
        """The reader is gone. Whatever was generated is still settled."""
        if not self.done.is_set() and not self._left:
            self._left = True
            self.generation.abort()

    async def left(self) -> None:
        """leave(), as a coroutine: litestar runs plain functions in a thread, and this belongs to the loop."""
        self.leave()

    async def frames(self) -> AsyncGenerator[bytes, None]:
        """Rendered events, joined when the reader is slower than the engine. Ends after the last or the error."""
        while True:
            await self._more.wait()
            self._more.clear()
            if self._frames:
                chunk, self._unread = b"".join(self._frames), 0
                self._frames.clear()
                yield chunk
            elif self.done.is_set():
                return
            if self.done.is_set():
                self._more.set()

    async def whole(self, receive: Receive) -> bytes:
        """The body of a reply that is not streamed. Raises what went wrong; a disconnect aborts the engine."""
        await self._until(self.done, receive)
        if self.failure is not None:
            raise self.failure
        assert self.usage is not None
        return self.renderer.whole(self.pieces, self.usage)

    async def start_of_stream(self, receive: Receive) -> None:
        """Returns at the engine's first word. Raises its refusal while that can still be an HTTP status."""
        await self._until(self.begun, receive)
        if self.done.is_set() and self.failure is not None:
            raise self.failure

    async def _until(self, event: asyncio.Event, receive: Receive) -> None:
        """Wait for the event, and leave when the client does. litestar does not tell handlers of a disconnect."""
        waiter, watcher = asyncio.create_task(event.wait()), asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait({waiter, watcher}, return_when=asyncio.FIRST_COMPLETED)
            if not waiter.done():
                self.leave()
                await waiter
        except asyncio.CancelledError:
            self.leave()
            raise
        finally:
            waiter.cancel()
            watcher.cancel()

    async def consume(self) -> Outcome | None:
        """Run to the end. The outcome to settle, or None when only the journal knows the counts. finish() is next."""
        if self.stream:
            self._offer(self.renderer.first())
        started = time.perf_counter()
        try:
            async for event in self.generation:
                self.begun.set()
                if isinstance(event, Tokens) and started:
                    self._first_token(time.perf_counter() - started)
                    started = 0.0
                self._take(event)
        except RuntimeRefusal as error:
            self.failure = envelope.of(error)
        except Exception as error:  # a bug here must not take the counts with it: the journal has them
            self.failure = envelope.of(error)
            self.generation.abort()
        return self._outcome()

    def _first_token(self, seconds: float) -> None:
        receipt = self.ticket.receipt
        self.telemetry.first_token_seconds.observe(seconds)
        self.recent.first_token(receipt.tenant_id, receipt.adapter_id, seconds)

    def _take(self, event: Event) -> None:
        match event:
            case Tokens():
                self.recent.tokens(self.ticket.receipt.tenant_id, len(event.tokens))
                decoder = self._decoders.get(event.choice)
                if decoder is None:
                    decoder = self._decoders[event.choice] = self.decoder()
                self._gain(Piece(event.choice, decoder.push(event.tokens), event.tokens, event.logprobs))
            case ChoiceFinished():
                self._choice_finished(event)
            case Finished():
                self.usage, self._reason = event.usage, event.reason
                if event.reason == "error":
                    self.failure = EngineAway("The engine could not finish this request.", code="generation_failed")
            case Refused():
                self.failure = envelope.refusal(event.code, event.message, event.param, event.retry_ms)
                self._reason = "refused"
            case _:
                pass

    def _choice_finished(self, event: ChoiceFinished) -> None:
        if event.reason not in ("stop", "length"):
            return
        decoder = self._decoders.get(event.choice)
        matched = event.matched if isinstance(event.matched, str) else None
        text = decoder.end(matched) if decoder is not None else ""
        self._gain(Piece(event.choice, text, finish=event.reason))

    def _gain(self, piece: Piece) -> None:
        if not self.stream or self.store is not None:
            self.pieces.append(piece)
        if self.stream and not self._left:
            self._offer(self.renderer.piece(piece))
            if self._unread > MAX_UNREAD_BYTES:
                log.warning("slow_reader_cut", unread=self._unread)
                self.leave()

    def _offer(self, frame: bytes) -> None:
        if frame:
            self._frames.append(frame)
            self._unread += len(frame)
            self._more.set()

    def finish(self) -> None:
        """Tell the reader how it ended."""
        if self.failure is None and (self._cut or self.usage is None):
            self.failure = EngineAway("The generation was cut short.")
        if self.stream and self.failure is not None:
            self._offer(self.renderer.failed(self.failure, str(self.ticket.request_id)))
        elif self.stream and self.usage is not None:
            self._offer(self.renderer.last(self.usage))
        self.begun.set()
        self.done.set()
        self._more.set()

    def _outcome(self) -> Outcome | None:
        self._cut = cut = self._left or (self.usage is not None and self._reason == "abort")
        if self._reason == "refused":
            self.usage = Usage()
            return "refused"
        if self.usage is None:
            return None
        if self._reason == "error":
            return "failed"
        return "cancelled" if cut else "completed"


class Runs:
    """Every run of this process, so that draining can wait for them."""

    def __init__(self, settler: Settler, telemetry: Telemetry) -> None:
        self.recent = Recent()
        self._settler = settler
        self._telemetry = telemetry
        self._tasks: set[asyncio.Task[None]] = set()
        self._live: dict[UUID, Run] = {}
        self.draining = False

    @property
    def open(self) -> int:
        return len(self._tasks)

    def give_up(self, ticket: Ticket) -> None:
        """An admitted request that never reached the engine costs nothing."""
        self._settler.submit(ticket, Usage(), "failed")

    def start(self, run: Run) -> None:
        """Own a run from here on; it settles whatever becomes of its reader."""
        run.recent = self.recent
        self.recent.began(run.ticket.receipt.tenant_id)
        self._spawn(self._own(run))
        self._live[run.ticket.request_id] = run
        self._telemetry.open_requests.set(self.open)

    def find(self, tenant_id: UUID, request_id: UUID) -> Run | None:
        """A tenant's own run that has not ended."""
        run = self._live.get(request_id)
        return run if run is not None and run.ticket.receipt.tenant_id == tenant_id else None

    async def drain(self, timeout_s: float) -> bool:
        """Refuse new runs and wait for the open ones; what is left then is aborted and settled. False if any was."""
        self.draining = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        if not self._tasks:
            return True
        for run in list(self._live.values()):
            run.leave()
        await asyncio.wait(self._tasks, timeout=5.0)
        return False

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._telemetry.open_requests.set(self.open)

    async def _own(self, run: Run) -> None:
        outcome: Outcome | None = None
        try:
            outcome = await run.consume()
        finally:
            try:
                await self._settle(run, outcome)
            finally:
                self._live.pop(run.ticket.request_id, None)
                self.recent.ended(run.ticket.receipt.tenant_id)
                run.finish()

    async def _settle(self, run: Run, outcome: Outcome | None) -> None:
        """Queue the settlement, and wait for it where what was generated is stored with it: who hears of a turn's end
        may begin the next one."""
        ticket, store, usage = run.ticket, run.store, run.usage
        if outcome is None or usage is None:
            self._settler.abandon(ticket.receipt.tenant_id, ticket.request_id)
            return
        if store is None:
            self._settler.submit(ticket, usage, outcome)
            return
        commit = (lambda c: store(c, run.pieces, usage)) if outcome == "completed" else None
        settled = self._settler.submit(ticket, usage, outcome, commit)
        try:
            async with asyncio.timeout(STORE_WAIT_S):
                failure = await asyncio.shield(settled)
        except TimeoutError:
            failure = MeteringUnavailable(
                "The answer was generated, but could not be stored in time.", code="turn_not_stored"
            )
        if failure is not None and run.failure is None:
            run.failure = envelope.of(failure)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
