"""The device that kernels are timed on: a CUDA GPU, or Triton's interpreter, where only the shapes are small.

Interpreted times say nothing about a GPU. They are taken all the same, so that every line of these benchmarks has
run before a GPU meets it, and every result is compared with fp64 on both.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from benchmarks.report import Report

REAL = torch.cuda.is_available()
DEVICE = "cuda" if REAL else "cpu"
DTYPE = torch.bfloat16 if REAL else torch.float16  # the interpreter's bf16 products are wrong
COLD_BYTES = 256 << 20  # several times a GPU's cache: what is rotated through must not fit
REPEATS = 20
CLOSE = "<= 0.02"  # error against fp64 of results in half precision, relative to the largest


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder's. slices: output widths by site."""

    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    layers: int
    vocab: int

    @property
    def sites(self) -> dict[str, tuple[int, tuple[int, ...]]]:
        """Site to (input features, output features of each slice)."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "qkv": (self.hidden, (q, kv, kv)),
            "o": (q, (self.hidden,)),
            "gate_up": (self.hidden, (self.intermediate, self.intermediate)),
            "down": (self.intermediate, (self.hidden,)),
        }


EIGHT_B = Shape(4096, 14336, 32, 8, 128, 32, 128256)
TINY = Shape(64, 96, 4, 2, 16, 2, 256)
SHAPE = EIGHT_B if REAL else TINY


def micros(run: Callable[[], object], per: int = 1) -> float:
    """Median microseconds of run(), divided by `per`. On a GPU from replays of a CUDA graph, so that no host time
    is counted; a run that cannot be captured is timed as it is."""
    if not REAL:
        began = time.perf_counter()
        run()
        return (time.perf_counter() - began) * 1e6 / per
    run()
    torch.cuda.synchronize()
    replay = captured(run)
    taken = []
    for _ in range(REPEATS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        replay()
        end.record()
        end.synchronize()
        taken.append(begin.elapsed_time(end) * 1e3)
    return median(taken) / per


def captured(run: Callable[[], object]) -> Callable[[], object]:
    """run() as a graph's replay, or run itself where it does something that a graph cannot hold."""
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            run()
    except RuntimeError:
        torch.cuda.synchronize()
        return run
    return graph.replay


def rotations(nbytes: float, most: int = 256) -> int:
    """How many copies of nbytes must take turns so that none is still in the cache."""
    return max(1, min(most, -(-COLD_BYTES // max(1, int(nbytes))))) if REAL else 2


def error(actual: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest expected value; NaN where the result has one."""
    return float((actual.double() - expected.double()).abs().max() / expected.double().abs().max())


def say(report: Report, what: str, us: float, floor: float, off: float) -> None:
    """Ours: microseconds beside the floor. Interpreted, only how far the result is from fp64."""
    if REAL:
        report.add(what, us, "us", floor_us=floor, of_floor=floor / us, error=off)
    report.judge(f"{what}: error", off, CLOSE)


def beside(report: Report, what: str, peer: str, us: float, theirs: float, off: float) -> None:
    """A peer's time over ours; its error is shown, and is its own affair."""
    if REAL:
        report.add(f"{what}: {peer} / ours", theirs / us, us=theirs, error=off)
    else:
        report.add(f"{what}: {peer}'s error", off)


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What this device reaches at best: bytes per second read and copied (read and write counted), FLOP per second,
    and microseconds that an empty kernel adds to a graph."""

    read: float
    copy: float
    flops: float
    launch_us: float

    @classmethod
    def measure(cls) -> "Ceilings":
        count = (1 << 30) if REAL else (1 << 20)
        data = torch.ones(count // 4, device=DEVICE)
        target = torch.empty_like(data)
        read = data.nbytes / micros(lambda: data.sum()) * 1e6
        copy = 2 * data.nbytes / micros(lambda: target.copy_(data)) * 1e6
        n = 8192 if REAL else 128
        a, b = (torch.randn(n, n, device=DEVICE).to(DTYPE) for _ in range(2))
        flops = 2 * n**3 / micros(lambda: a @ b) * 1e6
        one = torch.zeros(1, device=DEVICE)
        launch = micros(lambda: [one.add_(1) for _ in range(100)], per=100)
        return cls(max(read, copy), copy, flops, launch)


def wall_us(run: Callable[[], object], times: int = 20) -> float:
    """Median microseconds of run() and all that it started, the host's time included."""
    taken = []
    for _ in range(times + 2 if REAL else 3):
        began = time.perf_counter()
        run()
        if REAL:
            torch.cuda.synchronize()
        taken.append((time.perf_counter() - began) * 1e6)
    return median(taken[2:])
