"""The identity of a base model's weights, from its files alone.

Gateway and engine both need the same value, so it is computed here, streaming, without torch. Caching it is the
caller's matter.
"""

import hashlib
from pathlib import Path

from tenantry.adapters.errors import BaseUnsupported

_DOMAIN = b"tenantry-base-v1"


def digest_model(directory: Path) -> bytes:
    """sha256 over the sorted (name, size, sha256) of config.json and every *.safetensors: 32 bytes.

    Each field is preceded by its length. Raises BaseUnsupported when config.json or all weights are missing.
    """
    names = sorted(p.name for p in directory.glob("*.safetensors") if p.is_file())
    if not names or not (directory / "config.json").is_file():
        raise BaseUnsupported("a base model needs config.json and at least one .safetensors file")
    total = hashlib.sha256(_DOMAIN)
    for name in ["config.json", *names]:
        with (directory / name).open("rb") as file:
            content = hashlib.file_digest(file, "sha256")
            size = file.tell()
        for field in (name.encode(), size.to_bytes(8, "big"), content.digest()):
            total.update(len(field).to_bytes(4, "big"))
            total.update(field)
    return total.digest()
