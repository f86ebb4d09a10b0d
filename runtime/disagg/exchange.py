"""One engine's two ends of hand-offs, as a step of the engine meets them.

Owns the order: what has come is started before a step is planned, pages are written and read within it, and ends of
other engines' prompts leave as hand-overs after it. It must not know the scheduler or the model.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from tenantry.adapters.room import Footprint
from tenantry.runtime.counts import HandOffCounts
from tenantry.runtime.disagg.intake import Intake, Ready
from tenantry.runtime.disagg.outbox import Outbox
from tenantry.runtime.messages import Event, Finished, HandOff, Submit, Usage
from tenantry.runtime.plan import StepPlan, StepResult


@dataclass(slots=True)
class Exchange:
    outbox: Outbox
    intake: Intake

    @property
    def has_work(self) -> bool:
        return self.intake.has_work

    def expect(self, submit: Submit, footprint: Footprint, now: float) -> None:
        self.intake.expect(submit, footprint, now)

    def forget(self, which: Callable[[Submit], bool]) -> list[Finished]:
        """Expect these no more: their ends."""
        ended = [submit.request_id for submit in self.intake.expected() if which(submit)]
        return [Finished(request_id, Usage(), "abort") for request_id in ended if self.intake.abort(request_id)]

    def take(self, request_id: str, hand_off: HandOff) -> None:
        self.intake.take(request_id, hand_off)

    def compute(self, request_id: str) -> None:
        self.intake.compute(request_id)

    def release(self, request_id: str) -> None:
        self.outbox.release(request_id)

    def before(self, now: float, running: int) -> list[Ready]:
        """Before a step is planned: who starts now. running: sequences, each of which may need a page more."""
        self.outbox.expire(now)
        self.intake.turn(now)
        if len(self.intake):
            self.intake.give_way(running)
        return self.intake.ready()

    def attach(self, plan: StepPlan | None, owner: Callable[[int], str]) -> StepPlan | None:
        """The plan with what arrives and departs; one of its own if there is none but something arrives. owner: the
        request of a row's sequence."""
        arrivals = self.intake.arrivals()
        if plan is None:
            return StepPlan(0, (), arrivals=arrivals) if arrivals else None
        leaving = ((owner(row.sequence), row) for row in plan.rows if row.draw is not None) if self.outbox else ()
        departures = self.outbox.departures(leaving)
        return replace(plan, arrivals=arrivals, departures=departures) if arrivals or departures else plan

    def after(self, plan: StepPlan, result: StepResult) -> None:
        """A step has ended, and its events are not told yet."""
        self.intake.arrived(plan.arrivals, result.arrived)
        self.outbox.departed(result.departed)

    def told(self, events: Iterable[Event], now: float) -> tuple[list[Event], list[Event]]:
        """(for the journal and for clients, for clients alone)."""
        return self.outbox.told(events, now)

    def counts(self) -> HandOffCounts:
        intake, outbox = self.intake.counts, self.outbox
        return HandOffCounts(
            outbox.sent, intake.taken, intake.late, intake.refused, intake.damaged, intake.no_room, outbox.unsent,
            outbox.bytes + intake.bytes,
        )  # fmt: skip
