"""What a simulated world is made of: its model, what its seed turns on, and what one client was promised and told.

Owns no rules of the core; simulator.py drives the core through it.
"""

from dataclasses import dataclass, field, replace
from random import Random

from tenantry.runtime.messages import Event, Submit, Usage

MASK = (1 << 61) - 1
BASE = b"\0" * 32


def mix(state: int, value: int) -> int:
    """One step of a rolling hash; independent of the interpreter's hash seed."""
    state = ((state ^ (value + 1)) * 6364136223846793005 + 1442695040888963407) & MASK
    return state ^ (state >> 29)


def pick(state: int, salt: int, vocab: int, forbidden: tuple[int, ...]) -> int:
    """The model: the next token is a function of everything before it, and of what may not be drawn."""
    allowed = [t for t in range(vocab) if t not in forbidden]
    return allowed[(mix(state, salt) >> 7) % len(allowed)]


@dataclass(frozen=True)
class Below:
    """What one seed has below the device: pages of host memory and of disk, steps that a transfer lasts, what a disk
    does wrong by transfer; by a hundred steps whether another engine begins over the same disk; by step whether host
    memory is wanted elsewhere, or no more; and what each tenant has of the tree's pages at least and at most."""

    slots: int = 8
    disk: int = 0
    tenant: int = 0
    slow: int = 0
    bad: float = 0.0
    gone: float = 0.0
    refused: float = 0.0
    restart: float = 0.0
    pressed: float = 0.0
    least: int = 0
    most: int = 0

    @classmethod
    def swarm(cls, seed: int) -> "Below":
        rng = Random(seed ^ 0xB10)

        def some(*values: float) -> float:
            return rng.choice(values) if rng.random() < 0.5 else 0.0

        disk = rng.choice((0, 6, 20, 60))
        return cls(
            slots=rng.choice((1, 2, 4, 8, 30)),
            disk=disk,
            tenant=rng.choice((0, 3, 9)) if disk else 0,
            slow=rng.choice((0, 0, 1, 4)),
            bad=some(0.1, 0.5),
            gone=some(0.1, 0.5),
            refused=some(0.02, 0.2),
            restart=some(1.0),
            pressed=0.05 if seed % 3 == 0 else 0.0,
            least=rng.choice((0, 0, 2)),
            most=rng.choice((0, 0, 6)),
        )


