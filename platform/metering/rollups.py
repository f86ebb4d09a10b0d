"""Rows of rollups: what requests came to together, and what their groups are called.

Owns what every reader of usage_hour and usage_day shares. It must not know what is asked of them.
"""

from dataclasses import dataclass, fields
from typing import Any, Final, Literal, Self

Grouping = Literal["adapter", "version", "key", "model", "hour", "total"]
# Whose an hour's row u is, for each grouping that tells groups apart. A base model alone stands in for its adapter.
GROUPS: Final[dict[Grouping, str]] = {
    "adapter": "coalesce(u.adapter_id, u.base_model_id)",
    "version": "coalesce(u.adapter_version_id, u.base_model_id)",
    "key": "u.key_id",
    "model": "u.base_model_id",
}
_BASE: Final = "LEFT JOIN base_model b ON b.id = t.id"
# What a group t is called, and where that stands. Each table is joined by one column: row-level security lets an
# index answer nothing that is computed. In total there is no group.
NAMES: Final[dict[Grouping, tuple[str, str]]] = {
    "adapter": ("coalesce(a.name, b.name)", f"LEFT JOIN adapter a ON a.tenant_id = $1 AND a.id = t.id {_BASE}"),
    "version": (
        "coalesce(a.name || ':' || v.number, b.name)",
        f"""LEFT JOIN adapter_version v ON v.tenant_id = $1 AND v.id = t.id
LEFT JOIN adapter a ON a.tenant_id = $1 AND a.id = v.adapter_id {_BASE}""",
    ),
    "key": ("k.name", f"LEFT JOIN api_key k ON k.tenant_id = $1 AND k.id = t.id {_BASE}"),
    "model": ("b.name", _BASE),
    "hour": ("NULL::text", _BASE),
    "total": ("NULL::text", _BASE),
}

# For the rest of a transaction that sums rollups: memory for the groups of a tenant with 10^5 adapters, unsorted, and
# a plan for the window and the filters asked for, as one that suits all of them reads everything.
PLANNED: Final = """
SELECT set_config('work_mem', '32MB', true), set_config('plan_cache_mode', 'force_custom_plan', true)
"""


@dataclass(frozen=True, slots=True)
class Sums:
    """Requests, and what they came to together, as the rollups have it."""

    requests: int
    prompt: int
    cached: int
    completion: int
    drafted: int
    accepted: int
    nano: int

    @classmethod
    def of(cls, row: Any) -> Self:
        """A row whose columns are named like the fields."""
        return cls(*(row[field.name] for field in fields(cls)))


COLUMNS: Final = tuple(field.name for field in fields(Sums))


def summed(row: str) -> str:
    """The columns of Sums over many rows, for a statement that groups `row`."""
    return ", ".join(f"sum({row}.{name})::bigint AS {name}" for name in COLUMNS)
