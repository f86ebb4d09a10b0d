"""Sessions: conversations and threads of responses, their items, and who may touch them."""

from tenantry.migrations.scripts import run_script

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    run_script("0003_sessions.sql")
