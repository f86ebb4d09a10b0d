"""Counter-based noise: a pure function of (seed, choice, position, token id), the same on any device and batch.

SplitMix64's finaliser (Steele, Lea and Flood, OOPSLA 2014) over uint64; Gumbel noise makes drawing an argmax
(Gumbel-max), so a filter that drops tokens never changes the noise of those that stay.
"""

import numpy as np
from numpy.typing import NDArray

GOLDEN = 0x9E3779B97F4A7C15
FIRST = 0xBF58476D1CE4E5B9
SECOND = 0x94D049BB133111EB
MASK = 0xFFFFFFFFFFFFFFFF


def mix(x: int) -> int:
    """SplitMix64's finaliser of one uint64."""
    x = ((x ^ (x >> 30)) * FIRST) & MASK
    x = ((x ^ (x >> 27)) * SECOND) & MASK
    return x ^ (x >> 31)


def key(seed: int, choice: int, position: int) -> int:
    """One uint64 that stands for a draw."""
    state = 0
    for part in (seed, choice, position):
        state = mix((state + GOLDEN + (part & MASK)) & MASK)
    return state


def stream(draw: int, number: int) -> int:
    """Another key for the same draw, whose noise has nothing to do with its own. number: above 0, one per purpose."""
    return mix((draw ^ mix(number)) & MASK)


def uniform(draw: int, ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """Noise strictly between 0 and 1. draw: a key. ids: int64 [N], token ids mostly. Returns float64 [N]."""
    x = np.uint64(draw) + (ids.astype(np.uint64) + np.uint64(1)) * np.uint64(GOLDEN)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(FIRST)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(SECOND)
    x ^= x >> np.uint64(31)
    return np.asarray(((x >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53)


def gumbel(draw: int, ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """Gumbel(0, 1) noise from uniform(). Returns float64 [N]."""
    return np.asarray(-np.log(-np.log(uniform(draw, ids))))
