"""Random days of a world, replayable by seed: `PYTHONPATH=.src python -m tests.scheduling.swarm SEED STEPS`."""

import argparse
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from random import Random
from time import perf_counter

from tests.scheduling.simulator import Simulator
from tests.scheduling.world import World


class Swarm:
    """Drives a simulator by its world's probabilities."""

    def __init__(self, seed: int, world: World | None = None) -> None:
        self.world = world or World.swarm(seed)
        self.sim = Simulator(self.world)
        rng = Random(seed ^ 0xF00D)
        self.rng = rng
        self.prefixes = [self.word(rng.randint(0, self.world.longest)) for _ in range(self.world.families)]

    def word(self, length: int) -> tuple[int, ...]:
        return tuple(self.rng.randrange(2, 2 + self.world.alphabet) % self.world.vocab for _ in range(length))

    def submit(self) -> None:
        world, rng = self.world, self.rng
        prefix = rng.choice(self.prefixes)
        prompt = prefix[: rng.randint(0, len(prefix))] if rng.random() < 0.3 else prefix
        prompt += self.word(rng.randint(0 if prompt else 1, max(1, world.longest // 3)))
        most = rng.randint(1, world.most_tokens)
        sampling = {
            "max_tokens": most,
            "min_tokens": rng.randint(0, most) if rng.random() < 0.3 else 0,
            "n": rng.randint(1, world.choices),
            "seed": rng.randrange(3),
            "ignore_eos": rng.random() < 0.3,
            "stop_token_ids": (2,) if rng.random() < 0.2 else (),
        }
        if rng.random() < world.bad:
            sampling |= rng.choice(({"max_tokens": 0}, {"n": 9}, {"stop_token_ids": (world.vocab,)}, {"n": 0}))
        deadline = world.seconds[0] * rng.randint(1, 10) if rng.random() < world.deadline else 0.0
        priority = rng.randint(-1, 1) if rng.random() < world.priorities else 0
        tenant, adapter = rng.randrange(world.tenants), rng.randrange(-1, len(world.adapter_sizes))
        if world.elsewhere and rng.random() < world.elsewhere:
            sampling |= {rng.choice(("expect", "hand_off")): True}
        self.sim.submit(prompt, tenant, adapter, deadline, rng.randrange(world.keys), priority, **sampling)

    def once(self) -> None:
        world, rng, sim = self.world, self.rng, self.sim
        for _ in range(3):
            if rng.random() < world.arrivals and len(sim.live) < 40:
                self.submit()
        if world.below is not None and rng.random() < world.below.pressed:
            sim.press()
        live = list(sim.live)
        if live and rng.random() < world.abort:
            sim.abort(rng.choice(live))
        if world.adapter_sizes and rng.random() < world.drop:
            sim.drop(rng.randrange(len(world.adapter_sizes)))
        if world.adapter_sizes and rng.random() < world.warm:
            sim.warm(rng.randrange(len(world.adapter_sizes)))
        if world.forget and rng.random() < world.forget:
            sim.forget(rng.randrange(world.tenants), rng.randrange(-1, len(world.adapter_sizes)), rng.random() < 0.5)
        if world.forget and rng.random() < world.forget / 4:
            sim.vanish(rng.randrange(world.tenants), rng.random() < 0.5)
        if live and rng.random() < world.stop_string:
            sim.finish(rng.choice(live), rng.randrange(world.choices))
        victims = [rng.choice(live)] if live and rng.random() < world.abort_in_flight else []
        sim.step(victims)

    def restart(self) -> None:
        """Another engine over the same disk."""
        assert self.sim.lower is not None
        old, self.sim = self.sim, Simulator(self.world, self.sim.lower.disk)
        self.sim.seen.update(old.seen)
        self.sim.seen["restart"] += 1


def run(seed: int, steps: int, world: World | None = None) -> Counter[str]:
    """Steps of one seed, with a drain from time to time. Returns what has happened, preemptions and evictions
    included."""
    swarm = Swarm(seed, world)
    below = swarm.world.below
    done, counted = 0, Counter[str]()
    try:
        while done < steps:
            before = swarm.sim.steps
            for _ in range(min(100 if below is not None else 1000, steps - done)):
                swarm.once()
            swarm.sim.drain()
            done += swarm.sim.steps - before
            if below is not None and swarm.rng.random() < below.restart:
                counted += _counted(swarm.sim)
                swarm.restart()
    except BaseException as error:
        error.add_note(f"replay: PYTHONPATH=.src python -m tests.scheduling.swarm {seed} {steps}")
        error.add_note(f"at step {done} and up to a thousand more of {swarm.world}")
        raise
    return swarm.sim.seen + counted + _counted(swarm.sim)


def _counted(sim: Simulator) -> Counter[str]:
    """What the core has counted itself."""
    stats = sim.scheduler.stats()
    found = Counter({"preemption": stats.preemptions, "yielded": stats.yielded, "steps": sim.steps})
    found["moved"] = sim.runner.memory.moved
    if stats.tiers:
        host, disk = stats.tiers
        found.update({"host hit": host.hits, "disk hit": disk.hits, "host eviction": host.evictions})
        found.update({"disk eviction": disk.evictions, "shed page": host.shed, "unplaced": sim.tiers.unplaced})
    return found


def several(first: int, count: int, steps: int) -> Counter[str]:
    seen: Counter[str] = Counter()
    for seed in range(first, first + count):
        seen.update(run(seed, steps))
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("steps", type=int)
    parser.add_argument("--seeds", type=int, default=1, help="so many, from the first on")
    parser.add_argument("--processes", type=int, default=1)
    a = parser.parse_args()
    began, share = perf_counter(), 10
    firsts = range(a.seed, a.seed + a.seeds, share)
    counts = [min(share, a.seed + a.seeds - first) for first in firsts]
    with ProcessPoolExecutor(a.processes) as pool:
        seen = sum(pool.map(several, firsts, counts, repeat(a.steps)), Counter())
    print(dict(seen.most_common()))
    print(f"{seen['steps']} steps, {seen['steps'] / (perf_counter() - began):.0f} per second")


if __name__ == "__main__":
    main()
