"""`make bench`: every figure beside its floor and its peers, in one run on one machine.

Prints rows as they come, says which targets were met, and with --out writes the rows as JSON and the note's table
beside it. Ratios are what to read: absolute speeds belong to the machine.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.contest import Contest, contest
from benchmarks.floor import bf16_in_hardware, processor_name
from benchmarks.models import make
from benchmarks.report import Report, table
from benchmarks.server import serve
from benchmarks.targets import TARGETS
from benchmarks.variants import VARIANTS, Variant
from benchmarks.workload import DESCRIPTIONS, build

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "examples" / "demo"
PARTS = "scheduler,gateway,demo,base,forward,memory,fairness,roles,sessions,kernels,speculation"
WORKLOADS = "W2,W1,WC,W5,W3,W4"

# Workload and variants that meet each peer.
IN_PROCESS = {"PEFT": ("W1", ("bf16", "int8")), "transformers": ("W2", ("bf16",))}
FOREIGN = {
    "vllm, LoRA off": {"W2": ("bf16",), "W5": ("bf16", "int8")},
    "llama.cpp F16": {"W1": ("bf16",), "W2": ("bf16",), "W5": ("bf16",)},
    "llama.cpp BF16": {"W1": ("bf16",), "W5": ("bf16",)},
    "llama.cpp Q8_0": {"W1": ("int8",), "W5": ("int8",)},
    "vllm": {"W1": ("bf16",)},
}


def model_part(label: str, model: Path, adapters: dict[str, Path], a: Any, report: Report) -> None:
    """The workloads in every variant, then the duels."""
    ranks = {n: json.loads((p / "adapter_config.json").read_text())["r"] for n, p in adapters.items()}
    with tempfile.TemporaryDirectory() as data:
        running = contest(label, model, adapters, ranks, a.variants, Path(data), report, a.quick)
        with running as made:
            if not a.duels:
                workloads(made, a)
            if a.peers:
                in_process(made, adapters, a)
            if a.peers_dir and label != "demo":
                foreign(made, adapters, a, Path(data))


def workloads(made: Contest, a: Any) -> None:
    """Ours alone, each workload beside the machine's limit."""
    for name in a.workloads:
        if name == "W5":
            made.lone_streams(3 if a.quick else 0)
        else:
            made.whole(name, 16 if a.quick and name != "WC" else 0)
    made.between("W1", "W2")
    if "W3" in a.workloads:
        made.prefix()


def in_process(made: Contest, adapters: dict[str, Path], a: Any) -> None:
    """transformers and PEFT, in bf16 and, where the processor only emulates that, in fp32 as well."""
    import torch

    from benchmarks.peer import Peer

    folder = next(iter(adapters.values())).parent
    for dtype in ("bfloat16",) if bf16_in_hardware() else ("bfloat16", "float32"):
        for what, (workload, variants) in IN_PROCESS.items():
            if workload not in a.workloads:
                continue
            names = sorted(made.ranks) if what == "PEFT" else []
            peer = Peer(made.model, folder if names else None, names, getattr(torch, dtype))
            peer.window(list(made.fresh("WU").calls[8:]), 3)
            made.duel(
                workload,
                f"{what} {dtype}",
                variants,
                lambda w, p=peer: p.throughput(w, a.peer_steps),
                calls=16,
                note=f"{a.peer_steps} of its 64 tokens timed, the rest at their median" if a.peer_steps else "",
            )
            del peer


def foreign(made: Contest, adapters: dict[str, Path], a: Any, data: Path) -> None:
    """Servers of others, from environments of their own (benchmarks.peers), one at a time."""
    from benchmarks import peers

    for peer in a.foreign:
        wanted = {w: variants for w, variants in FOREIGN[peer].items() if w in a.workloads}
        if not wanted:
            continue
        try:
            running = peers.start(peer, a.peers_dir, made.model, adapters, data)
            with running as launch:
                served = launch.served
                served.drive(made.fresh("WU", 4).cut(4))
                for workload, variants in list(wanted.items()):
                    made.duel(
                        workload,
                        peer,
                        variants,
                        lambda w, s=served: peers.speed(s, w),
                        calls=2 if workload == "W5" else 16,
                        tokens=a.foreign_tokens,
                        note=launch.how,
                    )
                    del wanted[workload]
        except peers.PeerAbsent as absent:
            made.without(peer, str(absent), wanted)


def gateway_overhead(report: Report) -> None:
    """The gateway alone: a scripted engine draws tokens in no time, so what is left is ours per token."""
    model = DEMO / "model"
    options = ("--runner", "scripted")
    with tempfile.TemporaryDirectory() as data, serve(model, [], Path(data) / "d", *options) as served:
        workloads = [build(model / "tokenizer.json", rep=rep)["W2"] for rep in range(3)]
        runs = [served.drive(workload) for workload in workloads]
    tokens = sum(c.max_tokens for c in workloads[0].calls)
    micros = [run.seconds / tokens * 1e6 for run in runs]
    note = "client, HTTP, metering, ipc and scheduling; 16 streams"
    report.add("gateway per token", min(micros), "us", note=note, median_us=statistics.median(micros))


