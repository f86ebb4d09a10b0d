"""The draft model: a small decoder of the same tokenizer that guesses what the target will draw (Leviathan 2023).

Owns its weights, its KV (its own layers of the same page ids, so that a shared prefix is shared for it too) and how
far into each sequence that KV is its own. Guesses are drawn as the target draws: same sampling, same noise, which
makes them agree more often than the likeliest token would (runtime.md 6g). A wrong KV here can only make guesses
worse, never a text wrong.
"""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from tenantry.kernels.attention.layout import PageLayout
from tenantry.kernels.lora.table import LoraTable
from tenantry.kernels.ops import Ops
from tenantry.runtime.cache.pool import KvPool
from tenantry.runtime.model.batch import Batch
from tenantry.runtime.model.config import ModelConfig
from tenantry.runtime.model.decoder import Decoder, lora_sites
from tenantry.runtime.model.errors import ModelUnsupported
from tenantry.runtime.model.proposer import Proposal
from tenantry.runtime.model.sampler import penalises, spec_of
from tenantry.runtime.model.weights import Progress, load_weights
from tenantry.runtime.plan import Draw, Row, RowResult, after
from tenantry.runtime.speculative.tree import DraftTree

KIND = "draft"
REMEMBERED = 4096  # sequences whose own KV is known; of others all before the row is believed


class Drafter:
    """directory: the draft model's. target: what it guesses for. The rest as the target has it."""

    taps: tuple[int, ...] = ()

    def __init__(
        self,
        directory: Path,
        target: ModelConfig,
        ops: Ops,
        layout: PageLayout,
        pages: int,
        dtype: torch.dtype,
        positions: int,
        progress: Progress | None = None,
    ) -> None:
        config = ModelConfig.from_directory(directory)
        if config.vocab != target.vocab:
            raise ModelUnsupported("vocab_size", f"the draft model has {config.vocab} tokens, not {target.vocab}")
        if config.max_context < positions:
            raise ModelUnsupported("max_context", f"the draft model has only {config.max_context} positions")
        own = PageLayout(
            config.kv_heads, config.head_dim, layout.page_size, dtype=layout.dtype, scale_dtype=layout.scale_dtype
        )
        activation = torch.float32 if ops.device == "cpu" else dtype
        self.pool = KvPool(own, config.layers, pages, ops.device)
        weights = load_weights(directory, config, dtype, ops, progress)
        table = LoraTable(config.layers, lora_sites(config), dtype, ops.device)
        self._decoder = Decoder(config, weights, ops, self.pool.layers, table, positions, activation)
        self._ops = ops
        self._known: OrderedDict[int, int] = OrderedDict()

    def follow(self, rows: Sequence[Row], results: Sequence[RowResult], taps: Tensor | None) -> list[Proposal | None]:
        """Compute what the target just did, then guess as far ahead as each row asks. Aligned with rows."""
        for row, result in zip(rows, results, strict=True):
            if row.sequence in self._known:
                self._known[row.sequence] = min(self._known[row.sequence], _own_end(row, result))
        alive = [i for i, result in enumerate(results) if result.fault is None and _wanted(rows[i])]
        if not alive:
            return [None] * len(rows)
        caught_up = [self._behind(rows[i], results[i]) for i in alive]
        logits = self._forward(caught_up)
        draws = [row.draw for row in caught_up]
        guesses: list[list[int]] = [[] for _ in alive]
        going = [j for j, i in enumerate(alive) if rows[i].ahead > 0 and draws[j] is not None]
        while going:
            nexts = [after(d, guesses[j], penalises(d.sampling)) for j in going if (d := draws[j]) is not None]
            drawn = self._ops.sample(logits, [spec_of(draw) for draw in nexts])
            for j, token in zip(going, drawn.ids, strict=True):
                guesses[j].append(token)
            going = [j for j in going if guesses[j][-1] >= 0 and len(guesses[j]) < rows[alive[j]].ahead]
            if going:
                logits = self._forward([self._next(caught_up[j], draws[j], guesses[j]) for j in going])
        found: list[Proposal | None] = [None] * len(rows)
        for j, i in enumerate(alive):
            tokens = guesses[j][:-1] if guesses[j] and guesses[j][-1] < 0 else guesses[j]
            self._remember(caught_up[j], max(0, len(tokens) - 1))
            if tokens:
                found[i] = Proposal(DraftTree.chain(tokens, kind=KIND))
        return found

    def _behind(self, row: Row, result: RowResult) -> Row:
        """The tokens that the target has now and this model has not, which it draws after if a guess is asked for."""
        if row.draw is None:
            return Row(row.sequence, row.tokens, row.start, row.pages, None, None)
        own = self._known.get(row.sequence, row.start)
        text = [*row.draw.history, *result.tokens]
        if not row.ahead:  # its pages may end here
            stop = row.start + len(row.tokens) + result.accepted
            own = min(own, stop - 1)
            return Row(row.sequence, text[own:stop], own, row.pages, None, None)
        own = min(own, len(text) - 1)
        return Row(row.sequence, text[own:], own, row.pages, None, after(_plain(row.draw), result.tokens))

    def _next(self, row: Row, draw: Draw | None, guesses: Sequence[int]) -> Row:
        assert draw is not None
        place = draw.position + len(guesses) - 1
        return Row(row.sequence, (guesses[-1],), place, row.pages, None, draw)

    def _remember(self, row: Row, guessed: int) -> None:
        """Positions before this are computed: those of the text, and of guesses that were followed by another."""
        self._known[row.sequence] = row.start + len(row.tokens) + guessed
        self._known.move_to_end(row.sequence)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def _forward(self, rows: Sequence[Row]) -> Tensor:
        """fp32 logits [rows that draw, vocab]."""
        batch = Batch.build(rows, self.pool.layout.page_size, None, self._ops.device)
        return self._decoder.forward(batch).logits


def _own_end(row: Row, result: RowResult) -> int:
    """Beyond this position no KV of ours is of the text: of guesses only our own are, as far as they stood, and a
    prompt (computed again, perhaps, on other pages) is followed from where its row begins."""
    if len(row.tokens) > 1:
        return row.start
    own = row.draft is not None and row.draft.kind == KIND
    return row.start + len(row.tokens) + (result.accepted if own else 0)


def _wanted(row: Row) -> bool:
    """Prompts are always followed, for whoever finds their pages; text only where a guess is asked for."""
    return row.ahead > 0 or len(row.tokens) > 1


def _plain(draw: Draw) -> Draw:
    """Nobody reads a guess's log-probability."""
    return msgspec.structs.replace(draw, sampling=msgspec.structs.replace(draw.sampling, logprobs=None))
