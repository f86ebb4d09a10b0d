"""One engine process, two equal ones, or one that prefills and one that decodes: on the same cores, whichever wins.

`python -m benchmarks.roles [--model DIR] [--threads 2] [--quick]`. Real worker processes behind the gateway's own
router, without HTTP. Short chats decode all the time while long prompts come at fixed times, open loop; deployments
take turns, and each is given the same requests. One process has all threads, the others share them.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.load import percentile
from benchmarks.report import Report, told
from tenantry.platform.fleet.router import Engine, Router
from tenantry.runtime.config import CacheConfig, Role, ScheduleConfig
from tenantry.runtime.messages import Finished, Sampling, Submit, Tokens
from tenantry.runtime.namespace import Namespace
from tenantry.runtime.rehearsal import WorkerProcess

DEMO = Path(__file__).resolve().parents[1] / "examples" / "demo" / "model"
DEPLOYMENTS: dict[str, tuple[Role, ...]] = {
    "one process": ("both",),
    "two processes": ("both", "both"),
    "prefill + decode": ("prefill", "decode"),
}
MEMORY = next((path for path in (Path("/dev/shm"),) if path.is_dir()), None)
CHATS, LONG = 8, 1500
NAMESPACE = Namespace(b"tenant", bytes(32)).key


@dataclass(frozen=True, slots=True)
class Ask:
    """due: seconds after the run began."""

    due: float
    long: bool
    prompt: tuple[int, ...]
    draws: int


@dataclass(slots=True)
class Heard:
    ask: Ask
    times: list[float] = field(default_factory=list)
    counted: int = 0


@asynccontextmanager
async def deployed(model: Path, roles: Sequence[Role], threads: int) -> AsyncIterator[Router]:
    """Workers of these roles, that share the threads, behind a router."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="roles-")))
        shared = stack.enter_context(tempfile.TemporaryDirectory(dir=MEMORY))
        engines = []
        for at, role in enumerate(roles):
            own = folder / f"{role}-{at}"
            own.mkdir()
            options: dict[str, Any] = {
                "runner": "model", "threads": max(1, threads // len(roles)), "role": role, "name": own.name,
                "hand_off_dir": Path(shared), "cache": CacheConfig(pages=4096), "host_cache_bytes": 0,
                "schedule": ScheduleConfig(token_budget=256, max_running=32, max_context=2048),
            }  # fmt: skip
            worker = WorkerProcess(own, model, **options)
            stack.push_async_callback(worker.stop)
            await worker.start()
            engines.append(Engine(own.name, role, worker.client))
        yield Router(engines)


def traffic(seed: int, vocab: int, seconds: float, every: float) -> list[Ask]:
    """Chats one after another in CHATS places, long prompts from the third second on. Prompts like no other's."""
    rng = Random(seed)

    def prompt(count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(3, vocab) for _ in range(count))

    asks = [Ask(0.02 * at, False, prompt(48), int(seconds * 400)) for at in range(CHATS)]
    due = 3.0
    while due < seconds:
        asks.append(Ask(due, True, prompt(LONG), 8))
        due += every
    return asks


async def run(router: Router, asks: Sequence[Ask], seconds: float, name: str) -> list[Heard]:
    """Everything that was heard until the end; what still runs then is aborted."""
    began = time.perf_counter()

    async def one(at: int, ask: Ask) -> Heard:
        heard = Heard(ask)
        await asyncio.sleep(max(0.0, began + ask.due - time.perf_counter()))
        room = min(ask.draws, 2048 - len(ask.prompt) - 1)
        sampling = Sampling(max_tokens=room, temperature=0.0, ignore_eos=True)
        generation = router.generate(Submit(f"{name}-{at}", ask.prompt, sampling, NAMESPACE, None, "tenant"))
        stop = asyncio.get_running_loop().call_later(
            max(0.0, began + seconds - time.perf_counter()), generation.abort
        )
        async for event in generation:
            if isinstance(event, Tokens):
                heard.times += [time.perf_counter() - began] * len(event.tokens)
            elif isinstance(event, Finished):
                heard.counted = event.usage.completion
        stop.cancel()
        return heard

    return list(await asyncio.gather(*(one(at, ask) for at, ask in enumerate(asks))))


def show(report: Report, name: str, heard: Sequence[Heard], router: Router) -> None:
    """Gaps of the chats once long prompts have begun to come, first tokens of these, and all that was drawn."""
    gaps = [
        1e3 * (b - a)
        for one in heard
        if not one.ask.long
        for a, b in zip(one.times, one.times[1:], strict=False)
        if a > 3.0 and b > a
    ]
    firsts = [1e3 * (one.times[0] - one.ask.due) for one in heard if one.ask.long and one.times]
    drawn, end = sum(one.counted for one in heard), max(one.times[-1] for one in heard if one.times)
    taken = sum(engine.hand_offs["taken"] for engine in router.reports())
    report.add(
        f"{name}: chats' ITL p99", percentile(gaps, 0.99), "ms", p50_ms=percentile(gaps, 0.5), worst_ms=max(gaps)
    )
    report.add(
        f"{name}: TTFT of {LONG} tokens", percentile(firsts, 0.5), "ms", p95_ms=percentile(firsts, 0.95),
        answered=len(firsts), asked=sum(one.ask.long for one in heard), taken=taken,
    )  # fmt: skip
    report.add(f"{name}: drawn", drawn / end, "tokens/s")


async def measure(report: Report, model: Path = DEMO, threads: int = 2, quick: bool = False) -> None:
    seconds, every = (8.0, 1.5) if quick else (20.0, 1.0)
    vocab = 1000  # ids that every model has
    for turn in range(1 if quick else 2):
        for name, roles in DEPLOYMENTS.items():
            async with deployed(model, roles, threads) as router:
                await run(router, traffic(99, vocab, 2.0, 9.0)[:2], 2.0, "warm")
                heard = await run(router, traffic(turn, vocab, seconds, every), seconds, f"{turn}")
                await asyncio.sleep(1.1)  # the engines' last word on themselves
                show(report, name if quick else f"{name} ({turn + 1})", heard, router)


def main() -> None:
    told("roles", __doc__, lambda *asked: asyncio.run(measure(*asked)), DEMO, os.cpu_count() or 2)


if __name__ == "__main__":
    main()
