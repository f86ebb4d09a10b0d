"""What `--speculate` says: off, ngram, the model's own proposer (KIND:DIRECTORY, self), or auto (ngram beside one).

Owns the words of that one option. It must not know how guessing is done.
"""

from dataclasses import dataclass
from pathlib import Path

from tenantry.runtime.errors import InvalidRequest

SELF = "self"  # the model with layers left out
KINDS = ("draft", "medusa", "eagle", "clover")  # with files of their own
WORDS = f"off, ngram, auto, KIND:DIRECTORY ({', '.join(KINDS)}), self, self:LAYERS, or auto: before one of these"


@dataclass(frozen=True, slots=True)
class Speculation:
    """ngram: guess from texts. model: kind of the model's own proposer, SELF or one of KINDS, or "" for none.
    directory: where that lies. skipped: layers that self leaves out, 0 for a third of them. depth: guess this many
    tokens always, 0 to let measurements decide."""

    ngram: bool = False
    model: str = ""
    directory: Path | None = None
    skipped: int = 0
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
    kind, colon, rest = option.removeprefix("auto:").partition(":")
    if kind == SELF and (not colon or (rest.isdecimal() and int(rest) > 0)):
        return Speculation(both, SELF, skipped=int(rest or 0), depth=depth)
    if both and not colon:  # of a draft model, which needs no word
        kind, rest = "draft", kind
    if kind not in KINDS or not rest:
        raise InvalidRequest("speculate", f"{option!r} is not {WORDS}")
    return Speculation(both, kind, Path(rest), depth=depth)
