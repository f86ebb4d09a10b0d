"""Weight formats: how a matrix becomes codes and scales, and the arithmetic that every backend must reproduce.

Owns quantisers and pure reference products; layouts and speed are the backends' own. All rounding is half to even;
scales never fall below SMALLEST_SCALE; codes are symmetric unless said otherwise.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

Scheme = Literal["native", "w8a16", "w8a8", "w4a16"]
"""native: the checkpoint's values. w8a16: int8 per output channel. w8a8: that times int8 activations, one scale per
token. w4a16: four bits with a scale and an offset for every group of inputs."""
SCHEMES: tuple[Scheme, ...] = ("native", "w8a16", "w8a8", "w4a16")
GROUPS = (32, 64, 128)
GROUP = 32  # of w4a16 unless said otherwise
SMALLEST_SCALE = 1e-10
EXACT_PAIRS = 64  # largest code whose pairwise products with unsigned bytes fit sixteen bits


class SchemeUnsupported(ValueError):
    """A matrix that a scheme cannot hold."""


class Channels(NamedTuple):
    """weight = codes * scale[:, None]. codes: int8 [out, in]. scale: fp32 [out]."""

    codes: Tensor
    scale: Tensor


class Groups(NamedTuple):
    """weight = codes * scale + offset, per group. codes: uint8 [out, groups * group], 0 to 15, of which the first
    `inputs` columns count. scale, offset: bfloat16 [out, groups]."""

    codes: Tensor
    scale: Tensor
    offset: Tensor
    inputs: int

    @property
    def group(self) -> int:
        return self.codes.shape[1] // self.scale.shape[1]


def quantise_channels(weight: Tensor, most: int = 127) -> Channels:
    """weight: [out, in] float. Codes from -most to most; scale = largest magnitude of the row / most."""
    values = weight.float()
    scale = (values.abs().amax(1) / most).clamp_min(SMALLEST_SCALE)
    return Channels((values / scale[:, None]).round_().to(torch.int8), scale)


def quantise_tokens(x: Tensor) -> tuple[Tensor, Tensor]:
    """x: [T, in] float. Returns int8 codes [T, in] and fp32 scales [T]; a token that is not finite gets NaN as its
    scale, so that it cannot pass for a number."""
    values = x.float()
    largest = values.abs().amax(1)
    scale = (largest / 127).clamp_min(SMALLEST_SCALE)
    codes = (values / scale[:, None]).round_().nan_to_num_(0).clamp_(-127, 127).to(torch.int8)
    return codes, torch.where(largest.isfinite(), scale, torch.nan)


def quantise_groups(weight: Tensor, group: int = GROUP) -> Groups:
    """weight: [out, in] float; group: consecutive inputs that share a scale and an offset, both rounded to bfloat16
    before codes are chosen; the last group may be shorter. The smallest value has code 0, the largest 15. Raises
    SchemeUnsupported."""
    out, inputs = weight.shape
    if group not in GROUPS:
        raise SchemeUnsupported(f"w4a16 has groups of {', '.join(map(str, GROUPS))}, not {group}")
    last = weight[:, -1:].expand(-1, -inputs % group)  # stretches no range
    values = torch.cat((weight, last), 1).float().view(out, -1, group)
    low, high = values.amin(2), values.amax(2)
    scale, offset = ((high - low) / 15).clamp_min(SMALLEST_SCALE).bfloat16(), low.bfloat16()
    codes = values.sub_(offset.float()[..., None]).div_(scale.float()[..., None]).round_().clamp_(0, 15)
    return Groups(codes.to(torch.uint8).flatten(1), scale, offset, inputs)


def widen_groups(groups: Groups) -> Tensor:
    """The fp32 matrix [out, in] that the codes stand for; every value rounded once, as a fused multiply-add does."""
    codes = groups.codes.view(len(groups.codes), -1, groups.group).double()
    scale, offset = groups.scale.double()[..., None], groups.offset.double()[..., None]
    return (codes * scale + offset).float().flatten(1)[:, : groups.inputs]


def linear_w8a16(x: Tensor, channels: Channels, bias: Tensor | None) -> Tensor:
    """x: [T, in] float. Returns [T, out] in x's dtype; arithmetic in fp32."""
    y = functional.linear(x.float(), channels.codes.float()) * channels.scale
    return (y if bias is None else y + bias).to(x.dtype)


def linear_w8a8(x: Tensor, channels: Channels, bias: Tensor | None) -> Tensor:
    """x: [T, in] float, quantised per token. Returns [T, out] in x's dtype; sums of products are exact."""
    codes, scale = quantise_tokens(x)
    sums = functional.linear(codes.double(), channels.codes.double()).float()
    y = sums * scale[:, None] * channels.scale
    return (y if bias is None else y + bias).to(x.dtype)


def linear_w4a16(x: Tensor, groups: Groups, bias: Tensor | None) -> Tensor:
    """x: [T, in] float. Returns [T, out] in x's dtype; arithmetic in fp32."""
    return functional.linear(x.float(), widen_groups(groups), None if bias is None else bias.float()).to(x.dtype)
