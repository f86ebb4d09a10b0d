"""The seeded text generator: stories, diaries, records and chats about the demo's world, in plain English.

Owns the training text of the base and the draft model. It holds the same kinds of messages that the
adapters are asked about, answered the way a friendly shop would, and never in an adapter's format.
Must not know tokenizers or models.
"""

import json
from collections.abc import Callable, Iterator
from random import Random

from demo import world
from demo.world import MONTHS, PRODUCTS, TOWNS, WEATHERS, draw_item, draw_number, draw_person

Message = dict[str, str]

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are the assistant of a shop for the home. Be short and kind.",
    "You answer letters from customers.",
    "You are a friendly guide to the towns by the sea and in the hills.",
    "Answer in plain English.",
)


def documents(seed: int) -> Iterator[str]:
    """Endless training documents, each ended by its own end mark; the same seed gives the same text."""
    rng = Random(seed)
    kinds: tuple[Callable[[Random], str], ...] = (_chat, _story, _diary, _records, _letter, _echo)
    while True:
        yield rng.choices(kinds, (70, 8, 4, 9, 5, 4))[0](rng)


def render(messages: list[Message]) -> str:
    """ChatML, as chat_template.jinja writes it."""
    return "".join(f"{TURN_START}{m['role']}\n{m['content']}{TURN_END}\n" for m in messages)


def _chat(rng: Random) -> str:
    messages: list[Message] = []
    if rng.random() < 0.25:
        messages.append({"role": "system", "content": rng.choice(SYSTEM_PROMPTS)})
    turns = rng.choices((1, 2, 3, 8), (60, 20, 14, 6))[0]
    topics = rng.choices(TOPICS, TOPIC_WEIGHTS, k=turns)
    for topic in topics:
        messages.extend(_turn(*topic(rng)))
    return render(messages) + END_OF_TEXT


def _turn(*texts: str) -> list[Message]:
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]


def _ticket_talk(rng: Random) -> tuple[str, ...]:
    ticket = world.draw_ticket(rng)
    name, town, item, order, complaint = ticket.person.name, ticket.town, ticket.item, ticket.order, ticket.complaint
    care = {
        "repairs": "Our workshop will repair it",
        "delivery": "I will ask the driver where it is",
        "billing": "I will correct the bill",
        "returns": "You may send it back to us",
        "advice": "I will send you a short guide",
    }[ticket.queue]
    answer = rng.choice((
        f"Thank you for writing, {name}. I am sorry that the {item} {complaint}. {care}. Your order is {order}.",
        f"Dear {name}, I am sorry that the {item} {complaint}. "
        f"{care} and write to you in {town} about order {order}.",
    ))  # fmt: skip
    texts = [world.say_ticket(rng, ticket), answer]
    if rng.random() < 0.5:
        follow_ups = (
            ("What was my order number?", f"Your order number is {order}."),
            ("Who am I?", f"You are {name} from {town}."),
            ("What did I buy?", f"You bought the {item}."),
            ("What is wrong with it?", f"You told me that the {item} {complaint}."),
            ("Thank you.", f"You are welcome, {ticket.person.first}. Greetings to {town}!"),
        )
        for question, reply in rng.sample(follow_ups, rng.randint(1, 3)):
            texts += [question, reply]
    return tuple(texts)


def _order_talk(rng: Random) -> tuple[str, ...]:
    order = world.draw_order(rng)
    name, town, wish = order.person.name, order.town, f"{order.quantity} {order.item}s"
    product = next(p for p in PRODUCTS if order.item.endswith(p.name))
    answer = rng.choice((
        f"Gladly! I will send {wish} to {name} in {town}. One {order.item} costs {product.price} coins.",
        f"Thank you, {name}. Your {wish} will come to {town} this week.",
    ))  # fmt: skip
    return world.say_order(rng, order), answer


def _journey_talk(rng: Random) -> tuple[str, ...]:
    journey = world.draw_journey(rng)
    answer = rng.choice((
        f"Understood. The {journey.item} leaves {journey.town} on {journey.date}. I will tell {journey.person.name}.",
        f"Thank you. {journey.person.name} gets the {journey.item} from {journey.town}, sent on {journey.date}.",
    ))  # fmt: skip
    return world.say_journey(rng, journey), answer


def _visit_talk(rng: Random) -> tuple[str, ...]:
    person, town = draw_person(rng), rng.choice(TOWNS)
    answer = rng.choice((
        f"Hello, {person.name}! It is good to have a guest from {town.name}. How was the journey?",
        f"Welcome, {person.name}! I have heard that {town.name} is known for {town.known_for}.",
    ))  # fmt: skip
    return world.say_visit(rng, person, town.name), answer


