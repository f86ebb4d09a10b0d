"""What the registry knows, as frozen values: adapters, their versions and aliases, and what a model name means.

Owns the states of a version and which of them answer requests. It must not know HTTP or SQL.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from tenantry.platform.tenants.models import Actor


class State(StrEnum):
    """validating -> rejected | ready; ready -> retired, or quarantined when its blob proves damaged."""

    VALIDATING = "validating"
    REJECTED = "rejected"
    READY = "ready"
    QUARANTINED = "quarantined"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class BaseModel:
    """digest: 32 bytes naming the weights."""

    id: UUID
    name: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Adapter:
    id: UUID
    name: str
    base: str
    description: str
    etag: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Version:
    """digest, bytes, rank, targets: None until the version is ready. report: the validator's findings."""

    id: UUID
    adapter_id: UUID
    number: int
    state: State
    reason: str
    digest: bytes | None
    bytes: int | None
    rank: int | None
    targets: list[str] | None
    report: dict[str, Any] | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Alias:
    alias: str
    number: int
    version_id: UUID
    etag: int
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class AliasEvent:
    """One move. Numbers are None where the alias did not exist before, or was removed."""

    id: UUID
    from_number: int | None
    to_number: int | None
    actor: Actor | None
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Listed:
    """An adapter as a list shows it: its newest version, and the first of its aliases (at most MAX_LISTED)."""

    adapter: Adapter
    versions: int
    latest: int | None
    latest_state: State | None
    aliases: list[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Target:
    """What answers a request: the base model alone, or one version of an adapter, pinned by digest at admission."""

    base: BaseModel
    model: str
    adapter_id: UUID | None = None
    version_id: UUID | None = None
    number: int | None = None
    digest: bytes | None = None

    @property
    def weights(self) -> bytes:
        """The digest that keys caches: the adapter's, or the base model's own."""
        return self.digest if self.digest is not None else self.base.digest
