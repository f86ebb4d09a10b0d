"""What tokens cost: pure integer arithmetic over a price snapshot. No floats, no rounding, no database."""

from dataclasses import dataclass
from uuid import UUID

from tenantry.runtime.messages import Usage


@dataclass(frozen=True, slots=True)
class Price:
    """Nano-units per token. Immutable: a new price is a new id, and every event keeps the id it was charged by."""

    id: UUID
    prompt_nano: int
    cached_nano: int
    completion_nano: int


@dataclass(frozen=True, slots=True)
class Charge:
    """The parts of one cost, in nano-units. cached tokens are part of the prompt, charged at their own rate."""

    prompt: int
    cached: int
    completion: int

    @property
    def total(self) -> int:
        return self.prompt + self.cached + self.completion


def charge(price: Price, usage: Usage) -> Charge:
    return Charge(
        prompt=(usage.prompt - usage.cached) * price.prompt_nano,
        cached=usage.cached * price.cached_nano,
        completion=usage.completion * price.completion_nano,
    )


def ceiling(price: Price, prompt_tokens: int, completion_tokens: int) -> int:
    """The most a request can cost: nothing found in the cache, everything generated. Reservations use it."""
    return prompt_tokens * price.prompt_nano + completion_tokens * price.completion_nano
