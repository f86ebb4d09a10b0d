"""The small operations between matrix products, the plain way: in float64, one line each. The oracle."""

import torch
from torch import Tensor
from torch.nn import functional


def add_norm(hidden: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> Tensor:
    """hidden += delta in place (nothing for None), then RMSNorm (Zhang and Sennrich 2019) over the last dimension.

    hidden, delta: [..., D] float. weight: [D]. Returns hidden / sqrt(mean(hidden²) + eps) * weight, [..., D] in
    hidden's dtype.
    """
    if delta is not None:
        hidden += delta
    wide = hidden.double()
    scale = (wide.square().mean(-1, keepdim=True) + eps).rsqrt()
    normed: Tensor = wide * scale * weight
    return normed.to(hidden.dtype)


def silu_mul(gate_up: Tensor) -> Tensor:
    """gate_up: [T, 2 * I] float, gates first. Returns silu(gate) * up, [T, I] in gate_up's dtype."""
    gate, up = gate_up.to(torch.float64).chunk(2, -1)
    return (functional.silu(gate) * up).to(gate_up.dtype)
