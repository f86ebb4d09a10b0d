"""The target during training: its runner with the adapters loaded, driven by hand, and what it says of texts.

Owns the continuations and features that heads learn from (self-distillation: a drafter is to guess what this target
says, right or wrong). They come from the very runner that serves, with its formats of weights and pages.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from tenantry.adapters.base_digest import digest_model
from tenantry.adapters.errors import AdapterError
from tenantry.adapters.manifest import BaseSpec
from tenantry.adapters.store import LocalStore
from tenantry.adapters.validate import validate
from tenantry.runtime.config import CacheConfig, EngineConfig, ScheduleConfig
from tenantry.runtime.errors import InvalidRequest
from tenantry.runtime.messages import Sampling
from tenantry.runtime.model.config import ModelConfig
from tenantry.runtime.model.driver import Driver
from tenantry.runtime.model.runner import ModelRunner
from tenantry.runtime.training.config import TrainConfig
from tenantry.runtime.training.prompts import Prompt

PAGE = 16
SPARE = 8  # positions beyond a text's end that guesses may take
GREEDY = Sampling(max_tokens=1 << 20, temperature=0.0)


class TrainingTarget:
    """texts: most at once; length: most tokens of each. speculate: an option of the engine, to evaluate with."""

    def __init__(self, config: TrainConfig, blobs: Path, texts: int, length: int, speculate: str = "off") -> None:
        """blobs: where the adapters' canonical form goes. Raises InvalidRequest or ModelError."""
        self.texts, self.pages_each = texts, -(-(length + SPARE) // PAGE)
        store = LocalStore(blobs)
        self.digests = store_adapters(config.model, config.adapters, store)
        engine = EngineConfig(
            model_dir=config.model,
            adapter_dir=blobs,
            socket="",
            journal_dir=blobs,
            dtype=config.dtype,
            kv_dtype=config.kv_dtype,
            device=config.device,
            threads=config.threads,
            speculate=speculate,
            cache=CacheConfig(page_size=PAGE, pages=texts * self.pages_each),
            schedule=ScheduleConfig(max_running=texts, max_context=length + SPARE),
        )
        self.runner = ModelRunner(engine)
        self._driver = Driver(self.runner)
        self._driver.load(*self.digests.values())

    def digest(self, adapter: str | None) -> bytes | None:
        return None if adapter is None else self.digests[adapter]

    def continuations(self, prompts: Sequence[Prompt], tokens: int) -> list[list[int]]:
        """Greedy, with the end token where there is one; at most `tokens` each."""
        self._driver.reset()
        ends = set(self.runner.end_tokens)
        tracks = [self._driver.track(p.ids, self.digest(p.adapter)) for p in prompts]
        while live := [
            t for t in tracks if t.fault is None and len(t.generated) < tokens and not ends & set(t.generated[-1:])
        ]:
            self._driver.step(live)
        return [track.generated for track in tracks]

    def features(self, texts: Sequence[Sequence[int]], adapters: Sequence[str | None]) -> list[Tensor]:
        """Of each text's tokens, the hidden states that leave the last norm: bf16 [T, hidden]."""
        self._driver.reset()
        decoder = self.runner.decoder
        before, decoder.taps = decoder.taps, (self.runner.model_config.layers,)
        try:
            rows = [
                self._driver.row(self._driver.track(t, self.digest(a))) for t, a in zip(texts, adapters, strict=True)
            ]
            taps = self.runner.forward(rows).taps.to("cpu", torch.bfloat16)
        finally:
            decoder.taps = before
        return list(torch.split(taps, [len(text) for text in texts]))

    def close(self) -> None:
        self.runner.close()


def store_adapters(model: Path, folders: Sequence[Path], store: LocalStore) -> dict[str, bytes]:
    """Validate PEFT folders against a base: folder's name to digest. Raises InvalidRequest with every problem."""
    try:
        spec = BaseSpec.from_config(json.loads((model / "config.json").read_bytes()), digest_model(model))
    except (OSError, ValueError, AdapterError) as error:
        raise InvalidRequest("model", f"{model}: {error}") from None
    found = {}
    for folder in folders:
        try:
            report = validate(folder, spec, store=store)
        except OSError as error:
            raise InvalidRequest("adapter", f"{folder}: {error}") from None
        if report.manifest is None:
            problems = "; ".join(f"{p.subject}: {p.message}" for p in report.problems)
            raise InvalidRequest("adapter", f"{folder.name}: {problems}")
        found[folder.name] = report.manifest.digest
    return found


def longest(config: TrainConfig, prompts: Sequence[Prompt]) -> int:
    """Tokens that the longest text may take. Raises InvalidRequest where the model has no such positions."""
    most = max(len(prompt.ids) for prompt in prompts) + config.tokens
    context = ModelConfig.from_directory(config.model).max_context
    if most + SPARE > context:
        raise InvalidRequest(
            "tokens", f"a prompt and its continuation take {most} of the model's {context} positions"
        )
    return most
