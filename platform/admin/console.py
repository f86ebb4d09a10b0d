"""What only the console asks for: one look at a tenant, at an adapter's life, and at what an act would hit.

Owns joining what other rooms know (rollups, aliases, the engine's residency, the last minutes). Reads only; every
statement names the tenant, or runs as the operator for the operator's pages.
"""

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol
from uuid import UUID

from tenantry.platform.core.database import Connection, Database
from tenantry.platform.core.errors import NotFound
from tenantry.platform.core.recent import Pace, Recent
from tenantry.platform.fleet.report import EngineReport
from tenantry.platform.metering.headroom import Headroom, headroom
from tenantry.platform.metering.reconcile import Reconciliation
from tenantry.platform.metering.rollups import Sums
from tenantry.runtime.counts import Stats

_DAY: Final = """
SELECT coalesce(sum(requests), 0)::bigint AS requests, coalesce(sum(prompt), 0)::bigint AS prompt,
       coalesce(sum(cached), 0)::bigint AS cached, coalesce(sum(completion), 0)::bigint AS completion,
       coalesce(sum(drafted), 0)::bigint AS drafted, coalesce(sum(accepted), 0)::bigint AS accepted,
       coalesce(sum(nano), 0)::bigint AS nano
FROM usage_hour WHERE ($1::uuid IS NULL OR tenant_id = $1) AND hour > now() - interval '24 hours'
"""
_STATES: Final = """
SELECT v.state, count(*) AS n FROM adapter_version v WHERE v.tenant_id = $1
  AND v.adapter_id NOT IN (SELECT a.id FROM adapter a WHERE a.tenant_id = $1 AND a.deleted_at IS NOT NULL)
GROUP BY 1 ORDER BY 1
"""
_BY_ADAPTER: Final = """
SELECT adapter_id, sum(requests)::bigint AS requests, sum(nano)::bigint AS nano FROM usage_hour
WHERE tenant_id = $1 AND hour > now() - interval '24 hours' AND adapter_id = ANY($2::uuid[]) GROUP BY 1
"""
_RESIDENT: Final = """
SELECT adapter_id, number, digest FROM adapter_version
WHERE tenant_id = $1 AND state = 'ready' AND digest = ANY($2::bytea[])
  AND ($3::uuid[] IS NULL OR adapter_id = ANY($3))
"""
_LIVE_KEY: Final = "k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())"
_SIGNED_IN: Final = "s.revoked_at IS NULL AND s.expires_at > now()"
_IMPACT_OF_KEY: Final = f"""
SELECT (SELECT count(*) FROM request r WHERE r.tenant_id = $1 AND r.state = 'admitted' AND r.key_id = $2) AS requests,
       0 AS keys, 0 AS adapters, 0 AS sessions, '{{}}'::text[] AS aliases,
       (SELECT count(*) FROM browser_session s WHERE s.tenant_id = $1 AND s.key_id = $2 AND {_SIGNED_IN}) AS browsers
FROM api_key WHERE tenant_id = $1 AND id = $2
"""  # noqa: S608 - literals
_IMPACT_OF_ADAPTER: Final = """
SELECT (SELECT count(*) FROM request r WHERE r.tenant_id = $1 AND r.state = 'admitted' AND r.adapter_id = a.id
          AND ($3::int IS NULL OR r.adapter_version_id = v.id)) AS requests,
       0 AS keys, 1 AS adapters, 0 AS browsers,
       (SELECT count(*) FROM session s WHERE s.tenant_id = $1 AND s.adapter_id = a.id AND s.expires_at > now()
          AND ($3::int IS NULL OR s.adapter_version_id = v.id)) AS sessions,
       ARRAY(SELECT l.alias FROM adapter_alias l WHERE l.tenant_id = $1 AND l.adapter_id = a.id
             AND ($3::int IS NULL OR l.version_id = v.id) ORDER BY l.alias LIMIT 100) AS aliases
FROM adapter a LEFT JOIN adapter_version v ON v.tenant_id = $1 AND v.adapter_id = a.id AND v.number = $3
WHERE a.tenant_id = $1 AND a.name = $2 AND a.deleted_at IS NULL AND ($3::int IS NULL OR v.id IS NOT NULL)
"""
_IMPACT_OF_TENANT: Final = f"""
SELECT (SELECT count(*) FROM request r WHERE r.tenant_id = t.id AND r.state = 'admitted') AS requests,
       (SELECT count(*) FROM api_key k WHERE k.tenant_id = t.id AND {_LIVE_KEY}) AS keys,
       (SELECT count(*) FROM adapter a WHERE a.tenant_id = t.id AND a.deleted_at IS NULL) AS adapters,
       (SELECT count(*) FROM session s WHERE s.tenant_id = t.id AND s.expires_at > now()) AS sessions,
       '{{}}'::text[] AS aliases,
       (SELECT count(*) FROM browser_session s WHERE s.tenant_id = t.id AND {_SIGNED_IN}) AS browsers
FROM tenant t WHERE t.id = $1 AND NOT t.is_operator AND t.status <> 'deleted'
"""  # noqa: S608 - literals


