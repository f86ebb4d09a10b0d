"""Heads from prompts to guesses: trained by the command's own process on a tiny model, served by the runner."""

import dataclasses
import json
import random
import shutil

import msgspec
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tenantry.adapters.residency import Residency
from tenantry.adapters.room import Budget, Footprint
from tenantry.kernels.lora.table import LoraTable
from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.config import CacheConfig, ScheduleConfig
from tenantry.runtime.engine import Engine
from tenantry.runtime.errors import InvalidRequest
from tenantry.runtime.messages import Finished, Sampling, Submit, Tokens
from tenantry.runtime.model.driver import Driver
from tenantry.runtime.model.errors import ModelUnsupported
from tenantry.runtime.model.heads.adapted import HeadAdapters, read_index
from tenantry.runtime.model.heads.skipping import layers_without
from tenantry.runtime.model.runner import ModelRunner
from tenantry.runtime.plan import StepPlan
from tenantry.runtime.scheduler.scheduler import Scheduler
from tenantry.runtime.speculative.speculator import Speculator
from tenantry.runtime.stops import StopWatch
from tenantry.runtime.training import loop
from tenantry.runtime.training.__main__ import train
from tenantry.runtime.training.config import TrainConfig
from tenantry.runtime.training.target import TrainingTarget

KINDS = ("medusa", "eagle", "clover")
WITH_A_LAYER = KINDS[1:]  # which a LoRA can change
SAMPLINGS = {
    "greedy": {"temperature": 0.0},
    "temperature": {"temperature": 1.0},
    "filters": {"temperature": 0.9, "top_p": 0.8, "top_k": 30, "min_p": 0.01},
    "penalties": {"temperature": 0.7, "repetition_penalty": 1.3, "presence_penalty": 0.4, "min_tokens": 20},
    "logprobs": {"temperature": 0.5, "logprobs": 3},
}


@pytest.fixture(scope="module")
def base(bases, tmp_path_factory):
    """The tiny model with a tokenizer of its own: words w0 to w100, of which w7 ends a text."""
    folder = tmp_path_factory.mktemp("trained") / "base"
    shutil.copytree(bases("llama"), folder)
    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(101)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def adapter(make_adapter):
    folder = make_adapter("llama", seed=4, r=4)
    (folder / "README.md").unlink(missing_ok=True)
    return folder


@pytest.fixture(scope="module")
def asked(base, adapter):
    """(ids, adapter's name or None) of the prompts that are learned from, and their file."""
    rng = random.Random(1)
    found = [
        ([rng.randrange(8, 101) for _ in range(rng.randrange(2, 20))], (None, adapter.name)[i % 2]) for i in range(12)
    ]
    path = base.parent / "prompts.jsonl"
    lines = [{"prompt": " ".join(f"w{t}" for t in ids)} | ({"adapter": name} if name else {}) for ids, name in found]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return found, path


def settings(kind, base, adapter, asked, out, **changes):
    given = {
        "levels": 4, "tokens": 24, "held_out": 0.05, "epochs": 25, "batch": 4, "own_heads": kind == "medusa",
        "rate": 3e-3, "dtype": "float32", "kv_dtype": "native",
    }  # fmt: skip
    return TrainConfig(kind=kind, model=base, prompts=asked[1], out=out, adapters=(adapter,), **given | changes)


@pytest.fixture(scope="module", params=KINDS)
def trained(request, base, adapter, asked):
    """(kind, folder) of a head that has learned every prompt but one."""
    out = base.parent / request.param
    train(settings(request.param, base, adapter, asked, out))
    return request.param, out


@pytest.fixture(scope="module")
def guessing(trained, base, engine_config):
    kind, folder = trained
    config = dataclasses.replace(engine_config, model_dir=base, speculate=f"{kind}:{folder}")
    runner = ModelRunner(config)
    yield runner
    runner.close()


