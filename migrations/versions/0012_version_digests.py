"""Versions found by what they are, whatever tenant has them: for engines' pages, and for bytes that nobody needs."""

from tenantry.migrations.scripts import run_script

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    run_script("0012_version_digests.sql")
