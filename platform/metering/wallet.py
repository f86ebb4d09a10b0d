"""A tenant's money: its balance and the entries that made it. Entries are only ever added."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from tenantry.platform.core import money
from tenantry.platform.core.database import Connection
from tenantry.platform.core.errors import InvalidInput, NotFound
from tenantry.platform.tenants import service as tenants
from tenantry.platform.tenants.acts import Act, Kind, record
from tenantry.platform.tenants.principal import Principal


@dataclass(frozen=True, slots=True)
class WalletEntry:
    """nano: what it added (usage is negative). balance_after: the balance once it was entered."""

    seq: int
    kind: Literal["grant", "usage", "adjust"]
    nano: int
    balance_after: int
    request_id: UUID | None
    note: str
    at: datetime


async def enter(
    connection: Connection,
    tenant_id: UUID,
    kind: Literal["grant", "adjust"],
    nano: int,
    note: str,
    by: Principal | None = None,
) -> int:
    """As the operator: adds a grant or a correction and returns the new balance. by: who asks."""
    if kind not in ("grant", "adjust"):
        raise InvalidInput("kind must be grant or adjust.", param="kind")
    if nano == 0 or abs(nano) > 10**18 or len(note) > 500:
        raise InvalidInput("A wallet entry needs an amount, and a note of at most 500 characters.", param="amount")
    if kind == "grant" and nano < 0:
        raise InvalidInput("A grant adds to the balance. What takes from it is an adjustment.", param="amount")
    balance = await connection.fetchval("SELECT enter($1, $2, $3, $4)", tenant_id, kind, nano, note)
    if balance is None:
        raise NotFound("No such tenant.", code="tenant_not_found", param="id")
    tenant = await tenants.get_tenant(connection, tenant_id)
    done: Kind = "wallet_granted" if kind == "grant" else "wallet_adjusted"
    await record(connection, tenant_id, by, Act(done, tenant.name, money.render(nano), note))
    return int(balance)


async def balance(connection: Connection, tenant_id: UUID) -> int:
    """Grants less usage, in nano-units; negative is owed."""
    return int(await connection.fetchval("SELECT balance_nano FROM wallet WHERE tenant_id = $1", tenant_id) or 0)


async def list_entries(
    connection: Connection, tenant_id: UUID, limit: int = 100, before: int | None = None
) -> list[WalletEntry]:
    """Newest first. before: the seq that ended the page before."""
    rows = await connection.fetch(
        "SELECT seq, kind, nano, balance_after, request_id, note, at FROM wallet_entry "
        "WHERE tenant_id = $1 AND ($2::bigint IS NULL OR seq < $2) ORDER BY seq DESC LIMIT $3",
        tenant_id,
        before,
        limit,
    )
    return [
        WalletEntry(
            seq=r["seq"],
            kind=r["kind"],
            nano=r["nano"],
            balance_after=r["balance_after"],
            request_id=r["request_id"],
            note=r["note"],
            at=r["at"],
        )
        for r in rows
    ]
