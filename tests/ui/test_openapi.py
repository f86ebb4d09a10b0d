"""The document that the console's client is generated from is this version's, to the letter."""

from pathlib import Path

from tenantry.platform.cli.console import document

COMMITTED = Path(__file__).resolve().parents[2] / "admin-ui" / "openapi.json"


def test_the_committed_document_is_the_apps_own():
    assert document() == COMMITTED.read_text(), (
        "routes changed: `tenantry openapi > admin-ui/openapi.json`, then `npm run api` in admin-ui"
    )
