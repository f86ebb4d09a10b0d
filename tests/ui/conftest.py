"""One live gateway per module for the console's routes, and a browser's client of it: cookies, and the CSRF token.

And for those who need a real browser, the whole server on its stage, one for all of them, and Chromium's pages of it.
"""

import gzip
import tempfile
from pathlib import Path

import httpx
import pytest

from tenantry.platform.testing import GatewayThread, cloned_database
from tests.ui.stage import chromium, served


@pytest.fixture(scope="module")
def console_dir(tmp_path_factory):
    """A built console in small: what the gateway serves does not depend on what is in it."""
    folder = tmp_path_factory.mktemp("dist")
    (folder / "assets").mkdir()
    (folder / "index.html").write_text('<meta property="csp-nonce" nonce="__CSP_NONCE__"><div id="root"></div>')
    (folder / "assets" / "index-1a2b3c.js").write_text("export {}")
    (folder / "assets" / "index-1a2b3c.js.gz").write_bytes(gzip.compress(b"export {}"))
    (folder / "assets" / "index-1a2b3c.js.br").write_bytes(b"stands for what the build makes")
    (folder / "assets" / "plain-1a2b3c.css").write_text("a{}")
    (folder / "secret.txt").write_text("not an asset")
    return folder


@pytest.fixture(scope="module")
def live(postgres, tmp_path_factory, console_dir):
    with (
        cloned_database(postgres, "tenantry_template") as dsn,
        GatewayThread(dsn, tmp_path_factory.mktemp("data"), console_dir=console_dir) as gateway,
    ):
        yield gateway


class Browser(httpx.Client):
    """Keeps cookies like a browser, and sends the CSRF token once it has one."""

    def __init__(self, url):
        super().__init__(base_url=url, timeout=30)

    def sign_in(self, **how):
        reply = self.post("/api/v1/browser-sessions", json=how)
        if reply.is_success:
            self.headers["x-csrf-token"] = reply.json()["csrf_token"]
        return reply


@pytest.fixture
def browser(live):
    with Browser(live.url) as client:
        yield client


@pytest.fixture(scope="session")
def stage():
    """Not under pytest's own folder: PostgreSQL's user must reach the data, and pytest closes that folder."""
    with (
        tempfile.TemporaryDirectory(prefix="tenantry-", ignore_cleanup_errors=True) as folder,
        served(Path(folder) / "data", "--threads", "1") as stage,
    ):
        stage.traffic(rounds=1)
        yield stage


@pytest.fixture(scope="session")
def chrome():
    from playwright import sync_api

    with sync_api.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(stage, chrome):
    from tests.ui.visitor import PATIENCE_MS

    context = chrome.new_context(base_url=stage.url, viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    broken: list[str] = []
    page.on("pageerror", lambda error: broken.append(str(error)))
    page.on("console", lambda m: broken.append(m.text) if "Content Security Policy" in m.text else None)
    yield page
    context.close()
    assert not broken, broken
