"""Sessions of people at the console, and the links that open them."""

from tenantry.migrations.scripts import run_script

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    run_script("0004_browser_sessions.sql")
