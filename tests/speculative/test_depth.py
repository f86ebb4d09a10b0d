"""The knapsack never spends where it does not pay; acceptance and step time are learned."""

import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from tenantry.runtime.scheduler.steptime import StepTimeModel
from tenantry.runtime.speculative.acceptance import PRIOR, Acceptance
from tenantry.runtime.speculative.depth import level, share


class Linear:
    def __init__(self, fixed, each):
        self.fixed, self.each = fixed, each

    def seconds(self, tokens, attended=0):
        return self.fixed + self.each * tokens


falling = st.lists(st.floats(0.01, 0.99), max_size=5).map(lambda c: list(itertools.accumulate(c, lambda a, b: a * b)))


@given(st.lists(falling, max_size=5), st.integers(0, 12), st.floats(0.001, 1), st.floats(0, 0.5))
def test_a_step_with_guesses_is_expected_to_be_no_slower_per_token(chances, budget, fixed, each):
    rows, step = max(len(chances), 1), Linear(fixed, each)
    taken = share(chances, rows, rows, budget, step)
    assert sum(taken) <= budget
    gain = rows + sum(sum(row[:n]) for row, n in zip(chances, taken, strict=True))
    assert gain / step.seconds(rows + sum(taken)) >= rows / step.seconds(rows) * (1 - 1e-9)


def test_the_likeliest_guesses_win_the_budget():
    assert share([[0.9, 0.8], [0.5], [0.95]], 3, 3, 3, Linear(1, 0.001)) == [2, 0, 1]


def test_nothing_is_spent_when_every_token_costs_as_much_as_a_step():
    assert share([[0.9, 0.8]], 1, 1, 8, Linear(0, 1)) == [0]


def test_rates_follow_what_was_seen_and_start_from_the_neighbours():
    known, rng = Acceptance(), random.Random(1)
    assert known.rate(b"a", "draft", 0) == PRIOR
    for _ in range(600):
        known.observe(b"a", "draft", sum(1 for _ in itertools.takewhile(lambda _: rng.random() < 0.9, range(4))), 4)
        known.observe(b"b", "draft", 0, 4)
    assert abs(known.rate(b"a", "draft", 0) - 0.9) < 0.12
    assert known.rate(b"b", "draft", 0) < 0.15
    assert known.rate(b"b", "draft", 0) < known.rate(b"new", "draft", 0) < known.rate(b"a", "draft", 0)
    chances = known.chances(b"a", "draft", 4)
    assert chances == sorted(chances, reverse=True)
    known.forget(b"a")
    assert known.rate(b"a", "draft", 0) == known.rate(b"new", "draft", 0)


def test_a_guess_whose_ancestor_fell_teaches_nothing():
    known = Acceptance()
    for _ in range(50):
        known.observe(None, "draft", 0, 4)
    assert known.rate(None, "draft", 0) < 0.3
    assert known.rate(None, "draft", 1) == PRIOR


def test_step_time_is_learned_and_one_outlier_does_not_unlearn_it():
    model, rng = StepTimeModel(), random.Random(2)

    def truth(tokens, attended):
        return 0.004 + 0.0002 * tokens + 0.001 * attended / 1000

    for _ in range(400):
        tokens, attended = rng.randrange(1, 300), rng.randrange(0, 20000)
        model.observe(tokens, attended, truth(tokens, attended) * rng.uniform(0.95, 1.05))
    model.observe(10, 100, 30.0)
    for tokens, attended in ((1, 0), (64, 4000), (256, 16000)):
        assert abs(model.seconds(tokens, attended) / truth(tokens, attended) - 1) < 0.15


def test_a_fleet_of_equal_steps_does_not_blow_the_fit_up():
    model = StepTimeModel()
    for _ in range(20_000):
        model.observe(1, 100, 0.005)
    assert 0.004 < model.seconds(1, 100) < 0.006
    assert model.seconds(2, 100) >= model.seconds(1, 100)


@given(st.lists(falling, min_size=1, max_size=5), st.floats(0.001, 1), st.floats(0, 0.2), st.floats(0, 0.5))
def test_a_level_is_guessed_only_where_the_batch_gains(chances, fixed, each, guessing):
    rows, step = len(chances), Linear(fixed, each)
    deep = level(chances, rows, rows, 5, step, guessing)
    taken = [row[:deep] for row in chances]
    gain = rows + sum(map(sum, taken))
    cost = step.seconds(rows + sum(map(len, taken))) + deep * guessing
    assert gain / cost >= rows / step.seconds(rows) * (1 - 1e-9)


def test_free_guesses_go_as_deep_as_they_may_and_dear_ones_nowhere():
    assert level([[0.9, 0.5, 0.1]], 1, 1, 3, Linear(1, 0), 0.0) == 3
    assert level([[0.9, 0.5, 0.1]], 1, 1, 3, Linear(1, 0), 0.95) == 0
    assert level([[0.9, 0.5, 0.1]], 1, 1, 3, Linear(1, 0), 0.5) == 1
