"""The committed weights: small, plain safetensors, PEFT's format, and the variety the engine must serve."""

import json
import math

import pytest
from demo.draft_lora import digest
from demo.lora import BASE_NAME, RECIPES
from demo.tasks import TASKS
from safetensors import safe_open

from tenantry.adapters.base_digest import digest_model
from tenantry.adapters.store import LocalStore
from tenantry.runtime.model.heads.adapted import adapters_of, read_index

MiB = 1 << 20


def config(demo, name):
    return json.loads((demo / "adapters" / name / "adapter_config.json").read_text())


def shapes(path):
    """Tensor name -> (shape, dtype), read from the header alone."""
    with safe_open(path, "pt") as tensors:
        slices = {key: tensors.get_slice(key) for key in tensors.offset_keys()}
        return {key: (tuple(piece.get_shape()), piece.get_dtype()) for key, piece in slices.items()}


def test_everything_together_is_at_most_20_megabytes(demo):
    files = [f for f in demo.rglob("*") if f.is_file() and "__pycache__" not in f.parts]
    assert sum(f.stat().st_size for f in files) <= 20_000_000


def test_the_base_and_its_draft_share_a_vocabulary_and_differ_tenfold(demo):
    counts = {}
    for name in ("model", "draft"):
        tensors = shapes(demo / name / "model.safetensors")
        described = json.loads((demo / name / "config.json").read_text())
        assert described["architectures"] == ["LlamaForCausalLM"]
        assert not described["tie_word_embeddings"]
        assert "lm_head.weight" in tensors
        assert tensors["model.embed_tokens.weight"][0] == (described["vocab_size"], described["hidden_size"])
        assert {dtype for _, dtype in tensors.values()} == {"BF16"}
        counts[name] = sum(math.prod(shape) for shape, _ in tensors.values())
    assert 3e6 < counts["model"] < 8e6
    assert 7 < counts["model"] / counts["draft"] < 13


@pytest.mark.parametrize("name", TASKS)
def test_adapters_are_what_peft_saves(demo, name):
    assert {f.name for f in (demo / "adapters" / name).iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    saved = config(demo, name)
    assert saved["peft_type"] == "LORA"
    assert saved["base_model_name_or_path"] == BASE_NAME
    assert saved["r"] == RECIPES[name].lora["r"]
    assert saved["target_modules"] == sorted(saved["target_modules"])
    ranks = dict.fromkeys(saved["target_modules"], saved["r"]) | saved["rank_pattern"]
    tensors = shapes(demo / "adapters" / name / "adapter_model.safetensors")
    layers = json.loads((demo / "model" / "config.json").read_text())["num_hidden_layers"]
    assert len(tensors) == 2 * layers * len(saved["target_modules"])
    for key, (shape, _) in tensors.items():
        assert key.startswith("base_model.model.model.layers.")
        module, side = key.removesuffix(".weight").split(".")[-2:]
        assert shape[0 if side == "lora_A" else 1] == ranks[module]


def test_adapters_differ_in_every_way_the_engine_supports(demo):
    saved = [config(demo, name) for name in TASKS]
    assert len(saved) >= 4
    assert all(4 <= c["r"] <= 64 for c in saved)
    assert len({c["r"] for c in saved}) >= 4
    assert min(c["r"] for c in saved) == 4
    assert max(c["r"] for c in saved) == 64
    assert len({tuple(c["target_modules"]) for c in saved}) >= 4
    assert sum(c["use_rslora"] for c in saved) == 1
    assert sum(bool(c["rank_pattern"]) for c in saved) == 1


def test_the_draft_model_has_a_lora_for_every_adapter(demo, tmp_path):
    store, known = LocalStore(tmp_path), read_index(demo / "draft")
    assert known.keys() == {digest(demo / "adapters" / name, demo / "model", store) for name in TASKS}
    own = LocalStore(adapters_of(demo / "draft"))
    for lora in known.values():
        with own.open(lora) as blob:
            assert blob.manifest.base_digest == digest_model(demo / "draft")


def test_two_tenants_own_different_adapters_of_the_same_name(demo):
    tenants = json.loads((demo / "demo.json").read_text())["tenants"]
    owned = {t["name"]: {a["name"]: a["path"] for a in t["adapters"]} for t in tenants}
    shared = set.intersection(*(set(names) for names in owned.values()))
    assert shared == {"support"}
    weights = {(demo / names["support"] / "adapter_model.safetensors").read_bytes() for names in owned.values()}
    assert len(weights) == 2
    assert {path for names in owned.values() for path in names.values()} == {f"adapters/{name}" for name in TASKS}
    assert all(a["prompt"] for t in tenants for a in t["adapters"])
