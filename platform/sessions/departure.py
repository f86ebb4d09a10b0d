"""What becomes of a tenant that is deleted: nothing answers any more, nothing is remembered, and the books stay.

Owns the order: first nobody gets in, then adapters and conversations go, then the engines forget its KV in every
tier and end what still runs, which is billed for what was generated. Each step may be repeated.
"""

import asyncio
from uuid import UUID

import structlog

from tenantry.platform.core.database import Database
from tenantry.platform.core.errors import PlatformError
from tenantry.platform.gateway.chat import Engine, tenant_share
from tenantry.platform.registry.service import Registry
from tenantry.platform.sessions.repository import delete_all
from tenantry.platform.tenants import service
from tenantry.platform.tenants.models import Tenant
from tenantry.platform.tenants.principal import Principal
from tenantry.runtime.errors import RuntimeRefusal

AGAIN_S = 2.0  # by then no gateway believes the tenant's keys any more
log = structlog.get_logger(__name__)


class Departure:
    def __init__(self, database: Database, registry: Registry, engine: Engine) -> None:
        self._database = database
        self._registry = registry
        self._engine = engine
        self._again: set[asyncio.Task[None]] = set()

    async def delete(self, tenant_id: UUID, by: Principal) -> Tenant:
        """by: who asks. Raises NotFound for a tenant that is not there, is deleted already, or is the operator's
        own."""
        async with self._database.operator() as connection:
            tenant = await service.delete_tenant(connection, tenant_id, by=by)
        await self._clear(tenant_id)
        task = asyncio.create_task(self._clear_again(tenant_id))
        self._again.add(task)
        task.add_done_callback(self._again.discard)
        log.info("tenant_deleted", tenant=str(tenant_id))
        return tenant

    async def _clear_again(self, tenant_id: UUID) -> None:
        await asyncio.sleep(AGAIN_S)
        try:
            await self._clear(tenant_id)
        except PlatformError as error:  # what came in meanwhile ends with its retention, and no key reaches it
            log.warning("tenant_not_cleared_again", tenant=str(tenant_id), error=error.message)

    async def _clear(self, tenant_id: UUID) -> None:
        await self._registry.delete_all(tenant_id)
        async with self._database.tenant(tenant_id) as connection:
            await delete_all(connection, tenant_id)
        try:
            self._engine.drop_tenant(tenant_share(tenant_id), True)
        except RuntimeRefusal as error:
            log.warning("engine_not_told", error=error.message)
