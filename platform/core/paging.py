"""Lists: newest first, walked by the last id seen. No offsets, no totals: both break while rows are being added.

Owns the shape of a page and reading `after`. It must not know any resource.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, TypeVar
from uuid import UUID

import msgspec
from litestar.params import Parameter

from tenantry.platform.core import ids
from tenantry.platform.core.errors import InvalidInput, NotFound

T = TypeVar("T")
MAX_LIMIT = 100
Limit = Annotated[int, Parameter(ge=1, le=MAX_LIMIT, description="Most rows in the answer.")]
After = Annotated[str | None, Parameter(max_length=64, description="The `next` of the page before.")]


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Subclasses add `data`. next: what to send as `after`, or null on the last page."""

    object: Literal["list"] = "list"
    has_more: bool
    next: str | None


def cut(rows: Sequence[T], limit: int) -> tuple[list[T], bool]:
    """Callers ask for limit + 1 rows; the extra one only says that there are more."""
    return list(rows[:limit]), len(rows) > limit


def cursor(kind: ids.Kind, after: str | None) -> UUID | None:
    """Raises InvalidInput for anything but an id of that kind."""
    if after is None:
        return None
    try:
        return ids.from_text(kind, after)
    except NotFound:
        raise InvalidInput("after must be the `next` of a page.", param="after") from None
