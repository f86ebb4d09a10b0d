"""What the API says and hears about adapters, versions and aliases. Owns the wire shapes and nothing else."""

from datetime import datetime
from typing import Any, Literal

import msgspec

from tenantry.platform.core import ids
from tenantry.platform.core.errors import InvalidInput
from tenantry.platform.core.paging import Page
from tenantry.platform.registry.models import Adapter, Alias, AliasEvent, Listed, Version
from tenantry.platform.tenants.schemas import ActorView

MAX_DESCRIPTION = 2000
MAX_REASON = 500


class AdapterCreate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    description: str = ""

    def check(self) -> None:
        if len(self.description) > MAX_DESCRIPTION or "\0" in self.description:
            raise InvalidInput(f"description holds at most {MAX_DESCRIPTION} characters.", param="description")


class AliasView(msgspec.Struct, frozen=True):
    alias: str
    version: int
    etag: str
    updated_at: datetime
    object: Literal["adapter_alias"] = "adapter_alias"

    @classmethod
    def of(cls, alias: Alias) -> "AliasView":
        return cls(alias.alias, alias.number, f'"{alias.etag}"', alias.updated_at)


class AdapterView(msgspec.Struct, frozen=True, omit_defaults=True):
    """aliases: only where one adapter is shown."""

    id: str
    name: str
    base_model: str
    description: str
    etag: str
    created_at: datetime
    object: str
    aliases: list[AliasView] | None = None

    @classmethod
    def of(cls, adapter: Adapter, aliases: list[Alias] | None = None) -> "AdapterView":
        return cls(
            ids.to_text("adapter", adapter.id), adapter.name, adapter.base, adapter.description, f'"{adapter.etag}"',
            adapter.created_at, "adapter", [AliasView.of(a) for a in aliases] if aliases is not None else None,
        )  # fmt: skip


class AliasPoint(msgspec.Struct, frozen=True):
    alias: str
    version: int


class AdapterRow(msgspec.Struct, frozen=True):
    """An adapter in a list. latest: its newest version, whatever became of it. aliases: the first of them."""

    id: str
    name: str
    base_model: str
    description: str
    etag: str
    created_at: datetime
    versions: int
    latest_version: int | None
    latest_state: str | None
    aliases: list[AliasPoint]
    object: Literal["adapter"] = "adapter"

    @classmethod
    def of(cls, row: Listed) -> "AdapterRow":
        adapter = row.adapter
        return cls(
            ids.to_text("adapter", adapter.id), adapter.name, adapter.base, adapter.description, f'"{adapter.etag}"',
            adapter.created_at, row.versions, row.latest, row.latest_state,
            [AliasPoint(alias, number) for alias, number in row.aliases],
        )  # fmt: skip


class AdapterPage(Page, frozen=True, kw_only=True):
    data: list[AdapterRow]


class VersionView(msgspec.Struct, frozen=True):
    """digest, bytes, rank and targets are null until the version is ready. report: the validator's findings."""

    id: str
    adapter: str
    number: int
    model: str
    state: str
    reason: str
    digest: str | None
    bytes: int | None
    rank: int | None
    targets: list[str] | None
    report: dict[str, Any] | None
    created_at: datetime
    object: Literal["adapter_version"] = "adapter_version"

    @classmethod
    def of(cls, name: str, version: Version) -> "VersionView":
        return cls(
            id=ids.to_text("version", version.id),
            adapter=name,
            number=version.number,
            model=f"{name}:{version.number}",
            state=version.state,
            reason=version.reason,
            digest=version.digest.hex() if version.digest is not None else None,
            bytes=version.bytes,
            rank=version.rank,
            targets=version.targets,
            report=version.report,
            created_at=version.created_at,
        )


class VersionPage(Page, frozen=True, kw_only=True):
    data: list[VersionView]


class AliasPut(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    reason: str = ""

    def check(self) -> None:
        if not 1 <= self.version <= 1 << 30:
            raise InvalidInput("version is a version's number.", param="version")
        if len(self.reason) > MAX_REASON or "\0" in self.reason:
            raise InvalidInput(f"reason holds at most {MAX_REASON} characters.", param="reason")


class AliasMove(msgspec.Struct, frozen=True):
    """null versions: the alias did not exist before, or was removed. actor: who moved it, null where no key is
    known."""

    id: str
    from_version: int | None
    to_version: int | None
    actor: ActorView | None
    reason: str
    at: datetime

    @classmethod
    def of(cls, event: AliasEvent) -> "AliasMove":
        return cls(
            ids.to_text("event", event.id), event.from_number, event.to_number,
            ActorView.of(event.actor) if event.actor is not None else None, event.reason, event.at,
        )  # fmt: skip


class AliasMovePage(Page, frozen=True, kw_only=True):
    data: list[AliasMove]


class Accepted(msgspec.Struct, frozen=True):
    """The name answers no more; requests under way finish on the weights they began with."""

    object: Literal["accepted"] = "accepted"
