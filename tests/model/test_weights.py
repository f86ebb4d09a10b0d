"""Every tensor of a checkpoint is there, fits and is used, or loading names the ones that do not."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tenantry.kernels.ops import select_ops
from tenantry.kernels.quant.schemes import SCHEMES
from tenantry.runtime.model.config import ModelConfig
from tenantry.runtime.model.driver import Driver
from tenantry.runtime.model.errors import WeightsInvalid
from tenantry.runtime.model.runner import ModelRunner
from tenantry.runtime.model.weights import load_weights

PROMPTS = [[1, 2, 3], [4] * 9]


def load(directory, progress=None):
    config = ModelConfig.from_directory(directory)
    return load_weights(directory, config, torch.float32, select_ops("cpu"), progress)


@pytest.fixture
def checkpoint(bases, tmp_path):
    """An untied llama that the test may change: (directory, tensors, save)."""
    for name in ("config.json", "generation_config.json"):
        (tmp_path / name).write_bytes((bases("llama") / name).read_bytes())
    tensors = load_file(bases("llama") / "model.safetensors")
    return tmp_path, tensors, lambda: save_file(tensors, tmp_path / "model.safetensors")


def test_a_sharded_checkpoint_is_the_same_model(bases, tmp_path, engine_config, serve):
    AutoModelForCausalLM.from_pretrained(bases("qwen3")).save_pretrained(tmp_path, max_shard_size="60KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    runner = ModelRunner(dataclasses.replace(engine_config, model_dir=tmp_path))
    torch.testing.assert_close(Driver(runner).logits(PROMPTS), serve("qwen3").driver.logits(PROMPTS), rtol=0, atol=0)
    runner.close()


@pytest.mark.parametrize(
    ("change", "message", "name"),
    [
        (lambda t: t.pop("model.layers.1.mlp.up_proj.weight"), "missing", "model.layers.1.mlp.up_proj.weight"),
        (lambda t: t.pop("lm_head.weight"), "missing", "lm_head.weight"),
        (lambda t: t.update({"model.layers.3.mlp.up_proj.weight": torch.zeros(2)}), "not expected", "model.layers.3"),
        (
            lambda t: t.update({"model.layers.0.self_attn.q_proj.bias": torch.zeros(64)}),
            "not expected",
            "q_proj.bias",
        ),
        (lambda t: t.update({"model.norm.weight": torch.ones(65)}), "shape", "model.norm.weight"),
        (lambda t: t.update({"model.norm.weight": torch.ones(64, dtype=torch.int32)}), "int32", "model.norm.weight"),
    ],
)
def test_tensors_at_fault_are_named(change, message, name, checkpoint):
    directory, tensors, save = checkpoint
    change(tensors)
    save()
    with pytest.raises(WeightsInvalid, match=message) as invalid:
        load(directory)
    assert len(invalid.value.names) == 1
    assert name in invalid.value.names[0]


def test_what_old_checkpoints_store_of_the_configuration_is_ignored(checkpoint):
    directory, tensors, save = checkpoint
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(8)
    save()
    assert len(load(directory).layers) == 3


@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"PK\x03\x04"])
def test_a_file_that_is_not_safetensors_is_refused(content, checkpoint):
    directory, _, _ = checkpoint
    (directory / "model.safetensors").write_bytes(content)
    with pytest.raises(WeightsInvalid, match=r"model\.safetensors"):
        load(directory)


@pytest.mark.parametrize(
    "index", [{}, [], {"weight_map": {"a": "../x.safetensors"}}, {"weight_map": {"a": "absent.safetensors"}}]
)
def test_an_index_that_leads_nowhere_is_refused(index, checkpoint):
    directory, _, save = checkpoint
    save()
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsInvalid):
        load(directory)


def test_a_loaded_model_does_not_change_with_its_file(checkpoint, engine_config):
    directory, _, save = checkpoint
    save()
    runner = ModelRunner(dataclasses.replace(engine_config, model_dir=directory))
    before = Driver(runner).logits(PROMPTS)
    path = directory / "model.safetensors"
    with path.open("r+b") as file:
        file.seek(-100_000, 2)
        file.write(b"\0" * 100_000)
    assert torch.equal(Driver(runner).logits(PROMPTS), before)
    runner.close()


def test_loading_tells_how_far_it_is(checkpoint):
    directory, _, save = checkpoint
    save()
    told = []
    load(directory, lambda *what: told.append(what))
    assert told == [("weights", done, 3) for done in range(4)]


@pytest.mark.parametrize("scheme", SCHEMES[1:])
@pytest.mark.parametrize("variant", ["qwen2", "llama"])
def test_quantised_weights_stay_near_the_checkpoints_logits(scheme, variant, serve):
    """Random weights are the hardest to quantise: what counts is that each scheme errs by its own step, no more."""
    exact = serve(variant).driver.logits(PROMPTS)
    served = serve(variant, weights=scheme)
    error = (served.driver.logits(PROMPTS) - exact).norm() / exact.norm()
    assert 1e-4 < error < {"w8a16": 0.02, "w8a8": 0.05, "w4a16": 0.25}[scheme]
    assert served.runner.weight_bytes < serve(variant).runner.weight_bytes
