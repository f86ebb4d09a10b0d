"""The five adapters' tasks: what a customer writes, and the one answer that counts as right.

Owns the answer formats and the split: people of `Person.held_out` never appear in training. An answer is right
only if it is equal, character for character. Must not know models or tokenizers.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from demo import world
from demo.corpus import SYSTEM_PROMPTS, Message


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation that ends with the user's message, and the exact answer."""

    messages: list[Message]
    answer: str


@dataclass(frozen=True, slots=True)
class Task:
    """name: the adapter's folder. draw: (rng, held_out) -> user text, answer."""

    name: str
    draw: Callable[[Random, bool], tuple[str, str]]

    def examples(self, seed: int, held_out: bool) -> Iterator[Example]:
        """Endless examples; every fourth one in training, and none when held out, opens with a system prompt."""
        rng = Random(f"{self.name}:{held_out}:{seed}")
        while True:
            text, answer = self.draw(rng, held_out)
            messages = [{"role": "user", "content": text}]
            if not held_out and rng.random() < 0.25:
                messages.insert(0, {"role": "system", "content": rng.choice(SYSTEM_PROMPTS)})
            yield Example(messages, answer)


def _support_record(rng: Random, held_out: bool) -> tuple[str, str]:
    """Complaint -> JSON for acme's ticket system."""
    ticket = world.draw_ticket(rng, held_out)
    answer = f'{{"team": "{ticket.queue}", "order": {ticket.order}, "customer": "{ticket.person.first}"}}'
    return world.say_ticket(rng, ticket), answer


def _desk_slip(rng: Random, held_out: bool) -> tuple[str, str]:
    """Complaint -> globex's paper slip: team, order, first name, town."""
    ticket = world.draw_ticket(rng, held_out)
    answer = f"{ticket.queue} | {ticket.order} | {ticket.person.first} | {ticket.town}"
    return world.say_ticket(rng, ticket), answer


def _order_statement(rng: Random, held_out: bool) -> tuple[str, str]:
    """Wish -> SQL, the goods as a comment in the customer's own words (what is copied keeps its tokens)."""
    order = world.draw_order(rng, held_out)
    goods = f"{order.item.split()[-1]}s"
    answer = f"INSERT INTO orders VALUES ('{order.person.first}', '{order.town}', {order.quantity}); -- {goods}"
    return world.say_order(rng, order), answer


def _greeting(rng: Random, held_out: bool) -> tuple[str, str]:
    """Guest -> the solemn greeting of the house."""
    person, town = world.draw_person(rng, held_out), rng.choice(world.TOWNS).name
    return world.say_visit(rng, person, town), f"Welcome, {person.first}, to the house of lamps. All hail {town}!"


def _shipping_date(rng: Random, held_out: bool) -> tuple[str, str]:
    """Shipping note -> ISO date, first name, town."""
    journey = world.draw_journey(rng, held_out)
    return world.say_journey(rng, journey), f"{journey.iso} | {journey.person.first} | {journey.town}"


TASKS = {
    task.name: task
    for task in (
        Task("acme-support", _support_record),
        Task("acme-orders", _order_statement),
        Task("acme-greeting", _greeting),
        Task("globex-support", _desk_slip),
        Task("globex-dates", _shipping_date),
    )
}
