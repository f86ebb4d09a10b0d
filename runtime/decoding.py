"""From token ids to text as they come, and where a stop string cuts it.

Owns one choice's decoding, in time linear in its length. The engine and the gateway run the same code, so that what
ended a choice there is what the text is cut at here. It must not know tokenizers: it is given each token's bytes.
"""

import codecs
from collections.abc import Iterable, Sequence


class TextDecoder:
    """pieces: the bytes of each token id, empty for control tokens. Ids beyond it stand for no text.

    stops: matched from the (min_tokens + 1)th token on. matched: the first that occurred, or None so far; of those
    that occur at once it is the one that begins first, then the one named first.
    """

    __slots__ = ("_count", "_held", "_min_tokens", "_pieces", "_stops", "_utf8", "matched")

    def __init__(self, pieces: Sequence[bytes], stops: Iterable[str] = (), min_tokens: int = 0) -> None:
        self._pieces, self._stops, self._min_tokens = pieces, tuple(stops), min_tokens
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._count = 0
        self.matched: str | None = None

    def push(self, tokens: Sequence[int]) -> str:
        """The text that these tokens make certain: whole characters, before anything that may yet become a stop."""
        pieces, size = self._pieces, len(self._pieces)
        if not self._stops:
            return self._utf8.decode(b"".join([pieces[t] for t in tokens if t < size]))
        return "".join([self._next(pieces[t] if t < size else b"") for t in tokens])

    def end(self, matched: str | None = None) -> str:
        """What was held back, cut before `matched`, the stop string that the engine says ended the choice."""
        text, self._held = self._held + self._utf8.decode(b"", final=True), ""
        return text if matched is None else text.partition(matched)[0]

    def _next(self, piece: bytes) -> str:
        text = self._utf8.decode(piece)
        self._count += 1
        if self._count <= self._min_tokens:
            return text
        self._held += text
        if self.matched is not None:
            return ""
        found = [(at, order) for order, stop in enumerate(self._stops) if (at := self._held.find(stop)) >= 0]
        if found:
            at, order = min(found)
            self.matched = self._stops[order]
        else:
            at = min(_beginning(self._held, stop) for stop in self._stops)
        text, self._held = self._held[:at], self._held[at:]
        return text


def _beginning(text: str, stop: str) -> int:
    """Where the longest proper beginning of `stop` that ends `text` starts; len(text) if there is none."""
    at = text.find(stop[0], max(0, len(text) - len(stop) + 1))
    while at >= 0:
        if stop.startswith(text[at:]):
            return at
        at = text.find(stop[0], at + 1)
    return len(text)
