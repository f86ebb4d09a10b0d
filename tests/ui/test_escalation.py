"""Nobody comes to more than they have by making keys, inviting people or making links, whatever the two roles are."""

import itertools

import httpx
import pytest

from tests.ui.conftest import Browser

HELD = {"admin": {"inference", "manage"}, "manager": {"manage"}, "member": {"inference"}}
PAIRS = list(itertools.product(HELD, HELD))
# Every route whose answer holds a secret that signs somebody in. A new one belongs into the laws below.
TELL_SECRETS = {
    ("POST", "/api/v1/keys"), ("POST", "/api/v1/tenants/{tenant_id:str}/keys"), ("POST", "/api/v1/team"),
    ("POST", "/api/v1/team/{key:str}/links"), ("POST", "/api/v1/sign-in-links"), ("POST", "/api/v1/browser-sessions"),
}  # fmt: skip


@pytest.fixture(scope="module")
def acme(live):
    return live.make_tenant("acme-escalation")


class Caller(httpx.Client):
    def __init__(self, live, key):
        super().__init__(base_url=live.url, headers={"authorization": f"Bearer {key}"}, timeout=30)


@pytest.fixture
def owner(live, acme):
    with Caller(live, acme[1]) as client:
        yield client


@pytest.fixture(scope="module")
def actors(live, acme):
    """A person's client for each role."""
    with Caller(live, acme[1]) as owner:
        made = {
            role: owner.post("/api/v1/team", json={"name": f"actor {role}", "role": role}).json()["secret"]
            for role in HELD
        }
    clients = {role: Caller(live, secret) for role, secret in made.items()}
    yield clients
    for client in clients.values():
        client.close()


def may_grant(actor, target):
    return "manage" in HELD[actor] and HELD[target] <= HELD[actor]


def may_end(actor, target):
    return "manage" in HELD[actor] and not HELD[target] > HELD[actor]


def scopes_by_key(live, secret):
    with Caller(live, secret) as client:
        return set(client.get("/api/v1/me").json()["scopes"])


def scopes_by_link(live, path):
    with Browser(live.url) as browser:
        return set(browser.sign_in(link=path.partition("#")[2]).json()["me"]["scopes"])


def check(reply, allowed):
    assert reply.is_success == allowed, reply.text
    if not allowed:
        assert reply.status_code == 403, reply.text


@pytest.mark.parametrize(("actor", "target"), PAIRS)
def test_a_key_holds_no_more_than_who_made_it(live, actors, actor, target):
    body = {"name": f"{actor} for {target}", "scopes": sorted(HELD[target])}
    made = actors[actor].post("/api/v1/keys", json=body)
    check(made, may_grant(actor, target))
    if made.is_success:
        assert scopes_by_key(live, made.json()["key"]) <= HELD[actor]


@pytest.mark.parametrize(("actor", "target"), PAIRS)
def test_a_person_is_invited_to_no_more_than_who_invites(live, actors, actor, target):
    invited = actors[actor].post("/api/v1/team", json={"name": f"{actor} invites {target}", "role": target})
    check(invited, may_grant(actor, target))
    if invited.is_success:
        assert scopes_by_key(live, invited.json()["secret"]) <= HELD[actor]
        assert scopes_by_link(live, invited.json()["link"]["path"]) <= HELD[actor]


@pytest.mark.parametrize(("actor", "target"), PAIRS)
def test_a_link_signs_nobody_in_to_more_than_who_made_it(live, owner, actors, actor, target):
    key = owner.post("/api/v1/team", json={"name": f"{target} there", "role": target}).json()["member"]["key"]
    link = actors[actor].post(f"/api/v1/team/{key}/links")
    check(link, may_grant(actor, target))
    if link.is_success:
        assert scopes_by_link(live, link.json()["path"]) <= HELD[actor]


@pytest.mark.parametrize("actor", HELD)
def test_a_link_of_ones_own_is_ones_own(live, actors, actor):
    link = actors[actor].post("/api/v1/sign-in-links")
    assert link.is_success
    assert scopes_by_link(live, link.json()["path"]) == HELD[actor]


@pytest.mark.parametrize(("actor", "target"), PAIRS)
@pytest.mark.parametrize("person", [True, False], ids=["person", "service"])
def test_who_may_do_less_ends_nobody_who_may_do_more(live, owner, actors, actor, target, person):
    if person:
        key = owner.post("/api/v1/team", json={"name": "there", "role": target}).json()["member"]["key"]
    else:
        key = owner.post("/api/v1/keys", json={"name": "there", "scopes": sorted(HELD[target])}).json()["id"]
    check(actors[actor].delete(f"/api/v1/keys/{key}"), may_end(actor, target))
    revoked = owner.get(f"/api/v1/keys/{key}").json()["revoked_at"] is not None
    assert revoked == may_end(actor, target)


def test_no_other_route_tells_a_secret(live):
    told = {
        (method, route.path)
        for route in live.gateway.app.routes
        for handler in getattr(route, "route_handlers", ())
        if handler.opt.get("never_kept")
        for method in handler.http_methods
        if method != "OPTIONS"
    }
    assert told == TELL_SECRETS
