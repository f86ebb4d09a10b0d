"""Who is owed service: weighted virtual token counters for tenants, and inside a tenant for its keys.

Owns the counters, what work costs in them, and the level at which the idle return. After VTC (Sheng et al., Fairness
in Serving Large Language Models, OSDI 2024); the level is self-clocked fair queueing's (Golestani 1994), so that not
even an endless stream of new tenants starves an old one. It must not know requests' contents, pages or queues.

Bound. While two tenants both wait without a pause, neither is served more than 2 U virtual tokens (per weight) beyond
the other, and a credit more if it had been served less before: whoever starts was the lowest, and until it is the
lowest again it is charged for no more than U, what its running sequences can still come to: each token charged once,
with the guesses that may fall for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from heapq import nlargest, nsmallest
from typing import TYPE_CHECKING

from tenantry.runtime.config import COMPUTE_TOKENS_S, LOAD_BYTES_S
from tenantry.runtime.counts import TenantShare

if TYPE_CHECKING:
    from tenantry.runtime.scheduler.request import Request

MOST_TOLD = 16
KNOWN = 256  # flows, beyond which idle ones are forgotten
COMPANY_S = 60.0  # for which a tenant that sends nothing is taken to come back


@dataclass(frozen=True, slots=True)
class Prices:
    """Virtual tokens for each prompt token computed, each token drawn, each guess that fell, each byte of an adapter
    that is loaded for a request, and for holding the whole pool of pages for one second. credit: virtual tokens that
    a tenant may be served before others when it comes back."""

    prompt: float = 1.0
    decode: float = 2.0  # VTC's: a drawn token takes a row of a step for itself
    rejected: float = 1.0
    adapter_byte: float = COMPUTE_TOKENS_S / LOAD_BYTES_S
    pool_s: float = COMPUTE_TOKENS_S / 4
    credit: float = 4096.0  # some requests of usual size, and a second or two of a small machine


class Flow:
    """A tenant, or one of its keys. counter: virtual tokens over weight. turn: when it last had its turn. waiting,
    running: its requests that have not started, and its sequences that hold pages. prompt, decode: tokens that its
    waiting requests will compute and may draw. live: its requests, whatever they do. inside: of a tenant, its keys.
    work: of a tenant, virtual tokens charged to it since it is known.
    """

    __slots__ = (
        "counter", "decode", "inside", "live", "name", "prompt", "running", "turn", "waiting", "weight", "work",
    )  # fmt: skip

    def __init__(self, name: str, inside: "Shares | None" = None) -> None:
        self.name = name
        self.weight = 1.0
        self.counter = self.work = 0.0
        self.turn = 0
        self.live = self.waiting = self.running = self.prompt = self.decode = 0
        self.inside = inside

    @property
    def order(self) -> tuple[float, int]:
        """Lowest first; of equals, whose last turn is longest ago."""
        return self.counter, self.turn


class Shares:
    """Flows that share one thing. level: where the last turn ended, below which nobody returns from idleness by more
    than credit."""

    def __init__(self, credit: float = 0.0) -> None:
        self.flows: dict[str, Flow] = {}
        self.credit = credit
        self.level = 0.0
        self._turns = 0

    def opened(self, name: str, parent: bool) -> Flow:
        """One more live request of this flow."""
        flow = self.flows.get(name)
        if flow is None:
            flow = self.flows[name] = Flow(name, Shares(self.credit) if parent else None)
        flow.live += 1
        return flow

    def closed(self, flow: Flow) -> None:
        """One less. Of too many, half are forgotten, as far as they have none and would gain nothing by it: those
        that were served least, since people ask after the others (told)."""
        flow.live -= 1
        if not flow.live and len(self.flows) > KNOWN:
            idle = [f for f in self.flows.values() if not f.live and f.counter <= self.level]
            for least in nsmallest(len(self.flows) - KNOWN // 2, idle, key=lambda f: f.work):
                del self.flows[least.name]

    def join(self, flow: Flow) -> None:
        """Its first request waits: what it did not use while it had none is nobody's debt, but for its credit, which
        serves the bursts of who asks for little before those who always ask. Only who is known has it, or there would
        be no end to newcomers; and it comes back only as others are served (the sleepers of Linux's CFS)."""
        lowest = min((f.counter for f in self.flows.values() if f.waiting), default=self.level)
        credit = self.credit if flow.turn else 0.0
        flow.counter = max(flow.counter, max(lowest, self.level) - credit)

    def turned(self, flow: Flow) -> None:
        """One of its requests has started, and its first chunk is charged."""
        self._turns += 1
        flow.turn = self._turns
        self.level = max(self.level, flow.counter)


class Ledger:
    """Both levels, and the charging. Every call is about one request; `opened` gives it its flows."""

    def __init__(self, prices: Prices | None = None) -> None:
        self.prices = prices or Prices()
        self.tenants = Shares(self.prices.credit)
        self._last: dict[str, float] = {}  # the two tenants that sent something last, and when

    def company(self, now: float) -> bool:
        """Whether more than one tenant sent something within the last COMPANY_S."""
        return len(self._last) > 1 and now - min(self._last.values()) <= COMPANY_S

    def opened(self, request: "Request") -> None:
        """share_key is "tenant" or "tenant/key"."""
        tenant, _, key = request.submit.share_key.partition("/")
        self._last.pop(tenant, None)
        self._last[tenant] = request.arrived
        while len(self._last) > 2:
            del self._last[next(iter(self._last))]
        request.tenant = self.tenants.opened(tenant, True)
        request.tenant.weight = request.submit.weight
        assert request.tenant.inside is not None
        request.key = request.tenant.inside.opened(key, False)

    def closed(self, request: "Request") -> None:
        """It has ended, whether it ran or not."""
        assert request.tenant.inside is not None
        request.tenant.inside.closed(request.key)
        self.tenants.closed(request.tenant)

    def waits(self, request: "Request") -> None:
        self._counted(request, 1)

    def waits_no_more(self, request: "Request") -> None:
        self._counted(request, -1)

    def turned(self, request: "Request") -> None:
        """It has started, and what it takes in this step is charged."""
        assert request.tenant.inside is not None
        self.tenants.turned(request.tenant)
        request.tenant.inside.turned(request.key)

    def charge(self, request: "Request", units: float) -> None:
        """Virtual tokens of work that was done, or will have been when the step in the making ends."""
        request.tenant.counter += units / request.tenant.weight
        request.tenant.work += units
        request.key.counter += units

    def told(self, ready: Mapping[Flow, int], most: int = MOST_TOLD) -> tuple[TenantShare, ...]:
        """For people: tenants that have requests, then those that were served most. ready: sequences that wait for
        pages, by tenant."""
        tenants = self.tenants
        known = [
            (flow.live > 0, flow.work, TenantShare(
                flow.name, flow.weight, flow.waiting + ready.get(flow, 0), flow.running, flow.work,
                flow.counter - tenants.level,
            ))
            for flow in tenants.flows.values()
        ]  # fmt: skip
        return tuple(share for _, _, share in nlargest(most, known, key=lambda one: one[:2]))

    def _counted(self, request: "Request", by: int) -> None:
        tenant = request.tenant
        assert tenant.inside is not None
        for shares, flow in ((self.tenants, tenant), (tenant.inside, request.key)):
            if by > 0 and not flow.waiting:
                shares.join(flow)
            flow.waiting += by
            flow.prompt += by * request.prompt_length
            flow.decode += by * request.most_drawn
