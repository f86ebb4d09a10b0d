"""Draft trees in the model: judged along every path, and what stands leaves pages as plain decoding does."""

import random

import pytest
import torch

from tenantry.runtime.messages import Sampling
from tenantry.runtime.model.driver import Driver
from tenantry.runtime.plan import Row, StepPlan
from tenantry.runtime.speculative.tree import ROOT, DraftTree, depths

SAMPLINGS = [
    Sampling(max_tokens=99, temperature=0.0),
    Sampling(max_tokens=99, temperature=1.0, seed=5, logprobs=2),
    Sampling(max_tokens=99, temperature=0.8, top_p=0.9, seed=7, repetition_penalty=1.3, presence_penalty=0.5),
]


@pytest.fixture(scope="module")
def served(serve, make_adapter):
    made = serve("llama", kv_dtype="int8")
    made.digests = [None, *(made.add(make_adapter("llama", seed=r, r=r)) for r in (4, 16))]
    return made


EXACT, BUSHY = 0, 3


def bushy(rng, truth, vocab, wrong=BUSHY):
    """A tree that holds `truth`, with wrong branches before, between and after its nodes."""
    tokens, parents, at = [], [], ROOT
    for token in truth:
        others = rng.sample([t for t in range(vocab) if t != token], rng.randint(0, wrong))
        siblings = [*others, token]
        rng.shuffle(siblings)
        first = len(tokens)
        for sibling in siblings:
            tokens.append(sibling)
            parents.append(at)
        right = first + siblings.index(token)
        for node in range(first, len(tokens)):
            if node != right and rng.random() < 0.3:
                tokens.append(rng.randrange(vocab))
                parents.append(node)
        at = right
    tree = DraftTree(tuple(tokens), tuple(parents))
    tree.check()
    return tree


def kv(runner, pages, count):
    """Bytes of the first `count` positions, layer by layer."""
    size, found = runner.pool.layout.page_size, []
    for layer in runner.pool.layers:
        for store in (layer.k, layer.v, layer.k_scale, layer.v_scale):
            assert store is not None
            found.append(torch.stack([store[pages[p // size], :, p % size] for p in range(count)]))
    return found


def with_draft(driver, track, draft):
    """One step of one row with a draft; the track goes on as the scheduler would have it."""
    room = track.computed + 1 + len(draft.tokens)
    while len(track.pages) * driver.page_size < room:
        track.pages.append(driver._next_page)
        driver._next_page += 1
    row = driver.row(track)
    row = Row(row.sequence, row.tokens, row.start, row.pages, row.adapter, row.draw, draft)
    (result,) = driver.runner.run(StepPlan(0, (row,))).rows
    track.computed += 1 + result.accepted
    track.tokens += result.tokens
    track.logprobs += result.logprobs or ()
    return result


@pytest.mark.parametrize("adapter", [0, 1, 2])
@pytest.mark.parametrize("sampling", range(3))
@pytest.mark.parametrize("wrong", [EXACT, BUSHY])
def test_a_tree_gives_plain_tokens_logprobs_and_pages(served, adapter, sampling, wrong):
    """A chain to the bit. Among wrong branches a node's path lies scattered over its chunk of slots, and attention
    adds it up in another order: a last bit may differ there, which now and then rounds a stored value otherwise."""
    rng, options = random.Random(100 * adapter + sampling), SAMPLINGS[sampling]
    driver, digest = Driver(served.runner), served.digests[adapter]
    prompt = [rng.randrange(101) for _ in range(13)]
    plain, guided = (driver.track(prompt, digest, options) for _ in range(2))
    driver.generate([plain], 40)
    driver.generate([guided], 1)
    while len(guided.generated) < 36:
        at = len(guided.tokens)
        depth = rng.randint(1, 4)
        draft = bushy(rng, plain.tokens[at : at + depth], 101, wrong)
        result = with_draft(driver, guided, draft)
        assert result.accepted == depth
        assert guided.tokens == plain.tokens[: len(guided.tokens)]
    for mine, theirs in zip(guided.logprobs, plain.logprobs, strict=False):
        assert mine.token == theirs.token
        assert mine.logprob == pytest.approx(theirs.logprob, abs=1e-3 if wrong else 0)
    computed = guided.computed
    for mine, theirs in zip(
        kv(driver.runner, guided.pages, computed), kv(driver.runner, plain.pages, computed), strict=True
    ):
        if wrong == EXACT:
            assert torch.equal(mine, theirs)
        step = 1 if mine.dtype == torch.int8 else 2e-3 * theirs.float().abs()  # two units of fp16 in its last place
        assert bool(((mine.float() - theirs.float()).abs() <= step).all())
        assert (mine != theirs).float().mean() < 0.01


def test_rows_with_trees_chains_and_prompts_share_a_step(served):
    rng, driver = random.Random(3), Driver(served.runner)
    prompts = [[rng.randrange(101) for _ in range(n)] for n in (5, 9, 14, 30)]
    adapters = [served.digests[i % 3] for i in range(4)]
    plain = [driver.track(p, a) for p, a in zip(prompts, adapters, strict=True)]
    driver.generate(plain, 12)
    mixed = [driver.track(p, a) for p, a in zip(prompts, adapters, strict=True)]
    driver.generate(mixed[:3], 2)
    drafts = [
        bushy(rng, plain[0].tokens[7:10], 101),
        DraftTree.chain(plain[1].tokens[11:14]),
        bushy(rng, [*plain[2].tokens[16:18], 100], 101, wrong=2),
        None,
    ]
    rows = []
    for track, draft in zip(mixed, drafts, strict=True):
        while len(track.pages) * driver.page_size < len(track.tokens) + 40:
            track.pages.append(driver._next_page)
            driver._next_page += 1
        row = driver.row(track)
        rows.append(Row(row.sequence, row.tokens, row.start, row.pages, row.adapter, row.draw, draft))
    results = driver.runner.run(StepPlan(0, tuple(rows))).rows
    for track, reference, result in zip(mixed, plain, results, strict=True):
        at = len(track.tokens)
        assert list(result.tokens) == reference.tokens[at : at + len(result.tokens)]
    assert [r.accepted for r in results[:2]] == [3, 3]
    assert results[2].accepted >= 2
    assert results[3].accepted == 0


def test_a_wrong_tree_costs_nothing_but_time(served):
    driver, rng = Driver(served.runner), random.Random(8)
    plain, guided = (driver.track([4, 5, 6]) for _ in range(2))
    driver.generate([plain], 9)
    driver.generate([guided], 1)
    for _ in range(8):
        truth = plain.tokens[len(guided.tokens)]
        wrong = [t for t in range(101) if t != truth]
        draft = DraftTree(tuple(rng.sample(wrong, 4)), (ROOT, ROOT, 0, 1))
        assert max(depths(draft)) == 2
        assert with_draft(driver, guided, draft).accepted == 0
    assert guided.tokens == plain.tokens