@dataclass
class World:
    """What one seed turns on. Probabilities are per step."""

    seed: int
    pages: int = 16
    page_size: int = 2
    max_running: int = 4
    budget: int = 8
    max_waiting: int = 16
    max_context: int = 64
    vocab: int = 5
    end_token: int = 1
    alphabet: int = 2
    tenants: int = 2
    adapter_sizes: tuple[int, ...] = (3, 5)
    adapter_limit: int = 8
    arena: bool = False
    block_bytes: int = 2
    kv_min: int = 8
    adapter_min: int = 4
    load_s: float = 1.0
    families: int = 2
    longest: int = 12
    most_tokens: int = 8
    choices: int = 1
    arrivals: float = 0.5
    load_delay: int = 0
    load_fails: float = 0.0
    nan: float = 0.0
    abort: float = 0.0
    abort_in_flight: float = 0.0
    drop: float = 0.0
    warm: float = 0.0
    stop_string: float = 0.0
    deadline: float = 0.0
    burst: float = 0.0
    guesses: float = 0.0
    bad: float = 0.0
    max_waiting_tenant: int = 512
    keys: int = 1
    weights: tuple[float, ...] = (1.0,) * 8
    priorities: float = 0.0
    policy: str = "mixed"
    itl_target: float = 0.0  # seconds
    delay: float = 0.0
    seconds: tuple[float, float, float] = (1.0, 0.0, 0.0)  # of a step, and of each of its rows and prompt tokens
    pool_s: float = 0.0
    credit: float = 0.0
    forget: float = 0.0
    below: Below | None = None
    elsewhere: float = 0.0  # of requests: whether another engine is to compute the prompt, or this one for another

    @classmethod
    def swarm(cls, seed: int) -> "World":
        """Sizes, features and faults drawn from the seed; half of the features are off in any one seed."""
        rng = Random(seed)

        def some(*values: float) -> float:
            return rng.choice(values) if rng.random() < 0.5 else 0.0

        page_size = rng.randint(1, 4)
        pages = rng.choice((8, 8, 12, 16, 24, 64))
        kv_min = rng.randint(pages // 2, pages - pages // 4)
        room = kv_min * page_size
        running = rng.choice((1, 2, 3, 4, 8))
        sizes = tuple(rng.randint(1, 9) for _ in range(rng.choice((0, 1, 2, 3, 5))))
        block_bytes = rng.randint(1, 4)
        return cls(
            seed=seed,
            pages=pages,
            page_size=page_size,
            max_running=running,
            budget=running + page_size + rng.choice((0, 1, 3, 8, 40)),
            max_waiting=rng.choice((3, 8, 24)),
            max_context=rng.choice((16, 400, 400)),
            vocab=rng.randint(4, 6),
            alphabet=rng.randint(1, 3),
            tenants=rng.randint(1, 3),
            adapter_sizes=sizes,
            adapter_limit=rng.choice((8, 12, 30)),
            arena=rng.random() < 0.6,
            block_bytes=block_bytes,
            kv_min=kv_min,
            adapter_min=rng.randint(1, pages - kv_min),
            load_s=rng.choice((0.1, 1.0, 10.0)),
            families=rng.randint(1, 4),
            longest=rng.choice((4, 12, room // 3)),
            most_tokens=rng.choice((1, 4, 12, room // 2)),
            choices=rng.choice((1, 1, 2, 4, 8)),
            arrivals=rng.choice((0.03, 0.1, 0.3, 0.8)),
            load_delay=rng.choice((0, 1, 5, 20)),
            load_fails=some(0.1, 0.5),
            nan=some(0.005, 0.05),
            abort=some(0.02, 0.2),
            abort_in_flight=some(0.02, 0.2),
            drop=some(0.01, 0.05),
            warm=some(0.05),
            stop_string=some(0.02, 0.1),
            deadline=some(0.1, 0.5),
            burst=some(0.1, 0.5),
            guesses=some(0.3, 0.9),
            bad=some(0.05),
            max_waiting_tenant=rng.choice((2, 8, 512)),
            keys=rng.choice((1, 1, 3)),
            weights=tuple(rng.choice((1.0, 1.0, 2.0, 0.5)) for _ in range(3)),
            priorities=some(0.2, 0.8),
            policy=rng.choice(("mixed", "mixed", "prefill-first")),
            itl_target=some(1.1, 1.5, 2.5),
            delay=some(0.002, 0.01),
            seconds=rng.choice(((1.0, 0.0, 0.0), (1.0, 0.05, 0.02), (0.003, 0.0, 0.0))),
            pool_s=some(5.0, 50.0),
            credit=some(4.0, 40.0),
            forget=some(0.01, 0.05),
            below=Below.swarm(seed) if rng.random() < 0.3 else None,
            elsewhere=rng.choice((0.0, 0.0, 0.3, 0.9)),
        )


def crowded(seed: int) -> World:
    """A swarm's world whose adapters and pages want all of one arena."""
    rng = Random(seed)
    return replace(
        World.swarm(seed),
        pages=24,
        kv_min=8,
        adapter_min=rng.choice((8, 12)),
        arena=True,
        page_size=2,
        block_bytes=4,
        adapter_sizes=tuple(rng.randint(8, 44) for _ in range(6)),
        longest=6,
        most_tokens=6,
        max_context=400,
        max_running=4,
        budget=20,
        arrivals=0.6,
        load_delay=rng.choice((0, 2)),
        abort_in_flight=0.2,
        warm=0.1,
        drop=0.1,
        deadline=0.0,
        seconds=(1.0, 0.0, 0.0),
        delay=0.0,
        max_waiting_tenant=512,
    )


def pieces(size: int, seed: int) -> tuple[int, ...]:
    """An adapter's bytes, torn anywhere."""
    rng, parts = Random(seed * 1000 + size), []
    while size:
        parts.append(rng.randint(1, min(size, 7)))
        size -= parts[-1]
    return tuple(parts)


def salt(submit: Submit, choice: int) -> int:
    return submit.sampling.seed * 31 + choice


@dataclass
class Client:
    """What the outside knows of one request: what it sent, what it got, and the hash of every prefix of it."""

    submit: Submit
    tenant: int
    adapter: int
    start: int
    outputs: list[list[int]]
    hashes: list[list[int]]
    reasons: list[str | None]
    matched: list[str | int | None]
    terminal: Event | None = None
    first_start: int | None = None
    usage: Usage = field(default_factory=Usage)
    stopped: dict[int, int] = field(default_factory=dict)  # choice to its length with the stop string
    drafted: int = 0
    standing: dict[int, int] = field(default_factory=dict)  # guesses that stood in the step in flight, by choice
    accepted: int = 0
    expected: bool = False  # another engine computes its prompt
    elsewhere: int = 0  # tokens of its prompt that one has computed
    came: float = 0.0
    submitted: float = 0.0  # to the scheduler
    started: bool = False

    def tokens(self, choice: int) -> list[int]:
        return [*self.submit.prompt, *self.outputs[choice]]
