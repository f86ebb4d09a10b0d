"""Which weights answer a session's next turn: the version it stays with, or whatever the alias says by now.

Owns the rule of the two policies. Must not know turns or HTTP.
"""

from dataclasses import replace
from uuid import UUID

from tenantry.platform.core.errors import Conflict, NotFound
from tenantry.platform.registry.models import Target
from tenantry.platform.registry.service import Registry
from tenantry.platform.sessions.models import Session


async def target_of(registry: Registry, tenant_id: UUID, model: str, session: Session | None) -> Target:
    """model: as the turn calls it. Raises NotFound for what answers nobody, Conflict for what the session refuses."""
    if session is None or session.model is None or session.policy == "follow":
        return await registry.resolve(tenant_id, model)
    version = session.version
    if model != session.model:
        target = await registry.resolve(tenant_id, model)
        if target.version_id != (version.id if version else None):
            raise Conflict(
                f"This session stays with {version.model if version else session.model}: send model "
                f"{session.model!r}, or let the session follow.",
                code="session_pinned", param="model",
            )  # fmt: skip
        return target
    if version is None:
        return await registry.resolve(tenant_id, model)
    try:
        target = await registry.resolve(tenant_id, version.model)
        still = target.version_id == version.id
    except NotFound:
        still = False
    if not still:
        raise Conflict(
            f"{version.model}, with which this session began, answers no more: let the session follow, or begin "
            "another one.",
            code="session_version_gone", param="model",
        )  # fmt: skip
    return replace(target, model=model)
