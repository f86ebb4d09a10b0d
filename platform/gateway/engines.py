"""/api/v1/engines: every engine process, what it holds and how busy it is. For operators.

Owns the route alone: what is said is platform/fleet/report.py's.
"""

import msgspec
from litestar import Router, get

from tenantry.platform.core.policy import OPERATOR, under
from tenantry.platform.fleet.report import EngineReport
from tenantry.platform.gateway.chat import ChatService


class EngineList(msgspec.Struct, frozen=True):
    data: list[EngineReport]


@get("/engines", opt=under(OPERATOR))
async def list_engines(chat: ChatService) -> EngineList:
    """Every engine as of its last answer, at most a second old while it is up."""
    return EngineList(chat.engines())


router = Router("/api/v1", route_handlers=[list_engines], tags=["engines"])
