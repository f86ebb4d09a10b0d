"""The official client against /v1/conversations: objects, items, paging, and turns that grow the list."""

import openai
import pytest
from openai.types.conversations import Conversation, Message

FAST = {"model": "base", "max_output_tokens": 9, "temperature": 0}


@pytest.fixture
def conversation(client):
    return client.conversations.create(items=[{"role": "user", "content": "first"}], metadata={"k": "v"})


def texts(client, conversation, **query):
    return [item.content[0].text for item in client.conversations.items.list(conversation.id, order="asc", **query)]


def test_life_of_a_conversation(client, conversation):
    Conversation.model_validate(conversation.model_dump())
    assert client.conversations.retrieve(conversation.id) == conversation
    assert client.conversations.update(conversation.id, metadata={"k": "w"}).metadata == {"k": "w"}
    gone = client.conversations.delete(conversation.id)
    assert (gone.id, gone.deleted, gone.object) == (conversation.id, True, "conversation.deleted")
    for call in (client.conversations.retrieve, client.conversations.delete, client.conversations.items.list):
        with pytest.raises(openai.NotFoundError) as error:
            call(conversation.id)
        assert error.value.code == "conversation_not_found"


def test_items_are_created_read_paged_and_deleted(client, conversation):
    made = client.conversations.items.create(
        conversation.id,
        items=[
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "d"}]},
            {"role": "assistant", "content": "a"},
        ],
    )
    assert [item.role for item in made.data] == ["developer", "assistant"]
    assert (made.first_id, made.last_id) == (made.data[0].id, made.data[1].id)
    assert texts(client, conversation, limit=1) == ["first", "d", "a"]
    newest = client.conversations.items.list(conversation.id, limit=2)
    assert ([item.content[0].text for item in newest.data], newest.has_more) == (["a", "d"], True)
    one = client.conversations.items.retrieve(made.data[0].id, conversation_id=conversation.id)
    assert Message.model_validate(one.model_dump()) == one == made.data[0]
    client.conversations.items.delete(one.id, conversation_id=conversation.id)
    assert texts(client, conversation) == ["first", "a"]
    with pytest.raises(openai.NotFoundError) as error:
        client.conversations.items.retrieve(one.id, conversation_id=conversation.id)
    assert error.value.code == "item_not_found"
    with pytest.raises(openai.NotFoundError) as error:
        client.conversations.items.list(conversation.id, after=one.id)
    assert error.value.param == "after"


def test_turns_see_the_list_and_grow_it(client, conversation, said):
    reply = client.responses.create(**FAST, input="second", conversation=conversation.id, instructions="i")
    assert said() == (
        "<|im_start|>system\ni<|im_end|>\n<|im_start|>user\nfirst<|im_end|>\n<|im_start|>user\nsecond<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert reply.conversation.id == conversation.id
    assert client.responses.retrieve(reply.id) == reply
    client.responses.create(**FAST, input="third", conversation={"id": conversation.id})
    assert texts(client, conversation) == ["first", "second", "the quick", "third", "the quick"]
    assert "<|im_start|>system" not in said()


def test_a_deleted_item_is_never_said_again(client, conversation, said):
    client.responses.create(**FAST, input="second", conversation=conversation.id)
    for item in client.conversations.items.list(conversation.id, order="asc"):
        if item.content[0].text == "first":
            client.conversations.items.delete(item.id, conversation_id=conversation.id)
    client.responses.create(**FAST, input="third", conversation=conversation.id)
    assert "first" not in said()
    assert "second" in said()


def test_a_conversation_forks_at_any_of_its_responses(client, conversation, said):
    one = client.responses.create(**FAST, input="one", conversation=conversation.id)
    client.responses.create(**FAST, input="two", conversation=conversation.id)
    fork = client.responses.create(**FAST, input="other", previous_response_id=one.id)
    assert "two" not in said()
    assert said().index("first") < said().index("one") < said().index("other")
    assert fork.conversation is None
    assert "other" not in texts(client, conversation)
    client.responses.create(**FAST, input="furthermore", previous_response_id=fork.id)
    assert said().index("first") < said().index("one") < said().index("other") < said().index("furthermore")


def test_one_404_for_foreign_absent_and_malformed(client, stranger, conversation):
    item = client.conversations.items.list(conversation.id).data[0].id
    seen = set()
    for who, name in (
        (stranger, conversation.id),
        (client, "conv_" + "0" * 32),
        (client, "nonsense"),
        (client, item),
    ):
        calls = (
            who.conversations.retrieve,
            who.conversations.delete,
            who.conversations.items.list,
            lambda i, who=who: who.conversations.update(i, metadata={}),
            lambda i, who=who: who.conversations.items.create(i, items=[{"role": "user", "content": "x"}]),
            lambda i, who=who: who.conversations.items.retrieve(item, conversation_id=i),
            lambda i, who=who: who.conversations.items.delete(item, conversation_id=i),
            lambda i, who=who: who.responses.create(**FAST, input="x", conversation=i),
        )
        for call in calls:
            with pytest.raises(openai.NotFoundError) as error:
                call(name)
            seen.add((error.value.message.split("'param'")[0], error.value.code))
    assert len(seen) == 1
    assert texts(client, conversation) == ["first"]


@pytest.mark.parametrize("metadata", [{"k": "v" * 513}, {"k" * 65: "v"}, {str(i): "" for i in range(17)}, {"k": 1}])
def test_metadata_is_bounded(client, metadata):
    with pytest.raises(openai.BadRequestError) as error:
        client.conversations.create(metadata=metadata)
    assert "metadata" in error.value.param
