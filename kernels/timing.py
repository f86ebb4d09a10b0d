"""Timing and this machine's read bandwidth, so that every figure can stand beside its floor in bytes."""

import time
from collections.abc import Callable
from statistics import median

import torch


def median_us(run: Callable[[], object], seconds: float = 0.5, least: int = 5) -> float:
    """Median microseconds of a call, after two warm ones; at least `least` calls and `seconds` of them."""
    run()
    run()
    taken: list[float] = []
    began = time.perf_counter()
    while len(taken) < least or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return median(taken) * 1e6


def read_bandwidth(megabytes: int = 256) -> float:
    """Bytes per second that torch reaches summing fp32 values that fit no cache; the best of ten."""
    values = torch.ones(megabytes << 18)
    values.sum()
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        values.sum()
        best = min(best, time.perf_counter() - start)
    return values.nbytes / best
