"""EAGLE heads (Li et al. 2024, 2025): one decoder layer that guesses the target's next feature, and a token from it.

Owns the head's weights and its layer's pages. Loads what the published code saves: EAGLE's `fc`, `layers.0` without a
norm before it and the target's own head; EAGLE-3's `fc` over three of the target's hidden states, `midlayer`, `norm`,
`lm_head` over a vocabulary of its own and `d2t` (how far each of its ids is from the target's). Position i of its KV
holds the target's feature of position i together with the token at i + 1, as there.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from tenantry.kernels.attention.layout import PageLayout
from tenantry.kernels.chain.contract import Chain, ChainLayer
from tenantry.kernels.lora.plan import LoraPlan
from tenantry.kernels.lora.table import LoraTable
from tenantry.kernels.ops import Ops
from tenantry.runtime.model.batch import Batch, row_lengths
from tenantry.runtime.model.config import ModelConfig
from tenantry.runtime.model.decoder import lora_sites
from tenantry.runtime.model.errors import ModelUnsupported
from tenantry.runtime.model.heads.expansion import Expansion
from tenantry.runtime.model.heads.files import HeadTensors, read_fields
from tenantry.runtime.model.heads.head import Frontier, Level, Target, Text
from tenantry.runtime.model.heads.layer_files import check, own_pool, take_layer
from tenantry.runtime.model.layer import Layers
from tenantry.runtime.model.levels import Levels
from tenantry.runtime.plan import Row

KIND = "eagle"
DEEPEST = 8  # the published code expands 5 to 8 levels; nothing in the weights says how many
EMBEDDING, HEAD, IDS = "embed_tokens.weight", "lm_head.weight", "d2t"
FIRST, THIRD = "layers.0", "midlayer"  # where the two generations keep their layer


class Eagle:
    """layout: of the target's pages. positions: how many the rotary tables cover. Raises ModelUnsupported or
    WeightsInvalid, which names what does not fit the target."""

    kind = KIND
    deepest = DEEPEST

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
        draft_vocab = fields.size("draft_vocab_size", target.config.vocab)
        fields.only("target_hidden_size", target.config.hidden)
        fields.ignore(["bias"])  # which layers have one, the tensors say
        config = ModelConfig.from_fields(fields, directory)
        hidden, last = config.hidden, target.config.layers
        check(config, target.config)
        tensors = HeadTensors(directory, ops.device)
        third = f"{THIRD}.hidden_norm.weight" in tensors
        if third and last < 3:
            raise ModelUnsupported("num_hidden_layers", "EAGLE-3 reads a target of three layers or more")
        self.taps = (2, last // 2, last - 3) if third else (last,)

        def vector(name: str) -> Tensor:
            return tensors.take(name, (hidden,), torch.float32)

        at, columns = (THIRD, 2 * hidden) if third else (FIRST, hidden)
        self._layer = take_layer(tensors, at, config, dtype, ops, columns, normed=third)
        self._hidden_norm = vector(f"{THIRD}.hidden_norm.weight") if third else None
        self._norm = vector("norm.weight") if third else None
        bias = vector("fc.bias") if "fc.bias" in tensors else None
        joined = len(self.taps) * hidden if third else 2 * hidden
        self._fc = ops.prepare_linear(tensors.take("fc.weight", (hidden, joined), dtype), bias)
        self._embedding, self._head, self._ids = target.weights.embedding, target.weights.head, None
        if EMBEDDING in tensors:
            self._embedding = tensors.take(EMBEDDING, (config.vocab, hidden), dtype)
        if HEAD in tensors:
            self._head = ops.prepare_linear(tensors.take(HEAD, (draft_vocab, hidden), dtype))
        if IDS in tensors:
            self._ids = tensors.take(IDS, (draft_vocab,), torch.int64) + torch.arange(draft_vocab, device=ops.device)
            if not 0 <= int(self._ids.min()) <= int(self._ids.max()) < config.vocab:
                raise ModelUnsupported(IDS, "leads to tokens that the target does not have")
        elif draft_vocab != config.vocab:
            raise ModelUnsupported("draft_vocab_size", f"without {IDS} nothing says which tokens the head knows")
        tensors.ignore(["t2d"])  # the inverse of d2t
        tensors.close()
        self.pool = own_pool(config, layout, pages, ops.device)
        table = LoraTable(1, lora_sites(config), dtype, ops.device)
        self.table = None if third else table  # q, k and v of the third generation are wider than adapters know
        self._layers = Layers(config, (self._layer,), ops, self.pool.layers, table, positions)
        self._vocab, self._device = config.vocab, ops.device
        self._levels: Levels | None = None
        self.chain: Chain | None = None
        if not third and self._ids is None:
            w, angles = self._layer, self._layers.tables
            layer = ChainLayer(None, w.qkv, w.o, w.post_norm, w.gate_up, w.down, self.pool.layers[0])
            self.chain = ops.prepare_chain(
                self._embedding, [layer], None, self._head, table, angles, config.heads, config.rms_eps, self._fc
            )

    @torch.inference_mode()
    def follow(self, text: Text) -> Level:
        inputs = self._inputs(text.features)
        past = torch.tensor(row_lengths(text.rows)).cumsum(0)
        ends = past[list(text.guessing)] - 1
        self._expansion, self._read = Expansion(text, ahead=0), [[inputs[end : end + 1]] for end in ends.tolist()]
        self._levels, self._going = None, list(range(len(text.guessing)))
        return self._level(self._forward(text.rows, text.slots, inputs)[ends])

    @torch.inference_mode()
    def expand(self, text: Text, frontier: Frontier) -> Level:
        for n, owner in enumerate(frontier.owner):
            self._read[owner].append(frontier.states[n : n + 1])
        self._expansion.add(frontier)
        if self._expansion.chains(frontier.owner):
            return self._level(self._compute(self._next(text, frontier), frontier.states))
        work = self._expansion.work(frontier)
        inputs = [
            entry
            for owner, whole in zip(work.owners, work.whole, strict=True)
            for entry in (self._read[owner] if whole else self._read[owner][-1:])
        ]
        slots = [text.slots[text.guessing[owner]] for owner in work.owners]
        return self._level(self._forward(work.rows, slots, torch.cat(inputs))[work.wanted])

    def _next(self, text: Text, frontier: Frontier) -> Batch:
        """One guess further for each of the frontier's rows, by the last level's plan where they are the same."""
        owners = list(frontier.owner)
        if self._levels is None or owners != self._going:
            rows = [text.rows[text.guessing[owner]] for owner in owners]
            starts = [row.start + len(row.tokens) + len(frontier.paths[0]) - 1 for row in rows]
            size, pages = self.pool.layout.page_size, [row.pages for row in rows]
            most = min(DEEPEST, *(len(p) * size - start for p, start in zip(pages, starts, strict=True)))
            slots = [text.slots[text.guessing[owner]] for owner in owners]
            lora = self._lora(slots, [1] * len(rows))
            self._levels, self._going = Levels(starts, pages, most, size, self._device, lora), owners
        return self._levels.next([path[-1] for path in frontier.paths])

    def _inputs(self, features: Tensor) -> Tensor:
        """The target's features as the layer takes them, and as it gives them: [T, hidden]."""
        return features if self._hidden_norm is None else self._fc(features)

    def _forward(self, rows: Sequence[Row], slots: Sequence[int | None], inputs: Tensor) -> Tensor:
        """inputs: [T, hidden], of the target or guessed. Returns [T, hidden]."""
        lora = self._lora(slots, row_lengths(rows))
        return self._compute(Batch.build(rows, self.pool.layout.page_size, lora, self._device), inputs)

    def _lora(self, slots: Sequence[int | None], lengths: Sequence[int]) -> LoraPlan | None:
        if self.table is None or all(slot is None for slot in slots):
            return None
        return self.table.plan(slots, lengths)

    def _compute(self, batch: Batch, inputs: Tensor) -> Tensor:
        tokens = functional.embedding(batch.tokens, self._embedding).float()
        cos, sin = self._layers.angles(batch)
        norm = self._layers.norm
        if self._hidden_norm is None:
            x = hidden = self._fc(torch.cat((tokens, inputs), -1))
        else:
            hidden = inputs.clone()
            x = torch.cat((norm(tokens, self._layer.input_norm), norm(hidden, self._hidden_norm)), -1)
        change = self._layers.attend(0, x, batch, cos, sin)
        change = self._layers.mlp(0, norm(hidden, self._layer.post_norm, change), batch)
        return hidden + change

    def _level(self, states: Tensor) -> Level:
        logits = self._head(states if self._norm is None else self._layers.norm(states, self._norm)).float()
        if self._ids is not None:
            known = logits
            logits = logits.new_full((len(known), self._vocab), -torch.inf)  # other tokens are never guessed
            logits[:, self._ids] = known
        return Level(states, logits)
