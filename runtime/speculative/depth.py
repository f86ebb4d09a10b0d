"""How much to guess: one knapsack over the batch, from chances and measured times; nothing is a valid answer.

Each guess is worth the chance that its whole path stands, and costs what it adds to the step. Guesses are taken
dearest first, and of all their prefixes the one with the most tokens per second wins, the empty one included: a step
with guesses is never expected to give fewer tokens per second than one without (runtime.md 6g). Pure.
"""

from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush

WORTH = 1.02  # times as many tokens per second as without: less is not worth the trouble of judging


def share(chances: Sequence[Sequence[float]], rows: int, budget: int, cost: Callable[[int], float]) -> list[int]:
    """How many nodes each row may spend.

    chances[r]: chance of each of row r's guesses, likeliest first. rows: rows that will draw a token, guesses or not.
    budget: most guesses in the step. cost: seconds of the step with so many guesses.
    """
    heap = [(-row[0], r) for r, row in enumerate(chances) if row]
    heapify(heap)
    order: list[int] = []
    best, rate, gain, so_far = 0, WORTH * rows / cost(0), float(rows), cost(0)
    taken = [0] * len(chances)
    while heap and len(order) < budget:
        value, r = heappop(heap)
        after = cost(len(order) + 1)
        if order and -value <= rate * (after - so_far):  # later guesses are worth less and cost no less
            break
        gain, so_far = gain - value, after
        order.append(r)
        taken[r] += 1
        if gain > rate * after:
            best, rate = len(order), gain / after
        if taken[r] < len(chances[r]):
            heappush(heap, (-chances[r][taken[r]], r))
    taken = [0] * len(chances)
    for r in order[:best]:
        taken[r] += 1
    return taken


def levels(
    chances: Sequence[Sequence[float]],
    rows: float,
    cost: Callable[[int], float],
    guessing: Callable[[int, int], float],
) -> list[int]:
    """How deep a proposer should guess for each row, before it has guessed anything.

    chances[r][d]: chance that row r's path stands down to depth d, falling. rows: tokens that the step brings without
    that. cost: as in share. guessing: seconds that the proposer takes for (levels, guesses of all rows together). A
    row goes on from level to level while its own guess is worth what it adds; how deep all go together is decided as
    in share.
    """
    base = rows / cost(0)
    node, guess = cost(2) - cost(1), guessing(1, 2) - guessing(1, 1)
    going = [r for r, row in enumerate(chances) if row]
    reach = [0] * len(chances)
    best, rate, gain, guesses = 0, WORTH * base, float(rows), 0
    depth = 0
    while going:
        going = [r for r in going if len(chances[r]) > depth and chances[r][depth] > base * (node + guess)]
        if not going:
            break
        depth += 1
        for r in going:
            reach[r] = depth
            gain += chances[r][depth - 1]
        guesses += len(going)
        after = cost(guesses) + guessing(depth, guesses)
        if gain > rate * after:
            best, rate = depth, gain / after
    return [min(r, best) for r in reach]


def saved(
    chances: Sequence[float],
    rows: int,
    each: float,
    cost: Callable[[int], float],
    guessing: Callable[[int, int], float],
) -> float:
    """Seconds that a token takes less of the device when so many rows are all guessed as deep as pays best; 0 where
    nothing pays. chances, cost, guessing: as in levels. each: tokens that a row's step brings without that."""
    plain = best = cost(0) / (rows * each)
    gain = each
    for depth, chance in enumerate(chances, 1):
        gain += chance
        best = min(best, (cost(depth * rows) + guessing(depth, depth * rows)) / (rows * gain))
    return plain - best
