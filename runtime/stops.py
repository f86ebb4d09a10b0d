"""Stop strings, watched on decoded text as tokens come, so that the engine ends a choice at the very token.

Owns a decoder per choice that has stop strings, and none for the others. It must not know schedules or sockets.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tenantry.runtime.messages import Event, Finished, Refused, Submit, Tokens
from tenantry.runtime.text import TextDecoder, TextModel


@dataclass(frozen=True, slots=True)
class Hit:
    """A choice whose text now holds the stop string `matched`."""

    request_id: str
    choice: int
    matched: str


class StopWatch:
    def __init__(self, text: TextModel) -> None:
        self._text = text
        self._watched: dict[str, Submit] = {}
        self._decoders: dict[str, dict[int, TextDecoder]] = {}

    def open(self, submit: Submit) -> None:
        """Watch a request, if it has stop strings, until its terminal event is seen."""
        if submit.sampling.stop:
            self._watched[submit.request_id] = submit
            self._decoders[submit.request_id] = {}

    def feed(self, events: Iterable[Event]) -> Iterator[Hit]:
        """The hits among a step's events, at most one per choice."""
        for event in events:
            if isinstance(event, Tokens) and event.request_id in self._watched:
                yield from self._push(event)
            elif isinstance(event, Finished | Refused) and event.request_id in self._watched:
                del self._watched[event.request_id], self._decoders[event.request_id]

    def _push(self, event: Tokens) -> Iterator[Hit]:
        decoders = self._decoders[event.request_id]
        decoder = decoders.get(event.choice)
        if decoder is None:
            sampling = self._watched[event.request_id].sampling
            decoder = decoders[event.choice] = self._text.decoder(sampling.stop, sampling.min_tokens)
        before = decoder.matched
        decoder.push(event.tokens)
        if decoder.matched is not None and before is None:
            yield Hit(event.request_id, event.choice, decoder.matched)
