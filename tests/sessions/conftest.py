"""One live gateway per test module: real HTTP and PostgreSQL, a scripted engine, the official client."""

import httpx
import openai
import pytest

from tenantry.platform.testing import GatewayThread, cloned_database


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


@pytest.fixture(scope="module")
def client(live, tenant):
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key=tenant[1], max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def stranger(live):
    """Another tenant's client."""
    key = live.make_tenant("globex")[1]
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key=key, max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def http(live, tenant):
    """The same tenant without a client library."""
    with httpx.Client(base_url=live.url, headers={"authorization": f"Bearer {tenant[1]}"}, timeout=30) as http:
        yield http


@pytest.fixture
def said(live):
    """What the engine was given last, as text."""

    def last() -> str:
        text = live.engine.text
        return b"".join(text.token_bytes(t) for t in live.engine.submitted[-1].prompt).decode()

    return last


@pytest.fixture(autouse=True)
def _reset(request):
    yield
    if "live" in request.fixturenames:
        engine = request.getfixturevalue("live").engine
        engine.pace, engine.ready, engine.refuse, engine.found = 0.0, True, None, (0, 0, 0)
