"""What a benchmark says: rows with a value, a unit and, where there is one, a target that was met or missed.

The same rows are printed as they come, written as JSON, and turned into the Markdown table of a note, so that no
figure is ever typed. `python -m benchmarks.report BEFORE.json AFTER.json` prints such a table, a column per file.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Target:
    """A bound such as ">= 0.5" or "<= 300"."""

    text: str

    def __post_init__(self) -> None:
        self._parts()

    def met(self, value: float) -> bool:
        """False for NaN: what was not measured is not met."""
        sign, bound = self._parts()
        return value >= bound if sign == ">=" else value <= bound

    def _parts(self) -> tuple[str, float]:
        sign, _, bound = self.text.partition(" ")
        if sign not in (">=", "<="):
            raise ValueError(f"target: {self.text!r} is neither '>= x' nor '<= x'")
        return sign, float(bound)


@dataclass(frozen=True, slots=True)
class Row:
    """value None: it was not measured, and `note` says why. met None: there is no target, or no value."""

    what: str
    value: float | None
    unit: str = ""
    target: str = ""
    met: bool | None = None
    note: str = ""
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        return "-" if self.value is None else f"{self.value:.4g} {self.unit}".strip()

    @property
    def verdict(self) -> str:
        if not self.target:
            return ""
        return {True: "pass", False: "MISS", None: "not measured"}[self.met]


class Report:
    def __init__(self, label: str = "") -> None:
        self.label = label
        self.rows: list[Row] = []

    def add(self, what: str, value: float, unit: str = "", note: str = "", **detail: Any) -> None:
        self._take(Row(what, value, unit, note=note, detail=detail))

    def judge(self, what: str, value: float, target: str, unit: str = "", note: str = "", **detail: Any) -> None:
        self._take(Row(what, value, unit, target, Target(target).met(value), note, detail))

    def show(self, what: str, value: float, target: str, **detail: Any) -> None:
        """Judged when there is a target."""
        if target:
            self.judge(what, value, target, **detail)
        else:
            self.add(what, value, **detail)

    def absent(self, what: str, why: str, target: str = "") -> None:
        self._take(Row(what, None, target=target, note=why))

    def _take(self, row: Row) -> None:
        self.rows.append(row)
        shown = "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.detail.items())
        parts = [f"{row.what:44} {row.shown:>14}"]
        if row.target:
            parts.append(f"{row.target}: {row.verdict}")
        parts += [part for part in (shown, row.note) if part]
        print("  ".join(parts), flush=True)

    def summary(self) -> str:
        judged = [row for row in self.rows if row.target]
        counts = {v: sum(row.verdict == v for row in judged) for v in ("pass", "MISS", "not measured")}
        return f"targets: {counts['pass']} passed, {counts['MISS']} missed, {counts['not measured']} not measured"

    def write(self, path: Path) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        data = {"at": stamp, "label": self.label, "rows": [asdict(row) for row in self.rows]}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data, indent=1) + "\n")


def told(
    label: str, about: str | None, measure: Callable[[Report, Path, int, bool], object], model: Path, threads: int = 1
) -> None:
    """The command of a benchmark that is run by itself. measure: takes a report, a model, threads, and whether a
    look is enough. model, threads: what is measured unless another is named."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=model)
    parser.add_argument("--threads", type=int, default=threads)
    parser.add_argument("--quick", action="store_true", help="less of everything; for a look, not for a note")
    parser.add_argument("--out", type=Path, help="write the rows as JSON here")
    a = parser.parse_args()
    report = Report(label)
    measure(report, a.model, a.threads, a.quick)
    if a.out:
        report.write(a.out)
    print(report.summary())


def read(path: Path) -> Report:
    """Raises KeyError or TypeError for a file that write() did not make."""
    data = json.loads(path.read_text())
    report = Report(data["label"] or path.stem)
    report.rows = [Row(**row) for row in data["rows"]]
    return report


def table(reports: Sequence[Report]) -> str:
    """Markdown: every row of any report once, in the order of the last, a column per report; judged by the last."""
    last = reports[-1]
    found = [{row.what: row for row in report.rows} for report in reports]
    names = list(dict.fromkeys(row.what for report in (last, *reports) for row in report.rows))
    lines = ["| what | " + " | ".join(report.label for report in reports) + " | target | |"]
    lines.append("|---" * (len(reports) + 3) + "|")
    for name in names:
        cells = [rows[name].shown if name in rows else "-" for rows in found]
        judged = next((rows[name] for rows in reversed(found) if name in rows), None)
        assert judged is not None
        verdict = judged.verdict if name in found[-1] else ""
        remark = "; ".join(part for part in (verdict, judged.note) if part)
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {judged.target} | {remark} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", help="JSON files of earlier runs, oldest first")
    sys.stdout.write(table([read(path) for path in parser.parse_args().files]))


if __name__ == "__main__":
    main()
