"""A zip upload, read entry by exact allowed name with streaming counters; nothing is ever "extracted".

Owns what an archive may look like: a few plain files, stored or deflated, neither nested nor overlapping. It must
not know what the files mean.
"""

import os
import stat
import struct
import zipfile
import zlib
from pathlib import Path

from tenantry.adapters import peft
from tenantry.adapters.errors import AdapterError, Code, Findings, Problem
from tenantry.adapters.manifest import Limits
from tenantry.adapters.validate import ALLOWED, README, WEIGHTS

_END = b"PK\x05\x06"
_END64_LOCATOR = b"PK\x06\x07"
_END_BYTES = 22
_MAX_COMMENT = 0xFFFF
_MAX_DIRECTORY = 64 << 10
_ENTRY_BYTES = 30
_CHUNK = 1 << 20
_SLACK = 1 << 20  # small text files deflate better than weights ever do
_BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError,
           OverflowError, UnicodeError)  # fmt: skip


class _Refused(AdapterError):
    def __init__(self, code: Code, subject: str, message: str) -> None:
        super().__init__(message)
        self.code, self.subject, self.message = code, subject, message


def unpack(archive: Path, directory: Path, limits: Limits) -> list[Problem]:
    """Copy the allowed entries into directory, mode 0600. With problems, nothing of it is left there."""
    findings = Findings()
    written: list[Path] = []
    try:
        _check_directory_size(archive, limits)
        with zipfile.ZipFile(archive) as opened:
            entries = opened.infolist()
            _check_entries(entries, limits, findings)
            if not findings.problems:
                _copy_all(opened, archive.stat().st_size, directory, limits, written)
    except _Refused as refused:
        findings.problem(refused.code, refused.subject, refused.message)
    except _BROKEN:
        findings.problem(Code.ARCHIVE_INVALID, "", "is not a sound zip archive")
    if findings.problems:
        for path in written:
            path.unlink(missing_ok=True)
    return findings.problems


def _check_directory_size(archive: Path, limits: Limits) -> None:
    """Before the library reads the central directory into memory: how large does the archive say it is?"""
    with archive.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _END_BYTES - _MAX_COMMENT - 20))
        tail = file.read()
    at = tail.rfind(_END)
    if at < 0 or len(tail) - at < _END_BYTES:
        raise _Refused(Code.ARCHIVE_INVALID, "", "is not a zip archive")
    entries, directory_bytes = struct.unpack_from("<HL", tail, at + 10)
    if _END64_LOCATOR in tail[max(0, at - 20) : at]:
        raise _Refused(Code.ARCHIVE_INVALID, "", "zip64 archives are not accepted")
    if entries > limits.max_archive_entries or directory_bytes > _MAX_DIRECTORY:
        raise _Refused(Code.ARCHIVE_INVALID, "", f"more than {limits.max_archive_entries} entries")


def _check_entries(entries: list[zipfile.ZipInfo], limits: Limits, findings: Findings) -> None:
    if len(entries) > limits.max_archive_entries:
        raise _Refused(Code.ARCHIVE_INVALID, "", f"more than {limits.max_archive_entries} entries")
    seen: set[str] = set()
    for entry in entries:
        name = entry.orig_filename
        mode = entry.external_attr >> 16
        if set("/\\:\0") & set(name) or name in ("", ".", "..") or len(name) > 255:
            findings.problem(Code.ARCHIVE_PATH, name, "is not a plain file name")
        elif stat.S_IFMT(mode) not in (0, stat.S_IFREG) or mode & (stat.S_ISUID | stat.S_ISGID):
            findings.problem(Code.ARCHIVE_PATH, name, "is not a plain file")
        elif name not in ALLOWED and name.lower() not in seen:
            findings.problem(Code.FORMAT_NOT_ALLOWED, name, f"only {', '.join(ALLOWED)} are accepted")
        if name.lower() in seen:
            findings.problem(Code.ARCHIVE_PATH, name, "appears twice, or differs from another name by case alone")
        if entry.flag_bits & 0x1:
            findings.problem(Code.ARCHIVE_INVALID, name, "is encrypted")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            findings.problem(Code.ARCHIVE_INVALID, name, "is neither stored nor deflated")
        seen.add(name.lower())
    end = 0
    for entry in sorted(entries, key=lambda e: e.header_offset):
        if entry.header_offset < end:
            findings.problem(Code.ARCHIVE_INVALID, entry.orig_filename, "overlaps another entry")
        end = entry.header_offset + _ENTRY_BYTES + len(entry.orig_filename) + entry.compress_size


def _copy_all(
    opened: zipfile.ZipFile, archive_bytes: int, directory: Path, limits: Limits, written: list[Path]
) -> None:
    most = {peft.FILE: limits.max_config_bytes, README: limits.max_readme_bytes, WEIGHTS: limits.max_bytes}
    left = archive_bytes * limits.max_archive_ratio + _SLACK
    for entry in opened.infolist():
        path = directory / entry.filename
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        written.append(path)
        total = 0
        with os.fdopen(handle, "wb") as target, opened.open(entry) as source:
            while chunk := source.read(_CHUNK):
                total, left = total + len(chunk), left - len(chunk)
                if total > most[entry.filename]:
                    raise _Refused(Code.TOO_LARGE, entry.filename, f"more than {most[entry.filename]} bytes")
                if left < 0:
                    raise _Refused(Code.ARCHIVE_INVALID, entry.filename, "expands too far")
                target.write(chunk)
        if total != entry.file_size:
            raise _Refused(Code.ARCHIVE_INVALID, entry.filename, "does not have the size that it declares")
