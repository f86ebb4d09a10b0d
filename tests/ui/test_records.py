"""Activity and Usage as a person reads them: kinds left out, and requests found from a bar, by mouse and by keys."""

import pytest

from tests.ui.visitor import ON_A_STAGE, PATIENCE_MS, Keyboard, Mouse, expect

pytestmark = ON_A_STAGE


def sign_in(stage, page):
    with stage.api("acme") as api:
        page.goto(api.post("/api/v1/sign-in-links").json()["path"])
    page.wait_for_url("**/admin/overview")


@pytest.mark.parametrize("kind", [Mouse, Keyboard])
def test_sign_ins_are_left_out_and_some_kinds_told_alone(stage, page, kind):
    hand, name = kind(page), f"records-{kind.__name__.lower()}"
    sign_in(stage, page)
    with stage.api("acme") as api:
        key = api.post("/api/v1/keys", json={"name": name}).json()["id"]
        api.delete(f"/api/v1/keys/{key}")
    page.goto("/admin/activity")
    table = page.get_by_role("region", name="Activity")
    expect(table).to_contain_text("Signed in to the console", timeout=PATIENCE_MS)
    expect(table.get_by_role("row").filter(has_text=name)).to_have_count(2)
    hand.press(page.get_by_role("button", name="Kinds of act"))
    item = page.get_by_role("menuitemcheckbox", name="All but sign-ins")
    if kind is Keyboard:
        expect(page.get_by_role("menuitemcheckbox", name="All kinds")).to_be_focused()
        page.keyboard.press("ArrowDown")
        expect(item).to_be_focused()
        page.keyboard.press("Enter")
    else:
        hand.press(item)
    page.keyboard.press("Escape")
    expect(table).not_to_contain_text("Signed in to the console")
    assert "signIns=hidden" in page.url
    page.goto("/admin/activity?kind=%5B%22key_revoked%22%2C%22zz%22%5D")
    expect(table.get_by_role("row").filter(has_text=name)).to_have_count(1)
    expect(table).to_contain_text("demo")


def test_a_bar_is_drilled_by_keys_and_the_tables_cells_by_version_and_base(stage, page):
    sign_in(stage, page)
    page.goto("/admin/usage?by=version")
    chart = page.get_by_role("figure")
    expect(chart).to_be_visible(timeout=PATIENCE_MS)
    chart.focus()
    page.keyboard.press("End")
    told = chart.get_by_role("status")
    expect(told).to_contain_text(":")
    page.keyboard.press("Enter")
    page.wait_for_url("**at=*")
    page.go_back()
    expect(page.get_by_text("Only", exact=True)).to_have_count(0)

    page.get_by_role("button", name="As a table").click()
    twin = page.get_by_role("region", name="Usage by version")
    requests = page.get_by_role("region", name="Requests")
    version = twin.get_by_role("columnheader").nth(1).inner_text()
    Keyboard(page).press(twin.get_by_role("button", name=f"by {version}").first)
    chip = page.get_by_role("button", name=f"Remove the filter {version}")
    expect(chip).to_be_visible()
    drilled = "base" if "base=" in page.url else "version"
    assert f"{drilled}=" in page.url
    expect(requests.get_by_role("row").nth(1)).to_contain_text(version.partition(":")[0])
    models = requests.locator("tbody tr td:nth-child(2)")
    assert len(set(models.all_inner_texts())) == 1
    chip.click()
    base = twin.get_by_role("button", name="by tenantry-demo").first
    base.click()
    expect(page.get_by_role("button", name="Remove the filter tenantry-demo alone")).to_be_visible()
    assert "base=tenantry-demo" in page.url
    expect(models.first).to_have_text("tenantry-demo")
    assert set(models.all_inner_texts()) == {"tenantry-demo"}
