"""The gateway over the real link: a worker process of its own, its journal, and its death under a stream."""

import asyncio
import json
import signal
from decimal import Decimal

import httpx
import pytest

from tenantry.platform.fleet.router import Router
from tenantry.platform.testing import running_gateway, write_tiny_model
from tenantry.runtime.journal import read_counters
from tenantry.runtime.rehearsal import WorkerProcess

CHAT = "/v1/chat/completions"
TURNS = [{"role": "user", "content": "hi"}]


@pytest.fixture
def speculate():
    return "off"


@pytest.fixture
async def worker(tmp_path, speculate):
    step_s = 0.01 if speculate == "off" else 0.001
    worker = WorkerProcess(tmp_path, write_tiny_model(tmp_path / "model"), step_s=step_s, speculate=speculate)
    await worker.start()
    yield worker
    await worker.stop()


@pytest.fixture
async def wired(pg, tmp_path, worker):
    async with running_gateway(pg.app, tmp_path, worker=Router.alone(worker.client)) as wired:
        yield wired


@pytest.fixture
async def client(wired):
    _, key = await wired._make_tenant("acme")
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=wired.url, headers=headers, timeout=30) as client:
        yield client


async def events(client, count):
    """The usage events, once there are `count`."""
    async with asyncio.timeout(20):
        while True:
            found = (await client.get("/api/v1/usage/events")).json()["data"]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.1)


async def test_what_is_answered_is_what_was_journalled_and_billed(client, worker):
    body = {"model": "base", "messages": TURNS, "max_tokens": 12, "ignore_eos": True, "n": 2, "logprobs": True}
    whole, streamed = await asyncio.gather(
        client.post(CHAT, json=body),
        client.post(CHAT, json={**body, "stream": True, "stream_options": {"include_usage": True}}),
    )
    assert whole.status_code == 200, whole.text
    usage = whole.json()["usage"]
    assert usage["completion_tokens"] == 24
    assert all(len(choice["logprobs"]["content"]) == 12 for choice in whole.json()["choices"])
    lines = [line for line in streamed.text.split("\n") if line.startswith("data: ")]
    assert lines[-1] == "data: [DONE]"
    assert json.loads(lines[-2][6:])["usage"]["completion_tokens"] == 24
    metrics = (await client.get("/metrics")).text
    assert "tenantry_engine_ready 1.0" in metrics
    assert "tenantry_engine_pages_total 1024.0" in metrics
    assert 'tenantry_engine_step_cost_seconds{of="prompt_token"}' in metrics
    billed = {e["request_id"]: e["completion_tokens"] for e in await events(client, 2)}
    journal = {
        f"req_{i.replace('-', '')}": e.usage.completion for i, e in read_counters(worker.config.journal_dir).items()
    }
    assert billed == journal == {r.headers["x-request-id"]: 24 for r in (whole, streamed)}


async def test_a_disconnect_stops_the_worker_and_is_billed(client, worker):
    body = {"model": "base", "messages": TURNS, "max_tokens": 400, "ignore_eos": True, "stream": True}
    async with client.stream("POST", CHAT, json=body) as reply:
        async for line in reply.aiter_lines():
            if '"content":"' in line:
                break
    (event,) = await events(client, 1)
    assert event["outcome"] == "cancelled"
    assert 0 < event["completion_tokens"] < 400
    assert (await worker.client.ping()).stats.running == 0


async def test_the_worker_killed_under_a_stream_is_settled_from_its_journal(client, worker):
    body = {"model": "base", "messages": TURNS, "max_tokens": 400, "ignore_eos": True, "stream": True}
    seen = []
    async with client.stream("POST", CHAT, json=body) as reply:
        async for line in reply.aiter_lines():
            seen.append(line)
            if len(seen) == 12:
                worker.process.send_signal(signal.SIGKILL)
                await worker.process.wait()
                worker.client.engine_lost()
    assert any('"engine_unavailable"' in line for line in seen)
    assert "data: [DONE]" not in seen
    assert (await client.get("/ready")).status_code == 503
    assert (await client.post(CHAT, json=body)).status_code == 503
    await worker.start()
    (event,) = await events(client, 1)
    assert event["outcome"] == "recovered"
    delivered = sum('"content":"' in line for line in seen) - 1
    assert delivered <= event["completion_tokens"] < 400
    assert (await client.post(CHAT, json={**body, "stream": False, "max_tokens": 2})).status_code == 200


@pytest.mark.parametrize("speculate", ["ngram"])
async def test_guesses_change_no_text_and_are_counted_billed_and_told(client, worker, wired):
    """A scripted model's text hardly repeats, so that what is looked up mostly falls; asked again, it all stands."""
    base = (await client.get("/v1/models/base")).json()["x_base_model_id"]
    async with httpx.AsyncClient(base_url=wired.url, headers={"authorization": f"Bearer {wired.operator_key}"}) as o:
        price = {"prompt": "0", "cached": "0", "completion": "0.000000002", "rejected": "0.000000001"}
        assert (await o.post("/api/v1/prices", params={"base_model": base}, json=price)).status_code == 201
    body = {"model": "base", "messages": TURNS, "max_tokens": 400, "ignore_eos": True, "n": 4, "seed": 5}
    texts, guesses = [], []
    for speculate in (True, False, True):
        reply = (await client.post(CHAT, json={**body, "speculate": speculate})).json()
        texts.append([choice["message"]["content"] for choice in reply["choices"]])
        details = reply["usage"]["completion_tokens_details"]
        guesses.append((details["accepted_prediction_tokens"], details["rejected_prediction_tokens"]))
    assert texts[0] == texts[1] == texts[2]
    assert guesses[1] == (0, 0)
    assert guesses[2][0] > 1000
    assert 0 < guesses[0][1] + guesses[2][1] <= 16 * 2 * 1600
    for event, (accepted, rejected) in zip(await events(client, 3), guesses[::-1], strict=True):
        assert (event["accepted_tokens"], event["rejected_tokens"]) == (accepted, rejected)
        assert Decimal(event["cost"]) == Decimal(2 * 1600 + rejected) / 10**9
    [total] = (await client.get("/api/v1/usage", params={"group_by": "total"})).json()["data"]
    [told] = (await client.get("/api/v1/speculation")).json()["data"]
    [ngram] = told["proposers"]
    assert (told["model"], ngram["proposer"]) == ("base", "ngram")
    assert ngram["drafted_tokens"] == total["drafted_tokens"] == sum(map(sum, guesses))
    assert ngram["accepted_tokens"] == total["accepted_tokens"] == told["steps_saved"]
