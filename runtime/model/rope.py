"""Rotary position embedding: its settings in a config.json, and the cosines and sines that they mean.

Rotation: RoFormer (Su et al. 2021) with halves rotated as in GPT-NeoX. Llama 3's frequency scaling is Meta's, as in
transformers' modeling_rope_utils. Types that change with the length of the text are refused by name.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tenantry.runtime.model.fields import Fields

DEFAULT_THETA = 10_000.0


@dataclass(frozen=True, slots=True)
class Llama3Scaling:
    """Long wavelengths are stretched by factor, short ones kept, those between blended. context: original length."""

    factor: float
    low: float
    high: float
    context: float


@dataclass(frozen=True, slots=True)
class Rope:
    """theta: base of the frequencies. linear: every position is divided by it."""

    theta: float = DEFAULT_THETA
    linear: float = 1.0
    llama3: Llama3Scaling | None = None

    def frequencies(self, head_dim: int) -> Tensor:
        """Radians per position, fp32 [head_dim / 2]."""
        exponent = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
        frequency = 1.0 / (self.theta**exponent)
        if self.llama3 is None:
            return frequency / self.linear
        s = self.llama3
        wavelength = 2 * math.pi / frequency
        kept = ((s.context / wavelength - s.low) / (s.high - s.low)).clamp(0, 1)
        return (1 - kept) * frequency / s.factor + kept * frequency

    def tables(self, head_dim: int, positions: int) -> tuple[Tensor, Tensor]:
        """cos and sin, fp32 [positions, 1, head_dim]; sin's first half is negated, so that
        rotated = x * cos + roll(x, head_dim / 2) * sin."""
        angle = torch.outer(torch.arange(positions, dtype=torch.float32), self.frequencies(head_dim))
        sin = angle.sin()
        return torch.cat((angle.cos(),) * 2, -1).unsqueeze(1), torch.cat((-sin, sin), -1).unsqueeze(1)


def read_rope(fields: Fields) -> Rope:
    """From rope_parameters (transformers 5) or rope_theta and rope_scaling (before). Raises ModelUnsupported."""
    both = "rope_parameters" in fields and "rope_scaling" in fields
    old_theta = fields.number("rope_theta", DEFAULT_THETA) if "rope_theta" in fields else None
    key = "rope_parameters" if "rope_parameters" in fields else "rope_scaling"
    inner = fields.nested(key)
    theta = inner.number("rope_theta", old_theta or DEFAULT_THETA)
    if both:
        raise fields.refuse("rope_scaling", "given together with rope_parameters")
    if old_theta not in (None, theta):
        raise fields.refuse("rope_theta", f"disagrees with rope_parameters ({old_theta:g} and {theta:g})")
    kind = inner.text("rope_type" if "rope_type" in inner else "type", "default")
    inner.only("type", kind)
    inner.only("partial_rotary_factor", 1, 1.0)
    if kind == "default":
        rope = Rope(theta)
    elif kind == "linear":
        rope = Rope(theta, linear=inner.number("factor"))
    elif kind == "llama3":
        low, high = inner.number("low_freq_factor"), inner.number("high_freq_factor")
        if low >= high:
            raise inner.refuse("high_freq_factor", "must be greater than low_freq_factor")
        original = inner.number("original_max_position_embeddings")
        rope = Rope(theta, llama3=Llama3Scaling(inner.number("factor"), low, high, original))
    else:
        raise inner.refuse("rope_type", f"{kind!r} is not supported; default, linear and llama3 are")
    inner.close()
    return rope
