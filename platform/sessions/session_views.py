"""What /api/v1/sessions says and hears: sessions with what their turns cost, and one turn at a time.

Owns the shapes. Text is never in them: who may read it reads it from /v1.
"""

from datetime import datetime
from typing import Literal

import msgspec

from tenantry.platform.core import ids, money
from tenantry.platform.core.paging import Page
from tenantry.platform.sessions.models import Kind, Policy, Response, Session, Status, Totals


class SessionSummary(msgspec.Struct, frozen=True, kw_only=True):
    """conversation: its id under /v1, if it is one. model, version, digest: what answers the next turn under `pin`,
    and answered the last one under `follow`; null before the first turn. cache_ttl_s: how long its KV is kept after
    a turn; cache_pinned: that it gives way last. computed_tokens: of the prompts, those whose KV was not found."""

    id: str
    kind: Kind
    conversation: str | None
    model: str | None
    version: int | None
    digest: str | None
    version_policy: Policy
    cache_ttl_s: int
    cache_pinned: bool
    busy: bool
    metadata: dict[str, str]
    turns: int
    prompt_tokens: int
    cached_tokens: int
    cached_host_tokens: int
    cached_disk_tokens: int
    computed_tokens: int
    generated_tokens: int
    cost: str
    created_at: datetime
    last_at: datetime
    expires_at: datetime
    object: Literal["session"] = "session"

    @classmethod
    def of(cls, session: Session, totals: Totals) -> "SessionSummary":
        version = session.version
        return cls(
            id=ids.to_text("session", session.id),
            kind=session.kind,
            conversation=ids.to_text("conversation", session.id) if session.kind == "conversation" else None,
            model=session.model,
            version=version.number if version else None,
            digest=version.digest.hex() if version else None,
            version_policy=session.policy,
            cache_ttl_s=session.keep_s,
            cache_pinned=session.pinned,
            busy=session.busy,
            metadata=session.metadata,
            turns=totals.turns,
            prompt_tokens=totals.prompt,
            cached_tokens=totals.cached,
            cached_host_tokens=totals.cached_host,
            cached_disk_tokens=totals.cached_disk,
            computed_tokens=totals.prompt - totals.cached,
            generated_tokens=totals.completion,
            cost=money.render(totals.nano),
            created_at=session.created_at,
            last_at=session.last_at,
            expires_at=session.expires_at,
        )


class SessionPage(Page, frozen=True, kw_only=True):
    data: list[SessionSummary]


class TurnView(msgspec.Struct, frozen=True, kw_only=True):
    """One response. previous: the one it continued, where it was not simply the conversation's next turn. Of the
    cached tokens, those that came back from host memory and from disk are told beside; the device had the others."""

    id: str
    previous: str | None
    in_conversation: bool
    status: Status
    model: str
    version: int | None
    digest: str | None
    prompt_tokens: int
    cached_tokens: int
    cached_host_tokens: int
    cached_disk_tokens: int
    computed_tokens: int
    generated_tokens: int
    cost: str
    created_at: datetime
    completed_at: datetime
    object: Literal["session.turn"] = "session.turn"

    @classmethod
    def of(cls, response: Response) -> "TurnView":
        counts, version = response.counts, response.version
        return cls(
            id=ids.to_text("response", response.id),
            previous=ids.to_text("response", response.previous_id) if response.previous_id else None,
            in_conversation=response.in_conversation,
            status=response.status,
            model=response.settings["model"],
            version=version.number if version else None,
            digest=version.digest.hex() if version else None,
            prompt_tokens=counts.prompt,
            cached_tokens=counts.cached,
            cached_host_tokens=counts.cached_host,
            cached_disk_tokens=counts.cached_disk,
            computed_tokens=counts.prompt - counts.cached,
            generated_tokens=counts.completion,
            cost=money.render(counts.nano),
            created_at=response.created_at,
            completed_at=response.completed_at,
        )


class TurnPage(Page, frozen=True, kw_only=True):
    data: list[TurnView]


class SessionPatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is left out stays."""

    version_policy: Policy | None = None
    cache_ttl_s: int | None = None
    cache_pinned: bool | None = None
    metadata: dict[str, str] | None = None


class ForkBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """response: the last one that the new conversation shall remember."""

    response: str


class Prewarmed(msgspec.Struct, frozen=True):
    """The prompt that was computed ahead of the next turn, billed as request."""

    request_id: str
    prompt_tokens: int
    cached_tokens: int
    object: Literal["session.prewarmed"] = "session.prewarmed"
