"""When a choice ends: the one place that turns drawn tokens into a finish reason.

Pure functions of the sampling rules and counts. It must not know pages, queues or text: stop strings are the
engine's, and reach the scheduler as a function of tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tenantry.runtime.messages import FinishReason, Sampling


@dataclass(frozen=True, slots=True)
class Ending:
    """kept: how many of the drawn tokens count, the ending one included. matched: the stop token id or string, if
    any."""

    kept: int
    reason: FinishReason
    matched: int | str | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """kept: how many of the tokens it took until the text held the stop string `matched`."""

    kept: int
    matched: str


Watch = Callable[[str, int, Sequence[int]], Hit | None]
"""The next tokens of (request id, choice), which are committed up to the hit: asked once about each token."""


def nobody_watches(request_id: str, choice: int, tokens: Sequence[int]) -> Hit | None:
    """No stop strings."""
    return None


def ending(sampling: Sampling, stops: frozenset[int], generated: int, drawn: Sequence[int]) -> Ending | None:
    """The first of `drawn` that ends a choice which had `generated` tokens before, or None if it goes on.

    A stop token ends it once min_tokens came before (it was forbidden until then); max_tokens ends it with "length".
    """
    for kept, token in enumerate(drawn, start=1):
        if token in stops and generated + kept > sampling.min_tokens:
            return Ending(kept, "stop", token if token in sampling.stop_token_ids else None)
        if generated + kept >= sampling.max_tokens:
            return Ending(kept, "length")
    return None
