"""Is this directory a PEFT adapter that this base model can serve? All findings at once, as a Report.

Owns the order of the checks and the rules about files. Nothing an uploader can write raises out of validate():
it is a finding. Run it in a limited process (tenantry.adapters.limited) when the bytes are a stranger's.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from tenantry.adapters import peft, weights
from tenantry.adapters.canonical import Identity, layout
from tenantry.adapters.errors import Code, Findings, Problem, bounded
from tenantry.adapters.manifest import AdapterManifest, BaseSpec, Limits
from tenantry.adapters.safetensors_header import TensorFile, read_header
from tenantry.adapters.store import LocalStore

WEIGHTS = "adapter_model.safetensors"
README = "README.md"
REQUIRED = (peft.FILE, WEIGHTS)
ALLOWED = (*REQUIRED, README)
_MOST_FILES = 1000


class Report(msgspec.Struct, frozen=True):
    """The verdict. manifest is None exactly when there are problems; warnings never refuse."""

    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    manifest: AdapterManifest | None

    @property
    def ok(self) -> bool:
        return self.manifest is not None


def validate(
    directory: Path, base: BaseSpec, limits: Limits | None = None, store: LocalStore | None = None
) -> Report:
    """Check everything; on success, and if a store is given, put the canonical blob there.

    Raises OSError only for trouble of ours (directory unreadable, store full).
    """
    limits = limits or Limits()
    findings = Findings()
    present = _check_files(directory, limits, findings)
    targets = None
    if peft.FILE in present:
        with _opened(directory / peft.FILE) as file:
            raw = file.read(0, min(file.size, limits.max_config_bytes + 1))
        config = peft.parse_config(raw, limits, findings)
        if config is not None:
            targets = peft.resolve(config, base, limits, findings) or None
    manifest = None
    if WEIGHTS in present:
        with _opened(directory / WEIGHTS) as file:
            manifest = _check_weights(file, base, targets, limits, findings, store)
    problems = bounded(findings.problems, limits.max_problems)
    return Report(problems, bounded(findings.warnings, limits.max_problems), None if problems else manifest)


def _check_weights(
    file: TensorFile,
    base: BaseSpec,
    targets: dict[weights.Place, peft.Target] | None,
    limits: Limits,
    findings: Findings,
    store: LocalStore | None,
) -> AdapterManifest | None:
    tensors = read_header(file, limits, findings)
    pairs = weights.assign(tensors, base, findings)
    dtype = weights.one_dtype(tensors, findings)
    entries = weights.check_pairs(pairs, targets, base, findings)
    weights.check_values(file, tensors, limits, findings)
    if findings.problems or dtype is None or not entries:
        return None
    identity = Identity(base.digest, dtype)
    for entry in entries:
        identity.add(entry, *weights.read_pair(file, pairs[entry.layer, entry.module]))
    size = layout(entries, dtype)[1]
    manifest = AdapterManifest(identity.digest(), base.digest, dtype, size, tuple(entries))
    if store is not None:
        stored = store.put(base.digest, dtype, entries, lambda e: weights.read_pair(file, pairs[e.layer, e.module]))
        if stored != manifest:
            raise OSError("the upload changed while it was read")
    return manifest


def _check_files(directory: Path, limits: Limits, findings: Findings) -> set[str]:
    """Names that may be opened. Everything else in the directory is a finding."""
    present = set()
    with os.scandir(directory) as entries:
        for count, entry in enumerate(entries):
            if count >= _MOST_FILES:
                findings.problem(Code.FORMAT_NOT_ALLOWED, "", f"more than {_MOST_FILES} files")
                break
            found = entry.stat(follow_symlinks=False)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
                findings.problem(Code.ARCHIVE_PATH, entry.name, "is not a plain file")
            elif entry.name not in ALLOWED:
                findings.problem(Code.FORMAT_NOT_ALLOWED, entry.name, f"only {', '.join(ALLOWED)} are accepted")
            elif entry.name == README and found.st_size > limits.max_readme_bytes:
                findings.problem(Code.TOO_LARGE, README, f"more than {limits.max_readme_bytes} bytes")
            else:
                present.add(entry.name)
    for name in REQUIRED:
        if name not in present:
            findings.problem(Code.FILE_MISSING, name, "is required")
    return present


@contextmanager
def _opened(path: Path) -> Iterator[TensorFile]:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield TensorFile(handle, os.fstat(handle).st_size)
    finally:
        os.close(handle)


if __name__ == "__main__":
    from tenantry.adapters.limited import main

    raise SystemExit(main())
