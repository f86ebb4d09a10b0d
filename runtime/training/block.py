"""The arithmetic of heads for training: differentiable, over whole texts, with keys and values in plain tensors.

Owns a Llama layer whose queries are few among many positions, and which may look at guesses of its own. Parameters
have the names of the published checkpoints. What is served is runtime/model/heads; a test holds the two together.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from tenantry.runtime.model.config import ModelConfig

KeysValues = tuple[Tensor, Tensor]


class RmsNorm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self._eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return x * (x.square().mean(-1, keepdim=True) + self._eps).rsqrt() * self.weight


class Attention(nn.Module):
    """Grouped-query attention with rotary positions."""

    def __init__(self, config: ModelConfig, positions: int) -> None:
        super().__init__()
        q, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden, q, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.hidden, kv, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.hidden, kv, bias=config.qkv_bias)
        self.o_proj = nn.Linear(q, config.hidden, bias=False)
        self._heads, self._groups, self._dim = config.heads, config.heads // config.kv_heads, config.head_dim
        cos, sin = config.rope.tables(config.head_dim, positions)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def keys(self, x: Tensor, positions: Tensor) -> KeysValues:
        """x: [B, T, hidden], positions: [B, T]. Keys, rotated, and values: [B, T, heads, head_dim]."""
        k, v = (proj(x).unflatten(-1, (-1, self._dim)) for proj in (self.k_proj, self.v_proj))
        wide = tuple(part.repeat_interleave(self._groups, dim=2) for part in (self._rotate(k, positions), v))
        return wide[0], wide[1]

    def forward(
        self, x: Tensor, positions: Tensor, text: KeysValues, last: Tensor, own: Sequence[KeysValues]
    ) -> Tensor:
        """x: [B, M, hidden] at `positions` [B, M]. Each looks at the text up to position last [B, M], and at its own
        entry [B, M, heads, head_dim] in each of `own`. Returns [B, M, hidden]."""
        q = self._rotate(self.q_proj(x).unflatten(-1, (-1, self._dim)), positions)
        keys, values = text
        scores = torch.einsum("bmhd,bthd->bhmt", q, keys)
        unseen = torch.arange(keys.shape[1], device=x.device) > last.unsqueeze(-1)  # [B, M, T]
        scores = scores.masked_fill(unseen.unsqueeze(1), -torch.inf)
        mine = [(q * k).sum(-1).transpose(1, 2).unsqueeze(-1) for k, _ in own]  # [B, heads, M, 1] each
        weights = (torch.cat([scores, *mine], -1) * self._dim**-0.5).softmax(-1)
        length = keys.shape[1]
        out = torch.einsum("bhmt,bthd->bmhd", weights[..., :length], values)
        for i, (_, v) in enumerate(own):
            out = out + weights[..., length + i].transpose(1, 2).unsqueeze(-1) * v
        mixed: Tensor = self.o_proj(out.flatten(2))
        return mixed

    def _rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        cos, sin = self.get_buffer("cos")[positions], self.get_buffer("sin")[positions]
        return x * cos + x.roll(self._dim // 2, -1) * sin


class Mlp(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden, config.intermediate, bias=False)
        self.up_proj = nn.Linear(config.hidden, config.intermediate, bias=False)
        self.down_proj = nn.Linear(config.intermediate, config.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Block(nn.Module):
    """One decoder layer. normed: whether it has a norm before attention (EAGLE's has none)."""

    def __init__(self, config: ModelConfig, positions: int, normed: bool) -> None:
        super().__init__()
        self.self_attn = Attention(config, positions)
        self.mlp = Mlp(config)
        self.input_layernorm = RmsNorm(config.hidden, config.rms_eps) if normed else nn.Identity()
        self.post_attention_layernorm = RmsNorm(config.hidden, config.rms_eps)

    def keys(self, x: Tensor, positions: Tensor) -> KeysValues:
        """As Attention.keys, of what enters the layer."""
        found: KeysValues = self.self_attn.keys(self.input_layernorm(x), positions)
        return found

    def forward(
        self, x: Tensor, positions: Tensor, text: KeysValues, last: Tensor, own: Sequence[KeysValues] = ()
    ) -> Tensor:
        """As Attention.forward, with residuals and the MLP."""
        x = x + self.self_attn(self.input_layernorm(x), positions, text, last, own)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Mix(nn.Module):
    """Medusa's residual block: x + SiLU(Wx + b), the identity at first."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden, hidden)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + functional.silu(self.linear(x))
