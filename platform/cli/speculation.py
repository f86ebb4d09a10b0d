"""`tenantry speculation`: how often guessed tokens stood, and what that saved. Talks to the REST API only."""

from typing import Annotated

from cyclopts import Parameter

from tenantry.platform.cli.connection import LOCAL, Connection
from tenantry.platform.cli.output import show_json, show_table

COLUMNS = (
    ("tenant", "tenant"), ("model", "model"), ("tokens_per_step", "tokens/step"), ("steps_saved", "steps saved"),
    ("proposer", "proposer"), ("drafted_tokens", "guessed"), ("acceptance", "stood"), ("by_position", "by position"),
)  # fmt: skip


def speculation(
    *,
    everyone: Annotated[bool, Parameter(name="--all", help="Every tenant's (operator).")] = False,
    connection: Connection = LOCAL,
) -> None:
    """Show, per adapter, how often guessed tokens stood since the engine started, and how many steps that saved.

    A proposer with a LoRA of its own for the adapter is told apart: "eagle+lora".

    Example: tenantry speculation --api-key tny_live_...
    """
    rest = connection.operator() if everyone else connection.rest()
    report = rest.call("GET", "/api/v1/speculation/all" if everyone else "/api/v1/speculation")
    if connection.json:
        show_json(report)
        return
    rows = []
    for model in report["data"]:
        for proposer in model["proposers"] or [{}]:
            positions = " ".join(f"{share:.2f}" for share in proposer.get("by_position", ()))
            rows.append({**model, **proposer, "by_position": positions})
    show_table(rows, COLUMNS)
