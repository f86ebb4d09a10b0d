"""The knapsack never spends where it does not pay, and finds what pays most."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from tenantry.runtime.speculative.depth import WORTH, levels, share


def linear(fixed, each, first=0.0):
    """Seconds by guesses, the first of which costs more."""
    return lambda nodes: fixed + each * nodes + (first if nodes else 0.0)


falling = st.lists(st.floats(0.01, 0.99), max_size=5).map(lambda c: list(itertools.accumulate(c, lambda a, b: a * b)))
seconds = st.floats(0.001, 1)


@given(st.lists(falling, min_size=1, max_size=4), st.integers(0, 9), seconds, st.floats(0, 0.5), st.floats(0, 0.5))
def test_no_other_choice_of_guesses_gives_more_tokens_per_second(chances, budget, fixed, each, first):
    rows, cost = len(chances), linear(fixed, each, first)
    taken = share(chances, rows, budget, cost)
    assert sum(taken) <= budget

    def rate(counts):
        return (rows + sum(sum(row[:n]) for row, n in zip(chances, counts, strict=True))) / cost(sum(counts))

    every = itertools.product(*(range(len(row) + 1) for row in chances))
    best = max(rate(counts) for counts in every if sum(counts) <= budget)
    plain = rate([0] * rows)
    assert rate(taken) >= best * (1 - 1e-9) or (not any(taken) and best <= WORTH * plain * (1 + 1e-9))
    assert not any(taken) or rate(taken) > WORTH * plain * (1 - 1e-9)


def test_the_likeliest_guesses_win_the_budget():
    assert share([[0.9, 0.8], [0.5], [0.95]], 3, 3, linear(1, 0.001)) == [2, 0, 1]


def test_nothing_is_spent_when_every_token_costs_as_much_as_a_step():
    assert share([[0.9, 0.8]], 1, 8, linear(0.001, 1)) == [0]


def test_what_one_guess_does_not_pay_several_may():
    assert share([[0.5]], 1, 8, linear(1, 0.01, first=0.6)) == [0]
    assert share([[0.9, 0.8, 0.7]], 1, 8, linear(1, 0.01, first=0.6)) == [3]


@given(st.lists(falling, min_size=1, max_size=5), seconds, st.floats(0, 0.2), st.floats(0, 0.3), st.floats(0, 0.1))
def test_levels_are_guessed_only_where_the_batch_gains(chances, fixed, each, level, guess):
    rows, cost = len(chances), linear(fixed, each)
    deep = levels(chances, rows, cost, lambda depth, guesses: level * depth + guess * guesses)
    assert all(0 <= depth <= len(row) for depth, row in zip(deep, chances, strict=True))
    gain = rows + sum(sum(row[:depth]) for row, depth in zip(chances, deep, strict=True))
    took = cost(sum(deep)) + level * max(deep) + guess * sum(deep)
    assert gain / took >= rows / cost(0) * (1 - 1e-9)


def test_free_guesses_go_as_deep_as_they_may_and_dear_ones_nowhere():
    def deep(level):
        return levels([[0.9, 0.5, 0.1]], 1, linear(1, 0), lambda depth, guesses: level * depth)

    assert deep(0.0) == [3]
    assert deep(0.5) == [1]
    assert deep(0.95) == [0]


def test_rows_that_gain_nothing_are_left_out_of_what_others_guess():
    assert levels([[0.9, 0.8], [0.05, 0.01]], 2, linear(1, 0.05), lambda depth, guesses: 0.01 * guesses) == [2, 0]
