"""The process behind `tenantry train-drafter`: `python -m tenantry.runtime.training <config.json>`.

Owns the order of the stages and what is told about them: JSON lines on standard output, one for each piece of
progress, the last of them the evaluation or a refusal. Everything it makes lies under the config's `out`.
"""

import random
import shutil
import sys
from pathlib import Path
from typing import Any

import msgspec
import torch

from tenantry.runtime.errors import InvalidRequest, RuntimeRefusal, UnusableModel
from tenantry.runtime.model.errors import ModelError
from tenantry.runtime.model.lora import share_interpreter
from tenantry.runtime.text import TextModel
from tenantry.runtime.training import corpus
from tenantry.runtime.training.config import TrainConfig
from tenantry.runtime.training.evaluate import Score, evaluate
from tenantry.runtime.training.loop import CHECKPOINT, Training
from tenantry.runtime.training.prompts import Prompt, read_prompts
from tenantry.runtime.training.target import TrainingTarget, longest
from tenantry.runtime.training.trainees import build, kind_of, save

WORK = "work"
TEXTS = "texts"
RUN = "run.json"
EVALUATION = "evaluation.json"
EXIT_REFUSED = 78  # as the worker: what was asked for cannot be done, and trying again will not help
EXIT_STOPPED = 130


def main(argv: list[str]) -> int:
    share_interpreter()
    config = msgspec.json.decode(Path(argv[1]).read_bytes(), type=TrainConfig, dec_hook=lambda _, value: Path(value))
    try:
        train(config)
    except RuntimeRefusal as error:
        _tell("refused", message=f"{error.param}: {error}")
        return EXIT_REFUSED
    except (ModelError, UnusableModel) as error:
        _tell("refused", message=str(error))
        return EXIT_REFUSED
    except KeyboardInterrupt:
        return EXIT_STOPPED
    return 0


def train(config: TrainConfig) -> None:
    """Raises RuntimeRefusal or ModelError. Goes on where an interrupted run of the same config ended; of a finished
    one it tells the evaluation again."""
    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads)
    work = config.out / WORK
    _own(config, work)
    finished = config.out / EVALUATION
    if finished.exists():
        _sweep(work)  # which the run that wrote it may not have come to
        _tell("done", evaluation=msgspec.json.decode(finished.read_bytes()))
        return
    names = [path.name for path in config.adapters]
    prompts = read_prompts(config.prompts, TextModel.load(config.model), names)
    random.Random(f"prompts:{config.seed}").shuffle(prompts)
    learned, held_out = split(prompts, config.held_out)
    length = longest(config, prompts)
    target = TrainingTarget(config, work / "adapters", corpus.PER_SHARD, length)
    try:
        corpus.make(work / TEXTS, target, learned, config.tokens, lambda done, of: _progress("collect", done, of))
    finally:
        target.close()
    before = {} if config.drafter is None else {"drafter alone": _evaluate(config, held_out, length)["all"]}
    trainee = build(config, length)
    texts = corpus.Corpus(work / TEXTS, len(learned))
    training = Training(config, trainee, texts, work)
    training.run(lambda done, of, loss, right: _progress("train", done, of, loss=loss, right=right))
    save(config, trainee, target.digests)
    found = _evaluate(config, held_out, length) | before
    written = finished.with_suffix(".part")
    written.write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    written.rename(finished)
    _sweep(work)
    _tell("done", evaluation=msgspec.to_builtins(found))


def _sweep(work: Path) -> None:
    """Remove what a finished run needs no more: its checkpoint, and by far the largest, a feature of the model for
    every token."""
    (work / CHECKPOINT).unlink(missing_ok=True)
    shutil.rmtree(work / TEXTS, ignore_errors=True)


def _evaluate(config: TrainConfig, held_out: list[Prompt], length: int) -> dict[str, Score]:
    head = config.out if config.drafter is None else config.drafter
    blobs = config.out / WORK / "adapters"
    target = TrainingTarget(config, blobs, corpus.PER_SHARD, length, f"{kind_of(head)}:{head}")
    try:
        return evaluate(
            target, held_out, config.tokens, config.levels, lambda done, of: _progress("evaluate", done, of)
        )
    finally:
        target.close()


def split(prompts: list[Prompt], held_out: float) -> tuple[list[Prompt], list[Prompt]]:
    """(to learn from, to evaluate on); at least one of each."""
    kept = min(len(prompts) - 1, max(1, round(len(prompts) * held_out)))
    if kept < 1:
        raise InvalidRequest("prompts", "two or more are needed, one of them to evaluate on")
    return prompts[kept:], prompts[:kept]


def _own(config: TrainConfig, work: Path) -> None:
    """Refuse a folder that another run's pieces lie in."""
    work.mkdir(parents=True, exist_ok=True)
    asked, known = msgspec.json.encode(config, enc_hook=str), work / RUN
    if known.exists() and known.read_bytes() != asked:
        raise InvalidRequest("out", f"{config.out} holds a run with other settings; remove it or name another folder")
    known.write_bytes(asked)


def _progress(stage: str, done: int, of: int, **more: Any) -> None:
    _tell("progress", stage=stage, done=done, of=of, **more)


def _tell(event: str, **fields: Any) -> None:
    sys.stdout.buffer.write(msgspec.json.encode({"event": event, **fields}) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv))
