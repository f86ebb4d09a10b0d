"""Drawing tokens on CPU without sorting the vocabulary and without noise for tokens that cannot win.

Greedy rows are one argmax over the whole batch. Filters look at candidates: every token not below the n-th highest
block maximum, which holds the n likeliest. The draw is the reference's, the same noise per token id, but logarithms
are taken only where a block's highest logit and the token's uniform could beat the best so far.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tenantry.kernels.compiling import compiled
from tenantry.kernels.sampling import reference
from tenantry.kernels.sampling.logits import BLOCK, adjusted, at_most_nth, block_maxima, logprobs_of
from tenantry.kernels.sampling.noise import FIRST, GOLDEN, SECOND, key
from tenantry.kernels.sampling.spec import DrawLogprobs, DrawSpec, SampleResult

CANDIDATES = 256
HIGHEST = 54 * math.log(2)  # no noise exceeds it: the uniform lies half a step of 2**-53 from 1
SLACK = 1 + 1e-9

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@compiled
def heaviest(values: Floats, tops: Floats, least: float, draw: np.uint64, first: int) -> int:
    """argmax(values + noise) over values >= least, the lowest id among equals. first: any id that is kept."""
    best, winner = -np.inf, -1
    halves = np.empty(BLOCK, np.uint64)
    for b in range(-1, len(tops)):  # first `first`, so that the bar is high from the start
        begin, past = (first, first + 1) if b < 0 else (b * BLOCK, min((b + 1) * BLOCK, len(values)))
        top = values[first] if b < 0 else tops[b]
        gap = best - top
        if top < least or gap > HIGHEST:
            continue
        # noise = -log(-log u) <= -log(1 - u), so only 1 - u < exp(-gap) can win; rest = 2**53 * (1 - u), less a half
        limit = 2.0**53 * math.exp(min(-gap, 0.0)) * SLACK
        size = past - begin
        for i in range(size):
            x = draw + np.uint64(begin + i + 1) * np.uint64(GOLDEN)
            x = (x ^ (x >> np.uint64(30))) * np.uint64(FIRST)
            x = (x ^ (x >> np.uint64(27))) * np.uint64(SECOND)
            halves[i] = (x ^ (x >> np.uint64(31))) >> np.uint64(11)
        bar = np.uint64(max(2.0**53 - limit - 1, 0.0))
        for i in range(size):
            if halves[i] >= bar and values[begin + i] >= least:
                uniform = (np.float64(halves[i]) + 0.5) * 2.0**-53
                score = np.float64(values[begin + i]) - math.log(-math.log(uniform))
                if score > best or (score == best and begin + i < winner):
                    best, winner = score, begin + i
    return winner


def threshold(scaled: Floats, tops: Floats, top: np.float32, spec: DrawSpec) -> float:
    """The least logit that min_p, top_k and top_p keep. scaled: [V], logits over temperature; tops: block maxima."""
    size = len(scaled)
    least = float(top + np.log(spec.min_p)) if spec.min_p > 0 else -math.inf
    wanted = max(spec.top_k if spec.top_k < size else 0, CANDIDATES if spec.top_p < 1 else 0)
    if not wanted:
        return least
    values = scaled[scaled >= at_most_nth(tops, wanted)]
    if 0 < spec.top_k < size:
        least = max(least, float(np.partition(values, len(values) - spec.top_k)[len(values) - spec.top_k]))
    if spec.top_p < 1:
        ranked = np.sort(values)[::-1]
        weight = np.where(ranked >= least, np.exp((ranked - top).astype(np.float64)), 0)
        whole = weight.sum() if ranked[-1] < least or len(ranked) == size else mass(scaled, top, least)
        within = weight.cumsum()
        if within[-1] < spec.top_p * whole:
            return reference.threshold(scaled, spec)
        least = max(least, float(ranked[np.searchsorted(within, spec.top_p * whole)]))
    return least


def mass(scaled: Floats, top: np.float32, least: float) -> float:
    """Sum of exp(scaled - top) over scaled >= least."""
    weight = np.exp((scaled - top).astype(np.float64))
    return float(weight.sum() if least == -math.inf else weight[scaled >= least].sum())


def draw(logits: Floats, best: int, spec: DrawSpec) -> int:
    """logits: [V], finite. best: its argmax. Returns the drawn id, or -1 when every token is forbidden."""
    values = logits
    if spec.adjusts:
        values = adjusted(logits, spec)
        best = int(values.argmax())
        if values[best] == -np.inf:
            return -1
    if spec.temperature == 0:
        return best
    scaled = values / np.float32(spec.temperature)
    tops = block_maxima(scaled)
    lowest = float(np.finfo(np.float32).min)  # what is forbidden lies below it
    least = max(threshold(scaled, tops, scaled[best], spec), lowest) if spec.filters else lowest
    return int(heaviest(scaled, tops, least, np.uint64(key(spec.seed, spec.choice, spec.position)), best))


def sample(logits: Tensor, specs: Sequence[DrawSpec]) -> SampleResult:
    """Draw one token per row. logits: [R, V] fp32, left as they are, copied here from any other device."""
    rows = logits.cpu().numpy()
    if len(rows) != len(specs):
        raise ValueError("specs: one per row")
    best = rows.argmax(1).tolist()
    ids: list[int] = []
    logprobs: list[DrawLogprobs | None] = []
    lowest = rows.min(1).tolist()
    for row, spec, first, low in zip(rows, specs, best, lowest, strict=True):
        finite = math.isfinite(low) and math.isfinite(row[first])
        plain = spec.temperature == 0 and not spec.adjusts
        token = -1 if not finite else first if plain else draw(row, first, spec)
        ids.append(token)
        wanted = token >= 0 and spec.logprobs is not None
        logprobs.append(logprobs_of(row, token, spec.logprobs or 0) if wanted else None)
    return SampleResult(tuple(ids), tuple(logprobs), tuple(i < 0 for i in ids))
