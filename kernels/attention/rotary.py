"""What happens to one step's queries, keys and values before attention: head norms, rotation, the write into pages.

The reference of the fused operation, in plain torch on any device. Rotation: RoFormer (Su et al. 2021), halves
rotated as in GPT-NeoX; norms: RMSNorm (Zhang and Sennrich 2019) per head.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tenantry.kernels.attention import reference
from tenantry.kernels.attention.layout import LayerPages


@dataclass(frozen=True, slots=True)
class HeadNorms:
    """RMSNorm of every query and key head before rotation. q, k: weights [head_dim]."""

    q: Tensor
    k: Tensor
    eps: float


def rotate_and_write(
    qkv: Tensor, cos: Tensor, sin: Tensor, pages: LayerPages, slots: Tensor, norms: HeadNorms | None = None
) -> Tensor:
    """Rotate queries and keys, store keys and values (quantised where the pages are), return the queries.

    qkv: [T, (heads + 2 * kv_heads) * head_dim], queries first, then keys, then values. cos, sin: fp32 [T, head_dim]
    of each token's position (in a tree not its slot's); sin's first half is negated, so that rotated = x * cos +
    roll(x, head_dim / 2) * sin. slots: as for write_kv. Returns [T, heads, head_dim] in qkv's dtype.
    """
    heads = qkv.view(len(qkv), -1, pages.head_dim)
    queries = heads.shape[1] - 2 * pages.kv_heads
    x = heads[:, : queries + pages.kv_heads].float()
    if norms is not None:
        scale = (x.square().mean(-1, keepdim=True) + norms.eps).rsqrt()
        weight = torch.cat((norms.q.expand(queries, -1), norms.k.expand(pages.kv_heads, -1))).float()
        x = x * scale * weight
    x = x * cos.unsqueeze(1) + x.roll(pages.head_dim // 2, -1) * sin.unsqueeze(1)
    reference.write_kv(x[:, queries:], heads[:, queries + pages.kv_heads :], pages, slots)
    return x[:, :queries].to(qkv.dtype)
