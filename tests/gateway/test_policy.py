"""Every route states who may call it, and is refused to everyone else: enumerated, not remembered."""

import httpx
import pytest
from litestar import get

from tenantry.platform.core.policy import Access
from tenantry.platform.gateway.guard import policy_of

DOCUMENT = {"/schema", "/schema/openapi.json"}
CONSOLE = {"/", "/admin", "/admin/{path:path}"}
SIGN_IN = ("POST", "/api/v1/browser-sessions")
PUBLIC = {"/", "/live", "/ready", "/metrics"} | DOCUMENT


def routes(live):
    app = live.gateway_app
    for route in app.routes:
        for handler in route.route_handlers:
            for method in sorted(handler.http_methods - {"OPTIONS"}):
                yield method, route.path, handler


def test_every_route_states_a_policy(live):
    found = list(routes(live))
    assert len(found) > 30
    for method, path, handler in found:
        policy = policy_of(handler)
        assert policy is not None, (method, path)
        known = path in PUBLIC | CONSOLE or path.startswith("/schema/") or (method, path) == SIGN_IN
        assert (policy.access is Access.PUBLIC) == known, path


def fill(path):
    for part, value in {
        "{tenant_id:str}": "ten_" + "0" * 32, "{key_id:str}": "key_" + "0" * 32, "{number:int}": "1",
        "{name:str}": "x", "{alias:str}": "x", "{model:str}": "x",
        "{conversation_id:str}": "conv_" + "0" * 32, "{item_id:str}": "msg_" + "0" * 32,
        "{response_id:str}": "resp_" + "0" * 32, "{session_id:str}": "sess_" + "0" * 32,
        "{request_id:str}": "req_" + "0" * 32, "{key:str}": "per_" + "0" * 32,
    }.items():  # fmt: skip
        path = path.replace(part, value)
    assert "{" not in path
    return path


def test_every_route_by_role(live, tenant, api):
    """No key: 401. A tenant's key on an operator's route: 403. A key without the scope: 403."""
    narrow = {
        scope: api.post("/api/v1/keys", json={"name": scope, "scopes": [scope]}).json()["key"]
        for scope in ("inference", "manage")
    }
    with httpx.Client(base_url=live.url, timeout=60) as client:
        for method, path, handler in routes(live):
            policy = policy_of(handler)
            if policy.access is Access.PUBLIC:
                continue
            call = (method, fill(path))
            assert client.request(*call).status_code == 401, call
            if policy.access is Access.OPERATOR:
                headers = {"authorization": f"Bearer {tenant[1]}"}
                assert client.request(*call, headers=headers).status_code == 403, call
            elif policy.scope is not None:
                other = next(s for s in narrow if s != policy.scope)
                headers = {"authorization": f"Bearer {narrow[other]}"}
                assert client.request(*call, headers=headers).status_code == 403, call


def test_a_route_without_a_policy_is_refused_to_everyone(live, tenant):
    @get("/forgotten")
    async def forgotten() -> str:
        return "secret"

    live.gateway_app.register(forgotten)
    with httpx.Client(base_url=live.url, timeout=60) as client:
        for headers in (
            {},
            {"authorization": f"Bearer {tenant[1]}"},
            {"authorization": f"Bearer {live.operator_key}"},
        ):
            reply = client.get("/forgotten", headers=headers)
            assert reply.status_code == 403
            assert "secret" not in reply.text


@pytest.mark.parametrize("path", sorted(PUBLIC))
def test_public_routes_name_no_tenant(live, tenant, path):
    text = httpx.get(f"{live.url}{path}", timeout=60).text
    assert "acme" not in text
    assert tenant[0] not in text
    assert tenant[1].split("_")[2] not in text
