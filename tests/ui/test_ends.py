"""What ends for good, from the console, by keyboard alone: a version, an adapter, a tenant, and what runs on them."""

import re
import threading

import httpx
import pytest

from tests.ui.stage import DEMO
from tests.ui.visitor import ON_A_STAGE, Keyboard, expect, sign_in

pytestmark = ON_A_STAGE
LONG = {"max_tokens": 1500, "ignore_eos": True, "speculate": False}
IN_FLIGHT = re.compile(r"[1-9]\d* requests? in flight now")


class Asking:
    """Somebody who asks one long thing after another until refused. statuses: of all answers."""

    def __init__(self, url, key, model):
        self.statuses: list[int] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._ask, args=(url, key, model), daemon=True)
        self._thread.start()

    def _ask(self, url, key, model):
        body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], **LONG}
        with httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=300) as api:
            while not self._stopped.is_set() and self.statuses[-1:] in ([], [200]):
                self.statuses.append(api.post("/v1/chat/completions", json=body).status_code)

    def ended(self):
        self._thread.join(120)
        assert not self._thread.is_alive()
        return self.statuses[-1]

    def stop(self):
        self._stopped.set()


@pytest.fixture
def asking(stage, tenant):
    """asking("mine"): see Asking; whoever still asks when the test is over stops."""
    begun = []

    def begin(model):
        begun.append(Asking(stage.url, tenant[1], model))
        return begun[-1]

    yield begin
    for one in begun:
        one.stop()


@pytest.fixture
def tenant(stage, request):
    """A tenant of this test's own, with an adapter that answers: (name, key)."""
    name = re.sub("[^a-z]+", "-", request.node.name.removeprefix("test_").lower())[:40].strip("-")
    with stage.api("operator") as api:
        made = api.post("/api/v1/tenants", json={"name": name}).json()["id"]
        key = api.post(f"/api/v1/tenants/{made}/keys", json={"name": "first"}).json()["key"]
    stage.keys[name] = key
    upload(stage, name)
    return name, key


def upload(stage, name):
    source = DEMO / "adapters" / "acme-support"
    files = {n: (n, (source / n).read_bytes()) for n in ("adapter_config.json", "adapter_model.safetensors")}
    with stage.api(name) as api:
        api.post("/api/v1/adapters/mine/versions", files=files).raise_for_status()


def choose(hand, page, row, item):
    """An item of a row's menu, which arrow keys reach."""
    hand.press(page.get_by_role("button", name=row, exact=True))
    wanted = page.get_by_role("menuitem", name=item)
    expect(wanted).to_be_visible()
    for _ in range(10):
        if wanted.evaluate("e => e === document.activeElement"):
            break
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")


def test_an_operator_deletes_a_tenant(stage, page, tenant, asking):
    name, _ = tenant
    hand = Keyboard(page)
    busy = asking("mine")
    sign_in(page, stage.keys["operator"])
    hand.go("Tenants")
    dialog = page.get_by_role("dialog")
    more = page.get_by_role("button", name=f"More for {name}")
    choose(hand, page, f"More for {name}", "Delete…")
    expect(dialog).to_contain_text(IN_FLIGHT)
    expect(dialog).to_contain_text("1 live key")
    expect(dialog).to_contain_text("its usage and its ledger")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(more).to_be_focused()
    choose(hand, page, f"More for {name}", "Delete…")
    hand.write(dialog.get_by_label(re.compile("to confirm")), "another name")
    hand.press(dialog.get_by_role("button", name="Delete for good"))
    expect(dialog.get_by_role("alert")).to_contain_text(f"Type {name}")
    hand.write(dialog.get_by_label(re.compile("to confirm")), name)
    hand.press(dialog.get_by_role("button", name="Delete for good"))
    expect(page.get_by_text(f"{name} is deleted.").first).to_be_visible()
    expect(page.get_by_role("row", name=name)).to_have_count(0)
    expect(page.locator("main")).to_be_focused()
    assert busy.ended() in (401, 503)
    with stage.api(name) as api:
        assert api.get("/api/v1/me").status_code == 401


def test_a_version_is_retired_and_what_runs_on_it_ends(stage, page, tenant, asking):
    name, key = tenant
    upload(stage, name)
    hand = Keyboard(page)
    busy = asking("mine:2")
    sign_in(page, key)
    page.goto("/admin/adapters/mine")
    dialog = page.get_by_role("dialog")
    choose(hand, page, "More for version 1", "Retire…")
    expect(dialog.get_by_role("alert")).to_contain_text("The alias default points at this version")
    expect(dialog.get_by_role("button", name="Retire for good")).to_be_disabled()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="More for version 1")).to_be_focused()
    choose(hand, page, "More for version 2", "Retire…")
    expect(dialog).to_contain_text(IN_FLIGHT)
    hand.reach(dialog.get_by_role("checkbox"))
    page.keyboard.press("Space")
    hand.write(dialog.get_by_label(re.compile("to confirm")), "mine:2")
    hand.press(dialog.get_by_role("button", name="Retire and end requests"))
    expect(page.get_by_text("mine:2 is retired, what ran on it ends now.").first).to_be_visible()
    assert busy.ended() in (503, 404)
    expect(page.get_by_role("button", name="More for version 2")).to_be_focused()
    with stage.api(name) as api:
        assert api.get("/api/v1/adapters/mine/versions/2").json()["state"] == "retired"


def test_an_adapter_is_deleted_and_what_runs_on_it_ends(stage, page, tenant, asking):
    name, key = tenant
    hand = Keyboard(page)
    busy = asking("mine")
    sign_in(page, key)
    page.goto("/admin/adapters/mine")
    dialog = page.get_by_role("dialog")
    hand.press(page.get_by_role("button", name="Delete", exact=True))
    expect(dialog).to_contain_text(IN_FLIGHT)
    expect(dialog).to_contain_text("1 alias: default")
    page.keyboard.press("Escape")
    hand.press(page.get_by_role("button", name="Delete", exact=True))
    hand.reach(dialog.get_by_role("checkbox"))
    page.keyboard.press("Space")
    hand.write(dialog.get_by_label(re.compile("to confirm")), "mine")
    hand.press(dialog.get_by_role("button", name="Delete and end requests"))
    expect(page.get_by_text("mine is deleted, what ran on it ends now.").first).to_be_visible()
    page.wait_for_url("**/admin/adapters")
    expect(page.locator("main")).to_be_focused()
    assert busy.ended() in (503, 404)
    with stage.api(name) as api:
        assert api.get("/api/v1/adapters/mine").status_code == 404


def test_who_may_not_delete_is_told_so(stage, page):
    """The page answers the same without the scope, whoever typed its address."""
    with stage.api("acme") as api:
        made = api.post("/api/v1/team", json={"name": "Ivo", "role": "member"}).json()
    sign_in(page, made["secret"])
    for path in ("adapters/support", "operator/tenants"):
        page.goto(f"/admin/{path}")
        expect(page.get_by_text("This key may not see this")).to_be_visible()
        expect(page.get_by_role("button", name=re.compile("Delete"))).to_have_count(0)
