"""Who is asking, as proven by a key. Everything below the gateway takes its tenant scope from this object alone."""

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
