"""A draft model as a trainee: a whole small decoder of the target's tokenizer, to which only LoRAs are added.

Owns how one is told from a head's folder, and its guess for training: the token after every one of the answer, on the
text's own path. It reads no features of the target. What is served is runtime/model/drafter.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from tenantry.runtime.errors import InvalidRequest
from tenantry.runtime.model.config import ModelConfig
from tenantry.runtime.training.heads import Guessed, Texts, take

KIND = "draft"
EMBEDDING = "model.embed_tokens.weight"  # which no head's checkpoint has under this name


def is_draft_model(directory: Path) -> bool:
    return any(_has_embedding(path) for path in sorted(directory.glob("*.safetensors")))


def _has_embedding(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt") as file:
            return EMBEDDING in file.keys()  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError):
        return False


class DraftTrainee(nn.Module):
    """layers: the decoder's, to be adapted."""

    def __init__(self, directory: Path, target: ModelConfig) -> None:
        """Raises ModelUnsupported, or InvalidRequest for a model of other tokens."""
        super().__init__()
        config = ModelConfig.from_directory(directory)
        if config.vocab != target.vocab:
            raise InvalidRequest("drafter", f"the draft model has {config.vocab} tokens, not {target.vocab}")
        model: Any = AutoModelForCausalLM.from_pretrained(
            directory, dtype=torch.float32, local_files_only=True, trust_remote_code=False, use_safetensors=True
        )
        self.layers = model.model.layers
        self.causal = model

    def guess(self, texts: Texts, levels: int) -> list[Guessed]:
        """One level, whatever is asked: the next guess of a chain is the same guess one position on. Padding comes
        after every text, so that nobody sees it."""
        states: Tensor = self.causal.model(input_ids=texts.tokens, use_cache=False).last_hidden_state
        return [Guessed(take(states, texts.at + 1))]

    def logits(self, states: Tensor, level: int) -> Tensor:
        found: Tensor = self.causal.lm_head(states)
        return found
