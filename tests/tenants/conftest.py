"""Two tenants with keys, made through the services."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from tenantry.platform.core.database import Database
from tenantry.platform.core.secrets import Peppers, load_peppers
from tenantry.platform.core.settings import load
from tenantry.platform.tenants import service
from tenantry.platform.tenants.models import Tenant
from tenantry.platform.tenants.service import IssuedKey


@dataclass(frozen=True)
class Customer:
    tenant: Tenant
    issued: IssuedKey

    @property
    def header(self) -> str:
        return f"Bearer {self.issued.text}"


@pytest.fixture
def peppers(tmp_path: Path) -> Peppers:
    return load_peppers(load({}, data_dir=tmp_path / "data"))


@pytest.fixture
async def acme(database: Database, peppers: Peppers) -> Customer:
    return await customer(database, peppers, "acme")


@pytest.fixture
async def globex(database: Database, peppers: Peppers) -> Customer:
    return await customer(database, peppers, "globex")


async def customer(database: Database, peppers: Peppers, name: str) -> Customer:
    async with database.operator() as c:
        tenant = await service.create_tenant(c, name)
    async with database.tenant(tenant.id) as c:
        return Customer(tenant, await service.create_key(c, tenant.id, peppers, by=None, name="first"))
