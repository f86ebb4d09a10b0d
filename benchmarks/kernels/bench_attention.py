"""Paged int8 attention of one layer beside SDPA over contiguous bf16 keys, which needs a gather it is not charged."""

import torch

from benchmarks.kernels.shapes import HEAD_DIM, HEADS, KV_HEADS, LAYERS, machine, report
from tenantry.kernels.attention.layout import PageLayout
from tenantry.kernels.attention.plan import AttentionPlan
from tenantry.kernels.ops import select_ops
from tenantry.kernels.timing import median_us

CASES = [(1, 1, 192), (16, 1, 192), (16, 1, 768), (16, 1, 2048), (1, 128, 128), (1, 128, 640), (1, 512, 512)]


def main() -> None:
    ops, bandwidth = select_ops("cpu"), machine()
    for rows, q_len, length in CASES:
        each = -(-length // 16)
        tables = [list(range(i * each, (i + 1) * each)) for i in range(rows)]
        plan = AttentionPlan.build([q_len] * rows, [length] * rows, tables, 16)
        q = torch.randn(rows * q_len, HEADS, HEAD_DIM)
        half = q.view(rows, q_len, HEADS, HEAD_DIM).transpose(1, 2).bfloat16()
        kv = torch.randn(rows, KV_HEADS, length, HEAD_DIM).bfloat16()
        mask = torch.ones(q_len, length, dtype=torch.bool).tril(length - q_len)
        sdpa = median_us(
            lambda half=half, kv=kv, mask=mask: torch.nn.functional.scaled_dot_product_attention(
                half, kv, kv, attn_mask=mask, enable_gqa=True
            )
        )  # fmt: skip
        for kind in (torch.int8, torch.bfloat16):
            layout = PageLayout(KV_HEADS, HEAD_DIM, 16, dtype=kind)
            layers = [layout.allocate(rows * each) for _ in range(LAYERS)]
            for pages in layers:
                every = torch.arange(rows * each * 16)
                ops.write_kv(*torch.randn(2, len(every), KV_HEADS, HEAD_DIM), pages, every)
            us = median_us(
                lambda q=q, plan=plan, layers=layers: [ops.attention(q, p, plan, 0.125) for p in layers]
            ) / LAYERS  # fmt: skip
            nbytes = rows * each * layout.bytes_per_page
            report(f"{kind} {rows} x {q_len} over {length}", us, nbytes, bandwidth, "SDPA bf16", sdpa)


if __name__ == "__main__":
    main()
