"""`make bench`: every figure beside its floor and its peers, in one run on one machine.

Prints tables and, with --out, writes them as JSON. The order is fixed, the peers run in the same process tree
minutes apart, and ratios are what to read: absolute speeds belong to the machine.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.floor import Bytes, Machine, decode_floor_seconds, prefill_floor_seconds
from benchmarks.load import Outcome, drive
from benchmarks.models import make
from benchmarks.server import Served, serve
from benchmarks.workload import DESCRIPTIONS, Workload, build

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "examples" / "demo"
PEER_RUNS = ("W2", "W1")


class Report:
    """Lines for people as they come, and the same numbers for the file."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(self, what: str, **values: Any) -> None:
        self.rows.append({"what": what, **values})
        shown = "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())
        print(f"{what:34} {shown}", flush=True)

    def ratio(self, what: str, value: float, target: str) -> None:
        self.add(what, ratio=round(value, 3), target=target)


def ideal_seconds(machine: Machine, size: Bytes, workload: Workload, ranks_of: dict[str, int]) -> float:
    """The whole workload at the machine's limits: prompts at the GEMM rate, every decode step at its floor."""
    prompt = sum(len(c.prompt) for c in workload.calls)
    seconds = prefill_floor_seconds(machine, size, prompt)
    calls = workload.calls
    for start in range(0, len(calls), workload.concurrency):
        window = calls[start : start + workload.concurrency]
        ranks = sum(ranks_of[a] for a in {c.adapter for c in window if c.adapter})
        context = len(window[0].prompt) + window[0].max_tokens // 2
        seconds += window[0].max_tokens * decode_floor_seconds(machine, size, len(window), ranks, context)
    return seconds


def measure(served: Served, workload: Workload, report: Report, label: str) -> Outcome:
    outcome = asyncio.run(drive(served.url, served.key, served.base, workload))
    if outcome.bad:
        print(f"{label} {workload.name}: {len(outcome.bad)} bad: {outcome.bad[:3]}", file=sys.stderr)
    report.add(
        f"{label} {workload.name} tenantry",
        tok_s=outcome.output_tokens_per_second,
        ttft_p50_ms=outcome.ttft(0.5),
        ttft_p99_ms=outcome.ttft(0.99),
        itl_p50_ms=outcome.itl(0.5),
        itl_p99_ms=outcome.itl(0.99),
        cached=outcome.cached,
        bad=len(outcome.bad),
    )
    return outcome


def lone_prefix_ratio(served: Served, workload: Workload) -> tuple[float, float, float]:
    """W3's prompts one at a time, so that only computing differs: (cold ms, hit ms, ratio)."""
    alone = Workload("W3", workload.calls, 1)
    outcome = asyncio.run(drive(served.url, served.key, served.base, alone))
    cold = outcome.ttft(0.5, lambda a: a.cached == 0)
    hit = outcome.ttft(0.5, lambda a: a.cached > 0)
    return cold, hit, hit / cold


def throughput(model: Path, adapters: dict[str, Path], report: Report, a: Any, label: str) -> None:
    """W1-W5 through the real server, then W2 and W1 on transformers + PEFT, then the ratios."""
    machine, size = Machine.measure(), Bytes.of(model)
    report.add(f"{label} machine", processor=machine.processor, threads=machine.threads,
               read_gb_s=machine.bytes_per_second / 1e9, gemm_gflop_s=machine.flops / 1e9)  # fmt: skip
    ranks = {n: json.loads((p / "adapter_config.json").read_text())["r"] for n, p in adapters.items()}
    names = list(adapters)
    workloads, second = (build(model / "tokenizer.json", names, rep) for rep in (0, 1))
    ours: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as data, serve(model, list(adapters.items()), Path(data) / "d") as served:
        asyncio.run(drive(served.url, served.key, served.base, workloads["WU"]))
        for name in a.workloads.split(","):
            outcome = measure(served, workloads[name], report, label)
            ours[name] = outcome.output_tokens_per_second
            seconds = ideal_seconds(machine, size, workloads[name], ranks)
            report.ratio(f"{label} {name} of the machine's limit", seconds / outcome.seconds, "-")
        if "W3" in ours:
            cold, hit, ratio = lone_prefix_ratio(served, second["W3"])
            report.add(f"{label} prefix TTFT, one at a time", cold_ms=cold, hit_ms=hit)
            report.ratio(f"{label} prefix-hit TTFT / cold", ratio, "<= 0.35")
    if "W1" in ours and "W2" in ours:
        report.ratio(f"{label} W1 / own W2", ours["W1"] / ours["W2"], ">= 0.45")
    if a.peers:
        peers(model, next(iter(adapters.values())).parent, workloads, ours, a.peer_calls, report, label)


