"""Our decoder gives transformers' logits, for every supported architecture and each of its options."""

import pytest
import torch

VARIANTS = (
    "llama",
    "llama-rope3-tied",
    "llama-biases-linear",
    "mistral",
    "mistral-window",
    "qwen2",
    "qwen2-tied",
    "qwen3",
    "qwen3-bias-tied",
)


@pytest.mark.parametrize("variant", VARIANTS)
def test_fp32_logits_are_transformers_logits(variant, serve, oracle, prompts):
    ours = serve(variant).driver.logits(prompts)
    theirs = oracle(variant, prompts)
    assert theirs.std() > 0.5, "logits this small would hide a difference"
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_int8_kv_moves_logits_by_little(variant, serve, oracle, prompts):
    """Tolerance: 3 % of the logits' spread on average, 15 % for the worst of 700."""
    ours = serve(variant, kv_dtype="int8").driver.logits(prompts)
    theirs = oracle(variant, prompts)
    off = (ours - theirs).abs() / theirs.std()
    assert off.mean() < 0.03
    assert off.max() < 0.15


@pytest.mark.parametrize("variant", ["llama", "mistral", "qwen2", "qwen3"])
def test_bf16_logits_are_as_close_to_exact_as_transformers_bf16(variant, serve, oracle, prompts):
    """bf16 rounds at 2**-9 in three layers. Tolerance: 4 % of the spread on average, and no worse than theirs."""
    exact = oracle(variant, prompts)
    ours = (serve(variant, dtype="bfloat16").driver.logits(prompts) - exact).abs().mean() / exact.std()
    theirs = (oracle(variant, prompts, dtype=torch.bfloat16) - exact).abs().mean() / exact.std()
    assert ours < 0.04
    assert ours < 1.2 * theirs


def test_small_scale_groups_bring_int8_kv_closer_to_exact(serve, oracle, prompts):
    exact = oracle("llama", prompts)
    whole, grouped = (
        (serve("llama", kv_dtype="int8", kv_group=group).driver.logits(prompts) - exact).abs().mean()
        for group in (0, 4)
    )
    assert grouped < 0.8 * whole
