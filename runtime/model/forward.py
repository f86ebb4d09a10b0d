"""How a step's rows become logits: as they come, or decode from captured graphs where the device has them.

The runner chooses one when it is made. Both give the same numbers; neither knows draws, results or loads.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from tenantry.runtime.model.batch import Batch, row_lengths
from tenantry.runtime.model.decoder import Decoder, Output
from tenantry.runtime.model.inputs import DecodeInputs
from tenantry.runtime.model.lora import Adapters
from tenantry.runtime.plan import Row

SHORTEST = 1024  # positions of the smallest graphs; each next holds four times as many


class Forward(Protocol):
    def __call__(self, rows: Sequence[Row]) -> Output:
        """Raises AdapterNotResident, or ValueError for rows whose pages do not cover their tokens. What it returns
        is overwritten by the next call."""
        ...

    def ahead(self, rows: Sequence[Row]) -> None:
        """While the device is at these rows: prepare for each of them to come again, one token longer. A wrong
        expectation costs time alone."""


class Eager:
    """Every step as it comes."""

    def __init__(self, decoder: Decoder, adapters: Adapters, page_size: int) -> None:
        self.decoder, self.adapters, self.page_size = decoder, adapters, page_size

    def __call__(self, rows: Sequence[Row]) -> Output:
        lora = self.adapters.plan([row.adapter for row in rows], row_lengths(rows))
        return self.decoder.forward(Batch.build(rows, self.page_size, lora, self.decoder.ops.device))

    def ahead(self, rows: Sequence[Row]) -> None:
        """What is computed on the spot has nothing ahead of it."""


@dataclass(frozen=True, slots=True)
class Captured:
    """replay: computes again from what lies in the inputs, into output."""

    replay: Callable[[], object]
    output: Output


Capture = Callable[[Callable[[], Output]], Captured]


class CudaCapture:
    """Captures on the current device; its graphs share one pool of memory, since they never run at once."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Callable[[], Output]) -> Captured:
        stream = torch.cuda.current_stream()
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(stream)
        with torch.cuda.stream(aside):
            for _ in range(2):  # compiles and allocates what a capture may not
                run()
        stream.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):  # loads go on beside it
            output = run()
        return Captured(graph.replay, output)


def buckets(most: int) -> tuple[int, ...]:
    """Numbers of rows that graphs are captured for: 1, 2, 4, 8, by eights to 64, by thirty-twos beyond; the last is
    no less than `most`."""
    sizes = [1, 2, 4, 8]
    while sizes[-1] < most:
        sizes.append(sizes[-1] + (8 if sizes[-1] < 64 else 32))
    return tuple(size for i, size in enumerate(sizes) if i == 0 or sizes[i - 1] < most)


class Graphed:
    """Decode steps replay a graph of the next larger bucket of rows and positions; all others run as they come.

    Padding rows store nothing, attend to nothing and are cut off the output. Graphs read adapters through the
    table's own tensors; when those outgrow their memory, graphs are captured anew.
    """

    def __init__(self, eager: Eager, most_rows: int, longest: int, capture: Capture) -> None:
        """most_rows: of one step. longest: positions that a row may have. Captures the graphs of short rows."""
        self._eager, self._capture = eager, capture
        self._rows, self._lengths = buckets(most_rows), [SHORTEST]
        while self._lengths[-1] < longest:
            self._lengths.append(4 * self._lengths[-1])
        self._lengths[-1] = min(longest, self._lengths[-1])
        self._inputs: dict[tuple[int, int], DecodeInputs] = {}
        self._captured: dict[tuple[int, int, bool], Captured] = {}
        self._tables = eager.adapters.table.tensors()
        for size in reversed(self._rows):  # the largest first: the others fit into its memory
            for adapted in (True, False):
                self._replay([], (size, self._lengths[0]), [], adapted)

    def __call__(self, rows: Sequence[Row]) -> Output:
        bucket = self._bucket(rows, 1)
        if bucket is None:
            return self._eager(rows)
        slots = self._eager.adapters.slots([row.adapter for row in rows])
        self._eager.adapters.table.wait(slots)
        output = self._replay(rows, bucket, slots, any(slot is not None for slot in slots))
        return Output(*(tensor[: len(rows)] for tensor in output))

    def ahead(self, rows: Sequence[Row]) -> None:
        bucket = self._bucket(rows, 2)
        if bucket is not None and bucket in self._inputs:
            adapters = self._eager.adapters
            self._inputs[bucket].expect(rows, adapters.slots([row.adapter for row in rows]), adapters.table)

    def _bucket(self, rows: Sequence[Row], more: int) -> tuple[int, int] | None:
        """Rows and positions of the graph for these rows with `more` positions than are computed of each; None where
        no graph holds them."""
        if not 0 < len(rows) <= self._rows[-1] or not all(map(_decodes, rows)):
            return None
        size = next(size for size in self._rows if size >= len(rows))
        longest = max(row.start for row in rows) + more
        length = next((length for length in self._lengths if length >= longest), None)
        return None if length is None else (size, length)

    def _replay(
        self, rows: Sequence[Row], bucket: tuple[int, int], slots: Sequence[int | None], adapted: bool
    ) -> Output:
        eager, table = self._eager, self._eager.adapters.table
        inputs = self._inputs.get(bucket)
        if inputs is None:
            inputs = self._inputs[bucket] = DecodeInputs(*bucket, eager.page_size, eager.decoder.ops.device)
        inputs.fill(rows, slots, table)
        tables = table.tensors()  # brought up to date, in place
        if tables is not self._tables:
            self._captured.clear()
            self._tables = tables
        key = (*bucket, adapted)
        captured = self._captured.get(key)
        if captured is None:
            batch = inputs.batch if adapted else inputs.base
            captured = self._captured[key] = self._capture(lambda: eager.decoder.forward(batch))
        captured.replay()
        return captured.output


def _decodes(row: Row) -> bool:
    """Whether a row computes its last token alone."""
    return len(row.tokens) == 1 and row.draw is not None and row.draft is None
