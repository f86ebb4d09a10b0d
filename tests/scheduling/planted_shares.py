"""Known defects of shares and times, planted like those of planted.py: each must be caught by the simulator."""

import msgspec

from tenantry.runtime.messages import Refused
from tenantry.runtime.scheduler.composer import Composer
from tenantry.runtime.scheduler.fairness import Flow, Ledger, Prices, Shares
from tenantry.runtime.scheduler.forecast import Forecast
from tenantry.runtime.scheduler.pace import Pace
from tenantry.runtime.scheduler.scheduler import Scheduler
from tenantry.runtime.scheduler.sequences import Sequences
from tenantry.runtime.scheduler.waiting import WaitingQueue
from tests.scheduling.planted import Plant

SHARE_DEFECTS: dict[str, Plant] = {}


def defect(plant: Plant) -> Plant:
    SHARE_DEFECTS[plant.__name__] = plant
    return plant


@defect
def rest_is_saved_up(patch):
    """Who returns from idleness has all that it did not use to its credit."""
    patch.setattr(Shares, "join", lambda self, flow: None)


def _prices(patch, **changed):
    original = Ledger.__init__
    patch.setattr(
        Ledger,
        "__init__",
        lambda self, prices=None: original(self, Prices(pool_s=0.0, credit=prices.credit, **changed)),
    )


@defect
def answers_cost_nothing(patch):
    """Only prompts are charged."""
    _prices(patch, decode=0.0)


@defect
def questions_cost_nothing(patch):
    """Only answers are charged."""
    _prices(patch, prompt=0.0)


@defect
def first_come_first_served(patch):
    """[40] No turns: whoever floods the queue first is served first."""
    patch.setattr(Flow, "order", property(lambda self: (0.0, 0)))


@defect
def weights_ignored(patch):
    """Who has paid for twice the share gets as much as anyone."""

    def charge(self, request, units):
        request.tenant.counter += units
        request.key.counter += units

    patch.setattr(Ledger, "charge", charge)


@defect
def urgent_beats_other_tenants(patch):
    """A priority takes a tenant before the others, not only its own requests before its others."""
    original = WaitingQueue.push

    def push(self, request):
        original(self, request)
        request.tenant.counter -= 100.0 * max(0, request.submit.priority)

    patch.setattr(WaitingQueue, "push", push)


@defect
def every_key_has_a_share(patch):
    """A tenant gets a share for each of its keys."""

    def opened(self, request):
        request.tenant = self.tenants.opened(request.submit.share_key, True)
        request.tenant.weight = request.submit.weight
        request.key = request.tenant.inside.opened("", False)

    patch.setattr(Ledger, "opened", opened)


@defect
def a_tenant_fills_the_whole_queue(patch):
    """The bound on one tenant's waiting requests is not kept."""
    original = WaitingQueue.refuse_full
    patch.setattr(WaitingQueue, "refuse_full", lambda self, tenant: original(self, None))


@defect
def refused_for_a_queue_that_is_not_there(patch):
    """The forecast counts what is not in the way."""
    original = Forecast.seconds
    patch.setattr(
        Forecast, "seconds", lambda self, *ahead: 1e9 * (original(self, *ahead) >= 0 and self._times.learned)
    )


@defect
def refused_without_a_time_to_come_back(patch):
    """The retry time is lost on the way."""
    original = Scheduler.add

    def add(self, *asked):
        answer = original(self, *asked)
        return msgspec.structs.replace(answer, retry_ms=0) if isinstance(answer, Refused) else answer

    patch.setattr(Scheduler, "add", add)


@defect
def company_is_waited_for_for_ever(patch):
    """[61] The delay begins anew with every look at it."""
    original = Composer.delayed
    patch.setattr(Composer, "delayed", lambda self, now: original(self, now) or original(self, 0.0))


@defect
def company_is_waited_for_while_others_run(patch):
    """Steps stand still because somebody waits for company."""
    original = Composer.compose

    def compose(self, now, *rest):
        waiting = [self._waiting.oldest(flow).arrived for flow in self._waiting.tenants]
        if waiting and now < min(waiting) + self._config.batch_delay_ms / 1e3:
            return []
        return original(self, now, *rest)

    patch.setattr(Composer, "compose", compose)


@defect
def the_target_is_not_kept(patch):
    """Prompts take the whole token budget beside rows that decode."""
    patch.setattr(Pace, "allowance", lambda self, rows, nodes, attended, company: None)


@defect
def who_gave_way_is_forgotten(patch):
    """A sequence that lost its place to another tenant is in no queue."""
    patch.setattr(Sequences, "yield_place", lambda self, sequence: self.leave(sequence))


@defect
def places_are_taken_though_there_are_none(patch):
    """A tenant with less than its share starts beside the others, not in the place of one."""
    patch.setattr(Sequences, "yield_place", lambda self, sequence: None)
    patch.setattr(Composer, "_may_start", lambda self: True)
