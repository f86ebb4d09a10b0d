"""/admin: the built console, served as files. It is an ordinary client of /api/v1 and gets nothing else from here.

Owns its headers: a strict content security policy, caching (names with a hash for ever, the page never), and which of
the copies that the build compressed goes to whom.
"""

import hashlib
import re
import secrets
from pathlib import Path
from typing import Annotated, Final

from litestar import Response, Router, get
from litestar.params import Parameter

from tenantry.platform.core.errors import NotFound
from tenantry.platform.core.policy import PUBLIC, under
from tenantry.platform.core.settings import Settings

NONCE: Final = "__CSP_NONCE__"  # vite puts it where the page needs one
BUILT: Final = Path(__file__).resolve().parents[2] / "admin-ui" / "dist"
_ASSET: Final = re.compile(r"/assets/([A-Za-z0-9_-][A-Za-z0-9._-]{0,199})", re.ASCII)
_TYPES: Final = {  # the framework says the charset of those that are text
    ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".woff2": "font/woff2",
    ".png": "image/png", ".ico": "image/x-icon",
}  # fmt: skip
_COPIES: Final = (("br", ".br"), ("gzip", ".gz"))  # the smallest first; admin-ui/vite.config.ts writes them
_REFUSED: Final = re.compile(r"q\s*=\s*0(?:\.0{0,3})?\s*", re.ASCII)
Accepts = Annotated[str | None, Parameter(header="accept-encoding")]
Known = Annotated[str | None, Parameter(header="if-none-match")]
_HEADERS: Final = {
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


def policy(nonce: str) -> str:
    """No script but ours, nothing from elsewhere; styles that a library adds at run time must carry the nonce."""
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{nonce}'; img-src 'self' data:; "
        "font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


@get("/", opt=under(PUBLIC))
async def front(settings: Settings) -> Response[bytes]:
    return _page(settings)


@get("/", opt=under(PUBLIC), include_in_schema=False)
async def lead() -> Response[None]:
    """Who comes to the gateway without a path is a person with a browser."""
    return Response(None, status_code=307, headers={"location": "/admin", "cache-control": "no-store"})


@get("/{path:path}", opt=under(PUBLIC), sync_to_thread=True)
def file(path: str, settings: Settings, accepts: Accepts = None, known: Known = None) -> Response[bytes]:
    """An asset by its exact name; any other path is a view of the one page, which routes by itself."""
    if not path.startswith("/assets/"):
        return _page(settings)
    match = _ASSET.fullmatch(path)
    found = folder(settings) / "assets" / match[1] if match else None
    kind = _TYPES.get(found.suffix) if found else None
    if found is None or kind is None or not found.is_file():
        raise NotFound("There is nothing here.")
    copy, encoding = _copy(found, accepts or "")
    body = copy.read_bytes()
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'  # of these bytes: another encoding is another one
    headers = {
        **_HEADERS, "cache-control": "public, max-age=31536000, immutable", "vary": "accept-encoding", "etag": etag,
    }  # fmt: skip
    if encoding:
        headers["content-encoding"] = encoding
    if known is not None and etag in re.findall(r'"[^"]*"', known):
        return Response(b"", status_code=304, media_type=kind, headers=headers)
    return Response(body, media_type=kind, headers=headers)


def _copy(file: Path, accepts: str) -> tuple[Path, str | None]:
    """The smallest one that is there and that the client takes, and how it is encoded."""
    taken = {
        name.strip().lower()
        for name, _, weight in (one.partition(";") for one in accepts.split(","))
        if not _REFUSED.fullmatch(weight.strip())
    }
    for encoding, suffix in _COPIES:
        copy = file.with_name(file.name + suffix)
        if encoding in taken and copy.is_file():
            return copy, encoding
    return file, None


def folder(settings: Settings) -> Path:
    return settings.console_dir or BUILT


def _page(settings: Settings) -> Response[bytes]:
    index = folder(settings) / "index.html"
    if not index.is_file():
        raise NotFound("The console has not been built: run `make ui`.", code="console_not_built")
    nonce = secrets.token_urlsafe(16)
    headers = {**_HEADERS, "content-security-policy": policy(nonce), "cache-control": "no-store"}
    body = index.read_text().replace(NONCE, nonce).encode()
    return Response(body, media_type="text/html", headers=headers)


router = Router("/admin", route_handlers=[front, file], include_in_schema=False)
