"""From decoded pieces of a generation to the bytes of either endpoint's reply, streamed or whole.

Owns the order of chunks and what each carries. It must not know engines, tenants or sockets: pieces come in,
bytes go out.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
from msgspec import UNSET, UnsetType

from tenantry.platform.core.errors import PlatformError
from tenantry.platform.gateway import envelope
from tenantry.platform.gateway import replies as r
from tenantry.runtime.messages import TokenLogprob, Usage

TokenBytes = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Piece:
    """What one choice gained. text may be empty while a character or a stop string is only partly known."""

    choice: int
    text: str = ""
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] | None = None
    finish: r.FinishWord | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """What every chunk of one reply repeats. token_bytes: the bytes a token id stands for."""

    id: str
    created: int
    model: str
    token_bytes: TokenBytes
    prompt_ids: tuple[int, ...]
    choices: int = 1
    return_ids: bool = False
    include_usage: bool = False

    @property
    def prompt_echo(self) -> list[int] | UnsetType:
        return list(self.prompt_ids) if self.return_ids else UNSET

    def ids(self, tokens: Iterable[int]) -> list[int] | UnsetType:
        return list(tokens) if self.return_ids else UNSET

    @property
    def usage(self) -> UnsetType | None:
        """Every chunk says null when the last one will carry the counts."""
        return None if self.include_usage else UNSET

    def text(self, token: int) -> str:
        return self.token_bytes(token).decode("utf-8", "replace")


class Renderer(Protocol):
    """first, then piece for every gain, then last or failed; or whole, from all pieces at once."""

    def first(self) -> bytes: ...
    def piece(self, piece: Piece) -> bytes: ...
    def last(self, usage: Usage) -> bytes: ...
    def failed(self, error: PlatformError, request_id: str) -> bytes: ...
    def whole(self, pieces: Iterable[Piece], usage: Usage) -> bytes: ...


@dataclass(frozen=True, slots=True)
class ChatRenderer:
    head: Head

    def first(self) -> bytes:
        """The role of each choice, before any token."""
        choices = [r.ChatChunkChoice(i, r.Delta("assistant", "")) for i in range(self.head.choices)]
        return r.event(self._chunk(choices, prompt_token_ids=self.head.prompt_echo))

    def piece(self, piece: Piece) -> bytes:
        delta = r.Delta(content=piece.text) if piece.text or piece.finish is None else r.Delta()
        choice = r.ChatChunkChoice(
            piece.choice, delta, piece.finish, self._logprobs(piece.logprobs), self.head.ids(piece.tokens)
        )
        return r.event(self._chunk([choice]))

    def last(self, usage: Usage) -> bytes:
        tail = r.event(self._chunk([], usage=r.UsageReply.of(usage))) if self.head.include_usage else b""
        return tail + r.DONE

    def failed(self, error: PlatformError, request_id: str) -> bytes:
        return envelope.event(error, request_id)

    def whole(self, pieces: Iterable[Piece], usage: Usage) -> bytes:
        head = self.head
        choices = [
            r.ChatChoice(
                p.choice, r.ChatMessage(p.text), p.finish or "stop", self._logprobs(p.logprobs), head.ids(p.tokens)
            )
            for p in joined(pieces)
        ]
        counts = r.UsageReply.of(usage)
        return msgspec.json.encode(
            r.ChatCompletion(head.id, head.created, head.model, choices, counts, prompt_token_ids=head.prompt_echo)
        )

    def _chunk(
        self,
        choices: list[r.ChatChunkChoice],
        usage: r.UsageReply | None = None,
        prompt_token_ids: list[int] | UnsetType = UNSET,
    ) -> r.ChatChunk:
        head = self.head
        shown = usage if usage is not None else head.usage
        return r.ChatChunk(head.id, head.created, head.model, choices, usage=shown, prompt_token_ids=prompt_token_ids)

    def _logprobs(self, logprobs: tuple[TokenLogprob, ...] | None) -> r.ChatLogprobs | None:
        if logprobs is None:
            return None
        head = self.head
        return r.ChatLogprobs(
            [
                r.ChatTokenLogprob(
                    head.text(lp.token),
                    list(head.token_bytes(lp.token)),
                    lp.logprob,
                    [r.TopLogprob(head.text(t), list(head.token_bytes(t)), value) for t, value in lp.top],
                )
                for lp in logprobs
            ]
        )


@dataclass(frozen=True, slots=True)
class TextRenderer:
    head: Head
    _offsets: dict[int, int] = field(default_factory=dict)

    def first(self) -> bytes:
        """Nothing to say before the first token, unless the prompt's ids were asked for."""
        if not self.head.return_ids:
            return b""
        return r.event(self._reply([r.TextChoice(0, "", None)], self.head.usage, self.head.prompt_echo))

    def piece(self, piece: Piece) -> bytes:
        return r.event(self._reply([self._choice(piece, piece.finish)], self.head.usage))

    def last(self, usage: Usage) -> bytes:
        tail = r.event(self._reply([], r.UsageReply.of(usage))) if self.head.include_usage else b""
        return tail + r.DONE

    def failed(self, error: PlatformError, request_id: str) -> bytes:
        return envelope.event(error, request_id)

    def whole(self, pieces: Iterable[Piece], usage: Usage) -> bytes:
        choices = [self._choice(p, p.finish or "stop") for p in joined(pieces)]
        return msgspec.json.encode(self._reply(choices, r.UsageReply.of(usage), self.head.prompt_echo))

    def _choice(self, piece: Piece, finish: r.FinishWord | None) -> r.TextChoice:
        return r.TextChoice(
            piece.choice,
            piece.text,
            finish,
            self._logprobs(piece.choice, piece.logprobs),
            self.head.ids(piece.tokens),
        )

    def _reply(
        self,
        choices: list[r.TextChoice],
        usage: r.UsageReply | UnsetType | None,
        prompt_token_ids: list[int] | UnsetType = UNSET,
    ) -> r.TextCompletion:
        head = self.head
        return r.TextCompletion(
            head.id, head.created, head.model, choices, usage=usage, prompt_token_ids=prompt_token_ids
        )

    def _logprobs(self, choice: int, logprobs: tuple[TokenLogprob, ...] | None) -> r.TextLogprobs | None:
        if logprobs is None:
            return None
        head, offset, offsets = self.head, self._offsets.get(choice, 0), []
        for lp in logprobs:
            offsets.append(offset)
            offset += len(head.text(lp.token))
        self._offsets[choice] = offset
        return r.TextLogprobs(
            [head.text(lp.token) for lp in logprobs],
            [lp.logprob for lp in logprobs],
            [{head.text(t): value for t, value in lp.top} for lp in logprobs],
            offsets,
        )


