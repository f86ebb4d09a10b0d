"""A runner that computes nothing: the same contract as ModelRunner's, tokens from a hash, faults on command.

Owns what load tests of the gateway and crash tests of the engine run instead of a model. It keeps the runner's side
of the contract strictly: a plan that a real runner could not serve raises.
"""

import os
import time
from collections.abc import Sequence
from enum import IntEnum
from typing import Final
from zlib import crc32

import msgspec

from tenantry.runtime.messages import TokenLogprob
from tenantry.runtime.plan import Draw, Row, RowResult, StepPlan, StepResult, after
from tenantry.runtime.speculative.tree import ROOT, DraftTree, path
from tenantry.runtime.speculative.verify import match

_LOAD_STEPS: Final = 2
PAGE_BYTES: Final = 64  # of a page of nothing
PAGE_FORMAT: Final = "scripted"


class Fault(IntEnum):
    """A prompt that ends with the id `vocab_size - fault` makes its first drawn step fail in this way."""

    RAISE = 1  # an exception, like an index out of range in a kernel
    NAN = 2  # numbers that are not finite, in this row alone
    HANG = 3  # a kernel that never returns
    EXIT = 4  # the process dies at once
    END = 5  # no fault: the model's end token is drawn


class ScriptedError(Exception):
    pass


class ScriptedRunner:
    """words: the ids that are drawn, beyond end_tokens. The token at a position is a function of the three tokens
    before it, the position, the adapter, and seed and choice if the temperature is above 0.

    faults: whether prompts may command a Fault. step_s: seconds that a step with rows takes. knows: how many tenths
    of its own guesses for the next step are right; it guesses when it is asked to.
    """

    def __init__(
        self,
        vocab_size: int,
        words: Sequence[int],
        end_tokens: tuple[int, ...] = (),
        step_s: float = 0.0,
        faults: bool = False,
        knows: int = 10,
    ) -> None:
        self.vocab_size = vocab_size
        self.end_tokens = end_tokens
        self._words = tuple(words)
        self._step_s = step_s
        self._faults = faults
        self._knows = knows
        self._resident: set[bytes] = set()
        self._loading: dict[bytes, int] = {}
        self.runs = 0

    def run(self, plan: StepPlan) -> StepResult:
        """Raises ScriptedError on command, and ValueError for a plan that breaks the contract."""
        self.runs += 1
        for digest in plan.evict:
            if digest not in self._resident:
                raise ValueError("evicts an adapter that is not resident")
            self._resident.discard(digest)
        for load in plan.load:
            if load.digest in self._resident or load.digest in self._loading:
                raise ValueError("loads an adapter twice")
            self._loading[load.digest] = _LOAD_STEPS
        if plan.rows and self._step_s:
            time.sleep(self._step_s)
        for arrival in plan.arrivals:
            if len(arrival.source) < len(arrival.pages) * PAGE_BYTES:
                raise ValueError("fewer bytes arrive than pages")
        rows = tuple(self._row(row) for row in plan.rows)
        for departure in plan.departures:
            departure.target[:] = bytes([7]) * (len(departure.pages) * PAGE_BYTES)
        arrived = tuple(arrival.request_id for arrival in plan.arrivals)
        departed, took = tuple(d.request_id for d in plan.departures), self._step_s if plan.rows else 0.0
        return StepResult(rows, self._settle(), seconds=took, arrived=arrived, departed=departed)

    def _settle(self) -> tuple[bytes, ...]:
        self._loading = {digest: left - 1 for digest, left in self._loading.items()}
        loaded = tuple(digest for digest, left in self._loading.items() if left <= 0)
        for digest in loaded:
            del self._loading[digest]
            self._resident.add(digest)
        return loaded

    def _row(self, row: Row) -> RowResult:
        if row.adapter is not None and row.adapter not in self._resident:
            raise ValueError("a row's adapter is not resident")
        if row.draw is None:
            return RowResult()
        draw = row.draw
        if draw.position != row.start + len(row.tokens) or draw.position != len(draw.history):
            raise ValueError("draws a token elsewhere than after the row")
        fault = self.vocab_size - draw.history[draw.prompt_length - 1] if self._faults else 0
        if fault == Fault.NAN:
            return RowResult(fault="the model's numbers are not finite")
        if fault == Fault.RAISE:
            raise ScriptedError("commanded")
        if fault == Fault.HANG:
            time.sleep(3600)
        if fault == Fault.EXIT:
            os._exit(66)
        if fault == Fault.END and self.end_tokens and self.end_tokens[0] not in draw.forbidden:
            return self._answer(draw, (self.end_tokens[0],), 0)
        draft = row.draft or DraftTree((), ())
        draft.check()
        drawn = [self.token(draw, row.adapter)]
        drawn += [
            self.token(after(draw, [draft.tokens[n] for n in path(draft, node)]), row.adapter)
            for node in range(len(draft.tokens))
        ]
        verdict = match(draft, drawn)
        result = self._answer(draw, verdict.tokens, len(verdict.accepted))
        if not row.ahead:
            return result
        return msgspec.structs.replace(result, proposal=self._guess(after(draw, verdict.tokens), row))

    def _guess(self, draw: Draw, row: Row) -> DraftTree:
        """Guesses that are right as often as they should be, also beyond an end, which is harmless. Where there is
        room for more nodes than levels, wrong ones stand before them."""
        tokens: list[int] = []
        parents: list[int] = []
        guesses: list[int] = []
        last = ROOT
        for _ in range(row.ahead):
            token = self.token(after(draw, guesses), row.adapter)
            at, count = self._words.index(token), len(self._words)
            wrong = crc32(repr((draw.position, guesses)).encode()) % 10 >= self._knows
            guesses.append(self._words[(at + 1) % count] if wrong else token)
            level = [guesses[-1]]
            beside, spare = self._words[(at + 2) % count], row.nodes - len(tokens) - (row.ahead - len(guesses) + 1)
            if spare > 0 and beside not in (token, guesses[-1]):
                level.insert(0, beside)
            tokens += level
            parents += [last] * len(level)
            last = len(tokens) - 1
        return DraftTree(tuple(tokens), tuple(parents), kind="scripted")

    def _answer(self, draw: Draw, tokens: tuple[int, ...], accepted: int) -> RowResult:
        top = draw.sampling.logprobs
        if top is None:
            return RowResult(tokens, accepted=accepted)
        others = tuple((self._words[i % len(self._words)], -1.0 - i) for i in range(top))
        return RowResult(tokens, tuple(TokenLogprob(token, -0.5, others) for token in tokens), accepted=accepted)

    def token(self, draw: Draw, adapter: bytes | None) -> int:
        """What is drawn: the oracle for tests."""
        key = repr((list(draw.history[-3:]), draw.position, adapter)).encode()
        if draw.sampling.temperature > 0:
            key += repr((draw.sampling.seed, draw.choice)).encode()
        at = crc32(key)
        allowed = [w for w in self._words if w not in draw.forbidden] if draw.forbidden else self._words
        return allowed[at % len(allowed)]
