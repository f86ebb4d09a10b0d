"""Adapters of one tenant at a time: what a model name means, and how versions and aliases change.

Owns the rules. It must not know HTTP, files or how an upload is checked (see intake.py). Every method takes the
authenticated tenant's id; nothing here reads a tenant from a request.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

import structlog

from tenantry.platform.core.database import Connection, Database
from tenantry.platform.core.errors import Conflict, InvalidInput, NotFound, PreconditionFailed, RateLimited
from tenantry.platform.registry import names
from tenantry.platform.registry.listing import Listing, listed
from tenantry.platform.registry.models import Adapter, Alias, AliasEvent, BaseModel, Listed, State, Target, Version
from tenantry.platform.registry.repository import Repository
from tenantry.platform.tenants.acts import Act, Doer, record
from tenantry.runtime.errors import RuntimeRefusal
from tenantry.runtime.namespace import Namespace

log = structlog.get_logger("registry")

Drop = Callable[[bytes], Awaitable[None]]
Forget = Callable[[bytes, bool], None]
REVOKED_AGAIN_S = 1.5  # by then whoever was past `resolve` when a version was revoked has reached the engine


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one tenant may store. bytes: of canonical blobs of ready versions."""

    adapters: int = 1000
    bytes: int = 256 << 30
    uploads_per_hour: int = 600


