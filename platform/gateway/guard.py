"""Who gets past: authentication and the policy that each route object states. A route without one is refused.

Owns the order: authenticate, then authorise, then read anything. It must not know paths; litestar has routed already.
"""

from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from typing import Protocol

from litestar import Request
from litestar.handlers import BaseRouteHandler
from litestar.types import ASGIApp, Receive, Scope, Send

from tenantry.platform.core.errors import PermissionDenied
from tenantry.platform.core.policy import Access, Policy
from tenantry.platform.tenants.auth import Authenticator
from tenantry.platform.tenants.principal import Principal


class Sessions(Protocol):
    """People who signed in with a browser, by the value of their cookie. Raises Unauthenticated, PermissionDenied."""

    async def authenticate(self, token: str, csrf: str | None, *, changes: bool) -> Principal: ...


def policy_of(handler: BaseRouteHandler) -> Policy | None:
    policy = handler.opt.get("policy")
    return policy if isinstance(policy, Policy) else None


def guard(authenticator: Authenticator, sessions: Sessions, cookie: str) -> Callable[[ASGIApp], ASGIApp]:
    """litestar middleware; puts the Principal into scope["user"]. cookie: the name of a browser session's."""

    async def authenticate(scope: Scope) -> tuple[Principal, str | None]:
        """A key that was sent speaks for itself; else the browser's session does, whose token comes second."""
        key = _header(scope, b"authorization")
        token = _cookie(_header(scope, b"cookie") or "", cookie) if key is None else None
        if token is None:
            return await authenticator.authenticate(key), None
        changes = scope.get("method") not in ("GET", "HEAD")
        return await sessions.authenticate(token, _header(scope, b"x-csrf-token"), changes=changes), token

    def wrap(app: ASGIApp) -> ASGIApp:
        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            policy = policy_of(scope["route_handler"])
            if policy is None:
                raise PermissionDenied("This route states no policy, so nobody may call it.")
            if policy.access is not Access.PUBLIC:
                scope["user"], scope["auth"] = await authenticate(scope)
                _authorise(scope["user"], policy)
            await app(scope, receive, send)

        return guarded

    return wrap


async def principal_of(request: Request) -> Principal:  # type: ignore[type-arg]
    """The handler's `principal` argument. Only guarded routes have one."""
    principal = request.scope["user"]
    assert isinstance(principal, Principal)
    return principal


def _authorise(principal: Principal, policy: Policy) -> None:
    if policy.access is Access.OPERATOR:
        principal.require("operator")
    elif policy.scope is not None:
        principal.require(policy.scope)


def _header(scope: Scope, name: bytes) -> str | None:
    raw = next((value for key, value in scope["headers"] if key == name), None)
    return raw.decode("latin-1") if raw is not None else None


def _cookie(header: str, name: str) -> str | None:
    """None also for what cannot be read: then there is no session."""
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return None
    return found.value if found is not None else None
