"""The model's chat template: turns in, one string out, as transformers renders it.

Owns the jinja environment. The template is the model directory's, never a request's; values of a request reach it
as data only. It must not know token ids.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tenantry.runtime.errors import UnusableModel

Turn = Mapping[str, Any]


class TemplateRefusal(ValueError):
    """The template does not accept these turns (their order or roles), in its own words."""


class _Generation(Extension):
    """{% generation %}…{% endgeneration %} marks the assistant's part for training; here it is its content."""

    tags = {"generation"}  # noqa: RUF012  declared so by jinja2

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """special: what the tokenizer's config calls its special tokens (bos_token, eos_token …), for the template."""

    def __init__(self, source: str, special: Mapping[str, str]) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        self._special = dict(special)
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise UnusableModel(f"the chat template does not parse: {error}") from error

    def render(self, turns: Sequence[Turn], add_generation_prompt: bool = True) -> str:
        """Raises TemplateRefusal."""
        try:
            return self._template.render(
                messages=turns,
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._special,
            )
        except (jinja2.TemplateError, TypeError, AttributeError, LookupError, OverflowError) as error:
            raise TemplateRefusal(str(error)) from error


def find_template(directory: Path, tokenizer_config: Mapping[str, Any]) -> str | None:
    """The default template's source: chat_template.jinja, or the tokenizer config's chat_template (a string, or a
    list of named ones). None if the model has none."""
    file = directory / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    source = tokenizer_config.get("chat_template")
    if isinstance(source, list):
        source = next((t.get("template") for t in source if isinstance(t, dict) and t.get("name") == "default"), None)
    if source is not None and not isinstance(source, str):
        raise UnusableModel("tokenizer_config.json: chat_template is neither a string nor a list of named ones")
    return source


def shield(turns: Sequence[Turn], control: Sequence[str]) -> tuple[list[dict[str, Any]], str | None]:
    """The turns, so marked that no text in them can be taken for a control token after rendering.

    A mark (a character that occurs in none of the turns) is put after the first character of every control token in
    the text, and of every beginning of one at a text's end. Returns the marked turns and the mark, or the turns as
    they are and None when there was nothing to do. The mark is harmless to what templates do with text: it is no
    space, and stands inside of what they trim and split.
    """
    texts = [text for turn in turns for text in _texts(turn)]
    mark = next((c for c in map(chr, range(0xFDD0, 0xFDF0)) if not any(c in text for text in texts)), None)
    if mark is None:
        raise TemplateRefusal("the text holds every noncharacter from U+FDD0 to U+FDEF")
    beginnings = {token[:k] for token in control for k in range(1, len(token))}
    longest = max(map(len, beginnings), default=0)

    def marked(text: str) -> str:
        size = len(text.rstrip())
        for k in range(1, min(longest, size) + 1):
            if text[size - k : size].replace(mark, "") in beginnings:
                text = text[: size - k + 1] + mark + text[size - k + 1 :]
                size += 1
        for token in control:
            text = text.replace(token, token[0] + mark + token[1:])
        return text

    shielded = [_map_texts(turn, marked) for turn in turns]
    if any(mark in text for turn in shielded for text in _texts(turn)):
        return shielded, mark
    return [dict(turn) for turn in turns], None


def _texts(value: Any) -> list[str]:
    match value:
        case str():
            return [value]
        case Mapping():
            return [text for item in value.values() for text in _texts(item)]
        case list() | tuple():
            return [text for item in value for text in _texts(item)]
        case _:
            return []


def _map_texts(value: Any, change: Callable[[str], str]) -> Any:
    match value:
        case str():
            return change(value)
        case Mapping():
            return {key: _map_texts(item, change) for key, item in value.items()}
        case list() | tuple():
            return [_map_texts(item, change) for item in value]
        case _:
            return value


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _refuse(message: str) -> NoReturn:
    raise TemplateRefusal(message)
