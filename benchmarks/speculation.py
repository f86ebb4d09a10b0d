"""Speculation beside the same requests without it: tokens per step, acceptance by position, speed-up, prediction.

`python -m benchmarks.speculation` serves the demo model's tasks (each with its adapter), chat, and texts to copy,
by every proposer and batch, and a 0.5B shape with an oracle of known acceptance. Off and on take turns, request set
by request set, so that what else the machine does hits both; the middle of the pairs is told.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import models
from benchmarks.guessing import CONTEXT, PAGES, Ask, Oracle, Pairs, Server
from tenantry.adapters.base_digest import digest_model
from tenantry.adapters.manifest import BaseSpec
from tenantry.adapters.store import LocalStore
from tenantry.adapters.validate import validate
from tenantry.runtime.config import CacheConfig, EngineConfig, ScheduleConfig
from tenantry.runtime.model.lora import share_interpreter
from tenantry.runtime.model.runner import ModelRunner
from tenantry.runtime.speculative.options import parse
from tenantry.runtime.speculative.speculator import Speculator
from tenantry.runtime.text import TextModel

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "examples" / "demo"
NEW = {"tasks": 48, "chat": 64, "copy": 96}
TARGETS = {"copy ngram": 2.0, "tasks draft": 1.6}  # of speed-up, at batch 1
NEVER_BELOW = 0.97  # of off: auto, at any batch
OF_THE_FORMULA = 0.85  # the oracle's speed-up, at any batch
OFF_ITS_WORD = 0.1  # so much less than it was told may an oracle's guesses stand, by chance


@dataclass(frozen=True, slots=True)
class Bench:
    """A model whose adapters lie in its store, ready to make runners of."""

    config: EngineConfig
    text: TextModel
    digests: dict[str, bytes]


def demo(folder: Path) -> Bench:
    store = LocalStore(folder)
    shape = json.loads((DEMO / "model" / "config.json").read_text())
    spec = BaseSpec.from_config(shape, digest_model(DEMO / "model"))
    digests = {}
    for path in sorted((DEMO / "adapters").iterdir()):
        report = validate(path, spec, store=store)
        assert report.manifest is not None, report.problems
        digests[path.name] = report.manifest.digest
    return Bench(_config(DEMO / "model", folder), TextModel.load(DEMO / "model"), digests)


def asks(bench: Bench, kind: str, count: int, seed: int) -> list[Ask]:
    """tasks: the demo's own, held out. chat: the base talks. copy: the base goes on with a text that repeats."""
    sys.path.insert(0, str(DEMO.parent))
    from demo.evaluate import CHAT_PROMPTS
    from demo.tasks import TASKS

    rng, new = random.Random(f"{kind}{seed}"), NEW[kind]
    found: list[Ask] = []
    while len(found) < count:
        if kind == "tasks":
            name = rng.choice(sorted(TASKS))
            messages = next(TASKS[name].examples(rng.randrange(1 << 30), held_out=True)).messages
            found.append(Ask(bench.digests[name], tuple(bench.text.render(messages)), new))
        elif kind == "chat":
            turn = {"role": "user", "content": rng.choice(CHAT_PROMPTS)}
            found.append(Ask(None, tuple(bench.text.render([turn])), new))
        else:
            words = bench.text.encode(rng.choice(CHAT_PROMPTS) + " ")
            found.append(Ask(None, tuple((words * 40)[: 120 + rng.randrange(40)]), new, ignore_eos=True))
    return found


def option(word: str, folder: Path) -> str:
    """What `--speculate` is told. bare: a head without the LoRAs that it has for adapters. folder: for its copy."""
    if word in ("ngram", "self"):
        return word
    both, kind = word.startswith("auto"), word.removeprefix("auto").removeprefix("+") or "draft"
    kind, bare, _ = kind.partition("-bare")
    directory = DEMO / kind
    if bare:
        directory = Path(shutil.copytree(directory, folder / word, ignore=shutil.ignore_patterns("adapters")))
    return f"{'auto:' if both else ''}{kind}:{directory}"