def peers(
    model: Path,
    folder: Path,
    workloads: dict[str, Workload],
    ours: dict[str, float],
    calls: int,
    report: Report,
    label: str,
) -> None:
    """A peer's speed does not depend on how many windows it runs, so it gets the first `calls` requests only."""
    import torch

    from benchmarks.peer import Peer

    targets = {"W1": ">= 1.2", "W2": ">= 0.9"}
    names = sorted({c.adapter for c in workloads["W1"].calls if c.adapter})
    for name in PEER_RUNS:
        if name not in ours:
            continue
        peer = Peer(model, folder if name == "W1" else None, names, torch.bfloat16)
        peer.window(list(workloads["WU"].calls[8:]))
        some = Workload(name, workloads[name].calls[:calls], workloads[name].concurrency)
        speed, _ = peer.throughput(some)
        what = "PEFT, mixed batch" if name == "W1" else "transformers"
        report.add(f"{label} {name} {what}", tok_s=speed, requests=len(some.calls))
        report.ratio(f"{label} {name} ours / {what}", ours[name] / speed, targets[name])


def gateway_overhead(report: Report) -> None:
    """The gateway alone: a scripted engine draws tokens in no time, so what is left is ours per token."""
    model = DEMO / "model"
    workload = build(model / "tokenizer.json")["W2"]
    options = ("--runner", "scripted")
    with tempfile.TemporaryDirectory() as data, serve(model, [], Path(data) / "d", *options) as served:
        runs = [asyncio.run(drive(served.url, served.key, served.base, workload)) for _ in range(3)]
    tokens = sum(c.max_tokens for c in workload.calls)
    report.add(
        "gateway overhead per token",
        us=min(r.seconds for r in runs) / tokens * 1e6,
        median_us=statistics.median(r.seconds for r in runs) / tokens * 1e6,
        includes="client, HTTP, metering, ipc and scheduling; 16 streams",
    )


def modules() -> Iterator[str]:
    """Benchmarks that print their own tables."""
    yield "benchmarks.scheduler"
    for path in sorted((ROOT / "benchmarks" / "kernels").glob("bench_*.py")):
        yield f"benchmarks.kernels.{path.stem}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="scheduler,gateway,demo,base,kernels", help="parts, comma-separated")
    parser.add_argument("--workloads", default="W2,W1,W3,W4,W5,W5L", help=str(DESCRIPTIONS))
    parser.add_argument("--folder", type=Path, default=ROOT / "peers", help="where models are made")
    parser.add_argument("--adapters", type=int, default=32)
    parser.add_argument("--peer-calls", type=int, default=32, help="how many requests a peer is timed on")
    parser.add_argument("--no-peers", dest="peers", action="store_false")
    parser.add_argument("--out", type=Path, help="write the rows as JSON")
    a = parser.parse_args()
    report, parts = Report(), a.only.split(",")
    if "base" in parts:
        folder = make(a.folder, a.adapters)
        adapters = {f"{i:02d}": folder / "adapters" / f"{i:02d}" for i in range(a.adapters)}
        throughput(folder / "base", adapters, report, a, "0.5B")
    if "demo" in parts:
        adapters = {p.name: p for p in sorted((DEMO / "adapters").iterdir())}
        throughput(DEMO / "model", adapters, report, a, "demo")
    if "gateway" in parts:
        gateway_overhead(report)
    for module in modules():
        if module.split(".")[1] in parts:
            print(f"\n{module}", flush=True)
            subprocess.run([sys.executable, "-m", module], cwd=ROOT, check=True)
    if a.out:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        a.out.write_text(json.dumps({"at": stamp, "rows": report.rows}, indent=1))


if __name__ == "__main__":
    main()
