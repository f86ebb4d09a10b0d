"""Texts are followed where that saves more than it costs, measured on texts that are not; trials stay affordable."""

import itertools
import random

from tenantry.runtime.speculative.acceptance import Acceptance
from tenantry.runtime.speculative.asking import COMPARED, DEEPEST, FOLLOWING, Asker, Asking
from tenantry.runtime.speculative.depth import saved
from tenantry.runtime.speculative.trials import Trials

STEP, PROMPT = 1e-3, 100


class Times:
    """A step of 1 ms, a level of `level`, and a prompt's following of `follow` seconds a token."""

    def __init__(self, follow, level=1e-4, node=1e-5):
        self.follow, self.level, self.node = follow, level, node

    def seconds(self, rows, nodes=0, prompt=0, attended=0):
        return STEP + self.node * nodes

    def seconds_of(self, nodes):
        return self.seconds(1, nodes)

    def guessing(self, levels, guesses):
        return self.level * levels

    def following(self, tokens):
        return self.follow * tokens


class World:
    """One sequence after the other, each of 40 tokens; guesses stand as often as `right` says for texts that are
    followed whole, and for others."""

    def __init__(self, times, right):
        self.times, self.right = times, right
        self.acceptance, self.trials = Acceptance(), Trials()
        self.asking = Asking("eagle", 0, self.acceptance, self.trials)
        self.rng, self.ids = random.Random(1), itertools.count()
        self.took = self.spent = 0.0

    def serve(self, sequences):
        """Returns the share of them that was followed."""
        followed = 0
        for _ in range(sequences):
            name, drawn = next(self.ids), 1
            whole, deep = self.asking.opening(name, None, PROMPT)
            assert self.asking.opening(name, None, PROMPT)[0] == whole, "decided twice"
            followed += whole
            self.spent += self.times.following(PROMPT) * whole
            assert self.asking.began(name) == whole
            while drawn < 40:
                drawn += 1 + self.judge(name, whole, deep)
                self.asking.copied(1, [])
                self.asking.took(STEP, self.times.guessing(deep, deep))
                self.took += STEP
                (deep,) = self.asking.ahead([Asker(None, name, whole, False)], self.times.seconds_of, self.times)
            self.asking.ended(drawn)
            self.acceptance.end(name)
        return followed / sequences

    def judge(self, name, whole, deep):
        stood = [self.rng.random() < self.right[whole] for _ in range(deep)]
        reach = next((i for i, good in enumerate(stood) if not good), deep)
        judged = [(i, good) for i, good in enumerate(stood[: reach + 1])]
        self.acceptance.observe(None, name, self.asking.scale(whole), judged)
        return reach


def test_a_prompt_that_pays_is_followed():
    world = World(Times(follow=2e-5), {True: 0.9, False: 0.2})
    world.serve(20)
    assert world.serve(2 * COMPARED) >= 1 - 2 / COMPARED


def test_a_prompt_is_not_followed_where_the_end_of_a_text_says_as_much():
    world = World(Times(follow=2e-5), {True: 0.9, False: 0.9})
    world.serve(3 * COMPARED)
    assert world.serve(60) <= 0.2


def test_no_prompt_is_followed_that_costs_more_than_guesses_could_ever_save():
    world = World(Times(follow=1e-2), {True: 1.0, False: 0.0})
    assert world.serve(60) == 1 / 60  # of nothing measured the first tells


def test_where_guesses_are_useless_following_costs_no_more_than_trials():
    world = World(Times(follow=2e-5), {True: 0.0, False: 0.0})
    world.serve(60)
    world.spent = world.took = 0.0
    world.serve(100)
    assert world.spent <= 1.5 * FOLLOWING * world.took


def test_guesses_that_begin_to_stand_are_noticed():
    world = World(Times(follow=2e-5), {True: 0.0, False: 0.0})
    world.serve(60)
    world.right = {True: 0.95, False: 0.0}
    world.serve(400)
    assert world.serve(50) >= 0.9


def test_fixed_depth_follows_everything_and_no_model_nothing():
    assert Asking("eagle", 4, Acceptance(), Trials()).opening(1, None, 5) == (True, 4)
    nobody = Asking("", 4, Acceptance(), Trials())
    assert (nobody.opening(1, None, 5), nobody.began(1)) == ((False, 4), False)
    assert nobody.ahead([Asker(None, 1, False, False)], lambda nodes: 1.0, Times(0.0)) == [0]


def test_what_guessing_saves_is_time_per_token_and_never_negative():
    times = Times(0.0, level=0.0, node=0.0)
    assert abs(saved([1.0] * DEEPEST, 1, 1.0, times.seconds_of, times.guessing) - STEP * (1 - 1 / 9)) < 1e-12
    assert saved([0.5], 1, 1.0, lambda nodes: STEP * (1 + nodes), times.guessing) == 0.0
    both = saved([0.5], 2, 1.0, times.seconds_of, times.guessing)
    assert abs(both - STEP / 2 * (1 - 1 / 1.5)) < 1e-12
