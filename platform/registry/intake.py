"""From uploaded bytes to a ready or rejected version: quarantine, a limited validator process, the canonical blob.

Owns the quarantine directory and the validator's life. The bytes are opened by that process alone, which also writes
the blob; a crash, a limit hit or a timeout there is the uploader's 422. It must not know HTTP.
"""

import asyncio
import contextlib
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import structlog

from tenantry.adapters.errors import Code, Problem
from tenantry.adapters.manifest import AdapterManifest, BaseSpec, Limits
from tenantry.adapters.validate import Report
from tenantry.platform.core.database import Database
from tenantry.platform.core.errors import AdapterInvalid
from tenantry.platform.registry import names, upload
from tenantry.platform.registry.models import Version
from tenantry.platform.registry.repository import Repository
from tenantry.platform.registry.service import Registry
from tenantry.platform.tenants.acts import Act, Doer, Holder, Kind, record

log = structlog.get_logger("registry")

AT_ONCE = 2
SPARE_S = 30.0
FIRST = "first version"


class AdapterRejected(AdapterInvalid):
    """Every problem the validator found, and the rejected version's number, in one 422."""

    def __init__(self, number: int, report: Report) -> None:
        codes = {problem.code for problem in report.problems}
        first = report.problems[0]
        text = f"{first.subject}: {first.message}" if first.subject else first.message
        more = f" (and {len(report.problems) - 1} more)" if len(report.problems) > 1 else ""
        super().__init__(
            f"The adapter was rejected: {text}{more}.",
            code=str(next(iter(codes))) if len(codes) == 1 else None, param=first.subject or None,
        )  # fmt: skip
        self.number = number
        self.report = report

    def envelope(self, request_id: str | None = None) -> dict[str, Any]:
        shape = super().envelope(request_id)
        shape["error"]["version"] = self.number
        shape["error"]["problems"] = [msgspec.to_builtins(p) for p in self.report.problems]
        shape["error"]["warnings"] = [msgspec.to_builtins(p) for p in self.report.warnings]
        return shape


@dataclass(frozen=True, slots=True)
class Places:
    """quarantine: private to this process's user. blobs: the canonical store that the engine reads."""

    quarantine: Path
    blobs: Path


