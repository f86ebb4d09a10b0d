"""Tokens on their way: what a device was asked to draw, and whatever comes to the host in the same copy.

Owns the seam between asking and answering, so that the host works while a device draws. Where drawing is the host's
own work, nothing is on its way: the answer is there at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from tenantry.kernels.sampling.spec import DrawSpec, SampleResult


class Drawn(Protocol):
    def result(self) -> SampleResult:
        """Waits for the device."""

    def beside(self) -> Tensor:
        """What was to come along, on the host. Waits for the device."""


Draw = Callable[[Tensor, Sequence[DrawSpec], Tensor], Drawn]


@dataclass(frozen=True, slots=True)
class Ready:
    """The answer of a host."""

    drawn: SampleResult
    along: Tensor

    def result(self) -> SampleResult:
        return self.drawn

    def beside(self) -> Tensor:
        return self.along


def at_once(sample: Callable[[Tensor, Sequence[DrawSpec]], SampleResult]) -> Draw:
    def draw(logits: Tensor, specs: Sequence[DrawSpec], beside: Tensor) -> Drawn:
        return Ready(sample(logits, specs) if specs else SampleResult((), (), ()), beside)

    return draw
