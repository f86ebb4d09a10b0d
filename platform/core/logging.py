"""Structured logs: JSON for machines, colours for a terminal, and never a secret.

Owns the redaction. Nobody may log prompts, completions or request bodies; keys appear as their key id only.
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Final, Literal

import structlog

_SECRET_NAMES: Final = re.compile(
    r"authorization|api_?key$|secret|password|pepper|token$|cookie|dsn|database_url", re.I
)
_KEY: Final = re.compile(r"tny_(live|test)_([0-9A-Za-z]{1,16})[0-9A-Za-z_]*")
_BEARER: Final = re.compile(r"(?i)bearer\s+\S+")
_PASSWORD: Final = re.compile(r"(\w+://[^:/\s@]*):[^@\s]+@")
_CONTENT: Final = frozenset({"prompt", "messages", "completion", "content", "body", "text"})


def redact(value: Any) -> Any:
    """Text without secrets, at any depth: API keys keep their public id, URLs lose their password."""
    if isinstance(value, str):
        value = _KEY.sub(r"tny_\1_\2_***", value)
        return _PASSWORD.sub(r"\1:***@", _BEARER.sub("Bearer ***", value))
    if isinstance(value, dict):
        return {k: _field(str(k), v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [redact(v) for v in value]
    return value


def _field(name: str, value: Any) -> Any:
    if name in _CONTENT or _SECRET_NAMES.search(name):
        return "***"
    return redact(value)


def redact_event(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The structlog processor; it runs last before rendering, so exceptions are text by then."""
    for name in list(event):
        event[name] = _field(name, event[name])
    return event


def configure(level: str = "info", style: Literal["json", "console"] = "json") -> None:
    """Sets structlog and the standard library's root logger to one stream (stderr) and one shape."""
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        redact_event,
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer() if style == "json" else structlog.dev.ConsoleRenderer(sort_keys=False)
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(number, logging.WARNING), force=True)
