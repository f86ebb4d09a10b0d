"""What crosses between the gateway's client and the engine's worker, and nothing else.

Owns the wire structs (msgpack, tagged, closed: an unknown field or tag is refused). Token ids only: text,
tenants, names and prices stay on the other side. `receipt` is opaque to the runtime and is copied into the
journal so that the platform can bill a request whose own row was lost.
"""

from typing import Literal

import msgspec

from tenantry.runtime.counts import Guessing, Stats

FinishReason = Literal["stop", "length", "abort", "error"]


class Sampling(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How tokens are drawn and when a choice ends. Bounds are checked by the gateway and again by the engine.

    seed: int64; noise for choice c at absolute position p is keyed by (seed, c, p) alone.
    top_k: 0 keeps all. temperature 0 is greedy. logprobs: None for none, else how many top alternatives (0-20).
    stop: strings, matched by the engine on decoded text so that counting is exact. stop_token_ids end a choice
    and are counted; with ignore_eos the model's own end tokens do not end it.
    """

    max_tokens: int
    min_tokens: int = 0
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None


class Submit(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Run one request. `namespace` is Namespace.key; `adapter` a 32-byte AdapterDigest, or None for the base.

    share_key: opaque; requests with equal keys share one fair share, and with "tenant/key" the shares of a tenant's
    keys are parts of the tenant's. weight: how large the tenant's share is beside others'. priority: higher goes
    first among the requests of its own tenant, and never before another tenant's. deadline: seconds from receipt
    after which a request that has not started is refused, at once if that can be foreseen; 0 for none. speculate:
    False computes every token by itself, which changes speed and cost and never the text. session: opaque key
    of a conversation, or empty: its KV is kept for keep_s seconds after the request has ended, before that of others;
    pin: longest of all. attempt: how often it was given to another engine before, without a token coming of it; the
    journal of the highest attempt is the request's. expect: another engine computes the prompt, and Take or Compute
    will follow. hand_off: compute the prompt for another engine, and answer with HandedOver.
    """

    request_id: str
    prompt: tuple[int, ...]
    sampling: Sampling
    namespace: bytes
    adapter: bytes | None
    share_key: str
    receipt: bytes = b""
    deadline: float = 0.0
    speculate: bool = True
    priority: int = 0
    weight: float = 1.0
    session: bytes = b""
    keep_s: float = 0.0
    pin: bool = False
    attempt: int = 0
    expect: bool = False
    hand_off: bool = False

    @property
    def tenant(self) -> str:
        """share_key up to its first "/": whose share, pages and places these are."""
        return self.share_key.partition("/")[0]


class Abort(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Stop a request. Answered by Finished with reason "abort" unless it ended first; unknown ids are ignored."""

    request_id: str


class WarmAdapter(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Load an adapter before anyone asks for it."""

    digest: bytes


class DropAdapter(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Let go of a retired adapter as soon as no request uses it, with all KV computed under it."""

    digest: bytes


class KeepSession(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Keep the KV of a session's last turn so long from now on (Submit.keep_s, pin). Unknown ones are ignored."""

    session: bytes
    keep_s: float = 0.0
    pin: bool = False


class DropSession(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Forget a session's KV in every tier, as far as no other session has it. Unknown ones are ignored."""

    session: bytes


class DropNamespace(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Forget all KV of a namespace in every tier, and refuse what waits in it. What runs in it ends by itself, or at
    once with abort."""

    namespace: bytes
    abort: bool = False


class DropTenant(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Forget all KV of a tenant in every tier. tenant: a share_key up to its first "/". abort: end its requests."""

    tenant: str
    abort: bool = False


class Ping(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Keeps the client's lease: a client silent for CLIENT_LEASE_S has its requests aborted. Answered by Pong."""


class AskGuesses(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """What guessing did so far. Answered by Guesses with the same `ask`."""

    ask: str


MAX_REJECTED_PER_TOKEN = 16
"""The engine's promise to whoever pays: so many guesses may fall for each token that is generated, and no more."""


class Usage(msgspec.Struct, frozen=True, array_like=True):
    """Token counts, made by the engine alone. cached counts prompt tokens whose KV was found, not computed.

    completion counts every generated token of every choice, end tokens included. drafted counts guesses that were
    computed for the request, accepted those of them that became its tokens: what stood beyond the end of a choice
    did not. The rest was rejected: at most MAX_REJECTED_PER_TOKEN of each completion token. cached_host, cached_disk:
    those of cached whose KV came back from host memory, and from disk; the device had the others.
    """

    prompt: int = 0
    cached: int = 0
    completion: int = 0
    drafted: int = 0
    accepted: int = 0
    cached_host: int = 0
    cached_disk: int = 0

    @property
    def rejected(self) -> int:
        return self.drafted - self.accepted


BILLED = ("prompt", "cached", "completion", "drafted", "accepted")
"""Fields of Usage that have a price, and so are in every ledger. Where a cached token was found costs nobody more."""


class PageDigest(msgspec.Struct, frozen=True, array_like=True):
    """One page of KV. name: of the namespace and all tokens up to its last (runtime/disagg/names.py), so the reader
    knows it beforehand. checksum: of its bytes."""

    name: bytes
    checksum: bytes


class HandOff(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A computed prompt, on its way to the engine that decodes it: whole pages of KV from its beginning on.

    segment: where their bytes lie, one page after another. page_format: how a page is made; only equal ones can be
    read. sampling, with its seed, is all the sampler state there is before the first token, since noise is keyed by
    seed, choice and position. There is no draft state: proposers catch up from the text. usage: counters so far.
    """

    namespace: bytes
    adapter: bytes | None
    sampling: Sampling
    usage: Usage
    page_format: str
    segment: str
    page_bytes: int
    pages: tuple[PageDigest, ...]


class Take(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """The prompt of an expected request is computed. What is wrong with it is computed again."""

    request_id: str
    hand_off: HandOff


class Compute(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Nothing will come for an expected request: compute its prompt here."""

    request_id: str


class Release(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """What was handed over for this request has been taken, or never will be."""

    request_id: str


Command = (
    Submit | Abort | WarmAdapter | DropAdapter | KeepSession | DropSession | DropNamespace | DropTenant | Ping
    | AskGuesses | Take | Compute | Release
)  # fmt: skip


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True):
    """Log-probability of a drawn token under the unmodified distribution, and the most likely alternatives."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class Tokens(msgspec.Struct, frozen=True, tag=True):
    """New token ids of one choice, in order. logprobs is as long as tokens, or None."""

    request_id: str
    choice: int
    tokens: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] | None = None


class ChoiceFinished(msgspec.Struct, frozen=True, tag=True):
    """A choice ended. matched: the stop string or stop token id that ended it, if one did."""

    request_id: str
    choice: int
    reason: FinishReason
    matched: str | int | None = None


class Finished(msgspec.Struct, frozen=True, tag=True):
    """The one terminal event of an accepted request, after which the engine holds nothing of it."""

    request_id: str
    usage: Usage
    reason: FinishReason
    message: str = ""


class Refused(msgspec.Struct, frozen=True, tag=True):
    """The one terminal event of a request that never ran. code is a RuntimeRefusal's. retry_ms: when the same request
    would most likely be taken; 0 if that is not known, or if it never would."""

    request_id: str
    code: str
    message: str
    param: str | None = None
    retry_ms: int = 0


class HandedOver(msgspec.Struct, frozen=True, tag=True):
    """The one terminal event of a hand_off request whose prompt is computed."""

    request_id: str
    hand_off: HandOff


class Pong(msgspec.Struct, frozen=True, tag=True):
    """Answer to Ping. `epoch` names this life of the engine; `progress` moves while anything runs."""

    epoch: str
    progress: int
    ready: bool
    stats: Stats


class Guesses(msgspec.Struct, frozen=True, tag=True):
    """Of the namespaces that were used last."""

    ask: str
    counts: tuple[Guessing, ...]


Event = Tokens | ChoiceFinished | Finished | Refused | HandedOver | Pong | Guesses


class Events(msgspec.Struct, frozen=True):
    """One frame upwards: everything one client is to hear of one step."""

    events: tuple[Event, ...]


MAX_FRAME_BYTES = 16 << 20
CLIENT_LEASE_S = 5.0
