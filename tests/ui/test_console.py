"""The console's manners: the URL is the view, Back goes back, the keyboard is never lost, nothing asked in vain."""

import json
import re
import shutil
from urllib.parse import quote

import pytest

from tests.ui.stage import DEMO
from tests.ui.visitor import ON_A_STAGE, PATIENCE_MS, expect, sign_in

pytestmark = ON_A_STAGE


@pytest.fixture
def acme(stage, page):
    sign_in(page, stage.keys["acme"])
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    return page


def playground(page, *models):
    page.goto(f"/admin/playground?models={quote(json.dumps(models))}")
    expect(page.get_by_role("region", name=re.compile("^Answer of"))).to_have_count(len(models))


def answers(page, model):
    """The streamed answers of every pane's own request, held until the test lets them go."""
    held = {}

    def hold(route):
        asked = json.loads(route.request.post_data)["model"]
        held[asked] = route

    page.route("**/v1/chat/completions", hold)
    return held


def told(route, text):
    delta = json.dumps({"choices": [{"delta": {"content": text}, "finish_reason": "stop"}]})
    route.fulfill(content_type="text/event-stream", body=f"data: {delta}\n\ndata: [DONE]\n\n")


def test_an_answer_stays_with_the_pane_that_asked_for_it(acme):
    held = answers(acme, "support")
    playground(acme, "orders", "support")
    acme.get_by_label("Message").fill("Hello")
    acme.get_by_role("button", name=re.compile("^Run")).click()
    expect(acme.get_by_label("Generating")).to_have_count(2)
    acme.get_by_role("button", name="Remove orders").click()
    told(held["support"], "from support")
    expect(acme.get_by_role("region", name="Answer of support")).to_contain_text("from support")
    expect(acme.get_by_role("region", name=re.compile("^Answer of"))).to_have_count(1)
    acme.get_by_role("button", name="Beside").click()
    expect(acme.get_by_role("region", name=re.compile("^Answer of"))).to_have_count(2)
    expect(acme.get_by_role("region", name="Answer of support")).to_contain_text("from support")
    acme.go_back()
    expect(acme.get_by_role("region", name=re.compile("^Answer of"))).to_have_count(1)


def test_a_stream_that_breaks_keeps_what_had_come(acme):
    def broken(route):
        delta = json.dumps({"choices": [{"delta": {"content": "so far"}}]})
        error = json.dumps({"error": {"code": "engine_lost", "message": "the connection to the engine broke"}})
        body = f"data: {delta}\n\ndata: {error}\n\n"
        route.fulfill(content_type="text/event-stream", body=body, headers={"x-request-id": "req_0"})

    acme.route("**/v1/chat/completions", broken)
    playground(acme, "support")
    acme.get_by_label("Message").fill("Hello")
    acme.get_by_role("button", name=re.compile("^Run")).click()
    pane = acme.get_by_role("region", name="Answer of support")
    expect(pane.get_by_role("alert")).to_contain_text("It broke off here")
    expect(pane).to_contain_text("so far")
    expect(pane.get_by_role("alert")).to_contain_text("the charge will stand under Usage")


def test_the_keyboard_begins_at_the_first_field_and_goes_back(acme):
    acme.goto("/admin/keys")
    create = acme.get_by_role("button", name="Create key")
    create.focus()
    acme.keyboard.press("Enter")
    expect(acme.get_by_role("dialog").get_by_label("Name")).to_be_focused()
    acme.keyboard.press("Escape")
    expect(create).to_be_focused()
    acme.keyboard.press("Enter")
    acme.keyboard.type("for-focus")
    acme.keyboard.press("Enter")
    expect(acme.get_by_role("dialog").locator("output")).to_be_visible()
    acme.get_by_role("button", name="I have it").click()
    expect(create).to_be_focused()
    acme.keyboard.press("Control+k")
    expect(acme.get_by_role("dialog").get_by_placeholder(re.compile("^A page"))).to_be_focused()
    acme.keyboard.press("Escape")
    expect(create).to_be_focused()


@pytest.mark.parametrize(
    "path",
    [
        "adapters?state=foo&sort=zz&order=up",
        "usage?range=foo&by=zz&at=abc",
        "usage?at=99999999999999999",
        "usage?range=custom&from=soon&to=2026-13-01",
        "activity?range=foo",
        "playground?models=support",
        "sessions?model=7",
    ],
)
def test_a_url_that_says_nonsense_is_as_if_it_said_nothing(acme, path):
    acme.goto(f"/admin/{path}")
    expect(acme.get_by_role("heading", level=1)).to_be_visible()
    expect(acme.get_by_text("Loading")).to_have_count(0)
    expect(acme.get_by_role("alert")).to_have_count(0)
    expect(acme.get_by_text("Invalid time value")).to_have_count(0)


