"""Work that comes round again in the background, whatever became of the round before.

Owns the loop and what it says of a round that failed. It must not know what the work is.
"""

import asyncio
from collections.abc import Awaitable, Callable
from logging import ERROR, WARNING
from typing import Any

from tenantry.platform.core.errors import DatabaseUnavailable


async def go_round(work: Callable[[], Awaitable[object]], every_s: float, log: Any, retried: str) -> None:
    """Forever, every_s seconds apart. An outage only delays it, and so does a bug, which is logged with its trace:
    work that goes round begins from the tables each time. retried: the event that is logged."""
    while True:
        try:
            await work()
        except Exception as error:
            known = isinstance(error, DatabaseUnavailable)
            log.log(WARNING if known else ERROR, retried, exc_info=not known)
        await asyncio.sleep(every_s)
