"""W1-W5 and WC through our real server, in every variant, and duels with peers over the same requests.

All variants of one model are served at once and take turns, so that whatever else the machine does falls on each.
A duel runs ours, the peer, and ours again over the same calls: its ratio is what to read, not the speeds. No prompt
is sent twice, for a prefix cache would answer it.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from benchmarks.floor import Machine, Size, ideal_seconds
from benchmarks.load import Outcome
from benchmarks.report import Report
from benchmarks.server import Served, serve
from benchmarks.targets import TARGETS
from benchmarks.variants import Variant
from benchmarks.workload import Workload, build

LIMITED = ("W1", "W2", "W5", "W5L", "WC")  # prompts share nothing, so that each must be computed
SETTLE_S = 2.0  # before each turn of a duel: who ran last may spin for a second, waiting for more
SERVER_OPTIONS = ("--adapter-gib", "2")  # 32 adapters of the 0.5B shape are 1.06 GB


@dataclass(slots=True)
class Contest:
    """One model's run. ranks: of each adapter by name. label: what rows begin with. machine: measured at length
    before anything ran. measure: again, within seconds. absent: variants that did not start, and why."""

    label: str
    model: Path
    ranks: Mapping[str, int]
    machine: Machine
    report: Report
    measure: Callable[[], Machine]
    ours: dict[Variant, Served] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    speeds: dict[tuple[str, str], float] = field(default_factory=dict)
    reps: Iterator[int] = field(default_factory=count)

    def fresh(self, name: str, calls: int = 0) -> Workload:
        """The workload with prompts that nobody was sent yet; its first `calls` only, when given."""
        whole = build(self.model / "tokenizer.json", list(self.ranks), next(self.reps))[name]
        return whole.first(calls) if calls else whole

    def speed(self, who: Variant, workload: Workload) -> Outcome:
        outcome = self.ours[who].drive(workload)
        if outcome.bad:
            what = f"{self.label} {who.name} {workload.name} failed requests"
            self.report.judge(what, len(outcome.bad), "<= 0", note=str(outcome.bad[:3]))
        return outcome

    def beside_limits(self, who: Variant, workload: Workload) -> tuple[Outcome, Machine]:
        """A run between two measurements of the machine."""
        before = self.measure()
        outcome = self.speed(who, workload)
        return outcome, before.between(self.measure())

    def whole(self, name: str, calls: int = 0) -> None:
        """One workload in every variant, each beside the machine's limit."""
        for who in self.ours:
            workload = self.fresh(name, calls)
            outcome, limits = self.beside_limits(who, workload)
            self.record(who, workload, outcome.output_tokens_per_second, outcome.seconds, outcome, limits)

    def lone_streams(self, calls: int = 0) -> None:
        """W5 and W5L call by call in turns, so that their ratio survives a busy machine."""
        for who in self.ours:
            base, adapted = self.fresh("W5", calls), self.fresh("W5L", calls)
            pairs = tuple(call for pair in zip(base.calls, adapted.calls, strict=True) for call in pair)
            outcome, limits = self.beside_limits(who, Workload("W5+W5L", pairs, 1))
            for part in (base, adapted):
                own = tuple(a for a in outcome.answers if a.good and a.call.workload == part.name)
                seconds = sum(a.times[-1] for a in own)
                speed = sum(a.counted for a in own) / seconds if own else float("nan")
                self.record(who, part, speed, seconds, Outcome(part.name, seconds, own), limits)
        self.between("W5L", "W5")

    def record(
        self, who: Variant, workload: Workload, speed: float, seconds: float, outcome: Outcome, limits: Machine
    ) -> None:
        name = workload.name
        self.speeds[who.name, name] = speed
        self.report.add(
            f"{self.label} {who.name} {name}",
            speed,
            "tok/s",
            ttft_p50_ms=outcome.ttft(0.5),
            ttft_p99_ms=outcome.ttft(0.99),
            itl_p50_ms=outcome.itl(0.5),
            itl_p99_ms=outcome.itl(0.99),
            cached=outcome.cached,
        )
        if name in LIMITED:
            size, ranks = Size.of(self.model), dict(self.ranks)
            share, of_best = (
                ideal_seconds(machine, size, workload, ranks, who.stored) / seconds
                for machine in (limits, self.machine)
            )
            note = f"{limits.bytes_per_second / 1e9:.1f} GB/s, {limits.flops / 1e9:.0f} GFLOP/s; "
            note += f"{of_best:.3f} of the limit before the run"
            self.judged(f"{who.name} {name} of the machine's limit", share, note)

    def between(self, above: str, below: str) -> None:
        """The ratio of two of our own workloads in each variant."""
        for who in self.ours:
            if (who.name, above) in self.speeds and (who.name, below) in self.speeds:
                ratio = self.speeds[who.name, above] / self.speeds[who.name, below]
                self.judged(f"{who.name} {above} / {below}", ratio)

    def prefix(self) -> None:
        """W3's prompts one at a time, one token each, so that only computing differs between a hit and a miss."""
        for who in list(self.ours)[:1]:
            shared = self.fresh("W3")
            outcome = self.speed(who, Workload("W3", shared.calls, 1))
            cold, hit = (outcome.ttft(0.5, lambda a, h=h: (a.cached > 0) == h) for h in (False, True))
            self.report.add(f"{self.label} {who.name} prefix TTFT, cold", cold, "ms")
            self.report.add(f"{self.label} {who.name} prefix TTFT, hit", hit, "ms")
            self.judged(f"{who.name} prefix-hit TTFT / cold", hit / cold)

    def duel(
        self,
        workload: str,
        peer: str,
        variants: Sequence[str],
        run: Callable[[Workload], float],
        calls: int,
        tokens: int = 0,
        note: str = "",
    ) -> None:
        """Ours in these variants, the peer, ours again: the workload's first calls, each cut to `tokens` of output
        when given. run: the peer's output tokens per second. note: how the peer runs."""
        entered = [who for who in self.ours if who.name in variants]
        outcomes: dict[Variant, list[Outcome]] = {who: [] for who in entered}
        whole = len(self.fresh(workload).calls)
        fresh = lambda: self.fresh(workload, calls).cut(tokens)  # noqa: E731

        def turn() -> None:
            for who in entered:
                time.sleep(SETTLE_S)
                outcomes[who].append(self.speed(who, fresh()))

        turn()
        time.sleep(SETTLE_S)
        theirs = run(fresh())
        turn()
        remarks = [note] if note else []
        remarks += [f"first {calls} of {whole} requests"] if calls < whole else []
        remarks += [f"cut to {tokens} tokens"] if tokens else []
        self.report.add(f"{self.label} {workload} {peer}", theirs, "tok/s", note="; ".join(remarks))
        for who, turns in outcomes.items():
            counted = sum(a.counted for each in turns for a in each.answers if a.good)
            ours = counted / sum(each.seconds for each in turns)
            speeds = " and ".join(f"{each.output_tokens_per_second:.1f}" for each in turns)
            self.judged(f"{who.name} {workload} / {peer}", ours / theirs, note=f"ours {speeds} tok/s")
        for name in set(variants) & set(self.absent):
            self.missing(f"{name} {workload} / {peer}", self.absent[name])

    def without(self, peer: str, why: str, wanted: Mapping[str, Sequence[str]]) -> None:
        """A peer that could not run: every ratio to it says so. wanted: workload to variants."""
        for workload, variants in wanted.items():
            for name in variants:
                self.missing(f"{name} {workload} / {peer}", why)

    def missing(self, what: str, why: str) -> None:
        self.report.absent(f"{self.label} {what}", why, TARGETS.get(f"{self.label} {what}", ""))

    def judged(self, what: str, value: float, note: str = "") -> None:
        self.report.show(f"{self.label} {what}", value, TARGETS.get(f"{self.label} {what}", ""), note=note)


