"""Which tokens of a step use which adapter: built once, reused by every layer and both backends.

Owns the grouping only. Base rows never enter, so they cost nothing; ranks are the adapters' own. A reserved plan is
refilled in place: its tensors keep their addresses and its tiles are counted on the device, so a captured CUDA graph
replays with any mix. The plan carries the table's epoch, so a stale plan cannot read a replaced adapter.
"""

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tenantry.kernels.lora.transfer import Arrival

Ints = NDArray[np.int32]
Piece = tuple[int, int, int]  # slot, first, past
HEAD = 4  # words before the tiles: how many tiles, how many tokens, and two of padding
CPU_TILE, DECODE_TILE, PREFILL_TILE = 64, 16, 64  # most tokens per tile: weights are read once per tile
DECODE_TOKENS = 256  # adapted tokens up to which decode's tiles are taken on a GPU
WEIGHT_READ = 8  # reading an adapter costs about as much as computing this many tokens


class LoraPlan:
    """tokens: int32 [capacity], indices into the step's tokens, stably grouped by slot, rows in order inside a
    group. tiles: int32 [capacity, 3], slot, first and past in tokens, at most `tile` of them, dearest first.
    counts: int32 [HEAD], tiles and tokens in use; what lies beyond them is left over from earlier steps. All three
    are views of `buffer`. runs: (slot, first, past) of each group, on the host; host_counts, host_tiles,
    host_tokens: the tensors once more, there. work: sum over tiles of rank times (WEIGHT_READ + tokens). epoch: of
    the table that the plan was made against. arriving: adapters to wait for, see wait()."""

    __slots__ = (
        "arriving", "buffer", "counts", "epoch", "host", "host_counts", "host_tiles", "host_tokens", "n_tiles",
        "runs", "tile", "tiles", "tokens", "work",
    )  # fmt: skip

    def __init__(self, tiles: int, tokens: int, tile: int, device: str = "cpu", buffer: Tensor | None = None) -> None:
        """tiles, tokens: capacities. buffer: int32 [words] on the device, to use instead of memory of its own."""
        size = HEAD + 3 * tiles + tokens
        self.tile = tile
        self.buffer = torch.zeros(size, dtype=torch.int32, device=device) if buffer is None else buffer
        self.host = self.buffer
        if self.buffer.device.type != "cpu":
            self.host = torch.zeros(size, dtype=torch.int32, pin_memory=True)
        past = HEAD + 3 * tiles
        self.counts, self.tokens = self.buffer[:HEAD], self.buffer[past:]
        self.tiles = self.buffer[HEAD:past].view(tiles, 3)
        self._use(self.host)
        self.runs: tuple[tuple[int, int, int], ...] = ()
        self.n_tiles = self.work = 0
        self.epoch = -1
        self.arriving: tuple[Arrival, ...] = ()

    @classmethod
    def reserve(
        cls, tokens: int, rows: int, tile: int = DECODE_TILE, device: str = "cpu", buffer: Tensor | None = None
    ) -> Self:
        """An empty plan that takes any step of so many tokens in so many rows. buffer: as words() says."""
        return cls(_most_tiles(tokens, rows, tile), tokens, tile, device, buffer)

    @staticmethod
    def words(tokens: int, rows: int, tile: int = DECODE_TILE) -> int:
        """int32 values that a reserved plan takes."""
        return HEAD + 3 * _most_tiles(tokens, rows, tile) + tokens

    @classmethod
    def build(
        cls,
        slots: Sequence[int | None],
        q_lens: Sequence[int],
        ranks: NDArray[np.int32],
        epoch: int,
        device: str = "cpu",
        tile: int = 0,
    ) -> Self:
        """A plan of the step's own size. slots: per row, None for the base. q_lens: tokens per row. ranks: highest
        rank of every slot, negative where there is none. tile: 0 for what suits the device and the step. Raises
        ValueError for a row whose slot is not resident."""
        if not tile:
            adapted = sum(q for slot, q in zip(slots, q_lens, strict=False) if slot is not None)
            tile = CPU_TILE if device == "cpu" else DECODE_TILE if adapted <= DECODE_TOKENS else PREFILL_TILE
        runs, tiles, tokens, work = _group(slots, q_lens, ranks, tile)
        plan = cls(len(tiles), len(tokens), tile, device)
        plan._fill(runs, tiles, tokens, work, epoch)
        plan.send()
        return plan

    def refill(
        self,
        slots: Sequence[int | None],
        q_lens: Sequence[int],
        ranks: NDArray[np.int32],
        epoch: int,
        host: Tensor | None = None,
    ) -> None:
        """Replace the contents, as build() takes them. host: int32 [words], filled instead of the plan's own host
        memory, for a caller who copies it to `buffer` itself, with other inputs of the step. Otherwise one copy is
        queued here, and the next refill must wait until it is done. Raises ValueError for more tokens or tiles than
        were reserved, or a slot that is not resident; the plan is then unchanged."""
        runs, tiles, tokens, work = _group(slots, q_lens, ranks, self.tile)
        if len(tiles) > len(self.tiles) or len(tokens) > len(self.tokens):
            raise ValueError(f"{len(tokens)} tokens in {len(tiles)} tiles do not fit the plan's reserve")
        if host is not None:
            self._use(host)
        self._fill(runs, tiles, tokens, work, epoch)
        if host is None:
            self.send()

    def wait(self, layer: int) -> None:
        """Before a layer's first use: of adapters that are still on their way, this layer is there for what the
        current stream is asked next."""
        for arrival in self.arriving:
            arrival.wait(layer)

    def send(self) -> None:
        """Queue the copy to the device."""
        if self.host is not self.buffer:
            self.buffer.copy_(self.host, non_blocking=True)

    def _use(self, host: Tensor) -> None:
        words, past = host.numpy(), HEAD + self.tiles.numel()
        self.host = host
        self.host_counts: Ints = words[:HEAD]
        self.host_tiles: Ints = words[HEAD:past].reshape(-1, 3)
        self.host_tokens: Ints = words[past:]

    def _fill(self, runs: list[Piece], tiles: list[Piece], tokens: list[int], work: int, epoch: int) -> None:
        self.host_counts[:2] = len(tiles), len(tokens)
        if tiles:
            self.host_tiles[: len(tiles)] = tiles
            self.host_tokens[: len(tokens)] = tokens
        self.n_tiles, self.work, self.epoch, self.runs = len(tiles), work, epoch, tuple(runs)


