"""What is remembered, as frozen values: sessions, their items, and the responses that are their turns.

Owns the ids' one way of being wrong: foreign, absent, expired and malformed look the same. Must not know HTTP or SQL.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from tenantry.platform.core import ids
from tenantry.platform.core.errors import NotFound

Kind = Literal["conversation", "thread"]
Policy = Literal["pin", "follow"]
Role = Literal["user", "assistant", "system", "developer"]
Status = Literal["completed", "incomplete"]
Named = Literal["session", "conversation", "response", "item"]


@dataclass(frozen=True, slots=True)
class Version:
    """A version of an adapter, by the names a person knows."""

    adapter_id: UUID
    id: UUID
    adapter: str
    number: int
    digest: bytes

    @property
    def model(self) -> str:
        """What names exactly this version."""
        return f"{self.adapter}:{self.number}"


@dataclass(frozen=True, slots=True)
class Session:
    """kind: a conversation has a list of items of its own; a thread is responses that continue one another.

    model: as the turn that chose the weights called it; None before the first. version: of the adapter, None for the
    base model. revision: moves whenever items do. turn_id: the request that has the turn, while busy. keep_s, pinned:
    what its KV is promised.
    """

    id: UUID
    kind: Kind
    metadata: dict[str, str]
    policy: Policy
    model: str | None
    version: Version | None
    keep_s: int
    pinned: bool
    revision: int
    turn_id: UUID | None
    busy: bool
    created_at: datetime
    last_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Item:
    """One message. content: its parts as the API shows them."""

    id: UUID
    role: Role
    content: list[dict[str, Any]]
    status: Status = "completed"
    output: bool = False

    @property
    def text(self) -> str:
        return "".join(part["text"] for part in self.content)


@dataclass(frozen=True, slots=True)
class Counts:
    """A turn's tokens, as its usage event has them, and what they cost once that is known. cached_host, cached_disk:
    parts of cached."""

    prompt: int
    cached: int
    completion: int
    cached_host: int
    cached_disk: int
    nano: int = 0


@dataclass(frozen=True, slots=True)
class Totals:
    """What the turns of a session came to."""

    turns: int = 0
    prompt: int = 0
    cached: int = 0
    completion: int = 0
    cached_host: int = 0
    cached_disk: int = 0
    nano: int = 0


@dataclass(frozen=True, slots=True)
class Response:
    """A turn that was committed. settings: how it was asked for, as the API repeats it."""

    id: UUID
    session_id: UUID
    previous_id: UUID | None
    first_seq: int | None
    status: Status
    settings: dict[str, Any]
    created_at: datetime
    completed_at: datetime
    counts: Counts
    version: Version | None

    @property
    def in_conversation(self) -> bool:
        """Whether its items are among the conversation's own. first_seq: the place of its first one there."""
        return self.first_seq is not None


def named(kind: Named, text: str, param: str = "id") -> UUID:
    """Reads an id. Raises the NotFound of absent()."""
    try:
        return ids.from_text(kind, text)
    except NotFound:
        raise absent(kind, param) from None


def absent(kind: Named, param: str = "id") -> NotFound:
    """The one answer for an id that is foreign, gone, expired, deleted or no id at all."""
    return NotFound(f"There is no such {kind}.", code=f"{kind}_not_found", param=param)
