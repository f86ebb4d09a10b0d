"""A contest over servers that answer by the clock: what it judges, and that nothing is skipped in silence."""

import json
import random
from dataclasses import dataclass, field

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from benchmarks import contest
from benchmarks import workload as workloads
from benchmarks.contest import Contest
from benchmarks.floor import Machine, Size
from benchmarks.load import Answer, Outcome
from benchmarks.report import Report
from benchmarks.variants import VARIANTS
from benchmarks.workload import Workload

BF16, INT8 = VARIANTS
BOUNDS = {
    "x bf16 W1 / peer": ">= 3",
    "x int8 W1 / peer": ">= 9",
    "x int8 W5 / peer": ">= 1.6",
    "x bf16 WC of the machine's limit": ">= 0.5",
}
MACHINE = Machine("test", 2, {"read": 1e9}, {"gemm": 1e9})


@dataclass
class Timed:
    """A server whose tokens take `step` seconds each, one request after another."""

    step: float
    broken: bool = False
    sent: list[Workload] = field(default_factory=list)

    def drive(self, workload: Workload) -> Outcome:
        self.sent.append(workload)
        answers = []
        for call in workload.calls:
            times = [self.step * (i + 1) for i in range(call.max_tokens)]
            counted = 0 if self.broken else call.max_tokens
            cached = len(call.prompt) if len(answers) >= 4 else 0
            answers.append(Answer(call, 0.0, times, [], cached, counted))
        return Outcome(workload.name, sum(a.times[-1] for a in answers), tuple(answers))


@pytest.fixture
def model(tmp_path, monkeypatch):
    vocabulary = {chr(97 + i): i for i in range(26)}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="a"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    text = " ".join(random.Random(1).choices(list(vocabulary), k=3000))
    monkeypatch.setattr(workloads, "standard_library_text", lambda: [text])
    size = Size(layers=10, head=5, rank=2, attention=1, kv_token=4)
    monkeypatch.setattr(Size, "of", classmethod(lambda *_: size))
    (tmp_path / "config.json").write_text(json.dumps({}))
    return tmp_path


@pytest.fixture
def made(model, monkeypatch) -> Contest:
    monkeypatch.setattr(contest, "TARGETS", BOUNDS)
    monkeypatch.setattr(contest, "SETTLE_S", 0.0)
    ranks = {f"{i:02d}": 8 for i in range(32)}
    return Contest("x", model, ranks, MACHINE, Report(), lambda: MACHINE, {BF16: Timed(1.0), INT8: Timed(0.5)})


def values(contest: Contest) -> dict[str, float | None]:
    return {row.what: row.value for row in contest.report.rows}


def test_a_duel_is_ours_then_theirs_then_ours_on_prompts_that_nobody_saw(made):
    prompts = []

    def theirs(workload: Workload) -> float:
        prompts.append(workload.calls[0].prompt)
        assert {call.max_tokens for call in workload.calls} == {9}
        assert len(made.ours[BF16].sent) == 1
        return 0.25

    made.duel("W1", "peer", ("bf16", "int8"), theirs, calls=16, tokens=9, note="2 threads")
    sent = [*made.ours[BF16].sent, *made.ours[INT8].sent]
    assert [(len(w.calls), w.calls[0].max_tokens) for w in sent] == [(16, 9)] * 4
    prompts += [w.calls[0].prompt for w in sent]
    assert len(set(prompts)) == 5
    assert values(made)["x bf16 W1 / peer"] == pytest.approx(4.0)
    assert values(made)["x int8 W1 / peer"] == pytest.approx(8.0)
    assert [row.met for row in made.report.rows if row.target] == [True, False]
    notes = [
        "2 threads; first 16 of 64 requests; cut to 9 tokens",
        "ours 1.0 and 1.0 tok/s",
        "ours 2.0 and 2.0 tok/s",
    ]
    assert [row.note for row in made.report.rows] == notes


def test_streams_of_base_and_adapter_take_turns(made):
    made.lone_streams(2)
    (sent,) = made.ours[BF16].sent
    assert [call.adapter for call in sent.calls] == [None, "01", None, "01"]
    assert values(made)["x bf16 W5"] == pytest.approx(1.0)
    assert values(made)["x bf16 W5L / W5"] == pytest.approx(1.0)


def test_a_whole_workload_stands_beside_its_limit(made):
    made.whole("WC")
    assert [call.adapter for call in made.ours[INT8].sent[0].calls] == list(made.ranks)
    assert values(made)["x int8 WC"] == pytest.approx(2.0)
    limit = values(made)["x bf16 WC of the machine's limit"]
    assert values(made)["x int8 WC of the machine's limit"] < 2 * limit  # half the bytes, not half the products
    judged = [row.what for row in made.report.rows if row.target]
    assert judged == ["x bf16 WC of the machine's limit"]


def test_a_run_is_compared_with_the_machine_of_its_own_minutes(made):
    made.whole("WC")
    before = values(made)["x bf16 WC of the machine's limit"]
    slowed = iter([MACHINE, Machine("test", 2, {"read": 0.5e9}, {"gemm": 0.5e9})] * 2)
    made.measure = lambda: next(slowed)
    made.whole("WC")
    assert values(made)["x bf16 WC of the machine's limit"] == pytest.approx(before / 0.75)
    assert made.report.rows[-1].note.endswith("of the limit before the run")


def test_failed_requests_are_a_miss(made):
    made.ours[BF16].broken = True
    made.whole("W2", 16)
    missed = [row.what for row in made.report.rows if row.met is False]
    assert missed == ["x bf16 W2 failed requests"]


def test_a_variant_that_did_not_start_is_named_at_every_target(made):
    del made.ours[INT8]
    made.absent["int8"] = "unknown option"
    made.duel("W1", "peer", ("bf16", "int8"), lambda _: 1.0, calls=16)
    last = made.report.rows[-1]
    assert (last.what, last.verdict, last.note) == ("x int8 W1 / peer", "not measured", "unknown option")


def test_a_peer_that_did_not_start_is_named_at_every_target(made):
    made.without("peer", "no wheel", {"W1": ("bf16",), "W5": ("bf16", "int8")})
    assert made.report.summary() == "targets: 0 passed, 0 missed, 2 not measured"
    assert [row.note for row in made.report.rows] == ["no wheel"] * 3


def test_a_prefix_found_is_compared_with_a_prefix_computed(made):
    made.prefix()
    assert values(made)["x bf16 prefix-hit TTFT / cold"] == pytest.approx(1.0)
