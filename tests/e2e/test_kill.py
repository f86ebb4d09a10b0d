"""kill -9 of the gateway and of the engine under load: every token that was generated is billed, exactly once, and a
turn of a conversation is there whole, with its bill, or not at all."""

import asyncio
import contextlib
import json
import os
import random
import signal
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest

from tenantry.platform.cli.connection import OPERATOR_KEY_FILE
from tenantry.platform.cli.serve import UNSET
from tenantry.platform.cli.stack import Stack
from tenantry.platform.core.database import Database
from tenantry.platform.core.settings import Settings
from tenantry.platform.metering.reconcile import reconcile
from tenantry.runtime.config import EngineConfig
from tenantry.runtime.journal import JournalEntry, JournalTail

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "examples" / "demo"
CLIENTS = 8


@dataclass
class Seen:
    """What one client saw of one request. usage: the final count, if it came."""

    request_id: str | None = None
    delivered: int = 0
    usage: dict[str, int] | None = None
    status: int | None = None


@dataclass
class RecordingClient:
    """Streams completions until told to stop, and remembers everything it was told. Some streams it leaves early."""

    url: str
    key: str
    model: str
    rng: random.Random
    longest: int = 60
    seen: list[Seen] = field(default_factory=list)

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            seen = Seen()
            self.seen.append(seen)
            try:
                await self._one(seen)
            except (httpx.HTTPError, OSError):
                await asyncio.sleep(0.05)
            if seen.status not in (200, None):
                await asyncio.sleep(0.05)

    async def _one(self, seen: Seen) -> None:
        body = {
            "model": self.model,
            "prompt": [self.rng.randrange(100, 200) for _ in range(self.rng.randrange(2, self.longest))],
            "max_tokens": self.rng.randrange(1, 120),
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
            "return_token_ids": True,
        }
        leave_after = self.rng.choice([None, None, None, 5])
        headers = {"authorization": f"Bearer {self.key}"}
        async with (
            httpx.AsyncClient(timeout=30) as http,
            http.stream("POST", f"{self.url}/v1/completions", json=body, headers=headers) as answer,
        ):
            seen.status, seen.request_id = answer.status_code, answer.headers.get("x-request-id")
            async for line in answer.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                message = json.loads(line[6:])
                for choice in message.get("choices") or []:
                    seen.delivered += len(choice.get("token_ids") or [])
                seen.usage = message.get("usage") or seen.usage
                if leave_after is not None and seen.delivered >= leave_after:
                    return


@dataclass
class Talker:
    """Holds conversations, one turn after the other, numbered. After any failure it begins another conversation.

    heard: by conversation, (number, response's id) of the turns that were answered."""

    url: str
    key: str
    model: str
    heard: dict[str, list[tuple[int, str]]] = field(default_factory=dict)

    async def run(self, stop: asyncio.Event) -> None:
        headers = {"authorization": f"Bearer {self.key}"}
        async with httpx.AsyncClient(base_url=self.url, headers=headers, timeout=30) as http:
            while not stop.is_set():
                with contextlib.suppress(httpx.HTTPError, OSError):
                    await self._talk(http, stop)
                await asyncio.sleep(0.05)

    async def _talk(self, http: httpx.AsyncClient, stop: asyncio.Event) -> None:
        name = (await http.post("/v1/conversations", json={})).raise_for_status().json()["id"]
        heard = self.heard[name] = []
        while not stop.is_set():
            heard.append((len(heard), await self.turn(http, name, len(heard))))

    async def turn(self, http: httpx.AsyncClient, name: str, number: int) -> str:
        body = {"model": self.model, "conversation": name, "input": str(number), "max_output_tokens": 20}
        answer = await http.post("/v1/responses", json=body)
        return str(answer.raise_for_status().json()["id"])


