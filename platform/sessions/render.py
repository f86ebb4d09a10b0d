"""From decoded pieces of a generation to a response of the Responses API, streamed with its events or whole.

Owns the order of events and their sequence numbers. Like chat's renderers it sees pieces and bytes alone; what
becomes of the finished item is the turn's business (see turns.py).
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from tenantry.platform.core import ids
from tenantry.platform.core.errors import PlatformError
from tenantry.platform.gateway.render import Piece, TokenBytes, joined
from tenantry.platform.sessions import replies as r
from tenantry.platform.sessions.items import Message, part_of
from tenantry.platform.sessions.models import Counts, Item
from tenantry.runtime.messages import TokenLogprob, Usage

_encoder = msgspec.json.Encoder()


class ResponseRenderer:
    """One response. draft: it, as it stands before its first token. clock: seconds since the epoch.

    logprobs: whether they were asked for. silent: there is no output. end: when it was finished, once anybody needed
    to know.
    """

    def __init__(
        self,
        draft: r.Response,
        token_bytes: TokenBytes,
        clock: Callable[[], float],
        logprobs: bool = False,
        silent: bool = False,
    ) -> None:
        self._draft = draft
        self._token_bytes = token_bytes
        self._clock = clock
        self._logprobs = logprobs
        self._silent = silent
        self._item_id: UUID = ids.uuid7()
        self._sequence = 0
        self._pieces: list[Piece] = []
        self._end: datetime | None = None

    @property
    def end(self) -> datetime:
        if self._end is None:
            self._end = datetime.fromtimestamp(int(self._clock()), UTC)
        return self._end

    def item(self, pieces: Iterable[Piece]) -> Item:
        """The message that was generated."""
        found = joined(pieces)
        piece = found[0] if found else Piece(0)
        part = part_of("assistant", piece.text)
        if self._logprobs:
            part["logprobs"] = [self._logprob(lp, True) for lp in piece.logprobs or ()]
        status = "incomplete" if piece.finish == "length" else "completed"
        return Item(self._item_id, "assistant", [part], status, True)  # type: ignore[arg-type]

    def result(self, pieces: Iterable[Piece], usage: Usage) -> r.Response:
        items = [] if self._silent else [self.item(pieces)]
        return finished(self._draft, items, self.end, r.Usage.of(counts_of(usage)))

    def first(self) -> bytes:
        kinds = ("response.created", "response.in_progress")
        begun = b"".join(self._event(kind, response=self._draft) for kind in kinds)
        if self._silent:
            return begun
        message = Message(ids.to_text("item", self._item_id), "assistant", [], "in_progress")
        begun += self._event("response.output_item.added", output_index=0, item=message)
        return begun + self._at("response.content_part.added", part=part_of("assistant", ""))

    def piece(self, piece: Piece) -> bytes:
        self._pieces.append(piece)
        if not piece.text and not (self._logprobs and piece.logprobs):
            return b""
        shown = [self._logprob(lp, False) for lp in piece.logprobs or ()] if self._logprobs else []
        return self._at("response.output_text.delta", delta=piece.text, logprobs=shown)

    def last(self, usage: Usage) -> bytes:
        response = self.result(self._pieces, usage)
        end = f"response.{response.status}"
        if self._silent:
            return self._event(end, response=response)
        message = response.output[0]
        part = message.content[0]
        return b"".join(
            (
                self._at("response.output_text.done", text=part["text"], logprobs=part.get("logprobs", [])),
                self._at("response.content_part.done", part=part),
                self._event("response.output_item.done", output_index=0, item=message),
                self._event(end, response=response),
            )
        )

    def failed(self, error: PlatformError, request_id: str) -> bytes:
        """The last event when a stream that began cannot end well; nothing of it was stored."""
        failure = r.Failure(error.message, error.code)
        return self._event(
            "response.failed", response=msgspec.structs.replace(self._draft, status="failed", error=failure)
        )

    def cancelled(self) -> r.Response:
        """What there is to say of a response that was stopped."""
        return msgspec.structs.replace(self._draft, status="cancelled")

    def whole(self, pieces: Iterable[Piece], usage: Usage) -> bytes:
        return _encoder.encode(self.result(pieces, usage))

    def _at(self, kind: str, **fields: Any) -> bytes:
        return self._event(
            kind, item_id=ids.to_text("item", self._item_id), output_index=0, content_index=0, **fields
        )

    def _event(self, kind: str, **fields: Any) -> bytes:
        data = _encoder.encode(r.StreamEvent(type=kind, sequence_number=self._sequence, **fields))
        self._sequence += 1
        return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"

    def _logprob(self, lp: TokenLogprob, whole: bool) -> dict[str, Any]:
        top = [self._token(token, value, whole) for token, value in lp.top]
        return {**self._token(lp.token, lp.logprob, whole), "top_logprobs": top}

    def _token(self, token: int, logprob: float, whole: bool) -> dict[str, Any]:
        """Stored items hold the bytes too; events do not."""
        raw = self._token_bytes(token)
        shown: dict[str, Any] = {"token": raw.decode("utf-8", "replace"), "logprob": logprob}
        return {**shown, "bytes": list(raw)} if whole else shown


def counts_of(usage: Usage) -> Counts:
    return Counts(usage.prompt, usage.cached, usage.completion, usage.cached_host, usage.cached_disk)


def finished(draft: r.Response, output: list[Item], end: datetime, usage: r.Usage) -> r.Response:
    """A response that came to its end. It is incomplete when its message is."""
    cut = any(item.status == "incomplete" for item in output)
    return msgspec.structs.replace(
        draft,
        status="incomplete" if cut else "completed",
        output=[Message.of(item) for item in output],
        completed_at=None if cut else int(end.timestamp()),
        incomplete_details=r.Reason() if cut else None,
        usage=usage,
    )
