"""The heads that can be trained: what each guesses, level after level, from features and the tokens that came.

Owns the modules, their start values and the config.json that they are served with. They must not know where texts
come from or how they are optimised. Level k of a position i guesses the token at i + 2 + k; tokens on the way are the
text's own (teacher forcing), hidden states are the head's own, as they will be when it is served (HASS, Zhang et al.
2025; EAGLE-3's training-time test).
"""

from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from tenantry.runtime.model.config import ModelConfig
from tenantry.runtime.model.rope import Rope
from tenantry.runtime.training.block import Block, KeysValues, Mix, RmsNorm


class Texts(NamedTuple):
    """features: [B, T, hidden], the target's last hidden states after its norm. tokens: int64 [B, T], padded with 0.
    at: int64 [B, M], positions to guess from; their guesses beyond a text's end are left out of every sum."""

    features: Tensor
    tokens: Tensor
    at: Tensor


class Guessed(NamedTuple):
    """states: [B, M, hidden], what the head's way to the vocabulary reads. feature: [B, M, hidden], where the head
    guesses the target's feature of one position on, else None."""

    states: Tensor
    feature: Tensor | None = None


class Trainee(Protocol):
    def guess(self, texts: Texts, levels: int) -> list[Guessed]: ...

    def logits(self, states: Tensor, level: int) -> Tensor:
        """states: [N, hidden]. Returns [N, vocab]."""
        ...

    def described(self) -> dict[str, Any]:
        """The config.json to serve it with."""
        ...


class Shared(NamedTuple):
    """What heads take from the target, never trained: embedding and head, fp32 [vocab, hidden]."""

    embedding: Tensor
    head: Tensor


def take(values: Tensor, at: Tensor) -> Tensor:
    """values: [B, T, ...] at positions `at` [B, M], those beyond the end as the last: [B, M, ...]."""
    rows = torch.arange(len(at), device=at.device).unsqueeze(1)
    return values[rows, at.clamp(max=values.shape[1] - 1)]


class MedusaTrainee(nn.Sequential):
    """own_heads: a way to the vocabulary for each head, started from the target's; else they share the target's."""

    def __init__(self, config: ModelConfig, shared: Shared, levels: int, own_heads: bool) -> None:
        super().__init__()
        self._shared, self._config = shared, config
        for _ in range(levels):
            parts: list[nn.Module] = [Mix(config.hidden)]
            if own_heads:
                own = nn.Linear(config.hidden, config.vocab, bias=False)
                own.weight.data.copy_(shared.head)
                parts.append(own)
            self.append(nn.Sequential(*parts))

    def guess(self, texts: Texts, levels: int) -> list[Guessed]:
        feature = take(texts.features, texts.at)
        return [Guessed(self._parts(level)[0](feature)) for level in range(levels)]

    def logits(self, states: Tensor, level: int) -> Tensor:
        parts = self._parts(level)
        out: Tensor = parts[1](states) if len(parts) > 1 else functional.linear(states, self._shared.head)
        return out

    def _parts(self, level: int) -> Any:
        return list(self.children())[level]

    def described(self) -> dict[str, Any]:
        return {
            "model_type": "medusa", "medusa_num_heads": len(self), "medusa_num_layers": 1,
            "hidden_size": self._config.hidden, "vocab_size": self._config.vocab,
        }  # fmt: skip


class EagleTrainee(nn.Module):
    """EAGLE's first generation: feature and token in, feature out, the target's head on it. fc starts as the feature
    alone."""

    def __init__(self, config: ModelConfig, shared: Shared, positions: int) -> None:
        super().__init__()
        self._shared, self._config = shared, config
        self.fc = nn.Linear(2 * config.hidden, config.hidden)
        self.layers = nn.ModuleList([Block(config, positions, normed=False)])
        with torch.no_grad():
            self.fc.bias.zero_()
            self.fc.weight[:, config.hidden :] = torch.eye(config.hidden)

    def guess(self, texts: Texts, levels: int) -> list[Guessed]:
        layer: Any = self.layers[0]
        embedded = functional.embedding(texts.tokens, self._shared.embedding)
        following = torch.cat((embedded[:, 1:], embedded[:, -1:]), 1)
        positions = torch.arange(texts.tokens.shape[1], device=embedded.device).expand(texts.tokens.shape)
        x = self.fc(torch.cat((following, texts.features), -1))
        text: KeysValues = layer.keys(x, positions)
        states = layer(take(x, texts.at), texts.at, text, texts.at)
        found, own = [Guessed(states, states)], []
        for level in range(1, levels):
            token = take(embedded, texts.at + 1 + level)
            mine = self.fc(torch.cat((token, states), -1))
            own.append(layer.keys(mine, texts.at + level))
            states = layer(mine, texts.at + level, text, texts.at, own)
            found.append(Guessed(states, states))
        return found

    def logits(self, states: Tensor, level: int) -> Tensor:
        return functional.linear(states, self._shared.head)

    def described(self) -> dict[str, Any]:
        return describe_layer(self._config)


