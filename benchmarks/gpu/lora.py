"""M1 and M2: mixed-adapter LoRA at decode, per site and over a whole layer, and what it adds to a layer's prefill.

Every implementation gets the same adapters and the same rows; layers take turns so that no weights stay in the cache.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from random import Random
from types import SimpleNamespace

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.gpu.device import (
    CLOSE,
    DEVICE,
    DTYPE,
    REAL,
    SHAPE,
    Ceilings,
    beside,
    error,
    micros,
    rotations,
    say,
)
from benchmarks.gpu.peers import PeerAbsent, load
from benchmarks.report import Report
from tenantry.kernels.lora.int8 import quantised
from tenantry.kernels.lora.layout import GPU_PACKING, SiteShape, SliceWeights
from tenantry.kernels.lora.table import LoraTable
from tenantry.kernels.ops import select_ops
from tenantry.kernels.quant.linear import prepare_triton

Modules = dict[tuple[int, str, int], SliceWeights]
Apply = Callable[[int, Tensor], None]  # layer, y in place
SCALE = 0.5
RANKS = (8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Case:
    """One site's work. slots: each row's adapter. ranks: each adapter's. x: [T, in]. a, b: by layer, adapter, slice:
    [rank, in] and [out, rank]."""

    name: str
    site: str
    slots: tuple[int, ...]
    ranks: tuple[int, ...]
    x: Tensor
    a: list[list[list[Tensor]]]
    b: list[list[list[Tensor]]]

    @property
    def layers(self) -> int:
        return len(self.a)

    @property
    def widths(self) -> list[int]:
        return [part.shape[0] for part in self.b[0][0]]

    @property
    def nbytes(self) -> int:
        """Of the adapters in use, one layer: what must be read."""
        used = set(self.slots)
        return sum(t.nbytes for side in (self.a, self.b) for s in used for t in side[0][s])

    def zeros(self) -> Tensor:
        return torch.zeros(len(self.x), sum(self.widths), dtype=self.x.dtype, device=DEVICE)

    def expected(self) -> Tensor:
        """Layer 0 in fp64."""
        y = self.zeros().double()
        for slot in set(self.slots):
            rows = torch.tensor([i for i, s in enumerate(self.slots) if s == slot], device=DEVICE)
            parts = [
                self.x[rows].double() @ a.double().T @ b.double().T * SCALE
                for a, b in zip(self.a[0][slot], self.b[0][slot], strict=True)
            ]
            y[rows] = torch.cat(parts, 1)
        return y


def case(name: str, site: str, slots: Sequence[int], ranks: Sequence[int]) -> Case:
    width, slices = SHAPE.sites[site]
    per_layer = 2 * sum(ranks) * (len(slices) * width + sum(slices))
    noise = torch.Generator(DEVICE).manual_seed(1)

    def made(rows: int, columns: int) -> Tensor:
        return (torch.randn(rows, columns, generator=noise, device=DEVICE) * columns**-0.5).to(DTYPE)

    layers = range(rotations(per_layer))
    a = [[[made(r, width) for _ in slices] for r in ranks] for _ in layers]
    b = [[[made(out, r) for out in slices] for r in ranks] for _ in layers]
    return Case(name, site, tuple(slots), tuple(ranks), made(len(slots), width), a, b)


def ours(c: Case, _folder: Path | None) -> Apply:
    return planned(c, lambda modules: modules)


def planned(c: Case, convert: Callable[[Modules], Modules]) -> Apply:
    ops = select_ops("cuda")
    width, slices = SHAPE.sites[c.site]
    table = LoraTable(c.layers, {c.site: SiteShape(width, slices)}, DTYPE, DEVICE, GPU_PACKING)
    for slot, rank in enumerate(c.ranks):
        modules = {
            (layer, c.site, part): SliceWeights(a, c.b[layer][slot][part], rank, SCALE)
            for layer in range(c.layers)
            for part, a in enumerate(c.a[layer][slot])
        }
        table.set_slot(slot, table.prepare(convert(modules)))
    plan = table.plan(list(c.slots), [1] * len(c.slots))
    return lambda layer, y: ops.apply_lora(c.x, y, layer, c.site, plan, table)


def ours_int8(c: Case, _folder: Path | None) -> Apply:
    """The same adapters in int8, each rank with a scale of its own."""
    return planned(c, lambda modules: quantised(modules, float("inf")))


def peft(c: Case, _folder: Path | None) -> Apply:
    """PEFT's mixed batch: per slice and adapter, gather rows, two products, add back."""
    rows = {s: torch.tensor([i for i, t in enumerate(c.slots) if t == s], device=DEVICE) for s in set(c.slots)}

    def apply(layer: int, y: Tensor) -> None:
        for slot, chosen in rows.items():
            column = 0
            for a, b in zip(c.a[layer][slot], c.b[layer][slot], strict=True):
                part = functional.linear(functional.linear(c.x[chosen], a), b) * SCALE
                y[chosen, column : column + len(b)] += part
                column += len(b)

    return apply


