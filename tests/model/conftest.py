"""Tiny random base models and PEFT adapters, written by transformers and PEFT: the oracles and our input at once."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import peft
import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model

from tenantry.adapters.base_digest import digest_model
from tenantry.adapters.manifest import BaseSpec
from tenantry.adapters.store import LocalStore
from tenantry.adapters.validate import validate
from tenantry.runtime.config import CacheConfig, EngineConfig, ScheduleConfig
from tenantry.runtime.model.driver import Driver
from tenantry.runtime.model.lora import share_interpreter
from tenantry.runtime.model.runner import ModelRunner

share_interpreter()  # tests that step until an adapter has come are as busy as an engine

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 3.0}
SHAPE = {
    "vocab_size": 101,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "pad_token_id": None,
    "eos_token_id": 7,
}
VARIANTS = {
    "llama": ("Llama", {}),
    "llama-rope3-tied": ("Llama", {"rope_parameters": LLAMA3, "tie_word_embeddings": True}),
    "llama-biases-linear": ("Llama", {"attention_bias": True, "mlp_bias": True, "rope_parameters": LINEAR}),
    "mistral": ("Mistral", {"head_dim": 24, "sliding_window": None}),
    "mistral-window": ("Mistral", {"num_key_value_heads": 1, "sliding_window": 128}),
    "qwen2": ("Qwen2", {}),
    "qwen2-tied": ("Qwen2", {"tie_word_embeddings": True, "num_key_value_heads": 4}),
    "qwen3": ("Qwen3", {"head_dim": 32}),
    "qwen3-bias-tied": ("Qwen3", {"head_dim": 8, "attention_bias": True, "tie_word_embeddings": True}),
}
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Weights that keep the activations' size through the layers and make every bias and norm count."""
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            if "norm" in name:
                p.uniform_(0.5, 1.5, generator=noise)
            elif name.endswith("bias"):
                p.normal_(0, 0.3, generator=noise)
            elif "embed" in name:
                p.normal_(0, 0.5, generator=noise)
            else:
                p.normal_(0, p.shape[-1] ** -0.5, generator=noise)


@pytest.fixture(scope="session")
def bases(tmp_path_factory) -> Callable[[str], Path]:
    """Name of a variant to the directory of its checkpoint (fp32)."""
    made: dict[str, Path] = {}

    def base(variant: str) -> Path:
        if variant not in made:
            family, changes = VARIANTS[variant]
            config = getattr(transformers, f"{family}Config")(**SHAPE | changes)
            model = getattr(transformers, f"{family}ForCausalLM")(config)
            randomise(model, seed=[*VARIANTS].index(variant))  # whichever test asks first
            made[variant] = tmp_path_factory.mktemp("base") / variant
            model.save_pretrained(made[variant])
        return made[variant]

    return base


@pytest.fixture(scope="session")
def oracle(bases) -> Callable[..., torch.Tensor]:
    """Next-token logits of transformers (with PEFT) after each prompt: fp32 [prompts, vocab]."""
    loaded: dict[tuple[str, torch.dtype], torch.nn.Module] = {}

    def logits(variant: str, prompts, adapter: Path | None = None, dtype=torch.float32) -> torch.Tensor:
        key = (variant, dtype)
        if key not in loaded:
            loaded[key] = transformers.AutoModelForCausalLM.from_pretrained(bases(variant), dtype=dtype).eval()
        model = loaded[key]
        if adapter is not None:
            model = peft.PeftModel.from_pretrained(model, adapter, autocast_adapter_dtype=False).eval()
        try:
            with torch.inference_mode():
                return torch.stack([model(torch.tensor([p])).logits[0, -1].float() for p in prompts])
        finally:
            if adapter is not None:
                loaded[key] = model.unload()

    return logits


@pytest.fixture(scope="session")
def make_adapter(bases, tmp_path_factory) -> Callable[..., Path]:
    """A PEFT adapter with random A and B, of about the base weights' own effect, saved by PEFT."""

    def make(variant: str, seed: int = 0, dtype=torch.float32, **lora) -> Path:
        model = transformers.AutoModelForCausalLM.from_pretrained(bases(variant))
        model = get_peft_model(model, LoraConfig(**{"lora_dropout": 0.0, "task_type": "CAUSAL_LM"} | lora))
        noise = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, p in sorted(model.named_parameters()):
                if "lora_" in name:
                    p.normal_(0, 0.5 * p.shape[1] ** -0.5, generator=noise)
                    p.data = p.data.to(dtype)
        directory = tmp_path_factory.mktemp("adapter")
        model.save_pretrained(directory)
        return directory

    return make


class Served(SimpleNamespace):
    """driver: over a runner of ours. add(peft directory) validates, stores and loads: the digest."""

    driver: Driver
    runner: ModelRunner
    store: LocalStore
    spec: BaseSpec

    def stored(self, directory: Path) -> bytes:
        (directory / "README.md").unlink(missing_ok=True)
        report = validate(directory, self.spec, store=self.store)
        assert report.manifest is not None, report.problems
        return report.manifest.digest

    def add(self, directory: Path) -> bytes:
        digest = self.stored(directory)
        if digest not in self.runner.adapters.resident:
            self.driver.load(digest)
        return digest


@pytest.fixture(scope="session")
def engine_config(tmp_path_factory) -> EngineConfig:
    """Exact arithmetic and small pages, so that a prompt of thirty tokens spans many."""
    folder = tmp_path_factory.mktemp("engine")
    return EngineConfig(
        model_dir=folder,
        adapter_dir=folder / "adapters",
        socket="",
        journal_dir=folder,
        dtype="float32",
        kv_dtype="native",
        cache=CacheConfig(page_size=4, pages=512),
        schedule=ScheduleConfig(max_context=128),
    )


@pytest.fixture(scope="session")
def serve(bases, engine_config) -> Iterator[Callable[..., Served]]:
    """Our runner over a variant; changes are fields of EngineConfig. Kept for the session, with its pages reset."""
    made: dict[str, Served] = {}

    def start(variant: str, **changes) -> Served:
        key = json.dumps([variant, changes], default=str)
        if key not in made:
            directory = bases(variant)
            config = dataclasses.replace(engine_config, model_dir=directory, **changes)
            runner = ModelRunner(config)
            spec = BaseSpec.from_config(json.loads((directory / "config.json").read_bytes()), digest_model(directory))
            made[key] = Served(runner=runner, driver=Driver(runner), store=LocalStore(config.adapter_dir), spec=spec)
        made[key].driver.reset()
        return made[key]

    yield start
    for served in made.values():
        served.runner.close()


@pytest.fixture(scope="session")
def prompts() -> list[list[int]]:
    """Ragged: one token, page boundaries and their neighbours, and beyond the rope scaling's original length."""
    noise = torch.Generator().manual_seed(5)
    return [torch.randint(0, 101, (n,), generator=noise).tolist() for n in (1, 3, 4, 5, 16, 33, 70)]
