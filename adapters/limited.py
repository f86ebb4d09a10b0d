"""The validator as a process of its own: limits set on itself first, a verdict written last.

    python -m tenantry.adapters.validate --input DIR --base base.json --output report.json [--store DIR]
                                         [--archive upload.zip] [--limits limits.json]

Exit code 0 with a Report as JSON for valid and invalid uploads alike; anything else is a crash or a limit hit, which
the caller answers as 422. Give it an empty environment. It opens no socket, starts no process and prints nothing.
"""

import argparse
import os
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import msgspec

from tenantry.adapters.archive import unpack
from tenantry.adapters.errors import AdapterError, Code, Problem, bounded
from tenantry.adapters.manifest import BaseSpec, Limits
from tenantry.adapters.store import LocalStore
from tenantry.adapters.validate import WEIGHTS, Report, validate

_FORBIDDEN = ("socket.", "subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.system", "ctypes.")
_GRACE_SECONDS = 2
_PADDING_GROWTH = 17  # rank 1 is stored as rank 16
_SPARE_BYTES = 64 << 20


class _OutOfTime(AdapterError):
    pass


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tenantry.adapters.validate")
    for name, needed in (("input", True), ("base", True), ("output", True), ("store", False), ("archive", False),
                         ("limits", False)):  # fmt: skip
        parser.add_argument(f"--{name}", type=Path, required=needed)
    given = parser.parse_args(arguments)
    limits = msgspec.json.decode(given.limits.read_bytes(), type=Limits) if given.limits else Limits()
    base = msgspec.json.decode(given.base.read_bytes(), type=BaseSpec)
    store = LocalStore(given.store) if given.store else None
    confine(limits, _upload_bytes(given.archive or given.input / WEIGHTS, limits))
    report = _verdict(given.input, given.archive, base, limits, store)
    given.output.write_bytes(msgspec.json.encode(report))
    return 0


def confine(limits: Limits, upload_bytes: int) -> None:
    """Bound CPU seconds, memory, files and what the interpreter may do, from here on and for good."""
    cpu = limits.cpu_seconds + (limits.cpu_seconds_per_gib * upload_bytes >> 30)
    bounds = {
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_CPU: (cpu, cpu + _GRACE_SECONDS),
        resource.RLIMIT_AS: (limits.address_bytes, limits.address_bytes),
        resource.RLIMIT_FSIZE: (most := upload_bytes * _PADDING_GROWTH + _SPARE_BYTES, most),
        resource.RLIMIT_NOFILE: (64, 64),
    }
    for what, (soft, hard) in bounds.items():
        allowed = resource.getrlimit(what)[1]
        if allowed != resource.RLIM_INFINITY:
            soft, hard = min(soft, allowed), min(hard, allowed)
        resource.setrlimit(what, (soft, hard))
    signal.signal(signal.SIGXCPU, _out_of_time)
    sys.addaudithook(_refuse)


def _verdict(
    directory: Path, archive: Path | None, base: BaseSpec, limits: Limits, store: LocalStore | None
) -> Report:
    try:
        if archive is not None and (problems := unpack(archive, directory, limits)):
            return Report(bounded(problems, limits.max_problems), (), None)
        return validate(directory, base, limits, store)
    except _OutOfTime:
        message = "took too long to check; are its patterns simple?"
    except MemoryError:
        message = "took too much memory to check"
    return Report((Problem(Code.LIMIT_EXCEEDED, "", message),), (), None)


def _upload_bytes(path: Path, limits: Limits) -> int:
    size = os.lstat(path).st_size if path.exists() else 0
    return min(size * (limits.max_archive_ratio if path.suffix == ".zip" else 1), limits.max_bytes)


def _out_of_time(_signal: int, _frame: FrameType | None) -> None:
    raise _OutOfTime


def _refuse(event: str, _arguments: tuple[object, ...]) -> None:
    if event.startswith(_FORBIDDEN):
        raise PermissionError(event)
