"""The console over two engines whose queue is full: whose work waits, where adapters are, and tiles that lead on."""

import re
import tempfile
import threading
import time
from pathlib import Path

import pytest

from tests.ui.stage import ROOT, chromium, served
from tests.ui.visitor import LANDED

playwright = pytest.importorskip("playwright.sync_api", reason="the extra `ui` is not installed")
expect = playwright.expect
pytestmark = [
    pytest.mark.ui,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(chromium() is None, reason="there is no chromium"),
    pytest.mark.skipif(not (ROOT / "admin-ui" / "dist" / "index.html").exists(), reason="the console is not built"),
]
PATIENCE_MS = 60_000
ASKED = {"acme": 14, "globex": 9}  # requests at once, of which the two engines run two


@pytest.fixture(scope="module")
def stage():
    """Not under pytest's own folder: PostgreSQL's user must reach the data."""
    with (
        tempfile.TemporaryDirectory(prefix="tenantry-", ignore_cleanup_errors=True) as folder,
        served(Path(folder) / "data", "--threads", "1", "--engines", "2", "--max-running", "1") as stage,
    ):
        stage.traffic(rounds=1)
        yield stage


@pytest.fixture
def visit(stage, chrome):
    """Signs someone in, at a width; every page is closed afterwards."""
    contexts = []

    def signed_in(who, width=1440):
        context = chrome.new_context(base_url=stage.url, viewport={"width": width, "height": 900})
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.goto("/admin/sign-in")
        page.get_by_label("API key").fill(stage.keys[who])
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(LANDED)
        return page

    yield signed_in
    for context in contexts:
        context.close()


@pytest.fixture
def flood(stage):
    """Long requests of both tenants, as many as ASKED; they are given up at the end."""
    over = threading.Event()

    def ask(tenant, n):
        body = {"model": "support", "messages": [{"role": "user", "content": f"Hello {n}."}], "max_tokens": 1500}
        more = {"stream": True, "ignore_eos": True, "prompt_cache_key": f"{tenant}-{n}"}
        with stage.api(tenant) as api, api.stream("POST", "/v1/chat/completions", json={**body, **more}) as reply:
            for _ in reply.iter_lines():
                if over.is_set():
                    return

    threads = [threading.Thread(target=ask, args=(who, n)) for who, times in ASKED.items() for n in range(times)]
    for thread in threads:
        thread.start()
    yield
    over.set()
    for thread in threads:
        thread.join(120)


def engines(stage):
    with stage.api("operator") as api:
        return api.get("/api/v1/engines").json()["data"]


def lined_up(told):
    """By tenant: what waits and runs, over all engines."""
    found = dict.fromkeys(ASKED, 0)
    for share in (share for engine in told for share in engine["tenants"]):
        if share["tenant"] in found:
            found[share["tenant"]] += share["waiting"] + share["running"]
    return found


def test_the_queue_that_an_engine_has_is_the_queue_that_the_page_shows(stage, visit, flood):
    page = visit("operator")
    page.goto("/admin/operator/engines")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    deadline = time.monotonic() + 120
    while any(lined_up(before := engines(stage))[who] < times - 2 for who, times in ASKED.items()):
        assert time.monotonic() < deadline, lined_up(before)
        time.sleep(0.5)
    for engine in before:
        assert engine["running"] == 1
        assert engine["waiting"] == sum(share["waiting"] for share in engine["tenants"])
        assert sum(share["running"] for share in engine["tenants"]) == 1
    assert sum(engine["waiting"] for engine in before) >= sum(ASKED.values()) - 6
    page.reload()
    tables = page.get_by_role("table", name=re.compile("^Queue and fairness on"))
    expect(tables).to_have_count(2)
    shown = {
        name: [
            [int(tables.nth(i).get_by_role("row", name=name).get_by_role("cell").nth(k).inner_text()) for k in (1, 2)]
            for i in range(2)
        ]
        for name in ASKED
    }
    after = engines(stage)
    for name in ASKED:  # nobody asks any more: what is shown is no more than before, and no less than afterwards
        in_all = sum(map(sum, shown[name]))
        assert lined_up(after)[name] <= in_all <= lined_up(before)[name]
        assert sum(waiting for waiting, _ in shown[name]) > 0
    assert sum(running for rows in shown.values() for _, running in rows) == 2
    for name in ASKED:
        for i in range(2):
            expect(tables.nth(i).get_by_role("row", name=name)).to_contain_text("%")


