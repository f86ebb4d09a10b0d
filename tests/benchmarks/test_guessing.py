"""The oracle is right as often as it is told to be; figures are of full decode steps, and of pairs."""

from benchmarks.guessing import Oracle, Pairs, Run, Step
from tenantry.runtime.counts import Guessing, ProposerCounts
from tenantry.runtime.messages import Sampling
from tenantry.runtime.plan import Draw, Row, RowResult, StepPlan, StepResult

PROMPT, TRUTH = (1, 2, 3), tuple(range(100, 160))


class Runner:
    def run(self, plan):
        return StepResult(tuple(RowResult((TRUTH[row.draw.position - 3],)) for row in plan.rows), seconds=0.5)


def guesses(knows, ahead, at=0):
    oracle = Oracle(Runner(), knows, vocab=1000, seed=1)
    oracle.truths = {PROMPT: TRUTH}
    text = [*PROMPT, *TRUTH[:at]]
    row = Row(1, text[-1:], len(text) - 1, (0,), None, Draw(Sampling(60), 0, len(text), 3, text), ahead=ahead)
    [result] = oracle.run(StepPlan(1, (row,))).rows
    return result.proposal


def test_an_oracle_that_knows_all_says_what_comes_after_what_was_drawn():
    assert guesses(1.0, 4, at=5).tokens == TRUTH[6:10]
    assert guesses(1.0, 8, at=55).tokens == TRUTH[56:]
    assert guesses(1.0, 4, at=59) is None
    assert guesses(1.0, 0) is None


def test_an_oracle_is_wrong_as_often_as_it_is_told_to_be():
    said = guesses(0.7, 59).tokens
    right = sum(a == b for a, b in zip(said, TRUTH[1:], strict=True))
    assert 0.55 < right / len(said) < 0.85
    assert all(token in (truth, truth + 1) for token, truth in zip(said, TRUTH[1:], strict=True))


def pair(batch, off, on, counts=()):
    return Pairs(batch, [Run(2.0, 20, [Step(*off)] * 9 + [Step(1, 0, 1, 9.0, 9.0, 9.0)])],
                 [Run(1.0, 25, [Step(*on)] * 9, counts=counts)])  # fmt: skip


def test_figures_are_of_full_steps():
    pairs = pair(4, (4, 0, 4, 0.5, 0.4, 0.0), (4, 8, 10, 0.8, 0.5, 0.1))
    assert pairs.speed_up == 2.5
    assert abs(pairs.decode_speed_up - (10 / 0.8) / (4 / 0.5)) < 1e-9
    assert (pairs.tokens_per_step, pairs.node_steps) == (2.5, 2.0)
    assert abs(pairs.predicted - 2.5 / (0.6 / 0.4)) < 1e-9
    assert abs(pairs.cost_of_judging() - 0.5 / 0.4) < 1e-9


def test_shares_by_position_leave_out_what_was_hardly_tried():
    of = ProposerCounts("draft", True, 40, 100, 50, (40, 30, 5), (30, 15, 5))
    counts = (Guessing(b"n" * 32, b"a" * 32, 40, 90, (of,)), Guessing(b"m" * 32, None, 10, 10, ()))
    pairs = pair(1, (1, 0, 1, 1.0, 1.0, 0.0), (1, 1, 2, 1.0, 1.0, 0.0), counts)
    assert pairs.by_position() == [0.75, 0.5]
    assert pairs.acceptance() == 50 / 75
    found = pairs.of_adapter(b"a" * 32)
    assert (found.tokens_per_step, found.stood) == (2.25, [("draft", [0.75, 0.5])])
    assert pairs.of_adapter(b"x" * 32) is None
