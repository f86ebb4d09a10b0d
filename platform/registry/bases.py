"""The base model's row: made at start, looked up ever after. Owns base_model; must not know adapters."""

from uuid import UUID

import asyncpg
import msgspec

from tenantry.adapters.manifest import BaseSpec
from tenantry.platform.core import ids
from tenantry.platform.core.database import Connection, Database
from tenantry.platform.core.errors import ConfigurationError
from tenantry.platform.registry.models import BaseModel


async def ensure_base(database: Database, name: str, spec: BaseSpec) -> BaseModel:
    """The row of these weights under this name. Raises ConfigurationError when other weights have the name."""
    shape = {**msgspec.structs.asdict(spec), "digest": spec.digest.hex()}
    try:
        async with database.operator() as connection:
            return await _ensure(connection, name, spec.digest, shape)
    except asyncpg.UniqueViolationError:
        raise ConfigurationError(
            f"the base model's name {name!r} belongs to other weights: serve these under another name"
        ) from None


async def _ensure(connection: Connection, name: str, digest: bytes, shape: dict[str, object]) -> BaseModel:
    row = await connection.fetchrow(
        """INSERT INTO base_model AS b (id, name, digest, spec) VALUES ($1, $2, $3, $4)
        ON CONFLICT (digest) DO UPDATE SET name = excluded.name, spec = excluded.spec RETURNING b.id""",
        ids.uuid7(), name, digest, shape,
    )  # fmt: skip
    return BaseModel(UUID(int=row["id"].int), name, digest)