def make_tenant(url: str, data_dir: Path, name: str, quota: dict[str, object] | None = None) -> str:
    """A tenant's key, made by the operator."""
    operator = (data_dir / "secrets" / OPERATOR_KEY_FILE).read_text()
    with httpx.Client(base_url=url, headers={"authorization": f"Bearer {operator}"}, timeout=30) as http:
        tenant = http.post("/api/v1/tenants", json={"name": name}).raise_for_status().json()["id"]
        if quota is not None:
            http.put(f"/api/v1/tenants/{tenant}/quota", json=quota).raise_for_status()
        return str(http.post(f"/api/v1/tenants/{tenant}/keys", json={"name": "k"}).raise_for_status().json()["key"])


async def until(condition, limit_s: float = 90.0, what: str = "it") -> None:
    deadline = time.monotonic() + limit_s
    while not await condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {limit_s} s"
        await asyncio.sleep(0.1)


async def follow(tails: list[JournalTail], kept: dict[str, JournalEntry], stop: asyncio.Event) -> None:
    """The oracle's own copy of the journals, kept from before the reaper tidies them up. Of a request that several
    engines had, the last attempt counts."""
    last = False
    while not last:
        last = stop.is_set()
        for tail in tails:
            for request_id, entry in (await asyncio.to_thread(tail.poll)).items():
                if request_id not in kept or entry.attempt >= kept[request_id].attempt:
                    kept[request_id] = entry
        await asyncio.sleep(0.1)


async def ready(url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        async with httpx.AsyncClient(timeout=5) as http:
            return (await http.get(f"{url}/ready")).is_success
    return False


async def campaign(kills: int, seed: int, **options: Any) -> None:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="tny-") as folder:
        settings = Settings(
            data_dir=Path(folder) / "data",
            port=0,
            model_dir=DEMO / "model",
            max_context=2048,
            drain_timeout=5.0,
            **options,
        )
        engine = EngineConfig(DEMO / "model", UNSET, "", UNSET, runner="scripted", step_s=0.004)
        stack = Stack(settings, engine, lambda _line: None, stable_s=0.0)
        try:
            await stack.start()
            await attack(stack, kills, rng)
        finally:
            await stack.kill()


async def attack(stack: Stack, kills: int, rng: random.Random) -> None:
    url, data = stack.base_url, stack.settings.data_dir
    keys = [make_tenant(url, data, name) for name in ("acme", "globex")]
    longest = 60 if stack.settings.roles == "both" else 400  # short prompts are not handed over
    clients = [
        RecordingClient(url, keys[i % 2], "model", random.Random(rng.random()), longest) for i in range(CLIENTS)
    ]
    talkers = [Talker(url, key, "model") for key in keys]
    stop, kept = asyncio.Event(), dict[str, JournalEntry]()
    oracle_stop = asyncio.Event()
    journals = [JournalTail(place.journal) for place in stack.settings.fleet]
    oracle = asyncio.create_task(follow(journals, kept, oracle_stop))
    load = [asyncio.create_task(c.run(stop)) for c in (*clients, *talkers)]
    killed = dict.fromkeys(stack.pids, 0)
    for _ in range(kills):
        await asyncio.sleep(rng.uniform(0.1, 0.6))
        victim = rng.choice(sorted(killed))
        pid = stack.pids[victim]
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        killed[victim] += 1
        await until(lambda v=victim, p=pid: replaced(stack, v, p), what=f"a new {victim}")
        await until(lambda: ready(url), what="readiness")
    await asyncio.sleep(0.5)
    stop.set()
    await asyncio.gather(*load)
    database = await Database.connect(stack.settings.database_url or "")
    try:
        await until(lambda: nothing_open(database), what="settlement of every request")
        oracle_stop.set()
        await oracle
        await compare(database, kept, [s for c in clients for s in c.seen])
        for talker in talkers:
            await compare_turns(database, talker)
    finally:
        await database.close()
    assert min(killed.values()) > 0, "a campaign that never hit one of its victims proves nothing"


async def replaced(stack: Stack, victim: str, old: int) -> bool:
    return stack.pids[victim] not in (None, old)


