"""A turn commits whole with its bill or not at all; two never write into one list; versions stay or follow."""

import asyncio
import json
import socket
import threading
import time
from uuid import UUID

import openai
import pytest

from tenantry.platform.core import ids
from tenantry.platform.metering import settlement

FAST = {"model": "base", "max_output_tokens": 9, "temperature": 0}
LONG = {"model": "base", "max_output_tokens": 200, "temperature": 0}


@pytest.fixture
def conversation(client):
    return client.conversations.create(items=[{"role": "user", "content": "first"}])


def texts(client, conversation):
    return [item.content[0].text for item in client.conversations.items.list(conversation.id, order="asc")]


def rows(live, statement, *arguments):
    async def read():
        async with live.gateway.parts.database.operator() as connection:
            return [tuple(row) for row in await connection.fetch(statement, *arguments)]

    return live.run(read())


def outcome(live, response_id, timeout=5.0):
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        found = rows(
            live, "SELECT outcome, completion FROM usage_event WHERE request_id = $1",
            ids.from_text("response", response_id),
        )  # fmt: skip
        if found:
            return found[0]
        time.sleep(0.02)
    raise AssertionError("never settled")


def test_two_turns_at_once_are_refused_by_name(client, live, conversation):
    live.engine.pace = 0.02
    stream = client.responses.create(**LONG, input="slow", conversation=conversation.id, stream=True)
    next(stream)
    before = len(live.engine.generations)
    calls = (
        lambda: client.responses.create(**FAST, input="x", conversation=conversation.id),
        lambda: client.conversations.items.create(conversation.id, items=[{"role": "user", "content": "x"}]),
    )
    for call in calls:
        with pytest.raises(openai.ConflictError) as error:
            call()
        assert error.value.code == "session_busy"
        assert error.value.response.headers["retry-after"]
    assert len(live.engine.generations) == before
    live.engine.pace = 0
    list(stream)
    client.responses.create(**FAST, input="y", conversation=conversation.id)
    assert texts(client, conversation)[-2:] == ["y", "the quick"]
    assert "x" not in texts(client, conversation)