@dataclass(frozen=True, slots=True)
class Muted:
    """Any renderer, of a request that generates only because an engine cannot do less than one token."""

    inner: Renderer

    def first(self) -> bytes:
        return self.inner.first()

    def piece(self, piece: Piece) -> bytes:
        return self.inner.piece(_muted(piece)) if piece.finish is not None else b""

    def last(self, usage: Usage) -> bytes:
        return self.inner.last(usage)

    def failed(self, error: PlatformError, request_id: str) -> bytes:
        return self.inner.failed(error, request_id)

    def whole(self, pieces: Iterable[Piece], usage: Usage) -> bytes:
        return self.inner.whole([_muted(piece) for piece in pieces if piece.finish is not None], usage)


def _muted(piece: Piece) -> Piece:
    return Piece(piece.choice, finish="stop")


def joined(pieces: Iterable[Piece]) -> list[Piece]:
    """One piece per choice, in order of choices."""
    gathered: dict[int, list[Piece]] = {}
    for piece in pieces:
        gathered.setdefault(piece.choice, []).append(piece)
    return [_join(choice, parts) for choice, parts in sorted(gathered.items())]


def _join(choice: int, parts: list[Piece]) -> Piece:
    logprobs = None
    if any(p.logprobs is not None for p in parts):
        logprobs = tuple(lp for p in parts for lp in p.logprobs or ())
    return Piece(
        choice,
        "".join(p.text for p in parts),
        tuple(t for p in parts for t in p.tokens),
        logprobs,
        next((p.finish for p in reversed(parts) if p.finish is not None), None),
    )