@contextmanager
def contest(
    label: str,
    model: Path,
    adapters: Mapping[str, Path],
    ranks: Mapping[str, int],
    variants: tuple[Variant, ...],
    data: Path,
    report: Report,
    quick: bool,
) -> Iterator[Contest]:
    """Serve every variant; those that do not start are reported. The machine is measured before anything runs."""
    machine = Machine.measure(quick)
    report.add(f"{label} read bandwidth", machine.bytes_per_second / 1e9, "GB/s", **gigas(machine.reads))
    report.add(f"{label} GEMM rate", machine.flops / 1e9, "GFLOP/s", **gigas(machine.products))
    with ExitStack() as stack:
        made = Contest(label, model, ranks, machine, report, lambda: Machine.measure(quick=True))
        for variant in variants:
            where = data / f"{label}-{variant.name}"
            try:
                server = serve(model, list(adapters.items()), where, *SERVER_OPTIONS, *variant.options)
                made.ours[variant] = stack.enter_context(server)
            except RuntimeError as error:
                made.absent[variant.name] = " ".join(str(error).split())[-300:]
                report.absent(f"{label} {variant.name}", made.absent[variant.name])
                continue
            made.ours[variant].drive(made.fresh("WU"))
        yield made


def gigas(rates: Mapping[str, float]) -> dict[str, float]:
    return {name: rate / 1e9 for name, rate in rates.items()}
