"""/live, /ready and /metrics: for supervisors, balancers and Prometheus. Public, and without tenants' names.

Owns what "ready" means: the database answers, this gateway's heartbeat is fresh, the engine is up, and nobody has
asked it to stop. It must not know requests.
"""

import asyncio
from dataclasses import dataclass

from litestar import Response, get

from tenantry.platform.core.database import Database
from tenantry.platform.core.errors import Unavailable
from tenantry.platform.core.policy import PUBLIC, under
from tenantry.platform.core.telemetry import Telemetry
from tenantry.platform.gateway.chat import Engine
from tenantry.platform.gateway.runs import Runs
from tenantry.platform.metering.epochs import Epoch

PING_S = 1.0


@dataclass(frozen=True, slots=True)
class Health:
    database: Database
    epoch: Epoch
    engine: Engine
    runs: Runs

    async def problems(self) -> list[str]:
        """Empty when requests can be served."""
        found = []
        try:
            async with asyncio.timeout(PING_S):
                await self.database.ping()
        except (Unavailable, TimeoutError):
            found.append("database")
        if self.epoch.fenced:
            found.append("heartbeat")
        if not self.engine.ready:
            found.append("engine")
        if self.runs.draining:
            found.append("draining")
        return found


@get("/live", opt=under(PUBLIC), tags=["health"])
async def live() -> dict[str, str]:
    """The process answers. Says nothing about whether it can serve."""
    return {"status": "live"}


@get("/ready", opt=under(PUBLIC), tags=["health"])
async def ready(health: Health) -> Response[dict[str, str | list[str]]]:
    """503 and what is missing, while requests would be refused."""
    missing = await health.problems()
    status = "ready" if not missing else "not_ready"
    return Response({"status": status, "missing": missing}, status_code=200 if not missing else 503)


@get("/metrics", opt=under(PUBLIC), tags=["health"], media_type="text/plain")
async def metrics(telemetry: Telemetry, runs: Runs, epoch: Epoch) -> Response[bytes]:
    telemetry.open_requests.set(runs.open)
    telemetry.fenced.set(1 if epoch.fenced else 0)
    body, content_type = telemetry.render()
    return Response(body, media_type=content_type)
