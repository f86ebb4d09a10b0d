"""What the console's own routes say and hear. Owns the wire shapes and nothing else."""

from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec

from tenantry.platform.admin.activity import Told
from tenantry.platform.admin.browser import Issued
from tenantry.platform.admin.console import AdapterStats, Books, Impact, Overview, Resident
from tenantry.platform.admin.team import Member, Role
from tenantry.platform.core import ids, money
from tenantry.platform.core.errors import InvalidInput
from tenantry.platform.core.paging import Page
from tenantry.platform.core.recent import Pace
from tenantry.platform.core.settings import Settings
from tenantry.platform.fleet.report import Standing
from tenantry.platform.metering.rollups import Sums
from tenantry.platform.metering.schemas import HeadroomView
from tenantry.platform.tenants.acts import Kind
from tenantry.platform.tenants.schemas import ActorView, Me
from tenantry.runtime.config import Role as EngineRole

_FURTHEST = ("resident", "draining", "loading", "failed", "absent")


class SignIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Exactly one of them: an API key, or the secret of a sign-in link."""

    key: str | None = None
    link: str | None = None

    def check(self) -> None:
        if (self.key is None) == (self.link is None):
            raise InvalidInput("Send either key or link.", param="key")


class InstallationView(msgspec.Struct, frozen=True):
    """What holds for every tenant here. currency: by ISO 4217, what all money in every answer is in. support: where
    to ask for more, a mail address or a link; null: the operator has named nobody."""

    currency: str
    support: str | None
    object: Literal["installation"] = "installation"

    @classmethod
    def of(cls, settings: Settings) -> "InstallationView":
        return cls(settings.currency, settings.support)


class BrowserSessionView(msgspec.Struct, frozen=True):
    """The session itself is in an HttpOnly cookie. csrf_token: what every change must send as X-CSRF-Token."""

    csrf_token: str
    expires_at: datetime
    me: Me
    installation: InstallationView
    object: Literal["browser_session"] = "browser_session"


class SignInLink(msgspec.Struct, frozen=True):
    """path: on this gateway; works once. The secret is in the fragment, which browsers send to nobody."""

    path: str
    expires_at: datetime
    object: Literal["sign_in_link"] = "sign_in_link"

    @classmethod
    def of(cls, issued: Issued) -> "SignInLink":
        return cls(f"/admin/sign-in#{issued.token}", issued.expires_at)


class SignedOut(msgspec.Struct, frozen=True):
    object: Literal["signed_out"] = "signed_out"


class PaceView(msgspec.Struct, frozen=True):
    """Of this gateway. Rates: over the last minute. First tokens, in seconds: over the last quarter hour, null
    without a request in it. settled: a counter; when it moves, there is new usage."""

    running: int
    requests_per_second: float
    tokens_per_second: float
    first_token_p50: float | None
    first_token_p95: float | None
    first_token_samples: int
    settled: int
    engine_ready: bool
    object: Literal["pace"] = "pace"

    @classmethod
    def of(cls, pace: Pace, engine_ready: bool) -> "PaceView":
        return cls(
            pace.running, round(pace.requests_per_second, 3), round(pace.tokens_per_second, 2), pace.first_token_p50,
            pace.first_token_p95, pace.samples, pace.settled, engine_ready,
        )  # fmt: skip


class DayView(msgspec.Struct, frozen=True):
    """The last 24 hours' rollups."""

    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    drafted_tokens: int
    accepted_tokens: int
    cost: str

    @classmethod
    def of(cls, day: Sums) -> "DayView":
        return cls(
            day.requests, day.prompt, day.cached, day.completion, day.drafted, day.accepted, money.render(day.nano)
        )


class OverviewView(msgspec.Struct, frozen=True):
    """limits: null for all tenants together. unreconciled_tokens: of the whole installation's books, which must read
    0; null until the first reconciliation."""

    pace: PaceView
    day: DayView
    limits: HeadroomView | None
    adapters: int
    versions: dict[str, int]
    resident_versions: int
    unreconciled_tokens: int | None
    reconciled_at: datetime | None
    object: Literal["overview"] = "overview"

    @classmethod
    def of(cls, overview: Overview, books: Books, engine_ready: bool) -> "OverviewView":
        return cls(
            pace=PaceView.of(overview.pace, engine_ready),
            day=DayView.of(overview.day),
            limits=HeadroomView.of(overview.room) if overview.room is not None else None,
            adapters=overview.adapters,
            versions=overview.versions,
            resident_versions=overview.resident,
            unreconciled_tokens=books.last.unreconciled_tokens if books.last is not None else None,
            reconciled_at=books.at,
        )


