"""What every speculative head does: follow the text, then expand a frontier of guesses, one level at a time.

Owns the protocol between heads and the proposer that drives them (proposal.py). A head computes hidden states and
logits; which guesses are kept, and where, is not its business.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from tenantry.kernels.chain.contract import Chain
from tenantry.kernels.lora.table import LoraTable
from tenantry.runtime.cache.pool import KvPool
from tenantry.runtime.model.config import ModelConfig
from tenantry.runtime.model.weights import DecoderWeights
from tenantry.runtime.plan import Row


class Target(NamedTuple):
    """What a head may share of the model that it guesses for."""

    config: ModelConfig
    weights: DecoderWeights


class Level(NamedTuple):
    """states: fp32 [N, hidden], what the next level grows from. logits: fp32 [N, vocab], of what follows."""

    states: Tensor
    logits: Tensor


@dataclass(frozen=True, slots=True)
class Text:
    """Positions of the text whose feature and next token are known now, in rows. A row's tokens are the ones that
    FOLLOW its positions: rows[r].tokens[i] stands at position rows[r].start + i + 1. features: fp32 [T, taps *
    hidden], what the target computed at those positions, row after row. guessing: rows to guess for: their last
    token is what to guess after. slots: per row, where the head's table holds its adapter, None for none."""

    rows: Sequence[Row]
    features: Tensor
    guessing: Sequence[int]
    slots: Sequence[int | None]


@dataclass(frozen=True, slots=True)
class Frontier:
    """Guesses to go on from, all at one depth. owner[n]: index into Text.guessing, rising. paths[n]: tokens from the
    guess right after the text down to this one. states: fp32 [N, hidden], of each one's parent."""

    owner: Sequence[int]
    paths: Sequence[tuple[int, ...]]
    states: Tensor


class Head(Protocol):
    """taps: hidden states of the target that it reads, see Decoder. deepest: levels that it was made for. pool: its
    own keys and values, under the target's page ids; None for a head without any. table: adapters of its layer; None
    where it has none that could be adapted. chain: its follow() and all levels of a chain in one call, which takes
    features and gives candidates; None where there is none."""

    @property
    def kind(self) -> str: ...

    @property
    def taps(self) -> tuple[int, ...]: ...

    @property
    def deepest(self) -> int: ...

    @property
    def pool(self) -> KvPool | None: ...

    @property
    def table(self) -> LoraTable | None: ...

    @property
    def chain(self) -> Chain | None: ...

    def follow(self, text: Text) -> Level:
        """Compute the text's positions; one entry for each row to guess for."""
        ...

    def expand(self, text: Text, frontier: Frontier) -> Level:
        """One entry for each guess of the frontier. text: as follow() had it just before."""
        ...
