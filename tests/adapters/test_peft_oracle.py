"""PEFT is the oracle: what it saves we accept, and every module's rank, scale and bytes are the ones it uses."""

import json
import random
import warnings

import numpy as np
import pytest
import torch
from peft import EvaConfig, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from tenantry.adapters.manifest import MODULES, PARENT, BaseSpec
from tenantry.adapters.peft import INERT, NEUTRAL, PeftConfig
from tenantry.adapters.store import LocalStore
from tenantry.adapters.validate import Report, validate

SHAPE = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 64,
}  # fmt: skip
FAMILIES = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM)}
TASK = "CAUSAL_LM"


def build(family: str, config: LoraConfig) -> tuple[PeftModel, BaseSpec]:
    made, model = FAMILIES[family]
    shape = made(**SHAPE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft = get_peft_model(model(shape), config)
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora_" in name:
                parameter.normal_()
    return peft, BaseSpec.from_config(shape.to_dict(), b"b" * 32)


def reloaded(peft: PeftModel, tmp_path) -> torch.nn.Module:
    """What PEFT makes of the saved files on a fresh base. Raises RuntimeError where it cannot."""
    fresh = type(peft.base_model.model)(peft.base_model.model.config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PeftModel.from_pretrained(fresh, tmp_path / "saved").base_model.model


def agree(peft: PeftModel, base: BaseSpec, tmp_path, dtype=None) -> Report:
    """Save by PEFT, validate and store by us, compare with the layers that PEFT makes of the same files."""
    peft.save_pretrained(tmp_path / "saved")
    weights = tmp_path / "saved" / "adapter_model.safetensors"
    if dtype is not None:
        save_file({k: v.to(dtype) for k, v in load_file(weights).items()}, weights)
    store = LocalStore(tmp_path / "store")
    report = validate(tmp_path / "saved", base, store=store)
    assert report.problems == ()
    assert report.manifest is not None
    uploaded = load_file(weights)
    layers = {name: m for name, m in reloaded(peft, tmp_path).named_modules() if hasattr(m, "lora_A") and m.lora_A}
    ours = {f"model.layers.{e.layer}.{PARENT[e.module]}.{e.module}": e for e in report.manifest.modules}
    assert ours.keys() == layers.keys()
    with store.open(report.manifest.digest) as reader:
        for entry, a, b in reader:
            name = f"model.layers.{entry.layer}.{PARENT[entry.module]}.{entry.module}"
            assert entry.rank == layers[name].r["default"]
            assert entry.scale == layers[name].scaling["default"]
            for side, tensor in (("A", a), ("B", b)):
                theirs = uploaded[f"base_model.model.{name}.lora_{side}.weight"]
                assert tuple(theirs.shape) == tensor.shape
                assert theirs.contiguous().view(torch.uint8).numpy().tobytes() == tensor.tobytes()
    return report


FEATURES = {
    "list": {"target_modules": ["q_proj", "down_proj"]},
    "full names": {"target_modules": ["model.layers.1.self_attn.v_proj", "1.mlp.up_proj"]},
    "regex": {"target_modules": r".*\.(0|2)\.self_attn\.[qk]_proj"},
    "regex of whole names": {"target_modules": r".*\.q_proj|.*\.0\.self_attn\.k"},
    "all-linear": {"target_modules": "all-linear"},
    "default": {"target_modules": None},
    "rslora": {"target_modules": ["q_proj"], "use_rslora": True, "r": 7, "lora_alpha": 13},
    "rank_pattern": {"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"q_proj": 3, r"layers\.1.*v_proj": 9}},
    "rank_pattern of half a name": {"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"proj": 9, "q_proj": 3}},
    "rank_pattern order": {
        "target_modules": ["q_proj"],
        "rank_pattern": {"1.self_attn.q_proj": 9, "^model.layers.1.self_attn.q_proj": 3, "q_proj": 6},
    },
    "alpha_pattern": {"target_modules": "all-linear", "alpha_pattern": {"up_proj": 5, "0.mlp.down_proj": 64}},
    "layers": {"target_modules": ["q_proj", "o_proj"], "layers_to_transform": [0, 2]},
    "one layer": {"target_modules": ["gate_proj"], "layers_to_transform": 1, "layers_pattern": "layers"},
    "layers and full name": {"target_modules": ["q_proj", "model.layers.0.mlp.up_proj"], "layers_to_transform": [2]},
    "exclude": {"target_modules": "all-linear", "exclude_modules": ["k_proj", "model.layers.2.mlp.up_proj"]},
    "exclude regex": {"target_modules": ["q_proj", "v_proj"], "exclude_modules": r".*layers\.1\..*"},
    "fan_in_fan_out": {"target_modules": ["q_proj", "down_proj"], "fan_in_fan_out": True},
    "no task type": {"target_modules": ["q_proj"], "task_type": None},
    "inert": {"target_modules": ["q_proj"], "lora_dropout": 0.3, "init_lora_weights": "gaussian", "revision": "x"},
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("feature", FEATURES)
def test_every_supported_feature_means_what_peft_means(feature, family, tmp_path):
    agree(*build(family, LoraConfig(**{"r": 4, "lora_alpha": 8, "task_type": TASK} | FEATURES[feature])), tmp_path)


def test_patterns_whose_order_peft_lost_on_saving_are_refused_when_peft_cannot_load_them(tmp_path):
    """PEFT sorts keys when it saves; where the first match mattered, its own files contradict their tensors."""
    pattern = {"q_proj": 6, "1.self_attn.q_proj": 9}
    peft, base = build("llama", LoraConfig(target_modules=["q_proj"], rank_pattern=pattern, task_type=TASK))
    peft.save_pretrained(tmp_path / "saved")
    with pytest.raises(RuntimeError, match="size mismatch"):
        reloaded(peft, tmp_path)
    assert {p.code for p in validate(tmp_path / "saved", base).problems} == {"rank_mismatch"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_bytes_survive_in_every_dtype(dtype, tmp_path):
    report = agree(*build("llama", LoraConfig(r=5, target_modules="all-linear", task_type=TASK)), tmp_path, dtype)
    assert report.manifest.dtype == {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}[dtype]


@pytest.mark.parametrize("seed", range(12))
def test_random_configurations_mean_what_peft_means(seed, tmp_path):
    """Patterns, lists and layers in combinations nobody wrote down."""
    draw = random.Random(seed)
    some = draw.sample(MODULES, draw.randint(1, 7))
    names = [f"model.layers.{i}.{PARENT[m]}.{m}" for i in range(3) for m in MODULES]
    keys = [*MODULES, *names, r".*mlp\..*", r"layers\.[02]\..*", "self_attn.q_proj", r"(q|up)_proj"]
    config = {
        "r": draw.randint(1, 40),
        "lora_alpha": draw.randint(1, 64),
        "use_rslora": draw.random() < 0.5,
        "target_modules": draw.choice([some, "all-linear", rf".*\.({'|'.join(some)})", some + draw.sample(names, 2)]),
        "rank_pattern": {k: draw.randint(1, 30) for k in draw.sample(keys, draw.randint(0, 4))},
        "alpha_pattern": {k: draw.randint(1, 99) for k in draw.sample(keys, draw.randint(0, 4))},
        "exclude_modules": draw.choice([None, draw.sample(names, 2), r".*layers\.1\.mlp.*"]),
    }
    if isinstance(config["target_modules"], list) and draw.random() < 0.5:
        config["layers_to_transform"] = draw.sample(range(3), draw.randint(1, 3))
        config["layers_pattern"] = draw.choice([None, "layers", ["h", "layers"]])
    built = build(draw.choice(list(FAMILIES)), LoraConfig(task_type=TASK, **config))
    built[0].save_pretrained(tmp_path / "saved")
    try:
        reloaded(built[0], tmp_path)
    except RuntimeError:
        assert {p.code for p in validate(tmp_path / "saved", built[1]).problems} == {"rank_mismatch"}
    else:
        agree(*built, tmp_path)


def test_overlapping_patterns_are_read_as_peft_reads_them_and_said_so(tmp_path):
    pattern = {"1.self_attn.q_proj": 9, "q_proj": 6}
    report = agree(*build("llama", LoraConfig(target_modules=["q_proj"], alpha_pattern=pattern)), tmp_path)
    assert [w.code for w in report.warnings] == ["ambiguous"]


def test_every_field_that_peft_saves_is_known(tmp_path):
    LoraConfig(target_modules=["q_proj"]).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    known = INERT.keys() | NEUTRAL.keys() | set(PeftConfig.__struct_fields__)
    assert not saved.keys() - known
    assert {k for k in NEUTRAL.keys() & saved.keys() if saved[k] not in NEUTRAL[k]} == set()


def test_an_adapter_initialised_by_eva_is_plain_lora_once_saved(tmp_path):
    peft, base = build("llama", LoraConfig(r=4, target_modules=["q_proj"], task_type=TASK))
    peft.peft_config["default"].init_lora_weights = "eva"
    peft.peft_config["default"].eva_config = EvaConfig()
    agree(peft, base, tmp_path)


def test_the_adapter_adds_scale_times_b_a(tmp_path):
    """One linear layer, in numbers: what we stored reproduces PEFT's own output."""
    config = LoraConfig(r=6, lora_alpha=9, use_rslora=True, target_modules=["q_proj"], fan_in_fan_out=True)
    peft, base = build("llama", config)
    report = agree(peft, base, tmp_path)
    layer = peft.base_model.model.model.layers[1].self_attn.q_proj
    x = torch.randn(3, 32)
    with LocalStore(tmp_path / "store").open(report.manifest.digest) as reader, torch.no_grad():
        entry, a, b = next(item for item in reader if item[0].layer == 1)
        ours = layer.base_layer(x).numpy() + entry.scale * (x.numpy() @ a.T @ b.T)
        np.testing.assert_allclose(ours, layer(x).numpy(), rtol=1e-5, atol=1e-5)