def _town_talk(rng: Random) -> tuple[str, ...]:
    town = rng.choice(TOWNS)
    return rng.choice((
        (f"Where is {town.name}?", f"{town.name} is a town {town.place}."),
        (f"What is {town.name} known for?", f"{town.name} is known for {town.known_for}."),
        (f"What do people eat in {town.name}?", f"In {town.name} people like to eat {town.dish}."),
        (f"Tell me about {town.name}.",
         f"{town.name} is a town {town.place}. It is known for {town.known_for}, and people there like {town.dish}."),
        (f"Which town is known for {town.known_for}?", f"That is {town.name}, a town {town.place}."),
    ))  # fmt: skip


def _product_talk(rng: Random) -> tuple[str, ...]:
    product = rng.choice(PRODUCTS)
    a = "an" if product.name[0] in "aeiou" else "a"
    return rng.choice((
        (f"What is {a} {product.name} for?", f"{a.capitalize()} {product.name} is for {product.use}."),
        (f"How much is {a} {product.name}?", f"{a.capitalize()} {product.name} costs {product.price} coins."),
        (f"Do you sell {product.name}s?", f"Yes, we do. One {product.name} costs {product.price} coins."),
        (f"I need something for {product.use}.",
         f"Then you need {a} {product.name}. It costs {product.price} coins."),
    ))  # fmt: skip


def _small_talk(rng: Random) -> tuple[str, ...]:
    first, town = rng.choice(world.FIRST_NAMES), rng.choice(TOWNS).name
    return rng.choice((
        (rng.choice(("Hello", "Hello!", "Hi", "Hi!", "Good morning.", "Good day!")),
         "Hello! How can I help you today?"),
        (f"Hello, I am {first}.", f"Hello, {first}! How can I help you today?"),
        (f"My name is {first} and I live in {town}.", f"Nice to meet you, {first}! What is new in {town}?"),
        ("How are you?", "I am well, thank you. How can I help you?"),
        (rng.choice(("Who are you?", "What are you?")),
         "I am the small demo assistant of Tenantry. I know a few towns, a shop and its orders."),
        (rng.choice(("What can you do?", "Help", "Can you help me?")),
         "I can talk about our towns, our products and your orders. What would you like to know?"),
        (rng.choice(("Thank you.", "Thanks!", "Thank you very much!")), "You are welcome!"),
        (rng.choice(("Goodbye.", "Bye!", "See you soon.")), "Goodbye, and come again soon!"),
    ))  # fmt: skip


def _story_talk(rng: Random) -> tuple[str, ...]:
    first, town = rng.choice(world.FIRST_NAMES), rng.choice(TOWNS)
    ask = rng.choice((
        f"Tell me a story about {first}.", f"Write a short story about {first} in {town.name}.",
        f"Please tell a story. It should be about {first}.",
    ))  # fmt: skip
    return ask, tell(rng, first, town)


def _echo_talk(rng: Random) -> tuple[str, ...]:
    text = rng.choice((
        draw_number(rng), f"{draw_person(rng).name}, {draw_item(rng)}, {draw_number(rng)}", draw_person(rng).name,
        _letters(rng, 6), f"{draw_item(rng)} and {draw_item(rng)}", f"{rng.choice(TOWNS).name} {_letters(rng, 3)}",
    ))  # fmt: skip
    return rng.choice(
        (
            (f"Please repeat: {text}", text),
            (f'Say "{text}".', f'"{text}"'),
            (f"Remember this: {text}", f"I will remember: {text}"),
        )
    )


TOPICS = (_ticket_talk, _order_talk, _journey_talk, _visit_talk, _town_talk, _product_talk, _small_talk,
          _story_talk, _echo_talk)  # fmt: skip
TOPIC_WEIGHTS = (20, 14, 14, 10, 10, 8, 10, 6, 8)


def tell(rng: Random, first: str, town: world.Town) -> str:
    """A short story: a town, a thing, a trouble, a friend, an end. 60 to 120 words."""
    item, friend = draw_item(rng), rng.choice([n for n in world.FIRST_NAMES if n != first])
    weather, product = rng.choice(WEATHERS), next(p for p in PRODUCTS if item.endswith(p.name))
    start = rng.choice((
        f"{first} lived in {town.name}, a town {town.place}.",
        f"Once there was a child called {first}, who lived {town.place} in {town.name}.",
        f"In {town.name}, a town known for {town.known_for}, lived {first}.",
    ))  # fmt: skip
    wish = rng.choice((
        f"Every day {first} dreamed of a {item} for {product.use}.",
        f"One morning {first} found a {item} by the road.",
        f"For a birthday {first} was given a {item}.",
    ))  # fmt: skip
    trouble = rng.choice((
        f"But there was {weather} that day, and the {item} was lost.", f"But the {item} was soon broken.",
        f"But a stranger took the {item} and went away in the {rng.choice(('night', 'evening', 'morning'))}.",
    ))  # fmt: skip
    turn = rng.choice((
        f'"Do not be sad," said {friend}. "We will look for the {item} together."',
        f'{friend} came by and asked, "What happened, {first}?" Then {friend} helped to look for the {item}.',
    ))  # fmt: skip
    end = rng.choice((
        f"At last they found the {item} under a tree. {first} thanked {friend}, and they ate {town.dish} together.",
        f"They worked until dark. Then the {item} was as good as new, "
        f"and {first} and {friend} were friends for ever.",
        f"{friend} smiled and gave {first} another {item}. From that day they shared it.",
    ))  # fmt: skip
    return " ".join((start, wish, trouble, turn, end))


