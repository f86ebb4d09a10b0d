"""Secret files: made once, 0600, refused when others can read them.

Owns the key peppers (versioned, so that they can be rotated) and the operator key's file. Never logs a value.
"""

import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tenantry.platform.core.errors import ConfigurationError
from tenantry.platform.core.settings import Settings

PEPPER_BYTES = 32


class _PepperFile(msgspec.Struct, forbid_unknown_fields=True):
    current: int
    peppers: dict[int, str]


@dataclass(frozen=True, slots=True)
class Peppers:
    """Version to secret. New keys use `current`; old versions stay to check the keys made under them."""

    current: int
    by_version: dict[int, bytes]

    def __repr__(self) -> str:
        return f"Peppers(current={self.current}, versions={sorted(self.by_version)})"


def load_peppers(settings: Settings) -> Peppers:
    """Reads the pepper file, making it at first start. A damaged or readable-by-others file stops the start."""
    path = settings.pepper_file or settings.secrets_dir / "key-peppers.json"
    if not path.exists():
        if settings.pepper_file is not None:
            raise ConfigurationError(f"TENANTRY_PEPPER_FILE names a file that does not exist: {path}")
        fresh = _PepperFile(current=1, peppers={1: secrets.token_hex(PEPPER_BYTES)})
        write_secret(path, msgspec.json.encode(fresh))
    try:
        file = msgspec.json.decode(read_secret(path), type=_PepperFile)
        by_version = {version: bytes.fromhex(text) for version, text in file.peppers.items()}
    except (msgspec.DecodeError, ValueError) as error:
        raise ConfigurationError(f"the pepper file {path} is damaged: {error}") from None
    if file.current not in by_version or any(len(p) < PEPPER_BYTES for p in by_version.values()):
        raise ConfigurationError(
            f"the pepper file {path} has no pepper {file.current} of {PEPPER_BYTES} bytes or more"
        )
    return Peppers(file.current, by_version)


def write_secret(path: Path, content: bytes) -> None:
    """Creates the file 0600 in a 0700 folder; loses to whoever created it first, so two starts agree."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return
    finally:
        temporary.unlink()


def read_secret(path: Path) -> bytes:
    mode = path.stat().st_mode
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigurationError(f"the secret file {path} is readable by others: chmod 600 it")
    return path.read_bytes()