def stacked(c: Case) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
    """A [slots, r_max, in] and B [slots, out, r_max] per layer and slice, zero beyond an adapter's rank."""
    most = max(16, *c.ranks)
    sides: tuple[list[list[Tensor]], list[list[Tensor]]] = ([], [])
    for layer in range(c.layers):
        a_parts, b_parts = [], []
        for part, width in enumerate(c.widths):
            a = torch.zeros(len(c.ranks), most, c.x.shape[1], dtype=DTYPE, device=DEVICE)
            b = torch.zeros(len(c.ranks), width, most, dtype=DTYPE, device=DEVICE)
            for slot, rank in enumerate(c.ranks):
                a[slot, :rank], b[slot, :, :rank] = c.a[layer][slot][part], c.b[layer][slot][part]
            a_parts.append(a)
            b_parts.append(b)
        sides[0].append(a_parts)
        sides[1].append(b_parts)
    return sides


def bmm(c: Case, _folder: Path | None) -> Apply:
    """torch alone: gather each row's adapter and multiply in a batch, as vLLM does where it has no Triton."""
    if len(c.slots) > 256:
        raise PeerAbsent("a copy of the adapter per token does not fit")
    a, b = stacked(c)
    index = torch.tensor(c.slots, device=DEVICE)

    def apply(layer: int, y: Tensor) -> None:
        column = 0
        for part_a, part_b in zip(a[layer], b[layer], strict=True):
            bridge = torch.bmm(part_a[index], c.x[:, :, None])
            y[:, column : column + part_b.shape[1]] += torch.bmm(part_b[index], bridge)[:, :, 0] * SCALE
            column += part_b.shape[1]

    return apply


def vllm(c: Case, folder: Path | None) -> Apply:
    _, _, shrink, expand, metadata = load(
        folder, "vllm", "kernel_utils", "utils", "lora_shrink_op", "lora_expand_op", "lora_kernel_metadata"
    )
    a, b = stacked(c)
    meta = metadata.LoRAKernelMeta.make(len(c.ranks), len(c.slots), DEVICE)
    meta.prepare_tensors(torch.tensor(c.slots, dtype=torch.int32, device=DEVICE))
    given = meta.meta_args(len(c.slots), True)
    bridge = torch.empty(len(c.widths), len(c.slots), a[0][0].shape[1], dtype=torch.float32, device=DEVICE)

    def apply(layer: int, y: Tensor) -> None:
        shrink.lora_shrink(c.x, a[layer], bridge, *given, SCALE)
        expand.lora_expand(bridge, b[layer], y, *given, add_inputs=True)

    return apply


def sglang(c: Case, folder: Path | None) -> Apply:
    """Chunked SGMV: segments of up to 16 rows of one adapter, its slices' A packed by its own rank."""
    shrink, expand = load(folder, "sglang", "chunked_sgmv_shrink", "chunked_sgmv_expand")
    most, slices, chunk = max(16, *c.ranks), len(c.widths), 16
    order = sorted(range(len(c.slots)), key=c.slots.__getitem__)
    starts, adapters = [0], []
    for slot in sorted(set(c.slots)):
        past = starts[-1] + c.slots.count(slot)
        while starts[-1] < past:
            starts.append(min(starts[-1] + chunk, past))
            adapters.append(slot)

    def ints(values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int32, device=DEVICE)

    batch = SimpleNamespace(
        bs=len(adapters), num_segments=len(adapters), max_len=chunk, use_cuda_graph=False, seg_indptr=ints(starts),
        weight_indices=ints(adapters), lora_ranks=ints(c.ranks), permutation=ints(order),
        scalings=torch.full((len(c.ranks),), SCALE, device=DEVICE),
    )  # fmt: skip
    offsets = ints([0, *accumulate(c.widths)])
    a_sides, b_sides = [], []
    for layer in range(c.layers):
        a = torch.zeros(len(c.ranks), slices * most, c.x.shape[1], dtype=DTYPE, device=DEVICE)
        b = torch.zeros(len(c.ranks), sum(c.widths), most, dtype=DTYPE, device=DEVICE)
        for slot, rank in enumerate(c.ranks):
            a[slot, : slices * rank], b[slot, :, :rank] = torch.cat(c.a[layer][slot]), torch.cat(c.b[layer][slot])
        a_sides.append(a)
        b_sides.append(b)

    def apply(layer: int, y: Tensor) -> None:
        bridge = shrink.chunked_sgmv_lora_shrink_forward(c.x, a_sides[layer], batch, slices)
        expand.chunked_sgmv_lora_expand_forward(bridge, b_sides[layer], batch, offsets, max(c.widths), y)

    return apply


