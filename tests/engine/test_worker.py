"""The real worker process: many requests, aborts, stops, poison, refusals, and what it tells and keeps private."""

import asyncio
import os
import random
import stat
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from tenantry.runtime.journal import read_counters
from tenantry.runtime.messages import ChoiceFinished, Finished, Refused, Usage
from tenantry.runtime.rehearsal import Requests, drain, first_token
from tenantry.runtime.testing import Fault


async def test_32_at_once_equal_each_alone_and_are_in_the_journal(spawn, requests: Requests):
    worker = await spawn()
    submits = [requests.make(f"the dog sat on {n}", max_tokens=20 + n % 7, n=1 + n % 2) for n in range(32)]
    alone = [(await drain(worker.client.generate(s)))[0] for s in submits]
    again = [msgspec.structs.replace(s, request_id=f"b{n}") for n, s in enumerate(submits)]
    both = await asyncio.gather(*(drain(worker.client.generate(s)) for s in again))
    assert [tokens for tokens, _, _ in both] == alone
    entries = read_counters(worker.config.journal_dir)
    assert len(entries) == 64
    for submit, (tokens, ends, last) in zip(again, both, strict=True):
        assert isinstance(last, Finished)
        assert last.reason == "length"
        assert len(ends) == submit.sampling.n
        assert last.usage.prompt == len(submit.prompt)
        assert last.usage.completion == sum(map(len, tokens.values())) == submit.sampling.max_tokens * len(ends)
        entry = entries[submit.request_id]
        assert entry.usage == last.usage
        assert (entry.closed, entry.reason, entry.receipt) == (True, "length", submit.receipt)


async def test_an_abort_is_heard_within_two_steps(spawn, requests: Requests):
    worker = await spawn(step_s=0.05)
    generation = worker.client.generate(requests.make(max_tokens=1000))
    for _ in range(3):
        await first_token(generation)
    before = await worker.client.ping()
    generation.abort()
    rest = [event async for event in generation]
    after = await worker.client.ping()
    assert isinstance(rest[-1], Finished)
    assert rest[-1].reason == "abort"
    assert after.progress - before.progress <= 3, "one in flight, at most one more, and the one that tells"
    assert len(rest) - 1 <= 2
    assert after.stats.running == 0
    entry = read_counters(worker.config.journal_dir)[generation.request_id]
    assert (entry.closed, entry.reason, entry.usage) == (True, "abort", rest[-1].usage)
    assert rest[-1].usage.completion == 3 + len(rest) - 1


