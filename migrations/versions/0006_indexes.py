"""Two questions that read whole tables: answers whose time is up, and the last requests of one adapter."""

from tenantry.migrations.scripts import run_script

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    run_script("0006_indexes.sql")
