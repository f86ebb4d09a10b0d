"""The people of a tenant: who may sign in to the console, in which role, and when they last did.

A member is a key that a person signs in with, so roles are scopes, and removing a member is revoking a key: its
sessions end with it. Owns the list and what roles mean; tenants/ owns keys, browser.py sessions and links.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from tenantry.platform.core.database import Connection
from tenantry.platform.core.errors import Conflict
from tenantry.platform.core.secrets import Peppers
from tenantry.platform.tenants import service as keys
from tenantry.platform.tenants.principal import Principal
from tenantry.platform.tenants.service import IssuedKey

Role = Literal["admin", "manager", "member"]
SCOPES: Final[dict[Role, tuple[str, ...]]] = {
    "admin": ("inference", "manage"), "manager": ("manage",), "member": ("inference",),
}  # fmt: skip
_MEMBERS: Final = """
SELECT k.id, k.name, k.scopes, k.created_at, s.last, s.browsers FROM api_key k
LEFT JOIN LATERAL (SELECT max(s.created_at) AS last,
                          count(*) FILTER (WHERE s.revoked_at IS NULL AND s.expires_at > now()) AS browsers
                   FROM browser_session s WHERE s.tenant_id = $1 AND s.key_id = k.id) s ON true
WHERE k.tenant_id = $1 AND k.person AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
  AND ($2::uuid IS NULL OR k.id < $2) ORDER BY k.id DESC LIMIT $3
"""


@dataclass(frozen=True, slots=True)
class Member:
    """browsers: signed in now. last_signed_in_at: None if never, or so long ago that the session is forgotten."""

    key_id: UUID
    name: str
    role: Role
    created_at: datetime
    last_signed_in_at: datetime | None
    browsers: int


async def members(connection: Connection, tenant_id: UUID, limit: int, after: UUID | None) -> list[Member]:
    """Newest first; those who were removed are gone from it. after: the last key of the page before."""
    rows = await connection.fetch(_MEMBERS, tenant_id, after, limit)
    return [
        Member(row["id"], row["name"], _role(row["scopes"]), row["created_at"], row["last"], row["browsers"])
        for row in rows
    ]


def _role(scopes: Collection[str]) -> Role:
    return next(role for role, held in SCOPES.items() if set(held) == set(scopes) - {"operator"})


async def invite(
    connection: Connection, by: Principal, peppers: Peppers, env: str, name: str, role: Role
) -> IssuedKey:
    """A key of their own for a person. Raises InvalidInput for a name that no key may have, PermissionDenied for a
    role that may do what `by` may not."""
    return await keys.create_key(
        connection, by.tenant_id, peppers, by=by, name=name, env=env, scopes=SCOPES[role], person=True
    )


async def check_link(connection: Connection, by: Principal, key_id: UUID) -> None:
    """Whether `by` may make a link that signs in as this key. Raises NotFound, PermissionDenied for a key that may do
    what `by` may not, or Conflict for one that no person holds: services do not sign in by links."""
    key = await keys.get_key(connection, by.tenant_id, key_id)
    by.require_to_give(key.scopes)
    if not key.person or key.revoked_at is not None:
        raise Conflict("This key is not a member of the team.", code="not_a_member", param="key")
