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
from typing import NamedTuple

import msgspec
import torch
from torch import Tensor

from tenantry.kernels.attention.layout import PageLayout
from tenantry.kernels.chain.contract import Chain
from tenantry.kernels.lora.plan import LoraPlan
from tenantry.kernels.lora.table import LoraTable
from tenantry.kernels.ops import Ops
from tenantry.runtime.cache.pool import KvPool
from tenantry.runtime.model.batch import Batch
from tenantry.runtime.model.candidates import candidates, drawn
from tenantry.runtime.model.chained import far_behind, plain, walk
from tenantry.runtime.model.config import ModelConfig
from tenantry.runtime.model.decoder import Decoder, lora_sites
from tenantry.runtime.model.errors import ModelUnsupported
from tenantry.runtime.model.heads.adapted import HeadAdapters
from tenantry.runtime.model.levels import Levels
from tenantry.runtime.model.proposer import Proposal
from tenantry.runtime.model.sampler import penalises, spec_of
from tenantry.runtime.model.spine import WIDTH, Spine
from tenantry.runtime.model.weights import Progress, load_weights
from tenantry.runtime.plan import Draw, Row, RowResult, after
from tenantry.runtime.speculative.tree import walk as standing
from tenantry.runtime.speculative.verify import Verify

KIND = "draft"
REMEMBERED = 4096  # sequences whose own KV is known
LATE = 32  # tokens that are computed at once of a text that is not followed whole