def test_the_operator_reads_the_names_of_what_engines_hold(stage, visit):
    page = visit("operator")
    page.goto("/admin/operator/engines")
    held = page.get_by_role("table", name=re.compile("^Adapters that engine-"))
    expect(held.get_by_text("acme / support:1").first).to_be_visible()
    expect(page.get_by_role("table", name=re.compile("^KV tiers of")).first).to_contain_text("Host memory")
    page.get_by_text("What a step is expected to cost").first.click()
    expect(page.get_by_role("row", name="Each prompt token").first).to_contain_text("s")
    expect(page.get_by_text("steps back from 95%").first).to_be_visible()


@pytest.mark.parametrize("width", [1440, 390])
def test_a_tenant_sees_on_which_engines_a_version_is_and_it_stays_open_while_numbers_move(stage, visit, width):
    page = visit("acme", width)
    page.goto("/admin/adapters/support")
    chip = page.get_by_role("button", name=re.compile("^support:1: on [12] of 2 engines, by engine"))
    chip.click()
    places = page.get_by_role("dialog", name="support:1 by engine")
    expect(places.get_by_role("listitem")).to_have_count(2)
    with stage.api("acme") as api:  # a request that settles makes the page read its numbers again
        body = {"model": "support", "messages": [{"role": "user", "content": "Hi."}], "max_tokens": 4}
        api.post("/v1/chat/completions", json=body).raise_for_status()
    page.wait_for_timeout(7000)
    expect(places).to_contain_text("engine-0")
    expect(places).to_contain_text("on device")
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0


def test_every_tile_leads_to_a_page_that_is_filtered_on_what_it_told(stage, visit):
    page = visit("acme")
    leads = {
        "Requests now": "/admin/limits",
        "Tokens a second": r"/admin/usage\?.*measure=tokens.*at=\d+",
        "First token, p50": "/admin/adapters",
        "First token, p95": "/admin/adapters",
        "Spent in 24 hours": r"/admin/usage\?.*range=24h",
        "Prompt tokens from the cache": r"/admin/usage\?.*range=24h.*measure=tokens",
        "Guesses that stood": r"/admin/usage\?.*range=24h.*measure=tokens",
        "Unreconciled tokens": r"/admin/usage\?.*range=90d.*by=total",
    }
    for label, path in leads.items():
        page.goto("/admin/overview")
        page.get_by_role("main").get_by_role("link", name=re.compile(f"^{label}")).click()
        page.wait_for_url(re.compile(path))
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        if "at=" in path:
            expect(page.get_by_role("button", name=re.compile("^Remove the filter"))).to_be_visible()
    page.goto("/admin/overview")
    page.get_by_role("main").get_by_role("link", name="ready", exact=True).click()
    page.wait_for_url("**/admin/adapters?state=ready")
    expect(page.get_by_role("combobox", name="State")).to_contain_text("With a ready version")
    page.goto("/admin/overview")
    told = page.get_by_role("main").get_by_role("link", name=re.compile(r"^\d+ versions?$"))
    expect(told).to_contain_text(re.compile("[1-9]"))
    count = int(told.inner_text().split()[0])
    told.click()
    page.wait_for_url("**/admin/adapters?on_device=true")
    expect(page.get_by_role("table").get_by_role("row")).to_have_count(1 + count)
