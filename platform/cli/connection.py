"""Where a client command sends its requests, and as whom: flags first, then the environment, then what the local
server left in its data directory. Owns that order and nothing else.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from tenantry.platform.cli.output import fail
from tenantry.platform.cli.rest import Rest, read_key
from tenantry.platform.core import settings

CONNECTION = Group("Connection", sort_key=90)
OPERATOR_KEY_FILE = "operator.key"
ADDRESS_FILE = "address.json"


@Parameter(name="*", group=CONNECTION)
@dataclass(frozen=True, kw_only=True)
class Connection:
    """How to reach a running server."""

    url: Annotated[
        str | None, Parameter(help="Address of the gateway; else TENANTRY_URL, else the local server's.")
    ] = None
    api_key: Annotated[str | None, Parameter(help="API key; else TENANTRY_API_KEY, else the local operator's.")] = (
        None
    )
    data_dir: Annotated[
        Path | None, Parameter(help="Data directory of the local server; else TENANTRY_DATA_DIR.")
    ] = None
    json: Annotated[bool, Parameter(negative="", help="Print JSON instead of a table.")] = False

    @property
    def directory(self) -> Path:
        return self.data_dir or settings.load().data_dir

    def address(self) -> str:
        if given := self.url or settings.client_value("url"):
            return given
        try:
            return str(json.loads((self.directory / ADDRESS_FILE).read_text())["base_url"])
        except (OSError, ValueError, KeyError):
            fail(f"no server has been started in {self.directory}: give --url, or run `tenantry serve`", status=69)

    def rest(self) -> Rest:
        """As the key's tenant; without a key, as the operator of the local server."""
        key = self.api_key or settings.client_value("api_key")
        return Rest(self.address(), key or read_key(self.directory / "secrets" / OPERATOR_KEY_FILE))

    def operator(self) -> Rest:
        """As the operator, even where TENANTRY_API_KEY names a tenant's key."""
        return Rest(self.address(), self.api_key or read_key(self.directory / "secrets" / OPERATOR_KEY_FILE))


LOCAL = Connection()