def swap_cliff(report: Report, quick: bool) -> None:
    """W7, on the demo's model: throughput while more adapters are in use than fit, of that with all of them held."""
    from benchmarks.memory import cliff

    points = cliff(DEMO / "model", 16, 48 if quick else 128, passes=1 if quick else 3)
    smallest = {p.memory: p.tokens for p in reversed(points)}
    for p in points:
        what = f"W7 {p.multiple:g} x budget, {p.memory}"
        share = p.tokens / smallest[p.memory]
        report.show(what, share, TARGETS.get(what, ""), tok_s=p.tokens, loads=p.loads, steady=p.steady)


def modules() -> Iterator[str]:
    """Benchmarks that print their own tables."""
    yield "benchmarks.scheduler"
    yield "benchmarks.speculation"
    for path in sorted((ROOT / "benchmarks" / "kernels").glob("bench_*.py")):
        yield f"benchmarks.kernels.{path.stem}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=listed, default=listed(PARTS), help="parts, comma-separated: " + PARTS)
    parser.add_argument("--workloads", type=listed, default=listed(WORKLOADS), help=f"W5 brings W5L: {DESCRIPTIONS}")
    parser.add_argument("--folder", type=Path, default=ROOT / "peers", help="where models are made")
    parser.add_argument("--adapters", type=int, default=32)
    parser.add_argument("--variant", type=Variant.parse, action="append", dest="variants", metavar="NAME=OPTIONS",
                        help="how our server runs; default: " + "; ".join(map(str, VARIANTS)))  # fmt: skip
    parser.add_argument("--peer-steps", type=int, default=12,
                        help="tokens of each of transformers' windows that are computed; 0: all")  # fmt: skip
    parser.add_argument("--no-peers", dest="peers", action="store_false", help="without transformers and PEFT")
    parser.add_argument("--duels", action="store_true", help="of the workloads, only the duels with peers")
    parser.add_argument("--foreign", type=lambda text: tuple(text.split(";")), default=tuple(FOREIGN),
                        help="which servers of --peers-dir, by semicolons")  # fmt: skip
    parser.add_argument("--foreign-tokens", type=int, default=0, help="cut requests of such a duel to this output")
    parser.add_argument("--peers-dir", type=Path, help="what `python -m benchmarks.peers_install` filled")
    parser.add_argument("--quick", action="store_true", help="fewer requests; for a look, not for a note")
    parser.add_argument("--label", default="", help="the column's head in the note's table")
    parser.add_argument("--out", type=Path, help="write the rows as JSON here, and the table beside it")
    a = parser.parse_args()
    a.variants = tuple(a.variants or VARIANTS)
    a.folder, a.peers_dir = a.folder.absolute(), a.peers_dir and a.peers_dir.absolute()
    return a


def listed(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def main() -> None:
    a = arguments()
    report = Report(a.label or processor_name())
    packages = ("torch", "numba", "transformers", "peft")
    print(processor_name(), *(f"{name} {version(name)}" for name in packages), sep=", ", flush=True)
    try:
        measure(a, report)
    finally:
        if a.out:
            report.write(a.out)
            a.out.with_suffix(".md").write_text(table([report]))
    print(report.summary())


def measure(a: argparse.Namespace, report: Report) -> None:
    if "base" in a.only:
        folder = make(a.folder, a.adapters)
        adapters = {f"{i:02d}": folder / "adapters" / f"{i:02d}" for i in range(a.adapters)}
        model_part("0.5B", folder / "base", adapters, a, report)
    if "forward" in a.only:
        from benchmarks import forward

        folder = make(a.folder, a.adapters)
        forward.measure(folder / "base", folder / "adapters", a.variants, report, a.quick)
    if "demo" in a.only:
        model_part("demo", DEMO / "model", {p.name: p for p in sorted((DEMO / "adapters").iterdir())}, a, report)
    if "memory" in a.only:
        swap_cliff(report, a.quick)
    if "fairness" in a.only:
        from benchmarks import fairness

        fairness.measure(report, quick=a.quick)
    if "roles" in a.only:
        from benchmarks import roles

        asyncio.run(roles.measure(report, quick=a.quick))
    if "sessions" in a.only:
        from benchmarks import sessions

        sessions.measure(report, quick=a.quick)
    if "gateway" in a.only:
        gateway_overhead(report)
    for module in modules():
        if module.split(".")[1] in a.only:
            print(f"\n{module}", flush=True)
            subprocess.run([sys.executable, "-m", module], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
