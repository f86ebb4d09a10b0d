"""The operator's tenants in a real browser: the URL holds whose dialog is open, and what the list is filtered by."""

import re

import pytest

from tests.ui.visitor import ON_A_STAGE, expect, sign_in

pytestmark = ON_A_STAGE
TENANTS = "/admin/operator/tenants"


@pytest.fixture
def operator(stage, page):
    sign_in(page, stage.keys["operator"])
    return page


def id_of(stage, name):
    with stage.api("operator") as api:
        return next(t["id"] for t in api.get("/api/v1/tenants", params={"name": name}).json()["data"])


def test_whose_dialog_is_open_stands_in_the_url(stage, operator):
    globex, acme = id_of(stage, "globex"), id_of(stage, "acme")
    dialog = operator.get_by_role("dialog")
    operator.goto(TENANTS)
    operator.get_by_role("link", name="globex").click()
    operator.wait_for_url(f"**{TENANTS}?tenant={globex}")
    expect(dialog).to_have_accessible_name("globex")
    expect(dialog.get_by_role("button", name="Create a key for this tenant")).to_be_visible()
    operator.reload()
    expect(dialog).to_have_accessible_name("globex")
    operator.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    operator.wait_for_url(re.compile(f"{TENANTS}$"))
    operator.get_by_role("link", name="acme").click()
    operator.wait_for_url(f"**?tenant={acme}")
    expect(dialog).to_have_accessible_name("acme")
    operator.go_back()
    expect(dialog).to_have_count(0)
    operator.go_forward()
    expect(dialog).to_have_accessible_name("acme")


@pytest.mark.parametrize("told", ["ten_" + "0" * 32, "ten_0", "..", "acme", "../keys"])
def test_an_address_that_names_nobody_says_so_and_asks_nothing_else(operator, told):
    asked = []
    operator.on("request", lambda request: asked.append(request) if "/api/v1/" in request.url else None)
    operator.goto(f"{TENANTS}?tenant={told}")
    dialog = operator.get_by_role("dialog")
    expect(dialog).to_contain_text("There is no such tenant")
    expect(dialog.get_by_role("textbox")).to_have_count(0)
    expect(operator.get_by_role("alert")).to_have_count(0)
    assert all(request.method == "GET" for request in asked)
    dialog.get_by_role("button", name="Show all tenants").click()
    operator.wait_for_url(re.compile(f"{TENANTS}$"))
    expect(operator.get_by_role("link", name="acme")).to_be_visible()


def test_the_server_filters_tenants_by_what_the_url_says(operator):
    operator.goto(f"{TENANTS}?name=glob")
    rows = operator.get_by_role("table", name="Tenants").locator("tbody tr")
    field = operator.get_by_label("Part of a name")
    expect(field).to_have_value("glob")
    expect(rows).to_have_text([re.compile("globex")])
    operator.get_by_role("link", name="globex").click()
    operator.wait_for_url("**name=glob&tenant=ten_**")
    operator.keyboard.press("Escape")
    field.fill("nobody-is-called-this")
    expect(operator.get_by_text("No tenant is called that")).to_be_visible()
    operator.get_by_role("button", name="Show all").click()
    expect(operator.get_by_role("link", name="acme")).to_be_visible()
    expect(field).to_have_value("")


def test_a_wallet_is_granted_to_and_adjusted_with_a_note(stage, operator):
    with stage.api("operator") as api:
        made = api.post("/api/v1/tenants", json={"name": "payer"}).json()["id"]
    operator.goto(f"{TENANTS}?tenant={made}")
    wallet = operator.get_by_role("dialog").get_by_role("region", name="Wallet")
    balance = wallet.get_by_role("status").first
    expect(balance).to_have_text("$0")
    amount, note = wallet.get_by_label(re.compile("^Amount")), wallet.get_by_label("Note")
    amount.fill("-3")
    wallet.get_by_role("button", name="Enter the grant").click()
    expect(wallet.get_by_role("alert")).to_contain_text("A grant adds")
    amount.fill("12.5")
    note.fill("spring")
    expect(wallet).to_contain_text("$12.50 then")
    wallet.get_by_role("button", name="Enter the grant").click()
    expect(balance).to_have_text("$12.50")
    wallet.get_by_role("radio", name="Adjustment").click()
    amount.fill("-20")
    wallet.get_by_role("button", name="Enter the adjustment").click()
    expect(wallet.get_by_role("alert")).to_contain_text("Say why")
    note.fill("billed twice")
    wallet.get_by_role("button", name="Enter the adjustment").click()
    expect(balance).to_have_text("-$7.50")
    expect(wallet.get_by_role("table").locator("tbody tr")).to_have_count(2)
    with stage.api("operator") as api:
        entries = api.get(f"/api/v1/tenants/{made}/wallet").json()["data"]
    assert [(e["kind"], e["amount"], e["note"]) for e in entries] == [
        ("adjust", "-20.00", "billed twice"),
        ("grant", "12.50", "spring"),
    ]
    operator.get_by_role("button", name="Create a key for this tenant").click()
    operator.get_by_role("dialog", name="Create an API key").get_by_label("Name").fill("first")
    operator.keyboard.press("Enter")
    expect(operator.get_by_role("dialog", name="Key “first”").locator("output")).to_be_visible()


def test_a_bar_on_an_adapters_page_leads_to_its_requests(stage, page):
    sign_in(page, stage.keys["acme"])
    page.goto("/admin/adapters/support")
    chart = page.get_by_role("figure", name=re.compile("^Cost by version.*Enter shows"))
    chart.focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    page.wait_for_url("**/admin/usage?**")
    for part in ("by=version", "range=7d", "adapter=adp_", "at=", "version=ver_"):
        assert part in page.url
    expect(page.get_by_role("button", name="Remove the filter support:1")).to_be_visible()
