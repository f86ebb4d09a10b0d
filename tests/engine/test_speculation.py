"""Guesses change when tokens come and what they cost, never which: against the same requests without guesses."""

import random
from collections import Counter

import msgspec
import pytest

from tenantry.adapters.residency import Residency
from tenantry.adapters.room import Budget, Footprint
from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.config import CacheConfig, ScheduleConfig
from tenantry.runtime.engine import Engine
from tenantry.runtime.messages import MAX_REJECTED_PER_TOKEN, ChoiceFinished, Finished, Sampling, Submit, Tokens
from tenantry.runtime.plan import StepResult
from tenantry.runtime.scheduler.scheduler import Scheduler
from tenantry.runtime.speculative.speculator import Speculator
from tenantry.runtime.stops import StopWatch
from tenantry.runtime.testing import ScriptedRunner
from tenantry.runtime.text import TextModel

VOCAB = 200


class Journal:
    def append(self, records):
        pass


class Run:
    """All requests through one engine; what each choice heard, in order."""

    def __init__(self, model, requests, speculator=None, knows=7, pages=120, words=range(1, 100)):
        schedule = ScheduleConfig(token_budget=96, max_running=8, max_context=256)
        cache = KvCache.alone(CacheConfig(pages=pages))
        self.scheduler = Scheduler(schedule, cache, Residency(Budget(1000)), (0,), VOCAB)
        runner = ScriptedRunner(VOCAB, words, (0,), knows=knows)
        stops = StopWatch(TextModel.load(model))
        self.engine = Engine(self.scheduler, runner, Journal(), stops, lambda digest: Footprint((100,)), speculator)
        self.tokens, self.ends, self.usage, self.steps = {}, {}, {}, 0
        waiting = list(requests)
        while waiting or self.engine.has_work:
            for _ in range(2):
                if waiting:
                    assert self.engine.submit(waiting.pop(0), self.steps) is None
            self.steps += 1
            for event in self.engine.step(float(self.steps)):
                self.hear(event)
            self.scheduler.check()
            assert self.steps < 5000
        stats = self.scheduler.stats()
        assert stats.pages_free + stats.pages_cached == stats.pages_total

    def hear(self, event):
        match event:
            case Tokens():
                assert (event.request_id, event.choice) not in self.ends
                assert event.logprobs is None or len(event.logprobs) == len(event.tokens)
                self.tokens.setdefault((event.request_id, event.choice), []).extend(event.tokens)
            case ChoiceFinished():
                self.ends[event.request_id, event.choice] = (event.reason, event.matched)
            case Finished():
                self.usage[event.request_id] = event.usage


def requests(seed, count=24, **fixed):
    rng = random.Random(seed)
    for i in range(count):
        prompt = tuple(rng.randrange(1, 100) for _ in range(rng.randrange(1, 60)))
        most = rng.randrange(1, 40)
        options = {
            "max_tokens": most,
            "min_tokens": rng.choice((0, 0, rng.randrange(most + 1))),
            "n": rng.choice((1, 1, 3)),
            "temperature": rng.choice((0.0, 1.0)),
            "seed": rng.randrange(100),
            "stop": rng.choice(((), (), ("a",), ("ab", "7"))),
            "stop_token_ids": rng.choice(((), (5, 6, 7))),
            "logprobs": rng.choice((None, 2)),
        } | fixed
        adapter = rng.choice((None, b"a" * 32, b"b" * 32))
        yield Submit(f"{seed}-{i}", prompt, Sampling(**options), adapter or bytes(32), adapter, "t")


def same(plain, guessed):
    assert guessed.tokens == plain.tokens
    assert guessed.ends == plain.ends
    for name, usage in plain.usage.items():
        other = guessed.usage[name]
        assert (other.prompt, other.completion) == (usage.prompt, usage.completion)
        assert usage.drafted == usage.accepted == 0
        assert 0 <= other.accepted <= other.drafted


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("pages", [60, 400])
def test_the_same_tokens_and_ends_with_and_without_guesses(byte_level_model, seed, pages):
    asked = list(requests(seed))
    plain = Run(byte_level_model, asked, pages=pages)
    fixed = Run(byte_level_model, asked, Speculator(True, "scripted", fixed=1 + seed), pages=pages)
    chosen = Run(byte_level_model, asked, Speculator(seed % 2 == 0, "scripted"), pages=pages)
    same(plain, fixed)
    same(plain, chosen)
    assert sum(u.accepted for u in fixed.usage.values()) > 0
    assert fixed.steps < plain.steps


class Bushy(Speculator):
    """Asks for trees of twice as many nodes as levels."""

    trees = 0

    def propose(self, *asked):
        found = super().propose(*asked)
        self.trees += sum(guess.draft is not None and not guess.draft.is_chain for guess in found.values())
        return {name: msgspec.structs.replace(guess, nodes=2 * guess.ahead) for name, guess in found.items()}


