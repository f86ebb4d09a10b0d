"""The draft model: a small decoder of the same tokenizer that guesses what the target will draw (Leviathan 2023).

Owns its weights, its KV (its own layers of the same page ids, so that a shared prefix is shared for it too) and how
far into each sequence that KV is its own. Guesses are drawn as the target draws: same sampling, same noise, which
makes them agree more often than the likeliest token would (runtime.md 6g); or with noise of their own, for rejection
sampling. It may have LoRAs of its own for the target's adapters. A wrong KV here can only make guesses worse,
never a text wrong.
"""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from tenantry.kernels.attention.layout import PageLayout
from tenantry.kernels.lora.plan import LoraPlan
from tenantry.kernels.lora.table import LoraTable
from tenantry.kernels.ops import Ops
from tenantry.runtime.cache.pool import KvPool
from tenantry.runtime.model.batch import Batch
from tenantry.runtime.model.candidates import candidates, drawn
from tenantry.runtime.model.config import ModelConfig
from tenantry.runtime.model.decoder import Decoder, lora_sites
from tenantry.runtime.model.errors import ModelUnsupported
from tenantry.runtime.model.heads.adapted import HeadAdapters
from tenantry.runtime.model.levels import Levels
from tenantry.runtime.model.proposer import Proposal
from tenantry.runtime.model.sampler import penalises, spec_of
from tenantry.runtime.model.spine import Spine
from tenantry.runtime.model.weights import Progress, load_weights
from tenantry.runtime.plan import Draw, Row, RowResult, after
from tenantry.runtime.speculative.tree import walk
from tenantry.runtime.speculative.verify import Verify

KIND = "draft"
REMEMBERED = 4096  # sequences whose own KV is known


