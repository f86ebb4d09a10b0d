"""What is asked of the sampler for one row, and what it answers. Plain data; knows no request and no text."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DrawSpec:
    """How to draw one token.

    Applied in this order: logit_bias (added) and forbidden ids (removed); repetition_penalty over all of history,
    presence_penalty and frequency_penalty over history past prompt_length; temperature; min_p; top_k; top_p.
    temperature 0 takes the most likely token, the lowest id among equals. top_k 0, top_p 1 and min_p 0 keep all.
    Tokens that tie with the last one kept are kept too.
    seed, choice, position: the whole key of the noise (any int64). logprobs: None, or how many top alternatives.
    """

    seed: int = 0
    choice: int = 0
    position: int = 0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    forbidden: tuple[int, ...] = ()
    history: Sequence[int] = ()
    prompt_length: int = 0
    logprobs: int | None = None

    @property
    def adjusts(self) -> bool:
        """Whether logits change before the temperature."""
        return bool(
            self.logit_bias
            or self.forbidden
            or self.repetition_penalty != 1
            or self.presence_penalty
            or self.frequency_penalty
        )

    @property
    def filters(self) -> bool:
        """Whether some tokens are dropped before the draw."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0


@dataclass(frozen=True, slots=True)
class DrawLogprobs:
    """logprob: of the drawn token; top: the likeliest (id, logprob), falling. Natural logs of the distribution
    that the model gave, before anything in DrawSpec changed it."""

    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class SampleResult:
    """One entry per row. ids: the drawn token, -1 where faulty. logprobs: None where not asked for or faulty.
    faulty: the row's logits were not all finite, or every token was forbidden."""

    ids: tuple[int, ...]
    logprobs: tuple[DrawLogprobs | None, ...]
    faulty: tuple[bool, ...]
