"""Who guesses, how much and for whom: by what was measured, within what is allowed, and counted for whom it was."""

import random

from tenantry.runtime.scheduler.steptime import StepTimeModel
from tenantry.runtime.speculative.lookup import KIND
from tenantry.runtime.speculative.speculator import LONGEST, Candidate, Judged, Speculator
from tenantry.runtime.speculative.tree import DraftTree

NAMESPACE, ADAPTER = b"n" * 32, b"a" * 32


class Times:
    """A step of 1 ms, 10 us more for each guess, and 0.1 ms for a level of guessing, unless told otherwise. follow:
    for a token of a prompt that the model follows."""

    def __init__(self, node=1e-5, level=1e-4, follow=1e-6):
        self.node, self.level, self.follow = node, level, follow

    def seconds(self, rows, nodes=0, prompt=0, attended=0):
        return 1e-3 + self.node * nodes

    def guessing(self, levels, guesses):
        return self.level * levels

    def following(self, tokens):
        return self.follow * tokens


class World:
    """Sequences whose next token `says` knows; a model that is right as often as `right` says."""

    def __init__(self, speculator, says, right=0.0, times=None):
        self.speculator, self.says, self.right = speculator, says, right
        self.times = times or Times()
        self.rng = random.Random(1)
        self.texts, self.drafted, self.steps, self.asked = {}, [], 0, 0

    def step(self, sequence=1, adapter=None, nodes=63, room=200):
        text = self.texts.setdefault(sequence, [1, 2, 3])
        one = Candidate(sequence, NAMESPACE, adapter, text, room, nodes)
        guess = self.speculator.propose([one], 100, self.times).get(sequence)
        draft = guess.draft if guess is not None else None
        drawn = [self.says(text)]
        while draft is not None and len(drawn) <= len(draft.tokens) and draft.tokens[len(drawn) - 1] == drawn[-1]:
            drawn.append(self.says([*text, *drawn]))
        text += drawn
        ahead = guess.ahead if guess is not None else 0
        self.asked += ahead
        if ahead:
            tokens = []
            for _ in range(ahead):
                token = self.says([*text, *tokens])
                tokens.append(token if self.rng.random() < self.right else -1)
            self.speculator.proposed(sequence, len(text), DraftTree.chain(tokens, kind="draft"))
        if draft is not None:
            self.speculator.learn([Judged(sequence, draft, tuple(drawn), len(drawn) - 1)])
        self.drafted.append(len(draft.tokens) if draft is not None else 0)
        self.speculator.took(self.times.seconds(1, self.drafted[-1]), self.times.guessing(ahead, ahead))
        return drawn


def cycle(text):
    return 10 + len(text) % 30


def noise(text):
    return random.Random(len(text)).randrange(1 << 20)


def test_a_text_that_repeats_is_copied_far_at_a_time():
    world = World(Speculator(True), cycle)
    for _ in range(40):
        drawn = world.step()
    assert len(drawn) == LONGEST + 1


def test_where_guesses_cost_as_much_as_steps_none_are_judged_but_trials():
    world = World(Speculator(True), cycle, times=Times(node=1e-3))
    for _ in range(400):
        world.step()
    assert sum(world.drafted) <= 0.011 * 400
    assert World(Speculator(True), cycle).step()  # the same text is guessed where guesses are cheap


def test_a_model_that_knows_is_asked_deeper_and_one_that_does_not_hardly_ever():
    right, wrong = World(Speculator(False, "draft"), cycle, 1.0), World(Speculator(False, "draft"), cycle, 0.0)
    for _ in range(200):
        right.step()
        wrong.step()
    assert right.drafted[-1] == 8
    assert sum(wrong.drafted[50:]) <= 20
    assert wrong.asked * 1e-4 < 0.1 * 200 * 1e-3


def test_what_an_adapter_makes_of_guesses_is_its_own():
    world = World(Speculator(False, "draft"), cycle, times=Times(level=4e-4))
    for sequence, adapter, right in ((1, None, 1.0), (2, ADAPTER, 0.0), (3, None, 1.0)):
        world.right = right
        for _ in range(100 if sequence < 3 else 3):
            world.step(sequence, adapter)
    assert world.drafted[-1] >= 2
    world.right = 1.0
    for _ in range(3):
        world.step(4, ADAPTER)
        assert world.drafted[-1] <= 1