class Drafter:
    """directory: the draft model's. target: what it guesses for. verify: how its guesses are judged. The rest as the
    target has it."""

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
        verify: Verify = "sample",
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
        self._adapters = HeadAdapters(directory, table, self.pool)
        self._ops = ops
        self._stochastic = verify == "reject"
        self._known: OrderedDict[int, int] = OrderedDict()
        self._filled: dict[int, int] = {}

    def follow(self, rows: Sequence[Row], results: Sequence[RowResult], taps: Tensor | None) -> list[Proposal | None]:
        """Guess for the rows that ask, after computing what their texts have that this model has not. Aligned with
        rows."""
        for row, result in zip(rows, results, strict=True):
            if len(row.tokens) > 1:
                self._known.pop(row.sequence, None)  # a prompt, perhaps computed again on other pages
            elif row.sequence in self._known:
                self._known[row.sequence] = min(self._known[row.sequence], _own_end(row, result))
        alive = [i for i, row in enumerate(rows) if row.ahead and results[i].tokens]
        if not alive:
            return [None] * len(rows)
        draws = [_next_draw(rows[i], results[i]) for i in alive]
        caught_up = [self._behind(rows[i], draw) for i, draw in zip(alive, draws, strict=True)]
        logits = self._forward(caught_up)
        for row, draw in zip(caught_up, draws, strict=True):
            if row.sequence not in self._known:
                self._filled.update(zip(row.pages, self._digests(draw.history, row.adapter), strict=False))
        spines = [
            Spine(draw, rows[i].ahead, rows[i].nodes, self._stochastic) for i, draw in zip(alive, draws, strict=True)
        ]
        growing, levels = list(range(len(spines))), None
        while growing:
            self._grow([spines[j] for j in growing], logits)
            before, growing = growing, [j for j in growing if not spines[j].ended]
            if growing:
                if levels is None or growing != before:
                    levels = self._levels([caught_up[j] for j in growing], [spines[j] for j in growing])
                batch = levels.next([spines[j].path[-1] for j in growing])
                logits = self._decoder.forward(batch).logits
        found: list[Proposal | None] = [None] * len(rows)
        for i, row, spine in zip(alive, caught_up, spines, strict=True):
            self._remember(row, max(0, len(spine.path) - 1))
            found[i] = spine.proposal(KIND)
        return found

    def _grow(self, spines: Sequence[Spine], logits: Tensor) -> None:
        """One level more for each. logits: fp32 [spines, vocab]."""
        specs = [spec_of(after(s.draw, s.path, penalises(s.draw.sampling))) for s in spines]
        plain = [n for n, spine in enumerate(spines) if not (spine.branches or spine.stochastic)]
        if plain:
            lines = logits if len(plain) == len(spines) else logits[plain]
            for n, token in zip(plain, self._ops.sample(lines, [specs[n] for n in plain]).ids, strict=True):
                spines[n].grow([(token, 1.0)] if token >= 0 else ())
        for n, spine in enumerate(spines):
            if spine.stochastic:
                tokens, q = drawn(logits[n].cpu().numpy(), specs[n], spine.width)
                spine.grow([(token, 1.0) for token in tokens], torch.from_numpy(q))
            elif spine.branches:
                spine.grow(candidates(logits[n : n + 1], specs[n : n + 1])[0])

    def _behind(self, row: Row, draw: Draw) -> Row:
        """The tokens that are there before a draw, and that this model has not computed."""
        text = draw.history
        own = self._known.get(row.sequence)
        if own is None:  # new here: what another of the same beginning has left in its pages is as good
            size, digests = self.pool.layout.page_size, self._digests(text, row.adapter)
            own = size * next((i for i, d in enumerate(digests) if self._filled.get(row.pages[i]) != d), len(digests))
        own = min(own, len(text) - 1)
        return Row(row.sequence, text[own:], own, row.pages, row.adapter, draw)

    def _digests(self, text: Sequence[int], adapter: bytes | None) -> list[int]:
        """What each whole page of a text stands for. Where two collide, guesses are worse, no more."""
        size, found = self.pool.layout.page_size, [hash(adapter)]
        for first in range(0, len(text) - size + 1, size):
            found.append(hash((found[-1], *text[first : first + size])))
        return found[1:]

    def _levels(self, rows: Sequence[Row], spines: Sequence[Spine]) -> Levels:
        """What comes after each spine's last guess, as long as all of them go on."""
        most = min(spine.levels - len(spine.path) for spine in spines)
        starts = [spine.draw.position + len(spine.path) - 1 for spine in spines]
        for row, start in zip(rows, starts, strict=True):
            self._overwrite(row.pages, start, start + most)
        size, pages = self.pool.layout.page_size, [row.pages for row in rows]
        lora = self._lora(rows, [1] * len(rows))
        return Levels(starts, pages, most, size, self._ops.device, lora)

    def _remember(self, row: Row, guessed: int) -> None:
        """Positions before this are computed: those of the text, and of guesses that were followed by another."""
        self._known[row.sequence] = row.start + len(row.tokens) + guessed
        self._known.move_to_end(row.sequence)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def _forward(self, rows: Sequence[Row]) -> Tensor:
        """fp32 logits [rows that draw, vocab]."""
        for row in rows:
            self._overwrite(row.pages, row.start, row.start + len(row.tokens))
        lora = self._lora(rows, [len(row.tokens) for row in rows])
        batch = Batch.build(rows, self.pool.layout.page_size, lora, self._ops.device)
        return self._decoder.forward(batch).logits

    def _lora(self, rows: Sequence[Row], lengths: Sequence[int]) -> LoraPlan | None:
        slots = self._adapters.slots([row.adapter for row in rows])
        return self._decoder.table.plan(slots, lengths) if any(slot is not None for slot in slots) else None

    def _overwrite(self, pages: Sequence[int], first: int, past: int) -> None:
        """Positions are computed: their pages are no longer what others may take them for."""
        size = self.pool.layout.page_size
        for index in range(first // size, -(-past // size)):
            self._filled.pop(pages[index], None)


def _own_end(row: Row, result: RowResult) -> int:
    """Beyond this position no KV of ours is of the text: of guesses only those of our own spine are, as far as they
    stood."""
    own = 0
    if row.draft is not None and row.draft.kind == KIND:
        for node in walk(row.draft, result.tokens[: result.accepted]):
            if node != row.draft.parents.index(row.draft.parents[node]):  # not the first child: beside the spine
                break
            own += 1
    return row.start + len(row.tokens) + own


def _next_draw(row: Row, result: RowResult) -> Draw:
    """The target's next draw. Nobody reads a guess's log-probability."""
    assert row.draw is not None, "guesses ahead of a row that draws nothing"
    draw = after(row.draw, result.tokens)
    if draw.sampling.logprobs is None:
        return draw
    return msgspec.structs.replace(draw, sampling=msgspec.structs.replace(draw.sampling, logprobs=None))
