"""Known defects of hand-offs between engines, planted like those of planted.py: the simulator must catch each."""

import msgspec

from tenantry.runtime.disagg.exchange import Exchange
from tenantry.runtime.disagg.intake import Intake
from tenantry.runtime.disagg.outbox import Outbox
from tests.scheduling.planted import Plant

HAND_OFF_DEFECTS: dict[str, Plant] = {}


def defect(plant: Plant) -> Plant:
    HAND_OFF_DEFECTS[plant.__name__] = plant
    return plant


@defect
def whatever_comes_is_believed(patch):
    """[28] Pages of another tenant, another prompt or another format are taken for the request's."""
    patch.setattr(Intake, "_fits", lambda self, submit, hand_off: True)


@defect
def tenants_of_pages_not_compared(patch):
    """[28] Everything is looked at but whose pages they are: the same prompt, computed for another tenant."""
    original = Intake._fits

    def fits(self, submit, hand_off):
        return original(self, msgspec.structs.replace(submit, namespace=hand_off.namespace), hand_off)

    patch.setattr(Intake, "_fits", fits)


@defect
def what_was_not_written_is_shared(patch):
    """[36] An arrival that failed in the middle enters the tree all the same."""
    original = Intake.arrived
    patch.setattr(
        Intake, "arrived",
        lambda self, planned, written: original(self, planned, tuple(arrival.request_id for arrival in planned)),
    )  # fmt: skip


@defect
def pages_named_before_they_move(patch):
    """What arrives is written to where its pages lay before the step's moves."""
    original, turn = Intake.arrivals, Intake.turn
    early: dict[int, tuple] = {}

    def turned(self, now):
        turn(self, now)
        early[id(self)] = original(self)

    patch.setattr(Intake, "turn", turned)
    patch.setattr(Intake, "arrivals", lambda self: early[id(self)])


@defect
def an_abort_keeps_its_reservation(patch):
    """[59] A prompt that nobody expects any more has its pages for ever."""

    def release(self, one, used=False):
        if used or one.hand_off is not None:
            original(self, one, used)

    original = Intake._release
    patch.setattr(Intake, "_release", release)


@defect
def what_was_found_counts_as_sent(patch):
    """[54] Tokens that were here already are told as another engine's work, and the client's cache hit is lost."""
    original = Intake._begin
    patch.setattr(
        Intake, "_begin",
        lambda self, one, elsewhere=0: original(self, one, len(one.submit.prompt) if elsewhere else 0),
    )  # fmt: skip


@defect
def segments_of_those_who_went_are_kept(patch):
    """[59] What was computed for a request that was aborted stays in shared memory."""
    original = Outbox._end

    def end(self, event, now):
        segment = self._jobs[event.request_id].segment
        if segment is not None:
            segment.remove = lambda: None
        return original(self, event, now)

    patch.setattr(Outbox, "_end", end)


@defect
def what_is_expected_outlives_its_tenant(patch):
    """A prompt that was expected when its tenant was deleted comes, and leaves its KV to be found."""
    patch.setattr(Exchange, "forget", lambda self, which: [])
