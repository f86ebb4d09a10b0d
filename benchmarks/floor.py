"""What this machine allows: measured read bandwidth and GEMM rate, and from them the floor of a decode step.

Ratios to these floors are comparable between machines; tokens per second are not.
"""

import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open


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
    """bytes_per_second: the best of reading 1 GiB once. flops: best fp32 or bf16 GEMM of size 2048."""

    processor: str
    threads: int
    bytes_per_second: float
    flops: float

    @classmethod
    def measure(cls) -> "Machine":
        data = torch.ones(1 << 28)
        read = data.numel() * 4 / best_seconds(lambda: data.sum())
        rates = []
        for dtype in (torch.float32, torch.bfloat16):
            a = torch.randn(2048, 2048).to(dtype)
            rates.append(2 * 2048**3 / best_seconds(lambda a=a: a @ a, 3))
        return cls(processor_name(), torch.get_num_threads(), read, max(rates))


def processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


@dataclass(frozen=True, slots=True)
class Bytes:
    """What one decode step must read, in bytes: weights (bf16, each once), per unit of adapter rank, per KV token."""

    parameters: int
    weights: int
    per_rank: int
    kv_token: int

    @classmethod
    def of(cls, model: Path) -> "Bytes":
        config = json.loads((model / "config.json").read_text())
        with safe_open(model / "model.safetensors", "pt") as f:
            shapes = {name: f.get_slice(name).get_shape() for name in f.keys()}  # noqa: SIM118
        matrices = {n: s for n, s in shapes.items() if len(s) == 2}
        tied = config.get("tie_word_embeddings", False)
        # an untied embedding is a look-up, not a matrix that every step reads
        linear = sum(a * b for n, (a, b) in matrices.items() if tied or "embed_tokens" not in n)
        per_rank = sum(2 * (a + b) for n, (a, b) in matrices.items() if "layers." in n)
        heads = config["num_attention_heads"]
        head_dim = config.get("head_dim") or config["hidden_size"] // heads
        kv_heads = config.get("num_key_value_heads", heads)
        kv = config["num_hidden_layers"] * kv_heads * 2 * (head_dim + 4)  # int8 values and one fp32 scale each
        return cls(linear, 2 * linear, per_rank, kv)


def decode_floor_seconds(machine: Machine, size: Bytes, batch: int, ranks: int, context: int) -> float:
    """The longer of reading every byte once and doing every multiplication once. ranks: sum over the adapters."""
    read = size.weights + ranks * size.per_rank + batch * context * size.kv_token
    work = 2 * size.parameters * batch
    return max(read / machine.bytes_per_second, work / machine.flops)


def prefill_floor_seconds(machine: Machine, size: Bytes, tokens: int) -> float:
    return 2 * size.parameters * tokens / machine.flops
