"""`tenantry train-drafter`: heads that guess ahead, learned from what the user's own base and adapters answer.

Owns the command's flags, the process that trains, and its progress for people. How training is done is
runtime/training's business; torch is only loaded there.
"""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import msgspec
from cyclopts import Parameter
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from tenantry.platform.cli.model import find_model
from tenantry.platform.cli.output import err, fail, out, show_json, show_table
from tenantry.platform.core.errors import ConfigurationError
from tenantry.runtime.errors import RuntimeRefusal
from tenantry.runtime.training.config import Kind, TrainConfig

STAGES = {"collect": "collecting answers", "train": "training", "evaluate": "evaluating"}
Event = dict[str, Any]


def train_drafter(
    kind: Annotated[Kind, Parameter(help="What to train.")],
    *,
    model: Annotated[str, Parameter(help="The base: a directory with config.json and safetensors, or a hub id.")],
    prompts: Annotated[
        Path, Parameter(help='A line each: a message, or JSON with "messages" or "prompt", and "adapter".')
    ],
    out: Annotated[Path, Parameter(help="Where the drafter goes; the same again goes on from its checkpoint.")],
    adapter: Annotated[
        tuple[Path, ...], Parameter(help="A PEFT folder whose answers are learned too; may be given again.")
    ] = (),
    drafter: Annotated[
        Path | None, Parameter(help="lora: the folder of the head or draft model; the result goes beside it.")
    ] = None,
    rank: Annotated[int, Parameter(help="lora: its rank.")] = 16,
    levels: Annotated[int, Parameter(help="Tokens in a row that are learned.")] = 4,
    intermediate: Annotated[int, Parameter(help="Width of the MLP in a head's layer; 0 is the target's.")] = 0,
    own_heads: Annotated[bool, Parameter(help="medusa: a vocabulary of its own for each head.")] = False,
    tokens: Annotated[int, Parameter(help="Most tokens of an answer.")] = 128,
    held_out: Annotated[float, Parameter(help="Share of the prompts that are only evaluated.")] = 0.05,
    epochs: Annotated[int, Parameter(help="Passes over the answers.")] = 4,
    batch: Annotated[int, Parameter(help="Answers in one step.")] = 16,
    rate: Annotated[float, Parameter(help="Peak learning rate.")] = 1e-3,
    seed: Annotated[int, Parameter(help="Of the order of answers and the first weights.")] = 0,
    dtype: Annotated[
        Literal["bfloat16", "float32"], Parameter(help="As the base will be served: bfloat16 or float32.")
    ] = "bfloat16",
    kv_dtype: Annotated[
        Literal["int8", "bfloat16", "native"], Parameter(help="As it will be served: int8, bfloat16 or native.")
    ] = "int8",
    device: Annotated[Literal["cpu", "cuda"], Parameter(help="cpu, or cuda.")] = "cpu",
    threads: Annotated[int, Parameter(help="Threads; 0 takes all cores.")] = 0,
    json: Annotated[bool, Parameter(negative="", help="Print the evaluation as JSON.")] = False,
) -> None:
    """Train heads for a base and its adapters on your own prompts, to serve with --speculate. A lora fits a head, or
    a draft model, to one adapter more closely.

    Example: tenantry train-drafter eagle --model ./llama-3-8b --prompts ./prompts.jsonl --out ./heads
    """
    try:
        config = TrainConfig(
            kind=kind,
            model=find_model(model),
            prompts=prompts.absolute(),
            out=out.absolute(),
            adapters=tuple(path.absolute() for path in adapter),
            drafter=drafter.absolute() if drafter else None,
            rank=rank,
            levels=levels,
            intermediate=intermediate,
            own_heads=own_heads,
            tokens=tokens,
            held_out=held_out,
            epochs=epochs,
            batch=batch,
            rate=rate,
            seed=seed,
            threads=threads or os.cpu_count() or 1,
            device=device,
            dtype=dtype,
            kv_dtype=kv_dtype,
        )
    except ConfigurationError as error:
        fail(str(error), status=78)
    except RuntimeRefusal as error:
        fail(f"{error.param}: {error}", status=78)
    evaluation = run(config)
    if json:
        show_json(evaluation)
    else:
        announce(config, evaluation)


def run(config: TrainConfig) -> Event:
    """The evaluation, by adapter. A refusal ends the command; Ctrl-C ends the process and keeps its checkpoint."""
    with tempfile.TemporaryDirectory(prefix="tenantry-train-") as folder:
        path = Path(folder) / "config.json"
        path.write_bytes(msgspec.json.encode(config, enc_hook=str))
        command = [sys.executable, "-m", "tenantry.runtime.training", str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0) as process:  # noqa: S603
            try:
                return _follow(process)
            except KeyboardInterrupt:
                process.send_signal(signal.SIGINT)
                process.wait()
                fail("stopped; the same command goes on from the last checkpoint", status=130)


def _follow(process: "subprocess.Popen[str]") -> Event:
    """What the process tells, as bars, to its last word."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    assert process.stdout is not None
    with Progress(*columns, console=err) as progress:
        bars: dict[str, TaskID] = {}
        for line in process.stdout:
            event: Event = msgspec.json.decode(line)
            match event["event"]:
                case "progress":
                    stage = event["stage"]
                    if stage not in bars:
                        bars[stage] = progress.add_task(STAGES[stage], note="")
                    progress.update(bars[stage], completed=event["done"], total=event["of"], note=_note(event))
                case "refused":
                    progress.stop()
                    fail(event["message"], status=78)
                case "done":
                    return cast(Event, event["evaluation"])
    fail(f"training ended without a result (status {process.wait()}); the same command goes on where it was")


def _note(event: Event) -> str:
    if "loss" not in event:
        return ""
    return f"loss {event['loss']:.3f}, right {' '.join(f'{share:.2f}' for share in event['right'])}"


def announce(config: TrainConfig, evaluation: Event) -> None:
    rows = [
        {
            "of": name,
            "prompts": score["prompts"],
            "tokens": f"{score['tokens_per_step']:.2f}",
            "acceptance": " ".join(f"{rate:.2f}" for rate in score["acceptance"]),
        }
        for name, score in evaluation.items()
    ]
    columns = (
        ("of", "answers of"), ("prompts", "prompts"), ("tokens", "tokens per step"),
        ("acceptance", "acceptance by position"),
    )  # fmt: skip
    show_table(rows, columns)
    if config.drafter is not None:
        out.print(f"\nserve it with {config.drafter}, beside which it lies", soft_wrap=True, markup=False)
    else:
        out.print(f"\nserve it with  --speculate {config.kind}:{config.out}", soft_wrap=True, markup=False)
