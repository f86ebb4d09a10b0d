"""The gateway's process entry: `python -m tenantry.platform.cli.gateway`, started by `tenantry serve`.

Owns turning settings into the parts that create_app wires, and the watch over its parent: when the supervisor dies,
however it dies, this process drains and ends. It must not hold logic of its own.
"""

import asyncio
import sys

import structlog
import uvloop

from tenantry.adapters.manifest import BaseSpec
from tenantry.platform.app import Parts, create_app
from tenantry.platform.cli.connection import OPERATOR_KEY_FILE
from tenantry.platform.cli.model import read_config
from tenantry.platform.core import logging, settings
from tenantry.platform.core.database import Database
from tenantry.platform.core.errors import ConfigurationError
from tenantry.platform.core.migrate import require_current
from tenantry.platform.core.secrets import load_peppers
from tenantry.platform.core.settings import Settings
from tenantry.platform.fleet.router import Engine, Router
from tenantry.platform.gateway.bounds import ModelLimits
from tenantry.platform.gateway.chat import Serving
from tenantry.platform.gateway.server import DrainingServer, config
from tenantry.platform.registry.bases import ensure_base
from tenantry.platform.tenants.bootstrap import ensure_operator
from tenantry.runtime.client import EngineClient
from tenantry.runtime.text import TextModel

log = structlog.get_logger("gateway")


async def serve(chosen: Settings) -> None:
    """Runs until SIGTERM, or until the supervisor is gone."""
    if not (chosen.database_url and chosen.model_dir and chosen.model_digest and chosen.engine_socket) or (
        chosen.max_context is None
    ):
        raise ConfigurationError("the gateway is started by `tenantry serve`, which tells it where everything is")
    database = await Database.connect(chosen.database_url, chosen)
    try:
        async with database.autocommit() as connection:
            await require_current(connection)
        peppers = load_peppers(chosen)
        await ensure_operator(database, peppers, chosen.environment, chosen.secrets_dir / OPERATOR_KEY_FILE)
        spec = BaseSpec.from_config(read_config(chosen.model_dir), bytes.fromhex(chosen.model_digest))
        base = await ensure_base(database, chosen.model_name or chosen.model_dir.name, spec)
        text = TextModel.load(chosen.model_dir)
        engine = Router([Engine(place.name, place.role, EngineClient(place.socket)) for place in chosen.fleet])
        await engine.connect()

        async def drop(digest: bytes) -> None:
            engine.drop(digest)

        limits = ModelLimits(text.vocab_size, chosen.max_context, chosen.default_max_tokens, text.control)
        serving = Serving(
            engine, text, limits, chosen.control_tokens == "allow", chosen.start_deadline, chosen.weights_by_tenant
        )
        app, gateway = create_app(Parts(chosen, database, peppers, base, spec, serving, drop))
        server = DrainingServer(config(app, chosen.host, chosen.port), gateway.drain)
        orphaned = asyncio.create_task(_drain_without_parent(server))
        try:
            await server.serve()
        finally:
            orphaned.cancel()
            await engine.close()
    finally:
        await database.close()


async def _drain_without_parent(server: DrainingServer) -> None:
    """Our standard input is a pipe from the supervisor: its end means that nobody will ever stop us."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.read(4096):
        pass
    log.warning("supervisor_gone")
    server.drain_and_exit()


def main() -> None:
    chosen = settings.load()
    logging.configure(chosen.log_level, chosen.log_format)
    try:
        uvloop.run(serve(chosen))
    except ConfigurationError as error:
        log.error("cannot_start", reason=str(error))
        sys.exit(78)


if __name__ == "__main__":
    main()
