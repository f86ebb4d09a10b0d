"""Closed reading of one JSON object: every field is asked for, known to be inert, or refused by name."""

from collections.abc import Iterable, Mapping
from typing import Any

from tenantry.runtime.model.errors import ModelUnsupported


class Fields:
    """Typed access to an object's fields. null counts as absent. Whatever was not asked for is an error in close().

    prefix: put before field names in errors, for nested objects.
    """

    def __init__(self, values: Mapping[str, Any], prefix: str = "") -> None:
        self._values = {key: value for key, value in values.items() if value is not None}
        self._prefix = prefix

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def refuse(self, key: str, message: str) -> ModelUnsupported:
        return ModelUnsupported(self._prefix + key, message)

    def size(self, key: str, default: int | None = None) -> int:
        """A positive int. Required without a default."""
        value = self._take(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 1 << 31:
            raise self.refuse(key, "expected a positive integer")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A positive finite number. Required without a default."""
        value = self._take(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise self.refuse(key, "expected a positive number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self._take(key, default)
        if not isinstance(value, bool):
            raise self.refuse(key, "expected true or false")
        return value

    def text(self, key: str, default: str) -> str:
        value = self._take(key, default)
        if not isinstance(value, str):
            raise self.refuse(key, "expected a string")
        return value

    def nested(self, key: str) -> "Fields":
        """The object under key; empty when absent."""
        value = self._take(key, {})
        if not isinstance(value, dict):
            raise self.refuse(key, "expected an object")
        return Fields(value, f"{self._prefix}{key}.")

    def ids(self, key: str) -> tuple[int, ...]:
        """Token ids, given as one int or a list; empty when absent."""
        value = self._take(key, [])
        listed = value if isinstance(value, list) else [value]
        if any(isinstance(i, bool) or not isinstance(i, int) or i < 0 for i in listed):
            raise self.refuse(key, "expected a token id or a list of them")
        return tuple(sorted(set(listed)))

    def only(self, key: str, *accepted: Any) -> None:
        """Refuse any value but these; absent is accepted."""
        if key in self._values and self._values.pop(key) not in accepted:
            raise self.refuse(key, f"only {' or '.join(repr(a) for a in accepted)} is supported")

    def ignore(self, keys: Iterable[str]) -> None:
        """Fields that change nothing in inference."""
        for key in keys:
            self._values.pop(key, None)

    def close(self) -> None:
        """Raises ModelUnsupported for the first field that nobody asked for."""
        unknown = sorted(key for key in self._values if not key.startswith("_"))
        if unknown:
            raise self.refuse(unknown[0], "is not understood, and might change the model's arithmetic")

    def _take(self, key: str, default: Any) -> Any:
        if key not in self._values and default is None:
            raise self.refuse(key, "is required")
        return self._values.pop(key, default)