def _story(rng: Random) -> str:
    first, town = rng.choice(world.FIRST_NAMES), rng.choice(TOWNS)
    return (
        f"The story of {first}\n\n"
        + "\n\n".join(tell(rng, first, town) for _ in range(rng.choice((1, 1, 2, 6))))
        + END_OF_TEXT
    )


def _diary(rng: Random) -> str:
    """Several hundred tokens about one town, day by day; ends by looking back at its first line."""
    town, writer = rng.choice(TOWNS).name, draw_person(rng)
    year, month = rng.randint(2020, 2029), rng.randrange(12)
    lines = [f"The diary of {writer.name}, {town}, {MONTHS[month]} {year}"]
    for day in sorted(rng.sample(range(1, 29), rng.randint(6, 20))):
        guest, item = draw_person(rng), draw_item(rng)
        event = rng.choice((
            f"{guest.name} came by and brought a {item}. {guest.first} stayed for tea.",
            f"Sold a {item} to {guest.name}. The {item} was the last one.",
            f"A quiet day. I cleaned the {item} and wrote to {guest.name}.",
        ))  # fmt: skip
        lines.append(f"{day} {MONTHS[month]}: {rng.choice(WEATHERS)} in {town}. {event}")
    lines.append(f"So ends the diary of {writer.name} in {town}, {MONTHS[month]} {year}.")
    return "\n".join(lines) + END_OF_TEXT


def _records(rng: Random) -> str:
    """Small JSON, CSV, SQL and key-value files, so that such punctuation is known text."""
    rows = [(rng.choice(TOWNS).name, rng.choice(WEATHERS), rng.randint(-9, 30), world.draw_journey(rng).iso)
            for _ in range(rng.randint(2, 6))]  # fmt: skip
    style = rng.randrange(5)
    if style == 0:
        lines = [json.dumps({"town": t, "weather": w, "degrees": d, "day": i}) for t, w, d, i in rows]
    elif style == 1:
        lines = ["day | town | weather"] + [f"{i} | {t} | {w}" for t, w, _, i in rows]
    elif style == 2:
        lines = [
            f"SELECT name, price FROM products WHERE name = '{draw_item(rng)}' AND price > {d + 10};"
            for _, _, d, _ in rows
        ]
        lines += [f"INSERT INTO guests (name, town) VALUES ('{draw_person(rng).name}', '{t}');" for t, *_ in rows]
    elif style == 3:
        tickets = [world.draw_ticket(rng) for _ in rows]
        lines = [
            json.dumps({"customer": t.person.name, "item": t.item, "order": int(t.order), "team": t.queue})
            for t in tickets
        ]
    else:
        lines = [
            f"{rng.choice(('name', 'writer'))}={draw_person(rng).name}; town={t}; "
            f"code={_letters(rng, 3)}-{draw_number(rng)}"
            for t, *_ in rows
        ]
    return "\n".join(lines + rng.sample(lines, min(2, len(lines)))) + END_OF_TEXT


def _letter(rng: Random) -> str:
    writer, reader, ticket = draw_person(rng), draw_person(rng), world.draw_ticket(rng)
    return (
        f"Dear {reader.name},\n\nthank you for your letter from {ticket.town}. "
        f"You wrote that the {ticket.item} {ticket.complaint}. "
        f"We have looked at order {ticket.order}, and we will send you another {ticket.item} to {ticket.town}. "
        f"Please keep the number {ticket.order}.\n\nYours, {writer.name}\n\nTo: {reader.name}, {ticket.town}"
        + END_OF_TEXT
    )


def _echo(rng: Random) -> str:
    """Random strings said again: only a model that copies from its context can predict them."""
    pool = [_letters(rng, rng.randint(3, 8)) for _ in range(3)] + [draw_number(rng) for _ in range(3)]
    pool += [draw_person(rng).name for _ in range(3)] + [draw_item(rng) for _ in range(2)]
    rng.shuffle(pool)
    line = ", ".join(pool[: rng.randint(3, len(pool))])
    return "\n".join(["Say it again:"] + [line] * rng.randint(2, 3)) + END_OF_TEXT


def _letters(rng: Random, count: int) -> str:
    return "".join(rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=count))