async def test_stop_strings_end_the_choice_at_the_token(spawn, requests: Requests):
    worker = await spawn()
    tokens, _, _ = await drain(worker.client.generate(requests.make(max_tokens=60)))
    text = requests.text.decode(tokens[0])
    stop = text[len(text) // 2 : len(text) // 2 + 3]
    got, ends, last = await drain(worker.client.generate(requests.make(max_tokens=60, stop=(stop,))))
    decoder = requests.text.decoder((stop,))
    expected = 0
    while decoder.matched is None:
        decoder.push(tokens[0][expected : expected + 1])
        expected += 1
    assert got[0] == tokens[0][:expected]
    assert ends == [ChoiceFinished(last.request_id, 0, "stop", stop)]
    assert (last.reason, last.usage.completion) == ("stop", expected)
    at_the_last = requests.make(max_tokens=expected, stop=(stop,))
    got, ends, last = await drain(worker.client.generate(at_the_last))
    assert ends == [ChoiceFinished(last.request_id, 0, "stop", stop)], "not length: the text was cut at the stop"
    assert (last.reason, last.usage.completion) == ("stop", expected)


async def test_poison_and_nan_end_only_themselves(spawn, requests: Requests):
    worker = await spawn(step_s=0.002)
    pid = worker.process.pid
    healthy = [requests.make(f"dog {n}", max_tokens=30) for n in range(12)]
    expected = [(await drain(worker.client.generate(s)))[0] for s in healthy]
    again = [msgspec.structs.replace(s, request_id=f"b{n}") for n, s in enumerate(healthy)]
    bad = [requests.make(f"bad {n}", fault=f) for n, f in enumerate((Fault.RAISE, Fault.NAN, Fault.RAISE, Fault.NAN))]
    order = again + bad
    random.Random(1).shuffle(order)
    results = await asyncio.gather(*(drain(worker.client.generate(s)) for s in order))
    by_id = {s.request_id: result for s, result in zip(order, results, strict=True)}
    assert [by_id[s.request_id][0] for s in again] == expected
    for submit in bad:
        tokens, _, last = by_id[submit.request_id]
        assert tokens == {}
        assert isinstance(last, Finished)
        assert (last.reason, last.usage.completion) == ("error", 0)
    for _ in range(20):  # alone and again and again: no number of bad requests ends the engine
        _, _, last = await drain(worker.client.generate(requests.make(fault=Fault.RAISE)))
        assert last.reason == "error"
    assert (await worker.client.ping()).ready
    assert worker.process.pid == pid
    assert worker.process.returncode is None
    assert "request_failed" in worker.log
    assert "commanded" not in worker.log


async def test_refusals_are_answers(spawn, requests: Requests):
    worker = await spawn()
    cases = [
        (requests.make(adapter=bytes(32)), "adapter_unavailable"),
        (requests.make(adapter=b"short"), "adapter_unavailable"),
        (requests.make(max_tokens=10_000), "context_length_exceeded"),
        (requests.make(logit_bias=((10**9, 1.0),)), "invalid_request"),
        (requests.make(receipt=b"x" * 20_000), "invalid_request"),
    ]
    for submit, code in cases:
        _, _, last = await drain(worker.client.generate(submit))
        assert isinstance(last, Refused)
        assert (last.code, last.request_id) == (code, submit.request_id)
    assert read_counters(worker.config.journal_dir) == {}


async def test_the_socket_and_the_journal_are_private(spawn):
    worker = await spawn()
    mode = os.stat(worker.config.socket.removeprefix("ipc://")).st_mode
    assert stat.S_IMODE(mode) == 0o600
    for path in worker.config.journal_dir.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    second = await asyncio.create_subprocess_exec(
        *psutil.Process(worker.process.pid).cmdline(),
        stdin=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2] / ".src",
    )
    assert await asyncio.wait_for(second.wait(), 20) == 2, "one worker per journal"
    assert (await worker.client.ping()).ready


async def test_logs_hold_no_prompt(spawn, requests: Requests):
    worker = await spawn()
    for fault in (Fault.RAISE, Fault.NAN, None):
        await drain(worker.client.generate(requests.make("xylophone secret", fault=fault, receipt=b"receipt")))
    assert "xylophone" not in worker.log
    assert str(requests.text.encode("xylophone")[0:2])[1:-1] not in worker.log


async def test_events_per_second_through_the_link(spawn, requests: Requests, capsys: pytest.CaptureFixture[str]):
    worker = await spawn()
    submits = [requests.make(f"dog {n}", max_tokens=200) for n in range(32)]
    start = time.perf_counter()
    results = await asyncio.gather(*(drain(worker.client.generate(s)) for s in submits))
    seconds = time.perf_counter() - start
    tokens = sum(len(t[0]) for t, _, _ in results)
    pong = await worker.client.ping()
    with capsys.disabled():
        print(f"\nlink: {tokens / seconds:.0f} token events/s from 32 requests, "
              f"{pong.stats.step_seconds / pong.stats.steps * 1e6:.0f} us per scripted step")  # fmt: skip
    assert tokens == 32 * 200
    assert all(
        last.usage == Usage(len(s.prompt), last.usage.cached, 200)
        for s, (_, _, last) in zip(submits, results, strict=True)
    )