@pytest.mark.parametrize("kind", [Speculator, Bushy])
def test_every_kind_of_end_falls_inside_of_a_draft(byte_level_model, kind):
    """Ends at every place of a draft of eight right guesses, and never later than without them."""
    places, kinds, trees = Counter(), Counter(), 0
    for seed in range(12):
        asked = list(requests(seed, 12, temperature=0.0, n=1))
        plain = Run(byte_level_model, asked, pages=400)
        speculator = kind(False, "scripted", fixed=8)
        guessed = Run(byte_level_model, asked, speculator, knows=10, pages=400)
        same(plain, guessed)
        trees += speculator.trees if kind is Bushy else 1
        for key, (reason, matched) in guessed.ends.items():
            places[len(guessed.tokens[key]) % 9] += 1
            kinds[reason, type(matched).__name__] += 1
    assert set(places) == set(range(9))
    assert {("length", "NoneType"), ("stop", "str"), ("stop", "int")} <= set(kinds)
    assert trees > 0


def test_right_guesses_take_a_ninth_of_the_steps_and_wrong_ones_are_charged(byte_level_model):
    asked = [Submit("r", (1, 2, 3), Sampling(max_tokens=91, ignore_eos=True), bytes(32), None, "t")]
    right = Run(byte_level_model, asked, Speculator(False, "scripted", fixed=8), knows=10)
    assert right.steps == 11  # one for the prompt, ten of nine tokens
    assert (right.usage["r"].drafted, right.usage["r"].accepted) == (80, 80)
    wrong = Run(byte_level_model, asked, Speculator(False, "scripted", fixed=8), knows=0)
    assert wrong.usage["r"].accepted == 0
    assert wrong.usage["r"].drafted > 500
    assert wrong.tokens == right.tokens


def test_no_more_guesses_fall_than_promised(byte_level_model):
    """Guesses of two dozen wrong tokens in every step would be twenty-four per token."""
    asked = [Submit("r", (1, 2, 3), Sampling(max_tokens=91, n=2, ignore_eos=True), bytes(32), None, "t")]
    wrong = Run(byte_level_model, asked, Speculator(False, "scripted", fixed=24), knows=0)
    usage = wrong.usage["r"]
    assert usage.completion * 12 < usage.rejected  # the last drafts are short
    assert usage.rejected <= usage.completion * MAX_REJECTED_PER_TOKEN


def test_a_guess_beyond_the_end_is_no_accepted_token(byte_level_model):
    """Eight right guesses in every step: one token of the prompt's step, nine of each other, and the last is cut."""
    cuts = set()
    for seed in range(20):
        sampling = Sampling(max_tokens=200, min_tokens=2, seed=seed, stop_token_ids=(5, 6, 7, 8))
        asked = [Submit("r", (1, 2, 3), sampling, bytes(32), None, "t")]
        usage = Run(byte_level_model, asked, Speculator(False, "scripted", fixed=8), knows=10).usage["r"]
        whole, cut = divmod(usage.completion - 1, 9)
        assert usage.drafted == 8 * (whole + (cut > 0))
        assert usage.accepted == 8 * whole + cut
        cuts.add(cut)
    assert len(cuts) > 4


def test_guessing_stops_where_it_never_helps(byte_level_model):
    asked = [Submit("r", (1, 2, 3), Sampling(max_tokens=200, ignore_eos=True), bytes(32), None, "t")]
    wrong = Run(byte_level_model, asked, Speculator(False, "scripted"), knows=0)
    always = Run(byte_level_model, asked, Speculator(False, "scripted", fixed=8), knows=0)
    assert wrong.usage["r"].drafted < always.usage["r"].drafted / 3


def test_a_request_may_decline(byte_level_model):
    asked = [Submit("r", (1, 2), Sampling(max_tokens=20), bytes(32), None, "t", speculate=False)]
    assert Run(byte_level_model, asked, Speculator(True, "scripted", fixed=4)).usage["r"].drafted == 0


def test_a_text_that_repeats_is_looked_up(byte_level_model):
    """One word only is drawn, so that whatever comes came before."""
    asked = [Submit("r", (1, 2, 3), Sampling(max_tokens=60, ignore_eos=True), bytes(32), None, "t")]
    run = Run(byte_level_model, asked, Speculator(True, fixed=6), words=[9])
    assert run.usage["r"].accepted > 40
    assert run.steps < 20


def test_what_the_engine_itself_does_for_guesses_counts_as_their_cost(byte_level_model):
    """The runner says 1 ms a step, but steps follow each other every 5 ms, every 9 ms where guesses are judged."""

    class Measured(ScriptedRunner):
        def run(self, plan):
            result = super().run(plan)
            return StepResult(result.rows, result.loaded, result.failed, seconds=1e-3)

    cache = KvCache.alone(CacheConfig(pages=120))
    scheduler = Scheduler(ScheduleConfig(96, 8, 64, 256), cache, Residency(Budget(1000)), (0,), VOCAB)
    runner, stops = Measured(VOCAB, range(1, 100), (0,), knows=5), StopWatch(TextModel.load(byte_level_model))
    speculator = Speculator(False, "scripted")
    engine = Engine(scheduler, runner, Journal(), stops, lambda digest: Footprint((100,)), speculator)
    submit = Submit("r", (1, 2, 3), Sampling(max_tokens=200, ignore_eos=True), bytes(32), None, "t")
    assert engine.submit(submit, 0.0) is None
    now = 0.0
    while engine.has_work:
        before = engine.stats().drafted_tokens
        engine.step(now)
        now += 9e-3 if engine.stats().drafted_tokens > before else 5e-3
    times = engine._step_time
    assert abs(times.seconds(1, attended=200) - 5e-3) < 1e-3
    assert times.seconds(1, 2, attended=200) - times.seconds(1, attended=200) > 2e-3
