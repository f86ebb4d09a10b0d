"""Paged attention and KV writes in plain torch: the oracle the fast kernels are tested against.

Slow on purpose: one row at a time, pages gathered and dequantised to fp32. Runs on any device.
"""

import torch
from torch import Tensor

from tenantry.kernels.attention.layout import AttentionPlan, LayerPages

SMALLEST_SCALE = 1e-8


def quantise(x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Symmetric int8 over `groups` equal parts of the last dimension, rounding half to even.

    x: [..., D] float. Returns int8 [..., D] and fp32 scales [..., groups], floored so that zeros stay zeros.
    """
    parts = x.float().reshape(*x.shape[:-1], groups, -1)
    scale = (parts.abs().amax(-1) / 127).clamp_min(SMALLEST_SCALE)
    return (parts / scale.unsqueeze(-1)).round().clamp(-127, 127).to(torch.int8).flatten(-2), scale


def dequantise(values: Tensor, scale: Tensor | None) -> Tensor:
    """values: [..., D] int8 with scale [..., groups], or float with None. Returns fp32 [..., D]."""
    if scale is None:
        return values.float()
    parts = values.float().reshape(*values.shape[:-1], scale.shape[-1], -1)
    return (parts * scale.float().unsqueeze(-1)).flatten(-2)


def write_kv(k: Tensor, v: Tensor, pages: LayerPages, slots: Tensor) -> None:
    """Store one step's keys and values, quantised where the pages are.

    k, v: [T, kv_heads, head_dim] float. slots: int64 [T], page * page_size + offset, all different.
    """
    page, offset = slots // pages.page_size, slots % pages.page_size
    for x, store, scales in ((k, pages.k, pages.k_scale), (v, pages.v, pages.v_scale)):
        if scales is None:
            store[page, :, offset] = x.to(store.dtype)
        else:
            values, scale = quantise(x, scales.shape[-1])
            store[page, :, offset] = values
            scales[page, :, offset] = scale.to(scales.dtype)


def gather(store: Tensor, scales: Tensor | None, table: Tensor, length: int) -> Tensor:
    """One row's keys or values out of its pages.

    store: [pages, kv_heads, page_size, D]. table: int [n] page ids. Returns fp32 [kv_heads, length, D].
    """
    values = dequantise(store[table], None if scales is None else scales[table])
    return values.transpose(0, 1).flatten(1, 2)[:, :length]


def attention(q: Tensor, pages: LayerPages, plan: AttentionPlan, scale: float) -> Tensor:
    """Causal attention of ragged rows over their pages.

    q: [T, heads, head_dim], heads a multiple of kv_heads. scale multiplies q·k. Returns [T, heads, head_dim] in
    q's dtype. Every position up to a query's own must have been written.
    """
    out = torch.empty_like(q)
    group = q.shape[1] // pages.kv_heads
    begin = 0
    for row, (q_len, length) in enumerate(zip(plan.q_lens, plan.totals, strict=True)):
        table = plan.block_table[row, : -(-length // pages.page_size)].long()
        k = gather(pages.k, pages.k_scale, table, length).repeat_interleave(group, 0)
        v = gather(pages.v, pages.v_scale, table, length).repeat_interleave(group, 0)
        query = q[begin : begin + q_len].float().transpose(0, 1)
        scores = query @ k.transpose(1, 2) * scale
        own = torch.arange(length - q_len, length, device=q.device)
        unseen = torch.arange(length, device=q.device) > own.unsqueeze(1)
        weights = scores.masked_fill(unseen, float("-inf")).softmax(-1)
        out[begin : begin + q_len] = (weights @ v).transpose(0, 1).to(out.dtype)
        begin += q_len
    return out
