"""/api/v1/team: the people of the calling key's tenant. Whoever manages the tenant invites; revoking the key removes.

Owns the mapping between HTTP and team.py.
"""

from typing import Annotated

from litestar import Router, get, post
from litestar.params import Parameter

from tenantry.platform.admin import schemas, team
from tenantry.platform.admin.browser import INVITATION_LIFE, BrowserSessions
from tenantry.platform.core import ids
from tenantry.platform.core.database import Database
from tenantry.platform.core.paging import After, Limit, cursor, cut
from tenantry.platform.core.policy import tenant, under
from tenantry.platform.core.secrets import Peppers
from tenantry.platform.core.settings import Settings
from tenantry.platform.tenants.principal import Principal

_MANAGE = under(tenant("manage"))
_ANSWER_ONCE = {"never_kept": True}
KeyId = Annotated[str, Parameter(max_length=64, description="key_ and 32 hex digits")]


@get("/team", opt=_MANAGE)
async def list_members(
    principal: Principal, database: Database, limit: Limit = 20, after: After = None
) -> schemas.MemberPage:
    """Who may sign in, newest first."""
    start = cursor("key", after)
    async with database.tenant(principal.tenant_id) as connection:
        rows, more = cut(await team.members(connection, principal.tenant_id, limit + 1, start), limit)
    data = [schemas.MemberView.of(row) for row in rows]
    return schemas.MemberPage(data=data, has_more=more, next=data[-1].key if more else None)


@post("/team", opt=_MANAGE | _ANSWER_ONCE)
async def invite(
    data: schemas.Invite,
    principal: Principal,
    database: Database,
    browser: BrowserSessions,
    peppers: Peppers,
    settings: Settings,
) -> schemas.InvitationView:
    """A key for a person, and a link that signs them in with it once, within a day. Both are told this once. The role
    may hold nothing that the calling key lacks."""
    async with database.tenant(principal.tenant_id) as connection:
        issued = await team.invite(connection, principal, peppers, settings.environment, data.name, data.role)
    link = await browser.make_link(principal.tenant_id, issued.key.id, INVITATION_LIFE)
    member = team.Member(issued.key.id, issued.key.name, data.role, issued.key.created_at, None, 0)
    return schemas.InvitationView(schemas.MemberView.of(member), schemas.SignInLink.of(link), issued.text)


@post("/team/{key:str}/links", opt=_MANAGE | _ANSWER_ONCE)
async def make_member_link(
    key: KeyId, principal: Principal, database: Database, browser: BrowserSessions
) -> schemas.SignInLink:
    """Another link for a member who lost theirs; once, within a day. For those who may do no more than the
    calling key."""
    key_id = ids.from_text("key", key)
    async with database.tenant(principal.tenant_id) as connection:
        await team.check_link(connection, principal, key_id)
    return schemas.SignInLink.of(await browser.make_link(principal.tenant_id, key_id, INVITATION_LIFE))


router = Router("/api/v1", route_handlers=[list_members, invite, make_member_link], tags=["console"])
