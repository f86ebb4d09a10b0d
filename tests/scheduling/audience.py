"""What clients hear, and whether it is what they were promised: the oracle from outside.

Owns every client's record and its judgement. It knows nothing of the core but its events. Numbers in assertions refer
to the simulator's invariants.
"""

from collections import Counter

from tenantry.runtime.messages import ChoiceFinished, Event, Finished, Refused, Tokens
from tests.scheduling.world import Client, World, mix, pick, salt


class Audience:
    """clients: all there ever were. live: those without a terminal event."""

    def __init__(self, world: World, seen: Counter[str]) -> None:
        self.world, self.seen = world, seen
        self.clients: dict[str, Client] = {}
        self.live: dict[str, Client] = {}

    def receive(self, events: list[Event]) -> None:
        for event in events:
            client = self.clients[event.request_id]
            assert client.terminal is None, f"9: {event} after the terminal event"
            if isinstance(event, Tokens):
                assert event.tokens, "9: an empty Tokens"
                assert client.reasons[event.choice] is None, "9: tokens of an ended choice"
                client.accepted += min(client.standing.pop(event.choice, 0), len(event.tokens))
                for token in event.tokens:
                    client.outputs[event.choice].append(token)
                    client.hashes[event.choice].append(mix(client.hashes[event.choice][-1], token))
            elif isinstance(event, ChoiceFinished):
                assert client.reasons[event.choice] is None, "9: a choice ended twice"
                client.reasons[event.choice] = event.reason
                client.matched[event.choice] = event.matched
            else:
                client.terminal = event
                del self.live[event.request_id]
                self.judge(client)

    def judge(self, client: Client) -> None:
        """Everything a finished request must satisfy, seen from outside."""
        event = client.terminal
        if isinstance(event, Refused):
            assert not client.started, "9: refused after it ran"
            assert event.code != "invalid_namespace", "4: two adapters in one namespace"
            self.seen[f"refused {event.code}"] += 1
            return
        assert isinstance(event, Finished)
        self.seen[f"finished {event.reason}"] += 1
        usage, prompt = event.usage, client.submit.prompt
        assert usage.completion == sum(map(len, client.outputs)), "9: completion tokens miscounted"
        assert usage.cached <= usage.prompt <= len(prompt), "9: prompt tokens miscounted"
        found = max(0, (client.first_start or 0) - client.elsewhere)
        assert usage.cached in (0, found), "9: cached tokens are not those of the first lease"
        assert usage.prompt == len(prompt) or not usage.completion, "9: prompt not counted"
        if usage.prompt:
            assert usage.cached == found, "9: cached tokens miscounted"
        if event.reason in ("stop", "length"):
            assert None not in client.reasons, "9: finished with a choice open"
            assert (usage.drafted, usage.accepted) == (client.drafted, client.accepted), "9: guesses miscounted"
        for choice, output in enumerate(client.outputs):
            tokens, reason, matched = reference(self.world, client, choice)
            assert output == tokens[: len(output)], "12: other tokens than the reference's"
            if choice in client.stopped:
                assert (client.reasons[choice], client.matched[choice]) == ("stop", "STOP"), "9: stop string lost"
                assert len(output) == client.stopped[choice], "9: text beyond the stop string"
            elif client.reasons[choice] is not None:
                assert output == tokens, "12: ended elsewhere than the reference"
                assert (client.reasons[choice], client.matched[choice]) == (reason, matched), "12: another reason"


def reference(world: World, client: Client, choice: int) -> tuple[list[int], str, int | None]:
    """Tokens, reason and matched id as an interpreter without cache, batch or scheduler gives them."""
    sampling, state = client.submit.sampling, client.start
    stops = set(sampling.stop_token_ids) | (set() if sampling.ignore_eos else {world.end_token})
    for token in client.submit.prompt:
        state = mix(state, token)
    output: list[int] = []
    while True:
        early = len(output) < sampling.min_tokens
        token = pick(state, salt(client.submit, choice), world.vocab, tuple(stops) if early else ())
        output.append(token)
        state = mix(state, token)
        if token in stops and not early:
            return output, "stop", token if token in sampling.stop_token_ids else None
        if len(output) == sampling.max_tokens:
            return output, "length", None
