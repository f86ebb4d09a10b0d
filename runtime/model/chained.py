"""Guesses in one call, where the device can and what is asked is plain enough.

Owns the translation between rows that are guessed for and a chain's arrays. What needs a text's history, a filter or
a distribution of its own is not plain, and goes level by level.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from torch import Tensor

from tenantry.kernels.chain.contract import Chain, Floats, Ints
from tenantry.kernels.lora.plan import LoraPlan
from tenantry.kernels.sampling.noise import key
from tenantry.runtime.model.sampler import spec_of
from tenantry.runtime.plan import Draw, Row

MOST_GIVEN = 6  # tokens of a text that are computed one after the other; of more all but the last are together
NO_FEATURES = np.zeros((0, 0, 0), np.float32)


class Walked(NamedTuple):
    """What a chain has written: see kernels/chain/contract.py."""

    given: int
    tokens: Ints
    likely: Ints
    chances: Floats

    def token(self, row: int, level: int) -> int:
        """Of a level, counted from 0."""
        return int(self.tokens[row, self.given + level])

    def candidates(self, row: int, level: int) -> list[tuple[int, float]]:
        """The likeliest tokens of a level, and their chances."""
        at = row, self.given + level
        return list(zip(self.likely[at].tolist(), self.chances[at].tolist(), strict=True))


def plain(draws: Sequence[Draw], ranked: Sequence[bool]) -> bool:
    """Whether walk() takes these. ranked: whether other tokens than the drawn one are asked for, which noise ranks
    otherwise."""
    return all(_plain(draw, rank) for draw, rank in zip(draws, ranked, strict=True))


def far_behind(row: Row) -> tuple[Row, Row] | None:
    """All but the last of a row's tokens, to be computed first, and the last; None for a row that has only few."""
    before = len(row.tokens) - 1
    if before < MOST_GIVEN:
        return None
    first = msgspec.structs.replace(row, tokens=row.tokens[:-1], draw=None)
    return first, msgspec.structs.replace(row, tokens=row.tokens[-1:], start=row.start + before)


def walk(
    chain: Chain,
    rows: Sequence[Row],
    draws: Sequence[Draw],
    levels: Sequence[int],
    width: int,
    plan: LoraPlan | None,
    features: Sequence[Tensor] = (),
) -> Walked:
    """So many levels of each row. width: candidates for each. plan: over the rows, one token each. features: of each
    row's tokens, fp32 [n, hidden]."""
    given = max(len(row.tokens) for row in rows)
    shape = len(rows), given + max(levels)
    tokens, keys, temperatures = (
        np.zeros(shape, np.int64),
        np.zeros(shape, np.uint64),
        np.zeros(len(rows), np.float32),
    )
    likely, chances = np.zeros((*shape, width), np.int64), np.zeros((*shape, width), np.float32)
    joined = np.zeros((len(rows), given, features[0].shape[1]), np.float32) if features else NO_FEATURES
    for r, (row, draw, deep) in enumerate(zip(rows, draws, levels, strict=True)):
        tokens[r, given - len(row.tokens) : given] = row.tokens
        sampling = draw.sampling
        if sampling.temperature:
            temperatures[r] = sampling.temperature
            for level in range(deep):
                keys[r, given + level] = key(sampling.seed, draw.choice, draw.position + level)
        if features:
            joined[r, given - len(row.tokens) :] = features[r].numpy()
    begins = np.array([given - len(row.tokens) for row in rows], np.int64)
    ends = given + np.array(levels, np.int64)
    starts, pages = np.array([row.start for row in rows], np.int64), [row.pages for row in rows]
    chain(tokens, joined, given, begins, ends, starts, pages, keys, temperatures, likely, chances, plan)
    return Walked(given, tokens, likely, chances)


def _plain(draw: Draw, ranked: bool) -> bool:
    spec = spec_of(draw)
    return not (spec.adjusts or spec.filters or (ranked and spec.temperature > 0))