def test_back_goes_to_the_view_before_and_the_navigation_leaves_a_filter(acme):
    acme.goto("/admin/adapters")
    rows = acme.get_by_role("table", name="Adapters").locator("tbody tr")
    expect(rows.first).to_be_visible()
    every = rows.count()
    acme.get_by_role("button", name="Adapter", exact=True).click()
    acme.wait_for_url("**sort=name**")
    field = acme.get_by_label("Part of a name")
    field.press_sequentially("support")
    acme.wait_for_url("**name=support**")
    expect(rows).to_have_count(1)
    acme.go_back()
    acme.wait_for_url(re.compile("/admin/adapters$"))
    expect(field).to_have_value("")
    expect(rows).to_have_count(every)
    field.press_sequentially("support")
    acme.wait_for_url("**name=support**")
    acme.get_by_role("navigation", name="Console").get_by_role("link", name="Adapters").click()
    acme.wait_for_url(re.compile("/admin/adapters$"))
    expect(field).to_have_value("")
    acme.wait_for_timeout(600)
    assert acme.url.endswith("/admin/adapters")


def test_offline_a_page_says_so_and_offers_to_try_again(acme):
    expect(acme.get_by_text("Loading")).to_have_count(0)
    acme.route(re.compile("/assets/limits|/assets/prices|/assets/team"), lambda route: route.abort())
    acme.get_by_role("navigation", name="Console").get_by_role("link", name="Team").click()
    expect(acme.get_by_text("This part of the console did not come")).to_be_visible()
    acme.context.set_offline(True)
    acme.get_by_role("button", name="Try again").click()
    expect(acme.get_by_text("The gateway does not answer yet.")).to_be_visible()
    acme.context.set_offline(False)
    acme.unroute_all()
    acme.get_by_role("button", name="Try again").click()
    expect(acme.get_by_role("heading", level=1, name="Team")).to_be_visible()


def test_offline_what_is_asked_fails_and_does_not_wait_in_silence(acme):
    acme.goto("/admin/limits")
    expect(acme.get_by_text("Loading")).to_have_count(0)
    acme.context.set_offline(True)
    acme.evaluate("dispatchEvent(new Event('offline'))")
    acme.get_by_role("navigation", name="Console").get_by_role("link", name="Sessions").click()
    expect(acme.get_by_role("alert").or_(acme.get_by_text("Not up to date")).first).to_be_visible()


@pytest.fixture
def scoped(stage, page):
    """scoped("inference"): signed in with a key of acme's that may do that alone."""

    def enter(*scopes):
        with stage.api("acme") as api:
            made = api.post("/api/v1/keys", json={"name": "narrow", "scopes": list(scopes)}).json()["key"]
        sign_in(page, made)
        return page

    return enter


def test_a_member_is_shown_what_is_theirs_and_nothing_to_press_in_vain(scoped):
    page = scoped("inference")
    expect(page.get_by_role("navigation", name="Console").get_by_role("link")).to_have_text(["Playground"])
    for path, title in [("adapters", "Adapters"), ("keys", "API keys"), ("team", "Team"), ("usage", "Usage")]:
        page.goto(f"/admin/{path}")
        expect(page.get_by_role("heading", level=1, name=title)).to_be_visible()
        expect(page.get_by_text("This key may not see this")).to_be_visible()
        expect(page.locator("main").get_by_role("button")).to_have_count(0)
    page.keyboard.press("Control+k")
    page.get_by_placeholder(re.compile("^A page")).fill("support")
    page.get_by_role("option", name="support", exact=True).click()
    expect(page.get_by_role("region", name="Answer of support")).to_be_visible()


def test_a_manager_finds_no_playground(scoped):
    page = scoped("manage")
    links = page.get_by_role("navigation", name="Console").get_by_role("link")
    expect(links.filter(has_text="Team")).to_be_visible()
    expect(links.filter(has_text="Playground")).to_have_count(0)
    page.goto("/admin/adapters/there-is-none")
    expect(page.get_by_role("heading", level=1)).to_be_visible()


def test_whatever_one_may_see_is_found_by_its_name(stage, page):
    with stage.api("acme") as api:
        made = api.post("/api/v1/keys", json={"name": "billing-robot"}).json()["id"]
    sign_in(page, stage.keys["acme"])
    find(page, "billing", "billing-robot")
    page.wait_for_url(f"**/admin/keys#{made}")
    expect(page.get_by_role("row", name="billing-robot")).to_be_in_viewport()
    expect(page.get_by_role("row", name="billing-robot")).to_have_attribute("aria-current", "true")
    find(page, "supp", "support")
    page.wait_for_url("**/admin/adapters/support")


def test_the_operator_finds_tenants(stage, page):
    sign_in(page, stage.keys["operator"])
    find(page, "glob", "globex")
    page.wait_for_url("**/admin/operator/tenants?tenant=ten_**")
    expect(page.get_by_role("dialog", name="globex")).to_be_visible()


def find(page, typed, name):
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    page.keyboard.press("Control+k")
    page.get_by_placeholder(re.compile("^A page")).fill(typed)
    page.get_by_role("option", name=name, exact=True).click()


def adapter_files(folder, r=None):
    source = DEMO / "adapters" / "acme-support"
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(source / name, folder / name)
    if r:
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**config, "r": r}))
    return [folder / "adapter_config.json", folder / "adapter_model.safetensors"]


