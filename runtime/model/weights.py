"""Safetensors on disk to a decoder's prepared layers, one layer at a time.

Owns the names and shapes of the checkpoint's tensors and the fusing of q|k|v and gate|up. Every tensor must be
there, be of the expected shape, and be asked for; nothing is guessed. Never holds more than the model and one layer.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tenantry.kernels.ops import Ops
from tenantry.kernels.quant.linear import Linear
from tenantry.kernels.quant.schemes import Scheme, SchemeUnsupported
from tenantry.runtime.model.config import ModelConfig
from tenantry.runtime.model.errors import ModelUnsupported, WeightsInvalid

Progress = Callable[[str, int, int], None]
"""(what, done, of how many): called while something long goes on."""

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
DERIVED = "rotary_emb.inv_freq"  # old checkpoints store what the configuration says
HEAD = "lm_head.weight"


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One decoder layer. Norms are fp32; q_norm and k_norm [head_dim] are of Qwen3 only."""

    input_norm: Tensor
    qkv: Linear
    q_norm: Tensor | None
    k_norm: Tensor | None
    o: Linear
    post_norm: Tensor
    gate_up: Linear
    down: Linear

    @property
    def linears(self) -> tuple[Linear, ...]:
        return self.qkv, self.o, self.gate_up, self.down


