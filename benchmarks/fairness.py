"""Shares and paces: a quiet tenant beside a flood, twenty equal tenants, long prompts among those who decode.

`python -m benchmarks.fairness [--model DIR] [--quick]`. The engine over a real model in this process, open loop, all
in one run: a quiet tenant's solo and its flooded turns alternate, policies follow each other. Service is counted as
VTC counts it: 1 for a prompt token, 2 for one drawn.
"""

import math
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import median

from benchmarks.report import Report, told
from benchmarks.targets import TARGETS
from benchmarks.traffic import Ask, Bench, Run
from tenantry.runtime.config import ScheduleConfig

DEMO = Path(__file__).resolve().parents[1] / "examples" / "demo" / "model"
LONG, DECODERS = 1984, 16
TENANTS = 20


class Traffic:
    """Prompts like no other's, of random ids."""

    def __init__(self, bench: Bench, seed: int) -> None:
        self._rng, self._vocab = Random(seed), bench.runner.vocab_size

    def ask(self, due: float, tenant: str, prompt: int, draws: int) -> Ask:
        return Ask(due, tenant, tuple(self._rng.randrange(3, self._vocab) for _ in range(prompt)), draws)

    def poisson(self, tenant: str, rate: float, seconds: float, prompt: int, draws: int) -> list[Ask]:
        due, asks = self._rng.expovariate(rate), []
        while due < seconds:
            asks.append(self.ask(due, tenant, prompt, draws))
            due += self._rng.expovariate(rate)
        return asks


def service(run: Run, tenant: str, begin: float, end: float) -> float:
    """Of one tenant, of what came between two times. A prompt counts where its first token comes."""
    units = 0.0
    for one in run.heard:
        if one.ask.tenant == tenant and one.times:
            units += len(one.ask.prompt) * (begin <= one.times[0] < end)
            units += 2 * sum(begin <= at < end for at in one.times)
    return units


def jain(values: list[float]) -> float:
    """1 if all are equal, 1/n if one has everything (Jain, Chiu and Hawe 1984)."""
    return sum(values) ** 2 / (len(values) * sum(v * v for v in values))


def flood(bench: Bench, report: Report, quick: bool, target_ms: float) -> None:
    """Both send requests of one shape, the flood ten times as many; together half again as many as can be served."""
    prompt, draws = 128, 32
    schedule = ScheduleConfig(token_budget=256, max_running=16, max_context=512)
    full = bench.run(bench.engine(schedule), [Traffic(bench, 0).ask(0.0, "t", prompt, draws) for _ in range(48)])
    capacity = 48 / max(one.times[-1] for one in full.heard)
    rate = 1.5 * capacity / 11
    seconds = (15 if quick else 60) / rate
    for name, chosen in (("", schedule), (", target", replace(schedule, itl_target_ms=target_ms))):
        solo, beside, silent = [], [], 0
        for turn in range(1 if quick else 3):
            traffic = Traffic(bench, 1 + turn)
            quiet = traffic.poisson("quiet", rate, seconds, prompt, draws)
            flooding = traffic.poisson("flood", 10 * rate, seconds, prompt, draws)
            engine = bench.engine(chosen)
            bench.run(engine, traffic.poisson("warm", capacity / 2, 2.0, prompt, draws))
            solo.append(bench.run(engine, quiet, seconds + 5).ttft("quiet", 0.95))
            both = bench.run(engine, quiet_again(traffic, quiet) + flooding, seconds + 1)
            beside.append(both.ttft("quiet", 0.95))
            silent += both.silent("quiet")
        what = f"quiet tenant's p95 TTFT, flooded / solo{name}"
        middle = median(b / s for s, b in zip(solo, beside, strict=True))
        report.show(
            what, middle, TARGETS.get(what, ""), solo_ms=median(solo), flooded_ms=median(beside),
            flood_p95_ms=both.ttft("flood", 0.95), requests=len(quiet), silent=silent, yielded=both.stats.yielded,
            model_error=both.stats.step_times.error,
        )  # fmt: skip


def quiet_again(traffic: Traffic, asks: list[Ask]) -> list[Ask]:
    """At the same times, with other prompts, so that nothing is found in the cache."""
    return [traffic.ask(ask.due, ask.tenant, len(ask.prompt), ask.draws) for ask in asks]