class Engine(Protocol):
    """stats: of all engines, as of their last answers, None while all are away. reports: each engine's own."""

    @property
    def ready(self) -> bool: ...
    @property
    def stats(self) -> Stats | None: ...
    def reports(self) -> list[EngineReport]: ...


class Books:
    """The last reconciliation, kept for whoever looks between two."""

    def __init__(self) -> None:
        self.last: Reconciliation | None = None
        self.at: datetime | None = None

    def note(self, found: Reconciliation) -> None:
        self.last, self.at = found, datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Overview:
    """day: of the last 24 hours. room: the tenant's limits, None for all tenants together. versions: how many in each
    state."""

    pace: Pace
    day: Sums
    room: Headroom | None
    adapters: int
    versions: dict[str, int]
    resident: int


@dataclass(frozen=True, slots=True)
class Resident:
    """A version that engines hold, or are about to: the state of it in each, by the engine's name. How many use it is
    not told: whoever uploaded the same bytes would be counted too."""

    adapter_id: UUID
    number: int
    states: dict[str, str]


@dataclass(frozen=True, slots=True)
class AdapterStats:
    """Of the last 24 hours; first_token_p95: of the last quarter hour, None without a request in it."""

    requests: int
    nano: int
    first_token_p95: float | None
    resident: list[Resident]


@dataclass(frozen=True, slots=True)
class Impact:
    """What an act would hit: requests under way, live keys, adapters, sessions that are remembered, aliases, people
    signed in."""

    requests: int
    keys: int
    adapters: int
    sessions: int
    aliases: list[str]
    browsers: int


@dataclass(frozen=True, slots=True)
class Console:
    database: Database
    engine: Engine
    recent: Recent
    books: Books

    async def overview(self, tenant_id: UUID) -> Overview:
        async with self.database.tenant(tenant_id) as connection:
            day = await _day(connection, tenant_id)
            [room, *_] = await headroom(connection, tenant_id, 1)
            states = {row["state"]: row["n"] for row in await connection.fetch(_STATES, tenant_id)}
            adapters = await connection.fetchval(
                "SELECT count(*) FROM adapter WHERE tenant_id = $1 AND deleted_at IS NULL", tenant_id
            )
            resident = await self._residents(connection, tenant_id, None)
        held = sum("resident" in one.states.values() for one in resident)
        return Overview(self.recent.pace(tenant_id), day, room, adapters, states, held)

    async def overview_of_all(self) -> Overview:
        async with self.database.operator() as connection:
            day = await _day(connection, None)
            adapters = await connection.fetchval("SELECT count(*) FROM adapter WHERE deleted_at IS NULL")
        stats = self.engine.stats
        resident = sum(1 for one in stats.adapters if one.state == "resident") if stats is not None else 0
        return Overview(self.recent.pace_of_all(), day, None, adapters, {}, resident)

    async def adapter_stats(self, tenant_id: UUID, adapter_ids: list[UUID]) -> dict[UUID, AdapterStats]:
        slow = self.recent.slowness(tenant_id)
        async with self.database.tenant(tenant_id) as connection:
            used = {row["adapter_id"]: row for row in await connection.fetch(_BY_ADAPTER, tenant_id, adapter_ids)}
            held = await self._residents(connection, tenant_id, adapter_ids)
        return {
            i: AdapterStats(
                used[i]["requests"] if i in used else 0,
                used[i]["nano"] if i in used else 0,
                slow.get(i),
                [one for one in held if one.adapter_id == i],
            )
            for i in adapter_ids
        }

    async def impact_of_key(self, tenant_id: UUID, key_id: UUID) -> Impact:
        async with self.database.tenant(tenant_id) as connection:
            return _impact(await connection.fetchrow(_IMPACT_OF_KEY, tenant_id, key_id), "key")

    async def impact_of_adapter(self, tenant_id: UUID, name: str, number: int | None) -> Impact:
        async with self.database.tenant(tenant_id) as connection:
            return _impact(await connection.fetchrow(_IMPACT_OF_ADAPTER, tenant_id, name, number), "adapter")

    async def impact_of_tenant(self, tenant_id: UUID) -> Impact:
        async with self.database.operator() as connection:
            return _impact(await connection.fetchrow(_IMPACT_OF_TENANT, tenant_id), "tenant")

    async def _residents(
        self, connection: Connection, tenant_id: UUID, adapter_ids: list[UUID] | None
    ) -> list[Resident]:
        known: defaultdict[bytes, dict[str, str]] = defaultdict(dict)
        for engine in self.engine.reports():
            for adapter in engine.adapters:
                known[bytes.fromhex(adapter.digest)][engine.name] = adapter.state
        rows = await connection.fetch(_RESIDENT, tenant_id, list(known), adapter_ids)
        return [Resident(row["adapter_id"], row["number"], known[row["digest"]]) for row in rows]


async def _day(connection: Connection, tenant_id: UUID | None) -> Sums:
    return Sums.of(await connection.fetchrow(_DAY, tenant_id))


def _impact(row: Any, kind: str) -> Impact:
    if row is None:
        raise NotFound(f"No such {kind}.", code=f"{kind}_not_found")
    return Impact(*(row[name] for name in Impact.__dataclass_fields__))
