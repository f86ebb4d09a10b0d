"""Targets are judged by the number alone, and the note's table says what was measured, missed and never run."""

import pytest

from benchmarks.report import Report, Target, read, table


@pytest.mark.parametrize(
    ("text", "value", "met"),
    [(">= 3", 3.0, True), (">= 3", 2.999, False), ("<= 0.53", 0.53, True), ("<= 0.53", 0.531, False)],
)
def test_a_target_is_a_bound(text: str, value: float, met: bool):
    assert Target(text).met(value) is met


def test_what_is_not_a_number_is_not_met():
    assert not Target(">= 0").met(float("nan"))
    assert not Target("<= 1").met(float("nan"))


@pytest.mark.parametrize("text", ["", "-", "= 3", "3", ">= many"])
def test_a_target_that_bounds_nothing_is_refused(text: str):
    with pytest.raises(ValueError):
        Target(text)


@pytest.fixture
def report() -> Report:
    made = Report("after")
    made.add("W1", 100.0, "tok/s", ttft_ms=3.5)
    made.judge("W1 / PEFT", 3.2, ">= 3")
    made.judge("share", 0.2, "<= 0.12")
    made.absent("W1 / vllm", "no wheel for this processor", ">= 8")
    return made


def test_the_summary_counts_what_was_not_measured_apart(report: Report):
    assert report.summary() == "targets: 1 passed, 1 missed, 1 not measured"


def test_rows_survive_the_file(report: Report, tmp_path):
    report.write(tmp_path / "made" / "run.json")
    again = read(tmp_path / "made" / "run.json")
    assert (again.label, again.rows) == ("after", report.rows)


def test_the_table_sets_runs_side_by_side(report: Report):
    before = Report("before")
    before.add("W1", 50.0, "tok/s")
    before.add("gone", 1.0)
    assert table([before, report]).splitlines() == [
        "| what | before | after | target | |",
        "|---|---|---|---|---|",
        "| W1 | 50 tok/s | 100 tok/s |  |  |",
        "| W1 / PEFT | - | 3.2 | >= 3 | pass |",
        "| share | - | 0.2 | <= 0.12 | MISS |",
        "| W1 / vllm | - | - | >= 8 | not measured; no wheel for this processor |",
        "| gone | 1 | - |  |  |",
    ]
