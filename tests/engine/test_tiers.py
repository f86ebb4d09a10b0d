"""A real worker with tiers below its pages: killed and started again it finds what its disk has, and says so; what is
deleted is on no disk; and a disk that cannot be used costs nothing but time."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tenantry.runtime.config import CacheConfig, ScheduleConfig
from tenantry.runtime.messages import Finished, Sampling, Submit
from tenantry.runtime.rehearsal import WorkerProcess, drain

DEMO = Path(__file__).resolve().parents[2] / "examples" / "demo" / "model"
PROMPT = tuple(3 + (7 * i) % 200 for i in range(100))
SESSION = b"a conversation's"


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[WorkerProcess]:
    made = WorkerProcess(
        tmp_path, DEMO, runner="model", dtype="float32", threads=1, cache=CacheConfig(pages=256),
        schedule=ScheduleConfig(max_context=512), host_cache_bytes=1 << 26, disk_cache_bytes=1 << 26,
        disk_cache_dir=tmp_path / "kv",
    )  # fmt: skip
    yield made
    await made.stop()


async def ask(worker: WorkerProcess, name: str, **options):
    sampling = Sampling(max_tokens=8, temperature=0.0, ignore_eos=True)
    submit = Submit(name, PROMPT, sampling, b"n" * 32, None, "acme/key", **options)
    tokens, _, last = await drain(worker.client.generate(submit))
    assert isinstance(last, Finished), last
    return tokens[0], last.usage


def files(worker: WorkerProcess) -> list[Path]:
    return list(worker.config.disk_cache_dir.rglob("*.kv"))


async def until(worker: WorkerProcess, done) -> None:
    async with asyncio.timeout(30):
        while not done():
            await worker.client.ping()
            await asyncio.sleep(0.01)


async def test_a_killed_engine_s_sessions_come_back_from_disk_and_go_when_deleted(worker: WorkerProcess):
    await worker.start()
    expected, usage = await ask(worker, "first", session=SESSION, keep_s=3600.0)
    assert usage.cached == 0
    await until(worker, lambda: len(files(worker)) == 6)
    worker.process.kill()
    await worker.wait()
    next(iter(files(worker))).with_suffix(".incoming").write_bytes(b"cut by the kill")
    await worker.start()
    tokens, usage = await ask(worker, "again", session=SESSION, keep_s=3600.0)
    assert tokens == expected
    assert (usage.cached, usage.cached_host, usage.cached_disk) == (96, 0, 96)
    await until(worker, lambda: worker.client.stats.tiers[1].hits)
    host, disk = worker.client.stats.tiers
    assert (host.tier, disk.tier, disk.hits, disk.bad) == ("host", "disk", 6, 0)
    assert not list(worker.config.disk_cache_dir.rglob("*.incoming"))
    worker.client.drop_session(SESSION)
    await until(worker, lambda: not files(worker))
    tokens, usage = await ask(worker, "after")
    assert (tokens, usage.cached) == (expected, 0)


async def test_a_session_deleted_before_its_next_turn_leaves_nothing_an_earlier_engine_wrote(worker: WorkerProcess):
    await worker.start()
    await ask(worker, "first", session=SESSION, keep_s=3600.0)
    await until(worker, lambda: len(files(worker)) == 6)
    worker.process.kill()
    await worker.wait()
    await worker.start()
    worker.client.drop_session(b"another")
    worker.client.drop_session(SESSION)
    await until(worker, lambda: not files(worker))
    assert (await ask(worker, "again"))[1].cached == 0


async def test_a_tenant_s_pages_go_when_it_is_deleted(worker: WorkerProcess):
    await worker.start()
    for name in ("first", "second"):
        await ask(worker, name)
    await until(worker, lambda: files(worker))
    worker.client.drop_tenant("someone else")
    worker.client.drop_tenant("acme")
    await until(worker, lambda: not files(worker))
    assert (await ask(worker, "third"))[1].cached == 0


async def test_a_disk_that_cannot_be_used_is_said_and_done_without(worker: WorkerProcess):
    worker.config.disk_cache_dir.write_bytes(b"a file where a folder should be")
    await worker.start()
    expected, _ = await ask(worker, "first")
    tokens, usage = await ask(worker, "second")
    assert (tokens, usage.cached) == (expected, 96)
    assert "kv_disk_not_used" in worker.log
