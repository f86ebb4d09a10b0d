"""The client against a scripted far end: fencing, silence, slow readers, and a close that always ends."""

import asyncio
import stat
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
import zmq

from tenantry.runtime import client as client_module
from tenantry.runtime.client import EngineClient
from tenantry.runtime.counts import Guessing, ProposerCounts, Stats
from tenantry.runtime.errors import EngineUnavailable, InvalidRequest
from tenantry.runtime.link import ServerLink
from tenantry.runtime.messages import (
    Abort,
    AskGuesses,
    Command,
    Event,
    Events,
    Finished,
    Guesses,
    Ping,
    Pong,
    Sampling,
    Submit,
    Tokens,
    Usage,
)


def submit(request_id: str) -> Submit:
    return Submit(request_id, (1, 2), Sampling(max_tokens=4), bytes(32), None, "t")


class FarEnd:
    """A ServerLink driven from the test's own loop: answers pings, keeps the other commands."""

    def __init__(self, directory: Path, epoch: str = "e1") -> None:
        self.address = f"ipc://{directory}/far.sock"
        self.link = ServerLink(self.address, epoch)
        self.epoch = epoch
        self.commands: list[tuple[Command, bool]] = []
        self.answers = self.ready = True
        self.client = b""
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            for client, command, current in self.link.receive(0):
                self.client = client
                if not isinstance(command, Ping):
                    self.commands.append((command, current))
                elif self.answers:
                    self.link.send(client, Events((Pong(self.epoch, 1, self.ready, Stats()),)))
            await asyncio.sleep(0.002)

    def tell(self, *events: Event) -> None:
        assert self.link.send(self.client, Events(events))

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])
        self.link.close(100)


