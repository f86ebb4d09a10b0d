"""`tenantry tenant` and `tenantry key`: who may use the server. Talks to the REST API only."""

from typing import Annotated, Any

from cyclopts import App, Parameter

from tenantry.platform.cli.connection import LOCAL, Connection
from tenantry.platform.cli.output import err, fail, out, show_json, show_table
from tenantry.platform.cli.rest import Rest, segment

tenant = App(name="tenant", help="Create, list, suspend, limit and delete tenants (operator).")
key = App(name="key", help="Create, list and revoke API keys.")

TENANT_COLUMNS = (("name", "name"), ("status", "status"), ("id", "id"), ("created_at", "created"))
KEY_COLUMNS = (
    ("name", "name"), ("prefix", "key"), ("scopes", "scopes"), ("last_used_at", "last used"),
    ("expires_at", "expires"), ("revoked_at", "revoked"), ("id", "id"),
)  # fmt: skip
Limit = Annotated[int, Parameter(help="Most rows to print.")]


def find_tenant(rest: Rest, name: str) -> dict[str, Any]:
    """By name or by id."""
    for found in rest.list("/api/v1/tenants", limit=1 << 20):
        if name in (found["name"], found["id"]):
            return dict(found)
    fail(f"no tenant is called {name}")


@tenant.command(name="create")
def create_tenant(name: str, *, connection: Connection = LOCAL) -> None:
    """Create a tenant.

    Example: tenantry tenant create acme
    """
    made = connection.operator().call("POST", "/api/v1/tenants", json={"name": name})
    show_json(made) if connection.json else show_table([made], TENANT_COLUMNS)


@tenant.command(name="list")
def list_tenants(*, limit: Limit = 100, connection: Connection = LOCAL) -> None:
    """List tenants.

    Example: tenantry tenant list --json
    """
    rows = list(connection.operator().list("/api/v1/tenants", limit))
    show_json(rows) if connection.json else show_table(rows, TENANT_COLUMNS)


def _set_status(name: str, status: str, connection: Connection) -> None:
    rest = connection.operator()
    found = find_tenant(rest, name)
    changed = rest.call("PATCH", f"/api/v1/tenants/{found['id']}", json={"status": status})
    show_json(changed) if connection.json else show_table([changed], TENANT_COLUMNS)


@tenant.command(name="suspend")
def suspend_tenant(name: str, *, connection: Connection = LOCAL) -> None:
    """Refuse all of a tenant's requests from now on; nothing of it is deleted.

    Example: tenantry tenant suspend acme
    """
    _set_status(name, "suspended", connection)


@tenant.command(name="resume")
def resume_tenant(name: str, *, connection: Connection = LOCAL) -> None:
    """Serve a suspended tenant again.

    Example: tenantry tenant resume acme
    """
    _set_status(name, "active", connection)


@tenant.command(name="delete")
def delete_tenant(
    name: str, *, yes: Annotated[bool, Parameter(help="Do not ask.")] = False, connection: Connection = LOCAL
) -> None:
    """Delete a tenant for good: keys, adapters, conversations and cached KV; its usage stays.

    Example: tenantry tenant delete acme --yes
    """
    rest = connection.operator()
    found = find_tenant(rest, name)
    if not yes and err.input(f"type {name} to delete it: ", markup=False) != name:
        fail("nothing was deleted")
    gone = rest.call("DELETE", f"/api/v1/tenants/{found['id']}")
    show_json(gone) if connection.json else show_table([gone], TENANT_COLUMNS)


@tenant.command(name="limit")
def limit_tenant(
    name: str,
    *,
    concurrency: Annotated[int | None, Parameter(help="Most requests at once; left out: unlimited.")] = None,
    requests_per_minute: Annotated[int | None, Parameter(help="Left out: unlimited.")] = None,
    budget: Annotated[str | None, Parameter(help="Most money, decimal; left out: unlimited.")] = None,
    budget_period: Annotated[str, Parameter(help="total or month.")] = "total",
    connection: Connection = LOCAL,
) -> None:
    """Set all of a tenant's limits at once; what is left out becomes unlimited.

    Example: tenantry tenant limit acme --concurrency 16 --budget 100.00 --budget-period month
    """
    rest = connection.operator()
    quota = {
        "concurrency": concurrency,
        "requests_per_minute": requests_per_minute,
        "budget": budget,
        "budget_period": budget_period,
    }
    show_json(rest.call("PUT", f"/api/v1/tenants/{find_tenant(rest, name)['id']}/quota", json=quota))


@key.command(name="create")
def create_key(
    name: str = "default",
    *,
    tenant: Annotated[
        str | None, Parameter(help="As operator: whose key. Left out: the calling key's tenant.")
    ] = None,
    scope: Annotated[list[str] | None, Parameter(help="inference, manage; repeatable. Left out: both.")] = None,
    connection: Connection = LOCAL,
) -> None:
    """Create an API key and show it, this once.

    Example: tenantry key create ci --tenant acme --scope inference
    """
    body: dict[str, Any] = {"name": name}
    if scope:
        body["scopes"] = scope
    if tenant is not None:
        rest = connection.operator()
        made = rest.call("POST", f"/api/v1/tenants/{find_tenant(rest, tenant)['id']}/keys", json=body)
    else:
        made = connection.rest().call("POST", "/api/v1/keys", json=body)
    if connection.json:
        show_json(made)
        return
    err.print("this key is shown once:", style="dim")
    out.print(made["key"], markup=False)


@key.command(name="list")
def list_keys(*, limit: Limit = 100, connection: Connection = LOCAL) -> None:
    """List the calling tenant's keys; their secrets are never shown again.

    Example: tenantry key list --api-key tny_live_...
    """
    rows = list(connection.rest().list("/api/v1/keys", limit))
    show_json(rows) if connection.json else show_table(rows, KEY_COLUMNS)


@key.command(name="revoke")
def revoke_key(key_id: str, *, connection: Connection = LOCAL) -> None:
    """Revoke a key by its id; every gateway refuses it within two seconds.

    Example: tenantry key revoke key_0199... --api-key tny_live_...
    """
    revoked = connection.rest().call("DELETE", f"/api/v1/keys/{segment(key_id)}")
    show_json(revoked) if connection.json else show_table([revoked], KEY_COLUMNS)
