"""The simulator is worth what it catches: every planted defect must fail some seed of the swarm.

Each is planted twice: once with the core's own check after every event, once with nothing but what the fake device
and the clients see.
"""

from dataclasses import replace

import pytest

from tenantry.runtime.cache.memory import Memory
from tenantry.runtime.scheduler.scheduler import Scheduler
from tests.scheduling.planted import DEFECTS
from tests.scheduling.planted_flights import FLIGHT_DEFECTS
from tests.scheduling.planted_guesses import GUESS_DEFECTS
from tests.scheduling.planted_hand_off import HAND_OFF_DEFECTS
from tests.scheduling.planted_memory import MEMORY_DEFECTS
from tests.scheduling.planted_shares import SHARE_DEFECTS
from tests.scheduling.scenarios import (
    an_adapter_wanted_while_others_are_always_in_use,
    flights,
    shares_under_all_conditions,
)
from tests.scheduling.swarm import run
from tests.scheduling.world import World, crowded

SEEDS = 150
STEPS = 150


@pytest.mark.parametrize("own_checks", [True, False], ids=["checked", "seen from outside"])
@pytest.mark.parametrize("name", [*DEFECTS, *GUESS_DEFECTS])
def test_the_simulator_catches(name: str, own_checks: bool, monkeypatch: pytest.MonkeyPatch):
    if not own_checks:
        monkeypatch.setattr(Scheduler, "check", lambda self, *expected: None)
    (DEFECTS | GUESS_DEFECTS)[name](monkeypatch)
    for seed in range(SEEDS):
        try:
            run(seed, STEPS)
        except AssertionError:
            return
    pytest.fail(f"{name} passed {SEEDS} seeds of {STEPS} steps")


@pytest.mark.parametrize("own_checks", [True, False], ids=["checked", "seen from outside"])
@pytest.mark.parametrize("name", MEMORY_DEFECTS)
def test_a_crowded_simulator_catches(name: str, own_checks: bool, monkeypatch: pytest.MonkeyPatch):
    if not own_checks:
        monkeypatch.setattr(Scheduler, "check", lambda self, *expected: None)
        monkeypatch.setattr(Memory, "check", lambda self: None)
    MEMORY_DEFECTS[name](monkeypatch)
    try:
        an_adapter_wanted_while_others_are_always_in_use()
        for seed in range(SEEDS):
            run(seed, STEPS, crowded(seed))
    except AssertionError:
        return
    pytest.fail(f"{name} passed {SEEDS} seeds of {STEPS} steps")


@pytest.mark.parametrize("own_checks", [True, False], ids=["checked", "seen from outside"])
@pytest.mark.parametrize("name", SHARE_DEFECTS)
def test_a_simulator_that_counts_what_each_tenant_got_catches(
    name: str, own_checks: bool, monkeypatch: pytest.MonkeyPatch
):
    if not own_checks:
        monkeypatch.setattr(Scheduler, "check", lambda self, *expected: None)
    SHARE_DEFECTS[name](monkeypatch)
    try:
        shares_under_all_conditions()
        for seed in range(SEEDS):
            run(seed, STEPS)
    except AssertionError:
        return
    pytest.fail(f"{name} passed {SEEDS} seeds of {STEPS} steps")


@pytest.mark.parametrize("own_checks", [True, False], ids=["checked", "seen from outside"])
@pytest.mark.parametrize("name", FLIGHT_DEFECTS)
def test_a_stampede_catches(name: str, own_checks: bool, monkeypatch: pytest.MonkeyPatch):
    if not own_checks:
        monkeypatch.setattr(Scheduler, "check", lambda self, *expected: None)
    FLIGHT_DEFECTS[name](monkeypatch)
    with pytest.raises(AssertionError):
        flights()


@pytest.mark.parametrize("own_checks", [True, False], ids=["checked", "seen from outside"])
@pytest.mark.parametrize("name", HAND_OFF_DEFECTS)
def test_other_engines_catch(name: str, own_checks: bool, monkeypatch: pytest.MonkeyPatch):
    if not own_checks:
        monkeypatch.setattr(Scheduler, "check", lambda self, *expected: None)
    HAND_OFF_DEFECTS[name](monkeypatch)
    for seed in range(SEEDS):
        try:
            run(seed, STEPS, replace(crowded(seed) if seed % 2 else World.swarm(seed), elsewhere=0.9))
        except AssertionError:
            return
    pytest.fail(f"{name} passed {SEEDS} seeds of {STEPS} steps")
