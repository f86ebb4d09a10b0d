"""Linear layers prepared once at load.

Owns the choice of weight format and of the GEMM, by what the processor has and how many rows a call brings.
"""

from typing import Protocol

from torch import Tensor
from torch.nn import functional


class Linear(Protocol):
    """A prepared layer. weight_bytes: memory it holds."""

    out_features: int
    weight_bytes: int

    def __call__(self, x: Tensor) -> Tensor:
        """x: [T, in]. Returns [T, out] in x's dtype."""
        ...


class ReferenceLinear:
    """fp32 arithmetic over the weights as they came."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight = weight.float()
        self.bias = None if bias is None else bias.float()
        self.out_features = weight.shape[0]
        self.weight_bytes = self.weight.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        return functional.linear(x.float(), self.weight, self.bias).to(x.dtype)


def prepare_reference(weight: Tensor, bias: Tensor | None = None) -> Linear:
    """weight: [out, in] float. bias: [out] or None."""
    return ReferenceLinear(weight, bias)
