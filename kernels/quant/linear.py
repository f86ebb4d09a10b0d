"""Linear layers prepared once at load: which storage and which product, by scheme and by what the processor has."""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from tenantry.kernels.capability import cpu_capability
from tenantry.kernels.quant import schemes
from tenantry.kernels.quant.onednn import prepacked
from tenantry.kernels.quant.schemes import SCHEMES, Scheme, SchemeUnsupported


class Linear(Protocol):
    """A prepared layer. weight_bytes: memory it holds."""

    out_features: int
    weight_bytes: int

    def __call__(self, x: Tensor) -> Tensor:
        """x: [T, in] fp32. Returns [T, out] fp32."""
        ...


class PrepareLinear(Protocol):
    """Makes a layer of a matrix, once at load."""

    def __call__(self, weight: Tensor, bias: Tensor | None = None, scheme: Scheme = "native") -> Linear:
        """weight: [out, in] float. bias: [out] or None. Raises SchemeUnsupported for sizes that a scheme lacks."""
        ...


class TorchLinear:
    """torch's product over the weights in one dtype: the reference (fp32), GPUs, and what AMX falls back to (bf16,
    where a row's last bits may depend on how many rows share the call)."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        self.weight = weight.to(dtype)
        self.bias = None if bias is None else bias.to(dtype)
        self.out_features = weight.shape[0]
        self.weight_bytes = self.weight.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        return functional.linear(x.to(self.weight.dtype), self.weight, self.bias).to(x.dtype)

    def adds(self, x: Tensor) -> bool:
        """Whether add() takes x: without a bias, which would be a pass of its own, or another dtype."""
        return self.bias is None and x.dtype == self.weight.dtype

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """y += x @ weight.T in one product, in place. y: [T, out]. Returns y."""
        return y.addmm_(x, self.weight.T)


class ReferenceLinear:
    """A scheme's own arithmetic, by its definition (schemes.py): slow, and right."""

    def __init__(self, weight: Tensor, bias: Tensor | None, scheme: Scheme) -> None:
        self.bias, self.scheme = bias, scheme
        self.out_features = weight.shape[0]
        self.weights = schemes.quantise_groups(weight) if scheme == "w4a16" else schemes.quantise_channels(weight)
        self.weight_bytes = sum(part.nbytes for part in self.weights if isinstance(part, Tensor))

    def __call__(self, x: Tensor) -> Tensor:
        if isinstance(self.weights, schemes.Groups):
            return schemes.linear_w4a16(x, self.weights, self.bias)
        product = schemes.linear_w8a16 if self.scheme == "w8a16" else schemes.linear_w8a8
        return product(x, self.weights, self.bias)


def prepare_reference(weight: Tensor, bias: Tensor | None = None, scheme: Scheme = "native") -> Linear:
    """As PrepareLinear; everything in fp32."""
    require(scheme)
    return TorchLinear(weight, bias, torch.float32) if scheme == "native" else ReferenceLinear(weight, bias, scheme)


def prepare_triton(weight: Tensor, bias: Tensor | None = None, scheme: Scheme = "native") -> Linear:
    """As PrepareLinear, on a GPU. native: torch's own product in the weight's dtype. w8a8: torch's int8 product where
    the GPU has one (compute capability 7.5). w8a16, w4a16: our kernels up to 64 rows."""
    require(scheme)
    if scheme == "native":
        return TorchLinear(weight, bias, weight.dtype)
    from tenantry.kernels.quant import gpu

    if scheme != "w8a8":
        return gpu.FewRowsLinear(weight, bias, scheme)
    if weight.is_cuda and torch.cuda.get_device_capability(weight.device) < (7, 5):
        raise SchemeUnsupported("w8a8 needs a GPU with int8 products (compute capability 7.5)")
    return gpu.BytesLinear(weight, bias)


def prepare_linear(weight: Tensor, bias: Tensor | None = None, scheme: Scheme = "native") -> Linear:
    """As PrepareLinear, on CPU. bfloat16 with AMX: oneDNN's product. Everything else: our tiles, which hold a
    copy in panels and give a row the same bits whatever shares the call."""
    require(scheme)
    if scheme == "native" and weight.dtype == torch.bfloat16 and cpu_capability().amx_bf16:
        return prepacked(weight, bias) or TorchLinear(weight, bias, torch.bfloat16)
    from tenantry.kernels.quant import cpu

    if scheme == "w8a8":
        return cpu.BytesLinear(weight, bias)
    return cpu.PanelLinear(weight, bias, scheme)


def require(scheme: str) -> None:
    """Raises SchemeUnsupported for a scheme that does not exist."""
    if scheme not in SCHEMES:
        raise SchemeUnsupported(f"{scheme!r} is not one of {', '.join(SCHEMES)}")
