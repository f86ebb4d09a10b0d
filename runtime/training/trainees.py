"""From a run's config to the module that it trains, and from the trained module to the folder that is served.

Owns what a trainee shares of the target, and where a head's files go.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tenantry.runtime.errors import InvalidRequest
from tenantry.runtime.model.config import ModelConfig
from tenantry.runtime.model.heads import clover, eagle, medusa
from tenantry.runtime.model.heads.files import read_fields, write_config
from tenantry.runtime.model.weights import HEAD, Checkpoint, expected_shapes
from tenantry.runtime.training import draft, lora
from tenantry.runtime.training.config import TrainConfig
from tenantry.runtime.training.heads import CloverTrainee, EagleTrainee, MedusaTrainee, Shared, head_config

EMBEDDING = "model.embed_tokens.weight"
FILES = {medusa.KIND: "medusa_lm_head.safetensors"}  # as the published code names it
FILE = "model.safetensors"


def build(config: TrainConfig, length: int) -> nn.Module:
    """length: most tokens of a text. Start values depend on torch's seed. Raises ModelError or InvalidRequest."""
    target = ModelConfig.from_directory(config.model)
    if config.drafter is not None and kind_of(config.drafter) == draft.KIND:
        model = draft.DraftTrainee(config.drafter, target)
        lora.adapt(model, config.rank)
        return model
    shared = read_shared(config, target)
    if config.drafter is not None:
        trainee = read_head(config, config.drafter, target, shared, length)
        lora.adapt(trainee, config.rank)
        return trainee
    shape = head_config(target, config.intermediate or target.intermediate)
    if config.kind == medusa.KIND:
        return MedusaTrainee(shape, shared, config.levels, config.own_heads)
    if config.kind == clover.KIND:
        return CloverTrainee(shape, shared, length + config.levels, config.levels)
    return EagleTrainee(shape, shared, length + config.levels)


def kind_of(head: Path) -> str:
    """Of a draft model, or of a head that was trained here. Raises ModelUnsupported."""
    if draft.is_draft_model(head):
        return draft.KIND
    fields = read_fields(head)
    if fields.text("model_type", "") == medusa.KIND:
        return medusa.KIND
    return clover.KIND if "clover_levels" in fields else eagle.KIND


def read_head(config: TrainConfig, head: Path, target: ModelConfig, shared: Shared, length: int) -> nn.Module:
    """A head that was trained here, as it is. Raises ModelUnsupported or InvalidRequest."""
    kind, fields = kind_of(head), read_fields(head)
    if kind == medusa.KIND:
        raise InvalidRequest("drafter", "medusa heads have no layer that a lora could change")
    shape = head_config(target, fields.size("intermediate_size"))
    trainee: nn.Module = EagleTrainee(shape, shared, length + config.levels)
    if kind == clover.KIND:
        levels = fields.size("clover_levels")
        if config.levels > levels:
            raise InvalidRequest("levels", f"the head guesses {levels} tokens in a row")
        trainee = CloverTrainee(shape, shared, length + config.levels, levels)
    try:
        trainee.load_state_dict({name: t.float() for name, t in load_file(head / FILE).items()})
    except (OSError, RuntimeError) as error:
        raise InvalidRequest("drafter", f"{head} is no head that was trained here for this base: {error}") from None
    return trainee


def read_shared(config: TrainConfig, target: ModelConfig) -> Shared:
    with Checkpoint(config.model, expected_shapes(target), target.tied) as checkpoint:
        embedding = checkpoint.read(EMBEDDING, torch.float32)
        return Shared(embedding, embedding if target.tied else checkpoint.read(HEAD, torch.float32))


def save(config: TrainConfig, trainee: Any, adapters: Mapping[str, bytes]) -> None:
    """A head: bf16 safetensors and config.json into the run's folder, for `--speculate <kind>:<folder>`. A LoRA:
    beside its head. adapters: folder's name to digest."""
    if config.drafter is not None:
        (adapter,) = adapters.values()
        lora.store(trainee, config.drafter, adapter, config.rank)
        return
    tensors = {name: p.detach().to(torch.bfloat16).contiguous() for name, p in trainee.named_parameters()}
    write_config(config.out, trainee.described())
    save_file(tensors, config.out / FILES.get(config.kind, FILE), {"format": "pt"})
