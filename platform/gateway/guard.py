"""Who gets past: authentication and the policy that each route object states. A route without one is refused.

Owns the order: authenticate, then authorise, then read anything. It must not know paths; litestar has routed already.
"""

from collections.abc import Callable

from litestar import Request
from litestar.handlers import BaseRouteHandler
from litestar.types import ASGIApp, Receive, Scope, Send

from tenantry.platform.core.errors import PermissionDenied
from tenantry.platform.core.policy import Access, Policy
from tenantry.platform.tenants.auth import Authenticator
from tenantry.platform.tenants.principal import Principal


def policy_of(handler: BaseRouteHandler) -> Policy | None:
    policy = handler.opt.get("policy")
    return policy if isinstance(policy, Policy) else None


def guard(authenticator: Authenticator) -> Callable[[ASGIApp], ASGIApp]:
    """litestar middleware; puts the Principal into scope["user"]."""

    def wrap(app: ASGIApp) -> ASGIApp:
        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            policy = policy_of(scope["route_handler"])
            if policy is None:
                raise PermissionDenied("This route states no policy, so nobody may call it.")
            if policy.access is not Access.PUBLIC:
                scope["user"] = await _authenticate(authenticator, scope, policy)
            await app(scope, receive, send)

        return guarded

    return wrap


async def principal_of(request: Request) -> Principal:  # type: ignore[type-arg]
    """The handler's `principal` argument. Only guarded routes have one."""
    principal = request.scope["user"]
    assert isinstance(principal, Principal)
    return principal


async def _authenticate(authenticator: Authenticator, scope: Scope, policy: Policy) -> Principal:
    raw = next((value for name, value in scope["headers"] if name == b"authorization"), None)
    principal = await authenticator.authenticate(raw.decode("latin-1") if raw is not None else None)
    if policy.access is Access.OPERATOR:
        principal.require("operator")
    elif policy.scope is not None:
        principal.require(policy.scope)
    return principal
