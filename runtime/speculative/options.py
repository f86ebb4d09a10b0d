"""What `--speculate` says: off, ngram, draft:DIRECTORY, or auto (ngram, and the draft model where one is given).

Owns the words of that one option. It must not know how guessing is done.
"""

from dataclasses import dataclass
from pathlib import Path

from tenantry.runtime.errors import InvalidRequest

WORDS = "off, ngram, draft:DIRECTORY, auto or auto:DIRECTORY"


@dataclass(frozen=True, slots=True)
class Speculation:
    """ngram: guess from texts. draft: directory of a smaller model of the same tokenizer, or None. depth: guess this
    many tokens always, 0 to let measurements decide."""

    ngram: bool = False
    draft: Path | None = None
    depth: int = 0

    @property
    def on(self) -> bool:
        return self.ngram or self.draft is not None


def parse(option: str, depth: int = 0) -> Speculation:
    """Raises InvalidRequest, which names `speculate`."""
    word, colon, rest = option.partition(":")
    path = Path(rest) if rest else None
    known = {
        "off": path is None and not colon,
        "ngram": path is None and not colon,
        "draft": path is not None,
        "auto": path is not None or not colon,
    }
    if not known.get(word, False):
        raise InvalidRequest("speculate", f"{option!r} is not {WORDS}")
    if not 0 <= depth <= 32:
        raise InvalidRequest("speculate_depth", "0 to 32 tokens")
    return Speculation(word in ("ngram", "auto"), path, depth)
