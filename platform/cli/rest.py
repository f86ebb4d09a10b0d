"""A small client of the public REST API, for the command line.

Owns the address, the key and the wording of failures. It sees nothing a tenant's own client could not see.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from tenantry.platform.cli.output import fail


class Rest:
    """url: the gateway's address without a path. key: an API key; its scope decides what is allowed."""

    def __init__(self, url: str, key: str) -> None:
        self._http = httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=600)
        self._url = url

    def call(self, method: str, path: str, **options: Any) -> Any:
        """The decoded answer, or None for an empty one; an error answer ends the command with its message."""
        answer = self.try_call(method, path, **options)
        if answer.is_success:
            return answer.json() if answer.content else None
        fail(explain(answer))

    def currency(self) -> str:
        """What all money of this installation is in."""
        return str(self.call("GET", "/api/v1/installation")["currency"])

    def try_call(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **options)
        except httpx.TransportError as error:
            fail(f"no answer from {self._url} ({error}); is `tenantry serve` running?", status=69)

    def list(self, path: str, limit: int, query: Mapping[str, Any] | None = None) -> Iterator[Any]:
        """Items of a keyset-paged list, page after page, `limit` at most."""
        after: str | None = None
        while limit > 0:
            page = {k: v for k, v in (query or {}).items() if v is not None}
            page["limit"] = min(limit, 100)
            if after is not None:
                page["after"] = after
            answer = self.call("GET", path, params=page)
            yield from answer["data"]
            limit -= len(answer["data"])
            after = answer.get("next")
            if not answer.get("has_more") or after is None:
                return


def explain(answer: httpx.Response) -> str:
    """An error answer in one line; an adapter's problems each on a line of their own."""
    try:
        error = answer.json()["error"]
    except (ValueError, KeyError, TypeError):
        return f"the server answered {answer.status_code}"
    where = f" ({error['param']})" if error.get("param") else ""
    lines = [f"{error['message']}{where} [{error['code']}]"]
    for problem in error.get("problems") or []:
        at = problem.get("subject")
        lines.append(f"  {problem['code']}: {problem['message']}" + (f" ({at})" if at else ""))
    return "\n".join(lines)


def segment(name: str) -> str:
    """One path segment, whatever the name holds."""
    return quote(name, safe="")


def read_key(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        fail(f"no operator key at {path}: give --api-key, or --data-dir of a server that has started once")
