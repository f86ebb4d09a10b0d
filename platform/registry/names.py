"""The names of models: `name`, `name:7`, `name@alias`, and nothing else.

Owns the grammar. A name is data for a lookup bound by tenant; it never becomes a path, a label or a pattern.
"""

import re
from dataclasses import dataclass

from tenantry.platform.core.errors import InvalidInput

DEFAULT_ALIAS = "default"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)
_MODEL = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9._-]{0,62})(?::(?P<number>[1-9][0-9]{0,8})|@(?P<alias>[a-z0-9][a-z0-9._-]{0,62}))?"
)


@dataclass(frozen=True, slots=True)
class ModelName:
    """Either a version's number or an alias; `default` when neither was written."""

    adapter: str
    alias: str | None
    number: int | None


def check(name: str, param: str = "name") -> str:
    """The name, if it is one. Raises InvalidInput."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{param} holds 1 to 63 of a-z, 0-9, '.', '_' and '-', starting with a letter or digit.", param=param
        )
    return name


def parse_model(model: str) -> ModelName | None:
    """None for what cannot name an adapter."""
    match = _MODEL.fullmatch(model)
    if match is None:
        return None
    if match["number"] is not None:
        return ModelName(match["name"], None, int(match["number"]))
    return ModelName(match["name"], match["alias"] or DEFAULT_ALIAS, None)
