"""The forward pass alone, through the real runner and no server: LoRA's share of a prefill, and what int8 pages cost.

What is compared takes turns, call by call, and the fastest turn of each counts: on a machine that others use, it is
the one that was disturbed least. Beside each ratio stands the same one of processor time.
"""

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.floor import Machine, Size, prefill_seconds
from benchmarks.report import Report
from benchmarks.targets import TARGETS
from benchmarks.variants import Variant
from tenantry.adapters.base_digest import digest_model
from tenantry.adapters.manifest import BaseSpec
from tenantry.adapters.store import LocalStore
from tenantry.adapters.validate import validate
from tenantry.runtime.config import CacheConfig, EngineConfig, ScheduleConfig
from tenantry.runtime.model.driver import Driver, Track
from tenantry.runtime.model.runner import ModelRunner

PROMPT = 512
CHUNK = 256  # the server's default token budget
CONTEXT, ROWS = 2048, 16
RANKS = (16, 64)


def measure(model: Path, adapters: Path, variants: Sequence[Variant], report: Report, quick: bool) -> None:
    machine = Machine.measure(quick)
    for variant in variants:
        with tempfile.TemporaryDirectory() as scratch:
            try:
                runner = start(model, Path(scratch), variant, pages=2 * PROMPT // 16)
            except (TypeError, ValueError) as error:
                report.absent(f"{variant.name} prefill of {PROMPT}", str(error))
                continue
            try:
                prefill(runner, model, adapters, machine, variant, report, 3 if quick else 7)
            finally:
                runner.close()
    pages(model, report, 5 if quick else 25)


def start(model: Path, scratch: Path, variant: Variant, pages: int, **changes: Any) -> ModelRunner:
    """The runner that `tenantry serve` with the variant's options would make. Raises ValueError for an option that
    the engine has no field for."""
    names = {"--" + field.name.replace("_", "-"): field.name for field in fields(EngineConfig)}
    for option, value in zip(variant.options[::2], variant.options[1::2], strict=True):
        if option not in names:
            raise ValueError(f"the engine has no option {option}")
        changes[names[option]] = value
    config = EngineConfig(
        model_dir=model,
        adapter_dir=scratch / "adapters",
        socket="",
        journal_dir=scratch,
        adapter_bytes=2 << 30,
        cache=CacheConfig(pages=pages),
        schedule=ScheduleConfig(token_budget=CHUNK, max_context=4096),
    )
    return ModelRunner(replace(config, **changes))


def stored(model: Path, adapters: Path, store: LocalStore) -> dict[int, bytes]:
    """An adapter of each of RANKS, as the registry would store it."""
    base = BaseSpec.from_config(json.loads((model / "config.json").read_bytes()), digest_model(model))
    found: dict[int, bytes] = {}
    for folder in sorted(adapters.iterdir()):
        rank = json.loads((folder / "adapter_config.json").read_text())["r"]
        if rank in RANKS and rank not in found:
            checked = validate(folder, base, store=store)
            assert checked.manifest is not None, checked.problems
            found[rank] = checked.manifest.digest
    return found


class Taken(NamedTuple):
    """Seconds on the wall's clock, and of processor time over all threads."""

    wall: float
    processor: float


def turns(runs: dict[str, Callable[[], object]], times: int) -> dict[str, Taken]:
    """Least seconds of each, all taking turns, after one round that is not counted."""
    taken: dict[str, list[Taken]] = {name: [] for name in runs}
    for round_ in range(times + 1):
        for name, run in runs.items():
            began, worked = time.perf_counter(), time.process_time()
            run()
            if round_:
                taken[name].append(Taken(time.perf_counter() - began, time.process_time() - worked))
    return {name: Taken(*map(min, zip(*values, strict=True))) for name, values in taken.items()}


def prefill(
    runner: ModelRunner, model: Path, adapters: Path, machine: Machine, variant: Variant, report: Report, times: int
) -> None:
    """One prompt of 512 in chunks of the server's token budget: the base, and adapters of two ranks."""
    driver = Driver(runner)
    digests = stored(model, adapters, runner.adapters._store)
    driver.load(*digests.values())
    prompt = [i % runner.vocab_size for i in range(7, 7 + PROMPT)]

    def once(digest: bytes | None) -> None:
        driver.reset()
        track = driver.track(prompt, digest)
        while not track.generated:
            driver.step([track], CHUNK)

    runs = {"base": lambda: once(None)} | {str(rank): lambda d=digests[rank]: once(d) for rank in RANKS}
    seconds = turns(runs, times)
    base = seconds.pop("base")
    report.add(f"{variant.name} prefill of {PROMPT}", PROMPT / base.wall, "tok/s")
    floor = prefill_seconds(machine, Size.of(model), PROMPT, 0)
    report.add(f"{variant.name} prefill of {PROMPT}, of the GEMM rate", floor / base.wall)
    for rank, taken in seconds.items():
        what = f"{variant.name} LoRA's share of a prefill of {PROMPT}, rank {rank}"
        by_processor = 1 - base.processor / taken.processor
        report.show(what, 1 - base.wall / taken.wall, TARGETS.get(what, ""), by_processor_time=by_processor)


def pages(model: Path, report: Report, times: int) -> None:
    """Sixteen rows at 2k context, bf16 weights, int8 and bf16 pages: bytes per token, and a decode step's speed."""
    variant, each = Variant("bf16"), CONTEXT // 16 + 8
    with tempfile.TemporaryDirectory() as scratch:
        kinds = ("int8", "bfloat16")
        runners = {k: start(model, Path(scratch), variant, ROWS * each, kv_dtype=k) for k in kinds}
        sizes = {k: r.pool.nbytes / (ROWS * each * 16) for k, r in runners.items()}
        steps = {kind: decoding(runner, each) for kind, runner in runners.items()}
        seconds = turns(steps, times)
        for runner in runners.values():
            runner.close()
    for kind in kinds:
        report.add(f"{kind} pages", sizes[kind], "B/token")
        report.add(f"{kind} pages, {ROWS} rows at {CONTEXT}", ROWS / seconds[kind].wall, "tok/s")
    what = "int8 / bf16 KV bytes per token"
    report.show(what, sizes["int8"] / sizes["bfloat16"], TARGETS.get(what, ""))
    what = f"int8 / bf16 pages, decode speed at {CONTEXT}"
    wall, processor = (seconds["bfloat16"][i] / seconds["int8"][i] for i in range(2))
    report.show(what, wall, TARGETS.get(what, ""), by_processor_time=processor)


def decoding(runner: ModelRunner, each: int) -> Callable[[], object]:
    """A decode step of rows whose pages are full of noise: what they hold does not change what a step costs."""
    driver, noise = Driver(runner), torch.Generator().manual_seed(1)
    for layer in runner.pool.layers:
        for values in (layer.k, layer.v):
            if values.dtype == torch.int8:
                values.random_(-127, 128, generator=noise)
            else:
                values.normal_(generator=noise)
        for scales in (layer.k_scale, layer.v_scale):
            if scales is not None:
                scales.fill_(0.01)
    tracks: list[Track] = []
    for row in range(ROWS):
        track = driver.track([3 + row] * (CONTEXT + 1), pages=range(row * each, row * each + CONTEXT // 16))
        track.pages = list(range(row * each, (row + 1) * each))
        tracks.append(track)
    return lambda: driver.step(tracks)
