"""A person at the console, with a mouse or with a keyboard alone, in a real Chromium.

Shared by the files that need a real browser; a file that imports it is skipped where there is none.
"""

import re

import pytest

from tests.ui.stage import ROOT, chromium

playwright = pytest.importorskip("playwright.sync_api", reason="the extra `ui` is not installed")
expect = playwright.expect
DIST = ROOT / "admin-ui" / "dist"
PATIENCE_MS = 30_000
# Tenants begin with their overview, the operator with the engines, and who may only run inference in the playground.
LANDED = re.compile("/admin/(overview|operator/engines|playground)$")
ON_A_STAGE = [
    pytest.mark.ui,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(chromium() is None, reason="there is no chromium"),
    pytest.mark.skipif(not (DIST / "index.html").exists(), reason="the console is not built"),
]


class Mouse:
    def __init__(self, page):
        self.page = page

    def press(self, locator):
        locator.click()

    def write(self, locator, text):
        locator.fill(text)

    def go(self, name):
        self.page.get_by_role("navigation", name="Console").get_by_role("link", name=name, exact=True).click()


class Keyboard(Mouse):
    """Never touches anything that Tab does not reach."""

    def reach(self, locator):
        expect(locator).to_be_visible(timeout=PATIENCE_MS)
        for _ in range(120):
            if locator.evaluate("e => e === document.activeElement"):
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"the keyboard does not reach {locator}")

    def press(self, locator):
        self.reach(locator)
        self.page.keyboard.press("Enter")

    def write(self, locator, text):
        self.reach(locator)
        self.page.keyboard.press("Control+a")
        self.page.keyboard.type(text)

    def go(self, name):
        in_shell(self.page)
        self.page.keyboard.press("Control+k")
        box = self.page.get_by_role("dialog").get_by_placeholder(re.compile("^A page"))
        expect(box).to_be_focused()
        self.page.keyboard.type(name)
        expect(self.page.get_by_role("option", name=name, exact=True)).to_be_visible()
        self.page.keyboard.press("Enter")


def sign_in(page, key):
    page.goto("/admin/sign-in")
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(LANDED)
    in_shell(page)


def in_shell(page):
    """The address changes before the page does: until then the sign-in page is there, and hears no shortcuts."""
    expect(page.get_by_role("button", name=re.compile("^Account of"))).to_be_visible(timeout=PATIENCE_MS)
