"""Drawing tokens on CPU without sorting the vocabulary: the likeliest few are enough unless top_p says otherwise.

Greedy rows are an argmax. Filtered rows find the least kept logit by selection over CANDIDATES tokens and fall back
to the exact sort when those do not cover top_p. The draw itself is the reference's: the same noise per token id.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tenantry.kernels.sampling import reference
from tenantry.kernels.sampling.logits import adjusted, logprobs_of
from tenantry.kernels.sampling.noise import gumbel, key
from tenantry.kernels.sampling.spec import DrawLogprobs, DrawSpec, SampleResult

CANDIDATES = 256


def kept(scaled: NDArray[np.float32], spec: DrawSpec) -> NDArray[np.int64]:
    """Ids that survive min_p, top_k and top_p. scaled: [V], logits over temperature. Returns rising ids."""
    size = len(scaled)
    top = scaled.max()
    least = top + np.log(spec.min_p) if spec.min_p > 0 else -np.inf
    if 0 < spec.top_k < size:
        least = max(least, np.partition(scaled, size - spec.top_k)[size - spec.top_k])
    if spec.top_p < 1:
        count = min(CANDIDATES, size)
        ranked = np.sort(np.partition(scaled, size - count)[size - count :])[::-1]
        weight = np.where(ranked >= least, np.exp((ranked - top).astype(np.float64)), 0)
        whole = np.exp((scaled - top).astype(np.float64))[scaled >= least].sum()
        mass = weight.cumsum()
        if mass[-1] < spec.top_p * whole:
            return np.flatnonzero(reference.kept(scaled, spec))
        least = max(least, ranked[np.searchsorted(mass, spec.top_p * whole)])
    return np.flatnonzero((scaled >= least) & (scaled > -np.inf))


def draw(logits: NDArray[np.float32], spec: DrawSpec) -> int:
    """logits: [V], finite. Returns the drawn id, or -1 when every token is forbidden."""
    values = adjusted(logits, spec) if spec.adjusts else logits
    best = int(values.argmax())
    if values[best] == -np.inf:
        return -1
    if spec.temperature == 0:
        return best
    scaled = values / np.float32(spec.temperature)
    ids = kept(scaled, spec) if spec.filters else np.arange(len(scaled))
    return int(ids[np.argmax(scaled[ids] + gumbel(key(spec.seed, spec.choice, spec.position), ids))])


def sample(logits: Tensor, specs: Sequence[DrawSpec]) -> SampleResult:
    """Draw one token per row. logits: [R, V] fp32, left as they are, copied here from any other device."""
    rows = logits.cpu().numpy()
    ids: list[int] = []
    logprobs: list[DrawLogprobs | None] = []
    for row, spec in zip(rows, specs, strict=True):
        ids.append(draw(row, spec) if np.isfinite(row).all() else -1)
        wanted = ids[-1] >= 0 and spec.logprobs is not None
        logprobs.append(logprobs_of(row, ids[-1], spec.logprobs or 0) if wanted else None)
    return SampleResult(tuple(ids), tuple(logprobs), tuple(i < 0 for i in ids))
