"""Guesses judged by a real model give its own tokens: every proposer, sampling and mix of adapters, in fp32."""

import dataclasses
import json
import random
import shutil

import msgspec
import pytest
import torch

from tenantry.adapters.base_digest import digest_model
from tenantry.adapters.manifest import BaseSpec
from tenantry.adapters.residency import Residency
from tenantry.adapters.room import Budget, Footprint
from tenantry.adapters.store import LocalStore
from tenantry.adapters.validate import validate
from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.config import CacheConfig, ScheduleConfig
from tenantry.runtime.engine import Engine
from tenantry.runtime.messages import Finished, Sampling, Submit, Tokens
from tenantry.runtime.model.heads.adapted import adapters_of, register
from tenantry.runtime.model.runner import ModelRunner
from tenantry.runtime.plan import Draw, Row, RowResult, StepPlan, after
from tenantry.runtime.scheduler.scheduler import Scheduler
from tenantry.runtime.speculative.speculator import Speculator
from tenantry.runtime.speculative.tree import DraftTree
from tenantry.runtime.stops import StopWatch

SAMPLINGS = {
    "greedy": {"temperature": 0.0},
    "temperature": {"temperature": 1.0},
    "top-p": {"temperature": 0.9, "top_p": 0.8, "top_k": 30},
    "penalties": {"temperature": 0.7, "repetition_penalty": 1.3, "presence_penalty": 0.4, "frequency_penalty": 0.2},
    "logprobs": {"temperature": 1.0, "logprobs": 3},
}
PROPOSERS = {"ngram": (True, ""), "draft": (False, "draft"), "tree": (False, "draft"), "auto": (True, "draft")}


class Bushy(Speculator):
    """Asks for trees of three nodes a level instead of chains."""

    def propose(self, *asked):
        found = super().propose(*asked)
        return {name: msgspec.structs.replace(guess, nodes=3 * guess.ahead) for name, guess in found.items()}


class Journal:
    def append(self, records):
        pass


def ask(runner, store, asked, speculator=None, running=16):
    """(tokens, logprobs) of each request, the sum of usage, and the number of steps."""
    runner.run(StepPlan(0, (), evict=tuple(runner.adapters.resident)))
    schedule = ScheduleConfig(token_budget=128, max_running=running, max_context=128)
    cache = KvCache.alone(CacheConfig(page_size=runner.pool.layout.page_size, pages=512))
    scheduler = Scheduler(schedule, cache, Residency(Budget(1 << 30)), runner.end_tokens, runner.vocab_size)

    def footprint(digest):
        return Footprint((store.size(digest),))

    engine = Engine(scheduler, runner, Journal(), StopWatch(None), footprint, speculator)  # nobody has stop strings
    for digest in {submit.adapter for submit in asked if submit.adapter}:
        engine.warm(digest)
    while engine.has_work:  # so that steps are counted, and not how long loads take
        engine.step(0.0)
    for submit in asked:
        assert engine.submit(submit, 0.0) is None
    told, logprobs, drafted, accepted, steps = {}, {}, 0, 0, 0
    while engine.has_work:
        steps += 1
        for event in engine.step(float(steps)):
            if isinstance(event, Tokens):
                told.setdefault((event.request_id, event.choice), []).extend(event.tokens)
                logprobs.setdefault((event.request_id, event.choice), []).extend(event.logprobs or ())
            elif isinstance(event, Finished):
                assert event.reason in ("stop", "length"), event
                drafted, accepted = drafted + event.usage.drafted, accepted + event.usage.accepted
    return told, logprobs, (drafted, accepted), steps


RANKS = (4, 16, 33)


def adapter_of(make_adapter, rank):
    return make_adapter("llama", seed=rank, r=rank, target_modules=["q_proj", "v_proj", "down_proj"])


