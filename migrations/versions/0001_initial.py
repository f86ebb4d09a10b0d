"""The first schema: tenancy, registry, metering, their functions, and who may touch what."""

from tenantry.migrations.scripts import run_script

revision = "0001"
down_revision = None


def upgrade() -> None:
    for part in ("tenancy", "registry", "metering", "admission", "settlement", "access"):
        run_script(f"0001_{part}.sql")
