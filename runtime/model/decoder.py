"""The forward pass of a Llama-like decoder over one ragged batch, every adapter and the base at once.

Owns the arithmetic between kernels. It must not know plans, requests, adapters' names or how weights were loaded.
Attention reads keys and values back from their pages in every step, so that a prefix found in the cache and one
computed just now give the same numbers.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tenantry.kernels.attention.layout import LayerPages
from tenantry.kernels.attention.rotary import HeadNorms
from tenantry.kernels.lora.layout import SiteShape
from tenantry.kernels.lora.table import LoraTable
from tenantry.kernels.ops import Ops
from tenantry.runtime.model.batch import Batch
from tenantry.runtime.model.config import ModelConfig
from tenantry.runtime.model.weights import DecoderWeights, LayerWeights


class Output(NamedTuple):
    """logits: fp32 [drawing rows, vocab]. finite: bool [T], whether a token's hidden state is all finite."""

    logits: Tensor
    finite: Tensor


def lora_sites(config: ModelConfig) -> dict[str, SiteShape]:
    """The fused groups of linear layers that an adapter may change, in the order the decoder meets them."""
    q, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
    return {
        "qkv": SiteShape(config.hidden, (q, kv, kv)),
        "o": SiteShape(q, (config.hidden,)),
        "gate_up": SiteShape(config.hidden, (config.intermediate, config.intermediate)),
        "down": SiteShape(config.intermediate, (config.hidden,)),
    }


class Decoder:
    """weights and pages must be of config's shapes. positions: how many the rotary tables cover."""

    def __init__(
        self,
        config: ModelConfig,
        weights: DecoderWeights,
        ops: Ops,
        pages: Sequence[LayerPages],
        table: LoraTable,
        positions: int,
        activation: torch.dtype,
    ) -> None:
        self.config = config
        self.weights = weights
        self.ops = ops
        self.pages = pages
        self.table = table
        self.activation = activation
        cos, sin = config.rope.tables(config.head_dim, positions)
        self._cos, self._sin = (t.squeeze(1).to(ops.device) for t in (cos, sin))
        self._scale = config.head_dim**-0.5
        self._q = config.heads * config.head_dim

    @torch.inference_mode()
    def forward(self, batch: Batch) -> Output:
        """Writes the batch's keys and values into their pages."""
        hidden = functional.embedding(batch.tokens, self.weights.embedding).to(self.activation)
        cos, sin = self._cos[batch.positions], self._sin[batch.positions]
        change: Tensor | None = None
        for index, layer in enumerate(self.weights.layers):
            change = self._attention(index, layer, self._norm(hidden, layer.input_norm, change), batch, cos, sin)
            change = self._mlp(index, layer, self._norm(hidden, layer.post_norm, change), batch)
        if change is not None:
            hidden += change
        finite = hidden.sum(-1).isfinite()
        drawn = self._norm(hidden[batch.last], self.weights.norm)
        return Output(self.weights.head(drawn).float(), finite)

    def _attention(
        self, index: int, layer: LayerWeights, x: Tensor, batch: Batch, cos: Tensor, sin: Tensor
    ) -> Tensor:
        """x: [T, hidden], normed. cos, sin: [T, head_dim]. Returns the change of the hidden state, [T, hidden]."""
        qkv = layer.qkv(x)
        self._adapt(x, qkv, index, "qkv", batch)
        norms = None
        if layer.q_norm is not None and layer.k_norm is not None:
            norms = HeadNorms(layer.q_norm, layer.k_norm, self.config.rms_eps)
        pages = self.pages[index]
        q = self.ops.rotate_and_write(qkv, cos, sin, pages, batch.slots, norms)
        mixed = self.ops.attention(q, pages, batch.attention, self._scale).view(-1, self._q)
        out = layer.o(mixed)
        self._adapt(mixed, out, index, "o", batch)
        return out

    def _mlp(self, index: int, layer: LayerWeights, x: Tensor, batch: Batch) -> Tensor:
        """x: [T, hidden], normed. Returns the change of the hidden state, [T, hidden]."""
        gate_up = layer.gate_up(x)
        self._adapt(x, gate_up, index, "gate_up", batch)
        inner = self.ops.silu_mul(gate_up)
        out = layer.down(inner)
        self._adapt(inner, out, index, "down", batch)
        return out

    def _adapt(self, x: Tensor, y: Tensor, index: int, site: str, batch: Batch) -> None:
        if batch.lora is not None:
            self.ops.apply_lora(x, y, index, site, batch.lora, self.table)

    def _norm(self, x: Tensor, weight: Tensor, change: Tensor | None = None) -> Tensor:
        """x += change in place, then RMSNorm over the last dimension."""
        return self.ops.add_norm(x, change, weight, self.config.rms_eps)
