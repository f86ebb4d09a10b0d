"""What was done in a tenant, by whom: one row an act, written in the transaction that does it, and never changed.

Owns the kinds there are and the statement that writes them. Services record; admin/activity.py reads. It must not
know what an act means.
"""

from dataclasses import dataclass
from typing import Final, Literal, Protocol, get_args
from uuid import UUID

from tenantry.platform.core import ids
from tenantry.platform.core.database import Connection

Kind = Literal[
    "tenant_created", "tenant_suspended", "tenant_resumed", "tenant_deleted", "quota_changed", "wallet_granted",
    "wallet_adjusted", "price_set", "key_created", "key_revoked", "signed_in", "adapter_created", "adapter_deleted",
    "version_uploaded", "version_rejected", "version_retired", "version_revoked", "alias_moved", "alias_removed",
]  # fmt: skip
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
# In a tenant's transaction its own keys are seen, in an operator's all.
_RECORD: Final = """
INSERT INTO act (tenant_id, id, kind, subject, detail, reason, adapter, actor_tenant_id, actor_key_id, actor_name,
                 actor_person)
SELECT $1, $2, $3, $4, $5, $6, $7, k.tenant_id, k.id, k.name, coalesce(k.person, false)
FROM (SELECT) one LEFT JOIN api_key k ON k.tenant_id = $8 AND k.id = $9
"""


class Doer(Protocol):
    """Whose key did it: a Principal, or what is left of one."""

    @property
    def tenant_id(self) -> UUID: ...

    @property
    def key_id(self) -> UUID: ...


@dataclass(frozen=True, slots=True)
class Holder:
    """A key that did something earlier, as a row remembers it."""

    tenant_id: UUID
    key_id: UUID


@dataclass(frozen=True, slots=True)
class Act:
    """subject: what it was done to, by name. adapter: whose name that begins with, where it is an adapter's."""

    kind: Kind
    subject: str
    detail: str = ""
    reason: str = ""
    adapter: str | None = None


async def record(connection: Connection, tenant_id: UUID, by: Doer | None, act: Act) -> None:
    """In the transaction of the act, of this tenant or of the operator. by: None for the installation itself."""
    await connection.execute(
        _RECORD, tenant_id, ids.uuid7(), act.kind, act.subject, act.detail, act.reason, act.adapter,
        by.tenant_id if by is not None else None, by.key_id if by is not None else None,
    )  # fmt: skip
