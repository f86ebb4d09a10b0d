"""Tenants that were deleted for good: nothing of them answers, and their usage stays."""

from tenantry.migrations.scripts import run_script

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    run_script("0009_deleted_tenants.sql")
