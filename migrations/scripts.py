"""Runs a .sql file inside the migration's own transaction. Owns nothing but that bridge."""

from pathlib import Path

from alembic import op
from sqlalchemy.util import await_only

SQL = Path(__file__).parent / "sql"


def run_script(name: str) -> None:
    """Sends sql/`name` whole, many statements at once, which SQLAlchemy's own execute cannot do over asyncpg."""
    connection = op.get_bind()
    driver = connection.connection.driver_connection
    assert driver is not None
    assert driver.is_in_transaction()
    await_only(driver.execute((SQL / name).read_text()))
