"""/api/v1/speculation: how often guesses stood, and what that saved, by adapter, proposer and position.

Owns the joining of the engine's counts, which know namespaces alone, with the names of those who may see them: a
tenant sees his own, the operator everyone's. Counts begin with the engine's life.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec
from litestar import Router, get

from tenantry.platform.core.database import Connection, Database
from tenantry.platform.core.errors import EngineAway
from tenantry.platform.core.policy import OPERATOR, tenant, under
from tenantry.platform.gateway.chat import ChatService
from tenantry.platform.registry.repository import holders
from tenantry.platform.registry.service import Registry
from tenantry.platform.tenants import service as tenants
from tenantry.platform.tenants.models import Tenant
from tenantry.platform.tenants.principal import Principal
from tenantry.runtime.counts import Guessing, ProposerCounts
from tenantry.runtime.errors import EngineUnavailable
from tenantry.runtime.namespace import Namespace

PAGE = 100


class ProposerView(msgspec.Struct, frozen=True):
    """proposer: KIND+lora where it had a LoRA of its own for the adapter. acceptance: share of the drafted tokens
    that stood. by_position: of the guesses whose ancestors all stood, the share that stood; from the first one on, up
    to the deepest that was tried."""

    proposer: str
    drafts: int
    drafted_tokens: int
    accepted_tokens: int
    acceptance: float
    by_position: list[float]

    @classmethod
    def of(cls, counts: ProposerCounts) -> "ProposerView":
        by_position = [
            round(stood / tried, 4) for stood, tried in zip(counts.stood, counts.tried, strict=True) if tried
        ]
        share = round(counts.accepted / counts.drafted, 4) if counts.drafted else 0.0
        return cls(counts.proposer, counts.drafts, counts.drafted, counts.accepted, share, by_position)


class SpeculationView(msgspec.Struct, frozen=True):
    """Of one tenant's requests with one adapter (or the base model alone) that took guesses. steps: of the model, in
    which they got their tokens after the first; steps_saved: that there would have been more without guesses."""

    tenant: str
    model: str
    digest: str | None
    steps: int
    tokens: int
    tokens_per_step: float
    steps_saved: int
    proposers: list[ProposerView]

    @classmethod
    def of(cls, tenant: str, model: str, counts: Guessing) -> "SpeculationView":
        return cls(
            tenant=tenant,
            model=model,
            digest=counts.adapter.hex() if counts.adapter is not None else None,
            steps=counts.steps,
            tokens=counts.tokens,
            tokens_per_step=round(counts.tokens / counts.steps, 4) if counts.steps else 0.0,
            steps_saved=counts.tokens - counts.steps,
            proposers=[ProposerView.of(proposer) for proposer in counts.proposers],
        )


class SpeculationReport(msgspec.Struct, frozen=True):
    data: list[SpeculationView]
    object: Literal["list"] = "list"


@get("/speculation", opt=under(tenant("manage")))
async def of_tenant(
    principal: Principal, database: Database, registry: Registry, chat: ChatService
) -> SpeculationReport:
    """The tenant's own adapters, and the base model as the tenant used it."""
    counts = await _counts(chat)
    async with database.tenant(principal.tenant_id) as connection:
        who = await tenants.get_tenant(connection, principal.tenant_id)
        return await _named(connection, registry, [who], counts)


@get("/speculation/all", opt=under(OPERATOR))
async def of_all(
    principal: Principal, database: Database, registry: Registry, chat: ChatService
) -> SpeculationReport:
    """Every tenant's."""
    counts = await _counts(chat)
    async with database.operator() as connection:
        everyone, after = [await tenants.get_tenant(connection, principal.tenant_id)], None
        while page := await tenants.list_tenants(connection, PAGE, after):
            everyone += page
            after = page[-1].id
        return await _named(connection, registry, everyone, counts)


async def _counts(chat: ChatService) -> tuple[Guessing, ...]:
    try:
        return await chat.guesses()
    except EngineUnavailable as error:
        raise EngineAway("The engine does not answer.") from error


async def _named(
    connection: Connection, registry: Registry, everyone: Sequence[Tenant], counts: Iterable[Guessing]
) -> SpeculationReport:
    """Those of the counts whose namespace belongs to one of these tenants, the most used first."""
    found = sorted(counts, key=lambda one: -one.tokens)
    base = registry.base
    names = {Namespace(who.id.bytes, base.digest).key: (who.name, base.name) for who in everyone}
    for holder in await holders(connection, {one.adapter for one in found if one.adapter is not None}):
        key = Namespace(holder.tenant_id.bytes, holder.digest).key
        names[key] = (holder.tenant, f"{holder.adapter}:{holder.number}")
    return SpeculationReport(
        [SpeculationView.of(*names[one.namespace], one) for one in found if one.namespace in names]
    )


router = Router("/api/v1", route_handlers=[of_tenant, of_all], tags=["speculation"])