def _most_tiles(tokens: int, rows: int, tile: int) -> int:
    """Every group ends in at most one tile that is not full."""
    return tokens // tile + min(tokens, rows)


def _group(
    slots: Sequence[int | None], q_lens: Sequence[int], ranks: NDArray[np.int32], tile: int
) -> tuple[list[Piece], list[Piece], list[int], int]:
    """Runs and tiles, the tokens that they count, and the work. At a step's size lists beat arrays by half."""
    if len(slots) != len(q_lens):
        raise ValueError("slots and q_lens: one entry per row")
    groups: dict[int, list[int]] = {}
    begin = 0
    for slot, q_len in zip(slots, q_lens, strict=True):
        if slot is not None:
            groups.setdefault(slot, []).extend(range(begin, begin + q_len))
        begin += q_len
    runs: list[Piece] = []
    tokens: list[int] = []
    cost: dict[int, int] = {}
    for slot in sorted(groups):
        cost[slot] = int(ranks[slot]) if 0 <= slot < len(ranks) else -1
        if cost[slot] < 0:
            raise ValueError(f"slot {slot} holds no adapter")
        runs.append((slot, len(tokens), len(tokens) + len(groups[slot])))
        tokens += groups[slot]
    tiles = [(slot, at, min(at + tile, past)) for slot, first, past in runs for at in range(first, past, tile)]
    work = {piece: cost[piece[0]] * (WEIGHT_READ + piece[2] - piece[1]) for piece in tiles}
    return runs, sorted(tiles, key=work.__getitem__, reverse=True), tokens, sum(work.values())