class Registry:
    """base: the one base model served here. drop: tells the engine to let go of a digest. forget: of all KV of a
    namespace, and to end its requests if the second argument says so."""

    def __init__(
        self, database: Database, base: BaseModel, drop: Drop, forget: Forget, allowance: Allowance | None = None
    ) -> None:
        self.database = database
        self.base = base
        self.allowance = allowance or Allowance()
        self._drop = drop
        self._forget = forget

    async def resolve(self, tenant_id: UUID, model: str) -> Target:
        """Which weights answer `model`. Unknown, foreign and deleted are the same NotFound."""
        if model == self.base.name:
            return Target(self.base, model)
        name = names.parse_model(model)
        if name is None:
            raise _no_such_model()
        async with self.database.tenant(tenant_id) as connection:
            repository = Repository(connection, tenant_id)
            adapter = await repository.adapter(name.adapter)
            if adapter is None or adapter.base != self.base.name:
                raise _no_such_model()
            number = name.number
            if number is None:
                alias = await repository.alias(adapter.id, name.alias or names.DEFAULT_ALIAS)
                number = alias.number if alias is not None else None
            version = await repository.version(adapter.id, number) if number is not None else None
            waiting = (
                version is None and name.alias == names.DEFAULT_ALIAS and await repository.validating(adapter.id)
            )
        if waiting or (version is not None and version.state is State.VALIDATING):
            raise Conflict("This adapter is still being validated.", code="adapter_not_ready", param="model")
        if version is None or version.state is not State.READY:
            raise _no_such_model()
        return Target(self.base, model, adapter.id, version.id, version.number, version.digest)

    async def callable_models(
        self, tenant_id: UUID, limit: int, after: str | None = None, text: str | None = None, name: str | None = None
    ) -> list[tuple[str, Version]]:
        """(model name, version) of aliases that answer; the default alias is the bare name. after: the last model
        name of the page before. text: part of an adapter's name. name: of one adapter alone."""
        adapter, _, alias = (after or "").partition("@")
        begin = (adapter, alias or (names.DEFAULT_ALIAS if adapter else ""))
        async with self.database.tenant(tenant_id) as connection:
            rows = await Repository(connection, tenant_id).answering(self.base.id, limit, begin, text, name)
        return [(name if alias == names.DEFAULT_ALIAS else f"{name}@{alias}", v) for name, alias, v in rows]

    async def create(self, tenant_id: UUID, by: Doer, name: str, description: str = "") -> Adapter:
        async with self.database.tenant(tenant_id) as connection:
            repository = Repository(connection, tenant_id)
            await self._check_new(repository, name)
            if not await repository.add_adapter(name, self.base.id, description):
                raise Conflict(f"An adapter named {name} exists.", code="adapter_exists", param="name")
            await record(connection, tenant_id, by, Act("adapter_created", name, adapter=name))
            return await _adapter(repository, name)

    async def adapters(self, tenant_id: UUID, listing: Listing, after: UUID | None, limit: int) -> list[Listed]:
        async with self.database.tenant(tenant_id) as connection:
            return await listed(connection, tenant_id, listing, after, limit)

    async def adapter(self, tenant_id: UUID, name: str) -> tuple[Adapter, list[Alias]]:
        async with self.database.tenant(tenant_id) as connection:
            repository = Repository(connection, tenant_id)
            adapter = await _adapter(repository, name)
            return adapter, await repository.aliases(adapter.id)

    async def delete(self, tenant_id: UUID, by: Doer, name: str, etag: int | None, revoke: bool = False) -> None:
        """Stop answering at once; requests already running finish on the weights they began with, or, if they are
        revoked, end within two seconds."""
        async with self.database.tenant(tenant_id) as connection:
            repository = Repository(connection, tenant_id)
            adapter = await _adapter(repository, name, lock=True)
            if etag is not None and etag != adapter.etag:
                raise PreconditionFailed("The adapter changed since you read it.", param="If-Match")
            digests = await repository.delete_adapter(adapter.id)
            act = Act("adapter_deleted", name, "requests under way ended" if revoke else "", adapter=name)
            await record(connection, tenant_id, by, act)
        await self._let_go(tenant_id, digests, revoke)

    async def delete_all(self, tenant_id: UUID) -> None:
        """Every adapter of a tenant that is deleted; what runs ends."""
        async with self.database.tenant(tenant_id) as connection:
            digests = await Repository(connection, tenant_id).delete_adapters()
        await self._let_go(tenant_id, digests, revoke=True)

    async def version(self, tenant_id: UUID, name: str, number: int) -> Version:
        async with self.database.tenant(tenant_id) as connection:
            repository = Repository(connection, tenant_id)
            return await _version(repository, await _adapter(repository, name), number)

    async def versions(self, tenant_id: UUID, name: str, after: UUID | None, limit: int) -> list[Version]:
        async with self.database.tenant(tenant_id) as connection:
            repository = Repository(connection, tenant_id)
            return await repository.versions((await _adapter(repository, name)).id, after, limit)

    async def retire(self, tenant_id: UUID, by: Doer, name: str, number: int, revoke: bool = False) -> None:
        """ready -> retired. Refused while an alias points at the version. revoke: see delete."""
        async with self.database.tenant(tenant_id) as connection:
            repository = Repository(connection, tenant_id)
            adapter = await _adapter(repository, name, lock=True)
            version = await _version(repository, adapter, number)
            if any(alias.version_id == version.id for alias in await repository.aliases(adapter.id)):
                raise Conflict("An alias points at this version: move it first.", code="version_in_use")
            if not await repository.set_state(version.id, State.READY, State.RETIRED):
                raise Conflict(f"The version is {version.state}.", code=f"version_{version.state}")
            act = Act("version_revoked" if revoke else "version_retired", f"{name}:{number}", adapter=name)
            await record(connection, tenant_id, by, act)
        await self._let_go(tenant_id, [version.digest] if version.digest is not None else [], revoke)

    async def put_alias(
        self, tenant_id: UUID, by: Doer, name: str, alias: str, number: int, etag: int | None, reason: str
    ) -> Alias:
        """Point an alias at a ready version. etag: of the alias as the caller saw it; None creates it."""
        names.check(alias, "alias")
        async with self.database.tenant(tenant_id) as connection:
            repository = Repository(connection, tenant_id)
            adapter = await _adapter(repository, name, lock=True)
            version = await _version(repository, adapter, number)
            if version.state is not State.READY:
                raise Conflict(
                    f"Version {number} is {version.state}.", code=f"version_{version.state}", param="version"
                )
            before = await repository.alias(adapter.id, alias)
            _check_etag(before, etag)
            if await repository.put_alias(adapter.id, alias, version.id, etag) is None:
                raise PreconditionFailed("The alias changed since you read it.", param="If-Match")
            await repository.record_move(
                adapter.id, alias, before.version_id if before else None, version.id, by.key_id, reason
            )
            moved = f"{before.number if before else ''} → {number}"
            await record(
                connection, tenant_id, by, Act("alias_moved", f"{name}@{alias}", moved, reason, adapter=name)
            )
            after = await repository.alias(adapter.id, alias)
        assert after is not None
        return after

    async def delete_alias(self, tenant_id: UUID, by: Doer, name: str, alias: str, etag: int | None) -> None:
        async with self.database.tenant(tenant_id) as connection:
            repository = Repository(connection, tenant_id)
            adapter = await _adapter(repository, name, lock=True)
            before = await _alias(repository, adapter, alias)
            _check_etag(before, etag)
            await repository.delete_alias(adapter.id, alias, before.etag)
            await repository.record_move(adapter.id, alias, before.version_id, None, by.key_id, "removed")
            act = Act("alias_removed", f"{name}@{alias}", f"{before.number} →", adapter=name)
            await record(connection, tenant_id, by, act)

    async def alias(self, tenant_id: UUID, name: str, alias: str) -> Alias:
        async with self.database.tenant(tenant_id) as connection:
            repository = Repository(connection, tenant_id)
            return await _alias(repository, await _adapter(repository, name), alias)

    async def moves(self, tenant_id: UUID, name: str, alias: str, after: UUID | None, limit: int) -> list[AliasEvent]:
        async with self.database.tenant(tenant_id) as connection:
            repository = Repository(connection, tenant_id)
            return await repository.moves((await _adapter(repository, name)).id, alias, after, limit)

    async def begin(self, tenant_id: UUID, name: str, key_id: UUID) -> tuple[Adapter, UUID, int]:
        """A new version in state validating, making the adapter if it is new. Raises RateLimited over allowance."""
        async with self.database.tenant(tenant_id) as connection:
            repository = Repository(connection, tenant_id)
            if await repository.adapter(name) is None:
                await self._check_new(repository, name)
                await repository.add_adapter(name, self.base.id, "")
            adapter = await _adapter(repository, name, lock=True)
            held = await repository.held()
            if held.uploads >= self.allowance.uploads_per_hour:
                raise RateLimited("Too many uploads in the last hour.", retry_ms=60_000)
            if held.bytes >= self.allowance.bytes:
                raise RateLimited("The storage allowance is used up: retire versions first.", retry_ms=3_600_000)
            version_id, number = await repository.add_version(adapter.id, key_id)
            return adapter, version_id, number

    async def check_upload(self, tenant_id: UUID, name: str) -> None:
        """Refuse before a byte of the body is read what begin() would refuse after it."""
        async with self.database.tenant(tenant_id) as connection:
            repository = Repository(connection, tenant_id)
            if await repository.adapter(name) is None:
                await self._check_new(repository, name)

    async def _check_new(self, repository: Repository, name: str) -> None:
        names.check(name)
        if name == self.base.name:
            raise InvalidInput("This is the base model's name.", code="name_reserved", param="name")
        if (await repository.held()).adapters >= self.allowance.adapters:
            raise RateLimited(f"A tenant holds at most {self.allowance.adapters} adapters.", retry_ms=3_600_000)

    async def _let_go(self, tenant_id: UUID, digests: list[bytes], revoke: bool) -> None:
        """Free the engine's copy of weights that no tenant's ready version has any more, and this tenant's KV under
        those that he has no more."""
        if not digests:
            return
        async with self.database.operator() as connection:
            kept = await _still_answering(connection, digests)
            own = await _still_answering(connection, digests, tenant_id)
        for digest in set(digests) - own:
            namespace = Namespace(tenant_id.bytes, digest).key
            self._tell_to_forget(namespace, revoke)
            if revoke:
                asyncio.get_running_loop().call_later(REVOKED_AGAIN_S, self._tell_to_forget, namespace, True)
        for digest in set(digests) - kept:
            try:
                await self._drop(digest)
            except RuntimeRefusal as error:  # an engine that is away will come back without it
                log.warning("engine_not_told", error=error.message)

    def _tell_to_forget(self, namespace: bytes, abort: bool) -> None:
        try:
            self._forget(namespace, abort)
        except RuntimeRefusal as error:
            log.warning("engine_not_told", error=error.message)


