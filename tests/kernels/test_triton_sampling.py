"""The Triton sampler draws what the full sort draws: filters, ties, edits, bad rows, chunk ends, any company."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tenantry.kernels.sampling import gpu, noise, packed, reference
from tenantry.kernels.sampling.spec import DrawSpec, SampleResult

pytestmark = pytest.mark.triton
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HISTORY = (3, 3, 5, 9, 9, 9, 77)
CHUNK = 64


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """So that a short vocabulary has many, and an end beside each."""
    monkeypatch.setattr(gpu, "CHUNK", CHUNK)


specs = st.builds(
    DrawSpec,
    seed=st.integers(-(2**63), 2**63 - 1),
    choice=st.integers(0, 127),
    position=st.integers(0, 10**6),
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 5, 40, 5000]),
    top_p=st.sampled_from([1.0, 0.95, 0.5, 0.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.9, 1.0]),
    presence_penalty=st.sampled_from([0.0, 1.5]),
    frequency_penalty=st.sampled_from([0.0, -0.5]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    logit_bias=st.sampled_from([(), ((7, 8.0), (3, -100.0))]),
    forbidden=st.sampled_from([(), (0, 1, 2), tuple(range(90))]),
    history=st.just(HISTORY),
    prompt_length=st.just(2),
    logprobs=st.sampled_from([None, None, 0, 4]),
)


def same(actual: SampleResult, expected: SampleResult) -> None:
    assert actual.ids == expected.ids
    assert actual.faulty == expected.faulty
    for mine, theirs in zip(actual.logprobs, expected.logprobs, strict=True):
        assert (mine is None) == (theirs is None)
        if mine and theirs:
            assert mine.logprob == pytest.approx(theirs.logprob, abs=2e-6)
            assert [i for i, _ in mine.top] == [i for i, _ in theirs.top]
            assert [p for _, p in mine.top] == pytest.approx([p for _, p in theirs.top], abs=2e-6)


def check(logits: torch.Tensor, wanted: list[DrawSpec]) -> SampleResult:
    logits = logits.to(DEVICE)
    before = logits.clone()
    result = gpu.sample(logits, wanted)
    same(result, reference.sample(logits, wanted))
    assert torch.equal(logits.nan_to_num(7e7), before.nan_to_num(7e7))
    return result


@settings(max_examples=25, deadline=None)
@given(
    st.lists(specs, min_size=1, max_size=3),
    st.sampled_from([0.05, 1.0, 6.0]),
    st.integers(0, 9),
    st.sampled_from([90, CHUNK * 2, CHUNK * 2 + 1, CHUNK * 3 - 1]),
    st.booleans(),
)
def test_it_draws_what_the_full_sort_draws(wanted, spread: float, seed: int, size: int, ties: bool):
    logits = torch.randn(len(wanted), size, generator=torch.Generator().manual_seed(seed)) * spread
    check((logits * 2).round() / 2 if ties else logits, wanted)


def test_noise_is_the_same_number_of_the_same_key():
    keys = [noise.key(seed, 1, 7) for seed in (0, -1, 2**63 - 1, 12345)]
    for key in keys:
        specs = [DrawSpec(seed=0, temperature=1.0)]
        made = packed.PackedSpecs.build(specs, 300, torch.device(DEVICE))
        made.ints[0, 0] = int(np.uint64(key).astype(np.int64))
        out = torch.empty((1, 5), dtype=torch.float64, device=DEVICE)
        zeros, least = torch.zeros((1, 300), device=DEVICE), torch.full((1,), -torch.inf, device=DEVICE).double()
        winners = torch.empty((1, 5), dtype=torch.int32, device=DEVICE)
        gpu.draw_kernel[(1, 5)](
            zeros, made.ints, made.floats, zeros, least, out, winners, 5,
            V=300, N=CHUNK, GOLDEN=noise.GOLDEN, FIRST=noise.FIRST, SECOND=noise.SECOND, **gpu.EXACT,
        )  # fmt: skip
        expected = noise.gumbel(key, np.arange(300))
        for chunk in range(5):
            part = expected[chunk * CHUNK : (chunk + 1) * CHUNK]
            assert out[0, chunk].item() == pytest.approx(part.max(), rel=1e-14)
            assert winners[0, chunk].item() == chunk * CHUNK + part.argmax()


@pytest.mark.parametrize("size", [1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 17])
def test_any_vocabulary_size(size: int):
    kinds = [{"temperature": 0.0}, {}, {"top_k": 3}, {"top_p": 0.7}, {"min_p": 0.2}, {"top_k": 9, "top_p": 0.8}]
    logits = torch.randn(len(kinds), size) * 3
    check(logits, [DrawSpec(seed=i, logprobs=2, **kind) for i, kind in enumerate(kinds)])


def test_equals_are_kept_together_and_the_lowest_of_them_is_greedy():
    row = torch.tensor([1.0, 3.0, -0.0, 3.0, 0.0] * 14)
    drawn = check(row.repeat(9, 1), [DrawSpec(seed=i, top_k=1, top_p=1 - i % 2 / 2) for i in range(9)]).ids
    assert len(set(drawn)) > 4
    assert all(token % 5 in (1, 3) for token in drawn)
    assert check(row.view(1, -1), [DrawSpec(temperature=0)]).ids == (1,)
    check(torch.zeros(3, 130), [DrawSpec(seed=i, top_p=0.5, top_k=4 * i) for i in range(3)])


@pytest.mark.parametrize(
    "values", [[1e30, -1e30, 3e38, -3e38], [1e-40, -1e-40, 0.0, 2e-45], [5.0, 5.0000005, 5.000001]]
)
def test_far_apart_and_close_together(values: list[float]):
    row = torch.tensor(values * 30)
    kinds = [{"top_k": k} for k in (1, 30, 31)] + [{"top_p": p} for p in (0.01, 0.34)]
    check(row.repeat(len(kinds), 1), [DrawSpec(seed=i, **kind) for i, kind in enumerate(kinds)])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("at", [0, 63, 64, 199])
def test_rows_that_are_not_finite_are_faulty_alone(bad: float, at: int):
    logits = torch.randn(4, 200)
    logits[1, at] = bad
    wanted = [DrawSpec(logprobs=1), DrawSpec(top_k=4, top_p=0.5, logprobs=1), DrawSpec(temperature=0), DrawSpec()]
    assert check(logits, wanted).faulty == (False, True, False, False)


def test_forbidding_every_token_is_a_fault_and_all_but_one_is_none():
    nothing = tuple(range(150))
    wanted = [DrawSpec(forbidden=nothing, top_p=0.5), DrawSpec(forbidden=nothing, temperature=0)]
    wanted += [
        DrawSpec(forbidden=nothing[:-1], **kind) for kind in ({}, {"top_k": 5}, {"top_p": 0.1}, {"min_p": 0.5})
    ]
    assert check(torch.randn(6, 150), wanted).ids == (-1, -1, 149, 149, 149, 149)


def test_more_edits_than_are_changed_at_once():
    bias = tuple((i, float(i % 7)) for i in range(0, 300, 2))
    spec = DrawSpec(temperature=0, logit_bias=bias, repetition_penalty=1.7, history=tuple(range(250)) * 2)
    check(torch.randn(3, 300), [spec, DrawSpec(), DrawSpec(logit_bias=bias, presence_penalty=1.0, history=(4,) * 9)])


def test_a_row_draws_the_same_in_any_company():
    logits = torch.randn(5, 130).to(DEVICE)
    wanted = [DrawSpec(seed=i, top_p=0.9 if i % 2 else 1.0, top_k=i % 3 * 7, logprobs=2) for i in range(5)]
    together = gpu.sample(logits, wanted)
    order = torch.randperm(5).tolist()
    mixed = gpu.sample(logits[order], [wanted[i] for i in order])
    assert mixed.ids == tuple(together.ids[i] for i in order)
    assert mixed.logprobs == tuple(together.logprobs[i] for i in order)
    assert all(gpu.sample(logits[i : i + 1], [wanted[i]]).ids[0] == together.ids[i] for i in range(5))


def test_a_token_outside_the_vocabulary_is_refused():
    with pytest.raises(IndexError, match="vocabulary"):
        gpu.sample(torch.zeros(1, 10, device=DEVICE), [DrawSpec(forbidden=(10,))])


@pytest.mark.parametrize("rows", [0, 3])
def test_other_flags_come_along_in_the_one_copy(rows: int):
    logits = torch.randn(rows, 200, device=DEVICE)
    wanted = [DrawSpec(seed=row, logprobs=2 if row == 1 else None) for row in range(rows)]
    flags = torch.tensor([True, False, True, True, False], device=DEVICE)
    drawn = gpu.draw(logits, wanted, flags)
    assert drawn.beside().tolist() == flags.tolist()
    if rows:
        same(drawn.result(), reference.sample(logits, wanted))
        assert drawn.ids.tolist() == list(drawn.result().ids)
