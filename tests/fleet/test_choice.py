"""Laws of the router's choice: affinity before load, never far from the least busy, and keys of one tenant alone."""

import random
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from tenantry.platform.fleet.choice import Candidate, choose
from tenantry.platform.fleet.hints import BLOCK_TOKENS, EngineHints, Sessions, blocks
from tenantry.runtime.messages import Sampling, Submit
from tenantry.runtime.namespace import Namespace

A, B = (Namespace(tenant, bytes(32)).key for tenant in (b"tenant-a", b"tenant-b"))
candidates = st.lists(
    st.builds(Candidate, st.uuids().map(str), st.integers(0, 50), st.integers(0, 400), st.booleans(), st.booleans()),
    max_size=6,
)


def submit(namespace: bytes = A, session: bytes = b"") -> Submit:
    return Submit("r", (1,), Sampling(max_tokens=1), namespace, None, "t", session=session)


@settings(max_examples=300, deadline=None)
@given(candidates, st.integers(0, 10))
def test_whoever_is_chosen_is_never_far_ahead_of_the_least_busy(found: list[Candidate], most: int):
    chosen = choose(found, most)
    assert (chosen is None) == (not found)
    if chosen is not None:
        assert chosen.open <= min(c.open for c in found) + most


def test_a_session_goes_before_a_prefix_and_a_prefix_before_an_adapter_and_that_before_load():
    idle = Candidate("idle", 0, resident=False)
    resident = Candidate("resident", 1)
    prefix = Candidate("prefix", 2, prefix=64, resident=False)
    longer = Candidate("longer", 3, prefix=96, resident=False)
    session = Candidate("session", 4, session=True, resident=False)
    order = [idle, resident, prefix, longer, session]
    for worse, better in pairwise(order):
        assert choose([worse, better]) == better
        assert choose([better, worse]) == better
    assert choose([idle, Candidate("session", 5, session=True)]) == idle, "too far ahead"


def test_equal_engines_share_the_load():
    open_requests = dict.fromkeys("abc", 0)
    for _ in range(300):
        chosen = choose([Candidate(name, count) for name, count in open_requests.items()])
        assert chosen is not None
        open_requests[chosen.name] += 1
    assert set(open_requests.values()) == {100}


def test_a_prefix_is_known_to_the_last_whole_block_and_no_further():
    rng = random.Random(1)
    tokens = [rng.randrange(1000) for _ in range(5 * BLOCK_TOKENS + 7)]
    hints = EngineHints()
    hints.learn(list(blocks(A, tokens)))
    assert hints.known(list(blocks(A, tokens))) == 5 * BLOCK_TOKENS
    assert hints.known(list(blocks(A, tokens[: 3 * BLOCK_TOKENS + 1]))) == 3 * BLOCK_TOKENS
    other = [*tokens[: 2 * BLOCK_TOKENS], -1 % 1000, *tokens[2 * BLOCK_TOKENS + 1 :]]
    other[2 * BLOCK_TOKENS] = tokens[2 * BLOCK_TOKENS] + 1
    assert hints.known(list(blocks(A, other))) == 2 * BLOCK_TOKENS
    assert hints.known(list(blocks(A, tokens[1:]))) == 0


def test_another_tenants_equal_prompt_is_never_known():
    """2,000 prompts of one tenant, asked for by another, and by the same under other weights."""
    rng = random.Random(2)
    hints, sessions = EngineHints(), Sessions()
    other_weights = Namespace(b"tenant-a", bytes([1]) * 32).key
    for n in range(2000):
        tokens = [rng.randrange(50) for _ in range(2 * BLOCK_TOKENS)]
        hints.learn(list(blocks(A, tokens)))
        sessions.served(submit(A, str(n).encode()), "engine-0")
        assert hints.known(list(blocks(A, tokens))) == 2 * BLOCK_TOKENS
        assert hints.known(list(blocks(B, tokens))) == 0
        assert hints.known(list(blocks(other_weights, tokens))) == 0
        assert sessions.engine(submit(A, str(n).encode())) == "engine-0"
        assert sessions.engine(submit(B, str(n).encode())) is None


def test_hints_and_sessions_stay_bounded_and_keep_what_is_used():
    hints, sessions = EngineHints(most=10), Sessions(most=10)
    system = list(blocks(A, [7] * 2 * BLOCK_TOKENS))
    for n in range(200):
        hints.learn([*system, *blocks(A, [n] * BLOCK_TOKENS)])
        sessions.served(submit(A, str(n).encode()), "engine-0")
        assert len(hints) <= 10
    assert hints.known(system) == 2 * BLOCK_TOKENS
    assert sessions.engine(submit(A, b"0")) is None
    assert sessions.engine(submit(A, b"199")) == "engine-0"
    sessions.forget("engine-0")
    assert sessions.engine(submit(A, b"199")) is None


def test_a_session_without_a_name_belongs_to_nobody():
    sessions = Sessions()
    sessions.served(submit(A), "engine-0")
    assert sessions.engine(submit(A)) is None