async def until(condition, seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
async def far(tmp_path: Path) -> AsyncIterator[FarEnd]:
    far = FarEnd(tmp_path)
    yield far
    with suppress(zmq.ZMQError):  # a test may have closed it
        await far.close()


@pytest.fixture
async def client(far: FarEnd) -> AsyncIterator[EngineClient]:
    client = EngineClient(far.address)
    await client.connect()
    await until(lambda: client.ready)
    yield client
    await asyncio.wait_for(client.close(), 5)


async def test_closing_at_any_moment_ends(far: FarEnd):
    """A pong that arrives with the cancellation must not swallow it."""
    for n in range(60):
        client = EngineClient(far.address)
        await client.connect()
        if n % 2:
            await until(lambda c=client: c.ready)
        await asyncio.sleep(n % 5 * 0.001)
        await asyncio.wait_for(client.close(), 5)


async def test_events_of_another_life_are_dropped(far: FarEnd, client: EngineClient):
    generation = client.generate(submit("a"))
    await until(lambda: far.commands)
    far.link._epoch = b"e0"
    far.tell(Tokens("a", 0, (9,)), Finished("a", Usage(), "length"))
    far.link._epoch = b"e1"
    far.tell(Tokens("a", 0, (1,)), Finished("a", Usage(2, 0, 1), "length"))
    events = [event async for event in generation]
    assert events == [Tokens("a", 0, (1,)), Finished("a", Usage(2, 0, 1), "length")]


async def test_a_new_life_ends_what_ran_in_the_old(far: FarEnd, client: EngineClient):
    generation = client.generate(submit("a"))
    far.link._epoch, far.epoch = b"e2", "e2"
    with pytest.raises(EngineUnavailable, match="restarted"):
        await asyncio.wait_for(generation.__anext__(), 5)
    with pytest.raises(StopAsyncIteration):
        await generation.__anext__()
    assert client.ready
    client.generate(submit("b"))
    await until(lambda: any(c.request_id == "b" and current for c, current in far.commands))


async def test_silence_ends_what_is_pending(far: FarEnd, client: EngineClient, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(client_module, "SILENCE_S", 0.5)
    generation = client.generate(submit("a"))
    far.answers = False
    with pytest.raises(EngineUnavailable, match="silent"):
        await asyncio.wait_for(generation.__anext__(), 8)
    assert not client.ready
    far.answers = True
    await until(lambda: client.ready, 8)


async def test_what_was_queued_for_a_lost_engine_is_never_sent(tmp_path: Path):
    far = FarEnd(tmp_path)
    client = EngineClient(far.address)
    await client.connect()
    await until(lambda: client.ready)
    await far.close()
    client.generate(submit("stale"))
    client.engine_lost()
    again = FarEnd(tmp_path, "e2")
    await until(lambda: client.ready)
    await asyncio.sleep(0.1)
    assert again.commands == []
    await client.close()
    await again.close()


async def test_a_reader_that_falls_behind_is_aborted_and_still_gets_the_counts(
    far: FarEnd, client: EngineClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(client_module, "QUEUE_EVENTS", 10)
    generation = client.generate(submit("a"))
    await until(lambda: far.commands)
    for n in range(100):
        far.tell(Tokens("a", 0, (n,)))
    await until(lambda: (Abort("a"), True) in far.commands)
    far.tell(Finished("a", Usage(2, 0, 100), "abort"))
    events = [event async for event in generation]
    assert events[:-1] == [Tokens("a", 0, (n,)) for n in range(10)]
    assert events[-1] == Finished("a", Usage(2, 0, 100), "abort")
    assert far.commands.count((Abort("a"), True)) == 1


async def test_abort_after_the_end_is_harmless(far: FarEnd, client: EngineClient):
    generation = client.generate(submit("a"))
    await until(lambda: far.commands)
    far.tell(Finished("a", Usage(), "length"))
    assert [type(e) async for e in generation] == [Finished]
    generation.abort()
    await client.ping()
    assert len(far.commands) == 1


async def test_a_request_before_the_engine_is_there_is_refused(tmp_path: Path):
    client = EngineClient(f"ipc://{tmp_path}/absent.sock")
    await client.connect()
    with pytest.raises(EngineUnavailable):
        await client.generate(submit("a")).__anext__()
    assert await client.ping(0.05) is None
    await client.close()
    with pytest.raises(EngineUnavailable):
        await client.generate(submit("a")).__anext__()


async def test_a_broken_connection_is_noticed_at_once(far: FarEnd, client: EngineClient):
    generation = client.generate(submit("a"))
    await until(lambda: far.commands)
    far.link.close(0)
    far.task.cancel()
    with pytest.raises(EngineUnavailable, match="broke"):
        await asyncio.wait_for(generation.__anext__(), 1)
    assert not client.ready


async def test_a_loop_that_fails_ends_what_is_pending_and_runs_again(far: FarEnd, client: EngineClient):
    generation = client.generate(submit("a"))
    await until(lambda: far.commands)
    client._route = None  # a bug of ours: not callable
    far.tell(Tokens("a", 0, (1,)))
    with pytest.raises(EngineUnavailable, match="failed"):
        await asyncio.wait_for(generation.__anext__(), 2)
    del client._route
    await until(lambda: client.ready)
    again = client.generate(submit("b"))
    await until(lambda: len(far.commands) == 2)
    far.tell(Finished("b", Usage(), "length"))
    assert [type(e) async for e in again] == [Finished]


async def test_closing_ends_what_is_pending(far: FarEnd):
    client = EngineClient(far.address)
    await client.connect()
    await until(lambda: client.ready)
    generation = client.generate(submit("a"))
    await client.close()
    with pytest.raises(EngineUnavailable):
        await generation.__anext__()


async def test_what_guessing_came_to_is_asked_for(far: FarEnd, client: EngineClient):
    counts = (Guessing(b"n" * 32, None, 4, 9, (ProposerCounts("ngram", False, 3, 12, 5, (3, 2), (2, 2)),)),)
    asking = [asyncio.create_task(client.guesses()) for _ in range(2)]
    await until(lambda: len(far.commands) == 2)
    first, second = (command for command, _ in far.commands)
    assert isinstance(first, AskGuesses)
    far.tell(Guesses(second.ask, counts), Guesses("nobody's", ()), Guesses(first.ask, ()), Guesses(first.ask, counts))
    assert await asyncio.gather(*asking) == [(), counts]
    with pytest.raises(EngineUnavailable, match="does not answer"):
        await client.guesses(timeout_s=0.05)


async def test_an_id_is_used_once(far: FarEnd, client: EngineClient):
    client.generate(submit("a"))
    with pytest.raises(ValueError, match="unique"):
        client.generate(submit("a"))


async def test_a_client_that_does_not_read_is_noticed(far: FarEnd, client: EngineClient):
    """The bound is on frames: a client that stops reading costs the worker a queue, never its memory."""
    client._tasks[0].cancel()
    frames = 0
    while far.link.send(far.client, Events((Tokens("a", 0, (1,)),))):
        frames += 1
        if frames % 1000 == 0:
            await asyncio.sleep(0)
        assert frames < 50_000
    assert far.link.dropped["slow_client"] == 1


@pytest.mark.parametrize("socket", ["tcp://127.0.0.1:5", "ipc://relative", "ipc:///" + "x" * 200])
async def test_only_a_unix_socket_of_ours_is_listened_on(socket: str, tmp_path: Path):
    with pytest.raises(InvalidRequest):
        ServerLink(socket.replace("ipc:///", f"ipc://{tmp_path}/"), "e")


async def test_the_socket_is_private(far: FarEnd):
    mode = Path(far.address.removeprefix("ipc://")).stat().st_mode  # noqa: ASYNC240
    assert stat.S_IMODE(mode) == 0o600
