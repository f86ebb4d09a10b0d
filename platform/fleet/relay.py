"""A prompt that one engine computes and another decodes: carries the hand-over across, or word that none will come.

Owns the computing engine's part of one request. Only a few hundred bytes pass here; pages go through memory that
both engines share (runtime/disagg/transport.py). It must not know how engines were chosen.
"""

import asyncio
from contextlib import suppress

import msgspec

from tenantry.runtime.client import EngineClient
from tenantry.runtime.errors import EngineUnavailable
from tenantry.runtime.messages import HandedOver, HandOff, Submit


class Relay:
    """Begins at once. The decoding engine has been told to expect the prompt before; whatever goes wrong on the
    computing side (refused, aborted, died), it is told to compute by itself."""

    def __init__(self, submit: Submit, computing: EngineClient, decoding: EngineClient) -> None:
        self._request_id = submit.request_id
        # A name of its own: if the decoding engine is lost, this one may get the whole request beside its prompt.
        self._job = f"{submit.request_id}:{submit.attempt}:prompt"
        self._computing, self._decoding = computing, decoding
        self._generation = computing.generate(msgspec.structs.replace(submit, request_id=self._job, hand_off=True))
        self._ended = False
        self._task = asyncio.create_task(self._carry())

    def end(self) -> None:
        """The decoding engine answers, or the request is over: nothing is wanted of the other one any more."""
        if self._ended:
            return
        self._ended = True
        self._task.cancel()
        self._generation.abort()
        with suppress(EngineUnavailable):
            self._computing.release(self._job)

    async def _carry(self) -> None:
        hand_off: HandOff | None = None
        with suppress(EngineUnavailable):
            async for event in self._generation:
                if isinstance(event, HandedOver):
                    hand_off = event.hand_off
        with suppress(EngineUnavailable):  # the request's own generation says so too
            if hand_off is None:
                self._decoding.compute(self._request_id)
            else:
                self._decoding.take(self._request_id, hand_off)
