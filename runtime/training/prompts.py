"""A file of prompts as token ids: JSON lines, or one user message a line.

Owns the file's format: {"messages": [...]} or {"prompt": "..."}, either with "adapter", the name of the folder whose
adapter continues it; any other line is a user's message. Lines without an adapter belong to the only one given, or
to the base.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tenantry.runtime.errors import InvalidRequest
from tenantry.runtime.text import TemplateRefusal, TextModel

FIELDS = {"messages", "prompt", "adapter"}


class Prompt(NamedTuple):
    """adapter: a folder's name, or None for the base."""

    ids: tuple[int, ...]
    adapter: str | None


def read_prompts(path: Path, text: TextModel, adapters: Sequence[str]) -> list[Prompt]:
    """Raises InvalidRequest naming the line at fault."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest("prompts", f"{path}: {error}") from None
    alone = adapters[0] if len(adapters) == 1 else None
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found.append(_prompt(line, text, adapters, alone))
            except (ValueError, TypeError, TemplateRefusal) as error:
                raise InvalidRequest("prompts", f"line {number}: {error}") from None
    if not found:
        raise InvalidRequest("prompts", f"{path} holds none")
    return found


def _prompt(line: str, text: TextModel, adapters: Sequence[str], alone: str | None) -> Prompt:
    entry: Any = (
        json.loads(line) if line.lstrip().startswith("{") else {"messages": [{"role": "user", "content": line}]}
    )
    if unknown := entry.keys() - FIELDS:
        raise ValueError(f"there is no field {min(unknown)!r}; {', '.join(sorted(FIELDS))} are known")
    adapter = entry.get("adapter", alone)
    if adapter is not None and adapter not in adapters:
        raise ValueError(f"adapter {adapter!r} was not given with --adapter")
    if ("messages" in entry) == ("prompt" in entry):
        raise ValueError("expected messages or prompt")
    ids = text.encode(entry["prompt"]) if "prompt" in entry else text.render(entry["messages"])
    if not ids:
        raise ValueError("is empty")
    return Prompt(tuple(ids), adapter)