def test_of_many_racers_only_whole_turns_remain(client, live, tenant, conversation):
    live.engine.pace = 0.003
    done, refused = [], []

    def race(i):
        try:
            done.append(client.responses.create(**FAST, input=f"r{i}", conversation=conversation.id))
        except openai.ConflictError as error:
            refused.append(error.code)

    racers = [threading.Thread(target=race, args=(i,)) for i in range(8)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert len(done) + len(refused) == 8
    assert set(refused) <= {"session_busy"}
    kept = texts(client, conversation)[1:]
    assert len(kept) == 2 * len(done) >= 2
    assert kept[1::2] == ["the quick"] * len(done)
    assert len(set(kept[::2])) == len(done)


def test_of_two_that_read_the_same_history_one_gets_the_turn(client, live, conversation, monkeypatch):
    """Neither sees the other's turn when it looks, because neither has begun: the place itself must decide."""
    admission = live.gateway.admission
    admit, arrived, both = admission.admit, [], asyncio.Event()

    async def together(order, request_id):
        ticket = await admit(order, request_id)
        arrived.append(ticket)
        if len(arrived) == 2:
            both.set()
        await asyncio.wait_for(both.wait(), 10)
        return ticket

    monkeypatch.setattr(admission, "admit", together)
    answers = []

    def race(i):
        try:
            answers.append(client.responses.create(**FAST, input=f"r{i}", conversation=conversation.id).output_text)
        except openai.ConflictError as error:
            answers.append(error.code)

    racers = [threading.Thread(target=race, args=(i,)) for i in range(2)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert sorted(answers) == ["session_busy", "the quick"]
    assert len(texts(client, conversation)) == 3
    assert live.run(live.gateway.settler.drain(5)), "an answer does not wait for its settlement"
    costs = rows(
        live, "SELECT outcome, nano FROM usage_event WHERE request_id = ANY ($1)", [t.request_id for t in arrived]
    )
    assert {outcome: nano > 0 for outcome, nano in costs} == {"completed": True, "failed": False}


def test_a_disconnect_rolls_the_turn_back_and_bills_what_was_generated(client, live, conversation):
    live.engine.pace = 0.02
    stream = client.responses.create(**LONG, input="cut", conversation=conversation.id, stream=True)
    made = next(stream).response
    for seen, _ in enumerate(stream):
        if seen > 6:
            break
    stream.close()
    kind, completion = outcome(live, made.id)
    assert kind == "cancelled"
    assert 0 < completion < 200
    assert texts(client, conversation) == ["first"]
    assert rows(live, "SELECT 1 FROM response WHERE id = $1", ids.from_text("response", made.id)) == []
    live.engine.pace = 0
    client.responses.create(**FAST, input="again", conversation=conversation.id)
    assert texts(client, conversation) == ["first", "again", "the quick"]


def test_the_next_turn_right_after_a_disconnect_sees_the_last_committed_one(client, live, conversation, said):
    live.engine.pace = 0.01
    for i in range(3):
        stream = client.responses.create(**LONG, input=f"cut{i}", conversation=conversation.id, stream=True)
        next(stream)
        stream.close()
        client.with_options(max_retries=3).responses.create(**FAST, input=f"on{i}", conversation=conversation.id)
        assert "cut" not in said()
    assert texts(client, conversation)[1::2] == ["on0", "on1", "on2"]


def test_a_turn_whose_reader_has_gone_is_waited_for(client, live, conversation):
    live.engine.pace = 0.01
    stream = client.responses.create(**LONG, input="cut", conversation=conversation.id, stream=True)
    made = next(stream).response
    tenant_id = live.gateway.runs._live[ids.from_text("response", made.id)].ticket.receipt.tenant_id
    live.loop.call_soon_threadsafe(live.gateway.runs.find(tenant_id, ids.from_text("response", made.id)).leave)
    deadline = time.monotonic() + 5
    while not live.engine.generations[-1].aborted and time.monotonic() < deadline:
        time.sleep(0.001)
    client.responses.create(**FAST, input="on", conversation=conversation.id)
    assert texts(client, conversation) == ["first", "on", "the quick"]


def test_a_reader_that_stops_reading_is_cut_and_the_turn_rolled_back(client, live, tenant, conversation, monkeypatch):
    monkeypatch.setattr("tenantry.platform.gateway.runs.MAX_UNREAD_BYTES", 2000)
    body = {**LONG, "input": "x", "conversation": conversation.id, "stream": True}
    data = json.dumps({**body, "include": ["message.output_text.logprobs"], "top_logprobs": 20}).encode()
    head = (
        f"POST /v1/responses HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {tenant[1]}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    ).encode()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", live.port))
        connection.sendall(head + data)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if live.engine.generations and live.engine.generations[-1].aborted:
                break
            time.sleep(0.02)
    assert live.engine.generations[-1].aborted, "the engine must not generate for a reader that does not read"
    client.with_options(max_retries=3).responses.create(**FAST, input="on", conversation=conversation.id)
    assert texts(client, conversation) == ["first", "on", "the quick"]


def test_an_engine_that_dies_rolls_the_turn_back(client, live, conversation):
    live.engine.pace = 0.02
    stream = client.responses.create(**LONG, input="cut", conversation=conversation.id, stream=True)
    next(stream)
    live.engine.generations[-1].lost = True
    last = list(stream)[-1]
    assert (last.type, last.response.error.x_code) == ("response.failed", "engine_unavailable")
    assert texts(client, conversation) == ["first"]


def test_a_refused_turn_leaves_the_conversation_free(client, live, conversation):
    live.engine.refuse = ("overloaded", "too many requests wait", None)
    with pytest.raises(openai.InternalServerError):
        client.responses.create(**FAST, input="x", conversation=conversation.id)
    live.engine.refuse = None
    client.responses.create(**FAST, input="y", conversation=conversation.id)
    assert texts(client, conversation) == ["first", "y", "the quick"]


def test_a_turn_of_a_conversation_deleted_meanwhile_is_billed_and_not_stored(client, live, conversation):
    live.engine.pace = 0.02
    stream = client.responses.create(**LONG, input="x", conversation=conversation.id, stream=True)
    made = next(stream).response
    client.conversations.delete(conversation.id)
    live.engine.pace = 0
    last = list(stream)[-1]
    assert (last.type, last.response.error.x_code) == ("response.failed", "conversation_not_found")
    assert outcome(live, made.id) == ("completed", 200)
    assert rows(live, "SELECT 1 FROM session_item WHERE response_id = $1", ids.from_text("response", made.id)) == []


def test_bill_and_turn_are_one_transaction(client, live, conversation, monkeypatch):
    """The commit is lost after everything was written: neither is there. It is sent again: both are, once."""
    tries = []
    settle = settlement.settle

    async def lost(connection, items):
        won = await settle(connection, items)
        tries.append(won)
        return won

    async def failing(connection, waiting, won):
        failure = await commit(connection, waiting, won)
        if len(tries) == 1 and waiting.commit is not None:
            assert failure is None
            assert await connection.fetchval("SELECT count(*) FROM response WHERE id = ANY ($1)", list(won)) == 1
            raise settlement.DatabaseUnavailable("the connection broke before the commit")
        return failure

    commit = settlement._commit
    monkeypatch.setattr(settlement, "settle", lost)
    monkeypatch.setattr(settlement, "_commit", failing)
    reply = client.responses.create(**FAST, input="x", conversation=conversation.id)
    assert len(tries) >= 2
    assert outcome(live, reply.id) == ("completed", 9)
    assert texts(client, conversation) == ["first", "x", "the quick"]
    name = ids.from_text("response", reply.id)
    assert rows(live, "SELECT count(*) FROM wallet_entry WHERE request_id = $1", name) == [(1,)]


def test_who_died_between_generation_and_commit_left_a_bill_and_no_turn(client, live, conversation, monkeypatch):
    """The reaper settles for a gateway that is gone: the conversation is free again, without the turn."""
    settler = live.gateway.settler
    monkeypatch.setattr(settler, "submit", lambda ticket, *_: never(ticket))
    held = []

    def never(ticket):
        held.append(ticket)
        return live.loop.create_future()

    monkeypatch.setattr("tenantry.platform.gateway.runs.STORE_WAIT_S", 0.2)
    with pytest.raises(openai.InternalServerError) as error:
        client.responses.create(**FAST, input="x", conversation=conversation.id)
    assert error.value.code == "turn_not_stored"
    monkeypatch.undo()
    with pytest.raises(openai.ConflictError):
        client.responses.create(**FAST, input="y", conversation=conversation.id)
    ticket = held[0]

    async def reap():
        item = settlement.Settlement(
            ticket.request_id, ticket.receipt, ticket.price, settlement.Usage(3, 0, 9), "recovered"
        )
        async with live.gateway.parts.database.operator() as connection:
            return await settlement.settle(connection, [item])

    assert live.run(reap()) == {ticket.request_id}
    client.responses.create(**FAST, input="z", conversation=conversation.id)
    assert texts(client, conversation) == ["first", "z", "the quick"]


def test_a_late_winner_is_not_stored_twice(client, live, conversation):
    """Whoever settles first decides: a turn whose request the reaper took is not written afterwards."""
    live.engine.pace = 0.02
    stream = client.responses.create(**LONG, input="x", conversation=conversation.id, stream=True)
    made = next(stream).response
    run = live.gateway.runs.find(
        UUID(hex=rows(live, "SELECT replace(tenant_id::text, '-', '') FROM session WHERE id = $1",
                      ids.from_text("conversation", conversation.id))[0][0]),
        ids.from_text("response", made.id),
    )  # fmt: skip
    ticket = run.ticket

    async def reap():
        item = settlement.Settlement(
            ticket.request_id, ticket.receipt, ticket.price, settlement.Usage(3, 0, 4), "recovered"
        )
        async with live.gateway.parts.database.operator() as connection:
            return await settlement.settle(connection, [item])

    live.run(reap())
    live.engine.pace = 0
    last = list(stream)[-1]
    assert (last.type, last.response.error.x_code) == ("response.failed", "request_already_settled")
    assert outcome(live, made.id) == ("recovered", 4)
    assert texts(client, conversation) == ["first"]
