"""A scheduler of fifty lines for training, tests and benchmarks: plans by hand, pages in order, nothing shared.

It drives a ModelRunner through its one door, so that what is learned or compared is what is served. It must not be
used to serve: nothing is fair, evicted or bounded.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from tenantry.runtime.messages import Sampling, TokenLogprob
from tenantry.runtime.model.runner import ModelRunner
from tenantry.runtime.plan import Draw, Load, Row, RowResult, StepPlan, StepResult

GREEDY = Sampling(max_tokens=1 << 20, temperature=0.0)


@dataclass(slots=True)
class Track:
    """One sequence: its tokens so far, how many of them are in its pages, and what was drawn."""

    tokens: list[int]
    adapter: bytes | None
    sampling: Sampling
    prompt: int
    pages: list[int] = field(default_factory=list)
    computed: int = 0
    logprobs: list[TokenLogprob] = field(default_factory=list)
    fault: str | None = None

    @property
    def generated(self) -> list[int]:
        return self.tokens[self.prompt :]


class Driver:
    """Pages are handed out in order and come back with reset()."""

    def __init__(self, runner: ModelRunner) -> None:
        self.runner = runner
        self.page_size = runner.pool.layout.page_size
        self._next_page = 0
        self._step = 0

    def reset(self) -> None:
        self._next_page = 0

    def track(
        self,
        prompt: Sequence[int],
        adapter: bytes | None = None,
        sampling: Sampling = GREEDY,
        pages: Sequence[int] = (),
    ) -> Track:
        """pages: already filled by another sequence with this one's first tokens, whole pages only."""
        return Track(list(prompt), adapter, sampling, len(prompt), list(pages), computed=len(pages) * self.page_size)

    def load(self, *digests: bytes, patience: float = 60.0) -> None:
        """Make adapters resident. Raises RuntimeError for one that fails."""
        waiting, result = set(digests), self._run(StepPlan(self._step, (), load=tuple(map(Load, digests))))
        end = time.monotonic() + patience
        while waiting:
            if result.failed or time.monotonic() > end:
                raise RuntimeError(f"adapters did not load: {result.failed or waiting}")
            waiting -= set(result.loaded)
            time.sleep(0.001)
            result = self._run(StepPlan(self._step, ()))

    def row(self, track: Track, count: int | None = None) -> Row:
        """The track's next `count` tokens (all, by default); draws when they are its last."""
        past = len(track.tokens) if count is None else min(len(track.tokens), track.computed + count)
        while len(track.pages) * self.page_size < past:
            track.pages.append(self._next_page)
            self._next_page += 1
        draw = None
        if past == len(track.tokens):
            draw = Draw(track.sampling, 0, past, track.prompt, track.tokens)
        tokens = track.tokens[track.computed : past]
        return Row(id(track), tokens, track.computed, track.pages, track.adapter, draw)

    def step(self, tracks: Sequence[Track], chunk: int | None = None) -> tuple[RowResult, ...]:
        """One plan over all tracks, at most `chunk` tokens each; what was drawn is appended to them."""
        rows = tuple(self.row(track, chunk) for track in tracks)
        results = self._run(StepPlan(self._step, rows)).rows
        for track, row, result in zip(tracks, rows, results, strict=True):
            track.computed += len(row.tokens)
            track.tokens += result.tokens
            track.logprobs += result.logprobs or ()
            track.fault = result.fault
        return results

    def generate(self, tracks: Sequence[Track], tokens: int, chunk: int | None = None) -> list[list[int]]:
        """Run until each track has generated `tokens` or failed."""
        while live := [t for t in tracks if len(t.generated) < tokens and t.fault is None]:
            self.step(live, chunk)
        return [track.generated for track in tracks]

    def logits(self, prompts: Sequence[Sequence[int]], adapter: bytes | None = None) -> Tensor:
        """Next-token logits after each prompt, all computed in one ragged pass: fp32 [prompts, vocab]."""
        return self.runner.forward([self.row(self.track(prompt, adapter)) for prompt in prompts]).logits

    def _run(self, plan: StepPlan) -> StepResult:
        self._step += 1
        return self.runner.run(plan)
