"""A config.json is understood in full, or refused by the name of the field that is not."""

import json
import math

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from tenantry.runtime.model.config import ModelConfig
from tenantry.runtime.model.errors import ModelUnsupported
from tenantry.runtime.model.rope import Llama3Scaling, Rope

LLAMA = {
    "model_type": "llama",
    "vocab_size": 1000,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "eos_token_id": 2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def read(tmp_path, generation=None, **changes) -> ModelConfig:
    config = {key: value for key, value in (LLAMA | changes).items() if value != "absent"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    if generation is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    return ModelConfig.from_directory(tmp_path)


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("model_type", {"model_type": "gemma"}),
        ("model_type", {"model_type": "absent"}),
        ("hidden_size", {"hidden_size": "64"}),
        ("hidden_size", {"hidden_size": True}),
        ("num_hidden_layers", {"num_hidden_layers": 0}),
        ("num_hidden_layers", {"num_hidden_layers": "absent"}),
        ("num_key_value_heads", {"num_key_value_heads": 3}),
        ("num_key_value_heads", {"model_type": "mistral", "num_key_value_heads": "absent"}),
        ("head_dim", {"head_dim": 15}),
        ("rms_norm_eps", {"rms_norm_eps": 0}),
        ("hidden_act", {"hidden_act": "gelu"}),
        ("tie_word_embeddings", {"tie_word_embeddings": "yes"}),
        ("mlp_bias", {"model_type": "qwen2", "mlp_bias": True}),
        ("attention_bias", {"model_type": "mistral", "attention_bias": True}),
        ("attention_bias", {"model_type": "qwen2", "attention_bias": False}),
        ("use_sliding_window", {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 32}),
        ("layer_types", {"model_type": "qwen3", "layer_types": ["full_attention", "sliding_attention"]}),
        ("quantization_config", {"quantization_config": {"bits": 4}}),
        ("auto_map", {"auto_map": {"AutoModelForCausalLM": "modeling.Mine"}}),
        ("logit_scale", {"logit_scale": 0.5}),
        ("rope_parameters.rope_type", {"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}),
        ("rope_scaling.rope_type", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}),
        ("rope_scaling.rope_type", {"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}),
        ("rope_scaling.factor", {"rope_scaling": {"type": "linear"}}),
        (
            "rope_scaling.type",
            {"rope_scaling": {"type": "linear", "rope_type": "llama3"} | LLAMA3 | {"type": "linear"}},
        ),
        ("rope_scaling.low_freq_factor", {"rope_scaling": LLAMA3 | {"low_freq_factor": None}}),
        ("rope_scaling.high_freq_factor", {"rope_scaling": LLAMA3 | {"high_freq_factor": 0.5}}),
        ("rope_scaling.beta_fast", {"rope_scaling": LLAMA3 | {"beta_fast": 32}}),
        ("rope_parameters.partial_rotary_factor", {"rope_parameters": {"partial_rotary_factor": 0.5}}),
        ("rope_theta", {"rope_theta": 5e5, "rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}}),
        ("rope_scaling", {"rope_parameters": {"rope_type": "default"}, "rope_scaling": LLAMA3}),
        ("eos_token_id", {"eos_token_id": 1000}),
        ("eos_token_id", {"eos_token_id": "</s>"}),
    ],
)
def test_what_would_change_the_arithmetic_is_refused_by_name(field, changes, tmp_path):
    with pytest.raises(ModelUnsupported) as refused:
        read(tmp_path, **changes)
    assert refused.value.field == field


@pytest.mark.parametrize("content", ["{", "[]", "\xff", "[" * 100_000])
def test_a_config_that_is_no_object_is_refused(content, tmp_path):
    (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ModelUnsupported, match=r"config\.json"):
        ModelConfig.from_directory(tmp_path)


def test_a_directory_without_a_config_is_refused(tmp_path):
    with pytest.raises(ModelUnsupported, match="no such file"):
        ModelConfig.from_directory(tmp_path)


@pytest.mark.parametrize(
    ("changes", "rope"),
    [
        ({}, Rope(1e4)),
        ({"rope_theta": 5e5}, Rope(5e5)),
        ({"rope_theta": 5e5, "rope_scaling": None}, Rope(5e5)),
        ({"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}}, Rope(1e6)),
        ({"rope_theta": 1e6, "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}}, Rope(1e6)),
        ({"rope_theta": 5e5, "rope_scaling": LLAMA3}, Rope(5e5, llama3=Llama3Scaling(8.0, 1.0, 4.0, 64.0))),
        ({"rope_parameters": {"rope_theta": 5e5} | LLAMA3}, Rope(5e5, llama3=Llama3Scaling(8.0, 1.0, 4.0, 64.0))),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, Rope(1e4, linear=2.0)),
    ],
)
def test_both_spellings_of_rope_are_read(changes, rope, tmp_path):
    assert read(tmp_path, **changes).rope == rope


@pytest.mark.parametrize("kind", ["default", "linear", "llama3"])
def test_rotary_frequencies_are_transformers(kind):
    parameters = {"rope_theta": 5e5} | ({"rope_type": "linear", "factor": 3.0} if kind == "linear" else LLAMA3)
    ours = Rope(5e5, llama3=Llama3Scaling(8.0, 1.0, 4.0, 64.0)) if kind == "llama3" else Rope(5e5, linear=3.0)
    if kind == "default":
        theirs, ours = 5e5 ** -(torch.arange(0, 16, 2) / 16), Rope(5e5)
    else:
        config = LlamaConfig(hidden_size=64, num_attention_heads=4, rope_parameters=parameters)
        theirs, _ = ROPE_INIT_FUNCTIONS[kind](config)
    torch.testing.assert_close(ours.frequencies(16), theirs)
    cos, sin = ours.tables(16, 40)
    torch.testing.assert_close(cos[39, 0, :8], (39 * theirs).cos(), rtol=0, atol=1e-5)
    torch.testing.assert_close(sin[39, 0], torch.cat((-(39 * theirs).sin(), (39 * theirs).sin())), rtol=0, atol=1e-5)
    assert math.isclose(cos[0, 0].sum(), 16)


@pytest.mark.parametrize(
    ("own", "generation", "expected"),
    [
        (2, None, (2,)),
        ([9, 2, 9], None, (2, 9)),
        (None, None, ()),
        (2, {"eos_token_id": [5, 4]}, (4, 5)),
        (2, {"temperature": 0.7}, (2,)),
    ],
)
def test_end_tokens_come_from_the_generation_config_first(own, generation, expected, tmp_path):
    assert read(tmp_path, generation, eos_token_id=own).end_tokens == expected


def test_a_window_limits_the_context_to_where_it_changes_nothing(tmp_path):
    assert read(tmp_path, model_type="mistral", sliding_window=128).max_context == 128
    assert read(tmp_path, model_type="mistral", sliding_window=None).max_context == 512
    assert read(tmp_path, model_type="qwen2", sliding_window=64, use_sliding_window=False).max_context == 512


def test_inert_fields_and_nulls_are_accepted(tmp_path):
    config = read(
        tmp_path, torch_dtype="bfloat16", use_cache=False, future_field=None, _name_or_path="x", bos_token_id=1
    )
    assert (config.heads, config.kv_heads, config.head_dim, config.qkv_bias, config.tied) == (4, 2, 16, False, False)
