"""How adapters reach a device that computes meanwhile: copies on a stream of their own, an event after each layer.

Owns the order between such copies and the steps around them. Copies begin when the device has done what it was asked
for before them, so they overwrite nothing that is still read; a step waits for a layer just before it reads it.
"""

# torch's streams and events carry no annotations.
# mypy: allow-untyped-calls

from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor

Fence = object
Pair = tuple[Tensor, Tensor]  # to, from


class Arrival(Protocol):
    """An adapter whose layers may still be on their way."""

    def wait(self, layer: int) -> None:
        """What the current stream is asked from now on begins when this layer and those before it are there."""

    def complete(self) -> bool:
        """Whether there is nothing left to wait for."""


class Copies(Protocol):
    """The way to one device."""

    def staging(self, nbytes: int) -> Tensor:
        """Host memory to copy from: uint8."""

    def room(self, nbytes: int) -> Tensor:
        """Memory on the device to copy to: uint8."""

    def fence(self) -> Fence:
        """Marks what the current stream has been asked so far. Belongs to the thread that runs the steps."""

    def send(self, layers: Sequence[Iterable[Pair]], after: Fence) -> Arrival:
        """Queue the copies of each layer, behind the fence. Any thread."""


class CudaArrival:
    def __init__(self, events: Sequence[torch.cuda.Event]) -> None:
        self._events = events

    def wait(self, layer: int) -> None:
        torch.cuda.current_stream().wait_event(self._events[layer])

    def complete(self) -> bool:
        return bool(self._events[-1].query())


class CudaCopies:
    """On the current CUDA device."""

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()

    def staging(self, nbytes: int) -> Tensor:
        return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)

    def room(self, nbytes: int) -> Tensor:
        with torch.cuda.stream(self._stream):  # so that it is given again only to copies behind a later fence
            return torch.empty(nbytes, dtype=torch.uint8, device="cuda")

    def fence(self) -> Fence:
        event = torch.cuda.Event()
        event.record()
        return event

    def send(self, layers: Sequence[Iterable[Pair]], after: Fence) -> Arrival:
        assert isinstance(after, torch.cuda.Event)
        self._stream.wait_event(after)
        events = []
        with torch.cuda.stream(self._stream):
            for pairs in layers:
                for to, source in pairs:
                    to.copy_(source, non_blocking=True)
                event = torch.cuda.Event()
                event.record()
                events.append(event)
        return CudaArrival(events)
