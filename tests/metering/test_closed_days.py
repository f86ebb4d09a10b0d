"""Charts of days say the same whether days are closed or not, and closed days say what their hours say."""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import product
from random import Random

import asyncpg
import pytest

from tenantry.platform.core import ids
from tenantry.platform.metering.chart import Shape
from tenantry.platform.metering.closed_series import closed_series
from tenantry.platform.metering.closing import Closer
from tenantry.platform.metering.reconcile import reconcile
from tenantry.platform.metering.series import hourly_series, series
from tenantry.platform.metering.usage import Window

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
DAYS = 5
CUT = timedelta(hours=7)
WINDOWS = [
    Window(TODAY - timedelta(days=DAYS), TODAY + timedelta(days=1)),
    Window(TODAY - timedelta(days=DAYS) + CUT, TODAY - CUT),
    Window(TODAY - timedelta(days=2), TODAY - timedelta(days=1)),
    Window(TODAY - timedelta(days=30), TODAY - timedelta(days=3)),
]
COLUMNS = (
    "tenant_id", "hour", "key_id", "base_model_id", "adapter_id", "adapter_version_id",
    "requests", "prompt", "cached", "completion", "drafted", "accepted", "nano",
)  # fmt: skip


class History:
    """A tenant's hours, as settlement would have left them days ago."""

    def __init__(self, ledger, admin):
        self.ledger, self.admin = ledger, admin
        self.keys, self.adapters = [ledger.key_id], []

    async def grow(self, adapters: int, keys: int, tmp_path):
        self.keys += [await self.ledger.another_key(tmp_path) for _ in range(keys - 1)]
        for i in range(adapters):
            adapter, versions = ids.uuid7(), [ids.uuid7() for _ in range(2)]
            await self.admin.execute(
                "INSERT INTO adapter (tenant_id, id, name, base_model_id) VALUES ($1, $2, $3, $4)",
                self.ledger.tenant_id, adapter, f"a{i}", self.ledger.base_id,
            )  # fmt: skip
            for number, version in enumerate(versions, 1):
                await self.admin.execute(
                    "INSERT INTO adapter_version (tenant_id, id, adapter_id, number, state)"
                    " VALUES ($1, $2, $3, $4, 'rejected')",
                    self.ledger.tenant_id, version, adapter, number,
                )  # fmt: skip
            self.adapters.append((adapter, versions))

    async def add(self, hour, key, adapter, version, *, requests=1, prompt=0, completion=0, nano=0):
        """adapter: None is the base model alone."""
        which = (None, None) if adapter is None else (self.adapters[adapter][0], self.adapters[adapter][1][version])
        row = (self.ledger.tenant_id, hour, self.keys[key], self.ledger.base_id, *which,
               requests, prompt, prompt // 2, completion, completion, completion // 2, nano)  # fmt: skip
        marks = ", ".join(f"${i + 1}" for i in range(len(row)))
        await self.admin.execute(
            f"INSERT INTO usage_hour ({', '.join(COLUMNS)}) VALUES ({marks}) ON CONFLICT DO NOTHING", *row
        )

    async def days_of(self, shape, window):
        """(from closed days, from hours): the first is None where closed days cannot tell."""
        async with self.ledger.database.tenant(self.ledger.tenant_id) as c:
            fast = await closed_series(c, self.ledger.tenant_id, shape, window.start, window.end)
            slow = await hourly_series(c, self.ledger.tenant_id, shape, window)
            told = await series(c, self.ledger.tenant_id, shape, window)
        assert told == slow
        return fast, slow


@pytest.fixture
async def history(pg, ledger, tmp_path):
    admin = await asyncpg.connect(pg.admin)
    made = History(ledger, admin)
    await made.grow(adapters=7, keys=3, tmp_path=tmp_path)
    yield made
    await admin.close()


async def close(history, listed=2):
    return await Closer(history.ledger.database, listed).close()


@pytest.mark.parametrize("seed", range(4))
async def test_closed_days_tell_what_hours_tell(history, seed):
    """Few groups by name, so that most charts must look up what some day does not list."""
    draw = Random(seed)
    skew = draw.choice((1, 2, 4))
    for _ in range(draw.randrange(20, 200)):
        hour = TODAY - timedelta(days=DAYS) + timedelta(hours=draw.randrange((DAYS + 1) * 24))
        adapter = int(8 * draw.random() ** skew)
        await history.add(
            hour, int(3 * draw.random() ** skew), None if adapter == 7 else adapter, draw.randrange(2),
            requests=draw.randrange(1, 4), prompt=draw.randrange(100), completion=draw.choice((0, 1, 50)),
            nano=draw.choice((0, 1, draw.randrange(1000), 10**6)),
        )  # fmt: skip
    await close(history, listed=draw.choice((1, 2, 3)))
    told = 0
    asked = list(product(("adapter", "version", "key", "total"), ("cost", "tokens"), (1, 3, 8), WINDOWS))
    for by, measure, groups, window in asked:
        fast, slow = await history.days_of(Shape(by, "day", measure, groups), window)
        assert fast is None or fast == slow, (by, measure, groups, window)
        told += fast is not None
    assert told >= len(asked) // 3, "the law holds for nothing if closed days never tell"


async def test_a_group_on_no_list_is_among_the_dearest(history):
    """a0 is second each day: days name one group, and each day it is another one."""
    for day in range(1, 5):
        await history.add(TODAY - timedelta(days=day), 0, day, 0, completion=9, nano=50)
        await history.add(TODAY - timedelta(days=day), 0, 0, 0, nano=49)
    await close(history, listed=1)
    shape, window = Shape("adapter", "day", "cost", 1), Window(TODAY - timedelta(days=5), TODAY + timedelta(days=1))
    fast, slow = await history.days_of(shape, window)
    assert fast is None, "some group on no list may have come to 4 * 49, which is more than 50"
    assert {p.label for p in slow if not p.rest} == {"a0"}
    await history.add(TODAY + timedelta(hours=1), 0, 0, 0, nano=200)
    fast, slow = await history.days_of(shape, window)
    assert fast == slow
    assert sum(p.nano for p in slow if p.label == "a0") == 4 * 49 + 200


async def test_today_stays_open_and_every_other_day_is_closed_once(history):
    for day in (0, 1, 4):
        await history.add(TODAY - timedelta(days=day), 0, 0, 0, nano=5)
    days = 2 if datetime.now(UTC) - TODAY > timedelta(minutes=15) else 1
    assert await close(history) == days
    assert await close(history) == 0
    assert await history.admin.fetchval("SELECT count(*) FROM usage_day WHERE day >= $1", TODAY) == 0


async def test_two_gateways_close_each_day_once(history):
    for day in range(2, 6):
        await history.add(TODAY - timedelta(days=day), 0, 0, 0, nano=5)
    assert sum(await asyncio.gather(*(close(history) for _ in range(3)))) == 4
    async with history.ledger.database.operator() as c:
        assert not [f for f in (await reconcile(c)).findings if "daily" in f]


async def test_an_hour_written_late_is_found_and_closing_anew_mends_it(history):
    for day in (2, 3):
        await history.add(TODAY - timedelta(days=day), 0, 0, 0, prompt=10, nano=5)
    await close(history)
    await history.add(TODAY - timedelta(days=3), 1, 1, 0, prompt=10, nano=7)
    async with history.ledger.database.operator() as c:
        found = [f for f in (await reconcile(c)).findings if "daily" in f]
        assert len(found) == 3, "by adapter, by version and by key"
        await c.execute("UPDATE usage_closed SET until = '-infinity'")
    async with history.ledger.database.operator() as c:
        assert not [f for f in (await reconcile(c)).findings if "daily" in f], "what is open again is not compared"
    assert await close(history) == 2
    async with history.ledger.database.operator() as c:
        assert not [f for f in (await reconcile(c)).findings if "daily" in f]


async def test_days_that_are_being_closed_anew_raise_no_alarm(history):
    for day in (2, 3, 4):
        await history.add(TODAY - timedelta(days=day), 0, 0, 0, prompt=10, nano=5)
    await close(history)
    async with history.ledger.database.operator() as c:
        await c.execute("UPDATE usage_closed SET until = $1", TODAY - timedelta(days=3))  # one of three is done
    async with history.ledger.database.operator() as c:
        assert not [f for f in (await reconcile(c)).findings if "daily" in f]


async def test_a_tenant_sees_its_own_days_alone(history, tmp_path):
    await history.add(TODAY - timedelta(days=2), 0, 0, 0, nano=5)
    await close(history)
    other, _ = await history.ledger.another_tenant(tmp_path)
    async with history.ledger.database.tenant(other) as c:
        assert await c.fetch("SELECT * FROM usage_day") == []
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await c.execute("UPDATE usage_day SET nano = 0")
