"""One live gateway per test module: real HTTP and PostgreSQL, a scripted engine."""

import httpx
import pytest

from tenantry.platform.testing import CONTEXT, GatewayThread, cloned_database


@pytest.fixture(scope="module")
def live(postgres, tmp_path_factory):
    with (
        cloned_database(postgres, "tenantry_template") as dsn,
        GatewayThread(dsn, tmp_path_factory.mktemp("data")) as gateway,
    ):
        yield gateway


@pytest.fixture(scope="module")
def tenant(live):
    """(tenant's id, API key)."""
    return live.make_tenant("acme")


class Api(httpx.Client):
    """A tenant's client, which also knows the served model's numbers."""

    def __init__(self, live, key):
        super().__init__(base_url=live.url, headers={"authorization": f"Bearer {key}"}, timeout=30)
        self.engine = live.engine
        self.vocab = live.engine.text.vocab_size
        self.context = CONTEXT
        self.control_id = max(live.engine.text.control)
        self.control_text = "<|im_end|>"


@pytest.fixture(scope="module")
def api(live, tenant):
    with Api(live, tenant[1]) as client:
        yield client


@pytest.fixture(autouse=True)
def _reset(request):
    yield
    if "live" in request.fixturenames:
        engine = request.getfixturevalue("live").engine
        engine.pace, engine.ready, engine.refuse = 0.0, True, None
