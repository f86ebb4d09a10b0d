"""`tenantry engines`: the engine processes behind the gateway. Talks to the REST API only."""

from tenantry.platform.cli.connection import LOCAL, Connection
from tenantry.platform.cli.output import show_json, show_table

COLUMNS = (
    ("name", "engine"), ("role", "role"), ("state", "state"), ("open", "open"), ("running", "running"),
    ("waiting", "waiting"), ("pages.free", "pages free"), ("pages.cached", "cached"), ("pages.total", "of"),
    ("resident", "adapters"), ("step_ms", "step ms"), ("host_memory.stage", "memory"),
    ("handed", "handed over"), ("taken", "taken"), ("rerouted", "rerouted"),
)  # fmt: skip


def engines(*, connection: Connection = LOCAL) -> None:
    """Show every engine: role and state, queue, pages by kind, adapters, the mean length of a step, and what it has
    stepped back from for want of host memory.

    Example: tenantry engines
    """
    report = connection.operator().call("GET", "/api/v1/engines")
    if connection.json:
        show_json(report)
        return
    rows = []
    for engine in report["data"]:
        resident = sum(adapter["state"] == "resident" for adapter in engine["adapters"])
        step_ms = round(engine["step_seconds"] / max(engine["steps"], 1) * 1000, 1)
        handed = engine["hand_offs"]
        rows.append({**engine, "resident": resident, "step_ms": step_ms,
                     "handed": handed["sent"], "taken": handed["taken"]})  # fmt: skip
    show_table(rows, COLUMNS)
