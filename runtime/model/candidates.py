"""From a proposer's logits to the tokens that the target may draw next, each with a chance, drawn as the target does.

The target draws argmax(logits / T + noise), and its noise is known before it draws. So tokens are ranked by the
proposer's own logits under the same noise, and the softmax of that sum is their chance: what is uncertain is only how
far its logits are off. Without noise (temperature 0) that is the head's probability. Filters (top-k, top-p, min-p)
and noise are tried on the likeliest TOP tokens only: a guess may be wrong.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tenantry.kernels.sampling.logits import adjusted
from tenantry.kernels.sampling.noise import gumbel, key, stream
from tenantry.kernels.sampling.reference import distribution
from tenantry.kernels.sampling.spec import DrawSpec

TOP = 64
WIDE = 8  # most candidates of one node
DRAFTS = 2  # the stream of noise that drafts with a distribution of their own are drawn with

Candidates = list[tuple[int, float]]


def candidates(logits: Tensor, specs: Sequence[DrawSpec]) -> list[Candidates]:
    """logits: fp32 [N, vocab], -inf for tokens that are never guessed. Returns (token, chance), likeliest first."""
    changed = [n for n, spec in enumerate(specs) if spec.adjusts]
    if changed:
        logits = logits.cpu().clone()
        for n in changed:
            logits[n] = torch.from_numpy(adjusted(logits[n].numpy(), specs[n]))
    top = logits.topk(min(TOP, logits.shape[1]))
    totals = logits.logsumexp(-1)
    values, ids = top.values.cpu().numpy().astype(np.float64), top.indices.cpu().numpy()
    lines = zip(specs, values, ids, totals.tolist(), strict=True)
    return [_rank(spec, line, tokens, total) for spec, line, tokens, total in lines]


def drawn(logits: NDArray[np.float32], spec: DrawSpec, count: int) -> tuple[list[int], NDArray[np.float64]]:
    """At most `count` tokens drawn one after the other without replacement (Gumbel-top-k, Kool et al. 2019), by noise
    that the target never sees, and what they were drawn from: [V]. For rejection sampling. logits: [V]."""
    if not np.isfinite(logits).all():
        return [], np.zeros(len(logits))
    q = distribution(logits, spec)
    ids = np.flatnonzero(q)
    scores = np.log(q[ids]) + gumbel(stream(key(spec.seed, spec.choice, spec.position), DRAFTS), ids)
    return ids[np.argsort(-scores, kind="stable")[:count]].tolist(), q


def _rank(spec: DrawSpec, values: NDArray[np.float64], ids: NDArray[np.int64], total: float) -> Candidates:
    """values: falling logits of ids. total: log of the sum over the whole vocabulary."""
    if spec.temperature == 0:
        chances = np.exp(values - total)
    else:
        kept = _kept(spec, values)
        values, ids = values[:kept] / spec.temperature, ids[:kept]
        scores = values + gumbel(key(spec.seed, spec.choice, spec.position), ids)
        chances = np.exp(scores - scores.max())
        chances /= chances.sum()
        order = np.argsort(-chances, kind="stable")
        chances, ids = chances[order], ids[order]
    return [(int(t), float(c)) for t, c in zip(ids[:WIDE], chances[:WIDE], strict=True) if c > 0]


def _kept(spec: DrawSpec, values: NDArray[np.float64]) -> int:
    """How many of the likeliest tokens the request's filters leave, at least one."""
    chances = np.exp((values - values[0]) / spec.temperature)
    chances /= chances.sum()
    left = int((chances >= spec.min_p * chances[0]).sum())
    if spec.top_k:
        left = min(left, spec.top_k)
    if spec.top_p < 1:
        left = min(left, int(np.searchsorted(chances.cumsum(), spec.top_p)) + 1)
    return max(1, left)
