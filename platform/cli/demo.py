"""The demo: two tenants with their adapters, registered through the public API, and what to paste to try them.

Owns the demo's keys file (0600 in the data directory), so that a second start prints the same keys. It uses nothing
that a user could not use.
"""

import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from tenantry.platform.cli.adapters import upload_version
from tenantry.platform.cli.connection import LOCAL, OPERATOR_KEY_FILE, Connection
from tenantry.platform.cli.console import sign_in_url
from tenantry.platform.cli.output import err, fail, out, show_json
from tenantry.platform.cli.rest import Rest, explain, read_key, segment
from tenantry.platform.core.secrets import read_secret, write_secret

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "demo"
KEYS_FILE = "demo.json"


class DemoAdapter(msgspec.Struct, frozen=True):
    """path: relative to the demo's folder. prompt: a message that shows what the adapter does."""

    name: str
    path: str
    prompt: str


class DemoTenant(msgspec.Struct, frozen=True):
    name: str
    adapters: list[DemoAdapter]


class Demo(msgspec.Struct, frozen=True):
    tenants: list[DemoTenant]


def read_demo(folder: Path = FOLDER) -> Demo:
    try:
        return msgspec.json.decode((folder / "demo.json").read_bytes(), type=Demo)
    except FileNotFoundError:
        fail(f"the demo is part of a checkout, and {folder} is not there; use --model")


def register(base_url: str, data_dir: Path, folder: Path = FOLDER) -> None:
    """Make what is missing of the demo's tenants, keys and adapters. Safe to repeat."""
    operator = Rest(base_url, read_key(data_dir / "secrets" / OPERATOR_KEY_FILE))
    keys_file = data_dir / "secrets" / KEYS_FILE
    keys: dict[str, str] = json.loads(read_secret(keys_file)) if keys_file.exists() else {}
    known = {t["name"]: t["id"] for t in operator.list("/api/v1/tenants", limit=1 << 20)}
    for tenant in read_demo(folder).tenants:
        tenant_id = known.get(tenant.name)
        if tenant_id is None:
            tenant_id = operator.call("POST", "/api/v1/tenants", json={"name": tenant.name})["id"]
        if not works(base_url, keys.get(tenant.name)):
            path = f"/api/v1/tenants/{tenant_id}/keys"
            keys[tenant.name] = operator.call("POST", path, json={"name": "demo"})["key"]
            keys_file.unlink(missing_ok=True)
            write_secret(keys_file, json.dumps(keys).encode())
        rest = Rest(base_url, keys[tenant.name])
        for adapter in tenant.adapters:
            if not rest.try_call("GET", f"/api/v1/adapters/{segment(adapter.name)}").is_success:
                err.print(f"registering {tenant.name}'s adapter {adapter.name}", style="dim", markup=False)
                upload_version(rest, adapter.name, folder / adapter.path)


def works(base_url: str, key: str | None) -> bool:
    if key is None:
        return False
    answer = Rest(base_url, key).try_call("GET", "/api/v1/me")
    if not answer.is_success and answer.status_code != 401:
        fail(explain(answer))
    return answer.is_success


def describe(base_url: str, data_dir: Path) -> dict[str, Any]:
    """{"base_url", "tenants": [{"name", "api_key", "adapters": [...]}]}, as scripts read it."""
    try:
        keys = json.loads(read_secret(data_dir / "secrets" / KEYS_FILE))
    except FileNotFoundError:
        fail(f"no demo has been served from {data_dir}: run `make serve`")
    tenants = [
        {"name": t.name, "api_key": keys[t.name], "adapters": [a.name for a in t.adapters]}
        for t in read_demo().tenants
    ]
    return {"base_url": base_url, "tenants": tenants}


def curl_line(base_url: str, key: str, model: str, prompt: str) -> str:
    """One line that works when pasted into a shell, whatever the prompt holds."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": prompt}], "temperature": 0})
    return (
        f"curl -s {base_url}/v1/chat/completions -H 'Authorization: Bearer {key}' "
        f"-H 'Content-Type: application/json' -d {shlex.quote(body)}"
    )


def announce(base_url: str, data_dir: Path) -> None:
    """For people: keys, adapters, and a line to paste per tenant."""
    for tenant, said in zip(read_demo().tenants, describe(base_url, data_dir)["tenants"], strict=True):
        out.print(f"\ntenant [bold]{tenant.name}[/bold]   adapters: {', '.join(said['adapters'])}")
        out.print(f"  API key: {said['api_key']}", soft_wrap=True)
        link = sign_in_url(Rest(base_url, said["api_key"]), base_url)
        out.print(f"  console: {link}", soft_wrap=True, markup=False)
        first = tenant.adapters[0]
        line = curl_line(base_url, said["api_key"], first.name, first.prompt)
        out.print(f"  {line}", soft_wrap=True, markup=False)


def demo(
    *,
    connection: Connection = LOCAL,
    curl: Annotated[bool, Parameter(negative="", help="Print only the curl lines.")] = False,
) -> None:
    """Print the demo's address, keys and adapters again, as `make serve` did.

    Example: tenantry demo --json
    """
    base_url = connection.address()
    if connection.json:
        show_json(describe(base_url, connection.directory))
    elif curl:
        keys = {t["name"]: t["api_key"] for t in describe(base_url, connection.directory)["tenants"]}
        for tenant in read_demo().tenants:
            for adapter in tenant.adapters:
                line = curl_line(base_url, keys[tenant.name], adapter.name, adapter.prompt)
                out.print(line, soft_wrap=True, markup=False)
    else:
        announce(base_url, connection.directory)
