"""/admin: the built console, served as files. It is an ordinary client of /api/v1 and gets nothing else from here.

Owns its headers: a strict content security policy, and caching (names with a hash for ever, the page never).
"""

import re
import secrets
from pathlib import Path
from typing import Final

from litestar import Response, Router, get

from tenantry.platform.core.errors import NotFound
from tenantry.platform.core.policy import PUBLIC, under
from tenantry.platform.core.settings import Settings

NONCE: Final = "__CSP_NONCE__"  # vite puts it where the page needs one
BUILT: Final = Path(__file__).resolve().parents[2] / "admin-ui" / "dist"
_ASSET: Final = re.compile(r"/assets/([A-Za-z0-9_-][A-Za-z0-9._-]{0,199})", re.ASCII)
_TYPES: Final = {
    ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml",
    ".woff2": "font/woff2", ".png": "image/png", ".ico": "image/x-icon",
}  # fmt: skip
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


@get("/{path:path}", opt=under(PUBLIC), sync_to_thread=True)
def file(path: str, settings: Settings) -> Response[bytes]:
    """An asset by its exact name; any other path is a view of the one page, which routes by itself."""
    if not path.startswith("/assets/"):
        return _page(settings)
    match = _ASSET.fullmatch(path)
    found = folder(settings) / "assets" / match[1] if match else None
    kind = _TYPES.get(found.suffix) if found else None
    if found is None or kind is None or not found.is_file():
        raise NotFound("There is nothing here.")
    headers = {**_HEADERS, "cache-control": "public, max-age=31536000, immutable"}
    return Response(found.read_bytes(), media_type=kind, headers=headers)


def folder(settings: Settings) -> Path:
    return settings.console_dir or BUILT


def _page(settings: Settings) -> Response[bytes]:
    index = folder(settings) / "index.html"
    if not index.is_file():
        raise NotFound("The console has not been built: run `make ui`.", code="console_not_built")
    nonce = secrets.token_urlsafe(16)
    headers = {**_HEADERS, "content-security-policy": policy(nonce), "cache-control": "no-store"}
    body = index.read_text().replace(NONCE, nonce).encode()
    return Response(body, media_type="text/html; charset=utf-8", headers=headers)


router = Router("/admin", route_handlers=[front, file], include_in_schema=False)