def choose(page, files):
    with page.expect_file_chooser() as choosing:
        page.get_by_role("dialog").get_by_role("button", name="Choose files").click()
    choosing.value.set_files(files)
    page.get_by_role("dialog").get_by_role("button", name="Upload", exact=True).click()


def test_the_only_finding_of_a_report_is_open(acme, tmp_path):
    acme.goto("/admin/adapters/support")
    acme.get_by_role("button", name="New version").click()
    choose(acme, adapter_files(tmp_path, r=3))
    dialog = acme.get_by_role("dialog")
    expect(dialog).to_contain_text("The adapter was rejected", timeout=PATIENCE_MS)
    expect(dialog.locator("details[open] li").first).to_be_visible()
    expect(dialog.locator("summary svg").first).to_be_visible()


def test_an_upload_says_what_answers_now_by_the_aliases(stage, acme, tmp_path):
    files = adapter_files(tmp_path)
    acme.goto("/admin/adapters")
    for expected in ("The name twice answers with it", "The name alone answers with version 1"):
        acme.get_by_role("button", name="Upload", exact=True).click()
        acme.get_by_role("dialog").get_by_label("Adapter", exact=True).fill("twice")
        choose(acme, files)
        expect(acme.get_by_role("dialog")).to_contain_text(expected, timeout=PATIENCE_MS)
        acme.get_by_role("dialog").get_by_role("button", name="Close", exact=True).last.click()


def test_escape_does_not_throw_away_an_upload(acme, tmp_path):
    acme.route("**/versions", lambda route: None if route.request.method == "POST" else route.fallback())
    acme.goto("/admin/adapters/support")
    acme.get_by_role("button", name="New version").click()
    choose(acme, adapter_files(tmp_path))
    expect(acme.get_by_role("button", name="Stop the upload")).to_be_visible()
    acme.keyboard.press("Escape")
    expect(acme.get_by_role("alert")).to_contain_text("still under way")
    acme.get_by_role("button", name="Stop the upload").click()
    expect(acme.get_by_role("dialog")).to_have_count(0)


def test_a_file_dropped_beside_the_place_for_it_does_not_leave_the_page(acme):
    acme.goto("/admin/adapters/support")
    dropped = """() => ["dragover", "drop"].map((kind) => {
      const event = new DragEvent(kind, {bubbles: true, cancelable: true, dataTransfer: new DataTransfer()});
      document.querySelector("h1, main").dispatchEvent(event);
      return event.defaultPrevented;
    })"""
    expect(acme.get_by_role("heading", level=1)).to_be_visible()
    assert acme.evaluate(dropped) == [True, True]


def test_escape_closes_the_dialog_before_a_note(acme):
    acme.goto("/admin/keys")
    acme.context.grant_permissions(["clipboard-read", "clipboard-write"])
    acme.goto("/admin/adapters/support")
    acme.route("**/sessions/**", lambda route: route.abort())
    note(acme)
    acme.get_by_role("button", name="New version").click()
    acme.keyboard.press("Escape")
    expect(acme.get_by_role("dialog")).to_have_count(0)
    expect(acme.get_by_text("you are still signed in").first).to_be_visible()


def note(page):
    """A note at the corner: of a sign-out that nobody heard."""
    page.route("**/browser-sessions/current", lambda route: route.abort())
    page.get_by_role("button", name="Account of acme").click()
    page.get_by_role("menuitem", name="Sign out").click()
    expect(page.get_by_text("you are still signed in").first).to_be_visible()


@pytest.mark.parametrize("width", [390, 820])
def test_acts_and_cost_are_never_beyond_the_edge(stage, chrome, width):
    with stage.api("acme") as api:
        api.post("/api/v1/team", json={"name": f"Ann of {width}", "role": "member"}).raise_for_status()
    context = chrome.new_context(base_url=stage.url, viewport={"width": width, "height": 844})
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    sign_in(page, stage.keys["acme"])
    for path, seen in [
        ("keys", page.get_by_role("button", name=re.compile("^Revoke")).first),
        ("team", page.get_by_role("button", name=re.compile("^Remove")).first),
        ("sessions", page.get_by_role("columnheader", name="Cost")),
        ("adapters", page.get_by_role("columnheader", name="Cost, 24 h")),
        ("usage", page.get_by_role("table", name="Requests").get_by_role("columnheader", name="Cost")),
    ]:
        page.goto(f"/admin/{path}")
        expect(seen).to_be_visible()
        box = seen.bounding_box()
        assert box["x"] >= 0, path
        assert box["x"] + box["width"] <= width, path
    context.close()


def test_an_overview_without_an_engine_says_so(acme):
    def away(route):
        said = route.fetch().json()
        route.fulfill(json={**said, "pace": {**said["pace"], "engine_ready": False}})

    acme.route("**/api/v1/events", lambda route: route.abort())
    acme.route("**/api/v1/live", lambda route: route.abort())
    acme.goto("/admin/overview")
    expect(acme.get_by_text("Requests now")).to_be_visible()
    expect(acme.get_by_text("No engine answers")).to_have_count(0)
    acme.route("**/api/v1/overview", away)
    acme.reload()
    expect(acme.get_by_text("No engine answers")).to_be_visible()
