"""What the API says and hears about tenants, keys and quotas.

Owns the wire shapes and nothing else. Ids are prefixed text, money is decimal text, times are RFC 3339 in UTC.
"""

from datetime import datetime
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from tenantry.platform.core import ids, money
from tenantry.platform.core.errors import InvalidInput
from tenantry.platform.core.paging import Page
from tenantry.platform.tenants.models import Actor, ApiKey, Quota, Tenant
from tenantry.platform.tenants.principal import Principal


class TenantCreate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str


class TenantUpdate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    status: Literal["active", "suspended"]


class TenantView(msgspec.Struct, frozen=True):
    id: str
    name: str
    status: str
    etag: str
    created_at: datetime
    object: Literal["tenant"] = "tenant"

    @classmethod
    def of(cls, tenant: Tenant) -> "TenantView":
        return cls(
            ids.to_text("tenant", tenant.id), tenant.name, tenant.status, f'"{tenant.etag}"', tenant.created_at
        )


class TenantPage(Page, frozen=True, kw_only=True):
    data: list[TenantView]


class KeyCreate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """env defaults to the only kind that this installation accepts."""

    name: str
    scopes: list[str] = msgspec.field(default_factory=lambda: ["inference", "manage"])
    expires_at: datetime | None = None


class KeyView(msgspec.Struct, frozen=True):
    """prefix: the part of the key that may be shown. person: a member of the team signs in with it. key: the whole
    key, in the answer to its creation alone."""

    id: str
    name: str
    prefix: str
    env: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    person: bool
    object: Literal["api_key"] = "api_key"
    key: str | UnsetType = UNSET

    @classmethod
    def of(cls, key: ApiKey, text: str | UnsetType = UNSET) -> "KeyView":
        return cls(
            id=ids.to_text("key", key.id),
            name=key.name,
            prefix=f"tny_{key.env}_{key.public_id}",
            env=key.env,
            scopes=list(key.scopes),
            created_at=key.created_at,
            expires_at=key.expires_at,
            revoked_at=key.revoked_at,
            last_used_at=key.last_used_at,
            person=key.person,
            key=text,
        )


class ActorView(msgspec.Struct, frozen=True):
    """Whose key did something. id: the key's. name: of the key, or of the person who signs in with it. revoked_at:
    since when it does nothing more, null while it is good."""

    id: str
    name: str
    person: bool
    revoked_at: datetime | None
    object: Literal["actor"] = "actor"

    @classmethod
    def of(cls, actor: Actor) -> "ActorView":
        return cls(ids.to_text("key", actor.key_id), actor.name, actor.person, actor.revoked_at)


class KeyPage(Page, frozen=True, kw_only=True):
    data: list[KeyView]


class QuotaBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """null is unlimited. budget: decimal text, spent and reserved money together. The same shape both ways."""

    concurrency: int | None = None
    requests_per_minute: int | None = None
    budget: str | None = None
    budget_period: Literal["month", "total"] = "total"

    def quota(self) -> Quota:
        for name, low, high in (("concurrency", 0, 100_000), ("requests_per_minute", 1, 6_000_000)):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise InvalidInput(f"{name} must lie between {low} and {high}.", param=name)
        nano = money.parse(self.budget, "budget") if self.budget is not None else None
        if nano is not None and nano < 0:
            raise InvalidInput("budget must not be negative.", param="budget")
        return Quota(self.concurrency, self.requests_per_minute, nano, self.budget_period)

    @classmethod
    def of(cls, quota: Quota) -> "QuotaBody":
        budget = money.render(quota.budget_nano) if quota.budget_nano is not None else None
        return cls(quota.concurrency, quota.requests_per_minute, budget, quota.budget_period)


class Me(msgspec.Struct, frozen=True):
    """Who the key says you are."""

    tenant: str
    tenant_name: str
    key: str
    key_prefix: str
    scopes: list[str]
    object: Literal["me"] = "me"

    @classmethod
    def of(cls, principal: Principal) -> "Me":
        return cls(
            ids.to_text("tenant", principal.tenant_id),
            principal.tenant_name,
            ids.to_text("key", principal.key_id),
            f"tny_{principal.env}_{principal.public_id}",
            sorted(principal.scopes),
        )