def of_demo(a: argparse.Namespace, by_adapter: list[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """by_adapter: takes what each adapter's guesses came to, of those with tasks at the first batch."""
    with tempfile.TemporaryDirectory() as folder:
        bench = demo(Path(folder))
        plain = ModelRunner(bench.config)
        for word in a.speculate.split(","):
            asked_for = option(word, Path(folder))
            guessing = ModelRunner(replace(bench.config, speculate=asked_for))
            choice = parse(asked_for)
            for kind in a.kinds.split(","):
                for batch in _batches(a, word):
                    speculator = Speculator(choice.ngram, choice.model, a.depth)
                    pairs, without = Pairs(batch), Server(plain, plain, bench.text, batch)
                    server = Server(guessing, guessing, bench.text, batch, speculator)
                    for turn in range(a.rounds + 1):
                        asked = asks(bench, kind, max(2 * batch, 6), turn)
                        off, on = without.serve(asked), server.serve(asked)
                        if turn:  # the first one warms caches up, and what is learned
                            pairs.off.append(off)
                            pairs.on.append(on)
                    yield _line(f"demo {kind}", word, pairs, pairs.predicted, _verdict(kind, word, pairs))
                    if kind == "tasks" and batch == _batches(a, word)[0]:
                        by_adapter += _adapters(bench, word, pairs)


def _adapters(bench: Bench, word: str, pairs: Pairs) -> Iterator[tuple[str, ...]]:
    for name, digest in sorted(bench.digests.items()):
        found = pairs.of_adapter(digest)
        if found is None:
            continue
        proposers = (f"{kind}: {' '.join(f'{share:.2f}' for share in shares[:6])}" for kind, shares in found.stood)
        yield name, word, f"{found.tokens_per_step:.2f}", "; ".join(proposers)


def of_oracle(a: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """The 0.5B shape: guesses cost nothing to make, so the formula is tau / v, with the acceptance of this run."""
    folder = models.make(a.folder, 0)
    with tempfile.TemporaryDirectory() as scratch:
        base = folder / "base"
        model, text = ModelRunner(_config(base, Path(scratch))), TextModel.load(base)
        for knows in (0.7, 0.8):
            for batch in map(int, a.batches.split(",")):
                for depth in map(int, a.oracle_depths.split(",")):
                    oracle, pairs = Oracle(model, knows, text.vocab_size), Pairs(batch)
                    speculator = Speculator(False, Oracle.KIND, depth)
                    without = Server(model, model, text, batch)
                    server = Server(oracle, model, text, batch, speculator)
                    rng = random.Random(batch)
                    for turn in range(a.oracle_rounds * max(1, 4 // batch) + 1):
                        asked = [
                            Ask(None, tuple(rng.randrange(1000, 20000) for _ in range(24)), 40 if turn else 12, True)
                            for _ in range(batch)
                        ]
                        off = without.serve(asked)
                        oracle.truths = {x.prompt: drawn for x, drawn in zip(asked, off.texts, strict=True)}
                        on = server.serve(asked)
                        assert on.texts == off.texts, "guesses changed the text"
                        if turn:
                            pairs.off.append(off)
                            pairs.on.append(on)
                    deep = depth or round(pairs.node_steps)
                    stood = pairs.acceptance()
                    tau = (1 - stood ** (deep + 1)) / (1 - stood)
                    predicted = tau / pairs.cost_of_judging()
                    verdict = _oracle_verdict(knows, stood, pairs.decode_speed_up / predicted)
                    yield _line(f"0.5B oracle {knows}", f"depth {depth or 'auto'}", pairs, predicted, verdict)


HEAD = ("requests", "proposer", "batch", "tokens/step", "guesses/step", "speed-up", "decode", "predicted", "target",
        "stood, by position")  # fmt: skip
ADAPTERS_HEAD = ("adapter", "proposer", "tokens/step", "stood, by position")


def _line(what: str, word: str, pairs: Pairs, predicted: float, verdict: str) -> tuple[str, ...]:
    positions = " ".join(f"{share:.2f}" for share in pairs.by_position()[:8])
    numbers = (pairs.tokens_per_step, pairs.node_steps, pairs.speed_up, pairs.decode_speed_up, predicted)
    return (what, word, str(pairs.batch), *(f"{number:.2f}" for number in numbers), verdict, positions)


def _verdict(kind: str, word: str, pairs: Pairs) -> str:
    target = TARGETS.get(f"{kind} {word}") if pairs.batch == 1 else None
    if word.startswith("auto"):
        target = max(target or 0.0, NEVER_BELOW)
    if target is None:
        return ""
    return f"{'ok' if pairs.speed_up >= target else 'below'} {target}"


def _oracle_verdict(knows: float, stood: float, of_formula: float) -> str:
    """A formula fed with fewer guesses that stood than there should be predicts less, and is reached too easily."""
    if stood < knows - OFF_ITS_WORD:
        return f"stood {stood:.2f}, not {knows}"
    return "ok" if of_formula >= OF_THE_FORMULA else f"below {OF_THE_FORMULA}: {of_formula:.2f}"


def _batches(a: argparse.Namespace, word: str) -> list[int]:
    return [*map(int, a.batches.split(",")), *([64] if word.startswith("auto") and a.largest else [])]


def _config(model: Path, folder: Path) -> EngineConfig:
    schedule = ScheduleConfig(max_context=CONTEXT)
    return EngineConfig(model, folder, "", folder, cache=CacheConfig(pages=PAGES), schedule=schedule)


def tell(head: tuple[str, ...], rows: Iterable[tuple[str, ...]], out: Path | None) -> None:
    """Print rows as they come, as a Markdown table."""
    for cells in (head, tuple("---" for _ in head)):
        _say(cells, out)
    for cells in rows:
        _say(cells, out)


def _say(cells: Sequence[str], out: Path | None) -> None:
    line = f"| {' | '.join(cells)} |"
    print(line, flush=True)
    if out is not None:
        with out.open("a") as file:
            file.write(line + "\n")


def main() -> None:
    share_interpreter()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--what", default="demo,oracle")
    parser.add_argument("--batches", default="1,4,16")
    parser.add_argument("--kinds", default="tasks,chat,copy")
    parser.add_argument(
        "--speculate", default="ngram,draft,auto", help="ngram, self, draft, eagle, eagle-bare, auto, auto+eagle"
    )
    parser.add_argument("--depth", type=int, default=0, help="guess so many always; 0 lets measurements decide")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--largest", action=argparse.BooleanOptionalAction, default=True, help="auto at batch 64")
    parser.add_argument("--oracle-depths", default="4,0")
    parser.add_argument("--oracle-rounds", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=ROOT / "peers", help="where the 0.5B shape is made")
    parser.add_argument("--out", type=Path, help="append the table to this file")
    a = parser.parse_args()
    if "demo" in a.what:
        by_adapter: list[tuple[str, ...]] = []
        tell(HEAD, of_demo(a, by_adapter), a.out)
        tell(ADAPTERS_HEAD, by_adapter, a.out)
    if "oracle" in a.what:
        tell(HEAD, of_oracle(a), a.out)


if __name__ == "__main__":
    main()
