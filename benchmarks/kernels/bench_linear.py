"""Linear layers of one decoder layer beside torch's bf16 product and oneDNN's prepacked fp32 one."""

import torch

from benchmarks.kernels.shapes import LAYERS, SITES, machine, report
from tenantry.kernels.ops import select_ops
from tenantry.kernels.timing import median_us


def main() -> None:
    ops, bandwidth = select_ops("cpu"), machine()
    weights = {s: [(torch.randn(h.out_features, h.in_features) / 30).bfloat16() for _ in range(LAYERS)]
               for s, h in SITES.items()}  # fmt: skip
    run = torch.ops.mkldnn._linear_pointwise
    ours = {s: [ops.prepare_linear(w, None) for w in ws] for s, ws in weights.items()}
    nbytes = sum(w[0].nbytes for w in weights.values())
    for rows in (1, 4, 16, 64, 256):
        x = {s: torch.randn(rows, shape.in_features) for s, shape in SITES.items()}
        half = {s: v.bfloat16() for s, v in x.items()}
        packed = {s: [torch.ops.mkldnn._reorder_linear_weight(w.float(), rows) for w in ws]
                  for s, ws in weights.items()}  # fmt: skip
        us = median_us(lambda x=x: [layer(x[s]) for s in SITES for layer in ours[s]]) / LAYERS
        plain = median_us(
            lambda half=half: [torch.nn.functional.linear(half[s], w) for s in SITES for w in weights[s]]
        ) / LAYERS  # fmt: skip
        one = median_us(
            lambda x=x, packed=packed: [run(x[s], w, None, "none", [], "") for s in SITES for w in packed[s]]
        ) / LAYERS  # fmt: skip
        report(f"linear, {rows} rows", us, nbytes, bandwidth, "torch bf16", plain)
        report(f"linear, {rows} rows", us, nbytes, bandwidth, "oneDNN fp32 (2x memory)", one)


if __name__ == "__main__":
    main()
