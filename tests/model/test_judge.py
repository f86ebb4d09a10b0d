"""Verdicts in a step: rejection keeps the distribution through the noise that engines have; typical does not."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tenantry.kernels.ops import REFERENCE
from tenantry.kernels.sampling.reference import distribution
from tenantry.runtime.messages import Sampling
from tenantry.runtime.model.candidates import drawn
from tenantry.runtime.model.decoder import Output
from tenantry.runtime.model.judge import NOT_FINITE, NOTHING_ALLOWED, Judge, drawn_from
from tenantry.runtime.model.proposer import Proposal
from tenantry.runtime.model.sampler import spec_of
from tenantry.runtime.model.spine import Spine
from tenantry.runtime.plan import Draw, Row, after
from tenantry.runtime.speculative.tree import ROOT, DraftTree, keep

VOCAB = 6
NOISE = np.random.default_rng(1)
TARGET = NOISE.normal(0, 1.2, (VOCAB + 1, VOCAB)).astype(np.float32)
DRAFTER = TARGET + NOISE.normal(0, 0.8, TARGET.shape).astype(np.float32)


def draw_of(sampling, text=(1, 2)):
    return Draw(sampling, 0, len(text), 2, list(text))


def guessed(draw, levels, nodes):
    """What a stochastic draft model would propose, whose logits hang on the last token alone."""
    spine = Spine(draw, levels, nodes, stochastic=True)
    while not spine.ended:
        last = spine.path[-1] if spine.path else VOCAB
        tokens, q = drawn(DRAFTER[last], spec_of(after(draw, spine.path)), spine.width)
        spine.grow([(token, 1.0) for token in tokens], torch.from_numpy(q))
    found = spine.proposal("draft")
    assert found is not None
    return found


def judged(judge, draw, draft, sequence=1):
    logits = torch.from_numpy(np.stack([TARGET[VOCAB], *(TARGET[token] for token in draft.tokens)]))
    row = Row(sequence, (2,), len(draw.history) - 1, [0], None, draw, draft)
    count = 1 + len(draft.tokens)
    output = Output(logits, torch.ones(count, dtype=torch.bool), torch.zeros(count, 0))
    (result,) = judge.judge(judge.ask([row], output))
    return result


OPTIONS = {
    "plain": {},
    "filtered": {"temperature": 0.7, "top_k": 5, "top_p": 0.9},
    "penalties": {"repetition_penalty": 1.5, "presence_penalty": 0.6, "logit_bias": ((3, 1.0),)},
}


@pytest.mark.parametrize(("options", "nodes"), [("plain", 2), ("filtered", 5), ("penalties", 5)])
def test_rejection_keeps_the_distribution_of_pairs(options, nodes):
    """Two tokens in a row, over many seeds: chi-square against what plain drawing has."""
    judge, counts, rounds = Judge(REFERENCE, "reject"), np.zeros((VOCAB, VOCAB)), 2000
    stood = 0
    for seed in range(rounds):
        draw = draw_of(Sampling(max_tokens=9, seed=seed, **{"temperature": 1.0} | OPTIONS[options]))
        proposal = guessed(draw, 2, nodes)
        assert 2 <= len(proposal.tree.tokens) <= nodes
        row = Row(1, (2,), 1, [0], None, draw)
        judge.remember([row], [proposal])
        result = judged(judge, draw, proposal.tree)
        stood += result.accepted
        tokens = list(result.tokens[:2])
        if len(tokens) == 1:  # the next step
            line = distribution(TARGET[tokens[0]], spec_of(after(draw, tokens)))
            tokens.append(int(np.random.default_rng(seed).choice(VOCAB, p=line)))
        counts[tuple(tokens)] += 1
    draw = draw_of(Sampling(max_tokens=9, **{"temperature": 1.0} | OPTIONS[options]))
    first = distribution(TARGET[VOCAB], spec_of(draw))
    second = np.stack([distribution(TARGET[x], spec_of(after(draw, [x]))) for x in range(VOCAB)])
    expected = first[:, None] * second * rounds
    often = expected > 5
    assert counts[expected == 0].sum() == 0
    k = int(often.sum()) - 1
    assert ((counts - expected) ** 2 / np.maximum(expected, 1e-9))[often].sum() < k + 3.5 * (2 * k) ** 0.5 + 4
    assert stood > rounds / 4


def test_rejection_lets_more_stand_than_matching_noise_of_its_own_would():
    kept = dict.fromkeys(("reject", "sample"), 0)
    for verify in kept:
        judge = Judge(REFERENCE, verify)
        for seed in range(600):
            draw = draw_of(Sampling(max_tokens=9, seed=seed, temperature=1.0))
            proposal = guessed(draw, 2, 2)
            judge.remember([Row(1, (2,), 1, [0], None, draw)], [proposal])
            kept[verify] += judged(judge, draw, proposal.tree).accepted
    assert kept["reject"] > 1.3 * kept["sample"]


def test_a_draft_whose_q_is_forgotten_is_judged_by_the_positions_own_noise():
    judge, plain = Judge(REFERENCE, "reject"), Judge(REFERENCE)
    for seed in range(50):
        draw = draw_of(Sampling(max_tokens=9, seed=seed, temperature=1.0))
        proposal = guessed(draw, 2, 4)
        judge.remember([Row(2, (2,), 1, [0], None, draw)], [proposal])  # another sequence's
        assert judged(judge, draw, proposal.tree) == judged(plain, draw, proposal.tree)


def test_a_cut_draft_keeps_its_q():
    q = torch.arange(20.0).view(5, 4)
    proposal = Proposal(DraftTree((1, 2, 1, 3), (ROOT, ROOT, 0, 0), (), "draft"), q)
    cut = keep(proposal.tree, [0, 2])
    found = drawn_from(proposal, cut)
    assert found is not None
    assert found.tolist() == q[[0, 1, 3]].tolist()
    assert drawn_from(proposal, DraftTree((1, 0), (ROOT, 0), (), "draft")) is None
    assert drawn_from(proposal, DraftTree((1,), (ROOT,), (), "ngram")) is None


@pytest.mark.parametrize("verify", ["reject", "typical"])
def test_greedy_rows_are_judged_as_ever(verify):
    draw = draw_of(Sampling(max_tokens=9, temperature=0.0, logprobs=2))
    right = int(TARGET[VOCAB].argmax())
    draft = DraftTree((0 if right else 1, right, int(TARGET[right].argmax())), (ROOT, ROOT, 1))
    result = judged(Judge(REFERENCE, verify), draw, draft)
    assert result == judged(Judge(REFERENCE), draw, draft)
    assert result.accepted == 2


def test_typical_lets_a_plausible_guess_stand_whatever_was_drawn_and_tells_its_logprob():
    plausible = int(np.argsort(TARGET[VOCAB])[-2])
    draft, judge, ends = DraftTree((plausible,), (ROOT,)), Judge(REFERENCE, "typical"), set()
    for seed in range(40):
        draw = draw_of(Sampling(max_tokens=9, seed=seed, temperature=1.0, logprobs=3))
        result = judged(judge, draw, draft)
        assert result.accepted == 1
        assert result.tokens[0] == plausible
        ends.add(result.tokens[1])
        logits = torch.from_numpy(TARGET[VOCAB])
        assert result.logprobs is not None
        assert result.logprobs[0].logprob == pytest.approx(float(logits.log_softmax(0)[plausible]), abs=1e-5)
        assert [token for token, _ in result.logprobs[0].top] == logits.topk(3).indices.tolist()
    assert len(ends) > 2, "what comes last is still drawn"


def test_overflow_and_empty_draws_are_faults_of_their_row_alone():
    judge = Judge(REFERENCE, "reject")
    draw = draw_of(Sampling(max_tokens=9, temperature=1.0))
    logits = torch.from_numpy(TARGET[:2].copy())
    logits[1] = float("nan")
    rows = [Row(i, (2,), 1, [0], None, draw) for i in range(2)]
    rows.append(SimpleNamespace(sequence=3, tokens=(1,), draw=None, draft=None))
    finite = torch.tensor([True, True, False])
    results = judge.judge(judge.ask(rows, Output(logits, finite, torch.zeros(3, 0))))
    assert results[0].fault is None
    assert results[1].fault == NOTHING_ALLOWED
    assert results[2].fault == NOT_FINITE
