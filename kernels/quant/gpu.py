"""Quantised products in Triton: few rows of x against int8 or four-bit weights, read once and widened in registers.

Weights are the left operand, so that their outputs fill the tensor cores' rows and x's few rows the columns. The
inner dimension is split into planes that are summed in order: deterministic, and split by the matrix alone. More
than FEW rows are compute-bound: the matrix is widened once and multiplied by torch.
"""

# Triton reads signatures itself, so its kernels carry no annotations.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
# ruff: noqa: ANN001, ANN201

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional

from tenantry.kernels.quant import schemes
from tenantry.kernels.quant.schemes import Scheme

FEW = 64
OUTPUTS, DEPTH = 64, 128  # of a program's block
PROGRAMS = 264  # two for every multiprocessor of an H100; a constant, so that splits do not depend on the machine
MOST_PLANES = 8
INT_MM_ROWS = 17  # torch._int_mm on CUDA takes no fewer, and sizes in multiples of 8
TYPES = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16, torch.float32: tl.float32}
HALF_EVEN = tl.constexpr(12582912.0)  # 1.5 * 2**23: adding and subtracting it rounds an fp32 half to even
SMALLEST_SCALE = tl.constexpr(schemes.SMALLEST_SCALE)


@triton.jit
def bytes_kernel(
    x, codes, planes, rows, outputs, depth, steps,
    M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """planes[split, rows, outputs] = x @ codes.T over `steps` blocks of K. One program per (outputs, split)."""
    block, split = tl.program_id(0), tl.program_id(1)
    n, m = block * N + tl.arange(0, N), tl.arange(0, M)
    total = tl.zeros((N, M), tl.float32)
    for step in range(split * steps, tl.minimum((split + 1) * steps, tl.cdiv(depth, K))):
        k = step * K + tl.arange(0, K)
        w = tl.load(
            codes + n[:, None] * depth + k[None, :], mask=(n < outputs)[:, None] & (k < depth)[None, :], other=0
        )
        part = tl.load(
            x + m[None, :] * depth + k[:, None], mask=(m < rows)[None, :] & (k < depth)[:, None], other=0.0
        )
        total += tl.dot(w.to(TYPE), part, input_precision="ieee")
    at = planes + (split * rows + m)[None, :] * outputs + n[:, None]
    tl.store(at, total, mask=(n < outputs)[:, None] & (m < rows)[None, :])


@triton.jit
def half_group(
    x, codes, scale, offset, n, m, group, groups, rows, outputs, depth, G: tl.constexpr, TYPE: tl.constexpr
):
    """codes [N, G] of one group, widened, times x's rows: [N, M]."""
    k = group * G + tl.arange(0, G)
    real = (n < outputs) & (n * 0 + group < groups)
    high = tl.load(scale + n * groups + group, mask=real, other=0.0).to(tl.float32)
    low = tl.load(offset + n * groups + group, mask=real, other=0.0).to(tl.float32)
    part = tl.load(x + m[None, :] * depth + k[:, None], mask=(m < rows)[None, :] & (k < depth)[:, None], other=0.0)
    return tl.dot((codes.to(tl.float32) * high[:, None] + low[:, None]).to(TYPE), part, input_precision="ieee")


@triton.jit
def nibbles_kernel(
    x, codes, scale, offset, planes, rows, outputs, depth, groups, pairs, steps,
    M: tl.constexpr, N: tl.constexpr, G: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """As bytes_kernel over pairs of groups: a byte's low half is of the first group, its high half of the second."""
    block, split = tl.program_id(0), tl.program_id(1)
    n, m = block * N + tl.arange(0, N), tl.arange(0, M)
    total = tl.zeros((N, M), tl.float32)
    for pair in range(split * steps, tl.minimum((split + 1) * steps, pairs)):
        at = codes + (n[:, None] * pairs + pair) * G + tl.arange(0, G)[None, :]
        both = tl.load(at, mask=(n < outputs)[:, None], other=0)
        total += half_group(x, both & 15, scale, offset, n, m, 2 * pair, groups, rows, outputs, depth, G, TYPE)
        total += half_group(x, both >> 4, scale, offset, n, m, 2 * pair + 1, groups, rows, outputs, depth, G, TYPE)
    at = planes + (split * rows + m)[None, :] * outputs + n[:, None]
    tl.store(at, total, mask=(n < outputs)[:, None] & (m < rows)[None, :])


@triton.jit
def finish_kernel(
    planes, scale, bias, out, rows, outputs, SPLITS: tl.constexpr, SCALED: tl.constexpr, N: tl.constexpr
):
    """out[row] = scale * (planes, summed in order) + bias."""
    row, n = tl.program_id(0), tl.program_id(1) * N + tl.arange(0, N)
    real = n < outputs
    total = tl.zeros((N,), tl.float32)
    for split in tl.static_range(SPLITS):
        total += tl.load(planes + (split * rows + row) * outputs + n, mask=real, other=0.0)
    if SCALED:
        total *= tl.load(scale + n, mask=real, other=0.0)
    total += tl.load(bias + n, mask=real, other=0.0)
    tl.store(out + row * outputs + n, total.to(out.dtype.element_ty), mask=real)


@triton.jit
def tokens_kernel(x, codes, scale, width, depth, K: tl.constexpr):
    """Quantise one row of x [T, width] to codes [T, depth]: scale = largest magnitude / 127, half to even."""
    row, k = tl.program_id(0), tl.arange(0, K)
    values = tl.load(x + row * width + k, mask=k < width, other=0.0).to(tl.float32)
    largest = tl.max(tl.abs(values), 0)
    step = tl.maximum(largest / 127.0, SMALLEST_SCALE)
    broken = tl.sum(values * 0.0, 0)  # NaN for a row with NaN or infinity
    rounded = (values / step + HALF_EVEN) - HALF_EVEN
    tl.store(codes + row * depth + k, rounded.to(tl.int8), mask=k < depth)
    tl.store(scale + row, step + broken)


@triton.jit
def rescale_kernel(sums, x_scale, scale, bias, out, width, outputs, N: tl.constexpr):
    """out[row] = sums[row] * x_scale[row] * scale + bias; rows of sums are `width` apart."""
    row, n = tl.program_id(0), tl.program_id(1) * N + tl.arange(0, N)
    real = n < outputs
    total = tl.load(sums + row * width + n, mask=real, other=0).to(tl.float32) * tl.load(x_scale + row)
    total = total * tl.load(scale + n, mask=real, other=0.0) + tl.load(bias + n, mask=real, other=0.0)
    tl.store(out + row * outputs + n, total.to(out.dtype.element_ty), mask=real)


class FewRowsLinear:
    """w8a16 and w4a16. weight: [out, in] float, on the device; x: fp16, bf16 or fp32."""

    def __init__(self, weight: Tensor, bias: Tensor | None, scheme: Scheme) -> None:
        self.out_features, self.in_features = weight.shape
        self.bias = _bias(weight, bias)
        self.scale, self.offset = self.bias, self.bias
        if scheme == "w8a16":
            self.group, blocks = 0, triton.cdiv(self.in_features, DEPTH)
            self.codes, self.scale = schemes.quantise_channels(weight)
        else:
            groups = schemes.quantise_groups(weight)
            self.group, blocks = groups.group, triton.cdiv(groups.scale.shape[1], 2)
            self.codes, self.scale, self.offset = pack_pairs(groups.codes, groups.group), groups.scale, groups.offset
        wanted = min(MOST_PLANES, max(1, PROGRAMS // triton.cdiv(self.out_features, OUTPUTS)))
        self.steps = triton.cdiv(blocks, min(wanted, blocks))
        self.blocks, self.splits = blocks, triton.cdiv(blocks, self.steps)
        held = [self.codes, self.bias, self.scale] + ([self.offset] if self.group else [])
        self.weight_bytes = sum(tensor.nbytes for tensor in held)

    def widened(self, dtype: torch.dtype) -> Tensor:
        """The matrix [out, in] that the codes stand for."""
        if not self.group:
            return (self.codes * self.scale[:, None]).to(dtype)
        codes = unpack_pairs(self.codes, self.scale.shape[1] * self.group, self.group)
        return schemes.widen_groups(schemes.Groups(codes, self.scale, self.offset, self.in_features)).to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        rows = len(x)
        if rows > FEW:
            return functional.linear(x, self.widened(x.dtype), self.bias.to(x.dtype))
        x, out = x.contiguous(), torch.empty((rows, self.out_features), dtype=x.dtype, device=x.device)
        if rows == 0:
            return out
        planes = torch.empty((self.splits, rows, self.out_features), dtype=torch.float32, device=x.device)
        grid = (triton.cdiv(self.out_features, OUTPUTS), self.splits)
        sizes: Any = {"M": max(16, triton.next_power_of_2(rows)), "N": OUTPUTS, "TYPE": TYPES[x.dtype]}
        shape = (rows, self.out_features, self.in_features)
        if self.group:
            inputs = (x, self.codes, self.scale, self.offset, planes, *shape, self.scale.shape[1], self.blocks)
            nibbles_kernel[grid](*inputs, self.steps, G=self.group, **sizes)
        else:
            bytes_kernel[grid](x, self.codes, planes, *shape, self.steps, K=DEPTH, **sizes)
        finish_kernel[(rows, triton.cdiv(self.out_features, 1024))](
            planes, self.scale, self.bias, out, rows, self.out_features, self.splits, self.group == 0, 1024
        )
        return out


class BytesLinear:
    """w8a8 by torch's int8 product: exact sums."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """weight: [out, in] float, on the device."""
        self.out_features, self.in_features = weight.shape
        codes, self.scale = schemes.quantise_channels(weight)
        self.codes = functional.pad(codes, (0, -self.in_features % 8, 0, -self.out_features % 8)).contiguous()
        self.bias = _bias(weight, bias)
        self.weight_bytes = self.codes.nbytes + self.scale.nbytes + self.bias.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        x, rows, depth = x.contiguous(), len(x), self.codes.shape[1]
        out = torch.empty((rows, self.out_features), dtype=x.dtype, device=x.device)
        if rows == 0:
            return out
        codes = torch.zeros((max(rows, INT_MM_ROWS), depth), dtype=torch.int8, device=x.device)
        scale = torch.empty(rows, dtype=torch.float32, device=x.device)
        tokens_kernel[(rows,)](x, codes, scale, self.in_features, depth, K=triton.next_power_of_2(depth))
        sums = torch._int_mm(codes, self.codes.T)
        grid = (rows, triton.cdiv(self.out_features, 1024))
        rescale_kernel[grid](sums, scale, self.scale, self.bias, out, sums.shape[1], self.out_features, N=1024)
        return out


def pack_pairs(codes: Tensor, group: int) -> Tensor:
    """uint8 [out, in] below 16 to [out, pairs * group]: value i of a pair's first group in the low half of byte i,
    of its second group in the high half; both halves are then consecutive inputs."""
    pairs = functional.pad(codes, (0, -codes.shape[1] % (2 * group))).view(len(codes), -1, 2, group)
    return (pairs[:, :, 0] | pairs[:, :, 1] << 4).flatten(1).contiguous()


def unpack_pairs(packed: Tensor, inputs: int, group: int) -> Tensor:
    """The inverse of pack_pairs."""
    pairs = packed.view(len(packed), -1, 1, group)
    return torch.cat((pairs & 15, pairs >> 4), 2).flatten(1)[:, :inputs].contiguous()


def _bias(weight: Tensor, bias: Tensor | None) -> Tensor:
    zeros = torch.zeros(len(weight), dtype=torch.float32, device=weight.device)
    return zeros if bias is None else zeros.copy_(bias)
