"""Whose versions have the digests that engines hold. Owns the statement; what engines hold is told from outside.

It answers for what the connection may see: all tenants for the operator, its own for a tenant.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from tenantry.platform.core.database import Connection

MOST_TOLD: Final = 3
_KNOWN: Final = f"""
SELECT digest, tenant, name, number, state, known FROM (
  SELECT v.digest, t.name AS tenant, a.name, v.number,
         CASE WHEN a.deleted_at IS NOT NULL OR t.status = 'deleted' THEN 'deleted' ELSE v.state END AS state,
         count(*) OVER (PARTITION BY v.digest)::int AS known,
         row_number() OVER (PARTITION BY v.digest ORDER BY v.state <> 'ready', t.name, a.name, v.number) AS place
  FROM adapter_version v JOIN adapter a ON a.tenant_id = v.tenant_id AND a.id = v.adapter_id
  JOIN tenant t ON t.id = v.tenant_id WHERE v.digest = ANY($1::bytea[])
) held WHERE place <= {MOST_TOLD} ORDER BY digest, place
"""  # noqa: S608 - literals


@dataclass(frozen=True, slots=True)
class Holdings:
    """on_device: digests that are on the device of some engine now."""

    on_device: Callable[[], tuple[bytes, ...]]


@dataclass(frozen=True, slots=True)
class Known:
    """One version with a digest, of `known` in all. state: the version's, or "deleted" with its adapter or tenant."""

    tenant: str
    adapter: str
    number: int
    state: str
    known: int


async def known_by_digest(connection: Connection, digests: Iterable[bytes]) -> dict[bytes, list[Known]]:
    """At most MOST_TOLD of each, those that answer first. A digest that nobody has had is not among them."""
    found: dict[bytes, list[Known]] = {}
    for row in await connection.fetch(_KNOWN, list(digests)):
        one = Known(row["tenant"], row["name"], row["number"], row["state"], row["known"])
        found.setdefault(row["digest"], []).append(one)
    return found
