"""What this machine allows: measured read bandwidth and GEMM rate, and from them the shortest time of a workload.

Ratios to these floors are comparable between machines; tokens per second are not. The bandwidth is the best of
several ways to read, at several working sets, all too large for a cache; the rate is the best that torch reaches.
A rented machine's limits move while a benchmark runs (two virtual cores may share one that is real for a while), so
they are measured right before and after whatever they are compared with.
"""

import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from benchmarks.workload import Workload
from tenantry.kernels.ops import select_ops
from tenantry.kernels.quant.linear import TorchLinear

MIB = 1 << 20
SUMS_MIB = (512, 1024, 2048)
GEMMS = (1024, 2048, 4096)
SLOW_S = 0.4  # a product that takes longer is not tried at the next size


def best_seconds(run: Callable[[], object], times: int = 5) -> float:
    run()
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        run()
        taken.append(time.perf_counter() - began)
    return min(taken)


@dataclass(frozen=True, slots=True)
class Machine:
    """reads: bytes per second by method. products: FLOP per second by method. The best of each is the machine's."""

    processor: str
    threads: int
    reads: dict[str, float]
    products: dict[str, float]

    @property
    def bytes_per_second(self) -> float:
        return max(self.reads.values())

    @property
    def flops(self) -> float:
        return max(self.products.values())

    @classmethod
    def measure(cls, quick: bool = False) -> "Machine":
        """Every core, whatever torch was told before; about twenty seconds, or four when quick."""
        before, cores = torch.get_num_threads(), os.cpu_count() or 1
        torch.set_num_threads(cores)
        try:
            return cls(processor_name(), cores, read_rates(quick), product_rates(quick))
        finally:
            torch.set_num_threads(before)

    def between(self, other: "Machine") -> "Machine":
        """Each method's mean of two measurements: the limits of a run that lies between them."""
        means = [
            {name: (a[name] + b[name]) / 2 for name in a.keys() & b.keys()}
            for a, b in ((self.reads, other.reads), (self.products, other.products))
        ]
        return Machine(self.processor, self.threads, *means)


def read_rates(quick: bool) -> dict[str, float]:
    """torch's sum over fp32, and what a decode step does: one row through a chain of weights, torch's and ours."""
    rates = {}
    for mib in SUMS_MIB[:1] if quick else SUMS_MIB:
        data = torch.ones(mib * MIB // 4)
        rates[f"sum {mib} MiB"] = data.nbytes / best_seconds(lambda d=data: d.sum())
        del data
    ops = select_ops("cpu")
    weights = [torch.full((4864, 896), 0.01, dtype=torch.bfloat16) for _ in range(60 if quick else 120)]
    x = torch.ones(1, 896)
    chains = {
        "torch": [TorchLinear(w, None, w.dtype) for w in weights],
        "ours": [ops.prepare_linear(w, None) for w in weights],
    }
    for name, layers in chains.items():
        seconds = best_seconds(lambda ls=layers: [layer(x) for layer in ls])
        rates[f"bf16 GEMV chain, {name}"] = sum(w.nbytes for w in weights) / seconds
    return rates


def product_rates(quick: bool) -> dict[str, float]:
    """Square products and a decoder layer's largest one over 512 rows, fp32 and bf16."""
    rates = {}
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        for size in GEMMS[:2] if quick else GEMMS:
            a = torch.randn(size, size).to(dtype)
            seconds = best_seconds(lambda a=a: a @ a, 3)
            rates[f"{name} {size}"] = 2 * size**3 / seconds
            if seconds > SLOW_S:
                break
        x, w = torch.randn(512, 896).to(dtype), torch.randn(4864, 896).to(dtype)
        seconds = best_seconds(lambda x=x, w=w: torch.nn.functional.linear(x, w))
        rates[f"{name} 512x896x4864"] = 2 * 512 * 896 * 4864 / seconds
    return rates


def bf16_in_hardware() -> bool:
    """Whether this processor multiplies bf16 by itself; elsewhere torch's bf16 products are emulated."""
    found: dict[str, Any] = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


@dataclass(frozen=True, slots=True)
class Stored:
    """Bytes per stored value of weights and adapters. kv_token is in Size, as our pages have it."""

    weight: float = 2.0
    adapter: float = 2.0


@dataclass(frozen=True, slots=True)
class Size:
    """What a model costs. layers: parameters of all linear layers. head: of the last product, once per drawn token.
    rank: parameters per unit of rank of an adapter on all seven projections. attention: multiplications and
    additions per pair of tokens. kv_token: bytes of a token's keys and values in our int8 pages."""

    layers: int
    head: int
    rank: int
    attention: int
    kv_token: int

    @classmethod
    def of(cls, model: Path) -> "Size":
        config = json.loads((model / "config.json").read_text())
        with safe_open(model / "model.safetensors", "pt") as f:
            shapes = {name: f.get_slice(name).get_shape() for name in f.keys()}  # noqa: SIM118
        inner = [s for n, s in shapes.items() if len(s) == 2 and "layers." in n]
        heads, depth = config["num_attention_heads"], config["num_hidden_layers"]
        head_dim = config.get("head_dim") or config["hidden_size"] // heads
        kv_heads = config.get("num_key_value_heads", heads)
        return cls(
            layers=sum(a * b for a, b in inner),
            head=config["vocab_size"] * config["hidden_size"],
            rank=sum(a + b for a, b in inner),
            attention=4 * depth * heads * head_dim,
            kv_token=depth * kv_heads * 2 * (head_dim + 4),  # int8 values, one fp32 scale each
        )


def decode_seconds(
    machine: Machine, size: Size, batch: int, ranks: int, row_ranks: int, context: int, stored: Stored
) -> float:
    """One decode step's floor: the longer of reading every byte once and doing every multiplication once.

    ranks: sum over the adapters in the batch, each read once. row_ranks: sum over its rows, each computed."""
    weights = (size.layers + size.head) * stored.weight
    read = weights + ranks * size.rank * stored.adapter + batch * context * size.kv_token
    work = 2 * batch * (size.layers + size.head) + 2 * row_ranks * size.rank + batch * context * size.attention
    return max(read / machine.bytes_per_second, work / machine.flops)


def prefill_seconds(machine: Machine, size: Size, tokens: int, rank: int) -> float:
    """One prompt's floor at the GEMM rate. The head counts once: only the last position is drawn from."""
    work = tokens * (2 * size.layers + 2 * rank * size.rank + size.attention * tokens // 2) + 2 * size.head
    return work / machine.flops


def ideal_seconds(
    machine: Machine, size: Size, workload: Workload, ranks_of: dict[str, int], stored: Stored = Stored()
) -> float:
    """The whole workload at the machine's limits: prompts at the GEMM rate, every decode step at its floor."""
    seconds = 0.0
    for start in range(0, len(workload.calls), workload.concurrency):
        window = workload.calls[start : start + workload.concurrency]
        rows = [ranks_of[c.adapter] if c.adapter else 0 for c in window]
        seconds += sum(prefill_seconds(machine, size, len(c.prompt), r) for c, r in zip(window, rows, strict=True))
        distinct = sum(ranks_of[a] for a in {c.adapter for c in window if c.adapter})
        context = len(window[0].prompt) + window[0].max_tokens // 2
        # a prompt's own step draws its first token
        steps = window[0].max_tokens - 1
        seconds += steps * decode_seconds(machine, size, len(window), distinct, sum(rows), context, stored)
    return seconds
