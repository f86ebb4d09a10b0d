"""/api/v1/engines: every engine process, what it holds, how busy it is, and with whose work. For operators.

Owns the route, and the names of those whom engines know by an opaque word or a digest alone: what is said is
platform/fleet/report.py's.
"""

from collections.abc import Iterable, Sequence
from time import monotonic

import msgspec
from litestar import Router, get

from tenantry.platform.core.database import Database
from tenantry.platform.core.policy import OPERATOR, under
from tenantry.platform.fleet.report import EngineReport
from tenantry.platform.fleet.views import AdapterView, HeldVersion
from tenantry.platform.gateway.chat import ChatService, tenant_share
from tenantry.platform.registry.residency import Known, known_by_digest
from tenantry.platform.tenants import service as tenants

AGAIN_S = 10.0


class EngineList(msgspec.Struct, frozen=True):
    data: list[EngineReport]


class ShareNames:
    """The engine's word for a tenant to its name. All are read when one is unknown, at most every AGAIN_S."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._names: dict[str, str] = {}
        self._read_at = float("-inf")

    async def names(self, shares: Iterable[str]) -> dict[str, str]:
        """Of those that are known."""
        wanted = set(shares)
        if not wanted <= self._names.keys() and monotonic() - self._read_at > AGAIN_S:
            self._read_at = monotonic()
            async with self._database.operator() as connection:
                everyone = await tenants.names(connection)
            self._names = {tenant_share(tenant_id): name for tenant_id, name in everyone}
        return {share: self._names[share] for share in wanted if share in self._names}


@get("/engines", opt=under(OPERATOR))
async def list_engines(chat: ChatService, share_names: ShareNames, database: Database) -> EngineList:
    """Every engine as of its last answer, at most a second old while it is up."""
    reports = chat.engines()
    names = await share_names.names(share.tenant for report in reports for share in report.tenants)
    held = {bytes.fromhex(adapter.digest) for report in reports for adapter in report.adapters}
    known: dict[bytes, list[Known]] = {}
    if held:
        async with database.operator() as connection:
            known = await known_by_digest(connection, held)
    return EngineList([_named(report, names, known) for report in reports])


def _named(report: EngineReport, names: dict[str, str], known: dict[bytes, list[Known]]) -> EngineReport:
    replace = msgspec.structs.replace
    return replace(
        report,
        tenants=[replace(one, tenant=names.get(one.tenant, one.tenant)) for one in report.tenants],
        adapters=[_held(one, known.get(bytes.fromhex(one.digest), ())) for one in report.adapters],
    )


def _held(adapter: AdapterView, known: Sequence[Known]) -> AdapterView:
    versions = [HeldVersion(one.tenant, f"{one.adapter}:{one.number}", one.state) for one in known]
    return msgspec.structs.replace(adapter, versions=versions, known=known[0].known if known else 0)


router = Router("/api/v1", route_handlers=[list_engines], tags=["engines"])
