"""Who may call a route, stated on the route object itself.

Owns the vocabulary only; the gateway's guard enforces it and refuses any route without one. It must not know
paths, keys or tables.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal


class Access(StrEnum):
    """PUBLIC: anyone. TENANT: a tenant's key. OPERATOR: a key of the people who run the installation."""

    PUBLIC = "public"
    TENANT = "tenant"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Policy:
    """scope: what a tenant's key must be allowed to do besides belonging to a live tenant, or None."""

    access: Access
    scope: Literal["inference", "manage"] | None = None


PUBLIC = Policy(Access.PUBLIC)
OPERATOR = Policy(Access.OPERATOR)


def tenant(scope: Literal["inference", "manage"] | None = None) -> Policy:
    return Policy(Access.TENANT, scope)


def under(policy: Policy) -> dict[str, Any]:
    """The `opt` of a handler: `@get("/v1/models", opt=under(tenant("inference")))`."""
    return {"policy": policy}
