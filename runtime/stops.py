"""Stop strings, watched on decoded text as tokens come, so that the engine ends a choice at the very token.

Owns a decoder per choice that has stop strings, and none for the others. It must not know schedules or sockets.
"""

from collections.abc import Sequence

from tenantry.runtime.messages import Submit
from tenantry.runtime.scheduler.finish import Hit
from tenantry.runtime.text import TextDecoder, TextModel


class StopWatch:
    def __init__(self, text: TextModel) -> None:
        self._text = text
        self._watched: dict[str, Submit] = {}
        self._decoders: dict[str, dict[int, TextDecoder]] = {}

    def open(self, submit: Submit) -> None:
        """Watch a request, if it has stop strings, until close()."""
        if submit.sampling.stop:
            self._watched[submit.request_id] = submit
            self._decoders[submit.request_id] = {}

    def close(self, request_id: str) -> None:
        """The request has ended. Unknown ids are ignored."""
        if request_id in self._watched:
            del self._watched[request_id], self._decoders[request_id]

    def feed(self, request_id: str, choice: int, tokens: Sequence[int]) -> Hit | None:
        """The next tokens of a choice; the first of them that completes a stop string, if one does."""
        watched = self._watched.get(request_id)
        if watched is None:
            return None
        decoders = self._decoders[request_id]
        decoder = decoders.get(choice)
        if decoder is None:
            decoder = decoders[choice] = self._text.decoder(watched.sampling.stop, watched.sampling.min_tokens)
        for kept, token in enumerate(tokens, start=1):
            decoder.push((token,))
            if decoder.matched is not None:
                return Hit(kept, decoder.matched)
        return None
