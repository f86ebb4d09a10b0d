"""Known defects of the single flight for a shared prefix, planted like those of planted.py."""

from tenantry.runtime.scheduler.flights import Flights
from tests.scheduling.planted import Plant

FLIGHT_DEFECTS: dict[str, Plant] = {}


def defect(plant: Plant) -> Plant:
    FLIGHT_DEFECTS[plant.__name__] = plant
    return plant


@defect
def nobody_waits(patch):
    """A popular prefix that is cold is computed by everyone who wants it."""
    patch.setattr(Flights, "waits", lambda self, request: False)


@defect
def tenants_wait_for_each_other(patch):
    """[26] One flight for all namespaces: how long a tenant waits tells what another computes."""

    def leads(self, sequence):
        if sequence.request.prompt_length - sequence.computed > self._size:
            self._leaders["all"].append(sequence)

    original = Flights.waits

    def waits(self, request):
        self._leaders[request.submit.namespace] = self._leaders["all"]
        return original(self, request)

    patch.setattr(Flights, "leads", leads)
    patch.setattr(Flights, "waits", waits)


@defect
def a_leader_is_never_forgotten(patch):
    """Its followers wait for one that has gone, or given way."""
    original, leads = Flights.begin, Flights.leads
    all_ever: list = []

    def begin(self, behind):
        original(self, [])
        for sequence in all_ever:
            leads(self, sequence)

    def remembered(self, sequence):
        all_ever.append(sequence)
        leads(self, sequence)

    patch.setattr(Flights, "begin", begin)
    patch.setattr(Flights, "leads", remembered)
    patch.setattr(Flights, "_under_way", lambda self, namespace: self._leaders.get(namespace, ()))
    patch.setattr(Flights, "_found", lambda self, leader: 0)


@defect
def the_leaders_rest_is_not_counted(patch):
    """A short prompt waits for a long one that begins alike."""
    original = Flights.waits

    def waits(self, request):
        leaders = self._leaders.get(request.submit.namespace, ())
        return original(self, request) or any(self._shared(request.submit.prompt, at) > 0 for at in leaders)

    patch.setattr(Flights, "waits", waits)
