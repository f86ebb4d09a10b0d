"""Keys that stand for people of a tenant's team, and what lists of a grown tenant look up by."""

from tenantry.migrations.scripts import run_script

revision = "0008"
down_revision = "0006"


def upgrade() -> None:
    run_script("0008_team.sql")
