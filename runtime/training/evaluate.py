"""How well a trained drafter guesses texts it has not learned from, through the runner that will serve it.

Owns the count: tokens per step of the target, and at each position of a chain of guesses how often it stood, its
ancestors having stood. Greedy, and guessing in every step: what depth pays is the engine's question.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from tenantry.runtime.model.runner import ModelRunner
from tenantry.runtime.plan import Draw, Row, RowResult, StepPlan
from tenantry.runtime.speculative.tree import DraftTree, depths
from tenantry.runtime.training.prompts import Prompt
from tenantry.runtime.training.target import GREEDY, TrainingTarget

Tell = Callable[[int, int], None]


class Score(msgspec.Struct, frozen=True):
    """tokens_per_step: mean length of what one step of the target brought, its own token included. acceptance: by
    position of the guess, from the first. prompts: that were continued."""

    tokens_per_step: float
    acceptance: tuple[float, ...]
    prompts: int


@dataclass(slots=True)
class _Count:
    steps: int = 0
    tokens: int = 0
    prompts: int = 0
    tried: list[int] = field(default_factory=list)
    stood: list[int] = field(default_factory=list)

    def add(self, brought: int, accepted: int, depth: int) -> None:
        self.steps, self.tokens = self.steps + 1, self.tokens + brought
        for position in range(min(accepted + 1, depth)):
            if position == len(self.tried):
                self.tried.append(0)
                self.stood.append(0)
            self.tried[position] += 1
            self.stood[position] += position < accepted

    def score(self) -> Score:
        rates = tuple(round(s / t, 4) for s, t in zip(self.stood, self.tried, strict=True))
        return Score(round(self.tokens / max(1, self.steps), 4), rates, self.prompts)


@dataclass(slots=True)
class _Text:
    """One prompt and its continuation. pages: for all of it, guesses included."""

    number: int
    tokens: list[int]
    prompt: int
    adapter: bytes | None
    pages: range
    draft: DraftTree | None = None
    started: bool = False

    def row(self, levels: int) -> Row:
        start = len(self.tokens) - 1 if self.started else 0
        draw = Draw(GREEDY, 0, len(self.tokens), self.prompt, self.tokens)
        own = self.tokens[start:]
        return Row(self.number, own, start, self.pages, self.adapter, draw, self.draft, levels, levels)


def evaluate(
    target: TrainingTarget, prompts: Sequence[Prompt], tokens: int, levels: int, tell: Tell
) -> dict[str, Score]:
    """Scores of all prompts ("all"), of the base's ("base") and of each adapter's. target: made with the drafter.
    tokens: most of a continuation. levels: tokens guessed in a row."""
    counts: dict[str, _Count] = {}
    for done in range(0, len(prompts), target.texts):
        tell(done, len(prompts))
        part = prompts[done : done + target.texts]
        _continue(target, part, tokens, levels, [_counts(counts, prompt) for prompt in part], done)
    tell(len(prompts), len(prompts))
    return {name: counts[name].score() for name in sorted(counts, key=lambda name: (name != "all", name))}


def _counts(counts: dict[str, _Count], prompt: Prompt) -> list[_Count]:
    mine = [counts.setdefault(name, _Count()) for name in ("all", prompt.adapter or "base")]
    for count in mine:
        count.prompts += 1
    return mine


def _continue(
    target: TrainingTarget,
    prompts: Sequence[Prompt],
    most: int,
    levels: int,
    counts: Sequence[list[_Count]],
    first: int,
) -> None:
    runner: ModelRunner = target.runner
    each = target.pages_each
    texts = [
        _Text(first + i, list(p.ids), len(p.ids), target.digest(p.adapter), range(i * each, (i + 1) * each))
        for i, p in enumerate(prompts)
    ]
    live = list(zip(texts, counts, strict=True))
    while live:
        results = runner.run(StepPlan(0, tuple(text.row(levels) for text, _ in live))).rows
        following = []
        for (text, mine), result in zip(live, results, strict=True):
            brought, ended = _brought(text, result, most, runner.end_tokens)
            if text.started:
                depth = max(depths(text.draft)) if text.draft is not None else 0
                for count in mine:
                    count.add(brought, min(result.accepted, brought), depth)
            text.started, text.draft = True, result.proposal
            if not ended:
                following.append((text, mine))
        live = following


def _brought(text: _Text, result: RowResult, most: int, ends: Sequence[int]) -> tuple[int, bool]:
    """How many of a step's tokens the text took, and whether it ended with them."""
    for count, token in enumerate(result.tokens, 1):
        text.tokens.append(token)
        if token in ends or len(text.tokens) - text.prompt >= most:
            return count, True
    return len(result.tokens), result.fault is not None or not result.tokens
