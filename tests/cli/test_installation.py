"""What holds for a whole installation: the currency that all money is in, and whom its tenants ask for more."""

import time

import httpx
import pytest

from tenantry.platform.cli import serve
from tenantry.platform.cli.adapters import usage
from tenantry.platform.cli.connection import Connection
from tenantry.platform.cli.output import in_currency
from tenantry.platform.core import settings
from tenantry.platform.core.errors import ConfigurationError
from tenantry.platform.testing import GatewayThread, cloned_database
from tests.ui.conftest import Browser


@pytest.mark.parametrize("code", ["usd", "EURO", "XAU", "", "US", "$"])
def test_a_currency_is_one_of_a_country(code):
    with pytest.raises(ConfigurationError, match="TENANTRY_CURRENCY must be a currency's code by ISO 4217"):
        settings.load({"TENANTRY_CURRENCY": code})


@pytest.mark.parametrize("support", ["ops@example.org", "https://example.org/help?a=b"])
def test_support_is_an_address_or_a_link(support):
    assert settings.load({"TENANTRY_SUPPORT": support}).support == support


@pytest.mark.parametrize("support", ["Anna", "javascript:alert(1)", "https://a b", 'x@y" onclick="', "ftp://x", ""])
def test_support_that_cannot_be_asked_is_refused(support):
    with pytest.raises(ConfigurationError, match="TENANTRY_SUPPORT must be a mail address"):
        settings.load({"TENANTRY_SUPPORT": support})


def test_the_options_come_before_the_environment(monkeypatch, tmp_path):
    chosen = []

    async def run(given, engine, demo):
        chosen.append(given)

    monkeypatch.setattr(serve, "run", run)
    monkeypatch.setenv("TENANTRY_CURRENCY", "EUR")
    serve.serve(demo=True, data_dir=tmp_path, port=0)
    serve.serve(demo=True, data_dir=tmp_path, port=0, currency="JPY", support="ops@example.org")
    assert [(one.currency, one.support) for one in chosen] == [("EUR", None), ("JPY", "ops@example.org")]


def test_money_is_named_in_headings_alone():
    columns = (("model", "model"), ("cost", "cost"))
    assert in_currency(columns, "EUR") == (("model", "model"), ("cost", "cost (EUR)"))


def test_the_api_the_session_and_the_command_tell_it(postgres, tmp_path, capsys):
    with (
        cloned_database(postgres, "tenantry_template") as dsn,
        GatewayThread(dsn, tmp_path / "data", currency="CHF", support="https://example.org/help") as live,
    ):
        key = live.make_tenant("acme")[1]
        told = {"currency": "CHF", "support": "https://example.org/help", "object": "installation"}
        headers = {"authorization": f"Bearer {key}"}
        assert httpx.get(f"{live.url}/api/v1/installation", headers=headers).json() == told
        assert httpx.get(f"{live.url}/api/v1/installation").status_code == 401
        with Browser(live.url) as browser:
            assert browser.sign_in(key=key).json()["installation"] == told
            assert browser.get("/api/v1/browser-sessions/current").json()["installation"] == told
        ask = {"model": "base", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
        assert httpx.post(f"{live.url}/v1/chat/completions", headers=headers, json=ask).is_success
        while not httpx.get(f"{live.url}/api/v1/usage", headers=headers).json()["data"]:
            time.sleep(0.02)  # the answer is out before it is in the books
        usage(by="total", connection=Connection(url=live.url, api_key=key))
    assert "cost (CHF)" in capsys.readouterr().out
