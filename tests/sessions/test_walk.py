"""Random walks over everything that may happen to sessions, beside a model: each prompt is exactly what was kept.

The model is a list of texts for each conversation and each response. What the engine is given is compared with it, so
a turn that was half written, lost, doubled or put elsewhere shows up in the next prompt.
"""

import random

import httpx
import openai
import pytest

from tenantry.platform.core import ids

FAST = {"model": "base", "temperature": 0}


class Walk:
    def __init__(self, client, http, live, seed):
        self.client, self.http, self.live, self.draw = client, http, live, random.Random(seed)
        self.lists: dict[str, list[str]] = {}  # a conversation's id: what it lists
        self.lines: dict[str, list[str]] = {}  # a response's id: everything up to its end
        self.members: dict[str, set[str]] = {}  # a session's id: its responses
        self.steps = 0

    def step(self):
        self.steps += 1
        moves = [self.open, self.turn, self.turn, self.turn, self.begin, self.go_on, self.go_on, self.cut, self.fork,
                 self.add, self.drop_item, self.drop_response, self.drop, self.expire, self.unstored]  # fmt: skip
        self.draw.choice(moves)()

    def some(self, known):
        return self.draw.choice(sorted(known)) if known else None

    def text(self):
        return f"t{self.steps}"

    def ask(self, before, **options):
        """One answered turn; checks what the engine was told. Returns (response, the line up to its end)."""
        said = [*before, self.text()]
        made = self.client.responses.create(
            **FAST, input=self.text(), max_output_tokens=self.draw.randint(1, 9), **options
        )
        ids_ = self.live.engine.submitted[-1].prompt
        prompt = b"".join(self.live.engine.text.token_bytes(t) for t in ids_).decode()
        parts = [turn.partition("\n")[2] for turn in prompt.split("<|im_start|>")[1:-1]]
        assert [part.removesuffix("<|im_end|>\n") for part in parts] == said
        return made, [*said, made.output_text]

    def keep(self, made, line):
        self.lines[made.id] = list(line)
        self.members.setdefault(made.x_session["id"], set()).add(made.id)

    def open(self):
        if len(self.lists) < 4:
            held = self.client.conversations.create(items=[{"role": "user", "content": self.text()}])
            self.lists[held.id] = [self.text()]

    def turn(self):
        if name := self.some(self.lists):
            made, line = self.ask(self.lists[name], conversation=name)
            self.lists[name] = line
            self.keep(made, line)
            self.check(name)

    def begin(self):
        self.keep(*self.ask([]))

    def go_on(self):
        if previous := self.some(self.lines):
            self.keep(*self.ask(self.lines[previous], previous_response_id=previous))

    def unstored(self):
        if previous := self.some(self.lines):
            made, _ = self.ask(self.lines[previous], previous_response_id=previous, store=False)
            with pytest.raises(openai.NotFoundError):
                self.client.responses.retrieve(made.id)

    def cut(self):
        if name := self.some(self.lists):
            self.live.engine.pace = 0.005
            stream = self.client.responses.create(
                **FAST, input="cut", conversation=name, stream=True, max_output_tokens=100
            )
            next(stream)
            stream.close()
            made, line = self.ask(self.lists[name], conversation=name)
            self.live.engine.pace = 0.0
            self.lists[name] = line
            self.keep(made, line)

    def fork(self):
        if response := self.some(self.lines):
            session = next(name for name, members in self.members.items() if response in members)
            made = self.http.post(f"/api/v1/sessions/{session}/fork", json={"response": response}).json()
            self.lists[made["conversation"]] = list(self.lines[response])
            self.check(made["conversation"])

    def add(self):
        if name := self.some(self.lists):
            self.client.conversations.items.create(name, items=[{"role": "user", "content": self.text()}])
            self.lists[name].append(self.text())

    def drop_item(self):
        """What hangs on the item is not followed by the model any more."""
        if (name := self.some(self.lists)) and len(self.lists[name]) > 1:
            items = list(self.client.conversations.items.list(name, order="asc"))
            at = self.draw.randrange(len(items))
            self.client.conversations.items.delete(items[at].id, conversation_id=name)
            del self.lists[name][at]
            self.forget(self.members.get(name.replace("conv_", "sess_"), ()))
            self.check(name)

    def drop_response(self):
        if response := self.some(self.lines):
            self.client.responses.delete(response)
            with pytest.raises(openai.NotFoundError):
                self.client.responses.create(**FAST, input="x", previous_response_id=response)
            session = next(name for name, members in self.members.items() if response in members)
            self.forget(self.members[session])

    def drop(self):
        if name := self.some(self.members):
            self.http.delete(f"/api/v1/sessions/{name}")
            self.gone(name)

    def expire(self):
        if name := self.some(self.members):

            async def age():
                async with self.live.gateway.parts.database.operator() as connection:
                    await connection.execute(
                        "UPDATE session SET expires_at = now() WHERE id = $1", ids.from_text("session", name)
                    )

            self.live.run(age())
            self.gone(name)
            if self.draw.random() < 0.5:
                self.live.run(self.live.gateway._sweeper.sweep())

    def gone(self, name):
        conversation = name.replace("sess_", "conv_")
        assert self.http.get(f"/api/v1/sessions/{name}").status_code == 404
        for response in self.members.pop(name):
            assert self.http.get(f"/v1/responses/{response}").status_code == 404
            self.lines.pop(response, None)
        if self.lists.pop(conversation, None) is not None:
            assert self.http.get(f"/v1/conversations/{conversation}").status_code == 404

    def forget(self, responses):
        for response in responses:
            self.lines.pop(response, None)

    def check(self, name):
        listed = self.client.conversations.items.list(name, order="asc", limit=100)
        assert [item.content[0].text for item in listed] == self.lists[name]


def walk(live, seed, steps):
    key = live.make_tenant(f"walker{seed}")[1]
    headers = {"authorization": f"Bearer {key}"}
    with (
        openai.OpenAI(base_url=f"{live.url}/v1", api_key=key, max_retries=5) as client,
        httpx.Client(base_url=live.url, headers=headers, timeout=30) as http,
    ):
        walk = Walk(client, http, live, seed)
        while walk.steps < steps:
            try:
                walk.step()
            except openai.BadRequestError as error:
                if error.code != "context_length_exceeded":
                    raise
                walk.lists.clear()  # what has grown too long is let alone
                walk.lines.clear()
        for name in walk.lists:
            walk.check(name)


@pytest.mark.parametrize("seed", range(3))
def test_every_prompt_is_what_was_kept(live, seed):
    walk(live, seed, 120)


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("seed", range(100, 140))
def test_every_prompt_is_what_was_kept_for_long(live, seed):
    walk(live, seed, 2000)
