"""From a run's config to the module that it trains, and from the trained module to the folder that is served.

Owns what a trainee shares of the target, and where a head's files go.
"""

from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from tenantry.runtime.model.config import ModelConfig
from tenantry.runtime.model.heads.files import write_config
from tenantry.runtime.model.weights import HEAD, Checkpoint, expected_shapes
from tenantry.runtime.training.config import TrainConfig
from tenantry.runtime.training.heads import CloverTrainee, EagleTrainee, MedusaTrainee, Shared, head_config

EMBEDDING = "model.embed_tokens.weight"
FILES = {"medusa": "medusa_lm_head.safetensors"}  # as the published code names it
FILE = "model.safetensors"


def build(config: TrainConfig, length: int) -> nn.Module:
    """length: most tokens of a text. Start values depend on torch's seed. Raises ModelError."""
    target = ModelConfig.from_directory(config.model)
    shared = read_shared(config, target)
    shape = head_config(target, config.intermediate or target.intermediate)
    if config.kind == "medusa":
        return MedusaTrainee(shape, shared, config.levels, config.own_heads)
    if config.kind == "clover":
        return CloverTrainee(shape, shared, length + config.levels, config.levels)
    return EagleTrainee(shape, shared, length + config.levels)


def read_shared(config: TrainConfig, target: ModelConfig) -> Shared:
    with Checkpoint(config.model, expected_shapes(target), target.tied) as checkpoint:
        embedding = checkpoint.read(EMBEDDING, torch.float32)
        return Shared(embedding, embedding if target.tied else checkpoint.read(HEAD, torch.float32))


def save(config: TrainConfig, trainee: Any) -> None:
    """bf16 safetensors and config.json into the run's folder, for `--speculate <kind>:<folder>`."""
    tensors = {name: p.detach().to(torch.bfloat16).contiguous() for name, p in trainee.named_parameters()}
    write_config(config.out, trainee.described())
    save_file(tensors, config.out / FILES.get(config.kind, FILE), {"format": "pt"})
