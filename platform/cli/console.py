"""`tenantry login` and `tenantry openapi`: into the console, and the document that its client is generated from.

Owns the two commands. The first talks to the REST API only; the second needs no server at all.
"""

import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import msgspec

from tenantry.adapters.manifest import BaseSpec
from tenantry.platform.app import Parts, create_app
from tenantry.platform.cli.connection import LOCAL, Connection
from tenantry.platform.cli.output import out, show_json
from tenantry.platform.cli.rest import Rest
from tenantry.platform.core.database import Database
from tenantry.platform.core.secrets import Peppers
from tenantry.platform.core.settings import Settings
from tenantry.platform.fleet.router import Router
from tenantry.platform.gateway.bounds import ModelLimits
from tenantry.platform.gateway.chat import Serving
from tenantry.platform.registry.models import BaseModel


def sign_in_url(rest: Rest, base_url: str) -> str:
    """A link that opens the console as the calling key, once."""
    return base_url + str(rest.call("POST", "/api/v1/sign-in-links")["path"])


def login(*, connection: Connection = LOCAL) -> None:
    """Print a link that signs a browser in to the console, once, within fifteen minutes.

    Example: tenantry login --api-key tny_live_...
    """
    rest, base_url = connection.rest(), connection.address()
    if connection.json:
        link = rest.call("POST", "/api/v1/sign-in-links")
        show_json({"url": base_url + link["path"], "expires_at": link["expires_at"]})
    else:
        out.print(sign_in_url(rest, base_url), soft_wrap=True, markup=False)


def openapi() -> None:
    """Print the OpenAPI document of this version, without a server.

    Example: tenantry openapi > openapi.json
    """
    sys.stdout.write(document())


def document() -> str:
    """As committed beside the console. Only routes are read from an app whose parts nobody will use."""
    base = BaseModel(UUID(int=0), "base", bytes(32))
    spec = BaseSpec("llama", 1, 1, 1, 1, 1, 1, 1, bytes(32))
    serving = Serving(
        Router([]),
        cast(Any, SimpleNamespace(token_bytes=None)),
        ModelLimits(1, 1, 1, frozenset()),
    )
    peppers = Peppers(1, {1: bytes(32)})
    with tempfile.TemporaryDirectory() as scratch:
        settings = Settings(data_dir=Path(scratch))
        gateway = create_app(Parts(settings, Database(None, 0), peppers, base, spec, serving, cast(Any, None)))[1]
    schema = gateway.app.openapi_schema.to_schema()
    schema["paths"] = {path: item for path, item in schema["paths"].items() if not path.startswith("/schema")}
    return msgspec.json.format(msgspec.json.encode(schema, order="deterministic")).decode() + "\n"
