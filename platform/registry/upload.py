"""One multipart upload, streamed to a quarantine directory: capped, hashed while written, nothing interpreted.

Owns which parts may arrive and how many bytes. It must not know adapters' insides, SQL or tenants: the files are
opened by the validator alone.
"""

import asyncio
import base64
import binascii
import hashlib
import re
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from tenantry.platform.core.errors import (
    AdapterInvalid,
    BodyTimedOut,
    InvalidInput,
    PayloadTooLarge,
    UnsupportedMediaType,
)

FILES = ("adapter_config.json", "adapter_model.safetensors")
INERT = "README.md"
MAX_PARTS = 8
IDLE_S = 15.0
MAX_FIELD_BYTES = 256
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(slots=True)
class Upload:
    """What arrived. files: allowed name to path. sha256: hex digest by file name. total: bytes of all files."""

    directory: Path
    files: dict[str, Path] = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)
    total: int = 0

    @property
    def archive_path(self) -> Path:
        """Beside the directory, which is for plain files alone."""
        return self.directory.parent / "upload.zip"

    @property
    def archive(self) -> Path | None:
        return self.archive_path if self.archive_path in self.files.values() else None


async def receive(
    stream: AsyncIterator[bytes], content_type: str, content_digest: str | None, directory: Path, limit: int
) -> Upload:
    """Write the parts of a multipart body into `directory`, which must exist and be empty.

    limit: most bytes of all files together. Raises UnsupportedMediaType, InvalidInput (malformed or digest
    mismatch), AdapterInvalid (a file that may not be sent) and PayloadTooLarge.
    """
    kind, options = parse_options_header(content_type)
    if kind != "multipart/form-data" or not options.get("boundary"):
        raise UnsupportedMediaType("Send multipart/form-data with the adapter's two files, or one zip of them.")
    sink = _Sink(Upload(directory), limit)
    body = hashlib.sha256()
    try:
        parser = PushMultipartParser(options["boundary"], max_segment_count=MAX_PARTS)
        async for chunk in _unhurried(stream):
            if chunk:
                body.update(chunk)
                sink.take(parser.parse(chunk))
        parser.close()
    except MultipartError:
        raise InvalidInput("The multipart body is malformed or was cut short.", code="malformed_multipart") from None
    finally:
        sink.close()
    _check_digests(sink.upload, content_digest, body.digest())
    _check_set(sink.upload)
    return sink.upload


async def _unhurried(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """An upload may be long, but not silent."""
    chunks = aiter(stream)
    while True:
        try:
            async with asyncio.timeout(IDLE_S):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise BodyTimedOut("The upload stood still for too long.") from None
        yield chunk


class _Sink:
    """Receives the parser's events: a segment's header, its data, None at its end."""

    def __init__(self, upload: Upload, limit: int) -> None:
        self.upload = upload
        self._limit = limit
        self._segment: MultipartSegment | None = None
        self._file: BinaryIO | None = None
        self._hash = hashlib.sha256()
        self._text = bytearray()

    def take(self, events: Iterable[MultipartSegment | bytes | bytearray | None]) -> None:
        for event in events:
            if isinstance(event, MultipartSegment):
                self._open(event)
            elif event:
                self._data(event)
            else:
                self._end()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self, segment: MultipartSegment) -> None:
        self._segment = segment
        name = segment.filename
        if name is None:
            self._text = bytearray()
            return
        _check_name(name)
        if name in self.upload.files:
            raise AdapterInvalid(f"{name} was sent twice.", code="duplicate_file")
        path = self.upload.archive_path if name.endswith(".zip") else self.upload.directory / name
        self._file = path.open("xb")
        self._hash = hashlib.sha256()
        self.upload.files[name] = path

    def _data(self, data: bytes | bytearray) -> None:
        if self._file is None:
            self._text += data
            if len(self._text) > MAX_FIELD_BYTES:
                raise InvalidInput(f"A field holds at most {MAX_FIELD_BYTES} bytes.", code="malformed_multipart")
            return
        self.upload.total += len(data)
        if self.upload.total > self._limit:
            raise PayloadTooLarge(f"An adapter's files hold at most {self._limit} bytes.")
        self._hash.update(data)
        self._file.write(data)

    def _end(self) -> None:
        segment = self._segment
        if segment is None:
            raise InvalidInput("The multipart body is malformed.", code="malformed_multipart")
        if self._file is not None:
            self.close()
            self.upload.sha256[segment.filename or ""] = self._hash.hexdigest()
        else:
            if segment.name != "sha256" or segment.name in self.upload.fields:
                raise InvalidInput(
                    "The only field besides files is sha256, once.", code="unknown_parameter", param="sha256"
                )
            self.upload.fields[segment.name] = self._text.decode("ascii", "replace")
        self._segment = None


def _check_name(name: str) -> None:
    if "/" in name or "\\" in name or "\0" in name or name in ("", ".", "..") or ":" in name:
        raise AdapterInvalid("A file name must not hold a path.", code="archive_path")
    if name not in (*FILES, INERT) and not re.fullmatch(r"[A-Za-z0-9._-]{1,128}\.zip", name):
        raise AdapterInvalid(f"Send {FILES[0]} and {FILES[1]}, or one .zip of them.", code="format_not_allowed")


def _check_set(upload: Upload) -> None:
    if upload.archive is not None:
        if len(upload.files) != 1:
            raise AdapterInvalid("Send either one .zip or the two files, not both.", code="format_not_allowed")
        return
    for name in FILES:
        if name not in upload.files:
            raise InvalidInput(f"{name} was not sent.", code="missing_file", param=name)


def _check_digests(upload: Upload, content_digest: str | None, body: bytes) -> None:
    if content_digest is not None:
        match = re.fullmatch(r"\s*sha-256=:([A-Za-z0-9+/=]+):\s*", content_digest)
        try:
            declared = base64.b64decode(match[1], validate=True) if match else None
        except binascii.Error:
            declared = None
        if declared is None:
            raise InvalidInput(
                "Content-Digest must be sha-256=:<base64>:.", code="invalid_value", param="Content-Digest"
            )
        if declared != body:
            raise InvalidInput(
                "The body does not have the declared digest.", code="digest_mismatch", param="Content-Digest"
            )
    declared_hex = upload.fields.get("sha256")
    if declared_hex is not None:
        weights = "adapter_model.safetensors" if upload.archive is None else next(iter(upload.files), "")
        if not _SHA256.fullmatch(declared_hex):
            raise InvalidInput("sha256 must be 64 lower-case hex digits.", code="invalid_value", param="sha256")
        if declared_hex != upload.sha256.get(weights):
            raise InvalidInput(
                "The file received does not have the declared digest.", code="digest_mismatch", param="sha256"
            )