async def nothing_open(database: Database) -> bool:
    async with database.operator() as connection:
        return bool(await connection.fetchval("SELECT count(*) = 0 FROM request WHERE state = 'admitted'"))


async def compare(database: Database, journal: dict[str, JournalEntry], seen: list[Seen]) -> None:
    async with database.operator() as connection:
        books = await reconcile(connection)
    async with database.operator() as connection:
        rows: list[asyncpg.Record] = await connection.fetch("SELECT * FROM usage_event")
    assert books.findings == (), books.findings
    events = {row["request_id"].hex: row for row in rows}
    assert len(events) == len(rows), "two events of one request"
    ours = {UUID(k).hex: entry.usage for k, entry in journal.items()}
    assert ours.keys() <= events.keys(), "the engine worked for a request that nobody was billed for"
    for request_id, usage in ours.items():
        event = events[request_id]
        billed = (event["prompt"], event["cached"], event["completion"])
        assert billed == (usage.prompt, usage.cached, usage.completion), "billed otherwise than counted"
    served = [s for s in seen if s.status == 200]
    for s in served:
        assert s.request_id is not None
        event = events[s.request_id.removeprefix("req_")]
        assert event["completion"] >= s.delivered, "tokens were given away"
        if s.usage is not None:
            assert (event["prompt"], event["completion"]) == (s.usage["prompt_tokens"], s.usage["completion_tokens"])
    finished = sum(s.usage is not None for s in served)
    assert finished > 20, "too little was served for the campaign to mean anything"
    assert finished < len(served), "no stream was ever cut"


async def compare_turns(database: Database, talker: Talker) -> None:
    """Every conversation holds whole turns, in order, each with one bill; what was heard is there; none is stuck."""
    statement = """SELECT i.role, i.content::text AS said, i.response_id, e.outcome, e.completion FROM session_item i
    JOIN usage_event e ON e.request_id = i.response_id WHERE i.session_id = $1 ORDER BY i.seq"""
    headers = {"authorization": f"Bearer {talker.key}"}
    assert sum(map(len, talker.heard.values())) > 5, "too few turns for the campaign to mean anything"
    async with httpx.AsyncClient(base_url=talker.url, headers=headers, timeout=30) as http:
        for name, heard in talker.heard.items():
            async with database.operator() as connection:
                rows = await connection.fetch(statement, UUID(name.removeprefix("conv_")))
            pairs = list(zip(rows[::2], rows[1::2], strict=True))
            assert [json.loads(user["said"])[0]["text"] for user, _ in pairs] == [str(i) for i in range(len(pairs))]
            for user, assistant in pairs:
                assert (user["role"], assistant["role"]) == ("user", "assistant")
                assert user["response_id"] == assistant["response_id"]
                assert (assistant["outcome"], assistant["completion"] > 0) == ("completed", True)
            stored = [f"resp_{user['response_id'].hex}" for user, _ in pairs]
            assert stored[: len(heard)] == [response for _, response in heard]
            assert len(stored) <= len(heard) + 1, "at most the last commit was not heard of"
            assert await talker.turn(http, name, len(stored)), "a dead turn keeps its conversation"


@pytest.mark.timeout(400)
async def test_twenty_kills_leave_a_ledger_equal_to_the_oracle():
    await campaign(kills=20, seed=20261121)


@pytest.mark.chaos
@pytest.mark.timeout(400)
async def test_kills_among_roles_leave_a_ledger_equal_to_the_oracle():
    """Prompts that one engine computes and another decodes, and whoever dies in between."""
    await campaign(kills=9, seed=20261136, roles="prefill,decode,decode")


@pytest.mark.chaos
@pytest.mark.timeout(0)
async def test_kills_among_engines_leave_a_ledger_equal_to_the_oracle():
    await campaign(kills=100, seed=20261123, engines=3)


@pytest.mark.chaos
@pytest.mark.timeout(0)
@pytest.mark.parametrize("seed", range(10))
async def test_many_kills_leave_a_ledger_equal_to_the_oracle(seed: int):
    await campaign(kills=100, seed=seed)
