"""A LoRA on a drafter's decoder layers, for one adapter of the target: trained here, stored beside the drafter.

Owns what is trained and how it is written down: as PEFT would, so that it goes through the one parser and the one
validation that every adapter goes through. Which adapter it belongs to is said in the drafter's folder
(heads/adapted). A drafter is a head of one layer, or a whole draft model.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tenantry.adapters.base_digest import digest_model
from tenantry.adapters.manifest import BaseSpec
from tenantry.adapters.peft import FILE
from tenantry.adapters.store import LocalStore
from tenantry.adapters.validate import WEIGHTS, validate
from tenantry.runtime.errors import InvalidRequest
from tenantry.runtime.model.heads.adapted import adapters_of, register

LAYERS = "layers"
MODULES = {
    "self_attn": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "mlp": ("gate_proj", "up_proj", "down_proj"),
}  # fmt: skip


class LoraLinear(nn.Module):
    """linear(x) + B A x. B starts as zero: at first nothing changes."""

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__()
        self.linear = linear
        self.lora_A = nn.Parameter(torch.randn(rank, linear.in_features) * linear.in_features**-0.5)
        self.lora_B = nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x) + x @ self.lora_A.T @ self.lora_B.T
        return out


def adapt(trainee: nn.Module, rank: int) -> None:
    """Freeze a drafter, and give every linear layer of its decoder layers a LoRA to train."""
    trainee.requires_grad_(False)
    for path, name in list(_sites(trainee)):
        module = trainee.get_submodule(path)
        linear = module.get_submodule(name)
        if not isinstance(linear, nn.Linear):
            raise TypeError(f"{path}.{name} has a LoRA already")
        setattr(module, name, LoraLinear(linear, rank))


def _sites(trainee: nn.Module) -> Iterator[tuple[str, str]]:
    """(the path of a linear layer's parent, its name)"""
    for number, _ in trainee.get_submodule(LAYERS).named_children():
        for parent, names in MODULES.items():
            for name in names:
                yield f"{LAYERS}.{number}.{parent}", name


def store(trainee: nn.Module, head: Path, adapter: bytes, rank: int) -> None:
    """Put a trained LoRA beside its drafter, as the one for this adapter's digest; an earlier one is replaced."""
    tensors = {}
    for path, name in _sites(trainee):
        lora = trainee.get_submodule(f"{path}.{name}")
        for side in ("lora_A", "lora_B"):
            weight = lora.get_parameter(side).detach().to(torch.bfloat16).contiguous()
            tensors[f"base_model.model.model.{path}.{name}.{side}.weight"] = weight
    described = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": rank,
        "target_modules": sorted(name for names in MODULES.values() for name in names),
    }  # fmt: skip
    spec = BaseSpec.from_config(json.loads((head / "config.json").read_bytes()), digest_model(head))
    with tempfile.TemporaryDirectory(prefix="tenantry-lora-") as name:
        folder = Path(name)
        (folder / FILE).write_text(json.dumps(described))
        save_file(tensors, folder / WEIGHTS)
        report = validate(folder, spec, store=LocalStore(adapters_of(head)))
    if report.manifest is None:
        raise InvalidRequest("drafter", "; ".join(f"{p.subject}: {p.message}" for p in report.problems))
    register(head, adapter, report.manifest.digest)
