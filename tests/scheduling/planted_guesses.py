"""Known defects of guessing, planted like those of planted.py: each must be caught by the simulator."""

import msgspec

from tenantry.runtime.scheduler.batch import Batch
from tenantry.runtime.scheduler.composer import Composer
from tenantry.runtime.scheduler.finish import Hit
from tenantry.runtime.scheduler.scheduler import Scheduler
from tenantry.runtime.scheduler.sequences import Sequences
from tests.scheduling.planted import Plant

GUESS_DEFECTS: dict[str, Plant] = {}


def defect(plant: Plant) -> Plant:
    GUESS_DEFECTS[plant.__name__] = plant
    return plant


@defect
def guesses_without_pages(patch):
    """A draft is planned where no page is left for it."""
    patch.setattr(Sequences, "spread", lambda self, sequence, positions: True)


@defect
def guesses_over_the_budget(patch):
    """A draft is not counted into the step's tokens."""
    original = Batch.add

    def add(self, sequence, *rest):
        count = original(self, sequence, *rest)
        if self.rows and self.rows[-1].draft is not None:
            self.left += len(self.rows[-1].draft.tokens)
        return count

    patch.setattr(Batch, "add", add)
    patch.setattr(Composer, "guess_budget", lambda self, decoding: 1 << 30)


@defect
def guesses_beyond_the_end_are_told(patch):
    """A stop string inside of a draft ends the choice, and what was drawn after it is sent all the same."""
    original = Scheduler._draw

    def draw(self, sequence, drawn, logprobs, watch):
        def late(*asked):
            hit = watch(*asked)
            return hit and Hit(len(asked[2]), hit.matched)

        original(self, sequence, drawn, logprobs, late)

    patch.setattr(Scheduler, "_draw", draw)


@defect
def a_trees_nodes_share_positions(patch):
    """Pages are found for half of a tree's nodes, as if siblings lay in one place."""
    original = Sequences.spread
    patch.setattr(Sequences, "spread", lambda self, sequence, positions: original(self, sequence, -(-positions // 2)))


@defect
def every_guess_counts_as_accepted(patch):
    """What the tenant is told of accepted guesses is what was guessed."""
    original = Scheduler._accept

    def accept(self, sequence, row, result, watch):
        drafted = len(row.draft.tokens) if row.draft is not None else 0
        original(self, sequence, row, msgspec.structs.replace(result, accepted=drafted), watch)

    patch.setattr(Scheduler, "_accept", accept)
