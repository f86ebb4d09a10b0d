"""The forward pass of a Llama-like decoder over one ragged batch, every adapter and the base at once.

Owns the order of layers, and what the outside may see of the hidden states between them. It must not know plans,
requests, adapters' names or how weights were loaded.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tenantry.kernels.attention.layout import LayerPages
from tenantry.kernels.chain.contract import Chain, ChainLayer
from tenantry.kernels.lora.layout import SiteShape
from tenantry.kernels.lora.table import LoraTable
from tenantry.kernels.ops import Ops
from tenantry.runtime.model.batch import Batch
from tenantry.runtime.model.config import ModelConfig
from tenantry.runtime.model.layer import Layers
from tenantry.runtime.model.weights import DecoderWeights


class Output(NamedTuple):
    """logits: fp32 [drawing rows, vocab]. finite: bool [T], whether a token's hidden state is all finite.
    taps: fp32 [T, taps * hidden], the hidden states that were asked for, side by side."""

    logits: Tensor
    finite: Tensor
    taps: Tensor


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
    """weights and pages must be of config's shapes. positions: how many the rotary tables cover. taps: hidden states
    to hand out: i is what enters layer i, config.layers what leaves the last norm. kept: layers that are computed, in
    order; all by default."""

    def __init__(
        self,
        config: ModelConfig,
        weights: DecoderWeights,
        ops: Ops,
        pages: Sequence[LayerPages],
        table: LoraTable,
        positions: int,
        activation: torch.dtype,
        taps: Sequence[int] = (),
        kept: Sequence[int] | None = None,
    ) -> None:
        self.config = config
        self.weights = weights
        self.ops = ops
        self.pages = pages
        self.table = table
        self.activation = activation
        self.taps = tuple(taps)
        self.kept = tuple(range(config.layers) if kept is None else kept)
        self._layers = Layers(config, weights.layers, ops, pages, table, positions)

    def chain(self) -> Chain | None:
        """These layers as what goes on from its own tokens in one call; None where the device has no such call."""
        weights, config = self.weights, self.config
        if config.qk_norm or len(self.kept) < config.layers:
            return None
        layers = [
            ChainLayer(w.input_norm, w.qkv, w.o, w.post_norm, w.gate_up, w.down, pages)
            for w, pages in zip(weights.layers, self.pages, strict=True)
        ]
        angles, heads, eps = self._layers.tables, config.heads, config.rms_eps
        return self.ops.prepare_chain(
            weights.embedding, layers, weights.norm, weights.head, self.table, angles, heads, eps
        )

    @torch.inference_mode()
    def forward(self, batch: Batch) -> Output:
        """Writes the batch's keys and values into their pages."""
        layers, weights = self._layers, self.weights
        hidden = functional.embedding(batch.tokens, weights.embedding).to(self.activation)
        cos, sin = layers.angles(batch)
        change: Tensor | None = None
        tapped: dict[int, Tensor] = {}
        for index in self.kept:
            layer = weights.layers[index]
            x = layers.norm(hidden, layer.input_norm, change)
            if index in self.taps:
                tapped[index] = hidden.to(torch.float32, copy=True)  # what comes is added in place
            change = layers.attend(index, x, batch, cos, sin)
            change = layers.mlp(index, layers.norm(hidden, layer.post_norm, change), batch)
        if change is not None:
            hidden += change
        finite = hidden.sum(-1).isfinite()
        if len(weights.layers) in self.taps:
            normed = layers.norm(hidden, weights.norm)
            tapped[len(weights.layers)] = normed.float()
            drawn = normed[batch.last]
        else:
            drawn = layers.norm(hidden[batch.last], weights.norm)
        taps = torch.cat([tapped[index] for index in self.taps], -1) if self.taps else hidden[:, :0]
        return Output(weights.head(drawn).float(), finite, taps)
