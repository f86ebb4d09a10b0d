"""What `--speculate` says: off, ngram, a KIND:DIRECTORY of the model's own proposer, or auto (ngram beside one).

Owns the words of that one option. It must not know how guessing is done.
"""

from dataclasses import dataclass
from pathlib import Path

from tenantry.runtime.errors import InvalidRequest

KINDS = ("draft", "medusa", "eagle", "clover")
WORDS = f"off, ngram, KIND:DIRECTORY, auto, auto:DIRECTORY or auto:KIND:DIRECTORY with {', '.join(KINDS)} as KIND"


@dataclass(frozen=True, slots=True)
class Speculation:
    """ngram: guess from texts. model: kind of the proposer beside the model, one of KINDS, or "" for none.
    directory: where that lies. depth: guess this many tokens always, 0 to let measurements decide."""

    ngram: bool = False
    model: str = ""
    directory: Path | None = None
    depth: int = 0

    @property
    def on(self) -> bool:
        return self.ngram or bool(self.model)


def parse(option: str, depth: int = 0) -> Speculation:
    """Raises InvalidRequest, which names `speculate`."""
    if not 0 <= depth <= 32:
        raise InvalidRequest("speculate_depth", "0 to 32 tokens")
    if option == "off":
        return Speculation(depth=depth)
    if option in ("ngram", "auto"):
        return Speculation(ngram=True, depth=depth)
    both = option.startswith("auto:")
    kind, colon, directory = option.removeprefix("auto:").partition(":")
    if both and not colon:  # of a draft model, which needs no word
        kind, directory = "draft", kind
    if kind not in KINDS or not directory:
        raise InvalidRequest("speculate", f"{option!r} is not {WORDS}")
    return Speculation(both, kind, Path(directory), depth)
