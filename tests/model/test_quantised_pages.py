"""Attention reads quantised pages on the first pass too, so a prefix found in the cache and one computed just now
cannot be told apart."""

import pytest
import torch

PROMPT = list(range(3, 3 + 37))


def assert_same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Up to fp32 noise, and the rare key that this noise rounds to the neighbouring int8."""
    off = (ours - theirs).abs()
    assert off.mean() < 5e-5
    assert off.max() < 1e-3


@pytest.fixture
def served(serve):
    return serve("llama", kv_dtype="int8")


def chunked(served, prompt, chunk) -> torch.Tensor:
    """Next-token logits after the prompt was computed in chunks."""
    track = served.driver.track(prompt)
    while len(track.tokens) - track.computed > chunk:
        served.driver.step([track], chunk)
    return served.runner.forward([served.driver.row(track)]).logits[0]


@pytest.mark.parametrize("chunk", [1, 2, 4, 9, 36])
def test_chunks_give_the_whole_prompts_logits(served, chunk):
    whole = served.driver.logits([PROMPT])[0]
    assert_same(chunked(served, PROMPT, chunk), whole)


def test_the_tolerance_above_would_show_unquantised_reading(served, serve):
    """The gap between quantised and exact pages is far above the noise that is allowed."""
    exact = serve("llama").driver.logits([PROMPT])[0]
    off = (served.driver.logits([PROMPT])[0] - exact).abs()
    assert off.mean() > 50 * 5e-5
    assert off.max() > 10 * 1e-3


@pytest.mark.parametrize("pages", [1, 4, 9])
def test_a_prefix_hit_gives_the_misss_logits(served, pages):
    """The first pages of another sequence with the same tokens stand in for computing them."""
    driver = served.driver
    first = driver.track(PROMPT)
    miss = served.runner.forward([driver.row(first)]).logits[0]
    hit = driver.track(PROMPT, pages=first.pages[:pages])
    logits = served.runner.forward([driver.row(hit)]).logits[0]
    assert hit.computed == pages * driver.page_size
    assert_same(logits, miss)


def test_a_prefix_of_other_tokens_is_not_the_same(served):
    """The pages are truly read: wrong ones give wrong logits."""
    driver = served.driver
    other = driver.track([t + 1 for t in PROMPT])
    right = driver.logits([PROMPT])[0]
    served.runner.forward([driver.row(other)])
    wrong = served.runner.forward([driver.row(driver.track(PROMPT, pages=other.pages[:4]))]).logits[0]
    assert (wrong - right).abs().max() > 0.1


def test_int8_pages_take_less_than_a_third_of_fp32(serve):
    """head_dim 16: 16 bytes and a 2-byte scale against 64."""
    int8, native = serve("llama", kv_dtype="int8").runner.pool, serve("llama").runner.pool
    assert int8.nbytes == 3 * 512 * 2 * 2 * 4 * (16 + 2)
    assert native.nbytes == 3 * 512 * 2 * 2 * 4 * 64
    held = sum(t.nbytes for layer in int8.layers for t in (layer.k, layer.v, layer.k_scale, layer.v_scale))
    assert held == int8.nbytes


def test_bf16_pages_lie_between_exact_and_quantised_ones(serve):
    """The comparison that the benchmarks make: two bytes a value, and a smaller error than one byte's."""
    exact = serve("llama").driver.logits([PROMPT])[0]
    errors = {kind: (serve("llama", kv_dtype=kind).driver.logits([PROMPT])[0] - exact).abs().mean().item()
              for kind in ("bfloat16", "int8")}  # fmt: skip
    assert 0 < errors["bfloat16"] < errors["int8"]
    native, half = (serve("llama", kv_dtype=kind).runner.pool.nbytes for kind in ("native", "bfloat16"))
    assert half * 2 == native