def equals(bench: Bench, report: Report, quick: bool) -> None:
    """Twenty tenants that always have something waiting, each with requests of its own shape, a fifth of them with
    ten times as many."""
    schedule = ScheduleConfig(
        token_budget=256, max_running=16, max_context=512, max_waiting=16384, max_waiting_tenant=8192
    )
    traffic, rng, asks = Traffic(bench, 7), Random(7), []
    names = [f"t{at}" for at in range(TENANTS)]
    seconds = 10.0 if quick else 30.0
    for at, tenant in enumerate(names):
        prompt, draws = rng.choice(((32, 16), (128, 32), (256, 16), (64, 64)))
        asks += [traffic.ask(0.0, tenant, prompt, draws) for _ in range(2000 if at % 5 == 0 else 400)]
    rng.shuffle(asks)
    run = bench.run(bench.engine(schedule), asks, seconds)
    shares = [service(run, tenant, 0.1 * seconds, seconds) for tenant in names]
    left = {tenant: sum(not one.times for one in run.heard if one.ask.tenant == tenant) for tenant in names}
    note = "" if all(left.values()) else "a tenant ran out of requests: the index is no measure"
    what = f"Jain's index over {TENANTS} equal tenants"
    report.show(what, jain(shares), TARGETS[what], least=min(shares), most=max(shares), all=sum(shares), note=note)


def long_prompts(bench: Bench, report: Report, quick: bool) -> float:
    """Sixteen decode for long, prompts of 2k tokens come at four tenths of what the machine could take. Returns the
    target in ms: two and a half times the step of those who decode alone, as long as they are in the end."""
    base = ScheduleConfig(token_budget=512, max_running=DECODERS + 4, max_context=2048)
    traffic = Traffic(bench, 3)
    lasting = 500 if quick else 1000
    alone = bench.run(bench.engine(base), [traffic.ask(0.0, "d", 64, lasting) for _ in range(DECODERS)])
    lone = bench.run(bench.engine(base), [traffic.ask(0.0, "p", LONG, 2)])
    ended = max(one.times[-1] for one in alone.heard)
    step, prefill = alone.gaps("d", 0.5, 0.8 * ended), 1e3 * lone.heard[0].times[0]
    target = math.ceil(2.5 * step)
    count, every = 4 if quick else 12, 2.5 * prefill / 1e3
    report.add("16 decoders alone, a step", step, "ms", p99_ms=alone.gaps("d", 0.99), prefill_2k_ms=prefill)
    for name, schedule in (
        ("mixed, target", replace(base, itl_target_ms=target)),
        ("mixed, no target", base),
        ("prefill-first", replace(base, policy="prefill-first")),
    ):
        draws = min(1900, int(1e3 * every * (count + 2) / step))
        asks = [traffic.ask(0.0, "d", 64, draws) for _ in range(DECODERS)]
        asks += [traffic.ask(every * (1 + at), "warm" if at < 2 else "p", LONG, 2) for at in range(count + 2)]
        run = bench.run(bench.engine(schedule), asks, every * (count + 4))
        begin = 2.9 * every
        p99 = run.gaps("d", 0.99, begin)
        report.add(
            f"2k prompts among 16 decoders, ITL p99, {name}", p99, "ms", p50_ms=run.gaps("d", 0.5, begin),
            worst_ms=run.gaps("d", 1.0, begin), ttft_ms=run.ttft("p", 0.5), target_ms=float(target),
            model_error=run.stats.step_times.error,
        )  # fmt: skip
        if name == "mixed, target":
            what = "2k prompts among 16 decoders, ITL p99 / target"
            report.show(what, p99 / target, TARGETS[what], silent=run.silent("p"))
    return float(target)


def measure(report: Report, model: Path = DEMO, threads: int = 1, quick: bool = False) -> None:
    most = ScheduleConfig(token_budget=512, max_running=DECODERS + 4, max_context=2048)
    bench = Bench(model, threads, pages=4096, most=most)
    target = long_prompts(bench, report, quick)
    flood(bench, report, quick, target)
    equals(bench, report, quick)
    bench.runner.close()


def main() -> None:
    told("fairness", __doc__, measure, DEMO)


if __name__ == "__main__":
    main()