class View(NamedTuple):
    """What this model sees of a text: from `begin` on, the first position of a page, computed before `end`."""

    begin: int
    end: int


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
        self._chain = self._decoder.chain()
        self._adapters = HeadAdapters(directory, table, self.pool)
        self._ops = ops
        self._stochastic = verify == "reject"
        self._known: OrderedDict[int, View] = OrderedDict()
        self._filled: dict[int, int] = {}

    def follow(self, rows: Sequence[Row], results: Sequence[RowResult], taps: Tensor | None) -> list[Proposal | None]:
        """Guess for the rows that ask, after computing what their texts have that this model has not. Aligned with
        rows."""
        for row, result in zip(rows, results, strict=True):
            if len(row.tokens) > 1:
                self._known.pop(row.sequence, None)  # a prompt, perhaps computed again on other pages
            elif row.sequence in self._known:
                view = self._known[row.sequence]
                self._known[row.sequence] = view._replace(end=min(view.end, _own_end(row, result)))
        alive = [i for i, row in enumerate(rows) if row.ahead and results[i].tokens]
        if not alive:
            return [None] * len(rows)
        draws = [_next_draw(rows[i], results[i]) for i in alive]
        views = [self._view(rows[i], draw) for i, draw in zip(alive, draws, strict=True)]
        caught_up = [self._behind(rows[i], draw, v) for i, draw, v in zip(alive, draws, views, strict=True)]
        spines = [
            Spine(draw, rows[i].ahead, rows[i].nodes, self._stochastic) for i, draw in zip(alive, draws, strict=True)
        ]
        ranked = [spine.branches or spine.stochastic for spine in spines]
        if self._chain is not None and plain(draws, ranked):
            self._at_once(self._chain, caught_up, spines)
        else:
            self._level_by_level(caught_up, spines)
        for row, draw, view in zip(caught_up, draws, views, strict=True):
            if row.sequence not in self._known and not view.begin:
                self._filled.update(zip(row.pages, self._digests(draw.history, row.adapter), strict=False))
        found: list[Proposal | None] = [None] * len(rows)
        for i, row, view, spine in zip(alive, caught_up, views, spines, strict=True):
            self._remember(row, view.begin, max(0, len(spine.path) - 1))
            found[i] = spine.proposal(KIND, self._adapters.slots([row.adapter]) != [None])
        return found

    def _at_once(self, chain: Chain, behind: Sequence[Row], spines: Sequence[Spine]) -> None:
        for row, spine in zip(behind, spines, strict=True):
            self._overwrite(row.pages, row.start, row.start + len(row.tokens) + spine.levels - 1)
        parts = [far_behind(row) for row in behind]
        if any(parts):
            self._forward([part[0] for part in parts if part is not None])
            behind = [row if part is None else part[1] for row, part in zip(behind, parts, strict=True)]
        draws, levels = [spine.draw for spine in spines], [spine.levels for spine in spines]
        width = WIDTH if any(spine.branches for spine in spines) else 0
        walked = walk(chain, behind, draws, levels, width, self._lora(behind, [1] * len(behind)))
        for r, spine in enumerate(spines):
            while not spine.ended:
                level = len(spine.path)
                spine.grow(walked.candidates(r, level) if spine.branches else [(walked.token(r, level), 1.0)])

    def _level_by_level(self, behind: Sequence[Row], spines: Sequence[Spine]) -> None:
        logits = self._forward(behind)
        growing, levels = list(range(len(spines))), None
        while growing:
            self._grow([spines[j] for j in growing], logits)
            before, growing = growing, [j for j in growing if not spines[j].ended]
            if growing:
                if levels is None or growing != before:
                    levels = self._levels([(behind[j], spines[j]) for j in growing])
                batch = levels.next([spines[j].path[-1] for j in growing])
                logits = self._decoder.forward(batch).logits

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

    def _view(self, row: Row, draw: Draw) -> View:
        """What this model will see of a text, and has computed. A text that is not followed whole and has gone too
        far is seen from its last page but one or two on, as if it began there."""
        text, size = draw.history, self.pool.layout.page_size
        view = self._known.get(row.sequence)
        if view is None:  # new here: what another of the same beginning has left in its pages is as good
            digests = self._digests(text, row.adapter)
            same = next((i for i, d in enumerate(digests) if self._filled.get(row.pages[i]) != d), len(digests))
            view = View(0, size * same)
        if not row.follow and len(text) - view.end > max(LATE, 2 * size):
            begin = (len(text) - LATE) // size * size
            view = View(begin, begin)
        return view._replace(end=min(view.end, len(text) - 1))

    def _behind(self, row: Row, draw: Draw, view: View) -> Row:
        """The tokens that are there before a draw, and that this model has not computed, in its own view."""
        begin, end = view
        pages = row.pages[begin // self.pool.layout.page_size :] if begin else row.pages
        return Row(row.sequence, draw.history[end:], end - begin, pages, row.adapter, draw)

    def _digests(self, text: Sequence[int], adapter: bytes | None) -> list[int]:
        """What each whole page of a text stands for. Where two collide, guesses are worse, no more."""
        size, found = self.pool.layout.page_size, [hash(adapter)]
        for first in range(0, len(text) - size + 1, size):
            found.append(hash((found[-1], *text[first : first + size])))
        return found[1:]

    def _levels(self, behind: Sequence[tuple[Row, Spine]]) -> Levels:
        """What comes after each spine's last guess, as long as all of them go on. Rows: what was computed before."""
        rows = [row for row, _ in behind]
        most = min(spine.levels - len(spine.path) for _, spine in behind)
        starts = [row.start + len(row.tokens) + len(spine.path) - 1 for row, spine in behind]
        for row, start in zip(rows, starts, strict=True):
            self._overwrite(row.pages, start, start + most)
        size, pages = self.pool.layout.page_size, [row.pages for row in rows]
        lora = self._lora(rows, [1] * len(rows))
        return Levels(starts, pages, most, size, self._ops.device, lora)

    def _remember(self, row: Row, begin: int, guessed: int) -> None:
        """Positions before this are computed: those of the text, and of guesses that were followed by another."""
        self._known[row.sequence] = View(begin, begin + row.start + len(row.tokens) + guessed)
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
        for node in standing(row.draft, result.tokens[: result.accepted]):
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
