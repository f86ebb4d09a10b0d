"""What changes a row of logits before the temperature: bias, forbidden ids, penalties. fp32 in, fp32 out.

Semantics of vLLM and the OpenAI API: repetition (CTRL, Keskar et al. 2019) divides positive and multiplies negative
logits of every token seen, prompt included; presence and frequency subtract for generated tokens only.
"""

import numpy as np
from numpy.typing import NDArray

from tenantry.kernels.sampling.spec import DrawLogprobs, DrawSpec

BLOCK = 256  # tokens whose highest logit decides whether they are looked at


def adjusted(logits: NDArray[np.float32], spec: DrawSpec) -> NDArray[np.float32]:
    """logits: [V]. Returns a changed copy [V]; forbidden tokens are -inf."""
    out = logits.copy()
    for token, bias in spec.logit_bias:
        out[token] += np.float32(bias)
    if spec.repetition_penalty != 1:
        seen = np.unique(np.asarray(spec.history, np.int64))
        values = out[seen]
        penalty = np.float32(spec.repetition_penalty)
        out[seen] = np.where(values > 0, values / penalty, values * penalty)
    if spec.presence_penalty or spec.frequency_penalty:
        generated = np.asarray(spec.history[spec.prompt_length :], np.int64)
        seen, counts = np.unique(generated, return_counts=True)
        out[seen] -= (spec.presence_penalty + spec.frequency_penalty * counts).astype(np.float32)
    out[list(spec.forbidden)] = -np.inf
    return out


def block_maxima(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """values: [V]. Returns the highest of each block of BLOCK, [V / BLOCK rounded up]."""
    whole = len(values) - len(values) % BLOCK
    tops: NDArray[np.float32] = values[:whole].reshape(-1, BLOCK).max(1)
    return tops if whole == len(values) else np.append(tops, values[whole:].max())


def at_most_nth(tops: NDArray[np.float32], n: int) -> float:
    """A bound that the n-th highest of all values is not below, from their block maxima."""
    return float(np.partition(tops, len(tops) - n)[len(tops) - n]) if n <= len(tops) else -np.inf


def log_normaliser(logits: NDArray[np.float32]) -> float:
    """log(sum(exp(logits))) in float64. logits: [V]."""
    top = float(logits.max())
    return top + float(np.log(np.exp(logits - np.float32(top)).sum(dtype=np.float64)))


def logprobs_of(logits: NDArray[np.float32], token: int, count: int) -> DrawLogprobs:
    """logits: [V], as the model gave them. count: how many of the likeliest to list; equals go by rising id."""
    total = log_normaliser(logits)
    top: tuple[tuple[int, float], ...] = ()
    if count:
        count = min(count, len(logits))
        ids = np.flatnonzero(logits >= at_most_nth(block_maxima(logits), count))
        ids = ids[np.lexsort((ids, -logits[ids]))][:count]
        top = tuple((int(i), float(logits[i]) - total) for i in ids)
    return DrawLogprobs(float(logits[token]) - total, top)
