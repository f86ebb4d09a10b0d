"""Sampling: the fast path equals the full sort, noise follows the right distribution and depends on its key alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tenantry.kernels.ops import select_ops
from tenantry.kernels.sampling import cpu, noise, reference
from tenantry.kernels.sampling.spec import DrawSpec

VOCABULARY = 1000
HISTORY = (3, 3, 5, 9, 9, 9)


def one(logits: torch.Tensor, **spec) -> int:
    return cpu.sample(logits.view(1, -1), [DrawSpec(**spec)]).ids[0]


specs = st.builds(
    DrawSpec,
    seed=st.integers(-(2**63), 2**63 - 1),
    choice=st.integers(0, 127),
    position=st.integers(0, 10**6),
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 5, 300, 5000]),
    top_p=st.sampled_from([1.0, 0.95, 0.5, 0.01]),
    min_p=st.sampled_from([0.0, 0.05, 0.9]),
    presence_penalty=st.sampled_from([0.0, 1.5]),
    frequency_penalty=st.sampled_from([0.0, -0.5]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    logit_bias=st.sampled_from([(), ((7, 8.0), (3, -100.0))]),
    forbidden=st.sampled_from([(), (0, 1, 2)]),
    history=st.just(HISTORY),
    prompt_length=st.just(2),
    logprobs=st.sampled_from([None, 0, 4]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(specs, min_size=1, max_size=4), st.sampled_from([0.05, 1.0, 6.0]), st.integers(0, 9))
def test_the_fast_sampler_equals_the_full_sort(wanted, spread: float, seed: int):
    logits = torch.randn(len(wanted), VOCABULARY, generator=torch.Generator().manual_seed(seed)) * spread
    before = logits.clone()
    assert cpu.sample(logits, wanted) == reference.sample(logits, wanted)
    assert torch.equal(logits, before)


def test_draws_do_not_depend_on_the_batch():
    logits = torch.randn(40, VOCABULARY)
    wanted = [DrawSpec(seed=i, position=i * 7, top_p=0.9 if i % 2 else 1.0) for i in range(40)]
    together = cpu.sample(logits, wanted).ids
    order = torch.randperm(40).tolist()
    assert cpu.sample(logits[order], [wanted[i] for i in order]).ids == tuple(together[i] for i in order)
    assert tuple(cpu.sample(logits[i : i + 1], [wanted[i]]).ids[0] for i in range(40)) == together


def test_every_part_of_the_key_matters_and_nothing_else():
    keys = {noise.key(*parts) for parts in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (-1, 0, 0), (1, 1, 0)]}
    assert len(keys) == 6
    assert noise.key(2**63 - 1, 3, 4) == noise.key(2**63 - 1, 3, 4)
    some = np.array([5, 900], np.int64)
    assert (noise.gumbel(77, np.arange(1000))[some] == noise.gumbel(77, some)).all()


def chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    return float(((counts - expected)[expected > 0] ** 2 / expected[expected > 0]).sum())


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, 0), (0.5, 0), (1.0, 3)])
@pytest.mark.parametrize("vary", ["seed", "choice", "position"])
def test_draws_follow_the_distribution(temperature: float, top_k: int, vary: str):
    logits = torch.tensor([1.0, 0.5, 0.0, -0.5, -1.0, 2.0])
    count = 4000
    draws = [one(logits, temperature=temperature, top_k=top_k, **{vary: i}) for i in range(count)]
    scaled = logits / temperature
    if top_k:
        scaled[scaled < scaled.topk(top_k).values[-1]] = float("-inf")
    expected = scaled.double().softmax(0).numpy() * count
    counts = np.bincount(draws, minlength=6)
    assert counts[expected == 0].sum() == 0
    assert chi_square(counts, expected) < 25.7  # 5 degrees of freedom, p = 1e-4


def test_greedy_takes_the_lowest_of_equals():
    assert one(torch.tensor([0.0, 3.0, 1.0, 3.0]), temperature=0) == 1


def test_top_p_falls_back_when_candidates_do_not_cover_it():
    flat = torch.zeros(cpu.CANDIDATES * 4) + torch.rand(cpu.CANDIDATES * 4) * 1e-3
    drawn = {one(flat, top_p=0.9, seed=i) for i in range(300)}
    assert len(drawn) > cpu.CANDIDATES * 0.8
    assert not drawn & set(flat.argsort()[: cpu.CANDIDATES // 3].tolist())


def test_penalties_and_bias_follow_their_definitions():
    logits = torch.tensor([2.0, -2.0, 1.0, 1.0, 0.0])
    spec = {"temperature": 0, "logprobs": 0}
    assert one(logits, **spec, repetition_penalty=4.0, history=(0,)) == 2
    assert one(torch.tensor([-1.0, -2.0]), **spec, repetition_penalty=4.0, history=(0,)) == 1
    assert one(logits, **spec, presence_penalty=1.5, history=(0,), prompt_length=1) == 0
    assert one(logits, **spec, presence_penalty=1.5, history=(0,), prompt_length=0) == 2
    assert one(logits, **spec, frequency_penalty=0.6, history=(0,), prompt_length=0) == 0
    assert one(logits, **spec, frequency_penalty=0.6, history=(0, 0), prompt_length=0) == 2
    assert one(logits, **spec, logit_bias=((4, 2.5),)) == 4
    assert one(logits, **spec, forbidden=(0,)) == 2


def test_logprobs_are_of_the_distribution_the_model_gave():
    logits = torch.randn(1, 50)
    truth = logits[0].double().log_softmax(0)
    spec = DrawSpec(temperature=0, logit_bias=((11, 100.0),), logprobs=3)
    result = cpu.sample(logits, [spec])
    assert result.ids == (11,)
    (given,) = result.logprobs
    assert given.logprob == pytest.approx(truth[11].item(), abs=1e-6)
    best = truth.topk(3)
    assert [i for i, _ in given.top] == best.indices.tolist()
    assert [p for _, p in given.top] == pytest.approx(best.values.tolist(), abs=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_rows_that_are_not_finite_are_faulty_alone(bad: float):
    logits = torch.randn(3, 20)
    logits[1, 4] = bad
    result = cpu.sample(logits, [DrawSpec(logprobs=1)] * 3)
    assert result.faulty == (False, True, False)
    assert result.ids[1] == -1
    assert result.logprobs[1] is None


def test_forbidding_every_token_is_a_fault():
    result = cpu.sample(torch.randn(1, 4), [DrawSpec(forbidden=(0, 1, 2, 3))])
    assert result.faulty == (True,)


def test_asked_or_drawn_at_once_the_answer_is_the_same():
    logits, wanted = torch.randn(2, VOCABULARY), [DrawSpec(seed=1, logprobs=2), DrawSpec(temperature=0.0)]
    flags = torch.tensor([True, False, True])
    ops = select_ops("cpu")
    drawn = ops.draw(logits, wanted, flags)
    assert drawn.result() == ops.sample(logits, wanted)
    assert torch.equal(drawn.beside(), flags)