def guided(runner, tracks, tokens, ahead, nodes, chunk=None):
    """Driver.generate with guesses in every step, chains or (nodes > ahead) trees. Returns guesses that stood, and
    verdicts."""
    driver, drafts, stood, judged = Driver(runner), {}, 0, 0
    while live := [t for t in tracks if len(t.generated) < tokens]:
        rows = []
        for track in live:
            row, draft = driver.row(track, chunk), drafts.pop(id(track), None)
            room = len(track.tokens) + 1 + 2 * max(ahead, nodes)
            while len(track.pages) * driver.page_size < room:
                track.pages.append(driver._next_page)
                driver._next_page += 1
            if row.draw is not None:
                row = msgspec.structs.replace(row, draft=draft, ahead=ahead, nodes=nodes)
            rows.append(row)
        for track, row, result in zip(live, rows, runner.run(StepPlan(0, tuple(rows))).rows, strict=True):
            assert result.fault is None
            track.computed += len(row.tokens) + result.accepted
            track.tokens += result.tokens
            track.logprobs += result.logprobs or ()
            stood, judged = stood + result.accepted, judged + (row.draft is not None)
            if result.proposal is not None:
                result.proposal.check()
                drafts[id(track)] = result.proposal
    return stood, judged


def compared(guessing, plain, adapter, asked, options, nodes):
    """Every prompt with guesses and without: the same tokens and logprobs. Returns guesses that stood, and
    verdicts."""
    digests = {None: None, adapter.name: plain.add(adapter)}
    if not guessing.adapters.resident:
        Driver(guessing).load(digests[adapter.name])
    made = []
    for driver in (plain.driver, Driver(guessing)):
        drawn = [Sampling(max_tokens=99, seed=i, **options) for i in range(8)]
        made.append([driver.track(ids, digests[name], s) for (ids, name), s in zip(asked[0], drawn, strict=False)])
    plain.driver.generate(made[0], 24)
    stood, judged = guided(guessing, made[1], 24, ahead=4, nodes=nodes, chunk=7)
    for mine, theirs in zip(made[1], made[0], strict=True):
        assert mine.generated[:24] == theirs.generated[:24]
        for entry, expected in zip(mine.logprobs, theirs.logprobs, strict=False):
            assert entry.token == expected.token
            assert entry.logprob == pytest.approx(expected.logprob, abs=1e-5)
    return stood, judged


EVERY_KIND = [("greedy", 0), ("greedy", 12), ("temperature", 12), ("filters", 0), ("penalties", 12), ("logprobs", 12)]


@pytest.mark.parametrize(("sampling", "nodes"), EVERY_KIND)
def test_guesses_change_no_token(guessing, serve, adapter, asked, sampling, nodes):
    stood, judged = compared(guessing, serve("llama"), adapter, asked, SAMPLINGS[sampling], nodes)
    assert judged > 0
    if sampling == "greedy":
        assert stood / judged > 0.25, "what was learned is guessed"


@pytest.fixture(scope="module")
def skipping(base, engine_config):
    runner = ModelRunner(dataclasses.replace(engine_config, model_dir=base, speculate="self:1"))
    yield runner
    runner.close()


@pytest.mark.parametrize(("sampling", "nodes"), EVERY_KIND)
def test_the_model_without_a_layer_guesses_for_itself(skipping, serve, adapter, asked, sampling, nodes):
    stood, judged = compared(skipping, serve("llama"), adapter, asked, SAMPLINGS[sampling], nodes)
    assert judged > 0
    assert stood > 0


def test_a_model_has_only_so_many_layers_to_leave_out(base, engine_config):
    assert layers_without(12, 4) == (0, 1, 3, 5, 6, 8, 10, 11)
    with pytest.raises(ModelUnsupported, match="from 1 to 1 of the model's 3 layers"):
        ModelRunner(dataclasses.replace(engine_config, model_dir=base, speculate="self:2"))


@pytest.fixture(scope="module")
def fitted(trained, base, adapter, asked):
    """A head with a LoRA of its own for the adapter, learned from the adapter's prompts alone."""
    kind, folder = trained
    head = base.parent / f"{kind}-fitted"
    shutil.copytree(folder, head)
    path = base.parent / f"{kind}-own.jsonl"
    lines = [json.dumps({"prompt": " ".join(f"w{t}" for t in ids)}) for ids, name in asked[0] if name]
    path.write_text("\n".join(lines))
    out = base.parent / f"{kind}-lora"
    train(settings("lora", base, adapter, (None, path), out, drafter=head, rank=8, rate=1e-2, own_heads=False))
    return kind, head, out


