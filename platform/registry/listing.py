"""A tenant's adapters as a list: filtered, ordered and paged by the database, never by whoever shows them.

Owns the statement. One page costs one page, whatever the tenant holds: what a row tells beyond its adapter is looked
up for the rows of the page alone.
"""

from dataclasses import dataclass
from typing import Any, Final, Literal
from uuid import UUID

from tenantry.platform.core.database import Connection
from tenantry.platform.registry.models import Adapter, Listed, State

Sort = Literal["created", "name"]
MAX_LISTED: Final = 20
_PAGE: Final = """
SELECT a.id, a.name, b.name AS base, a.description, a.etag, a.created_at, l.number AS latest, l.state AS latest_state,
       coalesce(n.versions, 0)::int AS versions, coalesce(s.aliases, '[]') AS aliases
FROM (SELECT * FROM adapter a WHERE a.tenant_id = $1 AND a.deleted_at IS NULL
        AND ($2::text IS NULL OR position($2 IN a.name) > 0)
        AND ($3::text IS NULL OR a.id IN (SELECT v.adapter_id FROM adapter_version v WHERE v.tenant_id = $1
                                          AND v.state = $3))
        AND ($6::bytea[] IS NULL OR a.id IN (SELECT v.adapter_id FROM adapter_version v WHERE v.tenant_id = $1
                                             AND v.state = 'ready' AND v.digest = ANY($6)))
        AND ($4::uuid IS NULL OR ({key}) {beyond}
             (SELECT {cursor_key} FROM adapter x WHERE x.tenant_id = $1 AND x.id = $4))
      ORDER BY {order} LIMIT $5) a
JOIN base_model b ON b.id = a.base_model_id
LEFT JOIN LATERAL (SELECT v.number, v.state FROM adapter_version v WHERE v.tenant_id = $1 AND v.adapter_id = a.id
                   ORDER BY v.number DESC LIMIT 1) l ON true
LEFT JOIN LATERAL (SELECT count(*) AS versions FROM adapter_version v WHERE v.tenant_id = $1
                   AND v.adapter_id = a.id) n ON true
LEFT JOIN LATERAL (SELECT jsonb_agg(jsonb_build_array(x.alias, x.number)
                                    ORDER BY x.alias <> 'default', x.alias) AS aliases
                   FROM (SELECT t.alias, v.number FROM adapter_alias t JOIN adapter_version v
                         ON v.tenant_id = t.tenant_id AND v.id = t.version_id
                         WHERE t.tenant_id = $1 AND t.adapter_id = a.id
                         ORDER BY t.alias <> 'default', t.alias LIMIT {most}) x) s ON true
ORDER BY {order}
"""


def _statement(sort: Sort, descending: bool) -> str:
    names = ["id"] if sort == "created" else ["name", "id"]
    way = " DESC" if descending else ""
    return _PAGE.format(
        key=", ".join(f"a.{n}" for n in names),
        cursor_key=", ".join(f"x.{n}" for n in names),
        beyond="<" if descending else ">",
        most=MAX_LISTED,
        order=", ".join(f"a.{n}{way}" for n in names),
    )


_SORTS: Final[tuple[Sort, ...]] = ("created", "name")
_STATEMENTS: Final[dict[tuple[Sort, bool], str]] = {
    (sort, descending): _statement(sort, descending) for sort in _SORTS for descending in (False, True)
}


@dataclass(frozen=True, slots=True)
class Listing:
    """text: part of a name. state: of any version. held: digests, of which a version that is ready has one. Ids are
    time-ordered, so `created` is their order."""

    text: str | None = None
    state: State | None = None
    held: tuple[bytes, ...] | None = None
    sort: Sort = "created"
    descending: bool = True


async def listed(
    connection: Connection, tenant_id: UUID, listing: Listing, after: UUID | None, limit: int
) -> list[Listed]:
    """after: the last adapter of the page before; an unknown one ends the list."""
    rows = await connection.fetch(
        _STATEMENTS[listing.sort, listing.descending], tenant_id, listing.text or None, listing.state, after, limit,
        listing.held,
    )  # fmt: skip
    return [_listed(row) for row in rows]


def _listed(row: Any) -> Listed:
    adapter = Adapter(row["id"], row["name"], row["base"], row["description"], row["etag"], row["created_at"])
    state = State(row["latest_state"]) if row["latest_state"] is not None else None
    return Listed(
        adapter, row["versions"], row["latest"], state, [(alias, number) for alias, number in row["aliases"]]
    )
