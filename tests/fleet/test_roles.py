"""Two real engine processes behind the router, one that prefills and one that decodes, and either of them killed."""

import asyncio
from pathlib import Path

import pytest

from tenantry.platform.fleet.router import Engine, Router
from tenantry.platform.testing import write_tiny_model
from tenantry.runtime.errors import EngineUnavailable
from tenantry.runtime.journal import read_counters
from tenantry.runtime.messages import Finished, Sampling, Submit, Tokens
from tenantry.runtime.rehearsal import WorkerProcess, drain

PROMPT = tuple(97 + n % 26 for n in range(200))


def submit(request_id: str, prompt: tuple[int, ...] = PROMPT, tokens: int = 20) -> Submit:
    sampling = Sampling(max_tokens=tokens, temperature=0.0, ignore_eos=True)
    return Submit(request_id, prompt, sampling, bytes(32), None, "t", b"receipt")


def other(n: int) -> tuple[int, ...]:
    return tuple(97 + (n + k * k) % 26 for k in range(200))


class Fleet:
    def __init__(self, folder: Path) -> None:
        model = write_tiny_model(folder / "model")
        self.shared = folder / "shared"
        self.prefill, self.decode = (self._worker(folder, model, role) for role in ("prefill", "decode"))
        pair = (("prefill", self.prefill), ("decode", self.decode))
        self.router = Router([Engine(role, role, worker.client) for role, worker in pair])

    def _worker(self, folder: Path, model: Path, role: str) -> WorkerProcess:
        (folder / role).mkdir()
        shared = {"hand_off_dir": self.shared, "hand_off_s": 3.0, "step_s": 0.005}
        return WorkerProcess(folder / role, model, role=role, name=role, **shared)

    async def start(self) -> None:
        await asyncio.gather(self.prefill.start(), self.decode.start())

    async def stop(self) -> None:
        await asyncio.gather(self.prefill.stop(), self.decode.stop())

    def segments(self) -> list[Path]:
        return [path for folder in self.shared.iterdir() for path in folder.iterdir()]

    async def counts(self):
        await asyncio.gather(*(worker.client.ping() for worker in (self.prefill, self.decode)))
        return {report.name: report.hand_offs for report in self.router.reports()}

    async def nothing_is_left(self) -> None:
        async with asyncio.timeout(10):
            while self.segments():
                await asyncio.sleep(0.02)


@pytest.fixture
async def fleet(tmp_path):
    fleet = Fleet(tmp_path)
    await fleet.start()
    yield fleet
    await fleet.stop()


async def test_a_long_prompt_walks_and_a_short_one_stays(fleet):
    long, _, last = await drain(fleet.router.generate(submit("long")))
    short, _, _ = await drain(fleet.router.generate(submit("short", PROMPT[:30])))
    assert (len(long[0]), len(short[0])) == (20, 20)
    assert isinstance(last, Finished)
    assert (last.usage.prompt, last.usage.cached) == (200, 0)
    counts = await fleet.counts()
    assert (counts["prefill"]["sent"], counts["decode"]["taken"]) == (1, 1)
    again, _, last = await drain(fleet.router.generate(submit("again")))
    assert again == long
    assert last.usage.cached >= 190
    assert (await fleet.counts())["prefill"]["sent"] == 1, "what is there already is not computed elsewhere"
    await fleet.nothing_is_left()
    assert read_counters(fleet.prefill.config.journal_dir) == {}
    assert len(read_counters(fleet.decode.config.journal_dir)) == 3


async def test_a_dead_prefill_engine_is_done_without_and_its_memory_comes_back(fleet):
    """Fault 30. Requests that it has, and those that come while it is away, are computed where they are decoded."""
    running = [asyncio.create_task(drain(fleet.router.generate(submit(f"r{n}", other(n))))) for n in range(12)]
    await asyncio.sleep(0.03)
    fleet.prefill.process.kill()
    await fleet.prefill.process.wait()
    async with asyncio.timeout(20):
        ended = await asyncio.gather(*running, drain(fleet.router.generate(submit("after"))))
    assert all(isinstance(last, Finished) and last.reason == "length" for _, _, last in ended)
    assert all(last.usage.prompt == 200 for _, _, last in ended)
    await fleet.prefill.start()
    await fleet.nothing_is_left()
    await drain(fleet.router.generate(submit("new", other(77))))
    assert (await fleet.counts())["prefill"]["sent"] == 1


async def test_a_dead_decode_engine_leaves_nothing_and_requests_without_a_token_go_on(fleet):
    """The prefill engine is the only one left: it answers by itself. Who had a token is told that it ended."""
    told = fleet.router.generate(submit("told", tokens=400))
    assert isinstance(await anext(told), Tokens)
    waiting = [fleet.router.generate(submit(f"r{n}", other(n))) for n in range(6)]
    fleet.decode.process.kill()
    await fleet.decode.process.wait()
    with pytest.raises(EngineUnavailable):
        async with asyncio.timeout(20):
            async for _ in told:
                pass
    async with asyncio.timeout(20):
        ended = await asyncio.gather(*(drain(generation) for generation in waiting), return_exceptions=True)
    assert all(isinstance(end, tuple) and end[2].reason == "length" for end in ended)
    await fleet.nothing_is_left()
    owned = read_counters(fleet.prefill.config.journal_dir)
    assert {entry.attempt for entry in owned.values()} == {1}
    assert len(owned) == 6


async def test_an_abort_frees_both_sides(fleet):
    generations = [fleet.router.generate(submit(f"r{n}", other(n), tokens=500)) for n in range(8)]
    for n, generation in enumerate(generations):
        await asyncio.sleep(0.004 * (n % 3))
        generation.abort()
    async with asyncio.timeout(20):
        ends = [(await drain(generation))[2] for generation in generations]
    assert [end.reason for end in ends] == ["abort"] * 8
    await fleet.nothing_is_left()
    async with asyncio.timeout(10):
        while any(report.running or report.waiting for report in fleet.router.reports()):
            await fleet.counts()
    assert len(read_counters(fleet.decode.config.journal_dir)) == 8
