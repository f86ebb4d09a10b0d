"""Residency: bytes never exceed the limit, nothing in use is evicted, and nobody waits for ever (laws 3, 8, 9)."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tenantry.adapters.errors import ResidencyError
from tenantry.adapters.residency import Outcome, Residency, State
from tenantry.adapters.room import Budget, Footprint

LIMIT = 100
SIZES = {bytes([i]): size for i, size in enumerate((10, 20, 30, 45, 60, 100, 101, 35))}
PLACES = {digest: Footprint((size,)) for digest, size in SIZES.items()}
DIGESTS = st.sampled_from(sorted(SIZES))
OWNERS = st.sampled_from([f"request-{i}" for i in range(8)])


class AgainstANaiveModel(RuleBasedStateMachine):
    """The model keeps only what an observer outside could know: who was promised what, and what the device holds."""

    def __init__(self) -> None:
        super().__init__()
        self.residency = Residency(Budget(LIMIT))
        self.interest: dict[bytes, set[str]] = {d: set() for d in SIZES}
        self.device: dict[bytes, int] = {}
        self.arriving: set[bytes] = set()
        self.retired: set[bytes] = set()
        self.pinned: set[bytes] = set()

    def apply_actions(self) -> None:
        """What a runner does with a plan: evictions, then loads, each checked against the whole device."""
        loads, evictions = self.residency.take_actions()
        assert not set(loads) & set(evictions), "a round trip for nothing"
        for digest in evictions:
            del self.device[digest]
            assert not self.held(digest), "evicted while in use"
            assert digest not in self.pinned
            self.retired.discard(digest)
        for digest in loads:
            assert digest not in self.device
            self.device[digest] = SIZES[digest]
            self.arriving.add(digest)
        assert sum(self.device.values()) <= LIMIT

    def held(self, digest: bytes) -> set[str]:
        return {o for o in self.interest[digest] if self.outcome(digest, o) is not Outcome.WAIT}

    def outcome(self, digest: bytes, owner: str) -> Outcome:
        return self.residency.acquire(digest, PLACES[digest], owner)

    @rule(digest=DIGESTS, owner=OWNERS)
    def acquire(self, digest: bytes, owner: str) -> None:
        known = owner in self.interest[digest]
        outcome = self.outcome(digest, owner)
        match outcome:
            case Outcome.CANNOT_FIT:
                assert not known
                assert SIZES[digest] > LIMIT - sum(SIZES[d] for d in self.pinned)
            case Outcome.RETIRED:
                assert not known
                assert digest in self.retired
            case _:
                self.interest[digest].add(owner)
                assert self.outcome(digest, owner) is outcome, "asking twice changes nothing"
        if outcome is Outcome.HELD:
            assert digest in self.device
            assert digest not in self.arriving
        self.apply_actions()

    @rule(digest=DIGESTS, owner=OWNERS)
    def release(self, digest: bytes, owner: str) -> None:
        self.residency.release(digest, owner)
        self.interest[digest].discard(owner)
        self.residency.release(digest, owner)
        self.apply_actions()

    @precondition(lambda self: self.arriving)
    @rule(data=st.data())
    def loaded(self, data: st.DataObject) -> None:
        digest = data.draw(st.sampled_from(sorted(self.arriving)))
        self.arriving.discard(digest)
        held = data.draw(st.sampled_from([None, SIZES[digest] // 2]))  # int8 needs less than was asked for
        if held is not None:
            self.device[digest] = held
        self.residency.loaded(digest, None if held is None else Footprint((held,)))
        self.apply_actions()

    @precondition(lambda self: self.arriving)
    @rule(data=st.data())
    def failed(self, data: st.DataObject) -> None:
        digest = data.draw(st.sampled_from(sorted(self.arriving)))
        self.arriving.discard(digest)
        del self.device[digest]
        assert self.residency.failed(digest) == self.interest[digest]
        self.interest[digest].clear()
        self.retired.discard(digest)
        self.pinned.discard(digest)
        self.apply_actions()

    @rule(digest=DIGESTS)
    def drop(self, digest: bytes) -> None:
        refused = self.residency.drop(digest)
        assert refused <= self.interest[digest]
        self.interest[digest] -= refused
        self.pinned.discard(digest)
        if self.residency.state(digest) is State.DRAINING:
            self.retired.add(digest)
        self.apply_actions()

    @rule(digest=DIGESTS)
    def warm(self, digest: bytes) -> None:
        outcome = self.residency.warm(digest, PLACES[digest])
        self.apply_actions()
        if outcome in (Outcome.HELD, Outcome.LOADING):
            assert digest in self.device

    @rule(digest=DIGESTS, owner=OWNERS)
    def prefetch(self, digest: bytes, owner: str) -> None:
        """Never a place in line, and nobody who uses or waits for something notices."""
        if owner in self.interest[digest]:
            return
        held = {d: self.held(d) for d in SIZES}
        if self.residency.prefetch(digest, PLACES[digest], owner):
            self.interest[digest].add(owner)
            assert self.outcome(digest, owner) in (Outcome.HELD, Outcome.LOADING)
        self.apply_actions()
        assert all(owners <= self.held(d) for d, owners in held.items())
        users = {o.digest: o.users for o in self.residency.occupants()}
        assert all(users.get(d, 0) == len(owners) for d, owners in self.interest.items())

    @rule(digest=DIGESTS)
    def pin(self, digest: bytes) -> None:
        if self.residency.pin(digest):
            self.pinned.add(digest)
        self.apply_actions()

    @rule(digest=DIGESTS)
    def unpin(self, digest: bytes) -> None:
        self.residency.unpin(digest)
        self.pinned.discard(digest)
        self.apply_actions()

    @invariant()
    def holds(self) -> None:
        self.residency.check()
        self.residency.check_line()
        assert self.residency.used == sum(self.device.values())
        assert {o.digest for o in self.residency.occupants() if o.state is not State.ABSENT} >= self.device.keys()

    def teardown(self) -> None:
        """Liveness: let every load end and every running request finish; then all who waited have been served."""
        for digest in SIZES:
            self.unpin(digest)
        for _ in range(200):
            self.apply_actions()
            for digest in sorted(self.arriving):
                self.residency.loaded(digest)
            self.arriving.clear()
            for digest, owners in self.interest.items():
                for owner in sorted(owners):
                    if self.outcome(digest, owner) is Outcome.HELD:
                        self.residency.release(digest, owner)
                        owners.discard(owner)
        assert not any(self.interest.values())
        self.residency.check()


TestAgainstANaiveModel = AgainstANaiveModel.TestCase
TestAgainstANaiveModel.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


def resident(*digests: bytes, limit: int = LIMIT) -> Residency:
    residency = Residency(Budget(limit))
    for digest in digests:
        assert residency.warm(digest, PLACES[digest]) is Outcome.LOADING
        residency.take_actions()
        residency.loaded(digest)
    return residency


A10, A20, A30, A45, A60, A100, A101, A35 = sorted(SIZES)


def test_one_release_ends_all_of_a_requests_choices_and_a_second_does_nothing():
    residency = resident(A60)
    for _ in range(3):
        assert residency.acquire(A60, PLACES[A60], "n=3") is Outcome.HELD
    residency.acquire(A60, PLACES[A60], "other")
    residency.release(A60, "n=3")
    residency.release(A60, "n=3")
    assert residency.occupants()[0].users == 1


def test_the_least_recently_used_leaves_first():
    residency = resident(A10, A20, A60)
    residency.acquire(A10, PLACES[A10], "r")
    residency.release(A10, "r")
    assert residency.acquire(A30, PLACES[A30], "s") is Outcome.LOADING
    assert residency.take_actions() == ((A30,), (A20,))


def test_what_could_never_fit_is_refused_and_not_queued():
    residency = resident()
    assert residency.acquire(A101, PLACES[A101], "r") is Outcome.CANNOT_FIT
    assert not residency.occupants()


def test_a_big_adapter_does_not_starve_behind_small_ones_that_overlap_for_ever():
    residency = resident(A45, A35)
    residency.acquire(A45, PLACES[A45], "0")
    residency.acquire(A35, PLACES[A35], "1")
    assert residency.acquire(A100, PLACES[A100], "big") is Outcome.WAIT
    assert residency.acquire(A45, PLACES[A45], "2") is Outcome.WAIT
    assert residency.acquire(A10, PLACES[A10], "3") is Outcome.WAIT
    residency.release(A45, "0")
    residency.release(A35, "1")
    loads, evictions = residency.take_actions()
    assert loads == (A100,)
    assert set(evictions) == {A45, A35}
    assert residency.acquire(A100, PLACES[A100], "big") is Outcome.LOADING


def test_a_waiter_is_started_without_being_asked_again():
    residency = resident(A60)
    residency.acquire(A60, PLACES[A60], "r")
    assert residency.acquire(A45, PLACES[A45], "s") is Outcome.WAIT
    residency.release(A60, "r")
    assert residency.take_actions() == ((A45,), (A60,))


def test_what_was_to_leave_and_is_wanted_again_before_it_left_stays():
    residency = resident(A10, A45)
    residency.acquire(A10, PLACES[A10], "0")
    residency.acquire(A45, PLACES[A45], "0")
    assert residency.acquire(A60, PLACES[A60], "0") is Outcome.WAIT
    assert residency.acquire(A10, PLACES[A10], "1") is Outcome.WAIT
    residency.release(A10, "0")
    residency.release(A45, "0")
    assert residency.acquire(A10, PLACES[A10], "1") is Outcome.HELD
    assert residency.take_actions() == ((A60,), (A45,))
    residency.check()


def test_a_waiter_that_gives_up_lets_the_others_pass():
    residency = resident(A60)
    residency.acquire(A60, PLACES[A60], "r")
    residency.acquire(A45, PLACES[A45], "s")
    assert residency.acquire(A60, PLACES[A60], "t") is Outcome.WAIT
    residency.release(A45, "s")
    assert residency.acquire(A60, PLACES[A60], "t") is Outcome.HELD


def test_a_retired_adapter_serves_who_has_it_and_nobody_new():
    residency = resident(A60)
    residency.acquire(A60, PLACES[A60], "r")
    assert residency.drop(A60) == frozenset()
    assert residency.acquire(A60, PLACES[A60], "r") is Outcome.HELD
    assert residency.acquire(A60, PLACES[A60], "s") is Outcome.RETIRED
    assert residency.state(A60) is State.DRAINING
    residency.release(A60, "r")
    assert residency.take_actions() == ((), (A60,))
    assert residency.state(A60) is State.ABSENT


def test_a_failed_load_names_whom_to_refuse_and_may_be_tried_again():
    residency = Residency(Budget(LIMIT))
    residency.acquire(A60, PLACES[A60], "r")
    residency.take_actions()
    assert residency.failed(A60) == {"r"}
    assert residency.state(A60) is State.FAILED
    assert residency.used == 0
    assert residency.acquire(A60, PLACES[A60], "s") is Outcome.LOADING


def test_a_pinned_adapter_stays():
    residency = resident(A60)
    assert residency.pin(A60)
    assert residency.acquire(A45, PLACES[A45], "r") is Outcome.CANNOT_FIT
    residency.unpin(A60)
    assert residency.acquire(A45, PLACES[A45], "r") is Outcome.LOADING


def test_breaking_the_protocol_is_an_error():
    residency = resident(A60)
    with pytest.raises(ResidencyError):
        residency.loaded(A60)
    with pytest.raises(ResidencyError):
        residency.failed(A10)
    with pytest.raises(ResidencyError):
        residency.acquire(A60, Footprint((61,)), "r")