class Intake:
    def __init__(self, registry: Registry, places: Places, base: BaseSpec, limits: Limits) -> None:
        self._registry = registry
        self._places = places
        self._base = base
        self._limits = limits
        self._slots = asyncio.Semaphore(AT_ONCE)
        places.quarantine.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def take(
        self,
        tenant_id: UUID,
        by: Doer,
        name: str,
        body: AsyncIterator[bytes],
        content_type: str,
        content_digest: str | None,
    ) -> Version:
        """The ready version. Raises AdapterRejected with all problems, and what upload.receive raises."""
        await self._registry.check_upload(tenant_id, name)
        room = Path(tempfile.mkdtemp(dir=self._places.quarantine))
        try:
            files = room / "in"
            files.mkdir(mode=0o700)
            received = await upload.receive(body, content_type, content_digest, files, self._limits.max_bytes)
            adapter, version_id, number = await self._registry.begin(tenant_id, name, by.key_id)
            arrived = _Upload(tenant_id, by, version_id, name, number)
            try:
                async with self._slots:
                    report = await self._validate(room, received.archive)
            except BaseException:
                await asyncio.shield(_reject(self._registry.database, arrived, "interrupted", _interrupted()))
                raise
            if report.manifest is None:
                await _reject(self._registry.database, arrived, "invalid", report)
                log.info("adapter_rejected", codes=sorted({str(p.code) for p in report.problems}))
                raise AdapterRejected(number, report)
            await self._accept(arrived, adapter.id, report, report.manifest)
        finally:
            shutil.rmtree(room, ignore_errors=True)
        return await self._registry.version(tenant_id, name, number)

    def sweep(self) -> None:
        """Remove what uploads left behind when the process died. Call before serving."""
        for room in self._places.quarantine.iterdir():
            shutil.rmtree(room, ignore_errors=True)

    async def _validate(self, room: Path, archive: Path | None) -> Report:
        base, limits, output = room / "base.json", room / "limits.json", room / "report.json"
        base.write_bytes(msgspec.json.encode(self._base))
        limits.write_bytes(msgspec.json.encode(self._limits))
        arguments = [
            "-P", "-m", "tenantry.adapters.validate", "--input", str(room / "in"), "--base", str(base),
            "--limits", str(limits), "--output", str(output), "--store", str(self._places.blobs),
            *(("--archive", str(archive)) if archive is not None else ()),
        ]  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}, cwd=room,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        patience = (
            SPARE_S + self._limits.cpu_seconds + self._limits.cpu_seconds_per_gib * (self._limits.max_bytes >> 30)
        )
        try:
            async with asyncio.timeout(patience):
                status = await process.wait()
        except TimeoutError:
            return _limit_hit("took too long to check")
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if status != 0:
            log.warning("validator_died", status=status)
            return _limit_hit("could not be checked within its limits")
        return msgspec.json.decode(output.read_bytes(), type=Report)

    async def _accept(self, it: "_Upload", adapter_id: UUID, report: Report, manifest: AdapterManifest) -> None:
        """ready, and the first ready version becomes the default: later ones are published on purpose."""
        targets = sorted({entry.module for entry in manifest.modules})
        builtins = msgspec.to_builtins(manifest)
        builtins |= {"digest": manifest.digest.hex(), "base_digest": manifest.base_digest.hex()}
        async with self._registry.database.tenant(it.tenant_id) as connection:
            repository = Repository(connection, it.tenant_id)
            if await repository.make_ready(
                it.version_id, manifest.digest, manifest.bytes, manifest.max_rank, targets, builtins, _stored(report)
            ):
                await record(connection, it.tenant_id, it.by, it.act("version_uploaded"))
            if await repository.put_alias(adapter_id, names.DEFAULT_ALIAS, it.version_id, None) is not None:
                await repository.record_move(
                    adapter_id,
                    names.DEFAULT_ALIAS,
                    None,
                    it.version_id,
                    it.by.key_id if it.by is not None else None,
                    FIRST,
                )
                subject = f"{it.name}@{names.DEFAULT_ALIAS}"
                moved = Act("alias_moved", subject, f" → {it.number}", FIRST, adapter=it.name)
                await record(connection, it.tenant_id, it.by, moved)
        log.info("adapter_ready", version=it.number, digest=manifest.digest.hex()[:16], bytes=manifest.bytes)


@dataclass(frozen=True, slots=True)
class _Upload:
    """by: whose key, None where a row does not tell."""

    tenant_id: UUID
    by: Doer | None
    version_id: UUID
    name: str
    number: int

    def act(self, kind: Kind, reason: str = "") -> Act:
        return Act(kind, f"{self.name}:{self.number}", reason=reason, adapter=self.name)


async def _reject(database: Database, it: _Upload, reason: str, report: Report) -> None:
    async with database.tenant(it.tenant_id) as connection:
        if await Repository(connection, it.tenant_id).reject(it.version_id, reason, _stored(report)):
            await record(connection, it.tenant_id, it.by, it.act("version_rejected", reason))


async def reject_stale(database: Database) -> None:
    """Versions whose validation died with its gateway: rejected, so that nobody waits for them."""
    async with database.operator() as connection:
        rows = await connection.fetch(
            "SELECT v.tenant_id, v.id, v.created_by, v.number, a.name FROM adapter_version v"
            " JOIN adapter a ON a.tenant_id = v.tenant_id AND a.id = v.adapter_id"
            " WHERE v.state = 'validating' AND v.created_at < now() - interval '1 hour'"
        )
    for row in rows:
        by = Holder(row["tenant_id"], row["created_by"]) if row["created_by"] is not None else None
        stale = _Upload(row["tenant_id"], by, row["id"], row["name"], row["number"])
        await _reject(database, stale, "interrupted", _interrupted())


def _stored(report: Report) -> dict[str, Any]:
    return {
        "problems": [msgspec.to_builtins(p) for p in report.problems],
        "warnings": [msgspec.to_builtins(p) for p in report.warnings],
    }


def _interrupted() -> Report:
    return Report((Problem(Code.LIMIT_EXCEEDED, "", "validation was interrupted; upload again"),), (), None)


def _limit_hit(message: str) -> Report:
    return Report((Problem(Code.LIMIT_EXCEEDED, "", message),), (), None)
