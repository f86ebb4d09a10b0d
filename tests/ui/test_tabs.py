"""Several tabs of one browser: one session and one stream for all of them, whatever each was opened for."""

import re

import pytest

from tests.ui.visitor import LANDED, ON_A_STAGE, PATIENCE_MS, expect, sign_in

pytestmark = ON_A_STAGE
MORE_THAN_CONNECTIONS = 8  # HTTP/1.1: six to a host


@pytest.fixture
def tab(stage, chrome):
    """tab(): another tab of the same browser."""
    context = chrome.new_context(base_url=stage.url, viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE_MS)
    yield context.new_page
    context.close()


def account(page, tenant):
    return page.get_by_role("button", name=f"Account of {tenant}")


def test_a_tab_never_shows_one_tenants_name_over_anothers_data(stage, tab):
    first, second = tab(), tab()
    sign_in(first, stage.keys["acme"])
    first.goto("/admin/adapters")
    expect(account(first, "acme")).to_be_visible()
    sign_in(second, stage.keys["globex"])
    expect(account(first, "globex")).to_be_visible()
    expect(first.get_by_role("table", name="Adapters")).not_to_contain_text("orders")
    first.goto("/admin/keys")
    first.get_by_role("button", name="Create key").click()
    first.get_by_role("dialog").get_by_label("Name").fill("of-globex")
    first.get_by_role("dialog").get_by_role("button", name="Create key").click()
    expect(first.get_by_role("dialog").locator("output")).to_contain_text("tny_live_")


def test_a_tab_that_was_told_nothing_learns_it_from_its_next_act(stage, tab):
    first = tab()
    sign_in(first, stage.keys["acme"])
    first.goto("/admin/keys")
    expect(account(first, "acme")).to_be_visible()
    first.evaluate(
        "key => fetch('/api/v1/browser-sessions', {method: 'POST', headers: {'content-type': 'application/json'},"
        " body: JSON.stringify({key})})",
        stage.keys["globex"],
    )
    first.get_by_role("button", name="Create key").click()
    first.get_by_role("dialog").get_by_label("Name").fill("of-nobody")
    first.get_by_role("dialog").get_by_role("button", name="Create key").click()
    expect(account(first, "globex")).to_be_visible()
    with stage.api("acme") as api:
        assert "of-nobody" not in api.get("/api/v1/keys", params={"limit": 100}).text


def test_a_tab_looks_who_is_signed_in_when_one_comes_back_to_it(stage, tab):
    first = tab()
    sign_in(first, stage.keys["acme"])
    expect(account(first, "acme")).to_be_visible()
    first.evaluate(
        "key => fetch('/api/v1/browser-sessions', {method: 'POST', headers: {'content-type': 'application/json'},"
        " body: JSON.stringify({key})})",
        stage.keys["globex"],
    )
    first.evaluate("dispatchEvent(new Event('focus'))")
    expect(account(first, "globex")).to_be_visible()


def test_signing_out_in_one_tab_ends_the_others(stage, tab):
    first, second = tab(), tab()
    sign_in(first, stage.keys["acme"])
    second.goto("/admin/adapters")
    expect(account(second, "acme")).to_be_visible()
    account(first, "acme").click()
    first.get_by_role("menuitem", name="Sign out").click()
    first.wait_for_url("**/admin/sign-in**")
    second.wait_for_url("**/admin/sign-in**")


def test_signing_out_that_nobody_heard_is_not_said_to_have_worked(stage, tab):
    page = tab()
    sign_in(page, stage.keys["acme"])
    account(page, "acme").click()
    page.context.set_offline(True)
    page.get_by_role("menuitem", name="Sign out").click()
    expect(page.get_by_text("you are still signed in").first).to_be_visible()
    assert "/sign-in" not in page.url


def test_as_many_tabs_as_one_likes_are_live(stage, tab):
    """Each used to hold a connection of its own, and the sixth hung with all before it."""
    first = tab()
    sign_in(first, stage.keys["acme"])
    tabs = [first]
    for _ in range(MORE_THAN_CONNECTIONS - 1):
        tabs.append(tab())
        tabs[-1].goto("/admin/overview")
    for page in tabs:
        expect(page.get_by_text("Live", exact=True)).to_be_visible()
        expect(page.get_by_text("Loading")).to_have_count(0)
    tabs[0].close()
    tabs[1].goto("/admin/adapters")
    expect(tabs[1].get_by_role("table", name="Adapters")).to_be_visible()


def test_the_tab_that_read_for_all_may_go(stage, tab):
    first, second = tab(), tab()
    sign_in(first, stage.keys["acme"])
    second.goto("/admin/overview")
    expect(second.get_by_text("Live", exact=True)).to_be_visible()
    with second.expect_request("**/api/v1/events"):
        first.close()


def test_a_session_that_ends_while_a_page_is_open_leads_to_the_sign_in(stage, tab):
    with stage.api("acme") as api:
        made = api.post("/api/v1/keys", json={"name": "short-lived"}).json()
        page = tab()
        sign_in(page, made["key"])
        page.goto("/admin/keys")
        page.get_by_role("button", name="Create key").click()
        api.delete(f"/api/v1/keys/{made['id']}").raise_for_status()
    page.wait_for_timeout(2500)
    page.get_by_role("dialog").get_by_label("Name").fill("too-late")
    page.get_by_role("dialog").get_by_role("button", name="Create key").click()
    page.wait_for_url(re.compile("/admin/sign-in"))
    expect(page.get_by_text("Your session has ended")).to_be_visible()
    page.get_by_label("API key").fill(stage.keys["acme"])
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/admin/keys")


@pytest.mark.parametrize(("who", "page"), [("operator", "operator/engines"), ("acme", "overview")])
def test_everybody_begins_where_their_work_is(stage, tab, who, page):
    first = tab()
    sign_in(first, stage.keys[who])
    assert LANDED.search(first.url)
    first.goto("/admin")
    first.wait_for_url(f"**/admin/{page}")
    first.goto("/admin/sign-in?next=https://elsewhere.example/")
    first.get_by_label("API key").fill(stage.keys[who])
    first.get_by_role("button", name="Sign in").click()
    first.wait_for_url(f"**/admin/{page}")
