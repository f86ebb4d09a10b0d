"""What closed days came to, their dearest groups by name: charts of months read these, not a month's hours."""

from tenantry.migrations.scripts import run_script

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    run_script("0010_usage_days.sql")
