"""Tenants, keys and quotas as the platform speaks of them: frozen values, made from rows."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

Status = Literal["active", "suspended", "deleted"]
Period = Literal["month", "total"]
ACTOR_COLUMNS = "k.id AS actor_key, k.name AS actor_name, k.person AS actor_person, k.revoked_at AS actor_revoked_at"


@dataclass(frozen=True, slots=True)
class Tenant:
    id: UUID
    name: str
    status: Status
    is_operator: bool
    etag: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ApiKey:
    """public_id is the printable part of the key; the secret is not kept anywhere. person: a member of the team
    signs in with it, see admin/team.py."""

    id: UUID
    tenant_id: UUID
    public_id: str
    name: str
    env: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    person: bool = False


@dataclass(frozen=True, slots=True)
class Actor:
    """Whose key did something, as people know it. revoked_at: since when the key does nothing more."""

    key_id: UUID
    name: str
    person: bool
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class Quota:
    """None is unlimited. requests_per_minute is also the burst. A budget counts spent and reserved money together."""

    concurrency: int | None = None
    requests_per_minute: int | None = None
    budget_nano: int | None = None
    budget_period: Period = "total"

    @property
    def is_unlimited(self) -> bool:
        return self.concurrency is None and self.requests_per_minute is None and self.budget_nano is None


def tenant_of(row: Any) -> Tenant:
    return Tenant(row["id"], row["name"], row["status"], row["is_operator"], row["etag"], row["created_at"])


def key_of(row: Any) -> ApiKey:
    return ApiKey(
        id=row["id"],
        tenant_id=row["tenant_id"],
        public_id=row["key_id"],
        name=row["name"],
        env=row["env"],
        scopes=tuple(row["scopes"]),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        last_used_at=row["last_used_at"],
        person=row["person"],
    )


def actor_of(row: Any) -> Actor | None:
    """Of a row joined with api_key as ACTOR_COLUMNS say; None where no key is known."""
    if row["actor_key"] is None:
        return None
    return Actor(row["actor_key"], row["actor_name"], row["actor_person"], row["actor_revoked_at"])


def quota_of(row: Any) -> Quota:
    return Quota(row["concurrency"], row["requests_per_minute"], row["budget_nano"], row["budget_period"])