class HoldingView(msgspec.Struct, frozen=True):
    """How a version stands on one engine. state: loading; resident (on its device); draining (retired, and still in
    use); failed (the last load did); absent (requests wait for room for it)."""

    engine: str
    state: str


class ResidentView(msgspec.Struct, frozen=True):
    """A version that some engine holds, or is about to. On those not named it is on disk alone. state: the furthest
    that it has come on any."""

    version: int
    state: str
    engines: list[HoldingView]

    @classmethod
    def of(cls, one: Resident) -> "ResidentView":
        state = min(one.states.values(), key=_FURTHEST.index)
        return cls(one.number, state, [HoldingView(engine, at) for engine, at in sorted(one.states.items())])


class EngineRef(msgspec.Struct, frozen=True):
    """An engine that answers here, for whoever may not see more of it. role: both, or the part of a request that it
    computes."""

    name: str
    role: EngineRole
    state: Standing


class AdapterStatsView(msgspec.Struct, frozen=True):
    """requests, cost: of the last 24 hours. first_token_p95, in seconds: of the last quarter hour."""

    adapter: str
    requests: int
    cost: str
    first_token_p95: float | None
    resident: list[ResidentView]
    object: Literal["adapter_stats"] = "adapter_stats"

    @classmethod
    def of(cls, adapter_id: UUID, stats: AdapterStats) -> "AdapterStatsView":
        held = [ResidentView.of(one) for one in stats.resident]
        name = ids.to_text("adapter", adapter_id)
        return cls(name, stats.requests, money.render(stats.nano), stats.first_token_p95, held)


class AdapterStatsList(msgspec.Struct, frozen=True):
    """engines: all there are, whether they hold any of these adapters or not."""

    data: list[AdapterStatsView]
    engines: list[EngineRef]
    object: Literal["list"] = "list"


class ImpactView(msgspec.Struct, frozen=True):
    """What an act would hit: requests under way, live keys, adapters, sessions whose next turn it would have answered
    (of a tenant: all), aliases, browsers signed in."""

    requests_in_flight: int
    keys: int
    adapters: int
    sessions: int
    aliases: list[str]
    browser_sessions: int
    object: Literal["impact"] = "impact"

    @classmethod
    def of(cls, impact: Impact) -> "ImpactView":
        return cls(impact.requests, impact.keys, impact.adapters, impact.sessions, impact.aliases, impact.browsers)


class ActView(msgspec.Struct, frozen=True):
    """actor: who did it, null where no key is known. tenant: whose it was done to, null for one's own."""

    id: str
    at: datetime
    kind: Kind
    subject: str
    detail: str
    reason: str
    actor: ActorView | None
    tenant: str | None
    object: Literal["act"] = "act"

    @classmethod
    def of(cls, act: Told) -> "ActView":
        actor = ActorView.of(act.actor) if act.actor is not None else None
        name = ids.to_text("event", act.id)
        return cls(name, act.at, act.kind, act.subject, act.detail, act.reason, actor, act.tenant)


class Invite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """name: what others know the person by. role: admin (everything in the tenant), manager (everything but asking
    models), or member (asking models alone)."""

    name: str
    role: Role = "member"


class MemberView(msgspec.Struct, frozen=True):
    """key: what the person signs in with; revoking it removes them. browsers: signed in now. last_signed_in_at: null
    if never, or so long ago that the session is forgotten."""

    key: str
    name: str
    role: Role
    created_at: datetime
    last_signed_in_at: datetime | None
    browsers: int
    object: Literal["member"] = "member"

    @classmethod
    def of(cls, member: Member) -> "MemberView":
        key = ids.to_text("key", member.key_id)
        return cls(key, member.name, member.role, member.created_at, member.last_signed_in_at, member.browsers)


class MemberPage(Page, frozen=True, kw_only=True):
    data: list[MemberView]


class InvitationView(msgspec.Struct, frozen=True):
    """link: signs one browser in, once. secret: the person's own key, for every later time. Neither is kept."""

    member: MemberView
    link: SignInLink
    secret: str
    object: Literal["invitation"] = "invitation"


class ActPage(Page, frozen=True, kw_only=True):
    data: list[ActView]