@pytest.mark.parametrize("trained", WITH_A_LAYER, indirect=True)
def test_a_lora_for_one_adapter_helps_it_and_changes_no_token(fitted, base, adapter, asked, serve, engine_config):
    kind, head, out = fitted
    found = json.loads((out / "evaluation.json").read_text())
    assert {"all", "drafter alone", adapter.name} == found.keys()
    own = ([entry for entry in asked[0] if entry[1]], None)
    stood = []
    for folder in (out.parent / kind, head):
        runner = ModelRunner(dataclasses.replace(engine_config, model_dir=base, speculate=f"{kind}:{folder}"))
        stood.append(compared(runner, serve("llama"), adapter, own, SAMPLINGS["greedy"], 12)[0])
        runner.close()
    assert stood[1] > stood[0]


@pytest.mark.parametrize("trained", WITH_A_LAYER, indirect=True)
def test_a_damaged_lora_is_left_out_and_the_head_guesses_as_it_is(fitted, base, adapter, serve, tmp_path):
    _, head, _ = fitted
    copy = tmp_path / "head"
    shutil.copytree(head, copy)
    digest = serve("llama").add(adapter)
    table = serve("llama").runner.adapters.table
    layer = LoraTable(1, table.sites, torch.float32)
    pool = serve("llama").runner.pool
    assert digest in read_index(copy)
    assert read_index(copy) == read_index(head)
    blob = next((copy / "adapters").glob(f"*{read_index(copy)[digest].hex()}*"))
    blob.write_bytes(blob.read_bytes()[:-1] + b"!")
    assert HeadAdapters(copy, layer, pool).slots([digest, None]) == [None, None]


def test_a_lora_fits_a_draft_model_to_one_adapter(base, adapter, asked, serve, engine_config, tmp_path):
    """The target is its own draft model: it knows all of itself and nothing of the adapter."""
    bare, fitted, lines = tmp_path / "bare", tmp_path / "fitted", tmp_path / "own.jsonl"
    for folder in (bare, fitted):
        shutil.copytree(base, folder)
    own = [entry for entry in asked[0] if entry[1]]
    lines.write_text("\n".join(json.dumps({"prompt": " ".join(f"w{t}" for t in ids)}) for ids, _ in own))
    out = tmp_path / "lora"
    train(settings("lora", base, adapter, (None, lines), out, drafter=fitted, rank=8, rate=1e-2, own_heads=False))
    found = json.loads((out / "evaluation.json").read_text())
    assert {"all", "drafter alone", adapter.name} == found.keys()
    assert read_index(fitted).keys() == {serve("llama").add(adapter)}
    stood = []
    for folder in (bare, fitted):
        runner = ModelRunner(dataclasses.replace(engine_config, model_dir=base, speculate=f"draft:{folder}"))
        stood.append(compared(runner, serve("llama"), adapter, (own, None), SAMPLINGS["greedy"], 12)[0])
        runner.close()
    assert stood[1] > stood[0]


class Silent:
    """A journal for nobody."""

    def append(self, records):
        pass


def served_by(engine, submits):
    """Tokens of each request through the whole engine, and (guesses, those that stood)."""
    told, counts, now = {}, [0, 0], 0.0
    for submit in submits:
        assert engine.submit(submit, now) is None
    while engine.has_work:
        now += 0.01
        for event in engine.step(now):
            if isinstance(event, Tokens):
                told.setdefault((event.request_id, event.choice), []).extend(event.tokens)
            elif isinstance(event, Finished):
                counts = [counts[0] + event.usage.drafted, counts[1] + event.usage.accepted]
    return told, counts


