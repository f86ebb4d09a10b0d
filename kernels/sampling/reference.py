"""Drawing tokens the plain way: a full sort of the vocabulary per row. The oracle for the fast sampler."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tenantry.kernels.sampling.logits import adjusted, logprobs_of
from tenantry.kernels.sampling.noise import gumbel, key
from tenantry.kernels.sampling.spec import DrawLogprobs, DrawSpec, SampleResult


def threshold(scaled: NDArray[np.float32], spec: DrawSpec) -> float:
    """The least logit that min_p, top_k and top_p keep. scaled: [V], logits over temperature."""
    ranked = np.sort(scaled)[::-1]
    least = ranked[0] + np.log(spec.min_p) if spec.min_p > 0 else -np.inf
    if 0 < spec.top_k < len(ranked):
        least = max(least, ranked[spec.top_k - 1])
    if spec.top_p < 1:
        weight = np.exp((ranked - ranked[0]).astype(np.float64))
        mass = np.where(ranked >= least, weight, 0).cumsum()
        least = max(least, ranked[np.searchsorted(mass, spec.top_p * mass[-1])])
    return float(least)


def kept(scaled: NDArray[np.float32], spec: DrawSpec) -> NDArray[np.bool_]:
    """Which tokens survive min_p, top_k and top_p. scaled: [V], logits over temperature. Returns bool [V]."""
    keep: NDArray[np.bool_] = (scaled >= threshold(scaled, spec)) & (scaled > -np.inf)
    return keep


def draw(logits: NDArray[np.float32], spec: DrawSpec) -> int:
    """logits: [V], finite. Returns the drawn id, or -1 when every token is forbidden."""
    values = adjusted(logits, spec)
    best = int(values.argmax())
    if values[best] == -np.inf:
        return -1
    if spec.temperature == 0:
        return best
    scaled = values / np.float32(spec.temperature)
    ids = np.flatnonzero(kept(scaled, spec))
    return int(ids[np.argmax(scaled[ids] + gumbel(key(spec.seed, spec.choice, spec.position), ids))])


def distribution(logits: NDArray[np.float32], spec: DrawSpec) -> NDArray[np.float64]:
    """What draw() draws from: [V], summing to one, or all 0 when every token is forbidden. logits: [V], finite.
    temperature 0 puts everything on one token."""
    values = adjusted(logits, spec)
    if values.max() == -np.inf:
        return np.zeros(len(values))
    if spec.temperature == 0:
        return np.asarray(np.arange(len(values)) == values.argmax(), np.float64)
    scaled = values / np.float32(spec.temperature)
    weight = np.where(kept(scaled, spec), np.exp((scaled - scaled.max()).astype(np.float64)), 0)
    return np.asarray(weight / weight.sum())


def sample(logits: Tensor, specs: Sequence[DrawSpec]) -> SampleResult:
    """Draw one token per row. logits: [R, V] fp32, left as they are. specs: one per row."""
    rows = logits.float().cpu().numpy()
    ids: list[int] = []
    logprobs: list[DrawLogprobs | None] = []
    for row, spec in zip(rows, specs, strict=True):
        ids.append(draw(row, spec) if np.isfinite(row).all() else -1)
        wanted = ids[-1] >= 0 and spec.logprobs is not None
        logprobs.append(logprobs_of(row, ids[-1], spec.logprobs or 0) if wanted else None)
    return SampleResult(tuple(ids), tuple(logprobs), tuple(i < 0 for i in ids))
