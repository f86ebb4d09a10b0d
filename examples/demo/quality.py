"""What each format of weights and KV pages costs in quality: exact answers and perplexity, by Tenantry's own runner.

`python examples/demo/evaluate.py --served [--count 200]` prints the table. Greedy decoding in ragged batches of every
adapter and the base together; perplexity token by token, so that every key and value is read back from its page.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import torch
from demo import corpus
from demo.tasks import TASKS, Example
from demo.tokenizer import load_tokenizer
from transformers import PreTrainedTokenizerFast

from tenantry.adapters.base_digest import digest_model
from tenantry.adapters.manifest import BaseSpec
from tenantry.adapters.store import LocalStore
from tenantry.adapters.validate import validate
from tenantry.runtime.config import CacheConfig, EngineConfig, ScheduleConfig
from tenantry.runtime.model.driver import GREEDY, Driver, Track
from tenantry.runtime.model.runner import ModelRunner
from tenantry.runtime.plan import Draw

SEED = 7
CONTEXT, PAGES = 256, 2048
ROWS = 64  # sequences in one step
ANSWER = 64  # most tokens of an answer


@dataclass(frozen=True, slots=True)
class Format:
    """Fields of EngineConfig."""

    kv_dtype: str
    weights: str

    def __str__(self) -> str:
        return f"{self.weights} weights, {self.kv_dtype} KV"


EXACT = Format("native", "native")
FORMATS = (EXACT, *(Format("int8", weights) for weights in ("native", "w8a16", "w8a8", "w4a16")))


@dataclass(frozen=True, slots=True)
class Quality:
    """accuracy: share of held-out prompts answered exactly, per adapter. perplexity: of the base on documents it has
    not seen and, per adapter, of the right answers. weight_bytes: as held in memory."""

    accuracy: dict[str, float]
    perplexity: dict[str, float]
    weight_bytes: int

    @property
    def mean_accuracy(self) -> float:
        return sum(self.accuracy.values()) / len(self.accuracy)


def measure(demo: Path, form: Format, count: int) -> Quality:
    """count: prompts per adapter. demo: the folder with model/ and adapters/."""
    tokenizer = load_tokenizer(demo / "model")
    with TemporaryDirectory() as folder:
        config = EngineConfig(
            model_dir=demo / "model",
            adapter_dir=Path(folder),
            socket="",
            journal_dir=Path(folder),
            kv_dtype=form.kv_dtype,
            weights=msgspec.convert(form.weights, EngineConfig.__annotations__["weights"]),
            cache=CacheConfig(pages=PAGES),
            schedule=ScheduleConfig(max_context=CONTEXT),
        )
        runner = ModelRunner(config)
        try:
            driver = Driver(runner)
            digests = _load(driver, demo, LocalStore(config.adapter_dir))
            ends = set(runner.end_tokens)
            chosen = [(name, e) for name in digests for e in islice(TASKS[name].examples(SEED, held_out=True), count)]
            prompts = [_prompt(tokenizer, example) for _, example in chosen]
            adapters = [digests[name] for name, _ in chosen]
            answers = [tokenizer.decode(a) for a in _complete(driver, prompts, adapters, ends)]
            right = [answer == example.answer for answer, (_, example) in zip(answers, chosen, strict=True)]
            whole = [p + tokenizer.encode(e.answer) + [min(ends)] for p, (_, e) in zip(prompts, chosen, strict=True)]
            likely = _likelihoods(driver, whole, adapters, [len(p) for p in prompts])
            documents = _documents(tokenizer, count)
            accuracy, perplexity = {}, {"base": _perplexity(_likelihoods(driver, documents))}
            for at, name in enumerate(digests):
                mine = slice(at * count, (at + 1) * count)
                accuracy[name], perplexity[name] = sum(right[mine]) / count, _perplexity(likely[mine])
            return Quality(accuracy, perplexity, runner.weight_bytes)
        finally:
            runner.close()


def print_table(demo: Path, count: int) -> None:
    """One line per format; perplexities relative to the first."""
    exact = None
    for form in FORMATS:
        found = measure(demo, form, count)
        exact = exact or found
        changes = [found.perplexity[name] / exact.perplexity[name] - 1 for name in exact.perplexity]
        print(
            f"{form!s:<28} weights {found.weight_bytes / 1e6:>5.1f} MB  exact answers {found.mean_accuracy:>6.1%}"
            f"  perplexity base {found.perplexity['base']:.4f} ({changes[0]:+.2%}),"
            f" answers {min(changes[1:]):+.2%} to {max(changes[1:]):+.2%}",
            flush=True,
        )


def _load(driver: Driver, demo: Path, store: LocalStore) -> dict[str, bytes]:
    """Every adapter, validated, stored and resident: name to digest."""
    digest = digest_model(demo / "model")
    spec = BaseSpec.from_config(json.loads((demo / "model" / "config.json").read_bytes()), digest)
    found = {}
    for name in TASKS:
        report = validate(demo / "adapters" / name, spec, store=store)
        if report.manifest is None:
            raise ValueError(f"{name}: {report.problems}")
        found[name] = report.manifest.digest
    driver.load(*found.values())
    return found


def _prompt(tokenizer: PreTrainedTokenizerFast, example: Example) -> list[int]:
    text = tokenizer.apply_chat_template(example.messages, tokenize=False, add_generation_prompt=True)
    return tokenizer.encode(text)


def _documents(tokenizer: PreTrainedTokenizerFast, count: int) -> list[list[int]]:
    """Texts that the base was not trained on, from the generator that it was trained on."""
    stream = (tokenizer.encode(text)[:CONTEXT] for text in corpus.documents(SEED + 10**6))
    return list(islice((tokens for tokens in stream if len(tokens) > 1), count))


def _batches(driver: Driver, total: int) -> Iterator[slice]:
    for first in range(0, total, ROWS):
        driver.reset()
        yield slice(first, first + ROWS)


def _complete(
    driver: Driver, prompts: Sequence[list[int]], adapters: Sequence[bytes], ends: set[int]
) -> list[list[int]]:
    """Greedy answers without their end token."""
    answers = []
    for part in _batches(driver, len(prompts)):
        tracks = [driver.track(p, adapter) for p, adapter in zip(prompts[part], adapters[part], strict=True)]
        while live := [t for t in tracks if len(t.generated) < ANSWER and not ends & set(t.generated)]:
            driver.step(live)
        answers += [[token for token in t.generated if token not in ends] for t in tracks]
    return answers


def _likelihoods(
    driver: Driver,
    texts: Sequence[list[int]],
    adapters: Sequence[bytes | None] = (),
    starts: Sequence[int] = (),
) -> list[list[float]]:
    """Log-likelihoods of each text's tokens from its start (the second one, by default) on."""
    adapters, starts = adapters or [None] * len(texts), starts or [1] * len(texts)
    found: list[list[float]] = []
    for part in _batches(driver, len(texts)):
        tracks = [driver.track(text, adapter) for text, adapter in zip(texts[part], adapters[part], strict=True)]
        lines: list[list[float]] = [[] for _ in tracks]
        for at in range(1, max(len(t.tokens) for t in tracks)):
            live = [i for i, t in enumerate(tracks) if at < len(t.tokens)]
            logits = _logits(driver, [tracks[i] for i in live]).log_softmax(-1)
            for row, i in enumerate(live):
                if at >= starts[part][i]:
                    lines[i].append(logits[row, tracks[i].tokens[at]].item())
        found += lines
    return found


def _perplexity(likelihoods: Sequence[Sequence[float]]) -> float:
    every = [value for line in likelihoods for value in line]
    return math.exp(-sum(every) / len(every))


def _logits(driver: Driver, tracks: Sequence[Track]) -> torch.Tensor:
    """After one more token of each track: fp32 [tracks, vocab]."""
    rows = []
    for track in tracks:
        draw = Draw(GREEDY, 0, track.computed + 1, len(track.tokens), track.tokens)
        rows.append(msgspec.structs.replace(driver.row(track, 1), draw=draw))
        track.computed += 1
    return driver.runner.forward(rows).logits