@pytest.fixture(scope="module")
def world(serve, make_adapter, bases, engine_config):
    """A model, three adapters, and a runner whose draft model is the target itself in bf16: mostly right."""
    served = serve("llama", kv_dtype="int8")
    digests = [served.add(adapter_of(make_adapter, rank)) for rank in RANKS]
    changes = {"model_dir": bases("llama"), "kv_dtype": "int8", "speculate": f"auto:{bases('llama')}"}
    guessing = ModelRunner(dataclasses.replace(engine_config, **changes))
    yield served, guessing, digests
    guessing.close()


def requests(digests, options, count=10, new=24):
    rng = random.Random(repr(sorted(options)))
    for i in range(count):
        adapter = rng.choice([None, *digests])
        prompt = [rng.randrange(101) for _ in range(rng.randrange(1, 40))]
        if i % 2:
            prompt = (prompt[:6] * 8)[:40]
        sampling = Sampling(max_tokens=new, seed=i, ignore_eos=i % 3 == 0, n=2 if i == 4 else 1, **options)
        yield Submit(f"r{i}", tuple(prompt), sampling, adapter or bytes(32), adapter, "t")


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("proposer", PROPOSERS)
def test_the_same_tokens_with_and_without_guesses(world, sampling, proposer):
    served, guessing, digests = world
    asked = list(requests(digests, SAMPLINGS[sampling]))
    plain, plain_logprobs, _, steps = ask(served.runner, served.store, asked)
    lookup, model = PROPOSERS[proposer]
    for fixed in (1, 5):
        speculator = (Bushy if proposer == "tree" else Speculator)(lookup, model, fixed=fixed)
        told, logprobs, (drafted, accepted), fewer = ask(guessing, served.store, asked, speculator)
        assert told == plain
        for name, entries in logprobs.items():
            for entry, expected in zip(entries, plain_logprobs[name], strict=True):
                assert entry.token == expected.token
                assert [token for token, _ in entry.top] == [token for token, _ in expected.top]
                assert entry.logprob == pytest.approx(expected.logprob, abs=1e-3)  # int8 KV rounds on either side
        assert 0 <= accepted <= drafted
        if model:
            assert accepted > 0
            assert fewer < steps


def test_loras_of_the_draft_model_make_it_follow_the_adapters(world, bases, make_adapter, engine_config, tmp_path):
    """The draft model is the target, and has its adapters too: as right for them as for the base."""
    served, guessing, digests = world
    draft = tmp_path / "draft"
    shutil.copytree(bases("llama"), draft)
    spec = BaseSpec.from_config(json.loads((draft / "config.json").read_bytes()), digest_model(draft))
    for rank in RANKS:
        report = validate(adapter_of(make_adapter, rank), spec, store=LocalStore(adapters_of(draft)))
        assert report.manifest.digest in digests
        register(draft, report.manifest.digest, report.manifest.digest)
    asked = [submit for submit in requests(digests, SAMPLINGS["greedy"], count=9) if submit.adapter]
    changes = {"model_dir": bases("llama"), "kv_dtype": "int8", "speculate": f"draft:{draft}"}
    following = ModelRunner(dataclasses.replace(engine_config, **changes))
    told, _, (drafted, accepted), _ = ask(following, served.store, asked, Speculator(False, "draft", fixed=4))
    following.close()
    plain, _, (other_drafted, other_accepted), _ = ask(
        guessing, served.store, asked, Speculator(False, "draft", fixed=4)
    )
    assert told == plain
    assert accepted / drafted > 0.8 > 0.4 > other_accepted / other_drafted


def test_a_draft_of_the_base_itself_is_nearly_always_right_for_the_base(world):
    served, guessing, _ = world
    asked = list(requests([], SAMPLINGS["greedy"], count=6))
    _, _, (drafted, accepted), _ = ask(guessing, served.store, asked, Speculator(False, "draft", fixed=4))
    assert accepted / drafted > 0.85