@dataclass(frozen=True, slots=True)
class DecoderWeights:
    """embedding: [vocab, hidden] in the weights' dtype. norm: fp32 [hidden]. head: hidden to vocab."""

    embedding: Tensor
    layers: tuple[LayerWeights, ...]
    norm: Tensor
    head: Linear

    @property
    def nbytes(self) -> int:
        """Of the embedding and every matrix as it is held."""
        linears = [linear for layer in self.layers for linear in layer.linears]
        return self.embedding.nbytes + sum(linear.weight_bytes for linear in (*linears, self.head))


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of a checkpoint by name. A tied head has no tensor of its own."""
    q, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
    hidden, inner = config.hidden, config.intermediate
    linears = {
        "self_attn.q_proj": (q, hidden, config.qkv_bias),
        "self_attn.k_proj": (kv, hidden, config.qkv_bias),
        "self_attn.v_proj": (kv, hidden, config.qkv_bias),
        "self_attn.o_proj": (hidden, q, config.o_bias),
        "mlp.gate_proj": (inner, hidden, config.mlp_bias),
        "mlp.up_proj": (inner, hidden, config.mlp_bias),
        "mlp.down_proj": (hidden, inner, config.mlp_bias),
    }
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
    }
    for name, (rows, columns, bias) in linears.items():
        layer[f"{name}.weight"] = (rows, columns)
        if bias:
            layer[f"{name}.bias"] = (rows,)
    if config.qk_norm:
        layer |= {"self_attn.q_norm.weight": (config.head_dim,), "self_attn.k_norm.weight": (config.head_dim,)}
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config.vocab, hidden),
        "model.norm.weight": (hidden,),
    }
    if not config.tied:
        shapes[HEAD] = (config.vocab, hidden)
    for index in range(config.layers):
        shapes |= {f"model.layers.{index}.{name}": shape for name, shape in layer.items()}
    return shapes


class Checkpoint:
    """The safetensors files of a directory, opened and checked against what the configuration expects."""

    def __init__(self, directory: Path, expected: Mapping[str, tuple[int, ...]], tied: bool) -> None:
        """Raises WeightsInvalid naming the tensors or files at fault."""
        self._files: dict[str, Any] = {}
        with ExitStack() as stack:
            for path in _files(directory):
                try:
                    file = stack.enter_context(safe_open(path, framework="pt", device="cpu"))
                except (SafetensorError, OSError):
                    raise WeightsInvalid("cannot be read as safetensors", [path.name]) from None
                self._files |= dict.fromkeys(file.keys(), file)
            self._check(expected, tied)
            self._open = stack.pop_all()

    def _check(self, expected: Mapping[str, tuple[int, ...]], tied: bool) -> None:
        found = {name for name in self._files if not name.endswith(DERIVED) and not (tied and name == HEAD)}
        if missing := expected.keys() - found:
            raise WeightsInvalid("tensors are missing", list(missing))
        if unexpected := found - expected.keys():
            raise WeightsInvalid("tensors are not expected", list(unexpected))
        wrong = [n for n, shape in expected.items() if tuple(self._files[n].get_slice(n).get_shape()) != shape]
        if wrong:
            raise WeightsInvalid("tensors have another shape than config.json says", wrong)

    def read(self, name: str, dtype: torch.dtype) -> Tensor:
        """A copy of our own: what safetensors gives is the file itself, mapped, and would change with it."""
        tensor: Tensor = self._files[name].get_tensor(name)
        if not tensor.is_floating_point() or tensor.element_size() < 2:
            raise WeightsInvalid(f"{tensor.dtype} weights are not supported", [name])
        return tensor.to(dtype, copy=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()


def load_weights(
    directory: Path,
    config: ModelConfig,
    dtype: torch.dtype,
    ops: Ops,
    progress: Progress | None = None,
    scheme: Scheme = "native",
) -> DecoderWeights:
    """dtype: of the matrices; biases and norms are fp32. scheme: how the layers' matrices and the head are held; the
    embedding keeps its dtype, and so a tied head is a second copy. Raises WeightsInvalid, ModelUnsupported."""
    expected = expected_shapes(config)
    with Checkpoint(directory, expected, config.tied) as checkpoint:

        def vector(name: str) -> Tensor:
            return checkpoint.read(name, torch.float32).to(ops.device)

        def prepare(weight: Tensor, bias: Tensor | None, name: str) -> Linear:
            try:
                return ops.prepare_linear(weight, bias, scheme)
            except SchemeUnsupported as error:
                raise ModelUnsupported("weights", f"{name}: {error}") from None

        def linear(prefix: str, *parts: str) -> Linear:
            names = [f"{prefix}.{part}" for part in parts]
            bias = None
            if f"{names[0]}.bias" in expected:
                bias = torch.cat([vector(f"{name}.bias") for name in names])
            weight = [checkpoint.read(f"{name}.weight", dtype).to(ops.device) for name in names]
            return prepare(torch.cat(weight) if len(weight) > 1 else weight[0], bias, names[0])

        layers = []
        for index in range(config.layers):
            if progress:
                progress("weights", index, config.layers)
            at = f"model.layers.{index}"
            layers.append(
                LayerWeights(
                    input_norm=vector(f"{at}.input_layernorm.weight"),
                    qkv=linear(f"{at}.self_attn", "q_proj", "k_proj", "v_proj"),
                    q_norm=vector(f"{at}.self_attn.q_norm.weight") if config.qk_norm else None,
                    k_norm=vector(f"{at}.self_attn.k_norm.weight") if config.qk_norm else None,
                    o=linear(f"{at}.self_attn", "o_proj"),
                    post_norm=vector(f"{at}.post_attention_layernorm.weight"),
                    gate_up=linear(f"{at}.mlp", "gate_proj", "up_proj"),
                    down=linear(f"{at}.mlp", "down_proj"),
                )
            )
        embedding = checkpoint.read("model.embed_tokens.weight", dtype).to(ops.device)
        head = embedding if config.tied else checkpoint.read(HEAD, dtype).to(ops.device)
        weights = DecoderWeights(embedding, tuple(layers), vector("model.norm.weight"), prepare(head, None, HEAD))
    if progress:
        progress("weights", config.layers, config.layers)
    return weights


def _files(directory: Path) -> list[Path]:
    """The files of a sharded or a single checkpoint."""
    index = directory / INDEX
    if not index.is_file():
        return [directory / SINGLE]
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise WeightsInvalid("is not an index of shards", [INDEX]) from None
    if not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise WeightsInvalid("names files outside the model's directory", [INDEX])
    return [directory / name for name in names]
