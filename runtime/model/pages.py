"""Whole pages of KV as bytes and back, for other engines on the same host.

Owns the order of a page's bytes, and the one line that says what a page is made of. It must not know whose pages
they are, where their bytes go, or whether they are sound.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from tenantry.kernels.attention.layout import PageLayout
from tenantry.runtime.cache.pool import KvPool
from tenantry.runtime.plan import StepPlan


class PageBytes:
    """A page is one part after the other of every tensor that page ids index, layer by layer; the same bytes whether
    the pool is an arena or not. format: equal where pages can be exchanged; it names the model that computed them."""

    def __init__(self, pool: KvPool, model: bytes) -> None:
        self._tensors = pool.tensors()
        layout, layers = pool.layout, len(pool.layers)
        self.size = sum(t[0].numel() * t.element_size() for t in self._tensors)
        self.format = page_format(layout, layers, model)

    def read(self, pages: Sequence[int], target: memoryview) -> None:
        """Copy pages out, one after another."""
        if not pages:
            return
        out, ids = self._bytes(target, len(pages)), list(pages)
        at = 0
        for tensor in self._tensors:
            part = tensor[ids].reshape(len(ids), -1).view(torch.uint8)
            out[:, at : at + part.shape[1]] = part
            at += part.shape[1]

    def write(self, pages: Sequence[int], source: memoryview) -> None:
        """Copy pages in. source may hold more of them."""
        if not pages:
            return
        data, ids = self._bytes(source[: len(pages) * self.size], len(pages)), list(pages)
        at = 0
        for tensor in self._tensors:
            width = tensor[0].numel() * tensor.element_size()
            part = data[:, at : at + width].contiguous().view(tensor.dtype).view(len(ids), *tensor.shape[1:])
            tensor[ids] = part.to(tensor.device)
            at += width

    def arrive(self, plan: StepPlan) -> tuple[str, ...]:
        """Write what a plan says. Returns the requests whose pages are in place."""
        done = []
        for arrival in plan.arrivals:
            if len(arrival.source) >= len(arrival.pages) * self.size:  # else not arrived, and computed here
                self.write(arrival.pages, arrival.source)
                done.append(arrival.request_id)
        return tuple(done)

    def depart(self, plan: StepPlan) -> tuple[str, ...]:
        """Read what a plan says. Returns the requests whose pages have been read."""
        for departure in plan.departures:
            self.read(departure.pages, departure.target)
        return tuple(departure.request_id for departure in plan.departures)

    def _bytes(self, memory: memoryview, pages: int) -> Tensor:
        if len(memory) != pages * self.size:
            raise ValueError(f"{pages} pages of {self.size} bytes are not {len(memory)}")
        return torch.frombuffer(memory, dtype=torch.uint8).view(pages, self.size)


def page_format(layout: PageLayout, layers: int, model: bytes) -> str:
    scales = f"+{layout.scale_dtype}x{layout.groups}" if layout.dtype == torch.int8 else ""
    shape = f"{layers}x{layout.kv_heads}x{layout.page_size}x{layout.head_dim}"
    return f"kv1/{layout.dtype}{scales}/{shape}/{model.hex()}"
