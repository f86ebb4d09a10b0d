"""A session stays with the adapter version that it began with, or follows the alias, and says which."""

import openai
import pytest

from tenantry.platform.core import ids

ASK = {"max_output_tokens": 7, "temperature": 0}


class Adapter:
    """An adapter with ready versions, put into the registry without its files: the scripted engine needs none."""

    def __init__(self, live, tenant, name):
        self.live, self.name, self.id = live, name, ids.uuid7()
        self.tenant = ids.from_text("tenant", tenant[0])
        self.digests = {}
        base = live.gateway.registry.base.id
        self.sql(
            "INSERT INTO adapter (tenant_id, id, name, base_model_id) VALUES ($1, $2, $3, $4)", self.id, name, base
        )

    def sql(self, statement, *arguments):
        async def run():
            async with self.live.gateway.parts.database.tenant(self.tenant) as connection:
                await connection.execute(statement, self.tenant, *arguments)

        self.live.run(run())

    def version(self, number):
        """Ready, and what `default` points at."""
        version_id, digest = ids.uuid7(), bytes([number]) * 16 + self.id.bytes
        self.digests[number] = digest
        self.sql("INSERT INTO artifact (tenant_id, digest, bytes) VALUES ($1, $2, 1)", digest)
        self.sql(
            """INSERT INTO adapter_version (tenant_id, id, adapter_id, number, state, digest, manifest)
            VALUES ($1, $2, $3, $4, 'ready', $5, '{}')""",
            version_id, self.id, number, digest,
        )  # fmt: skip
        self.sql(
            """INSERT INTO adapter_alias (tenant_id, adapter_id, alias, version_id) VALUES ($1, $2, 'default', $3)
            ON CONFLICT (tenant_id, adapter_id, alias) DO UPDATE SET version_id = $3""",
            self.id, version_id,
        )  # fmt: skip

    def retire(self, number):
        self.sql(
            "UPDATE adapter_version SET state = 'retired' WHERE tenant_id = $1 AND adapter_id = $2 AND number = $3",
            self.id, number,
        )  # fmt: skip


@pytest.fixture
def adapter(live, tenant, request):
    made = Adapter(live, tenant, f"a{abs(hash(request.node.name)) % 10**9}")
    made.version(1)
    return made


def answered(live):
    return live.engine.submitted[-1].adapter


def test_a_conversation_stays_through_a_promotion(client, live, adapter):
    conversation = client.conversations.create()
    assert conversation.x_session["version_policy"] == "pin"
    client.responses.create(model=adapter.name, input="one", conversation=conversation.id, **ASK)
    adapter.version(2)
    raw = client.responses.with_raw_response.create(
        model=adapter.name, input="two", conversation=conversation.id, **ASK
    )
    assert answered(live) == adapter.digests[1]
    assert raw.headers["x-tenantry-adapter-version"] == "1"
    assert raw.headers["x-tenantry-version-policy"] == "pin"
    shown = raw.parse().x_session
    assert (shown["version"], shown["digest"]) == (1, adapter.digests[1].hex())
    assert client.conversations.retrieve(conversation.id).x_session["version"] == 1
    client.responses.create(model=adapter.name, input="new", **ASK)
    assert answered(live) == adapter.digests[2]


def test_a_thread_stays_too_and_its_forks(client, live, adapter):
    first = client.responses.create(model=adapter.name, input="one", **ASK)
    adapter.version(2)
    second = client.responses.create(model=adapter.name, input="two", previous_response_id=first.id, **ASK)
    assert answered(live) == adapter.digests[1]
    assert second.x_session["version"] == 1
    client.responses.create(model=f"{adapter.name}:1", input="x", previous_response_id=first.id, **ASK)
    assert answered(live) == adapter.digests[1]


def test_a_following_session_goes_where_the_alias_goes(client, live, adapter):
    follow = {"x_version_policy": "follow"}
    conversation = client.conversations.create(extra_body=follow)
    thread = client.responses.create(model=adapter.name, input="one", extra_body=follow, **ASK)
    client.responses.create(model=adapter.name, input="one", conversation=conversation.id, **ASK)
    adapter.version(2)
    reply = client.responses.create(model=adapter.name, input="two", conversation=conversation.id, **ASK)
    assert answered(live) == adapter.digests[2]
    assert (reply.x_session["version_policy"], reply.x_session["version"]) == ("follow", 2)
    reply = client.responses.create(model=adapter.name, input="two", previous_response_id=thread.id, **ASK)
    assert reply.x_session["version"] == 2


def test_a_pinned_session_refuses_other_weights_by_name(client, adapter):
    adapter.version(2)
    first = client.responses.create(model=adapter.name, input="one", **ASK)
    for other in ("base", f"{adapter.name}:1"):
        with pytest.raises(openai.ConflictError) as error:
            client.responses.create(model=other, input="two", previous_response_id=first.id, **ASK)
        assert (error.value.code, error.value.param) == ("session_pinned", "model")


def test_a_version_that_answers_no_more_is_said_and_following_helps(client, live, adapter):
    conversation = client.conversations.create()
    client.responses.create(model=adapter.name, input="one", conversation=conversation.id, **ASK)
    adapter.version(2)
    adapter.retire(1)
    with pytest.raises(openai.ConflictError) as error:
        client.responses.create(model=adapter.name, input="two", conversation=conversation.id, **ASK)
    assert error.value.code == "session_version_gone"
    client.conversations.update(conversation.id, metadata={}, extra_body={"x_version_policy": "follow"})
    client.responses.create(model=adapter.name, input="two", conversation=conversation.id, **ASK)
    assert answered(live) == adapter.digests[2]


def test_the_policy_is_chosen_where_a_session_begins(client, adapter):
    first = client.responses.create(model="base", input="x", **ASK)
    with pytest.raises(openai.BadRequestError) as error:
        client.responses.create(
            model="base", input="x", previous_response_id=first.id, extra_body={"x_version_policy": "follow"}, **ASK
        )
    assert error.value.param == "x_version_policy"