@pytest.mark.parametrize("depth", [0, 3])
def test_the_engine_tells_the_same_with_heads_and_without(trained, guessing, serve, adapter, asked, depth):
    """Through scheduler, shared prefixes, several choices, ends and limits; depth 0: as measurements say."""
    kind, _ = trained
    plain = serve("llama")
    digests = {None: None, adapter.name: plain.add(adapter)}

    def engine(runner, speculator):
        runner.run(StepPlan(0, (), evict=tuple(runner.adapters.resident)))
        schedule = ScheduleConfig(token_budget=64, max_running=6, max_context=128)
        cache = KvCache.alone(CacheConfig(page_size=runner.pool.layout.page_size, pages=512))
        scheduler = Scheduler(schedule, cache, Residency(Budget(1 << 30)), runner.end_tokens, runner.vocab_size)

        def footprint(digest):
            return Footprint((plain.store.size(digest),))

        return Engine(scheduler, runner, Silent(), StopWatch(None), footprint, speculator)

    submits = []
    for i, (ids, name) in enumerate(asked[0]):
        options = {"temperature": 0.0} if i % 3 else {"temperature": 0.8, "top_p": 0.9}
        sampling = Sampling(max_tokens=5 + 2 * i, seed=i, n=2 if i == 4 else 1, **options)
        digest = digests[name]
        submits.append(Submit(f"r{i}", tuple(ids), sampling, digest or bytes(32), digest, "t"))
    told, _ = served_by(engine(plain.runner, None), submits)
    guessed, (drafted, accepted) = served_by(engine(guessing, Speculator(False, kind, depth)), submits)
    assert guessed == told
    if depth:
        assert 0 < accepted < drafted


def test_the_evaluation_is_of_prompts_that_were_not_learned(trained):
    _, folder = trained
    found = json.loads((folder / "evaluation.json").read_text())
    assert found["all"]["prompts"] == 1
    assert 1 <= found["all"]["tokens_per_step"] <= 5
    assert all(0 <= rate <= 1 for rate in found["all"]["acceptance"])


def test_a_finished_run_tells_its_evaluation_again_and_keeps_no_texts(trained, base, adapter, asked, capsys):
    kind, folder = trained
    (folder / "work" / "texts").mkdir()  # stopped after the evaluation was written, and before these were gone
    (folder / "work" / loop.CHECKPOINT).touch()
    train(settings(kind, base, adapter, asked, folder))
    (told,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert told == {"event": "done", "evaluation": json.loads((folder / "evaluation.json").read_text())}
    assert {path.name for path in (folder / "work").iterdir()} == {"run.json", "adapters"}


def test_a_run_goes_on_from_its_checkpoint_to_the_same_weights(base, adapter, asked, trained, monkeypatch):
    """Stopped in the middle of training, with its texts already made."""
    kind, folder = trained
    out = base.parent / f"{kind}-stopped"
    config = settings(kind, base, adapter, asked, out)
    monkeypatch.setattr(loop, "EVERY", 5)
    step = loop.Training._step

    def stop_at_8(self, batch):
        if self.done == 8:
            raise KeyboardInterrupt
        return step(self, batch)

    monkeypatch.setattr(loop.Training, "_step", stop_at_8)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    assert not (out / "config.json").exists(), "a head that is half trained is not one to serve"
    monkeypatch.setattr(loop.Training, "_step", step)
    monkeypatch.setattr(TrainingTarget, "continuations", None)  # what was made is not made again
    train(config)
    (name,) = (path.name for path in folder.glob("*.safetensors"))
    for key, value in load_file(folder / name).items():
        assert torch.equal(value, load_file(out / name)[key]), key


def test_another_run_in_the_same_folder_is_refused(base, adapter, asked, trained):
    kind, folder = trained
    with pytest.raises(InvalidRequest, match="holds a run with other settings"):
        train(settings(kind, base, adapter, asked, folder, rate=1e-3))


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("", "holds none"),
        ('{"prompt": "w1"}\n{"prompt": "w1", "adapter": "who"}', "line 2: adapter 'who' was not given"),
        ('{"prompt": "w1", "text": "w2"}', "line 1: there is no field 'text'"),
        ('{"prompt": ""}', "line 1: is empty"),
        ("{", "line 1"),
        ('{"prompt": "w1"}', "two or more are needed"),
        (f'{{"prompt": "w1"}}\n{{"prompt": "{"w1 " * 230}"}}', "take 254 of the model's 256 positions"),
    ],
)
def test_prompts_that_cannot_be_used_are_refused_by_line(base, adapter, asked, tmp_path, lines, problem):
    path = tmp_path / "prompts.jsonl"
    path.write_text(lines)
    with pytest.raises(InvalidRequest, match=problem):
        train(settings("eagle", base, adapter, (None, path), tmp_path / "out"))
