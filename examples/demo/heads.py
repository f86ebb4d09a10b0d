"""The demo's head: prompts of every task and of plain chat, and the run of `train-drafter` that learns from them.

Owns the mix of prompts and the run's settings. What is learned are the served model's own answers, not the tasks'.
`score` says how often the committed head guesses right, for people that it has never read of.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random

from demo.corpus import SYSTEM_PROMPTS, TOPIC_WEIGHTS, TOPICS, Message
from demo.tasks import TASKS

from tenantry.runtime.text import TextModel
from tenantry.runtime.training.__main__ import train
from tenantry.runtime.training.config import TrainConfig
from tenantry.runtime.training.evaluate import Score, evaluate
from tenantry.runtime.training.prompts import read_prompts
from tenantry.runtime.training.target import TrainingTarget, longest

KIND = "eagle"
FILES = ("config.json", "model.safetensors")
PROMPTS = 4800  # half of them plain chat
LEVELS, TOKENS, TOGETHER = 5, 64, 16


def prompts(seed: int, held_out: bool = False) -> Iterator[dict[str, object]]:
    """Endless, as `tenantry train-drafter --prompts` reads them: a task's, then a chat's, in turn."""
    rng = Random(f"heads:{held_out}:{seed}" if held_out else f"heads:{seed}")
    tasks = [(name, task.examples(seed, held_out)) for name, task in sorted(TASKS.items())]
    while True:
        for name, examples in tasks:
            yield {"messages": next(examples).messages, "adapter": name}
            yield {"messages": _chat(rng)}


def train_head(out: Path, seed: int, threads: int) -> None:
    """From the model and adapters in `out` to out/eagle. Ten minutes on one core."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        config = _config(out, work, PROMPTS, seed, False, epochs=4, held_out=0.02, threads=threads)
        train(config)
        (out / KIND).mkdir(exist_ok=True)
        for file in FILES:
            shutil.copyfile(config.out / file, out / KIND / file)


def score(out: Path, count: int, seed: int) -> dict[str, Score]:
    """Of `count` held-out prompts: tokens in each step of the model, five guesses in a row, by adapter."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        config = _config(out, work, count, seed, True)
        found = read_prompts(config.prompts, TextModel.load(config.model), [path.name for path in config.adapters])
        option = f"{KIND}:{out / KIND}"
        target = TrainingTarget(config, work / "adapters", TOGETHER, longest(config, found), option)
        try:
            return evaluate(target, found, TOKENS, LEVELS, lambda done, of: None)
        finally:
            target.close()


def _config(
    out: Path,
    work: Path,
    count: int,
    seed: int,
    unseen: bool,
    epochs: int = 1,
    held_out: float = 0.0,
    threads: int = 1,
) -> TrainConfig:
    path = work / "prompts.jsonl"
    with path.open("w") as file:
        file.writelines(json.dumps(prompt) + "\n" for prompt in islice(prompts(seed, unseen), count))
    return TrainConfig(
        kind=KIND,
        model=out / "model",
        prompts=path,
        out=work / KIND,
        adapters=tuple(sorted((out / "adapters").iterdir())),
        levels=LEVELS,
        intermediate=344,
        tokens=TOKENS,
        epochs=epochs,
        held_out=held_out,
        threads=threads,
    )


def _chat(rng: Random) -> list[Message]:
    """A conversation that ends with a user's message."""
    texts = rng.choices(TOPICS, TOPIC_WEIGHTS)[0](rng)
    kept = 2 * rng.randrange((len(texts) + 1) // 2) + 1
    messages = [{"role": "system", "content": rng.choice(SYSTEM_PROMPTS)}] if rng.random() < 0.25 else []
    return messages + [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts[:kept])]
