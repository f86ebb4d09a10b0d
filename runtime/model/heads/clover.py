"""A Clover-style regressive head (Xiao et al. 2024, both papers): guesses extend one vector, not a layer over pages.

Owns the head's weights and its block's pages. A transformer block over all of the target's last hidden states brings
global information and bends them from the next token to the ones after it (the augmenting block). Guesses extend one
vector: an attention decoder lets it look at the tokens guessed so far, a residual block mixes, and the target's own
head reads it. Layout: `layers.0` as Llama's, `decoder.{q,k,v,o}_proj.weight`, `decoder.norm.weight`,
`decoder.distance` [heads, levels], `mix.linear.{weight,bias}`, `norm.weight`.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from tenantry.kernels.attention.layout import PageLayout
from tenantry.kernels.lora.table import LoraTable
from tenantry.kernels.ops import Ops
from tenantry.kernels.quant.linear import Linear
from tenantry.runtime.model.batch import Batch, row_lengths
from tenantry.runtime.model.config import ModelConfig
from tenantry.runtime.model.decoder import lora_sites
from tenantry.runtime.model.heads.files import HeadTensors, read_fields
from tenantry.runtime.model.heads.head import Frontier, Level, Target, Text
from tenantry.runtime.model.heads.layer_files import check, own_pool, take_layer
from tenantry.runtime.model.layer import Layers

KIND = "clover"
PARTS = ("q_proj", "k_proj", "v_proj", "o_proj")


class Clover:
    """layout: of the target's pages. positions: how many the rotary tables cover. Raises ModelUnsupported or
    WeightsInvalid, which names what does not fit the target."""

    kind = KIND
    chain = None

    def __init__(
        self,
        directory: Path,
        target: Target,
        ops: Ops,
        layout: PageLayout,
        pages: int,
        dtype: torch.dtype,
        positions: int,
    ) -> None:
        fields = read_fields(directory)
        self.deepest = fields.size("clover_levels")
        config = ModelConfig.from_fields(fields, directory)
        hidden = config.hidden
        check(config, target.config)
        tensors = HeadTensors(directory, ops.device)
        self.taps = (target.config.layers,)
        self._layer = take_layer(tensors, "layers.0", config, dtype, ops, hidden, normed=True)

        def square(name: str, bias: bool = False) -> Linear:
            weight = tensors.take(f"{name}.weight", (hidden, hidden), dtype)
            return ops.prepare_linear(
                weight, tensors.take(f"{name}.bias", (hidden,), torch.float32) if bias else None
            )

        self._q, self._k, self._v, self._o = (square(f"decoder.{part}") for part in PARTS)
        self._mix = square("mix.linear", bias=True)
        self._query_norm = tensors.take("decoder.norm.weight", (hidden,), torch.float32)
        self._distance = tensors.take("decoder.distance", (config.heads, self.deepest), torch.float32)
        self._norm = tensors.take("norm.weight", (hidden,), torch.float32)
        tensors.close()
        self.pool = own_pool(config, layout, pages, ops.device)
        self.table = LoraTable(1, lora_sites(config), dtype, ops.device)
        self._layers = Layers(config, (self._layer,), ops, self.pool.layers, self.table, positions)
        self._embedding, self._head = target.weights.embedding, target.weights.head
        self._heads, self._device = config.heads, ops.device

    @torch.inference_mode()
    def follow(self, text: Text) -> Level:
        slots = text.slots
        lora = self.table.plan(slots, row_lengths(text.rows)) if any(s is not None for s in slots) else None
        batch = Batch.build(text.rows, self.pool.layout.page_size, lora, self._device)
        cos, sin = self._layers.angles(batch)
        hidden, norm = text.features.clone(), self._layers.norm
        change = self._layers.attend(0, norm(hidden, self._layer.input_norm), batch, cos, sin)
        change = self._layers.mlp(0, norm(hidden, self._layer.post_norm, change), batch)
        past = torch.tensor(row_lengths(text.rows)).cumsum(0)
        states = (hidden + change)[past[list(text.guessing)] - 1]
        if not text.guessing:
            return Level(states, states[:, :0])
        return self._extend(states, [text.rows[r].tokens[-1:] for r in text.guessing])

    @torch.inference_mode()
    def expand(self, text: Text, frontier: Frontier) -> Level:
        roots = [text.rows[r].tokens[-1] for r in text.guessing]
        paths = [(roots[owner], *path) for owner, path in zip(frontier.owner, frontier.paths, strict=True)]
        return self._extend(frontier.states, paths)

    def _extend(self, states: Tensor, paths: Sequence[Sequence[int]]) -> Level:
        """The attention decoder: each state looks at its own path, nearer and farther tokens by a learned bias."""
        tokens = functional.embedding(torch.tensor(paths, device=self._device), self._embedding).float()
        n, length, hidden = tokens.shape
        flat = tokens.view(-1, hidden)
        q = self._q(self._layers.norm(states, self._query_norm)).view(n, 1, self._heads, -1)
        k, v = (linear(flat).view(n, length, self._heads, -1) for linear in (self._k, self._v))
        scores = (q * k).sum(-1) * q.shape[-1] ** -0.5 + self._distance[:, :length].flip(1).T
        seen = (scores.softmax(1).unsqueeze(-1) * v).sum(1).reshape(n, hidden)
        states = states + self._o(seen)
        states = states + functional.silu(self._mix(states))
        return Level(states, self._head(self._layers.norm(states, self._norm)).float())
