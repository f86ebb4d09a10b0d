"""Which tokens of a step use which adapter: built once, reused by every layer and both backends.

Owns the grouping only. Base rows never enter, so they cost nothing; ranks are the adapters' true ranks, never a
pool's maximum. The plan carries the table's epoch, so a stale plan cannot read a replaced adapter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

TILE = 32  # tokens per tile: weights are read once per tile
WEIGHT_READ = 8  # reading an adapter costs about as much as computing this many tokens


@dataclass(frozen=True, slots=True)
class LoraPlan:
    """tokens: int64 [N], indices into the step's tokens, stably grouped by slot, rows in order inside a group.
    run_slot: int32 [U], the slot of each group. run_start: int32 [U + 1], offsets of the groups in tokens.
    runs: (slot, first, past) once more, on the host. tiles: int64 [P, 3], the same cut to at most TILE tokens,
    dearest first. rank_sum: sum over groups of the adapter's highest rank.
    epoch: of the table that the plan was built against.
    """

    tokens: Tensor
    run_slot: Tensor
    run_start: Tensor
    runs: tuple[tuple[int, int, int], ...]
    tiles: Tensor
    rank_sum: int
    epoch: int

    @classmethod
    def build(
        cls,
        slots: Sequence[int | None],
        q_lens: Sequence[int],
        ranks: Mapping[int, int],
        epoch: int,
        device: str = "cpu",
    ) -> Self:
        """slots: per row, None for the base. q_lens: tokens per row. ranks: highest rank of each resident slot.
        Raises ValueError for a row whose slot is not resident."""
        if len(slots) != len(q_lens):
            raise ValueError("slots and q_lens: one entry per row")
        groups: dict[int, list[int]] = {}
        begin = 0
        for slot, q_len in zip(slots, q_lens, strict=True):
            if slot is not None:
                if slot not in ranks:
                    raise ValueError(f"slot {slot} holds no adapter")
                groups.setdefault(slot, []).extend(range(begin, begin + q_len))
            begin += q_len
        tokens: list[int] = []
        runs = []
        for slot in sorted(groups):
            runs.append((slot, len(tokens), len(tokens) + len(groups[slot])))
            tokens += groups[slot]
        tiles = [(slot, at, min(at + TILE, past)) for slot, first, past in runs for at in range(first, past, TILE)]
        tiles.sort(key=lambda tile: -ranks[tile[0]] * (WEIGHT_READ + tile[2] - tile[1]))
        return cls(
            torch.tensor(tokens, dtype=torch.int64, device=device),
            torch.tensor([run[0] for run in runs], dtype=torch.int32, device=device),
            torch.tensor([0, *(run[2] for run in runs)], dtype=torch.int32, device=device),
            tuple(runs),
            torch.tensor(tiles, dtype=torch.int64, device=device).view(-1, 3),
            sum(ranks[slot] for slot in groups),
            epoch,
        )
