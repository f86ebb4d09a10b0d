"""Linear layers of one decoder layer, every scheme beside torch's own kernels, in interleaved repetitions.

`python -m benchmarks.kernels.bench_linear [--rows 1,4,16] [--threads 1] [--sites qkv,head]`. The floor is the larger
of bytes at the read bandwidth and multiply-adds at oneDNN's best fp32 rate, both of the same process. Errors are
relative to the largest output, against fp64 over the unquantised weights.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.kernels.shapes import LAYERS, SITES, machine
from tenantry.kernels.lora.layout import SiteShape
from tenantry.kernels.ops import select_ops
from tenantry.kernels.quant.schemes import SCHEMES, quantise_channels, quantise_groups, quantise_tokens

Product = Callable[[Tensor], Tensor]
PEER_GROUP = 32
HEAD = SiteShape(896, (151936,))


def peers(weight: Tensor, rows: int) -> dict[str, Product]:
    """torch's own: plain bf16, prepacked fp32 and bf16, and its products for int8, four bits and bytes by bytes."""
    codes, scale = quantise_channels(weight)
    groups = quantise_groups(weight, PEER_GROUP)
    nibbles = torch.ops.aten._convert_weight_to_int4pack_for_cpu(groups.codes.int(), 2)
    # torch's four bits are centred: (code - 8) * scale + zero
    zeros = torch.stack((groups.scale, (groups.offset.float() + 8 * groups.scale.float()).bfloat16()), -1)
    zeros = zeros.transpose(0, 1).contiguous()
    half = scale.bfloat16()
    run, pack = torch.ops.mkldnn._linear_pointwise, torch.ops.mkldnn._reorder_linear_weight
    fp32, bf16 = pack(weight.float(), rows), pack(weight, rows)

    def int_mm(x: Tensor) -> Tensor:
        tokens, factors = quantise_tokens(x)
        return torch._int_mm(tokens, codes.T).float() * factors[:, None] * scale

    return {
        "F.linear bf16": lambda x: functional.linear(x.bfloat16(), weight).float(),
        "oneDNN fp32": lambda x: run(x, fp32, None, "none", [], ""),
        "oneDNN bf16": lambda x: run(x.bfloat16(), bf16, None, "none", [], "").float(),
        "_weight_int8pack_mm": lambda x: torch.ops.aten._weight_int8pack_mm(x.bfloat16(), codes, half).float(),
        "_weight_int4pack_mm": lambda x: torch.ops.aten._weight_int4pack_mm_for_cpu(
            x.bfloat16(), nibbles, PEER_GROUP, zeros
        ).float(),
        "_int_mm": int_mm,
    }


def interleaved(calls: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Least seconds of each call, taken in turn; at least three turns and `seconds` of them."""
    least = dict.fromkeys(calls, float("inf"))
    for call in calls.values():
        call()
    began, turns = time.perf_counter(), 0
    while turns < 3 or time.perf_counter() - began < seconds:
        turns += 1
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            least[name] = min(least[name], time.perf_counter() - start)
    return least


def compute_rate() -> float:
    """Multiply-adds per second of oneDNN's fp32 product on as many threads as the kernels use; the best of ten."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 1024**3 / best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="1,4,8,16,32,64,256")
    parser.add_argument("--sites", default=",".join(SITES))
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    ops = select_ops("cpu", options.threads)
    if options.threads:
        torch.set_num_threads(options.threads)
    bandwidth, rate = machine(), compute_rate()
    print(f"oneDNN fp32 {2 * rate / 1e9:.0f} GFLOP/s")
    for site in options.sites.split(","):
        shape = SITES.get(site, HEAD)
        layers = LAYERS if site in SITES else 1
        weights = [(torch.randn(shape.out_features, shape.in_features) / 30).bfloat16() for _ in range(layers)]
        ours = {scheme: [ops.prepare_linear(w, None, scheme) for w in weights] for scheme in SCHEMES}
        sizes = {scheme: made[0].weight_bytes for scheme, made in ours.items()}
        for rows in map(int, options.rows.split(",")):
            x = torch.randn(rows, shape.in_features)
            theirs = [peers(w, rows) for w in weights]
            made: dict[str, list[Product]] = {**ours, **{n: [peer[n] for peer in theirs] for n in theirs[0]}}
            calls = {name: lambda made=products, x=x: [p(x) for p in made] for name, products in made.items()}
            found = interleaved(calls, options.seconds)
            exact = x.double() @ weights[0][:1024].double().T
            work = rows * shape.out_features * shape.in_features
            for name, products in made.items():
                seconds = found[name] / layers
                error = (products[0](x)[:, :1024].double() - exact).abs().max() / exact.abs().max()
                line = f"{site:<8}{rows:>4} rows  {name:<20}{seconds * 1e6:>10.0f} us  error {error:.1e}"
                if name in sizes:
                    floor = max(sizes[name] / bandwidth, work / rate)
                    ratios = "  ".join(f"{n} {found[n] / found[name]:.2f}x" for n in theirs[0])
                    line += f"  {floor / seconds:>6.1%} of floor  {ratios}"
                print(line, flush=True)


if __name__ == "__main__":
    main()
