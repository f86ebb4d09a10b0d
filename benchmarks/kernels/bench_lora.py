"""Mixed-adapter LoRA of one decoder layer: decode and prefill, beside PEFT's loop over the batch's adapters."""

import torch

from benchmarks.kernels.shapes import LAYERS, SITES, machine, report
from tenantry.kernels.lora.layout import SliceWeights
from tenantry.kernels.lora.table import LoraTable
from tenantry.kernels.ops import select_ops
from tenantry.kernels.timing import median_us

RANKS = (8, 16, 32, 64)


def adapter(rank: int) -> dict[tuple[int, str, int], SliceWeights]:
    return {
        (layer, site, part): SliceWeights(
            torch.randn(rank, shape.in_features).bfloat16(), torch.randn(out, rank).bfloat16(), rank, 1.0
        )
        for layer in range(LAYERS)
        for site, shape in SITES.items()
        for part, out in enumerate(shape.slices)
    }


def peft_mixed(adapters, x, y, slots, q_lens) -> None:
    """What PEFT does with adapter_names: per module and adapter, gather rows, two products, add back, in bf16."""
    token_slots = torch.tensor([s for s, n in zip(slots, q_lens, strict=True) for _ in range(n)])
    for layer in range(LAYERS):
        for site, shape in SITES.items():
            column = 0
            for part, out in enumerate(shape.slices):
                for slot in sorted(set(slots)):
                    rows, w = torch.where(token_slots == slot)[0], adapters[slot][layer, site, part]
                    delta = torch.nn.functional.linear(torch.nn.functional.linear(x[site][rows], w.a), w.b)
                    y[site][rows, column : column + out] += delta * w.scale
                column += out


def main() -> None:
    ops, bandwidth = select_ops("cpu"), machine()
    table = LoraTable(LAYERS, SITES)
    adapters = [adapter(RANKS[slot % 4]) for slot in range(16)]
    for slot, modules in enumerate(adapters):
        table.set_slot(slot, table.prepare(modules))
    cases = {
        "decode, 1 row, rank 16": ([1], [1]),
        "decode, 16 rows, 1 adapter": ([1] * 16, [1] * 16),
        "decode, 16 rows, 16 adapters 8-64": (list(range(16)), [1] * 16),
        "prefill, 128 tokens, rank 16": ([1], [128]),
        "prefill, 4 x 128, ranks 8-64": ([0, 1, 2, 3], [128] * 4),
    }
    for name, (slots, q_lens) in cases.items():
        rows = sum(q_lens)
        x = {s: torch.randn(rows, shape.in_features) for s, shape in SITES.items()}
        y = {s: torch.zeros(rows, shape.out_features) for s, shape in SITES.items()}
        half, sums = ({s: v.bfloat16() for s, v in z.items()} for z in (x, y))
        plan = table.plan(slots, q_lens)
        us = median_us(
            lambda x=x, y=y, plan=plan: [
                ops.apply_lora(x[s], y[s], layer, s, plan, table) for layer in range(LAYERS) for s in SITES
            ]
        ) / LAYERS  # fmt: skip
        peft = median_us(
            lambda half=half, sums=sums, slots=slots, q_lens=q_lens: peft_mixed(adapters, half, sums, slots, q_lens)
        ) / LAYERS  # fmt: skip
        nbytes = sum(table.slots[s].nbytes for s in set(slots)) / LAYERS
        report(name, us, nbytes, bandwidth, "PEFT's loop", peft)


if __name__ == "__main__":
    main()
