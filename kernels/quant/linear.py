"""Linear layers prepared once at load: which weight format and which product, by what the processor has.

bfloat16 weights stay as the checkpoint has them (2 bytes per value, no copy unless a size needs padding) and are
widened to fp32 in registers, which beats oneDNN's fp32 copy up to 16 rows and its emulated bf16 at every size on
processors without bf16 instructions. Activations are fp32.
"""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from tenantry.kernels.capability import cpu_capability


class Linear(Protocol):
    """A prepared layer. weight_bytes: memory it holds."""

    out_features: int
    weight_bytes: int

    def __call__(self, x: Tensor) -> Tensor:
        """x: [T, in] fp32. Returns [T, out] fp32."""
        ...


class TorchLinear:
    """torch's product over the weights in one dtype: the reference (fp32), and the path of processors with AMX
    (bf16, where a row's last bits may depend on how many rows share the call)."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        self.weight = weight.to(dtype)
        self.bias = None if bias is None else bias.to(dtype)
        self.out_features = weight.shape[0]
        self.weight_bytes = self.weight.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        return functional.linear(x.to(self.weight.dtype), self.weight, self.bias).to(x.dtype)


class TiledLinear:
    """Our own product (quant/cpu.py): every row's result is the same bit for bit whatever shares the call."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        from tenantry.kernels.quant import cpu
        from tenantry.kernels.tiles import COLUMNS

        self.out_features, self.in_features = weight.shape
        padded_out = -(-self.out_features // COLUMNS) * COLUMNS
        self.depth = -(-self.in_features // cpu.STEP) * cpu.STEP
        if weight.dtype not in (torch.bfloat16, torch.float32):
            weight = weight.float()
        if (padded_out, self.depth) != tuple(weight.shape):
            padding = (0, self.depth - self.in_features, 0, padded_out - self.out_features)
            weight = functional.pad(weight, padding)
        self.weight = weight.contiguous()
        self.bias = torch.zeros(padded_out)
        if bias is not None:
            self.bias[: self.out_features] = bias
        self.weight_bytes = self.weight.nbytes
        self._cpu = cpu

    def __call__(self, x: Tensor) -> Tensor:
        rows, columns, item = x.shape[0], self.weight.shape[0], self.weight.dtype.itemsize
        arranged = torch.empty((rows, self.depth))
        self._cpu.arrange(x.numpy(), arranged.numpy(), item)
        out = torch.empty((rows, columns))
        self._cpu.product(
            (self.weight.data_ptr(), item, arranged.data_ptr(), self.bias.data_ptr(), out.data_ptr()),
            rows,
            self.depth,
            columns,
        )
        return out[:, : self.out_features]


def prepare_reference(weight: Tensor, bias: Tensor | None = None) -> Linear:
    """weight: [out, in] float. bias: [out] or None. A layer in fp32."""
    return TorchLinear(weight, bias, torch.float32)


def prepare_torch(weight: Tensor, bias: Tensor | None = None) -> Linear:
    """weight: [out, in] float, on any device. bias: [out] or None. torch's own product in the weight's dtype."""
    return TorchLinear(weight, bias, weight.dtype)


def prepare_linear(weight: Tensor, bias: Tensor | None = None) -> Linear:
    """weight: [out, in] float, kept without a copy where its sizes allow. bias: [out] or None.

    bfloat16 with AMX: torch's oneDNN product. Everything else: our tiles.
    """
    if weight.dtype == torch.bfloat16 and cpu_capability().amx_bf16:
        return TorchLinear(weight, bias, torch.bfloat16)
    return TiledLinear(weight, bias)
