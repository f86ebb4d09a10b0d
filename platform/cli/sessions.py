"""`tenantry sessions`: a tenant's conversations and threads, what they cost, what is kept of them. REST only."""

from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from tenantry.platform.cli.connection import LOCAL, Connection
from tenantry.platform.cli.output import err, fail, in_currency, show_json, show_table
from tenantry.platform.cli.rest import segment

sessions = App(
    name="sessions", help="List, show, fork, pin, prewarm and delete a tenant's conversations and threads."
)

COLUMNS = (
    ("id", "id"), ("kind", "kind"), ("model", "model"), ("version", "version"), ("version_policy", "policy"),
    ("turns", "turns"), ("cached_tokens", "cached"), ("computed_tokens", "computed"),
    ("generated_tokens", "generated"), ("cost", "cost"), ("cache_ttl_s", "kept s"), ("cache_pinned", "pinned"),
    ("last_at", "last turn"),
)  # fmt: skip
TURN_COLUMNS = (
    ("id", "response"), ("previous", "continues"), ("status", "status"), ("model", "model"), ("version", "version"),
    ("cached_tokens", "cached"), ("cached_host_tokens", "from host"), ("cached_disk_tokens", "from disk"),
    ("computed_tokens", "computed"), ("generated_tokens", "generated"), ("cost", "cost"),
    ("created_at", "at"),
)  # fmt: skip
Id = Annotated[str, Parameter(help="A session's id, sess_...")]
Limit = Annotated[int, Parameter(help="Most rows to print.")]


@sessions.command(name="list")
def list_sessions(
    *,
    kind: Annotated[Literal["conversation", "thread"] | None, Parameter(help="Only these.")] = None,
    model: Annotated[str | None, Parameter(help="Only those that this model answers.")] = None,
    limit: Limit = 100,
    connection: Connection = LOCAL,
) -> None:
    """List sessions, the newest first.

    Example: tenantry sessions list --model support --api-key tny_live_...
    """
    rest = connection.rest()
    rows = list(rest.list("/api/v1/sessions", limit, {"kind": kind, "model": model}))
    show_json(rows) if connection.json else show_table(rows, in_currency(COLUMNS, rest.currency()))


@sessions.command
def show(session: Id, *, limit: Limit = 20, connection: Connection = LOCAL) -> None:
    """Show a session and its turns: what was found in the cache, computed and generated, and what that cost.

    Example: tenantry sessions show sess_0193... --api-key tny_live_...
    """
    rest = connection.rest()
    found = rest.call("GET", _at(session))
    turns = list(rest.list(f"{_at(session)}/turns", limit))
    if connection.json:
        show_json({**found, "data": turns})
        return
    currency = rest.currency()
    show_table([found], in_currency(COLUMNS, currency))
    show_table(turns, in_currency(TURN_COLUMNS, currency))


@sessions.command
def fork(
    session: Id,
    response: Annotated[str, Parameter(help="The last response to remember, resp_...")],
    *,
    connection: Connection = LOCAL,
) -> None:
    """Make a conversation that remembers everything up to one response, on the same adapter version.

    Example: tenantry sessions fork sess_0193... resp_0193... --api-key tny_live_...
    """
    _show(connection.rest().call("POST", f"{_at(session)}/fork", json={"response": response}), connection)


@sessions.command
def keep(
    session: Id,
    *,
    pin: Annotated[bool | None, Parameter(help="Whether its KV gives way last.")] = None,
    ttl: Annotated[int | None, Parameter(help="Seconds that its KV is kept after a turn.")] = None,
    policy: Annotated[Literal["pin", "follow"] | None, Parameter(help="Stay on its version, or follow.")] = None,
    connection: Connection = LOCAL,
) -> None:
    """Change what is kept of a session, and which adapter version answers it.

    Example: tenantry sessions keep sess_0193... --pin --ttl 43200 --api-key tny_live_...
    """
    given = {"cache_pinned": pin, "cache_ttl_s": ttl, "version_policy": policy}
    body = {name: value for name, value in given.items() if value is not None}
    _show(connection.rest().call("PATCH", _at(session), json=body), connection)


@sessions.command
def prewarm(session: Id, *, connection: Connection = LOCAL) -> None:
    """Compute a session's KV ahead of its next turn. Billed like a request of one token.

    Example: tenantry sessions prewarm sess_0193... --api-key tny_live_...
    """
    show_json(connection.rest().call("POST", f"{_at(session)}/prewarm"))


@sessions.command
def delete(
    session: Id, *, yes: Annotated[bool, Parameter(help="Do not ask.")] = False, connection: Connection = LOCAL
) -> None:
    """Delete a session's content and its KV; usage is kept.

    Example: tenantry sessions delete sess_0193... --yes --api-key tny_live_...
    """
    if not yes and err.input(f"type {session} to delete it: ", markup=False) != session:
        fail("nothing was deleted")
    connection.rest().call("DELETE", _at(session))


def _at(session: str) -> str:
    return f"/api/v1/sessions/{segment(session)}"


def _show(found: dict[str, Any], connection: Connection) -> None:
    if connection.json:
        show_json(found)
        return
    show_table([found], in_currency(COLUMNS, connection.rest().currency()))
