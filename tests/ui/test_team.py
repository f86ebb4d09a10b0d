"""A tenant's people: invited by those who manage it, in by a link or a key of their own, out when that is revoked."""

import httpx
import pytest

from tests.ui.conftest import Browser


@pytest.fixture(scope="module")
def acme(live):
    return live.make_tenant("acme-team")


@pytest.fixture
def api(live, acme):
    with httpx.Client(base_url=live.url, headers={"authorization": f"Bearer {acme[1]}"}, timeout=30) as client:
        yield client


def secret_of(link):
    return link["path"].partition("#")[2]


def test_a_member_comes_in_by_a_link_and_may_do_what_the_role_says(live, api):
    invited = api.post("/api/v1/team", json={"name": "Mira Kovac", "role": "member"}).json()
    assert invited["member"]["role"] == "member"
    with Browser(live.url) as mira:
        assert mira.sign_in(link=secret_of(invited["link"])).is_success
        assert mira.get("/api/v1/me").json()["tenant_name"] == "acme-team"
        assert mira.get("/v1/models").status_code == 200
        assert mira.get("/api/v1/team").status_code == 403
        assert mira.post("/api/v1/team", json={"name": "x"}).status_code == 403
    listed = {one["key"]: one for one in api.get("/api/v1/team").json()["data"]}
    found = listed[invited["member"]["key"]]
    assert found["browsers"] == 1
    assert found["last_signed_in_at"] is not None


def test_roles_are_scopes(api):
    for role, scopes in (("admin", ["inference", "manage"]), ("manager", ["manage"]), ("member", ["inference"])):
        key = api.post("/api/v1/team", json={"name": role, "role": role}).json()["member"]["key"]
        view = api.get(f"/api/v1/keys/{key}").json()
        assert (view["scopes"], view["person"]) == (scopes, True)
        assert next(one["role"] for one in api.get("/api/v1/team").json()["data"] if one["key"] == key) == role


def test_the_own_key_signs_in_again_and_the_list_never_tells_it(live, api):
    invited = api.post("/api/v1/team", json={"name": "Ana", "role": "admin"}).json()
    with Browser(live.url) as ana:
        assert ana.sign_in(key=invited["secret"]).is_success
    assert invited["secret"] not in api.get("/api/v1/team").text


def test_a_removed_member_is_out_and_gone_from_the_list(live, api):
    invited = api.post("/api/v1/team", json={"name": "Brief", "role": "admin"}).json()
    key = invited["member"]["key"]
    again = api.post(f"/api/v1/team/{key}/links").json()
    assert api.delete(f"/api/v1/keys/{key}").status_code == 200
    with Browser(live.url) as gone:
        for link in (invited["link"], again):
            assert gone.sign_in(link=secret_of(link)).status_code == 401
    assert key not in {one["key"] for one in api.get("/api/v1/team").json()["data"]}
    assert api.post(f"/api/v1/team/{key}/links").status_code == 409


def test_services_get_no_links_and_other_tenants_have_nothing_to_say(live, api):
    service = api.post("/api/v1/keys", json={"name": "a job"}).json()["id"]
    assert api.post(f"/api/v1/team/{service}/links").status_code == 409
    person = api.post("/api/v1/team", json={"name": "Ours"}).json()["member"]["key"]
    other = live.make_tenant("globex-team")[1]
    with httpx.Client(base_url=live.url, headers={"authorization": f"Bearer {other}"}) as theirs:
        assert theirs.get("/api/v1/team").json()["data"] == []
        assert theirs.post(f"/api/v1/team/{person}/links").status_code == 404


def test_the_team_is_paged(api):
    made = [api.post("/api/v1/team", json={"name": f"p{i}"}).json()["member"]["key"] for i in range(3)]
    first = api.get("/api/v1/team", params={"limit": 2}).json()
    assert [one["key"] for one in first["data"]] == made[:0:-1]
    second = api.get("/api/v1/team", params={"limit": 1, "after": first["next"]}).json()
    assert [one["key"] for one in second["data"]] == made[:1]


@pytest.mark.parametrize("body", [{"name": ""}, {"name": "x", "role": "king"}, {"role": "admin"}])
def test_a_bad_invitation_names_the_field(api, body):
    assert api.post("/api/v1/team", json=body).status_code == 400
