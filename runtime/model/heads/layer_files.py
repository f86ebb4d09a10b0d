"""What heads with a decoder layer have in common: its weights under Llama's names, its pages, its adapters' sites.

Owns the fusing of q|k|v and gate|up for heads, and the check that a head was made for this target.
"""

import torch
from torch import Tensor

from tenantry.kernels.attention.layout import PageLayout
from tenantry.kernels.ops import Ops
from tenantry.kernels.quant.linear import Linear
from tenantry.runtime.cache.pool import KvPool
from tenantry.runtime.model.config import ModelConfig
from tenantry.runtime.model.errors import ModelUnsupported
from tenantry.runtime.model.heads.files import HeadTensors
from tenantry.runtime.model.weights import LayerWeights

NO_NORM = torch.ones(0)  # in place of a norm that a layer does not have


def take_layer(
    tensors: HeadTensors, at: str, config: ModelConfig, dtype: torch.dtype, ops: Ops, columns: int, normed: bool
) -> LayerWeights:
    """at: the layer's prefix. columns: how wide what q, k and v read is. normed: whether there is a norm before
    attention. Biases are taken where they are. Raises WeightsInvalid."""
    hidden, inner = config.hidden, config.intermediate
    q, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim

    def linear(rows: dict[str, int], columns: int) -> Linear:
        weights = [tensors.take(f"{at}.{name}.weight", (r, columns), dtype) for name, r in rows.items()]
        bias = None
        if all(f"{at}.{name}.bias" in tensors for name in rows):
            bias = torch.cat([tensors.take(f"{at}.{name}.bias", (r,), torch.float32) for name, r in rows.items()])
        return ops.prepare_linear(torch.cat(weights), bias)

    def norm(name: str) -> Tensor:
        return tensors.take(f"{at}.{name}.weight", (hidden,), torch.float32)

    return LayerWeights(
        input_norm=norm("input_layernorm") if normed else NO_NORM,
        qkv=linear({"self_attn.q_proj": q, "self_attn.k_proj": kv, "self_attn.v_proj": kv}, columns),
        q_norm=None,
        k_norm=None,
        o=linear({"self_attn.o_proj": hidden}, q),
        post_norm=norm("post_attention_layernorm"),
        gate_up=linear({"mlp.gate_proj": inner, "mlp.up_proj": inner}, hidden),
        down=linear({"mlp.down_proj": hidden}, inner),
    )


def check(config: ModelConfig, target: ModelConfig) -> None:
    """Raises ModelUnsupported for a head of another model."""
    if (config.layers, config.hidden, config.vocab) != (1, target.hidden, target.vocab):
        asked = f"one layer of {target.hidden} and {target.vocab} tokens"
        raise ModelUnsupported("hidden_size", f"the head is not {asked}, as the target has them")
    if config.qk_norm:
        raise ModelUnsupported("model_type", "heads have no norms of queries and keys")


def own_pool(config: ModelConfig, layout: PageLayout, pages: int, device: str) -> KvPool:
    """Pages of a head's layer, under the ids of the target's, whose layout is given."""
    own = PageLayout(
        config.kv_heads, config.head_dim, layout.page_size, dtype=layout.dtype, scale_dtype=layout.scale_dtype
    )
    return KvPool(own, config.layers, pages, device)
