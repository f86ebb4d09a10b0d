"""Who did what, one row an act, told from then on by those rows alone; and events found by version and base model."""

from tenantry.migrations.scripts import run_script

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    run_script("0011_acts.sql")
    run_script("0011_events.sql")
