"""Mixed-adapter LoRA of one decoder layer on CPU, bf16 and int8, beside the forms that others take.

Peers, in torch over the same weights: `dense` and, in fp32, `dense32`: two products per site over all active adapters
with the foreign ones masked out; `loop`, PEFT's gather and two products per module and adapter; `gather`, vLLM's CPU
form, every token's own copy of A and B and two batched products. One process, turns interleaved, the best of each.
"""

import time

import torch
from torch.nn import functional

from benchmarks.kernels.shapes import LAYERS, SITES, machine
from tenantry.kernels.lora.int8 import quantised
from tenantry.kernels.lora.layout import SliceWeights
from tenantry.kernels.lora.table import LoraTable
from tenantry.kernels.ops import select_ops

RANKS = (8, 16, 32, 64)
MIXED = (1, 2, 0, 1, 3, 2, 1, 2, 0, 2)  # W1's shares of the ranks above: ten adapters
CASES = {
    "decode, 1 row, rank 16": ([1], [1]),
    "decode, 16 rows, 1 adapter, rank 16": ([1] * 16, [1] * 16),
    "decode, 16 rows, 10 adapters, ranks 8-64": ([*range(10), 1, 2, 3, 1, 2, 5], [1] * 16),
    "decode, 64 rows, 10 adapters, ranks 8-64": ([i % 10 for i in range(64)], [1] * 64),
    "prefill, 512 tokens, rank 16": ([0], [512]),
    "prefill, 4 x 128, ranks 8-64": ([0, 1, 2, 4], [128] * 4),
}


def adapter(rank: int) -> dict[tuple[int, str, int], SliceWeights]:
    return {
        (layer, site, part): SliceWeights(
            torch.randn(rank, shape.in_features).bfloat16(), torch.randn(out, rank).bfloat16(), rank, 1.0
        )
        for layer in range(LAYERS)
        for site, shape in SITES.items()
        for part, out in enumerate(shape.slices)
    }


class Peers:
    """The other forms, over one step's rows. x, y: bf16 [T, in] and [T, out] by site."""

    def __init__(self, adapters, slots, q_lens) -> None:
        self.adapters = adapters
        self.active = sorted(set(slots))
        self.owner = torch.tensor([s for s, n in zip(slots, q_lens, strict=True) for _ in range(n)])
        rank = {s: max(w.rank for w in adapters[s].values()) for s in self.active}
        columns = torch.tensor([s for s in self.active for _ in range(rank[s])])
        self.mask = (self.owner[:, None] == columns[None, :]).bfloat16()
        self.most = max(rank.values())
        self.place = torch.tensor([self.active.index(int(s)) for s in self.owner])
        self.all_a, self.all_b, self.stacked_a, self.stacked_b, self.wide = {}, {}, {}, {}, {}
        for at in adapters[self.active[0]]:
            weights = [adapters[s][at] for s in self.active]
            self.all_a[at] = torch.cat([w.a for w in weights]).T.contiguous()
            self.all_b[at] = torch.cat([w.b for w in weights], 1).T.contiguous()
            self.wide[at] = self.all_a[at].float(), self.all_b[at].float()
            self.stacked_a[at] = torch.stack([functional.pad(w.a, (0, 0, 0, self.most - w.rank)) for w in weights])
            self.stacked_b[at] = torch.stack([functional.pad(w.b, (0, self.most - w.rank)) for w in weights])

    def dense(self, layer, site, part, x):
        return ((x @ self.all_a[layer, site, part]) * self.mask) @ self.all_b[layer, site, part]

    def dense32(self, layer, site, part, x):
        a, b = self.wide[layer, site, part]
        return ((x @ a) * self.mask) @ b

    def gather(self, layer, site, part, x):
        a, b = self.stacked_a[layer, site, part][self.place], self.stacked_b[layer, site, part][self.place]
        return torch.einsum("tor,tr->to", b, torch.einsum("tri,ti->tr", a, x))

    def loop(self, layer, site, part, x):
        out = x.new_zeros(len(x), SITES[site].slices[part])
        for slot in self.active:
            rows, w = torch.where(self.owner == slot)[0], self.adapters[slot][layer, site, part]
            out[rows] = functional.linear(functional.linear(x[rows], w.a), w.b)
        return out

    def layer(self, form, layer, x, y) -> None:
        for site, shape in SITES.items():
            column = 0
            for part, out in enumerate(shape.slices):
                y[site][:, column : column + out] += form(layer, site, part, x[site])
                column += out


