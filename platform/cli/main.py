"""The `tenantry` command: its tree, and nothing else. Each command lives in the file that its subject names."""

from cyclopts import App

from tenantry.platform.cli import (
    adapters,
    console,
    demo,
    doctor,
    engines,
    serve,
    sessions,
    speculation,
    tenants,
    training,
)

app = App(
    name="tenantry",
    help="Serve many tenants' LoRA adapters from one base model, and charge each for exactly what it used.",
)
app.command(serve.serve)
app.command(demo.demo)
app.command(console.login)
app.command(console.openapi)
app.command(tenants.tenant)
app.command(tenants.key)
app.command(adapters.adapter)
app.command(adapters.usage)
app.command(sessions.sessions)
app.command(speculation.speculation)
app.command(engines.engines)
app.command(training.train_drafter)
app.command(doctor.migrate_command, name="migrate")
app.command(doctor.doctor)


def main() -> None:
    app()
