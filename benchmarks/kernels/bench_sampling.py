"""Sampling per row over a vocabulary of 32,000 beside the full sort."""

import torch

from benchmarks.kernels.shapes import machine, report
from tenantry.kernels.ops import select_ops
from tenantry.kernels.sampling import reference
from tenantry.kernels.sampling.spec import DrawSpec
from tenantry.kernels.timing import median_us

CASES = {
    "greedy": {"temperature": 0.0},
    "temperature": {},
    "top_k 50": {"top_k": 50},
    "top_p 0.9": {"top_p": 0.9},
    "top_k 50, top_p 0.9, 5 logprobs": {"top_k": 50, "top_p": 0.9, "logprobs": 5},
}


def main() -> None:
    ops, bandwidth = select_ops("cpu"), machine()
    logits = torch.randn(16, 32000) * 5
    for name, fields in CASES.items():
        specs = [DrawSpec(seed=i, **fields) for i in range(16)]
        us = median_us(lambda specs=specs: ops.sample(logits, specs)) / 16
        plain = median_us(lambda specs=specs: reference.sample(logits, specs)) / 16
        report(name, us, logits[0].nbytes, bandwidth, "full sort", plain)


if __name__ == "__main__":
    main()