def ours(ops, table, plan, layer, x, y) -> None:
    for site in SITES:
        ops.apply_lora(x[site], y[site], layer, site, plan, table)


def best_us(forms, turns: int = 7) -> dict[str, float]:
    """The best turn of each over all layers, in turns: microseconds per layer. A form that needs seconds gets two."""
    best: dict[str, float] = {}
    for turn in range(turns):
        for name, form in forms.items():
            if turn >= 2 and best[name] > 1e6:
                continue
            start = time.perf_counter()
            for layer in range(LAYERS):
                form(layer)
            us = (time.perf_counter() - start) * 1e6 / LAYERS
            best[name] = min(us, best.get(name, us))
    return best


def largest_error(ops, table, plan, peers, x) -> float:
    """Of our first layer against fp64 over the stored values, as a share of the largest value."""
    worst = 0.0
    for site, shape in SITES.items():
        y, exact = torch.zeros(len(x[site]), shape.out_features), []
        ops.apply_lora(x[site], y, 0, site, plan, table)
        for part, out in enumerate(shape.slices):
            rows = torch.zeros(len(y), out, dtype=torch.float64)
            for slot in peers.active:
                mine, w = peers.owner == slot, table.slice_weights(slot, 0, site, part)
                bridge = x[site][mine].double() @ w.a.double().T * w.factors.double()
                rows[mine] = bridge @ w.b.double().T
            exact.append(rows)
        true = torch.cat(exact, 1)
        worst = max(worst, float((y - true).abs().max() / true.abs().max()))
    return worst


def main() -> None:
    ops, bandwidth = select_ops("cpu"), machine()
    adapters = [adapter(RANKS[kind]) for kind in MIXED]
    tables = {"bf16": LoraTable(LAYERS, SITES), "int8": LoraTable(LAYERS, SITES)}
    for slot, modules in enumerate(adapters):
        tables["bf16"].set_slot(slot, tables["bf16"].prepare(modules))
        tables["int8"].set_slot(slot, tables["int8"].prepare(quantised(modules)))
    print("microseconds per layer; % of the time that the weights' bytes take at the bandwidth above; ratios to bf16")
    for name, (slots, q_lens) in CASES.items():
        rows = sum(q_lens)
        x = {s: torch.randn(rows, shape.in_features) for s, shape in SITES.items()}
        y = {s: torch.zeros(rows, shape.out_features) for s, shape in SITES.items()}
        half, sums = ({s: v.bfloat16() for s, v in z.items()} for z in (x, y))
        peers = Peers(adapters, slots, q_lens)
        plans = {kind: table.plan(slots, q_lens) for kind, table in tables.items()}
        forms = {
            kind: lambda layer, t=table, p=plans[kind], x=x, y=y: ours(ops, t, p, layer, x, y)
            for kind, table in tables.items()
        }
        names = ["dense", "dense32", "loop"] + (
            ["gather"] if rows <= 64 else []
        )  # a prompt's copies would fill the memory
        for peer in names:
            form = getattr(peers, peer)
            xs, ys = (x, y) if peer == "dense32" else (half, sums)
            forms[peer] = lambda layer, f=form, p=peers, x=xs, y=ys: p.layer(f, layer, x, y)
        best = best_us(forms)
        line = [f"{name:<42}"]
        for kind, table in tables.items():
            floor = sum(table.slots[s].nbytes for s in set(slots)) / LAYERS / bandwidth * 1e6
            error = largest_error(ops, table, plans[kind], peers, x)
            line.append(f"{kind} {best[kind]:>6.0f} ({100 * floor / best[kind]:>4.0f} %, error {error:.0e})")
        line += [f"{peer} {best[peer]:>8.0f} ({best[peer] / best['bf16']:.1f}x)" for peer in names]
        print("  ".join(line), flush=True)


if __name__ == "__main__":
    main()