def test_no_more_guesses_than_the_sequence_may_have_or_can_use():
    for fixed in (0, 40):
        world = World(Speculator(True, fixed=fixed), cycle)
        for _ in range(60):
            world.step(nodes=5)
        assert max(world.drafted) == 5
        for _ in range(5):
            world.step(room=3)
            assert world.drafted[-1] <= 3


def test_what_differs_from_text_to_text_is_learned_and_guesses_end_before_it():
    """Every tenth token is noise, all others are the same each time."""

    def form(text):
        return random.Random(len(text)).randrange(1000, 1 << 20) if len(text) % 10 == 0 else 10 + len(text) % 10

    world = World(Speculator(True), form, times=Times(node=1e-4))
    for _ in range(300):
        world.step()
    drafted, drawn = sum(world.drafted[-50:]), len(world.texts[1])
    for _ in range(50):
        world.step()
    assert sum(world.drafted[-50:]) < 1.2 * (len(world.texts[1]) - drawn)
    assert len(world.texts[1]) - drawn > 3 * 50
    assert drafted > 100


def test_a_row_that_copies_does_not_bother_the_model():
    world = World(Speculator(True, "draft"), cycle, 0.9)
    for _ in range(60):
        world.step()
    before = world.asked
    for _ in range(20):
        world.step()
    assert world.asked == before


def test_counts_are_of_whom_they_were_and_say_what_was_saved():
    world = World(Speculator(True), cycle)
    drawn = sum(len(world.step()) for _ in range(59))
    last = len(world.step())
    [counts] = world.speculator.counts()  # of all steps but the one whose tokens it has not seen yet
    assert (counts.namespace, counts.adapter, counts.steps, counts.tokens) == (NAMESPACE, None, 59, drawn)
    world.speculator.propose([], 0, world.times)
    [counts] = world.speculator.counts()
    assert (counts.steps, counts.tokens) == (60, drawn + last)
    [proposer] = counts.proposers
    assert (proposer.proposer, proposer.drafted) == (KIND, sum(world.drafted))
    assert proposer.accepted == counts.tokens - counts.steps
    assert all(stood <= tried for stood, tried in zip(proposer.stood, proposer.tried, strict=True))
    assert world.speculator.totals() == counts.proposers


def test_the_real_time_model_serves():
    world = World(Speculator(True, "draft"), cycle, 0.5, StepTimeModel())
    for _ in range(60):
        world.step()
    assert max(world.drafted) > 8


def test_what_never_repeats_is_looked_for_ever_more_rarely():
    speculator = Speculator(True)
    looks = []
    find = speculator._lookup.find
    speculator._lookup.find = lambda *a: looks.append(1) or find(*a)
    rows = 32
    texts = [[1, 2, i] for i in range(rows)]
    for step in range(300):
        candidates = [Candidate(i, NAMESPACE, None, text, 100) for i, text in enumerate(texts)]
        speculator.propose(candidates, 100, Times(node=1e-4))
        for i, text in enumerate(texts):
            text += [7, 100_000 + step * rows + i, 7, 9][step % 4 : step % 4 + 1]
        speculator.took(1e-3, 0.0)
    assert len(looks) < 0.5 * 300 * rows


def test_a_proposer_with_a_lora_for_the_adapter_is_counted_apart():
    speculator, text = Speculator(False, "draft", fixed=2), [1, 2, 3]
    for fitted in (True, False, True):
        speculator.proposed(1, len(text), DraftTree((7, 8), (-1, 0), kind="draft", fitted=fitted))
        draft = speculator.propose([Candidate(1, NAMESPACE, ADAPTER, text, 100)], 100, Times())[1].draft
        text += [7, 9]
        speculator.learn([Judged(1, draft, (7, 9), 1)])
    assert {p.proposer: (p.drafted, p.accepted) for p in speculator.totals()} == {
        "draft": (2, 1),
        "draft+lora": (4, 2),
    }


def test_what_guesses_cost_is_asked_a_few_times_however_many_there_are():
    """Of the step's rows and nodes alike: the answer is a line."""
    asked = []
    times, seconds = Times(), Times().seconds
    times.seconds = lambda *a, **k: asked.append(1) or seconds(*a, **k)
    speculator = Speculator(True, "draft")
    for rows in (2, 60):
        texts = [[*range(20), i, *range(20)] for i in range(rows)]
        candidates = [Candidate(100 * rows + i, NAMESPACE, ADAPTER, text, 100) for i, text in enumerate(texts)]
        asked.clear()
        assert sum(len(g.draft.tokens) for g in speculator.propose(candidates, 500, times).values() if g.draft) > 30
        assert len(asked) <= 3
