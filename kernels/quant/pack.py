"""Matrices rearranged into panels for the CPU's tiles: the inner order of every kind of storage, and nothing else.

A panel holds PANEL outputs, k after k; sizes are padded with zeros. tiles.py reads what this writes.
"""

import torch
from torch import Tensor
from torch.nn import functional

from tenantry.kernels.quant.schemes import Groups
from tenantry.kernels.quant.tiles import PANEL, UNIT

HALF = PANEL // 2


def padded(weight: Tensor) -> Tensor:
    """[out, in] to [panels, PANEL, depth], depth a multiple of UNIT."""
    out, inputs = weight.shape
    whole = functional.pad(weight, (0, -inputs % UNIT, 0, -out % PANEL))
    return whole.view(-1, PANEL, whole.shape[1])


def pack_values(weight: Tensor) -> Tensor:
    """[out, in] of fp32 or int8 to [panels, depth, PANEL]."""
    return padded(weight).transpose(1, 2).contiguous()


def pack_bfloat16(weight: Tensor) -> Tensor:
    """[out, in] to [panels, depth, PANEL]; output j and output HALF + j side by side, because one shift and one mask
    of 32-bit words widen two of them."""
    panels = padded(weight)
    return panels.view(len(panels), 2, HALF, -1).permute(0, 3, 2, 1).contiguous().view(len(panels), -1, PANEL)


def pack_bytes(codes: Tensor) -> Tensor:
    """int8 [out, in] to [panels, depth / 4, PANEL, 4]: four inputs of one output side by side."""
    panels = padded(codes)
    return panels.view(len(panels), PANEL, -1, UNIT).transpose(1, 2).contiguous()


def pack_nibbles(codes: Tensor) -> Tensor:
    """uint8 [out, in] below 16 to int32 [panels, depth / 4, HALF]: word j holds four inputs of output j and, above
    them, of output HALF + j."""
    panels = padded(codes)
    units = panels.view(len(panels), 2, HALF, -1, UNIT).permute(0, 3, 2, 1, 4).reshape(len(panels), -1, HALF, 8)
    words = torch.zeros(units.shape[:3], dtype=torch.int32)
    for place in range(8):
        words |= units[..., place].to(torch.int32) << (4 * place)
    return words


def pack_groups(groups: Groups) -> Tensor:
    """Scales and offsets to int32 [panels, groups, PANEL], the scale in the upper sixteen bits."""
    high, low = (part.view(torch.int16).to(torch.int32) for part in (groups.scale, groups.offset))
    words = functional.pad(high << 16 | (low & 0xFFFF), (0, 0, 0, -len(high) % PANEL))
    return words.view(-1, PANEL, words.shape[1]).transpose(1, 2).contiguous()
