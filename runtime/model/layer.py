"""One decoder layer over paged keys and values: the arithmetic that the model and every head with a layer share.

Owns a layer's attention and MLP with the adapters that change them. It must not know plans, or what stands before and
after one. Attention reads keys and values back from their pages in every step, so that a
prefix found in the cache and one computed just now give the same numbers.
"""

from collections.abc import Sequence

from torch import Tensor

from tenantry.kernels.attention.layout import LayerPages
from tenantry.kernels.attention.rotary import HeadNorms
from tenantry.kernels.lora.table import LoraTable
from tenantry.kernels.ops import Ops
from tenantry.kernels.quant.linear import Linear
from tenantry.runtime.model.batch import Batch
from tenantry.runtime.model.config import ModelConfig
from tenantry.runtime.model.weights import LayerWeights


class Layers:
    """layers, pages: one entry each per layer, of config's shapes. positions: how many the rotary tables cover."""

    def __init__(
        self,
        config: ModelConfig,
        layers: Sequence[LayerWeights],
        ops: Ops,
        pages: Sequence[LayerPages],
        table: LoraTable,
        positions: int,
    ) -> None:
        self.config, self.ops, self.table = config, ops, table
        self._layers, self._pages = layers, pages
        cos, sin = config.rope.tables(config.head_dim, positions)
        self._cos, self._sin = (t.squeeze(1).to(ops.device) for t in (cos, sin))
        self._scale = config.head_dim**-0.5
        self._q = config.heads * config.head_dim

    @property
    def tables(self) -> tuple[Tensor, Tensor]:
        """cos and sin of every position, [positions, head_dim] each."""
        return self._cos, self._sin

    def angles(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """cos and sin of the batch's positions, [T, head_dim] each: the same for all layers."""
        return self._cos[batch.positions], self._sin[batch.positions]

    def attend(self, index: int, x: Tensor, batch: Batch, cos: Tensor, sin: Tensor) -> Tensor:
        """x: [T, in], normed. Writes keys and values. Returns the change of the hidden state, [T, hidden]."""
        layer, pages = self._layers[index], self._pages[index]
        if batch.lora is not None:
            batch.lora.wait(index)
        qkv = self._project(layer.qkv, x, index, "qkv", batch)
        norms = None
        if layer.q_norm is not None and layer.k_norm is not None:
            norms = HeadNorms(layer.q_norm, layer.k_norm, self.config.rms_eps)
        q = self.ops.rotate_and_write(qkv, cos, sin, pages, batch.slots, norms)
        mixed = self.ops.attention(q, pages, batch.attention, self._scale).view(-1, self._q)
        return self._project(layer.o, mixed, index, "o", batch)

    def mlp(self, index: int, x: Tensor, batch: Batch) -> Tensor:
        """x: [T, hidden], normed. Returns the change of the hidden state, [T, hidden]."""
        layer = self._layers[index]
        inner = self.ops.silu_mul(self._project(layer.gate_up, x, index, "gate_up", batch))
        return self._project(layer.down, inner, index, "down", batch)

    def norm(self, x: Tensor, weight: Tensor, change: Tensor | None = None) -> Tensor:
        """x += change in place, then RMSNorm over the last dimension."""
        return self.ops.add_norm(x, change, weight, self.config.rms_eps)

    def _project(self, linear: Linear, x: Tensor, index: int, site: str, batch: Batch) -> Tensor:
        if batch.lora is None:
            return linear(x)
        return self.ops.project(linear, x, index, site, batch.lora, self.table)
