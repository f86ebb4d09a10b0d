"""A tenant with a key, a priced base model, and a gateway's metering around them."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest

from tenantry.platform.core import ids
from tenantry.platform.core.database import Database
from tenantry.platform.core.secrets import load_peppers
from tenantry.platform.core.settings import load
from tenantry.platform.metering.admission import Admission, Order
from tenantry.platform.metering.epochs import Epoch
from tenantry.platform.metering.prices import add_price
from tenantry.platform.metering.settlement import Settler
from tenantry.platform.tenants import service
from tenantry.platform.tenants.models import Quota

PROMPT_NANO, CACHED_NANO, COMPLETION_NANO, REJECTED_NANO = 500, 50, 1500, 7


@dataclass
class Ledger:
    """Everything a metering test needs in hand."""

    database: Database
    epoch: Epoch
    settler: Settler
    admission: Admission
    tenant_id: UUID
    key_id: UUID
    base_id: UUID

    def order(self, prompt: int = 10, completion: int = 20, **changes: object) -> Order:
        order = Order(self.tenant_id, self.key_id, self.base_id, None, None, "base", prompt, completion)
        return replace(order, **changes)

    async def limit(self, **quota: object) -> None:
        async with self.database.operator() as c:
            await service.set_tenant_quota(c, self.tenant_id, Quota(**quota))

    async def limit_key(self, **quota: object) -> None:
        async with self.database.operator() as c:
            await service.set_key_quota(c, self.tenant_id, self.key_id, Quota(**quota))

    async def value(self, sql: str, *args: object) -> object:
        async with self.database.operator() as c:
            return await c.fetchval(sql, *args)

    async def rows(self, sql: str, *args: object) -> list[asyncpg.Record]:
        async with self.database.operator() as c:
            return await c.fetch(sql, *args)

    async def another_key(self, tmp_path: Path, tenant_id: UUID | None = None) -> UUID:
        tenant_id = tenant_id or self.tenant_id
        async with self.database.tenant(tenant_id) as c:
            issued = await service.create_key(
                c, tenant_id, load_peppers(load({}, data_dir=tmp_path / "d")), by=None, name=f"k{uuid4().hex[:6]}"
            )
        return issued.key.id

    async def another_tenant(self, tmp_path: Path) -> tuple[UUID, UUID]:
        async with self.database.operator() as c:
            tenant = await service.create_tenant(c, f"t{uuid4().hex[:8]}")
        return tenant.id, await self.another_key(tmp_path, tenant.id)


@pytest.fixture
async def ledger(database: Database, tmp_path: Path) -> AsyncIterator[Ledger]:
    async with database.operator() as c:
        tenant = await service.create_tenant(c, "acme")
        base_id = ids.uuid7()
        await c.execute("INSERT INTO base_model (id, name, digest) VALUES ($1, 'base', $2)", base_id, b"b" * 32)
        await add_price(
            c, base_id, prompt_nano=PROMPT_NANO, cached_nano=CACHED_NANO, completion_nano=COMPLETION_NANO,
            rejected_nano=REJECTED_NANO,
        )  # fmt: skip
    epoch, settler = Epoch(database), Settler(database)
    await epoch.start()
    settler.start()
    made = Ledger(database, epoch, settler, Admission(database, epoch, settler), tenant.id, UUID(int=0), base_id)
    made.key_id = await made.another_key(tmp_path)
    yield made
    await settler.stop()
    await epoch.stop()
