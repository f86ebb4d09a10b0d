"""Prepared layers over panels: what is packed for each scheme, and one call into compiled code per product."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

from tenantry.kernels.pool import get_parts
from tenantry.kernels.quant import panels, schemes
from tenantry.kernels.quant.pack import pack_bfloat16, pack_bytes, pack_groups, pack_nibbles, pack_values
from tenantry.kernels.quant.schemes import Scheme
from tenantry.kernels.quant.tiles import MOST_CODE, PANEL, UNIT

SINGLE_THREAD_WORK = 1 << 17  # multiply-adds below which a parallel region costs more than it saves
SINGLE_THREAD_QUANTISING = 1 << 13  # values below which the same holds for quantising them
ROWS_AT_ONCE = 1 << 12  # outputs quantised and packed together: bounds the memory that loading takes


def slabs(weight: Tensor) -> Iterator[Tensor]:
    """A matrix in pieces of whole panels."""
    return (weight[first : first + ROWS_AT_ONCE] for first in range(0, len(weight), ROWS_AT_ONCE))


def packed(weight: Tensor, make: Callable[[Tensor], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """make() of every slab, each of its tensors joined along the first dimension."""
    pieces = [make(slab) for slab in slabs(weight)]
    return pieces[0] if len(pieces) == 1 else tuple(torch.cat(column) for column in zip(*pieces, strict=True))


def whole(values: Tensor | None, out_features: int, fill: float) -> Tensor:
    """fp32 per output, as long as the panels are."""
    full = torch.full((-(-out_features // PANEL) * PANEL,), fill, dtype=torch.float32)
    if values is not None:
        full[:out_features] = values
    return full


class PanelLinear:
    """fp32 arithmetic over bfloat16, fp32, int8 (w8a16) or four-bit (w4a16) panels."""

    def __init__(self, weight: Tensor, bias: Tensor | None, scheme: Scheme = "native") -> None:
        """weight: [out, in] float."""
        self.out_features, self.in_features = weight.shape
        self._group, self._groups = 0, torch.empty(0, dtype=torch.int32)
        scale: Tensor | None = None
        if scheme == "w8a16":
            self._bits = 8
            self._panels, scale = packed(weight, _channels)
        elif scheme == "w4a16":
            self._bits, self._group = 4, schemes.GROUP.bit_length() - 1
            self._panels, self._groups = packed(weight, _groups)
        elif weight.dtype == torch.bfloat16:
            self._bits, self._panels = 16, pack_bfloat16(weight)
        else:
            self._bits, self._panels = 32, pack_values(weight.float())
        self._scale = whole(scale, self.out_features, 1)
        self._bias = whole(bias, self.out_features, 0)
        multiple = schemes.GROUP if self._bits == 4 else UNIT
        self.depth = -(-self.in_features // multiple) * multiple
        held = (self._panels, self._groups, self._scale, self._bias)
        self.weight_bytes = sum(tensor.nbytes for tensor in held)
        self._columns, self._addresses = len(self._scale), [tensor.data_ptr() for tensor in held]

    @property
    def record(self) -> tuple[int, ...]:
        """For compiled code that multiplies by itself: bits, addresses of panels and groups, the group's size,
        addresses of scales and bias, depth and columns."""
        w, groups, scale, bias = self._addresses
        return self._bits, w, groups, self._group, scale, bias, self.depth, self._columns

    def __call__(self, x: Tensor) -> Tensor:
        if self.depth != self.in_features:
            x = functional.pad(x, (0, self.depth - self.in_features))
        x = x.contiguous()
        rows, columns = x.shape[0], self._columns
        out = torch.empty((rows, columns))
        w, groups, scale, bias = self._addresses
        sizes = (rows, self.depth, 4 * self.depth, 4 * columns)
        arguments = (self._bits, w, groups, self._group, x.data_ptr(), out.data_ptr(), scale, bias, *sizes)
        parts = get_parts() if rows * self.depth * columns > SINGLE_THREAD_WORK else 1
        panels.multiply_all(parts, *arguments, columns // PANEL)
        return out if columns == self.out_features else out[:, : self.out_features].contiguous()


class BytesLinear:
    """w8a8: tokens quantised to bytes, exact integer sums."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """weight: [out, in] float."""
        self.out_features, self.in_features = weight.shape
        self._panels, scale, excess = packed(weight, _bytes)
        self._scale = whole(scale, self.out_features, 0)
        self._bias = whole(bias, self.out_features, 0)
        self._excess = functional.pad(excess, (0, len(self._scale) - self.out_features))
        self.depth = -(-self.in_features // UNIT) * UNIT
        held = (self._panels, self._excess, self._scale, self._bias)
        self.weight_bytes = sum(tensor.nbytes for tensor in held)
        self._columns, self._addresses = len(self._scale), [tensor.data_ptr() for tensor in held]

    def __call__(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[0], self._columns
        out, codes = torch.empty((rows, columns)), torch.empty((rows, self.depth), dtype=torch.uint8)
        scales = torch.empty(rows)
        parts = get_parts() if rows * self.depth > SINGLE_THREAD_QUANTISING else 1
        panels.to_bytes_all(parts, x.contiguous().numpy(), codes.numpy(), scales.numpy())
        w, excess, scale, bias = self._addresses
        inputs = (w, excess, codes.data_ptr(), scales.data_ptr())
        arguments = (*inputs, out.data_ptr(), scale, bias, rows, self.depth, 4 * columns)
        parts = get_parts() if rows * self.depth * columns > SINGLE_THREAD_WORK else 1
        panels.multiply_bytes_all(parts, *arguments, columns // PANEL)
        return out if columns == self.out_features else out[:, : self.out_features].contiguous()


def _channels(slab: Tensor) -> tuple[Tensor, Tensor]:
    codes, scale = schemes.quantise_channels(slab)
    return pack_values(codes), scale


def _groups(slab: Tensor) -> tuple[Tensor, Tensor]:
    groups = schemes.quantise_groups(slab)
    return pack_nibbles(groups.codes), pack_groups(groups)


def _bytes(slab: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    codes, scale = schemes.quantise_channels(slab, MOST_CODE)
    return pack_bytes(codes), scale, codes.sum(1, dtype=torch.int32) * 128
