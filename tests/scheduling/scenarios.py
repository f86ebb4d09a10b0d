"""Directed scenarios of the shared memory, for tests and for planted defects alike."""

from tests.scheduling.simulator import Simulator
from tests.scheduling.world import World


def an_adapter_wanted_while_others_are_always_in_use() -> None:
    """11: requests of two adapters overlap for ever, pages fill the rest; the third adapter is loaded all the same,
    within about the lives of those that ran when it was asked for."""
    world = World(
        seed=1, pages=40, kv_min=16, adapter_min=16, arena=True, block_bytes=1, adapter_sizes=(12, 12, 16), tenants=3,
        max_running=6, budget=32, max_waiting=64, max_context=400, most_tokens=12,
    )  # fmt: skip
    sim = Simulator(world)
    wanted = None
    for turn in range(120):
        sim.submit((2, 3, 2), turn % 2, turn % 2, max_tokens=12, ignore_eos=True)
        if turn == 20:
            wanted = sim.submit((2, 3), tenant=2, adapter=2, max_tokens=2)
        sim.step()
    assert wanted is not None
    assert sim.clients[wanted].started, "11: an adapter waits for ever"
    sim.drain()
