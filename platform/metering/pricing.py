"""What tokens cost: pure integer arithmetic over a price snapshot. No floats, no rounding, no database."""

from dataclasses import dataclass
from uuid import UUID

from tenantry.runtime.messages import MAX_REJECTED_PER_TOKEN, Usage


@dataclass(frozen=True, slots=True)
class Price:
    """Nano-units per token. Immutable: a new price is a new id, and every event keeps the id it was charged by."""

    id: UUID
    prompt_nano: int
    cached_nano: int
    completion_nano: int
    rejected_nano: int = 0


@dataclass(frozen=True, slots=True)
class Charge:
    """The parts of one cost, in nano-units. cached tokens are part of the prompt, charged at their own rate.
    rejected: guesses that were computed and did not become text; those that did cost what any token costs."""

    prompt: int
    cached: int
    completion: int
    rejected: int = 0

    @property
    def total(self) -> int:
        return self.prompt + self.cached + self.completion + self.rejected


def charge(price: Price, usage: Usage) -> Charge:
    return Charge(
        prompt=(usage.prompt - usage.cached) * price.prompt_nano,
        cached=usage.cached * price.cached_nano,
        completion=usage.completion * price.completion_nano,
        rejected=usage.rejected * price.rejected_nano,
    )


def most_rejected(completion_tokens: int) -> int:
    """Guesses that the engine may let fall, and charge for, on the way to so many tokens."""
    return completion_tokens * MAX_REJECTED_PER_TOKEN


def ceiling(price: Price, prompt_tokens: int, completion_tokens: int) -> int:
    """The most a request can cost: nothing found in the cache, everything generated, as many guesses rejected as the
    engine allows itself. Reservations use it."""
    generated = completion_tokens * price.completion_nano + most_rejected(completion_tokens) * price.rejected_nano
    return prompt_tokens * price.prompt_nano + generated
