"""Items as clients send and read them: messages of text, in the spellings the Responses API allows.

Owns the reading of `input` and `items`, and how an item is shown. Whatever is not text is refused by its path.
"""

from collections.abc import Iterable
from typing import Any, get_args

import msgspec

from tenantry.platform.core import ids
from tenantry.platform.core.errors import InvalidInput
from tenantry.platform.sessions.models import Item, Role

MAX_ITEMS = 2048
_ROLES = get_args(Role)
_FIELDS = {"type", "role", "content", "id", "status", "phase"}
_TEXTS = {"input_text", "output_text", "text"}
# What the client's own types carry along when an item that we gave out is sent back: said about the text, not in it.
_ALONG = {"annotations", "logprobs"}


class Message(msgspec.Struct, frozen=True):
    """An item as it is shown, which fits each of the client's types for a message."""

    id: str
    role: Role
    content: list[dict[str, Any]]
    status: str
    type: str = "message"

    @classmethod
    def of(cls, item: Item) -> "Message":
        return cls(ids.to_text("item", item.id), item.role, item.content, item.status)


def read(given: str | list[dict[str, Any]], field: str, most: int = MAX_ITEMS) -> list[Item]:
    """New items, under ids of our own. Raises InvalidInput naming the part at fault."""
    if isinstance(given, str):
        return [Item(ids.uuid7(), "user", [part_of("user", given)])]
    if not 1 <= len(given) <= most:
        raise InvalidInput(f"{field} holds 1 to {most} items.", code="invalid_value", param=field)
    return [_item(one, f"{field}[{i}]") for i, one in enumerate(given)]


def part_of(role: Role, text: str) -> dict[str, Any]:
    """One part of text, in the spelling of who said it."""
    if role == "assistant":
        return {"type": "output_text", "text": text, "annotations": []}
    return {"type": "input_text", "text": text}


def turns(items: Iterable[Item], instructions: str | None) -> list[tuple[str, str]]:
    """(role, text) of a whole history, instructions first."""
    before = [("system", instructions)] if instructions else []
    return before + [(item.role, item.text) for item in items]


def _item(one: dict[str, Any], at: str) -> Item:
    kind = one.get("type", "message")
    if kind != "message":
        raise InvalidInput(
            f"Items of type {str(kind)[:64]!r} are not supported.", code="unsupported_parameter", param=f"{at}.type"
        )
    for name in one:
        if name not in _FIELDS:
            raise InvalidInput(
                f"Unknown parameter: {at}.{name[:64]}.", code="unknown_parameter", param=f"{at}.{name}"[:128]
            )
    role: Role = one.get("role", "")
    if role not in _ROLES:
        raise InvalidInput(f"role is one of {', '.join(_ROLES)}.", code="invalid_value", param=f"{at}.role")
    if one.get("phase") not in (None, "final_answer"):
        raise InvalidInput("Only final answers are messages.", code="unsupported_parameter", param=f"{at}.phase")
    if one.get("status") not in (None, "completed", "incomplete"):
        raise InvalidInput("status is completed or incomplete.", code="invalid_value", param=f"{at}.status")
    if not isinstance(one.get("id", ""), str | None):
        raise InvalidInput("id is text.", code="invalid_value", param=f"{at}.id")
    return Item(ids.uuid7(), role, _content(one.get("content"), role, at), one.get("status") or "completed")


def _content(content: Any, role: Role, at: str) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [part_of(role, content)]
    if not isinstance(content, list) or not content:
        raise InvalidInput("content is text, or a list of text parts.", code="invalid_value", param=f"{at}.content")
    return [part_of(role, _text(part, f"{at}.content[{i}]")) for i, part in enumerate(content)]


def _text(part: Any, at: str) -> str:
    if not isinstance(part, dict):
        raise InvalidInput("A part is an object.", code="invalid_value", param=at)
    if part.get("type") not in _TEXTS:
        raise InvalidInput("Only text parts are supported.", code="modality_not_supported", param=f"{at}.type")
    for name in part:
        if name not in {"type", "text"} | _ALONG:
            raise InvalidInput(
                f"{name[:64]} is not supported.", code="unsupported_parameter", param=f"{at}.{name}"[:128]
            )
    if not isinstance(part.get("text"), str):
        raise InvalidInput("A text part holds text.", code="invalid_value", param=f"{at}.text")
    return str(part["text"])
