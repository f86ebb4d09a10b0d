"""Medusa heads (Cai et al. 2024): head k guesses the token k + 2 places on from one hidden state, knowing no guess.

Owns the heads' weights. Layout of the published code: `{k}.{j}.linear.weight`, `{k}.{j}.linear.bias` for residual
block j of head k, and `{k}.{blocks}.weight` for its own way to the vocabulary; where those are missing the target's
head is shared. Since guesses do not depend on each other, a level is the same for every node of a row.
"""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from tenantry.kernels.ops import Ops
from tenantry.kernels.quant.linear import Linear
from tenantry.runtime.model.heads.files import HeadTensors, read_fields
from tenantry.runtime.model.heads.head import Frontier, Level, Target, Text

KIND = "medusa"


class Medusa:
    """Raises ModelUnsupported or WeightsInvalid, which names what does not fit the target."""

    kind = KIND
    pool = None
    table = None
    chain = None

    def __init__(self, directory: Path, target: Target, ops: Ops, dtype: torch.dtype) -> None:
        fields = read_fields(directory)
        fields.only("model_type", KIND)
        self.deepest = fields.size("medusa_num_heads")
        blocks = fields.size("medusa_num_layers", 1)
        hidden, vocab = target.config.hidden, target.config.vocab
        fields.only("hidden_size", hidden)
        fields.only("vocab_size", vocab)
        fields.ignore(["base_model_name_or_path", "transformers_version", "version", "architectures", "torch_dtype"])
        fields.close()
        tensors = HeadTensors(directory, ops.device)
        self.taps = (target.config.layers,)
        self._blocks: list[list[Linear]] = []
        self._heads: list[Linear] = []
        for k in range(self.deepest):
            self._blocks.append([
                ops.prepare_linear(
                    tensors.take(f"{k}.{j}.linear.weight", (hidden, hidden), dtype),
                    tensors.take(f"{k}.{j}.linear.bias", (hidden,), torch.float32),
                )
                for j in range(blocks)
            ])  # fmt: skip
            own = f"{k}.{blocks}.weight"
            known = own in tensors
            head = ops.prepare_linear(tensors.take(own, (vocab, hidden), dtype)) if known else target.weights.head
            self._heads.append(head)
        tensors.close()

    def follow(self, text: Text) -> Level:
        past = torch.tensor([len(row.tokens) for row in text.rows]).cumsum(0)
        states = text.features[past[list(text.guessing)] - 1]
        return Level(states, self._logits(states, 0))

    def expand(self, text: Text, frontier: Frontier) -> Level:
        firsts = [n for n, owner in enumerate(frontier.owner) if n == 0 or frontier.owner[n - 1] != owner]
        logits = self._logits(frontier.states[firsts], len(frontier.paths[0]))
        place = {frontier.owner[n]: i for i, n in enumerate(firsts)}
        return Level(frontier.states, logits[[place[owner] for owner in frontier.owner]])

    def _logits(self, states: Tensor, k: int) -> Tensor:
        for block in self._blocks[k]:
            states = states + functional.silu(block(states))
        return self._heads[k](states).float()
