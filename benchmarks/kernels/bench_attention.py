"""M3 on CPU: paged attention beside its floor in bytes and SDPA over contiguous bf16 keys, whose gather is free here.

python -m benchmarks.kernels.bench_attention [part of a case's name]. On a GPU: benchmarks/gpu/attention.py. One line
per case and kind of pages: microseconds per layer, % of the floor, the ratio to SDPA, the largest error against fp64.
All that a line compares takes turns in one process.
"""

import sys
from collections.abc import Callable
from itertools import pairwise, product
from time import perf_counter
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.kernels.shapes import machine
from tenantry.kernels.attention import reference
from tenantry.kernels.attention.layout import LayerPages, PageLayout
from tenantry.kernels.attention.plan import AttentionPlan
from tenantry.kernels.ops import select_ops

PAGE = 16
LEAST = 64 << 20  # bytes of pages to walk through before any is met again: no layer stays in a cache
HEADS = {"0.5B": (14, 2, 64), "8B": (32, 8, 128)}
KINDS = {
    "int8": (torch.int8, 0),
    "int8 g32": (torch.int8, 32),
    "bf16": (torch.bfloat16, 0),
    "fp32": (torch.float32, 0),
}


class Case(NamedTuple):
    """rows of `queries` tokens each, the last of `length`."""

    shape: str
    rows: int
    queries: int
    length: int

    def __str__(self) -> str:
        return f"{self.shape} {self.rows} x {self.queries} over {self.length}"


DECODE = [Case(shape, rows, 1, length) for shape, rows, length in product(HEADS, (1, 8, 16), (512, 2048, 8192))]
OTHERS = [Case("0.5B", 1, 512, 512), Case("0.5B", 1, 512, 2048), Case("0.5B", 16, 5, 2048), Case("0.5B", 4, 64, 2048)]


def turns(calls: dict[str, Callable[[], object]], seconds: float = 2.0) -> dict[str, float]:
    """Microseconds of each call in its least disturbed turn."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    began = perf_counter()
    while perf_counter() - began < seconds or len(next(iter(taken.values()))) < 5:
        for name, call in calls.items():
            start = perf_counter()
            call()
            taken[name].append(perf_counter() - start)
    return {name: min(times) * 1e6 for name, times in taken.items()}


def layers(layout: PageLayout, pages: int) -> list[LayerPages]:
    made = [layout.allocate(pages) for _ in range(max(2, LEAST // (pages * layout.bytes_per_page)))]
    for layer in made:
        k, v = torch.randn(2, pages * PAGE, layout.kv_heads, layout.head_dim).unbind(0)
        reference.write_kv(k, v, layer, torch.arange(pages * PAGE))
    return made


def error(q: Tensor, layer: LayerPages, plan: AttentionPlan, out: Tensor, scale: float) -> float:
    """Of the first row's last query, against fp64 over the same stored values."""
    length, last = plan.totals[0], plan.q_lens[0] - 1
    table = plan.block_table[0].long()
    k, v = (
        reference.gather(x, s, table, length).double()
        for x, s in ((layer.k, layer.k_scale), (layer.v, layer.v_scale))
    )
    query = q[last].double().view(layer.kv_heads, -1, layer.head_dim)
    exact = (query @ k.transpose(1, 2) * scale).softmax(-1) @ v
    return float((out[last].view_as(exact) - exact).abs().max() / exact.abs().max())


def run(case: Case, bandwidth: float) -> None:
    ops, (heads, kv_heads, width) = select_ops("cpu"), HEADS[case.shape]
    each, scale = -(-case.length // PAGE), width**-0.5
    order = torch.randperm(case.rows * each).tolist()
    tables = [order[first:past] for first, past in pairwise(range(0, len(order) + 1, each))]
    plan = AttentionPlan.build([case.queries] * case.rows, [case.length] * case.rows, tables, PAGE)
    q = torch.randn(case.rows * case.queries, heads, width)
    mask = torch.ones(case.queries, case.length, dtype=torch.bool).tril(case.length - case.queries)
    half = q.view(case.rows, case.queries, heads, width).transpose(1, 2).bfloat16()
    kv = torch.randn(2, case.rows, kv_heads, case.length, width).bfloat16()

    def sdpa() -> Tensor:
        return functional.scaled_dot_product_attention(half, *kv, attn_mask=mask, enable_gqa=True)

    calls: dict[str, Callable[[], object]] = {"sdpa": sdpa}
    floors, errors = {}, {}
    for name, (kind, group) in KINDS.items():
        layout = PageLayout(kv_heads, width, PAGE, group, kind)
        held = layers(layout, len(order))
        errors[name] = error(q, held[0], plan, ops.attention(q, held[0], plan, scale), scale)
        floors[name] = len(order) * layout.bytes_per_page / bandwidth * 1e6
        turn = iter(held * 100_000)
        calls[name] = lambda turn=turn: ops.attention(q, next(turn), plan, scale)  # type: ignore[misc]
    taken = turns(calls)
    for name in KINDS:
        us = taken[name]
        print(
            f"{case!s:<24} {name:<9} {us:>9.0f} us  floor {floors[name]:>8.0f} us ({100 * floors[name] / us:>5.1f} %)"
            f"  SDPA bf16 {taken['sdpa'] / us:>6.2f}x  error {errors[name]:.1e}",
            flush=True,
        )


def main() -> None:
    wanted, bandwidth = " ".join(sys.argv[1:]), machine()
    for case in [*DECODE, *OTHERS]:
        if wanted in str(case):
            run(case, bandwidth)


if __name__ == "__main__":
    main()
