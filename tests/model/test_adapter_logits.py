"""Adapters that PEFT saved give PEFT's logits: every architecture, every accepted feature, by the real path of
validation, canonical blob, store and background load."""

import pytest
import torch

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
FEATURES = {
    "rank-4-of-q-and-v": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
    "rank-17-of-all-attention": {"r": 17, "lora_alpha": 20, "target_modules": ATTENTION},
    "rank-64-of-all-linear": {"r": 64, "lora_alpha": 64, "target_modules": "all-linear"},
    "only-the-mlp": {"r": 8, "lora_alpha": 16, "target_modules": ["gate_proj", "up_proj", "down_proj"]},
    "only-up": {"r": 8, "lora_alpha": 16, "target_modules": ["up_proj"]},
    "only-k": {"r": 8, "lora_alpha": 16, "target_modules": ["k_proj"]},
    "rslora": {"r": 9, "lora_alpha": 6, "use_rslora": True, "target_modules": "all-linear"},
    "rank-pattern": {
        "r": 8,
        "lora_alpha": 8,
        "target_modules": "all-linear",
        "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.down_proj": 32},
    },
    "alpha-pattern": {
        "r": 8,
        "lora_alpha": 8,
        "target_modules": [*ATTENTION, "gate_proj"],
        "alpha_pattern": {"k_proj": 24, r"layers\.2\.self_attn\.o_proj": 1},
    },
    "layers-to-transform": {"r": 8, "lora_alpha": 16, "target_modules": ATTENTION, "layers_to_transform": [0, 2]},
    "regex-targets": {
        "r": 8,
        "lora_alpha": 16,
        "target_modules": r".*layers\.[12]\.(self_attn\.[qo]|mlp\.down)_proj",
    },
}


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("variant", ["llama-biases-linear", "mistral", "qwen2", "qwen3"])
def test_fp32_logits_are_peft_logits(variant, feature, serve, oracle, make_adapter, prompts):
    served, directory = serve(variant), make_adapter(variant, seed=len(feature), **FEATURES[feature])
    digest = served.add(directory)
    ours = served.driver.logits(prompts, digest)
    theirs = oracle(variant, prompts, directory)
    assert (theirs - oracle(variant, prompts)).abs().mean() > 0.01, "an adapter that does nothing shows nothing"
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_adapters_saved_in_half_precision_are_exact_in_an_fp32_engine(dtype, serve, oracle, make_adapter, prompts):
    served = serve("qwen2")
    directory = make_adapter("qwen2", dtype=dtype, r=8, target_modules="all-linear")
    ours = served.driver.logits(prompts, served.add(directory))
    torch.testing.assert_close(ours, oracle("qwen2", prompts, directory), rtol=0, atol=1e-4)


def test_bf16_adapter_logits_are_as_close_to_exact_as_peft_bf16(serve, oracle, make_adapter, prompts):
    served = serve("qwen2", dtype="bfloat16")
    directory = make_adapter("qwen2", r=16, target_modules="all-linear")
    exact = oracle("qwen2", prompts, directory)
    ours = (served.driver.logits(prompts, served.add(directory)) - exact).abs().mean() / exact.std()
    theirs = (oracle("qwen2", prompts, directory, dtype=torch.bfloat16) - exact).abs().mean() / exact.std()
    assert ours < 0.04
    assert ours < 1.2 * theirs


def test_int8_adapters_give_nearly_the_same_logits_in_a_quarter_of_fp32_bytes(serve, oracle, make_adapter, prompts):
    directory = make_adapter("qwen2", seed=7, r=16, target_modules="all-linear")
    exact = oracle("qwen2", prompts, directory)
    effect = (exact - oracle("qwen2", prompts)).abs().mean()
    took = {}
    for kind in ("native", "int8"):
        served = serve("qwen2", adapter_dtype=kind)
        before = served.runner.adapters.nbytes
        logits = served.driver.logits(prompts, served.add(directory))
        took[kind] = served.runner.adapters.nbytes - before
        assert 0 < (logits - exact).abs().mean() < (1e-4 if kind == "native" else 0.05 * effect)
    assert took["int8"] < 0.3 * took["native"]
