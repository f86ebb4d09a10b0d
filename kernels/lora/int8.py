"""Adapters in int8: a scale per rank of A and one per rank of B, which meet in the bridge and cost a kernel nothing.

Symmetric, round half to even, scale = amax / 127. What a layer loses is measured on its product B A, and a site that
would lose more than OUTLIER keeps its own precision.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from tenantry.kernels.lora.layout import Place, SliceWeights

OUTLIER = 0.02  # of the norm of B A; weights drawn from a normal distribution lose 0.01


def quantised(modules: Mapping[Place, SliceWeights], limit: float = OUTLIER) -> dict[Place, SliceWeights]:
    """The same adapter in int8, but for sites one of whose slices loses more than `limit`: those are as they were."""
    small = {place: quantise(weights) for place, weights in modules.items()}
    kept = {place[:2] for place, (_, lost) in small.items() if not lost <= limit}
    return {place: modules[place] if place[:2] in kept else weights for place, (weights, _) in small.items()}


def quantise(weights: SliceWeights) -> tuple[SliceWeights, float]:
    """One layer with a and b int8 [rank, in] and [out, rank] and their scales in `channels`; and what is lost:
    ||B' A' - B A|| / ||B A|| in the Frobenius norm, 0 where nothing is, NaN where weights are not finite. Rounding
    errors of different ranks are taken as independent, which saves four fifths of the arithmetic."""
    a, b = weights.a[: weights.rank].float(), weights.b[:, : weights.rank].T.contiguous().float()
    small_a, a_scale, off_a = _rows(a)
    small_b, b_scale, off_b = _rows(b)
    lost = torch.cat((off_a * b.norm(dim=1), off_b * a.norm(dim=1))).double().norm()
    size = ((b @ b.T).double() * (a @ a.T).double()).sum().clamp(min=0).sqrt()
    share = 0.0 if lost == 0 else float(lost / size)
    return replace(weights, a=small_a, b=small_b.T, channels=a_scale * b_scale), share


def _rows(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """int8 of the same shape; fp32 [rows], the scale of each row, 0 for a row of zeros; fp32 [rows], the norm of
    what rounding takes away."""
    scale = values.abs().amax(1) / 127
    steps = values / torch.where(scale == 0, 1, scale)[:, None]
    whole = steps.round()
    return whole.to(torch.int8), scale, steps.sub_(whole).norm(dim=1) * scale
