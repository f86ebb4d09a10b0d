"""What is believed about who asks: once for all who wait, for a moment, and never what is already known to be old."""

import asyncio
from uuid import uuid4

import pytest

from tenantry.platform.tenants.principal import Principal
from tenantry.platform.tenants.proofs import Proof, Proofs


@pytest.fixture
def proof():
    return Proof(Principal(uuid4(), "acme", uuid4(), "k", "live", frozenset()), 1, b"mac", True)


async def test_many_who_wait_ask_once_and_a_cancelled_one_breaks_nothing(proof):
    gate = asyncio.Event()

    async def look_up(key):
        await gate.wait()
        return proof

    proofs = Proofs(look_up, 8, 1.0, lambda: 0.0)
    waiting = [asyncio.create_task(proofs.get("a")) for _ in range(20)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    gate.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1:] == [proof] * 19
    assert proofs.queries == 1


async def test_what_was_forgotten_meanwhile_is_not_believed(proof):
    gate = asyncio.Event()
    answers = [proof, None]

    async def look_up(key):
        found = answers.pop(0)
        await gate.wait()
        return found

    proofs = Proofs(look_up, 8, 1.0, lambda: 0.0)
    early = asyncio.create_task(proofs.get("a"))
    await asyncio.sleep(0)
    proofs.forget("a")
    late = asyncio.create_task(proofs.get("a"))
    await asyncio.sleep(0)
    gate.set()
    assert (await early, await late) == (proof, None)
    assert await proofs.get("a") is None
    assert proofs.queries == 2


async def test_a_slow_answer_is_given_and_not_kept(proof):
    now = 0.0

    async def look_up(key):
        nonlocal now
        now += 2.0
        return proof

    proofs = Proofs(look_up, 8, 1.0, lambda: now)
    assert await proofs.get("a") is proof
    assert await proofs.get("a") is proof
    assert proofs.queries == 2


async def test_a_failed_look_up_is_heard_by_all_and_asked_again(proof):
    fail = True

    async def look_up(key):
        if fail:
            raise ConnectionError
        return proof

    proofs = Proofs(look_up, 8, 1.0, lambda: 0.0)
    both = await asyncio.gather(proofs.get("a"), proofs.get("a"), return_exceptions=True)
    assert [type(one) for one in both] == [ConnectionError, ConnectionError]
    fail = False
    assert await proofs.get("a") is proof
