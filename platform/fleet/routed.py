"""One request, wherever it runs: the same promises as runtime.client.Generation, kept over several engines.

Owns retries. A request is given to another engine only while none of its tokens was told, with a higher `attempt`,
which is how the journals' reader knows whose counts are owed (metering/journal.py). It must not know who is chosen.
"""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import structlog

from tenantry.platform.fleet.relay import Relay
from tenantry.runtime.client import Generation
from tenantry.runtime.errors import EngineUnavailable
from tenantry.runtime.messages import Event, Refused, Submit, Tokens

log = structlog.get_logger("router")

MOST_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Started:
    """engine: the owner: it decodes, journals, answers. relay: with whoever computes the prompt, if another does."""

    engine: str
    generation: Generation
    relay: Relay | None = None

    def done(self) -> None:
        """The owner has begun to answer, or never will."""
        if self.relay is not None:
            self.relay.end()


Start = Callable[[Submit, tuple[str, ...]], Started | None]


class Routed:
    """start: gives it to an engine that is not among those that failed it, or nowhere."""

    def __init__(self, submit: Submit, start: Start) -> None:
        self.request_id = submit.request_id
        self._submit = submit
        self._start = start
        self._failed: tuple[str, ...] = ()
        self._settled = False  # a token was told, or the reader has left: no other engine gets it
        self._over = False
        self._running = start(submit, self._failed)

    def __aiter__(self) -> "Routed":
        return self

    async def __anext__(self) -> Event:
        if self._over:
            raise StopAsyncIteration
        while True:
            if self._running is None:
                self._over = True
                raise EngineUnavailable(None, "the engine is not ready")
            try:
                event = await self._running.generation.__anext__()
            except EngineUnavailable as error:
                self._running.done()
                if self._elsewhere(error.code):
                    continue
                self._over = True
                raise
            self._running.done()
            if isinstance(event, Refused) and _elsewhere_perhaps(event) and self._elsewhere(event.code):
                continue
            self._settled = self._settled or isinstance(event, Tokens)
            return event

    def abort(self) -> None:
        """Ask for the end; go on reading for the Finished. Harmless once it has ended."""
        self._settled = True
        if self._running is not None:
            self._running.done()
            self._running.generation.abort()

    def _elsewhere(self, why: str) -> bool:
        """Whether another engine has it now."""
        if self._settled or self._running is None or self._submit.attempt + 1 >= MOST_ATTEMPTS:
            return False
        failed = (*self._failed, self._running.engine)
        again = msgspec.structs.replace(self._submit, attempt=self._submit.attempt + 1)
        started = self._start(again, failed)
        if started is None:
            return False
        log.info("request_rerouted", why=why, attempt=again.attempt, engine=started.engine)
        self._submit, self._failed, self._running = again, failed, started
        return True


def _elsewhere_perhaps(event: Refused) -> bool:
    """A queue that is too long or a drain is one engine's own; a deadline that has passed has passed everywhere."""
    own_queue = event.code == "overloaded" and (event.param is None or event.retry_ms > 0)
    return event.code == "engine_unavailable" or own_queue
