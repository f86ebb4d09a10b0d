"""Step times are learned from few measurements, and nothing strange unlearns them."""

import random

from tenantry.runtime.scheduler.steptime import StepTimeModel


def truth(rows, nodes, prompt, attended):
    return 2e-3 + 3e-4 * rows + (1e-3 if nodes else 0) + 2e-4 * nodes + 5e-5 * prompt + 1e-7 * attended


def work(rng):
    nodes = rng.choice((0, 0, rng.randrange(1, 40)))
    return rng.randrange(1, 33), nodes, rng.choice((0, 0, rng.randrange(300))), rng.randrange(20_000)


def test_step_time_is_learned_and_one_outlier_does_not_unlearn_it():
    model, rng = StepTimeModel(), random.Random(2)
    for _ in range(400):
        done = work(rng)
        model.observe(*done, truth(*done) * rng.uniform(0.9, 1.1))
    model.observe(10, 0, 0, 100, 30.0)
    for done in ((1, 0, 0, 100), (1, 8, 0, 100), (8, 0, 0, 4000), (8, 30, 0, 4000), (4, 0, 256, 16000)):
        assert abs(model.seconds(*done) / truth(*done) - 1) < 0.15


def test_what_was_expected_is_told_beside_what_it_took():
    model = StepTimeModel()
    for _ in range(16):
        model.observe(4, 0, 0, 800, 0.01)
    assert (model.report().expected, model.report().took) == (0.0, 0.0), "nothing is expected before it has learned"
    for _ in range(40):
        model.observe(4, 0, 0, 800, 0.01)
    expected = model.seconds(4, 0, 0, 800)
    model.observe(4, 0, 0, 800, 0.05)
    told = model.report()
    assert abs(told.took - (39 * 0.01 + 0.05) / 40) < 1e-9, "the mean over the steps since"
    assert abs(told.expected - expected) < 1e-4


def test_what_guesses_cost_is_learned_from_a_handful_of_steps():
    model, rng = StepTimeModel(), random.Random(3)
    for step in range(60):
        done = (4, 6 if step % 10 == 0 else 0, 0, 800 + step)
        model.observe(*done, truth(*done) * rng.uniform(0.9, 1.1))
    assert abs(model.seconds(4, 6, 0, 800) / truth(4, 6, 0, 800) - 1) < 0.15


def test_a_slow_models_times_are_learned_as_fast():
    model = StepTimeModel()
    for step in range(40):
        done = (1, 3 if step % 4 == 0 else 0, 0, 200 + step)
        model.observe(*done, 100 * truth(*done))
    assert abs(model.seconds(1, 0, 0, 220) / (100 * truth(1, 0, 0, 220)) - 1) < 0.1
    assert abs(model.seconds(1, 3, 0, 220) / (100 * truth(1, 3, 0, 220)) - 1) < 0.1


def test_a_fleet_of_equal_steps_does_not_blow_the_fit_up():
    model = StepTimeModel()
    for _ in range(20_000):
        model.observe(1, 0, 0, 100, 0.005)
    assert 0.0045 < model.seconds(1, 0, 0, 100) < 0.0055
    assert model.seconds(2, 0, 0, 100) >= model.seconds(1, 0, 0, 100)
    for _ in range(5):
        model.observe(1, 4, 0, 100, 0.007)
    assert 0.0065 < model.seconds(1, 4, 0, 100) < 0.0075
    assert 0.0045 < model.seconds(1, 0, 0, 100) < 0.0055


def test_a_machine_that_became_slower_is_noticed():
    model = StepTimeModel()
    for seconds in (0.003, 0.006):
        for _ in range(1500):
            model.observe(2, 0, 0, 100, seconds)
    assert model.seconds(2, 0, 0, 100) > 0.0055


def test_guessing_time_follows_levels_and_guesses():
    model, rng = StepTimeModel(), random.Random(4)
    for _ in range(100):
        levels, rows = rng.randrange(5), rng.randrange(1, 9)
        followed = rng.choice((0, 0, 0, 200))
        took = 1e-4 + 8e-4 * levels + 5e-5 * levels * rows + 2e-5 * followed
        model.observe_guessing(levels, levels * rows, followed, took)
    assert (model.guessing(0, 0), model.following(0)) == (0.0, 0.0)
    assert abs(model.following(100) / 2e-3 - 1) < 0.1
    assert abs(model.guessing(4, 16) / (1e-4 + 32e-4 + 8e-4) - 1) < 0.1


def test_steps_that_are_alike_for_long_do_not_drive_the_coefficients_apart():
    """Four rows and a page of a prompt, over and over, with noise: no coefficient falls below 0 at another's cost, so
    that what is expected stays what was measured."""
    model, rng = StepTimeModel(), random.Random(5)
    for step in range(1500):
        done = (4, 0, 4 * (step % 3 > 0), 800 + step % 40)
        model.observe(*done, truth(*done) * rng.gauss(1.0, 0.1))
        if step > 100:
            assert abs(model.seconds(*done) / truth(*done) - 1) < 0.15
    assert model.error < 0.12
    assert abs(model.seconds(4, 0, 0, 820) / truth(4, 0, 0, 820) - 1) < 0.15
