"""The fixed workloads W1-W5 as plain requests, deterministic by seed.

Prompts are pieces of the standard library's own text, so that they tokenize as text does. `rep` changes every
prompt and no length, so that a repetition on a running server meets a cold prefix cache.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from benchmarks.models import standard_library_text

SEED = 7

DESCRIPTIONS = {
    "W1": "mixed adapters: 64 requests, Zipf(1.0) over all adapters, 128 in / 64 out, 16 in flight",
    "W2": "the same on the base model",
    "W3": "shared prefix: 32 requests in 4 groups, 512 common + 32 own tokens in, 32 out, 8 in flight",
    "W4": "sessions: 8 sessions of 4 turns, +64 user tokens, 32 out, 8 in flight",
    "W5": "one stream: 8 requests, 128 in / 64 out, base",
    "W5L": "one stream with one adapter",
    "WC": "capacity: 32 requests, each on another adapter, 128 in / 64 out, 32 in flight",
    "WU": "warm-up, not reported",
}


@dataclass(frozen=True, slots=True)
class Call:
    """One request. adapter None is the base. chain: calls with the same chain run in order, and each one's prompt
    follows all that was said before in its chain."""

    workload: str
    adapter: str | None
    prompt: tuple[int, ...]
    max_tokens: int
    chain: str


@dataclass(frozen=True, slots=True)
class Workload:
    name: str
    calls: tuple[Call, ...]
    concurrency: int

    def first(self, calls: int) -> "Workload":
        """Its first calls alone; their number bounds how many can be in flight."""
        return Workload(self.name, self.calls[:calls], min(calls, self.concurrency))

    def cut(self, tokens: int) -> "Workload":
        """Each call ends after so many tokens of output; 0 leaves them."""
        calls = (replace(c, max_tokens=min(tokens or c.max_tokens, c.max_tokens)) for c in self.calls)
        return Workload(self.name, tuple(calls), self.concurrency)


class Text:
    """Pieces of real text with an exact number of tokens."""

    def __init__(self, tokenizer: Path) -> None:
        from tokenizers import Tokenizer

        encoder = Tokenizer.from_file(str(tokenizer))
        self._ids = encoder.encode("\n".join(standard_library_text()), add_special_tokens=False).ids

    def piece(self, n: int, *key: object) -> tuple[int, ...]:
        rng = random.Random(hashlib.sha256("/".join(map(str, key)).encode()).digest())
        start = rng.randrange(len(self._ids) - n)
        return tuple(self._ids[start : start + n])


text_of = cache(Text)


def zipf_adapters(names: Sequence[str], requests: int) -> list[str]:
    """Popularity is shuffled over the adapters, so that rank and popularity are independent."""
    rng = random.Random(SEED)
    order = list(names)
    rng.shuffle(order)
    weights = [1.0 / (k + 1) for k in range(len(order))]
    return rng.choices(order, weights=weights, k=requests)


def build(tokenizer: Path, adapters: Sequence[str] = (), rep: int = 0) -> dict[str, Workload]:
    """adapters: their model names; without any, W1 and W5L run on the base."""
    text = text_of(tokenizer)

    def flat(name: str, chosen: list[str | None], tokens: int, out: int, concurrency: int) -> Workload:
        calls = (
            Call(name, a, text.piece(tokens, SEED, rep, name, i), out, f"{name}-{i}") for i, a in enumerate(chosen)
        )
        return Workload(name, tuple(calls), concurrency)

    mixed: list[str | None] = list(zipf_adapters(adapters, 64)) if adapters else [None] * 64
    lone = adapters[1] if len(adapters) > 1 else None
    prefixes = [text.piece(512, SEED, rep, "W3p", g) for g in range(4)]
    shared = tuple(
        Call("W3", None, prefixes[i % 4] + text.piece(32, SEED, rep, "W3s", i), 32, f"W3-{i}") for i in range(32)
    )
    turns = tuple(
        Call("W4", None, text.piece(64, SEED, rep, "W4", s, t), 32, f"W4-{s}") for s in range(8) for t in range(4)
    )
    return {
        "WU": flat("WU", mixed[:8] + [None] * 4, 64, 8, 4),
        "W1": flat("W1", mixed, 128, 64, 16),
        "W2": flat("W2", [None] * 64, 128, 64, 16),
        "W3": Workload("W3", shared, 8),
        "W4": Workload("W4", turns, 8),
        "W5": flat("W5", [None] * 8, 128, 64, 1),
        "W5L": flat("W5L", [lone] * 8, 128, 64, 1),
        "WC": flat("WC", [*adapters[:32]] or [None] * 32, 128, 64, 32),
    }
