"""M4 and M5: weight-quantised products of one layer's largest site by number of rows, and sampling."""

from collections.abc import Callable

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
    wall_us,
)
from benchmarks.report import Report
from tenantry.kernels.ops import select_ops
from tenantry.kernels.quant.schemes import SCHEMES, SchemeUnsupported
from tenantry.kernels.sampling import reference
from tenantry.kernels.sampling.spec import DrawSpec


def peers(weight: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    """torch's own products over the same matrix [out, in]; each is dropped where torch refuses it."""
    scale = weight.float().abs().amax(1) / 127
    codes = (weight.float() / scale[:, None]).round().to(torch.int8)
    float8 = getattr(torch, "float8_e4m3fn", None)
    made: dict[str, Callable[[Tensor], Tensor]] = {
        "torch": lambda x: functional.linear(x, weight),
        "_weight_int8pack_mm": lambda x: torch._weight_int8pack_mm(x, codes, scale.to(x.dtype)),
        "_int_mm": lambda x: w8a8(x, codes, scale),
    }
    if REAL and float8 is not None:
        eight, by = (weight.float() / scale[:, None] / 127 * 448).to(float8), scale * 127 / 448

        def scaled(x: Tensor) -> Tensor:
            own = x.float().abs().amax(1, keepdim=True) / 448
            return torch._scaled_mm((x / own).to(float8), eight.T, scale_a=own, scale_b=by[None, :], out_dtype=DTYPE)

        made["_scaled_mm fp8"] = scaled
    return made


def w8a8(x: Tensor, codes: Tensor, scale: Tensor) -> Tensor:
    """torch._int_mm needs more than 16 rows: fewer are padded."""
    own = x.float().abs().amax(1, keepdim=True) / 127
    rows = max(0, 17 - len(x)) if REAL else 0
    eight = functional.pad((x / own).round().to(torch.int8), (0, 0, 0, rows))
    return torch._int_mm(eight, codes.T)[: len(x)] * own * scale


def linear(report: Report, ceilings: Ceilings) -> None:
    """M4 on gate_up, the layer's largest product."""
    ops, (width, slices) = select_ops("cuda"), SHAPE.sites["gate_up"]
    noise = torch.Generator(DEVICE).manual_seed(4)
    out = sum(slices)
    weights = [
        (torch.randn(out, width, generator=noise, device=DEVICE) * width**-0.5).to(DTYPE)
        for _ in range(rotations(2 * out * width, 8))
    ]
    schemes = {}
    for scheme in SCHEMES:
        try:
            schemes[scheme] = [ops.prepare_linear(w, None, scheme) for w in weights]
        except SchemeUnsupported as refused:
            report.absent(f"M4 {scheme}", str(refused))
    others = [peers(w) for w in weights]
    for rows in (1, 8, 32, 64, 128, 2048) if REAL else (1, 5):
        x = torch.randn(rows, width, generator=noise, device=DEVICE).to(DTYPE)
        exact = x.double() @ weights[0].double().T
        us: dict[str, float] = {}
        for scheme, layers in schemes.items():
            try:
                off = error(layers[0](x), exact)
                us[scheme] = micros(lambda ls=layers, x=x: [layer(x) for layer in ls], per=len(layers))
            except RuntimeError as failed:
                report.absent(f"M4 {rows} rows, {scheme}", str(failed)[:200])
                continue
            floor = max(layers[0].weight_bytes / ceilings.read, 2 * rows * out * width / ceilings.flops) * 1e6
            what = f"M4 {rows} rows, {scheme}"
            if REAL:
                report.add(what, us[scheme], "us", of_floor=floor / us[scheme], error=off)
            else:
                report.judge(f"{what}: error", off, "<= 0.15" if scheme == "w4a16" else CLOSE)
        for name in others[0]:
            try:
                off = error(others[0][name](x), exact)
                taken = micros(lambda n=name, x=x: [o[n](x) for o in others], per=len(others))
                beside(report, f"M4 {rows} rows, w8a16", name, us["w8a16"], taken, off)
            except (RuntimeError, NotImplementedError, KeyError) as failed:
                report.absent(f"M4 {rows} rows: {name}", f"{type(failed).__name__}: {str(failed)[:160]}")
        if REAL and rows == 64 and "w8a16" in us and "native" in us:
            read = schemes["w8a16"][0].weight_bytes / us["w8a16"] * 1e6
            report.judge("M4 64 rows, w8a16 of read bandwidth", read / ceilings.read, ">= 0.8")
            report.judge("M4 64 rows, native / w8a16", us["native"] / us["w8a16"], ">= 1.6")


CASES = {"temperature": {}, "top_k 50": {"top_k": 50}, "top_p 0.9": {"top_p": 0.9}, "min_p 0.05": {"min_p": 0.05}}


def sampling(report: Report, ceilings: Ceilings) -> None:
    """M5, the host's time included: ours, and torch's full sort on the same device."""
    ops = select_ops("cuda")
    for rows in (1, 16, 64) if REAL else (2,):
        logits = torch.randn(rows, SHAPE.vocab, device=DEVICE) * 5
        floor = logits.nbytes / ceilings.read * 1e6
        sort = wall_us(lambda x=logits: sorting(x), 10)
        for name, fields in CASES.items():
            specs = [DrawSpec(seed=i, **fields) for i in range(rows)]
            drawn = zip(ops.sample(logits, specs).ids, reference.sample(logits.cpu(), specs).ids, strict=True)
            differ = sum(a != b for a, b in drawn)
            us = wall_us(lambda x=logits, s=specs: ops.sample(x, s), 10)
            what = f"M5 {rows} rows, {name}"
            report.judge(f"{what}: draws that differ from the reference", differ, "<= 0")
            if REAL:
                report.add(what, us, "us", floor_us=floor, sort_over_ours=sort / us)
            if REAL and rows == 64 and name == "top_p 0.9":
                report.judge(f"{what}: sort / ours", sort / us, ">= 5")


def sorting(logits: Tensor) -> Tensor:
    """top-p as it is commonly written: sort the vocabulary, cut the tail, draw."""
    ordered, index = logits.sort(-1, descending=True)
    chances = ordered.softmax(-1)
    kept = chances.masked_fill(chances.cumsum(-1) - chances > 0.9, 0.0)
    return index.gather(-1, torch.multinomial(kept, 1))
