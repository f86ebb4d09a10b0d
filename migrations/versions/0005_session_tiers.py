"""Where a turn's cached tokens came from: how many of them from host memory, and how many from disk."""

from tenantry.migrations.scripts import run_script

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    run_script("0005_session_tiers.sql")
