"""How much to guess: one knapsack over the batch, from chances and the step-time model; nothing is a valid answer.

Each node's value is the chance that its whole path stands, its price the time that one more token adds to the step.
Nodes are taken dearest first while each adds more tokens per second than the step has without it, so that a step
with guesses is never expected to be slower per token than one without (runtime.md 6g). Pure.
"""

from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from typing import Protocol


class StepTime(Protocol):
    def seconds(self, tokens: int) -> float:
        """Expected time of a step that computes `tokens` tokens."""
        ...


def share(chances: Sequence[Sequence[float]], rows: int, tokens: int, budget: int, step: StepTime) -> list[int]:
    """How many nodes each row may spend.

    chances[r]: chance of each of row r's guesses, likeliest first. rows: rows that will draw a token, guesses or not.
    tokens: tokens of the step without guesses. budget: most guesses in the step.
    """
    taken = [0] * len(chances)
    heap = [(-row[0], r) for r, row in enumerate(chances) if row]
    heapify(heap)
    gain = float(rows)
    count = tokens
    while heap and count - tokens < budget:
        value, r = heappop(heap)
        now, more = step.seconds(count), step.seconds(count + 1)
        if -value * now <= gain * (more - now):  # (gain + value) / more <= gain / now
            break
        gain -= value
        count += 1
        taken[r] += 1
        if taken[r] < len(chances[r]):
            heappush(heap, (-chances[r][taken[r]], r))
    return taken


def level(
    chances: Sequence[Sequence[float]], rows: int, tokens: int, deepest: int, step: StepTime, each: float
) -> int:
    """How deep a proposer should guess for a whole batch at once, where every level costs it `each` seconds.

    chances[r][d]: chance that row r's chain stands down to depth d. The rest as in share. The same rule: one more
    level must bring more tokens per second than the step has without it.
    """
    gain, count, cost = float(rows), tokens, step.seconds(tokens)
    for depth in range(deepest):
        more = [row[depth] for row in chances if len(row) > depth]
        longer = cost + each + step.seconds(count + len(more)) - step.seconds(count)
        if not more or (gain + sum(more)) * cost <= gain * longer:
            return depth
        gain, count, cost = gain + sum(more), count + len(more), longer
    return deepest
