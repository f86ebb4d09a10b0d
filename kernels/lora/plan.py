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

Ints = NDArray[np.int32]
HEAD = 4  # words before the tiles: how many tiles, how many tokens, and two of padding
CPU_TILE, DECODE_TILE, PREFILL_TILE = 64, 16, 64  # most tokens per tile: weights are read once per tile
DECODE_TOKENS = 256  # adapted tokens up to which decode's tiles are taken on a GPU
WEIGHT_READ = 8  # reading an adapter costs about as much as computing this many tokens


class LoraPlan:
    """tokens: int32 [capacity], indices into the step's tokens, stably grouped by slot, rows in order inside a
    group. tiles: int32 [capacity, 3], slot, first and past in tokens, at most `tile` of them, dearest first.
    counts: int32 [HEAD], tiles and tokens in use; what lies beyond them is left over from earlier steps. All three
    are views of `buffer`. runs: (slot, first, past) of each group, on the host; host_tiles, host_tokens: the tensors
    once more, there. epoch: of the table that the plan was made against."""

    __slots__ = (
        "buffer", "counts", "epoch", "host", "host_tiles", "host_tokens", "n_tiles", "runs", "tile", "tiles", "tokens"
    )  # fmt: skip

    def __init__(self, tiles: int, tokens: int, tile: int, device: str = "cpu", buffer: Tensor | None = None) -> None:
        """tiles, tokens: capacities. buffer: int32 [words] on the device, to use instead of memory of its own."""
        size = HEAD + 3 * tiles + tokens
        self.tile = tile
        self.buffer = torch.zeros(size, dtype=torch.int32, device=device) if buffer is None else buffer
        self.host = self.buffer
        if self.buffer.device.type != "cpu":
            self.host = torch.zeros(size, dtype=torch.int32, pin_memory=True)
        self.counts, self.tiles, self.tokens = _views(self.buffer, tiles)
        _, host_tiles, host_tokens = _views(self.host, tiles)
        self.host_tiles: Ints = host_tiles.numpy()
        self.host_tokens: Ints = host_tokens.numpy()
        self.runs: tuple[tuple[int, int, int], ...] = ()
        self.n_tiles = 0
        self.epoch = -1

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
        runs, tiles, tokens = _group(slots, q_lens, ranks, tile)
        plan = cls(len(tiles), len(tokens), tile, device)
        plan._fill(runs, tiles, tokens, epoch)
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
        runs, tiles, tokens = _group(slots, q_lens, ranks, self.tile)
        if len(tiles) > len(self.tiles) or len(tokens) > len(self.tokens):
            raise ValueError(f"{len(tokens)} tokens in {len(tiles)} tiles do not fit the plan's reserve")
        if host is not None:
            _, host_tiles, host_tokens = _views(host, len(self.tiles))
            self.host_tiles, self.host_tokens = host_tiles.numpy(), host_tokens.numpy()
            self.host = host
        self._fill(runs, tiles, tokens, epoch)
        if host is None:
            self.send()

    def send(self) -> None:
        """Queue the copy to the device."""
        if self.host is not self.buffer:
            self.buffer.copy_(self.host, non_blocking=True)

    def _fill(self, runs: Ints, tiles: Ints, tokens: Ints, epoch: int) -> None:
        self.host_tiles[: len(tiles)] = tiles
        self.host_tokens[: len(tokens)] = tokens
        self.host[0], self.host[1] = len(tiles), len(tokens)
        self.n_tiles, self.epoch = len(tiles), epoch
        self.runs = tuple((slot, first, past) for slot, first, past in runs.tolist())


def _most_tiles(tokens: int, rows: int, tile: int) -> int:
    """Every group ends in at most one tile that is not full."""
    return tokens // tile + min(tokens, rows)


def _views(buffer: Tensor, tiles: int) -> tuple[Tensor, Tensor, Tensor]:
    past = HEAD + 3 * tiles
    return buffer[:HEAD], buffer[HEAD:past].view(tiles, 3), buffer[past:]


def _group(
    slots: Sequence[int | None], q_lens: Sequence[int], ranks: NDArray[np.int32], tile: int
) -> tuple[Ints, Ints, Ints]:
    """Runs [U, 3] and tiles [P, 3] of (slot, first, past), and tokens [N]."""
    if len(slots) != len(q_lens):
        raise ValueError("slots and q_lens: one entry per row")
    slot = np.array([-1 if s is None else s for s in slots], np.int32)
    lengths = np.array(q_lens, np.int32)
    begin = lengths.cumsum(dtype=np.int32) - lengths
    order = slot.argsort(kind="stable")[np.count_nonzero(slot < 0) :]
    slot, lengths, begin = slot[order], lengths[order], begin[order]
    if len(slot) and (slot[-1] >= len(ranks) or ranks[slot].min() < 0):
        missing = next(int(s) for s in slot if s >= len(ranks) or ranks[s] < 0)
        raise ValueError(f"slot {missing} holds no adapter")
    past = lengths.cumsum(dtype=np.int32)
    tokens = np.arange(past[-1] if len(past) else 0, dtype=np.int32)
    tokens += np.repeat(begin - past + lengths, lengths)
    last = np.flatnonzero(np.append(slot[1:] != slot[:-1], True)) if len(slot) else order
    ends = past[last]
    runs = np.stack((slot[last], np.concatenate((ends[:0], [0], ends[:-1]))[: len(ends)], ends), 1).astype(np.int32)
    sizes = runs[:, 2] - runs[:, 1]
    cuts = -(-sizes // tile)
    run = np.repeat(np.arange(len(runs)), cuts)
    first = runs[run, 1] + tile * (np.arange(len(run)) - np.repeat(cuts.cumsum() - cuts, cuts))
    tiles = np.stack((runs[run, 0], first, np.minimum(first + tile, runs[run, 2])), 1).astype(np.int32)
    dearest = (-ranks[tiles[:, 0]] * (WEIGHT_READ + tiles[:, 2] - tiles[:, 1])).argsort(kind="stable")
    return runs, tiles[dearest], tokens
