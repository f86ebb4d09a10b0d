"""The whole contract between the scheduler and the model runner: one StepPlan down, one StepResult up.

Plain frozen data over ints and bytes; neither side keeps a reference to the other. The sequences inside are
the scheduler's own lists, lent for the length of one step: the runner reads them and must not keep them.
What is made once per row is a msgspec.Struct: it costs a tenth of a frozen dataclass (0.14 against 1.2 us).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from tenantry.runtime.messages import Sampling, TokenLogprob
from tenantry.runtime.speculative.tree import DraftTree


class Draw(msgspec.Struct, frozen=True):
    """Draw one token after a row's last position.

    position: absolute position of the token to be drawn. choice: index of the choice within its request.
    history: all token ids before it; the first prompt_length of them are the prompt (for penalties).
    forbidden: ids that may not be drawn now (end tokens while min_tokens is not reached).
    """

    sampling: Sampling
    choice: int
    position: int
    prompt_length: int
    history: Sequence[int]
    forbidden: tuple[int, ...] = ()


def after(draw: Draw, tokens: Sequence[int], with_text: bool = True) -> Draw:
    """The draw that follows when `tokens` come after the text first: guesses on the way to a node of a draft.

    with_text: False leaves the history as it is and spares its copy, for who does not read it.
    """
    if not tokens:
        return draw
    position = draw.position + len(tokens)
    early = position - draw.prompt_length < draw.sampling.min_tokens
    return Draw(
        draw.sampling,
        draw.choice,
        position,
        draw.prompt_length,
        [*draw.history, *tokens] if with_text else draw.history,
        draw.forbidden if early else (),
    )


class Row(msgspec.Struct, frozen=True):
    """One sequence's work in one step.

    sequence: engine-local id, stable for the life of the sequence. tokens: ids to compute, at absolute positions
    start .. start+len(tokens)-1. pages: block table; pages[i] holds positions [i*page_size, (i+1)*page_size) and
    covers every position up to the last. Positions before start are already in those pages. adapter: digest of
    the adapter, resident by the time the plan runs, or None. draw: None while a prompt is only partly computed.
    draft: guesses at what follows the last token, to be judged in this step; pages cover one position for each of
    them after the row's own, node by node, and what stands of it lies at its own positions when the step has ended.
    ahead: levels that the runner may guess for the next step, with `nodes` nodes at most (no more than levels: a
    chain); pages cover one position for each node as well, after the tokens drawn. All only where draw is not None.
    follow: whether a proposer of the runner computes all of this text, a prompt at once; else it keeps the last of it
    only, and guesses from that.
    """

    sequence: int
    tokens: Sequence[int]
    start: int
    pages: Sequence[int]
    adapter: bytes | None
    draw: Draw | None
    draft: DraftTree | None = None
    ahead: int = 0
    nodes: int = 0
    follow: bool = True


class Load(msgspec.Struct, frozen=True):
    """Bring an adapter in. extents: the runs of blocks (first, count) that are its own from now until it is evicted
    or its load has failed; none where adapters' memory is not the arena's."""

    digest: bytes
    extents: tuple[tuple[int, int], ...] = ()


class DiskPage(msgspec.Struct, frozen=True):
    """A page on its way between a host slot and disk. op: names the transfer, for its end. tenant: whose page it is,
    opaque. key: the page's name, made of the name before it (parent) and its tokens (cache/names.py). session: the
    tag of the session that first kept it, or empty."""

    op: int
    slot: int
    tenant: str
    namespace: bytes
    weights: bytes | None
    key: bytes
    parent: bytes
    tokens: bytes
    session: str = ""


class Erase(msgspec.Struct, frozen=True):
    """Pages that disk is to forget: one, or with key None all of a namespace."""

    tenant: str
    namespace: bytes
    weights: bytes | None
    key: bytes | None
    session: str = ""


@dataclass(frozen=True, slots=True)
class Copies:
    """Pages between tiers. released: host slots that need no memory until they are written again, before all else.
    saves: (page, host slot), before all else in the step, moves included. restores: (host slot, page), after moves
    and before rows. The others go on off the step's path, erases before stores and after all stores of earlier plans.
    A later StepResult tells how fetches and stores ended."""

    saves: tuple[tuple[int, int], ...] = ()
    restores: tuple[tuple[int, int], ...] = ()
    fetches: tuple[DiskPage, ...] = ()
    stores: tuple[DiskPage, ...] = ()
    erases: tuple[Erase, ...] = ()
    released: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.saves or self.restores or self.fetches or self.stores or self.erases or self.released)


NO_COPIES = Copies()

CopyEnd = Literal["done", "missing", "bad", "failed"]
"""missing: not on disk. bad: its file is not what it ought to be. failed: the disk refused."""


@dataclass(frozen=True, slots=True)
class Copied:
    """fetched, stored: transfers that ended since the last result, by op. fetch_s: seconds that a fetch took, 0 if
    none was measured."""

    fetched: tuple[tuple[int, CopyEnd], ...] = ()
    stored: tuple[tuple[int, CopyEnd], ...] = ()
    fetch_s: float = 0.0

    def __add__(self, other: "Copied") -> "Copied":
        return Copied(self.fetched + other.fetched, self.stored + other.stored, self.fetch_s or other.fetch_s)


NOTHING_COPIED = Copied()


class Arrival(msgspec.Struct, frozen=True):
    """Write pages that another engine has computed. source: their bytes, one page after another."""

    request_id: str
    pages: Sequence[int]
    source: memoryview


class Departure(msgspec.Struct, frozen=True):
    """Once the step's rows are computed, read pages for another engine. target: room for their bytes."""

    request_id: str
    pages: Sequence[int]
    target: memoryview


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One forward pass. evict: digests; they go before all else in the step but saves. moves: then pages are copied,
    (from, to), all read before any is written; rows name the new ids. load: then loads are started, off the step's
    own path, and a later StepResult tells how they ended. copies: see there. arrivals: after moves, before rows;
    departures: after rows. A plan may have no rows: it then only carries these, or asks which loads and copies have
    ended."""

    step: int
    rows: tuple[Row, ...]
    load: tuple[Load, ...] = ()
    evict: tuple[bytes, ...] = ()
    moves: tuple[tuple[int, int], ...] = ()
    copies: Copies = NO_COPIES
    arrivals: tuple[Arrival, ...] = ()
    departures: tuple[Departure, ...] = ()


class RowResult(msgspec.Struct, frozen=True):
    """tokens: ids drawn for the row (empty when its draw is None). fault: why this row alone failed, if so
    (non-finite logits); a faulty row has no tokens and its pages must never be shared.

    accepted: how many of the tokens were guesses that stand: the first ones, whose KV is in place. proposal: guesses
    at what follows the tokens, if the runner has a proposer of its own.
    """

    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] | None = None
    fault: str | None = None
    accepted: int = 0
    proposal: DraftTree | None = None


@dataclass(frozen=True, slots=True)
class StepResult:
    """rows: aligned with plan.rows. loaded, failed: adapter loads that ended since the last result. seconds: how long
    the rows took, guessing for the next step apart; guessing_seconds: that. Both 0 when nobody measured. held: pieces
    of those loaded that occupy less than their footprint (cache/extents.py says where then). arrived, departed: by
    request, what was written and read; what is not among them was not."""

    rows: tuple[RowResult, ...]
    loaded: tuple[bytes, ...] = ()
    failed: tuple[tuple[bytes, str], ...] = ()
    seconds: float = 0.0
    guessing_seconds: float = 0.0
    held: Mapping[bytes, tuple[int, ...]] = field(default_factory=dict)
    copied: Copied = NOTHING_COPIED
    arrived: tuple[str, ...] = ()
    departed: tuple[str, ...] = ()
