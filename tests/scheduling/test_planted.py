"""The simulator is worth what it catches: every planted defect must fail some seed of the swarm."""

import pytest

from tests.scheduling.planted import DEFECTS
from tests.scheduling.simulator import run

SEEDS = 120
STEPS = 150


@pytest.mark.parametrize("name", DEFECTS)
def test_the_simulator_catches(name: str, monkeypatch: pytest.MonkeyPatch):
    DEFECTS[name](monkeypatch)
    for seed in range(SEEDS):
        try:
            run(seed, STEPS)
        except AssertionError:
            return
    pytest.fail(f"{name} passed {SEEDS} seeds of {STEPS} steps")
