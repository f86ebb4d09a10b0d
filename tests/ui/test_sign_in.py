"""A session in a browser is one key, no more: opened by it or by a link, once, and gone when it is."""

import httpx
import pytest

from tenantry.platform.admin.routes import COOKIE


@pytest.fixture(scope="module")
def acme(live):
    return live.make_tenant("acme")


def with_key(live, key):
    return httpx.Client(base_url=live.url, headers={"authorization": f"Bearer {key}"}, timeout=30)


def test_a_key_becomes_a_session_whose_cookie_scripts_cannot_read(live, acme, browser):
    reply = browser.sign_in(key=acme[1])
    assert reply.status_code == 201
    cookie = reply.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert acme[1] not in reply.text
    me = browser.get("/api/v1/me").json()
    with with_key(live, acme[1]) as client:
        assert me == client.get("/api/v1/me").json()


def test_a_session_may_do_what_its_key_may_and_no_more(live, acme, browser):
    with with_key(live, acme[1]) as client:
        narrow = client.post("/api/v1/keys", json={"name": "narrow", "scopes": ["inference"]}).json()["key"]
    assert browser.sign_in(key=narrow).is_success
    assert browser.get("/v1/models").status_code == 200
    assert browser.get("/api/v1/keys").json()["error"]["code"] == "missing_scope"
    assert browser.get("/api/v1/tenants").status_code == 403


@pytest.mark.parametrize("token", [None, "", "0" * 64])
def test_a_change_without_the_csrf_token_is_refused(acme, browser, token):
    browser.sign_in(key=acme[1])
    del browser.headers["x-csrf-token"]
    headers = {} if token is None else {"x-csrf-token": token}
    reply = browser.post("/api/v1/keys", json={"name": "forged"}, headers=headers)
    assert reply.status_code == 403
    assert reply.json()["error"]["code"] == "csrf_token_invalid"
    assert "forged" not in browser.get("/api/v1/keys").text


def test_another_sessions_csrf_token_is_worth_nothing(live, acme, browser):
    theirs = httpx.post(f"{live.url}/api/v1/browser-sessions", json={"key": acme[1]}).json()["csrf_token"]
    browser.sign_in(key=acme[1])
    reply = browser.post("/api/v1/keys", json={"name": "forged"}, headers={"x-csrf-token": theirs})
    assert reply.status_code == 403


def test_signing_out_ends_the_session_on_the_server(acme, browser):
    browser.sign_in(key=acme[1])
    stolen = browser.cookies[COOKIE]
    reply = browser.delete("/api/v1/browser-sessions/current")
    assert reply.status_code == 200
    assert COOKIE not in browser.cookies
    browser.cookies.set(COOKIE, stolen)
    assert browser.get("/api/v1/me").status_code == 401


def test_revoking_the_key_ends_its_sessions(live, acme, browser):
    with with_key(live, acme[1]) as client:
        made = client.post("/api/v1/keys", json={"name": "short-lived"}).json()
        browser.sign_in(key=made["key"])
        assert browser.get("/api/v1/me").status_code == 200
        client.delete(f"/api/v1/keys/{made['id']}")
    for _ in range(40):
        if browser.get("/api/v1/me").status_code == 401:
            break
        live.run(_pause())
    assert browser.get("/api/v1/me").status_code == 401


async def _pause():
    import asyncio

    await asyncio.sleep(0.1)


def test_a_link_signs_in_once(live, acme, browser):
    with with_key(live, acme[1]) as client:
        link = client.post("/api/v1/sign-in-links").json()
    path, _, secret = link["path"].partition("#")
    assert path == "/admin/sign-in"
    assert browser.sign_in(link=secret).is_success
    assert browser.get("/api/v1/me").json()["tenant_name"] == "acme"
    assert browser.sign_in(link=secret).status_code == 401


def test_a_links_secret_is_no_session_and_a_session_is_no_link(live, acme, browser):
    with with_key(live, acme[1]) as client:
        secret = client.post("/api/v1/sign-in-links").json()["path"].partition("#")[2]
    browser.cookies.set(COOKIE, secret)
    assert browser.get("/api/v1/me").status_code == 401
    browser.cookies.clear()
    browser.sign_in(key=acme[1])
    session = browser.cookies[COOKIE]
    assert browser.sign_in(link=session).status_code == 401


@pytest.mark.parametrize("body", [{}, {"key": "a", "link": "b"}])
def test_sign_in_takes_one_of_the_two(browser, body):
    assert browser.post("/api/v1/browser-sessions", json=body).status_code == 400


@pytest.mark.parametrize("cookie", ["", "x", "0" * 32 + "." + "a" * 43, ";;=", "a" * 5000])
def test_a_bad_cookie_is_the_same_401_as_a_bad_key(live, cookie):
    reply = httpx.get(f"{live.url}/api/v1/me", headers={"cookie": f"{COOKIE}={cookie}"})
    assert reply.status_code == 401
    assert reply.json()["error"]["code"] == "invalid_api_key"


def test_a_key_has_no_current_session(live, acme):
    with with_key(live, acme[1]) as client:
        assert client.get("/api/v1/browser-sessions/current").status_code == 404


def test_a_cookie_beside_a_key_proves_nothing(live, acme, browser):
    """Whoever knows a session's id and has some key neither ends it nor hears of it."""
    browser.sign_in(key=acme[1])
    stolen = browser.cookies[COOKIE].partition(".")[0] + "." + "a" * 43
    with with_key(live, acme[1]) as client:
        client.headers["cookie"] = f"{COOKIE}={stolen}"
        for method in ("GET", "DELETE"):
            assert client.request(method, "/api/v1/browser-sessions/current").status_code == 404
    assert browser.get("/api/v1/browser-sessions/current").status_code == 200


def test_the_current_session_tells_its_csrf_token_again(acme, browser):
    first = browser.sign_in(key=acme[1]).json()
    again = browser.get("/api/v1/browser-sessions/current").json()
    assert again["csrf_token"] == first["csrf_token"]
    assert again["me"]["tenant_name"] == "acme"