class CloverTrainee(nn.Module):
    """Clover's block, attention decoder, and residual block; see runtime/model/heads/clover.py."""

    def __init__(self, config: ModelConfig, shared: Shared, positions: int, levels: int) -> None:
        super().__init__()
        self._shared, self._config, self._levels = shared, config, levels
        hidden = config.hidden
        self.layers = nn.ModuleList([Block(config, positions, normed=True)])
        self.decoder = nn.Module()
        for part in ("q_proj", "k_proj", "v_proj", "o_proj"):
            self.decoder.add_module(part, nn.Linear(hidden, hidden, bias=False))
        self.decoder.add_module("norm", RmsNorm(hidden, config.rms_eps))
        self.decoder.register_parameter("distance", nn.Parameter(torch.zeros(config.heads, levels)))
        self.mix = Mix(hidden)
        self.norm = RmsNorm(hidden, config.rms_eps)

    def guess(self, texts: Texts, levels: int) -> list[Guessed]:
        layer: Any = self.layers[0]
        decoder: Any = self.decoder
        positions = torch.arange(texts.tokens.shape[1], device=texts.tokens.device).expand(texts.tokens.shape)
        text: KeysValues = layer.keys(texts.features, positions)
        states = layer(take(texts.features, texts.at), texts.at, text, texts.at)
        embedded = functional.embedding(texts.tokens, self._shared.embedding)
        heads = self._config.heads
        every = [proj(embedded).unflatten(-1, (heads, -1)) for proj in (decoder.k_proj, decoder.v_proj)]
        keys: list[Tensor] = []
        values: list[Tensor] = []
        found = []
        for level in range(levels):
            keys.append(take(every[0], texts.at + 1 + level))
            values.append(take(every[1], texts.at + 1 + level))
            q = decoder.q_proj(decoder.norm(states)).unflatten(-1, (heads, -1)).unsqueeze(2)
            k, v = torch.stack(keys, 2), torch.stack(values, 2)  # [B, M, level + 1, heads, dim]
            scores = (q * k).sum(-1) * q.shape[-1] ** -0.5 + decoder.distance[:, : level + 1].flip(1).T
            seen = (scores.softmax(2).unsqueeze(-1) * v).sum(2).flatten(2)
            states = self.mix(states + decoder.o_proj(seen))
            found.append(Guessed(self.norm(states)))
        return found

    def logits(self, states: Tensor, level: int) -> Tensor:
        return functional.linear(states, self._shared.head)

    def described(self) -> dict[str, Any]:
        return describe_layer(self._config) | {"clover_levels": self._levels}


def describe_layer(config: ModelConfig) -> dict[str, Any]:
    """A head's decoder layer as Hugging Face describes a Llama of one layer."""
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 1,
        "hidden_size": config.hidden, "intermediate_size": config.intermediate, "head_dim": config.head_dim,
        "num_attention_heads": config.heads, "num_key_value_heads": config.kv_heads, "vocab_size": config.vocab,
        "rms_norm_eps": config.rms_eps, "rope_theta": config.rope.theta,
        "max_position_embeddings": config.max_context, "hidden_act": "silu", "tie_word_embeddings": False,
    }  # fmt: skip


def head_config(target: ModelConfig, intermediate: int) -> ModelConfig:
    """The shape of a head's decoder layer: the target's, as a plain Llama layer. intermediate: of its MLP."""
    return replace(
        target, family="llama", layers=1, intermediate=intermediate, rope=Rope(target.rope.theta), qkv_bias=False,
        o_bias=False, mlp_bias=False, qk_norm=False, tied=False, end_tokens=(),
    )  # fmt: skip
