"""A round that fails delays what goes round, and ends nothing."""

import asyncio

import structlog
from structlog.testing import capture_logs

from tenantry.platform.core.errors import DatabaseUnavailable
from tenantry.platform.core.rounds import go_round


async def test_an_outage_and_a_bug_are_told_and_the_next_round_comes():
    ends = [DatabaseUnavailable("away"), ValueError("a bug"), None]
    done = asyncio.Event()

    async def work() -> None:
        end = ends.pop(0)
        if end is not None:
            raise end
        done.set()
        await asyncio.Event().wait()

    with capture_logs() as said:
        rounds = asyncio.create_task(go_round(work, 0.0, structlog.get_logger("rounds"), "again"))
        await asyncio.wait_for(done.wait(), 10)
    assert [(one["event"], one["log_level"], one["exc_info"]) for one in said] == [
        ("again", "warning", False),
        ("again", "error", True),
    ]
    rounds.cancel()
    assert isinstance((await asyncio.gather(rounds, return_exceptions=True))[0], asyncio.CancelledError)
