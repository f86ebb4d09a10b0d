"""The three database roles, made by a superuser once per server.

tenantry_owner owns the schema (DDL). tenantry_app is what processes connect as: no superuser, no BYPASSRLS, sees
one tenant at a time. tenantry_operator sees all tenants; the app enters it for one transaction by SET LOCAL ROLE.
"""

from typing import Final

import asyncpg

SUPERUSER: Final = "postgres"
OWNER: Final = "tenantry_owner"
APP: Final = "tenantry_app"
OPERATOR: Final = "tenantry_operator"
DATABASE: Final = "tenantry"
_LOCK: Final = 0x7E_4A_17_01

ROLE_SQL: Final = f"""
DO $$ BEGIN
  IF to_regrole('{OWNER}') IS NULL THEN
    CREATE ROLE {OWNER} LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE;
  END IF;
  IF to_regrole('{APP}') IS NULL THEN
    CREATE ROLE {APP} LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE;
  END IF;
  IF to_regrole('{OPERATOR}') IS NULL THEN
    CREATE ROLE {OPERATOR} NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE;
  END IF;
END $$;
GRANT {OPERATOR} TO {APP} WITH INHERIT FALSE, SET TRUE;
"""


async def ensure_roles(admin_dsn: str, database: str = DATABASE) -> None:
    """Makes what is missing of the roles and the database; safe to run twice, and at once."""
    connection = await asyncpg.connect(admin_dsn)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        await connection.execute(ROLE_SQL)
        if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", database):
            name = await connection.fetchval("SELECT quote_ident($1)", database)
            await connection.execute(f"CREATE DATABASE {name} OWNER {OWNER} TEMPLATE template0 ENCODING 'UTF8'")
            await connection.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
            await connection.execute(f"GRANT CONNECT ON DATABASE {name} TO {APP}")
    finally:
        await connection.close()
