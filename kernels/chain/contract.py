"""A small decoder that goes on from its own tokens in one call: what that is made of, and what is asked of it.

Owns the contract alone; a device without it computes the same level by level.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tenantry.kernels.attention.layout import LayerPages
from tenantry.kernels.lora.plan import LoraPlan
from tenantry.kernels.lora.table import LoraTable
from tenantry.kernels.quant.linear import Linear

SITES = ("qkv", "o", "gate_up", "down")  # where adapters may change a layer

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Words = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class ChainLayer:
    """One layer of a Llama-like decoder. Norms: fp32 [hidden], None for none before the first layer."""

    input_norm: Tensor | None
    qkv: Linear
    o: Linear
    post_norm: Tensor
    gate_up: Linear
    down: Linear
    pages: LayerPages

    @property
    def linears(self) -> tuple[Linear, ...]:
        return self.qkv, self.o, self.gate_up, self.down


class Chain(Protocol):
    def __call__(
        self,
        tokens: Ints,
        features: Floats,
        given: int,
        begins: Ints,
        ends: Ints,
        starts: Ints,
        pages: Sequence[Sequence[int]],
        keys: Words,
        temperatures: Floats,
        likely: Ints,
        chances: Floats,
        plan: LoraPlan | None,
    ) -> None:
        """Write tokens, each drawn after the one before it.

        tokens: int64 [R, N]; a row's tokens[begins:given] are there, tokens[given:ends] are to be written; the rest
        is of no use. begins < given, ends > given: int64 [R]. features: fp32 [R, given, hidden], joined with the
        given tokens' embeddings; written ones are joined with the hidden state before them. [0, 0, 0] where nothing
        is joined. starts: int64 [R], position of each row's first token; what is before lies in its pages, which have
        room for all up to its end but the last.
        keys: uint64 [R, N], of each token's draw; temperatures: fp32 [R], 0 for the likeliest. likely [R, N, W] and
        chances, fp32: for each written token the W likeliest in its place, falling, and their share of all, written
        too; W may be 0. plan: over the rows, one token each; None where none is adapted."""


class PrepareChain(Protocol):
    def __call__(
        self,
        embedding: Tensor,
        layers: Sequence[ChainLayer],
        norm: Tensor | None,
        head: Linear,
        table: LoraTable,
        angles: tuple[Tensor, Tensor],
        heads: int,
        eps: float,
        join: Linear | None = None,
    ) -> Chain | None:
        """None for sizes or storage that the device's kernels do not walk. embedding: [vocab, hidden]. norm: fp32
        [hidden], before the head. table: of adapters at SITES. angles: cos and sin, [positions, head_dim] each. join:
        [hidden, 2 * hidden], what joins embedding and feature."""


def no_chain(
    embedding: Tensor,
    layers: Sequence[ChainLayer],
    norm: Tensor | None,
    head: Linear,
    table: LoraTable,
    angles: tuple[Tensor, Tensor],
    heads: int,
    eps: float,
    join: Linear | None = None,
) -> Chain | None:
    """A device without."""
    return None
