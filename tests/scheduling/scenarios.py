"""Directed scenarios of the shared memory and of shares, for tests and for planted defects alike."""

from random import Random

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


def tokens_per_step(adapters: int, kept: int, steps: int = 400) -> float:
    """Throughput while requests of `adapters` adapters, drawn alike, queue for eight places, in an arena whose
    adapters' side holds `kept` of them: a load takes three steps. Who runs, runs in every step, unless a tenant with
    less than its share gets the place; the target, which every step keeps, lets nobody begin without them.
    """
    size, pages = 4, 64
    world = World(
        seed=1, pages=pages + size * kept, kv_min=pages, adapter_min=size * kept, arena=True, block_bytes=1,
        adapter_sizes=(size,) * adapters, tenants=4, max_running=8, budget=64, max_waiting=200, max_context=400,
        load_delay=3, itl_target=60.0,
    )  # fmt: skip
    sim, rng = Simulator(world), Random(7)
    for turn in range(steps):
        while len(sim.scheduler._waiting) < 24:
            sim.submit((2, 3, rng.randrange(2, 5)), rng.randrange(4), rng.randrange(adapters), max_tokens=12)
        running, put_back = {s.id for s in sim.scheduler._sequences.running}, sim.put_back
        plan = sim.step()
        assert plan is not None
        assert put_back < sim.put_back or running <= {row.sequence for row in plan.rows}, (
            f"a running request stood still in step {turn}"
        )
    assert not sim.scheduler.stats().preemptions
    return sim.scheduler.stats().completion_tokens / steps


def uneven_tenants(
    weights: tuple[float, ...] = (1.0, 1.0), priority: int = 0, idle: int = 0, keys: int = 1
) -> Simulator:
    """11: long questions beside long answers, both without a pause, or one after a long rest; nobody gets more than
    the bound beyond his share, whatever the other calls urgent or how many keys he uses."""
    world = World(
        seed=1, pages=24, page_size=2, max_running=3, budget=8, max_waiting=64, adapter_sizes=(), tenants=2,
        weights=weights,
    )  # fmt: skip
    sim, rng = Simulator(world), Random(3)
    for turn in range(450):
        waiting = [sum(c.tenant == t and not c.started for c in sim.live.values()) for t in (0, 1)]
        for _ in range(waiting[0], 4):
            sim.submit(tuple(rng.randrange(2, 5) for _ in range(14)), 0, max_tokens=1)
        for _ in range(waiting[1] if turn >= idle else 4, 4):
            sim.submit(
                tuple(rng.randrange(2, 5) for _ in range(2)), 1, key=rng.randrange(keys), priority=priority,
                max_tokens=12, ignore_eos=True,
            )  # fmt: skip
        sim.step()
    return sim


def a_long_prompt_beside_those_who_decode() -> None:
    """8: three decode, 0.35 of a step's 1.5 are left for prompts, and a long one comes once it is known what that is
    worth."""
    world = World(
        seed=1, pages=200, page_size=2, max_running=6, budget=40, max_context=400, adapter_sizes=(), itl_target=1.5,
        seconds=(1.0, 0.05, 0.02),
    )  # fmt: skip
    sim = Simulator(world)
    for _ in range(3):
        sim.submit((2, 3), max_tokens=90, ignore_eos=True)
    for turn in range(60):
        if turn % 4 == 0:
            sim.submit(
                tuple([2, 3, 4][(at * turn) % 3] for at in range(60 if turn > 30 else 3 + turn)), 1, max_tokens=1
            )
        sim.step()
    sim.drain()


def company() -> None:
    """11: one waits for others, nobody comes; then others come while it runs."""
    sim = Simulator(World(seed=1, pages=40, max_running=4, adapter_sizes=(), delay=0.01, seconds=(0.003, 0.0, 0.0)))
    for _ in range(20):
        sim.submit((2, 3, 2), max_tokens=12, ignore_eos=True)
        for _ in range(8):
            sim.step()
        sim.submit((3, 2, 2), 1, max_tokens=3)
        sim.drain()


def a_deadline_that_a_short_queue_keeps() -> None:
    """11: steps are known, both places are taken, two wait; who has a thousand steps' time is not sent away."""
    sim = Simulator(World(seed=1, pages=40, max_running=2, adapter_sizes=(), seconds=(1.0, 0.05, 0.02)))
    for turn in range(40):
        if len(sim.live) < 4:
            sim.submit((2, 3, 2), turn % 2, max_tokens=6, ignore_eos=True)
        sim.step()
    assert sim.scheduler.times.learned
    assert sim.scheduler._waiting
    sim.submit((3, 2), deadline=1000.0, max_tokens=2)
    assert not sim.seen["refused early"], "11: refused for a queue that is not there"
    sim.drain()


PREFIX = tuple([2, 3, 4, 2, 2, 3] * 2)


def a_cold_prefix_that_many_want() -> Simulator:
    """40: five of one tenant want the same twelve tokens that nobody has, and so does one of another tenant. Each
    tenant's first computes them, at once; the others wait for their own, and compute nothing but their ends."""
    sim = Simulator(World(seed=1, pages=64, max_running=8, budget=64, adapter_sizes=(), max_context=400))
    own = [sim.submit((*PREFIX, 2, end), max_tokens=3) for end in (2, 3, 4, 2, 3)]
    other = sim.submit((*PREFIX, 4, 4), tenant=1, max_tokens=3)
    plan = sim.step()
    assert plan is not None
    assert len(plan.rows) == 2, "40: a prefix is computed twice, or a tenant waits for another's"
    assert sim.clients[other].started, "40: a tenant waits for another's prefix"
    sim.step()
    assert all(sim.clients[name].first_start == len(PREFIX) for name in own[1:]), "40: computed again"
    sim.drain()
    return sim


def the_first_of_many_goes_away() -> None:
    """40: who waits for a prefix does not wait for ever: the first is aborted in the middle, the next one leads."""
    sim = Simulator(World(seed=1, pages=64, max_running=8, budget=10, adapter_sizes=(), max_context=400))
    names = [sim.submit((*PREFIX, 2, end), max_tokens=3) for end in (2, 3, 4)]
    for name in names[:2]:
        sim.step()
        assert sum(sim.clients[n].started for n in sim.live) == 1, "40: nobody leads, or all do"
        sim.abort(name)
    sim.drain()


def a_short_prompt_beside_a_long_one() -> None:
    """40: they begin alike, and the short one would be done long before the long one shares anything."""
    sim = Simulator(World(seed=1, pages=64, max_running=8, budget=40, adapter_sizes=(), max_context=400))
    sim.submit((*PREFIX, *[3, 3, 4] * 7), max_tokens=2)
    short = sim.submit((*PREFIX[:8], 4), max_tokens=2)
    sim.step()
    assert sim.clients[short].started, "40: waits for longer than it would compute"
    sim.drain()


def flights() -> None:
    a_cold_prefix_that_many_want()
    the_first_of_many_goes_away()
    a_short_prompt_beside_a_long_one()


def shares_under_all_conditions() -> None:
    for conditions in ({}, {"weights": (2.0, 0.5)}, {"priority": 1}, {"idle": 200}, {"keys": 4}):
        uneven_tenants(**conditions).drain()
    a_long_prompt_beside_those_who_decode()
    company()
    a_deadline_that_a_short_queue_keeps()
