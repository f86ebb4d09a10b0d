"""`make screenshots`: every page in both themes into docs/screenshots, from the demo after real traffic."""

import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from tests.ui.stage import ROOT, Stage, chromium, served
from tests.ui.visitor import LANDED

OUT = ROOT / "docs" / "screenshots"
PAGES = {
    "overview": "overview", "adapters": "adapters", "adapter": "adapters/support", "playground": "playground",
    "sessions": "sessions", "usage": "usage", "limits": "limits", "keys": "keys", "team": "team",
    "activity": "activity",
}  # fmt: skip
OPERATOR_PAGES = {"engines": "operator/engines", "tenants": "operator/tenants", "prices": "operator/prices"}
PROMPT = "Hello, my copper kettle leaks. The order is 4821. I am Clara Costa from Norvik."
SETTLE_MS = 2500


def prepare(stage: Stage) -> None:
    """A second version of an adapter and a budget, so that there is something to promote and to use up."""
    with stage.api("acme") as api, stage.api("operator") as operator:
        folder = ROOT / "examples" / "demo" / "adapters" / "acme-greeting"
        files = [
            ("file", (name, (folder / name).read_bytes()))
            for name in ("adapter_config.json", "adapter_model.safetensors")
        ]
        api.post("/api/v1/adapters/support/versions", files=files).raise_for_status()
        tenant = api.get("/api/v1/me").json()["tenant"]
        for name, role in (("Mira Kovac", "admin"), ("Jon Aldous", "member")):
            api.post("/api/v1/team", json={"name": name, "role": role}).raise_for_status()
        quota = {"concurrency": 16, "requests_per_minute": 600, "budget": "0.01", "budget_period": "month"}
        operator.put(f"/api/v1/tenants/{tenant}/quota", json=quota).raise_for_status()


def shoot(page: Any, stage: Stage, who: str, theme: str, pages: dict[str, str]) -> None:
    page.goto(f"{stage.url}/admin/sign-in")
    page.get_by_label("API key").fill(stage.keys[who])
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(LANDED)
    for name, path in pages.items():
        page.goto(f"{stage.url}/admin/{path}")
        page.get_by_role("heading", level=1).wait_for()
        if name == "playground":
            play(page, stage)
        page.wait_for_timeout(SETTLE_MS)
        page.screenshot(path=OUT / f"{name}-{theme}.png")
        if name == "sessions":
            page.get_by_role("table").get_by_role("link").first.click()
            page.get_by_role("heading", name="Conversation").wait_for()
            page.wait_for_timeout(SETTLE_MS)
            page.screenshot(path=OUT / f"session-{theme}.png")


def play(page: Any, stage: Stage) -> None:
    page.goto(f'{stage.url}/admin/playground?models=["support","tenantry-demo"]')
    page.get_by_label("Message").fill(PROMPT)
    page.get_by_role("button", name="Run").click()
    page.get_by_role("button", name="Run").wait_for()


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as scratch,
        served(Path(scratch) / "data", "--speculate", f"draft:{ROOT / 'examples' / 'demo' / 'draft'}") as stage,
        sync_playwright() as p,
    ):
        stage.traffic()
        prepare(stage)
        browser = p.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        for theme in ("light", "dark"):
            for who, pages in (("acme", PAGES), ("operator", OPERATOR_PAGES)):
                size = {"width": 1280, "height": 832}
                context = browser.new_context(color_scheme=theme, viewport=size)  # type: ignore[arg-type]
                shoot(context.new_page(), stage, who, theme, pages)
                context.close()
        browser.close()


if __name__ == "__main__":
    main()
