"""What the gateway says about the console's files: nothing from elsewhere runs, and nothing else is served."""

import httpx
import pytest

from tenantry.platform.testing import GatewayThread, cloned_database


@pytest.mark.parametrize("path", ["/admin", "/admin/adapters", "/admin/adapters/support", "/admin/keys"])
def test_every_view_is_the_one_page_under_a_strict_policy(live, path):
    reply = httpx.get(live.url + path)
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/html")
    assert reply.headers["cache-control"] == "no-store"
    said = reply.headers["content-security-policy"]
    assert "default-src 'none'" in said
    assert "script-src 'self';" in said
    assert "unsafe" not in said
    nonce = said.partition("'nonce-")[2].partition("'")[0]
    assert f'nonce="{nonce}"' in reply.text
    assert nonce not in httpx.get(live.url + path).text


def test_a_hashed_asset_is_kept_for_ever(live):
    reply = httpx.get(f"{live.url}/admin/assets/index-1a2b3c.js")
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/javascript")
    assert reply.headers["cache-control"] == "public, max-age=31536000, immutable"


@pytest.mark.parametrize("name", ["nothing.js", "../secret.txt", "..%2fsecret.txt", ".hidden", "index-1a2b3c.map"])
def test_nothing_but_an_asset_by_its_name_is_served(live, name):
    assert httpx.get(f"{live.url}/admin/assets/{name}").status_code == 404 or (
        "not an asset" not in httpx.get(f"{live.url}/admin/assets/{name}").text
    )


def test_without_a_built_console_the_answer_says_what_to_do(postgres, tmp_path):
    with (
        cloned_database(postgres, "tenantry_template") as dsn,
        GatewayThread(dsn, tmp_path / "data", console_dir=tmp_path) as live,
    ):
        reply = httpx.get(f"{live.url}/admin")
        assert reply.status_code == 404
        assert "make ui" in reply.json()["error"]["message"]
