"""`tenantry adapter` and `tenantry usage`: a tenant's own adapters and what they cost. Talks to the REST API only."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from tenantry.platform.cli.connection import LOCAL, Connection
from tenantry.platform.cli.output import err, fail, in_currency, out, show_json, show_table
from tenantry.platform.cli.rest import Rest, explain, segment

adapter = App(name="adapter", help="Upload, list, promote and delete a tenant's adapters.")

FILES = ("adapter_config.json", "adapter_model.safetensors")
ADAPTER_COLUMNS = (("name", "name"), ("base_model", "base"), ("id", "id"), ("created_at", "created"))
VERSION_COLUMNS = (
    ("model", "model"), ("state", "state"), ("rank", "rank"), ("targets", "targets"), ("bytes", "bytes"),
    ("digest", "digest"), ("created_at", "created"),
)  # fmt: skip
USAGE_COLUMNS = (
    ("requests", "requests"), ("prompt_tokens", "prompt"), ("cached_tokens", "cached"),
    ("completion_tokens", "completion"), ("rejected_tokens", "rejected guesses"), ("cost", "cost"),
)  # fmt: skip
Name = Annotated[str, Parameter(help="The adapter's name.")]
Limit = Annotated[int, Parameter(help="Most rows to print.")]


def upload_version(rest: Rest, name: str, folder: Path) -> dict[str, Any]:
    """Send what PEFT saved in `folder` (or one zip of it). A refusal ends the command with every problem."""
    paths = [folder] if folder.is_file() else [folder / f for f in FILES]
    missing = [p.name for p in paths if not p.is_file()]
    if missing:
        fail(f"{folder} holds no {' and no '.join(missing)}; it must be a folder that PEFT saved, or a zip of one")
    with ExitStack() as stack:
        files = [(p.name, (p.name, stack.enter_context(p.open("rb")), "application/octet-stream")) for p in paths]
        answer = rest.try_call("POST", f"/api/v1/adapters/{segment(name)}/versions", files=files)
    if not answer.is_success:
        fail(explain(answer))
    return dict(answer.json())


@adapter.command
def upload(
    name: Name,
    folder: Annotated[Path, Parameter(help="A folder that PEFT saved, or a zip of one.")],
    *,
    promote: Annotated[bool, Parameter(help="Point `default` at the new version.")] = True,
    connection: Connection = LOCAL,
) -> None:
    """Upload a new version of an adapter; every problem is reported at once if it is refused.

    Example: tenantry adapter upload support ./output/checkpoint-900 --api-key tny_live_...
    """
    rest = connection.rest()
    with err.status(f"uploading and validating {name}"):
        version = upload_version(rest, name, folder)
    if promote and version["number"] > 1:
        _point(rest, name, "default", version["number"], "uploaded")
    show_json(version) if connection.json else show_table([version], VERSION_COLUMNS)


@adapter.command(name="list")
def list_adapters(*, limit: Limit = 100, connection: Connection = LOCAL) -> None:
    """List the calling tenant's adapters.

    Example: tenantry adapter list --api-key tny_live_...
    """
    rows = list(connection.rest().list("/api/v1/adapters", limit))
    show_json(rows) if connection.json else show_table(rows, ADAPTER_COLUMNS)


@adapter.command
def show(name: Name, *, limit: Limit = 20, connection: Connection = LOCAL) -> None:
    """Show an adapter's versions and where its aliases point.

    Example: tenantry adapter show support --api-key tny_live_...
    """
    rest = connection.rest()
    found = rest.call("GET", f"/api/v1/adapters/{segment(name)}")
    versions = list(rest.list(f"/api/v1/adapters/{segment(name)}/versions", limit))
    if connection.json:
        show_json({**found, "versions": versions})
        return
    for alias in found.get("aliases") or []:
        out.print(f"{name}@{alias['alias']} -> {name}:{alias['version']}", markup=False)
    show_table(versions, VERSION_COLUMNS)


@adapter.command
def promote(
    name: Name,
    number: Annotated[int, Parameter(help="A version's number.")],
    *,
    alias: Annotated[str, Parameter(help="The alias to move.")] = "default",
    reason: Annotated[str, Parameter(help="Kept in the alias's history.")] = "",
    connection: Connection = LOCAL,
) -> None:
    """Point an alias at a version; rolling back is the same with an older number.

    Example: tenantry adapter promote support 3 --reason "fixes greetings" --api-key tny_live_...
    """
    moved = _point(connection.rest(), name, alias, number, reason)
    columns = (("alias", "alias"), ("version", "version"), ("updated_at", "moved"))
    show_json(moved) if connection.json else show_table([moved], columns)


@adapter.command
def delete(
    name: Name,
    *,
    yes: Annotated[bool, Parameter(help="Do not ask.")] = False,
    revoke: Annotated[bool, Parameter(help="End requests under way, too.")] = False,
    connection: Connection = LOCAL,
) -> None:
    """Delete an adapter: its name stops answering, requests under way finish, usage is kept.

    Example: tenantry adapter delete support --yes --api-key tny_live_...
    """
    if not yes and err.input(f"type {name} to delete it: ", markup=False) != name:
        fail("nothing was deleted")
    query = "?revoke=true" if revoke else ""
    show_json(connection.rest().call("DELETE", f"/api/v1/adapters/{segment(name)}{query}"))


def usage(
    *,
    by: Annotated[str, Parameter(help="adapter, key, model, hour or total.")] = "adapter",
    since: Annotated[str | None, Parameter(help="Start, as 2026-11-21T00:00:00Z.")] = None,
    until: Annotated[str | None, Parameter(help="End, not included.")] = None,
    limit: Annotated[int, Parameter(help="Most rows: the dearest, or the first hours.")] = 100,
    connection: Connection = LOCAL,
) -> None:
    """Show what the calling tenant used: requests, tokens and cost.

    Example: tenantry usage --by hour --since 2026-11-21T00:00:00Z --api-key tny_live_...
    """
    query = {"group_by": by, "from": since, "to": until}
    rest = connection.rest()
    rows = list(rest.list("/api/v1/usage", limit, query))
    heading = ("hour", "hour") if by == "hour" else ("label", by)
    if connection.json:
        show_json({"group_by": by, "data": rows})
        return
    show_table(rows, in_currency((heading, *USAGE_COLUMNS), rest.currency()))


def _point(rest: Rest, name: str, alias: str, number: int, reason: str) -> dict[str, Any]:
    """Compare-and-set against the alias as it is now: a concurrent move is refused, not overwritten."""
    path = f"/api/v1/adapters/{segment(name)}/aliases/{segment(alias)}"
    before = rest.try_call("GET", path)
    headers = {"if-match": before.json()["etag"]} if before.is_success else {}
    return dict(rest.call("PUT", path, json={"version": number, "reason": reason}, headers=headers))