def lmdeploy(c: Case, folder: Path | None) -> Apply:
    """Its batch is by sequence, and its adapters lie rank after rank; one launch per slice."""
    if not REAL:
        raise PeerAbsent("tunes itself on a CUDA device when it is called")
    (fused,) = load(folder, "lmdeploy", "fused_lora")
    runs = [(s, [i for i, t in enumerate(c.slots) if t == s]) for s in sorted(set(c.slots))]
    if any(rows != list(range(rows[0], rows[-1] + 1)) for _, rows in runs):
        raise PeerAbsent("rows of one adapter must follow each other")

    def longs(values: list[int]) -> Tensor:
        return torch.tensor(values, device=DEVICE)

    starts = [sum(c.ranks[:slot]) for slot in range(len(c.ranks))]
    given = {
        "scaling": torch.full((len(c.ranks),), SCALE, device=DEVICE),
        "rank_start": longs(starts),
        "ranks": longs(list(c.ranks)),
        "seq_start": longs([rows[0] for _, rows in runs]),
        "seq_lens": longs([len(rows) for _, rows in runs]),
        "adapter_ids": longs([slot for slot, _ in runs]),
        "max_rank": max(c.ranks),
        "max_seqlen": max(len(rows) for _, rows in runs),
    }
    parts = range(len(c.widths))
    a = [[torch.cat([adapter[p] for adapter in layer]) for p in parts] for layer in c.a]
    b = [[torch.cat([adapter[p].T for adapter in layer]).contiguous() for p in parts] for layer in c.b]

    def apply(layer: int, y: Tensor) -> None:
        column = 0
        for part, width in enumerate(c.widths):
            out = y[:, column : column + width]
            fused.fused_lora(c.x, a[layer][part], b[layer][part], output=out, cum=True, **given)
            column += width

    return apply


PEERS: dict[str, Callable[[Case, Path | None], Apply]] = {
    "PEFT's loop": peft,
    "torch bmm": bmm,
    "vLLM": vllm,
    "SGLang": sglang,
    "LMDeploy": lmdeploy,
}


def timed(c: Case, make: Callable[[Case, Path | None], Apply], folder: Path | None) -> tuple[float, float]:
    """Microseconds per layer, and the error of layer 0 against fp64. Raises PeerAbsent."""
    try:
        apply = make(c, folder)
        y = c.zeros()
        apply(0, y)
        off = error(y, c.expected())
        ys = [c.zeros() for _ in range(c.layers)]
        if not REAL and make is not ours:
            return float("nan"), off
        return micros(lambda: [apply(layer, ys[layer]) for layer in range(c.layers)], per=c.layers), off
    except (RuntimeError, ValueError, TypeError, KeyError, AssertionError, AttributeError, ImportError) as failed:
        raise PeerAbsent(f"{type(failed).__name__}: {str(failed)[:200]}") from failed


def decode_cases() -> dict[str, tuple[list[int], list[int]]]:
    """Name to (each row's adapter, each adapter's rank)."""
    rows = 64 if REAL else 6
    rng = Random(0)
    zipf = sorted(rng.choices(range(1000), [1 / (k + 1) for k in range(1000)], k=rows))
    order = {adapter: slot for slot, adapter in enumerate(dict.fromkeys(zipf))}
    distinct = list(range(rows))
    return {
        "1 row, r16": ([0], [16]),
        f"{rows} rows, {rows} adapters, r16": (distinct, [16] * rows),
        f"{rows} rows, 1 adapter, r16": ([0] * rows, [16]),
        f"{rows} rows, Zipf of 1000, r16": ([order[a] for a in zipf], [16] * len(order)),
        f"{rows} rows, {rows} adapters, r8-64": (distinct, [RANKS[i % 4] for i in distinct]),
        f"{rows} rows, {rows} adapters, all r30": (distinct, [30] * rows),
    }