def _check_etag(before: Alias | None, etag: int | None) -> None:
    if before is None and etag is not None:
        raise PreconditionFailed("There is no such alias yet.", param="If-Match")
    if before is not None and etag is None:
        raise Conflict(
            "The alias exists: send its ETag as If-Match to move it.", code="alias_exists", param="If-Match"
        )
    if before is not None and etag != before.etag:
        raise PreconditionFailed("The alias changed since you read it.", param="If-Match")


async def _still_answering(connection: Connection, digests: list[bytes], tenant_id: UUID | None = None) -> set[bytes]:
    rows = await connection.fetch(
        """SELECT DISTINCT digest FROM adapter_version WHERE digest = ANY ($1) AND state = 'ready'
        AND ($2::uuid IS NULL OR tenant_id = $2)""",
        digests, tenant_id,
    )  # fmt: skip
    return {row["digest"] for row in rows}


async def _adapter(repository: Repository, name: str, *, lock: bool = False) -> Adapter:
    adapter = await repository.adapter(name, lock=lock)
    if adapter is None:
        raise NotFound("There is no such adapter.", code="adapter_not_found")
    return adapter


async def _version(repository: Repository, adapter: Adapter, number: int) -> Version:
    version = await repository.version(adapter.id, number)
    if version is None:
        raise NotFound("There is no such version.", code="version_not_found")
    return version


async def _alias(repository: Repository, adapter: Adapter, alias: str) -> Alias:
    found = await repository.alias(adapter.id, alias)
    if found is None:
        raise NotFound("There is no such alias.", code="alias_not_found")
    return found


def _no_such_model() -> NotFound:
    return NotFound("There is no such model, or this key may not use it.", code="model_not_found", param="model")
