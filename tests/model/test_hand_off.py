"""A prompt computed by one engine and decoded by another gives the tokens of one engine, page for page, in fp32."""

import random
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from tenantry.adapters.residency import Residency
from tenantry.adapters.room import Budget
from tenantry.platform.testing import tiny_text_model
from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.config import CacheConfig, ScheduleConfig
from tenantry.runtime.disagg.exchange import Exchange
from tenantry.runtime.disagg.intake import Intake
from tenantry.runtime.disagg.outbox import Outbox
from tenantry.runtime.disagg.transport import SharedMemory
from tenantry.runtime.engine import Engine
from tenantry.runtime.messages import ChoiceFinished, Finished, HandedOver, Sampling, Submit, Tokens
from tenantry.runtime.plan import StepPlan
from tenantry.runtime.scheduler.scheduler import Scheduler
from tenantry.runtime.speculative.speculator import Speculator
from tenantry.runtime.stops import StopWatch

TEXT = tiny_text_model()
ENDS = ("stop", "length")
SAMPLINGS = {
    "greedy": {"temperature": 0.0},
    "seeded": {"temperature": 1.0},
    "top-p": {"temperature": 0.9, "top_p": 0.8, "top_k": 30},
    "penalties": {"temperature": 0.7, "repetition_penalty": 1.3, "presence_penalty": 0.4, "frequency_penalty": 0.2},
    "bias": {"temperature": 0.5, "logit_bias": ((5, 3.0), (9, -4.0))},
    "three": {"temperature": 1.0, "n": 3},
    "logprobs": {"temperature": 1.0, "logprobs": 3},
    "stop": {"temperature": 1.0, "stop": ("a", "bc", "!")},
    "min": {"temperature": 1.0, "min_tokens": 8, "stop": ("$", "%", "&")},
}
KV = ("int8", "native")


class Nobody:
    def append(self, records):
        pass


@dataclass
class Side:
    """One engine over a runner that outlives it."""

    served: object
    folder: Path
    name: str
    guesses: bool = False

    def __post_init__(self):
        runner = self.served.runner
        runner.run(StepPlan(0, (), evict=tuple(runner.adapters.resident)))
        schedule = ScheduleConfig(token_budget=64, max_running=8, max_context=128)
        size = runner.pool.layout.page_size
        self.cache = KvCache.alone(CacheConfig(page_size=size, pages=512))
        self.scheduler = Scheduler(
            schedule, self.cache, Residency(Budget(1 << 30)), runner.end_tokens, runner.vocab_size
        )
        self.memory = SharedMemory(self.folder, self.name, "e1")
        self.exchange = Exchange(
            Outbox(self.memory, size, runner.pages.size, runner.pages.format, 10.0),
            Intake(self.cache, self.memory, runner.pages.format, runner.pages.size, 10.0),
        )
        speculator = Speculator(True, False, 3) if self.guesses else None
        stops = StopWatch(TEXT)
        self.engine = Engine(self.scheduler, runner, Nobody(), stops, runner.footprint, speculator, self.exchange)

    def pages(self, submit: Submit) -> list[bytes]:
        """The bytes of the prompt's whole pages, as the tree has them."""
        found = self.cache.tree.match(submit.namespace, submit.prompt[:-1]).pages
        size = self.served.runner.pages.size
        data = bytearray(size * len(found))
        self.served.runner.pages.read(found, memoryview(data))
        return [bytes(data[at : at + size]) for at in range(0, len(data), size)]


@dataclass
class Heard:
    tokens: dict
    logprobs: dict
    ends: list
    usage: object

    @classmethod
    def of(cls, events):
        heard = cls({}, {}, [], None)
        for event in events:
            if isinstance(event, Tokens):
                heard.tokens.setdefault(event.choice, []).extend(event.tokens)
                heard.logprobs.setdefault(event.choice, []).extend(event.logprobs or ())
            elif isinstance(event, ChoiceFinished):
                heard.ends.append((event.choice, event.reason, event.matched))
            elif isinstance(event, Finished):
                heard.usage = event.usage
        heard.ends.sort()
        return heard


def one_engine(side: Side, submits) -> dict[str, Heard]:
    told = {s.request_id: [] for s in submits}
    for submit in submits:
        assert side.engine.submit(submit, 0.0) is None
    return run(told, [side])


def two_engines(p: Side, d: Side, submits) -> dict[str, Heard]:
    told = {s.request_id: [] for s in submits}
    for submit in submits:
        assert d.engine.submit(msgspec.structs.replace(submit, expect=True), 0.0) is None
        if p.engine.submit(msgspec.structs.replace(submit, hand_off=True), 0.0) is not None:
            d.engine.compute(submit.request_id)
    return run(told, [p, d])


def run(told, sides) -> dict[str, Heard]:
    while any(side.engine.has_work for side in sides):
        for side in sides:
            for event in side.engine.step(0.0):
                if isinstance(event, HandedOver):
                    sides[-1].engine.take(event.request_id, event.hand_off)
                else:
                    told[event.request_id].append(event)
    return {request_id: Heard.of(events) for request_id, events in told.items()}