def decode(report: Report, ceilings: Ceilings, folder: Path | None) -> None:
    """M1. Judged: all four sites together at 64 rows of 64 adapters against the byte floor."""
    totals: dict[str, dict[str, float]] = {}
    for name, (slots, ranks) in decode_cases().items():
        total: dict[str, float] = {}
        for site in SHAPE.sites:
            c = case(name, site, slots, ranks)
            what = f"M1 {site}, {name}"
            us, off = timed(c, ours, folder)
            floor = c.nbytes / ceilings.read * 1e6
            say(report, what, us, floor, off)
            found = {"ours": us, "floor": floor}
            found["ours int8"], off = timed(c, ours_int8, folder)
            say(report, f"{what}, int8", found["ours int8"], floor / 2, off)
            # interpreted, a peer that launches for its largest batch takes minutes: one row shows that it agrees
            for peer, make in PEERS.items() if REAL or len(slots) == 1 else ():
                try:
                    found[peer], off = timed(c, make, folder)
                    beside(report, what, peer, us, found[peer], off)
                except PeerAbsent as absent:
                    report.absent(f"{what}: {peer} / ours", str(absent))
            total |= {who: total.get(who, 0.0) + value for who, value in found.items()}
            del c
        totals[name] = total
    one, mixed, uniform = (totals[name] for name in list(totals)[1:2] + list(totals)[4:6])
    if REAL:
        report.judge("M1 layer, 64 adapters of r16 / floor", one["ours"] / one["floor"], "<= 1.5")
        report.judge("M1 layer, mixed ranks / uniform of equal bytes", mixed["ours"] / uniform["ours"], "<= 1.15")
        report.judge("M1 layer, int8 / bf16 adapters", one["ours int8"] / one["ours"], "<= 0.6")
        for peer, bound in (("vLLM", ">= 2"), ("SGLang", ">= 1.2"), ("LMDeploy", ">= 3")):
            if peer in one:
                report.judge(f"M1 layer, {peer} / ours", one[peer] / one["ours"], bound)


def prefill(report: Report, _ceilings: Ceilings, folder: Path | None) -> None:
    """M2: what adapters add to one layer's four products. Ours chooses the order of a product and its adapters, and
    is beside its own other order; peers add to a product that is there."""
    for tokens in (512, 2048, 8192) if REAL else (300,):
        for adapters in (1, 4, 16) if REAL else (1, 3):
            what = f"M2 LoRA over a layer's products, {tokens} tokens, {adapters} adapters"
            alone, added = 0.0, dict.fromkeys(("ours", "ours, the product first"), 0.0)
            for site, (width, slices) in SHAPE.sites.items():
                c = case("", site, sorted(i % adapters for i in range(tokens)), [16] * adapters)
                weight = (torch.randn(sum(slices), width, device=DEVICE) * width**-0.5).to(DTYPE)
                base = micros(lambda c=c, w=weight: functional.linear(c.x, w))
                alone += base
                for name, run in rows_of_prompts(c, weight).items():
                    added[name] += micros(run) - base
                    off = error(run(), c.x.double() @ weight.double().T + c.expected())
                    report.judge(f"{what}, {site}, {name}: error", off, CLOSE)
                for peer, make in PEERS.items() if REAL else ():
                    try:
                        added[peer] = added.get(peer, 0.0) + timed(c, make, folder)[0]
                    except PeerAbsent as absent:
                        report.absent(f"{what}: {peer} / ours", str(absent))
            for name, us in added.items() if REAL else ():
                report.add(f"{what}, {name}", us / alone, base_us=alone, added_us=us)
            if tokens == 2048:
                report.judge(what, added["ours"] / alone, "<= 0.05")


def rows_of_prompts(c: Case, weight: Tensor) -> dict[str, Callable[[], Tensor]]:
    """The site's whole output, with each adapter's tokens as one row of many tokens, as a prefill plans them."""
    ops, linear, adapters = select_ops("cuda"), prepare_triton(weight), len(c.ranks)
    width, slices = SHAPE.sites[c.site]
    table = LoraTable(1, {c.site: SiteShape(width, slices)}, DTYPE, DEVICE, GPU_PACKING)
    for slot in range(adapters):
        modules = {
            (0, c.site, part): SliceWeights(a, c.b[0][slot][part], c.ranks[slot], SCALE)
            for part, a in enumerate(c.a[0][slot])
        }
        table.set_slot(slot, table.prepare(modules))
    plan = table.plan(list(range(adapters)), [c.slots.count(slot) for slot in range(adapters)])

    def product_first() -> Tensor:
        y = linear(c.x)
        ops.apply_lora(c.x, y, 0, c.site, plan, table)
        return y

    ours = partial(ops.project, linear, c.x, 0, c.site, plan, table)
    return {"ours": ours, "ours, the product first": product_first}
