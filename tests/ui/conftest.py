"""One live gateway per module for the console's routes, and a browser's client of it: cookies, and the CSRF token."""

import httpx
import pytest

from tenantry.platform.testing import GatewayThread, cloned_database


@pytest.fixture(scope="module")
def console_dir(tmp_path_factory):
    """A built console in small: what the gateway serves does not depend on what is in it."""
    folder = tmp_path_factory.mktemp("dist")
    (folder / "assets").mkdir()
    (folder / "index.html").write_text('<meta property="csp-nonce" nonce="__CSP_NONCE__"><div id="root"></div>')
    (folder / "assets" / "index-1a2b3c.js").write_text("export {}")
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
