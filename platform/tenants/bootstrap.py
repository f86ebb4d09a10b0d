"""The first start: an operator tenant and its key, so that there is someone who may create the others.

Owns the operator key's file (0600 in the data directory); the CLI reads it from there.
"""

import asyncio
from pathlib import Path
from typing import Final

from tenantry.platform.core.database import Database
from tenantry.platform.core.secrets import Peppers, write_secret
from tenantry.platform.tenants import repository, service

OPERATOR_TENANT: Final = "operator"
_LOCK: Final = 0x7E4A1703


async def ensure_operator(database: Database, peppers: Peppers, environment: str, key_file: Path) -> bool:
    """True when a key was made and written. Safe at every start, and by two gateways at once.

    When the file is gone but the tenant exists, a new operator key is made; the lost one stays valid until revoked.
    The file is written after the commit, so it never names a key that does not exist.
    """
    async with database.operator() as connection:
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        tenant = await repository.tenant_by_name(connection, OPERATOR_TENANT)
        if tenant is not None and await asyncio.to_thread(key_file.exists):
            return False
        if tenant is None:  # a fresh database: a file left from another one opens nothing here
            await asyncio.to_thread(key_file.unlink, missing_ok=True)
            tenant = await service.create_tenant(connection, OPERATOR_TENANT, is_operator=True)
        issued = await service.create_operator_key(connection, tenant, peppers, environment)
    await asyncio.to_thread(write_secret, key_file, issued.text.encode())
    return True