def test_kv_after_a_draft_is_that_of_plain_decoding(world, serve):
    """Prefill of what was generated, on pages that speculation wrote, gives the logits of fresh pages."""
    served, guessing, digests = world
    (submit,) = requests(digests, SAMPLINGS["greedy"], count=1)
    told, _, _, _ = ask(guessing, served.store, [submit], Speculator(True, "draft", fixed=4), running=1)
    kv = [torch.stack([layer.k.float(), layer.v.float()]).clone() for layer in guessing.pool.layers]
    again, _, _, _ = ask(guessing, served.store, [submit], running=1)
    assert told == again
    size = guessing.pool.layout.page_size
    written = len(submit.prompt) + len(told["r0", 0]) - 1
    for before, layer in zip(kv, guessing.pool.layers, strict=True):
        after = torch.stack([layer.k.float(), layer.v.float()])
        for position in range(written):
            page = position // size  # a fresh scheduler hands out pages from 0 upwards, in order
            assert torch.equal(before[:, page, :, position % size], after[:, page, :, position % size])


def test_a_rejected_guess_is_not_taken_for_the_drafts_own_text(world):
    """A step that asks for no guesses leaves rejected ones behind; the next guesses do not build on them."""
    _, guessing, _ = world
    drafter = guessing._proposer
    draw = Draw(Sampling(max_tokens=50, temperature=0.0), 0, 6, 3, [5, 6, 7, 8, 9, 10])
    pages = list(range(12))
    drafter.follow([Row(77, (5, 6, 7, 8, 9, 10), 0, pages, None, draw, None, 4)], [RowResult((11,))], None)
    assert drafter._known[77] == (0, 7 + 3)  # the text, and three of four guesses
    judged = Row(77, (11,), 6, pages, None, after(draw, (11,)), DraftTree.chain([90, 91, 92, 93], kind="draft"))
    drafter.follow([judged], [RowResult((12,), accepted=0)], None)
    assert drafter._known[77] == (0, 7)
    drafter.follow([Row(77, (40, 41), 2, pages, None, None)], [RowResult()], None)
    assert 77 not in drafter._known, "computed again, perhaps on other pages"


def test_a_shared_beginning_is_computed_once_by_the_draft_model_too(world):
    """Pages that another sequence filled are taken as they are; after somebody else wrote to one, they are not."""
    _, guessing, _ = world
    drafter, size = guessing._proposer, guessing.pool.layout.page_size
    text = [3 + i % 90 for i in range(3 * size + 2)]
    draw = Draw(Sampling(max_tokens=50, temperature=0.0), 0, len(text), 3, text)

    def guess(sequence, pages):
        row = Row(sequence, text, 0, pages, None, draw, None, 2)
        begins = drafter._view(row, draw).end
        drafter.follow([row], [RowResult((11,))], None)
        return begins

    assert guess(501, [1, 2, 3, 4, 5]) == 0
    assert guess(502, [1, 2, 3, 6, 7]) == 3 * size
    other = Draw(Sampling(max_tokens=50, temperature=0.0), 0, 2, 1, [9, 9])
    drafter.follow([Row(503, [9, 9], 0, [2, 8], None, other, None, 2)], [RowResult((11,))], None)
    assert guess(504, [1, 2, 3, 6, 7]) == size


def test_a_text_that_is_not_followed_is_seen_by_the_draft_model_from_a_late_page_on(world):
    """The guesses are those for the text's end alone, and the end is not taken for the text's beginning."""
    _, guessing, _ = world
    drafter, size = guessing._proposer, guessing.pool.layout.page_size
    text = [3 + (7 * i) % 90 for i in range(20 * size + 2)]

    def guess(sequence, tokens, first, follow):
        draw = Draw(Sampling(max_tokens=50, temperature=0.0), 0, len(tokens), 3, tokens)
        pages = list(range(first, first + len(tokens) // size + 4))
        row = Row(sequence, tokens, 0, pages, None, draw, None, 4, follow=follow)
        (proposal,) = drafter.follow([row], [RowResult((11,))], None)
        return proposal.tree.tokens

    late = guess(601, text, 30, follow=False)
    begin = drafter._known[601].begin
    assert begin % size == 0
    assert 0 < len(text) - begin <= 32 + size
    assert late == guess(602, text[begin:], 60, follow=True)
    whole = guess(603, text, 30, follow=True)
    assert drafter._known[603].begin == 0
    assert guess(604, text, 90, follow=True) == whole