def requests(digests, options, count=8):
    rng = random.Random(repr(sorted(options)))
    for i in range(count):
        adapter = rng.choice([None, *digests])
        prompt = tuple(rng.randrange(101) for _ in range(rng.choice((1, 4, 5, 17, 40, 60))))
        sampling = Sampling(max_tokens=16, seed=i, ignore_eos=i % 2 == 0, **options)
        yield Submit(f"r{i}", prompt, sampling, adapter or bytes(32), adapter, "t")


@pytest.fixture(scope="module", params=KV)
def world(request, serve, make_adapter):
    """(prefill, decode, alone): three runners of one model over one store."""
    return [serve("llama", kv_dtype=request.param, name=name) for name in ("prefill", "decode", "alone")]


@pytest.fixture(scope="module")
def digests(world, make_adapter):
    modules = ["q_proj", "v_proj", "down_proj"]
    return [world[0].stored(make_adapter("llama", seed=rank, r=rank, target_modules=modules)) for rank in (4, 16)]


@pytest.fixture
def make(world, tmp_path):
    made = []

    def side(index: int, **options) -> Side:
        made.append(Side(world[index], tmp_path / "shared", f"engine-{len(made)}", **options))
        return made[-1]

    yield side
    for one in made:
        one.memory.close()


@pytest.mark.parametrize("guesses", [False, True], ids=["plain", "guessing"])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_two_engines_say_what_one_says(make, digests, sampling, guesses):
    submits = list(requests(digests, SAMPLINGS[sampling]))
    p, d, alone = make(0), make(1, guesses=guesses), make(2)
    handed, whole = two_engines(p, d, submits), one_engine(alone, submits)
    for submit in submits:
        a, b = handed[submit.request_id], whole[submit.request_id]
        assert a.tokens == b.tokens, submit.request_id
        assert a.ends == b.ends
        assert (a.usage.prompt, a.usage.completion) == (b.usage.prompt, b.usage.completion)
        for choice, logprobs in a.logprobs.items():
            for x, y in zip(logprobs, b.logprobs[choice], strict=True):
                assert x.logprob == pytest.approx(y.logprob, abs=1e-4)
    counts = d.engine.stats().hand_offs
    assert counts.taken == p.engine.stats().hand_offs.sent > 0
    assert (counts.damaged, counts.refused, counts.no_room) == (0, 0, 0)


def test_pages_are_the_same_to_the_bit(make, digests):
    submits = list(requests(digests, SAMPLINGS["greedy"]))
    p, d = make(0), make(1)
    two_engines(p, d, submits)
    compared = 0
    for submit in submits:
        ours = d.pages(submit)
        assert ours == p.pages(submit)[: len(ours)]
        assert len(ours) == (len(submit.prompt) - 1) // 4
        compared += len(ours)
    assert compared > 20


def test_other_namespaces_find_nothing_on_either_side(make, digests):
    """Paired: the same tenant hits with the same prompt, another tenant and another adapter never."""
    p, d = make(0), make(1)
    mine, theirs = bytes([1]) * 32, bytes([2]) * 32
    prompt = tuple(random.Random(9).randrange(101) for _ in range(50))
    sampling = Sampling(max_tokens=2, temperature=0.0)
    cached = {}
    for name, namespace, adapter in (
        ("first", mine, None), ("same", mine, None), ("tenant", theirs, None), ("adapter", digests[0], digests[0]),
    ):  # fmt: skip
        submit = Submit(name, prompt, sampling, namespace, adapter, "t")
        cached[name] = two_engines(p, d, [submit])[name].usage.cached
    assert cached == {"first": 0, "same": 48, "tenant": 0, "adapter": 0}


def test_an_arena_takes_what_a_pool_gives(serve, world, make, tmp_path):
    """Where pages lie is each engine's own affair: their bytes are the same."""
    kv_dtype = "int8" if world[0].runner.pages.format.startswith("kv1/torch.int8") else "native"
    unified = serve("llama", kv_dtype=kv_dtype, memory="unified", adapter_bytes=1 << 20, name="arena")
    p, d, alone = make(0), Side(unified, tmp_path / "shared", "arena"), make(2)
    assert p.served.runner.pages.format == unified.runner.pages.format
    submits = list(requests([], SAMPLINGS["seeded"]))
    handed, whole = two_engines(p, d, submits), one_engine(alone, submits)
    assert {r: h.tokens for r, h in handed.items()} == {r: h.tokens for r, h in whole.items()}
    assert d.engine.stats().hand_offs.taken > 0
    assert all(d.pages(s) == p.pages(s)[: len(d.pages(s))] for s in submits)
    d.memory.close()


def test_another_models_pages_and_another_formats_are_refused(serve, world, make, tmp_path):
    """Fault 39: engines of two kinds share a folder while one replaces the other."""
    for changes in ({"kv_group": 8, "kv_dtype": "int8"}, {"kv_dtype": "bfloat16"}):
        other = serve("llama", name="other", **changes)
        p, d = make(0), Side(other, tmp_path / "shared", "other")
        if other.runner.pages.format == p.served.runner.pages.format:
            continue
        submits = list(requests([], SAMPLINGS["greedy"], count=3))
        two_engines(p, d, submits)
        assert d.engine.stats().hand_offs.taken == 0
        assert d.engine.stats().hand_offs.refused == p.engine.stats().hand_offs.sent > 0
        d.memory.close()
