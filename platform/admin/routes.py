"""/api/v1: signing in to the console and out of it.

Owns the cookie: HttpOnly, SameSite=Strict, for this origin alone. Everything else that the console shows comes from
the routes that any client may call.
"""

from typing import Any

from litestar import Request, Response, Router, delete, get, post
from litestar.datastructures import Cookie

from tenantry.platform.admin import schemas
from tenantry.platform.admin.browser import SESSION_LIFE, BrowserSessions
from tenantry.platform.core.errors import NotFound
from tenantry.platform.core.policy import PUBLIC, tenant, under
from tenantry.platform.core.settings import Settings
from tenantry.platform.tenants.auth import Authenticator
from tenantry.platform.tenants.principal import Principal
from tenantry.platform.tenants.schemas import Me

COOKIE = "tenantry_session"
ANSWER_ONCE = {"never_kept": True}


@post("/browser-sessions", opt=under(PUBLIC) | ANSWER_ONCE)
async def sign_in(
    data: schemas.SignIn, browser: BrowserSessions, authenticator: Authenticator, settings: Settings
) -> Response[schemas.BrowserSessionView]:
    """Exchange a key, or a one-time link, for a session in this browser."""
    data.check()
    if data.key is not None:
        principal = await authenticator.authenticate(f"Bearer {data.key}")
    else:
        principal = await browser.take_link(data.link or "")
    issued = await browser.open(principal)
    about = schemas.InstallationView.of(settings)
    view = schemas.BrowserSessionView(browser.csrf(issued.token), issued.expires_at, Me.of(principal), about)
    return Response(view, cookies=[_cookie(issued.token, settings)], headers={"cache-control": "no-store"})


@get("/browser-sessions/current", opt=under(tenant()))
async def current_session(
    request: Request[Principal, str | None, Any], principal: Principal, browser: BrowserSessions, settings: Settings
) -> Response[schemas.BrowserSessionView]:
    """Who is signed in here, and the token that changes need."""
    token = _token(request)
    about = schemas.InstallationView.of(settings)
    view = schemas.BrowserSessionView(browser.csrf(token), await browser.expires_at(token), Me.of(principal), about)
    return Response(view, headers={"cache-control": "no-store"})


@delete("/browser-sessions/current", opt=under(tenant()), status_code=200)
async def sign_out(
    request: Request[Principal, str | None, Any], principal: Principal, browser: BrowserSessions, settings: Settings
) -> Response[schemas.SignedOut]:
    """The session is over on the server, not only in the browser."""
    await browser.close(_token(request))
    return Response(schemas.SignedOut(), cookies=[_cookie("", settings, max_age=0)])


@post("/sign-in-links", opt=under(tenant()) | ANSWER_ONCE)
async def make_link(principal: Principal, browser: BrowserSessions) -> schemas.SignInLink:
    """A link that signs one browser in as the calling key, once, within fifteen minutes."""
    return schemas.SignInLink.of(await browser.make_link(principal.tenant_id, principal.key_id))


@get("/installation", opt=under(tenant()))
async def installation(settings: Settings) -> schemas.InstallationView:
    """What holds for every tenant here: the currency of all money, and whom to ask for more."""
    return schemas.InstallationView.of(settings)


def _token(request: Request[Principal, str | None, Any]) -> str:
    """Of the session that the guard has proven: a cookie beside an API key is nobody's word."""
    token = request.auth
    if token is None:
        raise NotFound("This request carries an API key, not a browser's session.", code="no_browser_session")
    return token


def _cookie(value: str, settings: Settings, max_age: int | None = None) -> Cookie:
    return Cookie(
        key=COOKIE, value=value, path="/", httponly=True, samesite="strict", secure=settings.cookie_secure == "on",
        max_age=int(SESSION_LIFE.total_seconds()) if max_age is None else max_age,
    )  # fmt: skip


router = Router(
    "/api/v1", route_handlers=[sign_in, current_session, sign_out, make_link, installation], tags=["console"]
)
