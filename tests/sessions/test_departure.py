"""A tenant that is deleted: nobody gets in, nothing is remembered, what ran is billed, and the books stay."""

import time

import httpx
import openai
import pytest

from tenantry.platform.cli.main import app
from tenantry.platform.core import ids
from tenantry.platform.gateway.chat import tenant_share
from tenantry.platform.sessions import departure


@pytest.fixture
def operator(live):
    headers = {"authorization": f"Bearer {live.operator_key}"}
    with httpx.Client(base_url=live.url, headers=headers, timeout=30) as client:
        yield client


def rows(live, statement, *arguments):
    async def read():
        async with live.gateway.parts.database.operator() as connection:
            return [tuple(row) for row in await connection.fetch(statement, *arguments)]

    return live.run(read())


def test_a_deleted_tenant_leaves_its_usage_and_nothing_else(live, operator, monkeypatch):
    monkeypatch.setattr(departure, "AGAIN_S", 1.2)
    tenant_text, key = live.make_tenant("leaver")
    tenant_id = ids.from_text("tenant", tenant_text)
    share = tenant_share(tenant_id)
    live.engine.pace = 0.02
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key=key, max_retries=0) as client:
        conversation = client.conversations.create(items=[{"role": "user", "content": "first"}])
        client.responses.create(model="base", input="on", max_output_tokens=3, conversation=conversation.id)
        running = client.responses.create(model="base", input="long", max_output_tokens=400, stream=True)
        next(running)
        generation = live.engine.generations[-1]
        gone = operator.delete(f"/api/v1/tenants/{tenant_text}")
        assert (gone.status_code, gone.json()["status"]) == (200, "deleted"), gone.text
        list(running)
        assert generation.aborted
        assert 0 < generation.generated < 400
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                client.responses.create(model="base", input="x", max_output_tokens=1)
            except openai.AuthenticationError:
                break
            time.sleep(0.1)
        with pytest.raises(openai.AuthenticationError):
            client.conversations.retrieve(conversation.id)
    while live.engine.dropped_tenants.count((share, True)) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert live.engine.dropped_tenants == [(share, True)] * 2, "again, once its keys are believed nowhere"
    while rows(live, "SELECT FROM session WHERE tenant_id = $1", tenant_id) and time.monotonic() < deadline:
        time.sleep(0.02)
    for table in ("session", "session_item", "response"):
        assert not rows(live, f"SELECT FROM {table} WHERE tenant_id = $1", tenant_id)
    assert not rows(live, "SELECT FROM api_key WHERE tenant_id = $1 AND revoked_at IS NULL", tenant_id)
    while len(usage := rows(live, _USAGE, tenant_id)) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    outcomes = [kind for kind, _ in usage]
    assert outcomes[:2] == ["completed", "cancelled"]
    assert usage[1][1] == generation.generated
    assert "leaver" not in [tenant["name"] for tenant in operator.get("/api/v1/tenants").json()["data"]]
    assert operator.get(f"/api/v1/tenants/{tenant_text}").json()["status"] == "deleted"


_USAGE = "SELECT outcome, completion FROM usage_event WHERE tenant_id = $1 ORDER BY admitted_at"


def test_there_is_no_way_back_and_no_way_to_the_operator(live, operator):
    tenant_text, _ = live.make_tenant("gone")
    assert operator.delete(f"/api/v1/tenants/{tenant_text}").status_code == 200
    for again in (
        operator.delete(f"/api/v1/tenants/{tenant_text}"),
        operator.patch(f"/api/v1/tenants/{tenant_text}", json={"status": "active"}),
        operator.delete(f"/api/v1/tenants/{operator.get('/api/v1/me').json()['tenant']}"),
    ):
        assert (again.status_code, again.json()["error"]["code"]) == (404, "tenant_not_found")
    other, own = live.make_tenant("stays")
    with httpx.Client(base_url=live.url, headers={"authorization": f"Bearer {own}"}) as client:
        assert client.delete(f"/api/v1/tenants/{other}").status_code == 403
    assert operator.get(f"/api/v1/tenants/{other}").json()["status"] == "active"


def test_the_command_line_deletes_a_tenant(live, operator, capsys):
    tenant_text, _ = live.make_tenant("by-hand")
    with pytest.raises(SystemExit) as ended:
        app(["tenant", "delete", "by-hand", "--yes", "--url", live.url, "--api-key", live.operator_key])
    assert not ended.value.code
    assert "deleted" in capsys.readouterr().out
    assert operator.get(f"/api/v1/tenants/{tenant_text}").json()["status"] == "deleted"
