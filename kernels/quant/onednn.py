"""bfloat16 layers in oneDNN's own weight layout: the path of processors with matrix tiles (AMX).

Prepacked once, because torch's plain bf16 product may rearrange the weights in every call. What a processor that
nobody tried computes is checked at load: a layer that is missing or wrong falls back to the plain product.
"""

import logging

import torch
from torch import Tensor
from torch.nn import functional

log = logging.getLogger(__name__)

CHECKED = 64  # outputs of the check at load
TOLERANCE = 0.02  # of the largest expected value; bfloat16 keeps eight bits


class OneDnnLinear:
    """A row's last bits may depend on how many rows share the call."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """weight: [out, in] bfloat16. Raises AttributeError or RuntimeError where this torch has no such product."""
        self.out_features, self.weight_bytes = weight.shape[0], weight.nbytes
        self._run = torch.ops.mkldnn._linear_pointwise
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight)
        self._bias = None if bias is None else bias.to(weight.dtype)

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = self._run(x.bfloat16(), self._weight, self._bias, "none", [], "")
        return y.to(x.dtype)


def prepacked(weight: Tensor, bias: Tensor | None) -> OneDnnLinear | None:
    """The layer, or None (and a line in the log) where it cannot be made or does not compute what it should."""
    x = torch.linspace(-1, 1, 2 * weight.shape[1]).view(2, -1)
    expected = functional.linear(x, weight[:CHECKED].float(), None if bias is None else bias[:CHECKED].float())
    try:
        layer = OneDnnLinear(weight, bias)
        error = (layer(x)[:, :CHECKED] - expected).abs().max().item()
    except (AttributeError, RuntimeError) as failure:
        log.warning("oneDNN's prepacked product is not to be had, using torch's plain one: %s", failure)
        return None
    if not error <= TOLERANCE * max(expected.abs().max().item(), 1e-3):
        log.warning("oneDNN's prepacked product is off by %.2e, using torch's plain one", error)
        return None
    return layer
