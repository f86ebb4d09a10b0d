"""Guesses in the books: a price per rejected guess, reservations that cover them, and hours that count them."""

from tenantry.migrations.scripts import run_script

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    for part in ("tables", "admission", "settlement"):
        run_script(f"0002_speculation_{part}.sql")
