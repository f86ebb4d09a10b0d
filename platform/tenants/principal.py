"""Who is asking, as proven by a key. Everything below the gateway takes its tenant scope from this object alone."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from tenantry.platform.core.errors import PermissionDenied

Scope = Literal["inference", "manage", "operator"]


@dataclass(frozen=True, slots=True)
class Principal:
    """key_id: the row's id. public_id: the key's printable part, the only form that may be logged.

    scopes: inference (/v1), manage (the tenant's own /api/v1), operator (all tenants).
    """

    tenant_id: UUID
    tenant_name: str
    key_id: UUID
    public_id: str
    env: str
    scopes: frozenset[str]

    @property
    def is_operator(self) -> bool:
        return "operator" in self.scopes

    @property
    def isolation(self) -> bytes:
        """The scope of a runtime Namespace: 16 bytes, never from request text."""
        return self.tenant_id.bytes

    def require(self, scope: Scope) -> None:
        """Raises PermissionDenied unless the key carries `scope`; operator implies manage."""
        if scope not in self.scopes and not (scope == "manage" and self.is_operator):
            raise PermissionDenied(f"This API key lacks the {scope} scope.", code="missing_scope")

    def require_to_give(self, scopes: Collection[str]) -> None:
        """Nobody makes a key, invites or signs in anybody with more than they hold: it would be theirs in a moment.
        The operator makes any key. Raises PermissionDenied."""
        lacking = set() if self.is_operator else set(scopes) - self.scopes
        if lacking:
            raise PermissionDenied(
                f"This API key lacks {' and '.join(sorted(lacking))}, so it cannot let anybody else have it.",
                code="beyond_own_scopes",
            )

    def require_to_end(self, scopes: Collection[str]) -> None:
        """Ending gives nobody anything, so it is refused only towards those who may do all of this and more."""
        if not self.is_operator and self.scopes < set(scopes):
            raise PermissionDenied("This API key cannot end one that may do more than itself.", code="outranked")
