"""Paged attention and KV writes in plain torch: the oracle the fast kernels are tested against.

Slow on purpose: one row at a time, pages gathered and dequantised to fp32. Runs on any device.
"""

import torch
from torch import Tensor

from tenantry.kernels.attention.layout import LayerPages
from tenantry.kernels.attention.plan import NODES, AttentionPlan

SMALLEST_SCALE = 2.0**-24  # the smallest that fp16 holds


def quantise(x: Tensor, groups: int, scale_dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Symmetric int8 over `groups` equal parts of the last dimension, rounding half to even.

    x: [..., D] float. Returns int8 [..., D] and scales [..., groups], floored so that zeros stay zeros. Values are
    rounded by the scale as it is stored.
    """
    parts = x.float().reshape(*x.shape[:-1], groups, -1)
    scale = (parts.abs().amax(-1) / 127).clamp_min(SMALLEST_SCALE).to(scale_dtype)
    whole = (parts / scale.float().unsqueeze(-1)).round().clamp(-127, 127)
    return whole.nan_to_num(0).to(torch.int8).flatten(-2), scale


def dequantise(values: Tensor, scale: Tensor | None) -> Tensor:
    """values: [..., D] int8 with scale [..., groups], or float with None. Returns fp32 [..., D]."""
    if scale is None:
        return values.float()
    parts = values.float().reshape(*values.shape[:-1], scale.shape[-1], -1)
    return (parts * scale.float().unsqueeze(-1)).flatten(-2)


def write_kv(k: Tensor, v: Tensor, pages: LayerPages, slots: Tensor) -> None:
    """Store one step's keys and values, quantised where the pages are.

    k, v: [T, kv_heads, head_dim] float. slots: int64 [T], page * page_size + offset, all different; a token whose
    slot is negative is not stored.
    """
    kept = slots >= 0
    k, v, slots = k[kept], v[kept], slots[kept]
    page, offset = slots // pages.page_size, slots % pages.page_size
    for x, store, scales in ((k, pages.k, pages.k_scale), (v, pages.v, pages.v_scale)):
        if scales is None:
            store[page, :, offset] = x.to(store.dtype)
        else:
            store[page, :, offset], scales[page, :, offset] = quantise(x, scales.shape[-1], scales.dtype)


def move_kv(pages: LayerPages, sources: Tensor, targets: Tensor) -> None:
    """Copy what is stored at single positions, as it is: nothing is rounded again.

    sources, targets: int64 [rows, moves] slots as for write_kv. A row's moves happen in order, from the left; no row
    touches another's slots. A negative target is no move.
    """
    size = pages.page_size
    for i in range(sources.shape[1]):
        kept = targets[:, i] >= 0
        source, target = sources[kept, i], targets[kept, i]
        for store in (pages.k, pages.v, pages.k_scale, pages.v_scale):
            if store is not None:
                store[target // size, :, target % size] = store[source // size, :, source % size]


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
        unseen = torch.arange(length, device=q.device) >= plan.seen[begin : begin + q_len].unsqueeze(1)
        if plan.tree is not None:
            masks = plan.tree[begin : begin + q_len].unsqueeze(1)
            bits = masks >> torch.arange(min(q_len, NODES), device=q.device) & 1
            unseen[:, length - q_len :][:, :NODES] |= (masks != 0) & (bits == 0)
        weights = scores.masked_fill(unseen, float("-inf")).softmax(-1)
        out[begin : begin + q_len] = (weights @ v).transpose(0, 1).to(out.dtype)
        begin += q_len
    return out
