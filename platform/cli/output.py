"""How the command line speaks: tables for people, JSON for scripts, one clear line for a failure.

Owns the two consoles. Results go to standard output, everything else to standard error, so that `--json` output
can be piped as it is.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from rich.console import Console
from rich.markup import escape
from rich.table import Table

MONEY = ("cost", "budget", "spent", "amount", "balance_after")
PIPED_WIDTH = 200  # a table that goes into a file has no terminal to fit
out = Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)
err = Console(stderr=True, highlight=False)


def show_json(value: object) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def show_table(rows: Iterable[Mapping[str, Any]], columns: Sequence[tuple[str, str]]) -> None:
    """columns: (key, heading). A key may be dotted. Numbers are set to the right. Names are data, never markup."""
    rows = list(rows)
    if not rows:
        err.print("nothing yet", style="dim")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for key, heading in columns:
        numeric = all(isinstance(pick(r, key), (int, float)) for r in rows)
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell(pick(row, key))) for key, _ in columns))
    out.print(table)


def in_currency(columns: Sequence[tuple[str, str]], currency: str) -> tuple[tuple[str, str], ...]:
    """The columns with the currency named in the headings of money."""
    return tuple((key, f"{heading} ({currency})" if key in MONEY else heading) for key, heading in columns)


def pick(row: Mapping[str, Any], key: str) -> Any:
    value: Any = row
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def cell(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case list() | tuple():
            return ", ".join(map(cell, value))
        case _:
            return str(value)


def fail(message: str, status: int = 1) -> NoReturn:
    """One line on standard error, then exit."""
    err.print(f"tenantry: {escape(message)}", style="red")
    raise SystemExit(status)
