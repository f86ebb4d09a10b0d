"""What heads learn from, on disk: texts and the target's features of them, made once and read in batches.

Owns the shards. Each is one safetensors file, complete or absent, so that making them can be interrupted at any time;
a shard holds the prompts PER_SHARD * i and following.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from tenantry.runtime.training.prompts import Prompt
from tenantry.runtime.training.target import TrainingTarget

PER_SHARD = 32
Tell = Callable[[int, int], None]


class Batch(NamedTuple):
    """features: fp32 [B, T, hidden], tokens: int64 [B, T], both padded with 0. prompts, lengths: int64 [B], tokens of
    each text's prompt, and of all of it."""

    features: Tensor
    tokens: Tensor
    prompts: Tensor
    lengths: Tensor


def make(folder: Path, target: TrainingTarget, prompts: Sequence[Prompt], tokens: int, tell: Tell) -> None:
    """Write the shards that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for first in range(0, len(prompts), PER_SHARD):
        path = _path(folder, first // PER_SHARD)
        tell(first, len(prompts))
        if path.exists():
            continue
        part = prompts[first : first + PER_SHARD]
        texts = [[*p.ids, *answer] for p, answer in zip(part, target.continuations(part, tokens), strict=True)]
        features = target.features(texts, [p.adapter for p in part])
        tensors = {
            "tokens": torch.tensor([token for text in texts for token in text], dtype=torch.int32),
            "lengths": torch.tensor([len(text) for text in texts], dtype=torch.int32),
            "prompts": torch.tensor([len(p.ids) for p in part], dtype=torch.int32),
            "features": torch.cat(features),
        }
        written = path.with_suffix(".part")
        save_file(tensors, written)
        written.rename(path)
    tell(len(prompts), len(prompts))


class Corpus:
    """The first `texts` texts of a folder that make() has filled. Read as they are asked for, never all at once."""

    def __init__(self, folder: Path, texts: int) -> None:
        self.texts = texts
        self._shards: list[_Shard] = []
        for shard in range(-(-texts // PER_SHARD)):
            file: Any = safe_open(_path(folder, shard), framework="pt")
            lengths, prompts = file.get_tensor("lengths").tolist(), file.get_tensor("prompts").tolist()
            self._shards.append(_Shard(file, [0, *accumulate(lengths)], prompts))

    def epoch(self, size: int, seed: int, skipped: int = 0) -> Iterator[Batch]:
        """All texts once, `size` at a time, in an order that the seed decides; but the first `skipped` batches."""
        order = list(range(self.texts))
        random.Random(f"order:{seed}").shuffle(order)
        for first in range(skipped * size, self.texts, size):
            yield self.batch(order[first : first + size])

    def batch(self, texts: Sequence[int]) -> Batch:
        """texts: indices into the prompts that the corpus was made from."""
        found = [self._text(text) for text in texts]
        lengths = torch.tensor([len(tokens) for tokens, _, _ in found])
        tokens = torch.zeros((len(found), int(lengths.max())), dtype=torch.int64)
        features = torch.zeros((*tokens.shape, found[0][1].shape[1]))
        for row, (own, states, _) in enumerate(found):
            tokens[row, : len(own)] = own
            features[row, : len(own)] = states
        return Batch(features, tokens, torch.tensor([prompt for _, _, prompt in found]), lengths)

    def _text(self, text: int) -> tuple[Tensor, Tensor, int]:
        shard, at = self._shards[text // PER_SHARD], text % PER_SHARD
        place = slice(shard.starts[at], shard.starts[at + 1])
        tokens, features = (shard.file.get_slice(name)[place] for name in ("tokens", "features"))
        return tokens, features, shard.prompts[at]


class _Shard(NamedTuple):
    """starts: of each text in the shard's tokens, and where the last ends. prompts: tokens of each one's prompt."""

    file: Any
    starts: list[int]
    prompts: list[int]


def _path(folder: Path, shard: int) -> Path:
    return folder / f"texts-{shard:05}.safetensors"
