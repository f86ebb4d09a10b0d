"""The closed world that the demo's text is about: people, towns, products, complaints, dates.

Owns the vocabulary and how one person, ticket, order or journey is drawn from a seeded generator.
Must not know chat formats, tokenizers or models.
"""

from dataclasses import dataclass
from random import Random

FIRST_NAMES = (
    "Ada", "Ben", "Clara", "David", "Elena", "Felix", "Greta", "Hugo", "Ines", "Jonas", "Karin", "Leo",
    "Maria", "Nils", "Olga", "Peter", "Quinn", "Rosa", "Simon", "Tilda", "Ulla", "Victor", "Wanda", "Yusuf",
    "Alma", "Bruno", "Cora", "Dario", "Edith", "Frank", "Gloria", "Henry", "Irene", "Jack", "Kira", "Liam",
)  # fmt: skip
LAST_NAMES = (
    "Moreau", "Lind", "Okafor", "Bauer", "Costa", "Novak", "Silva", "Berg", "Khan", "Rossi", "Dubois", "Larsen",
    "Marsh", "Weber", "Ortiz", "Tanaka", "Nowak", "Fisher", "Hart", "Iversen", "Jansen", "Keller", "Lopez", "Mills",
    "Palmer", "Reyes", "Stone", "Turner", "Vance", "Walsh", "Young", "Zeller", "Adler", "Brandt", "Cole", "Drake",
)  # fmt: skip
ADJECTIVES = ("copper", "blue", "wooden", "small", "green", "silver",
              "heavy", "white", "folding", "plain", "red", "round")  # fmt: skip
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August",
          "September", "October", "November", "December")  # fmt: skip
WEATHERS = ("rain", "snow", "sun", "fog", "wind", "hail", "clear skies", "a light breeze")


@dataclass(frozen=True, slots=True)
class Town:
    """One invented town and what is true of it."""

    name: str
    place: str
    known_for: str
    dish: str


@dataclass(frozen=True, slots=True)
class Product:
    """One thing on sale; plurals are regular."""

    name: str
    use: str
    price: int


TOWNS = (
    Town("Alderby", "by the sea", "its old lighthouse", "smoked fish"),
    Town("Brinmouth", "at the mouth of a river", "its boat races", "onion soup"),
    Town("Corvale", "in a green valley", "its apple orchards", "apple cake"),
    Town("Dunmere", "beside a lake", "its wooden bridges", "grilled trout"),
    Town("Eastwick", "on a wide plain", "its windmills", "barley bread"),
    Town("Farholm", "on an island", "its seabirds", "crab pie"),
    Town("Glenholt", "high in the hills", "its sheep and its wool", "lamb stew"),
    Town("Harwood", "in a dark forest", "its carpenters", "mushroom pie"),
    Town("Ivelund", "near the northern border", "its long winters", "rye pancakes"),
    Town("Juniper", "in dry country", "its clear night skies", "bean stew"),
    Town("Kestrel", "on a steep cliff", "its falcons", "goat cheese"),
    Town("Lowmarsh", "in the wetlands", "its herons", "eel soup"),
    Town("Millbrook", "along a quick stream", "its paper mills", "honey bread"),
    Town("Norvik", "at the end of a fjord", "its harbour", "salted cod"),
    Town("Oakfield", "among old trees", "its summer market", "plum tart"),
    Town("Pinedale", "under the mountains", "its ski school", "cheese soup"),
)
PRODUCTS = (
    Product("kettle", "boiling water", 35), Product("lamp", "lighting a room", 48),
    Product("chair", "sitting at a desk", 90), Product("clock", "telling the time", 27),
    Product("teapot", "making tea", 31), Product("blanket", "keeping warm", 42),
    Product("bicycle", "riding to work", 320), Product("backpack", "carrying books", 65),
    Product("mirror", "seeing yourself", 54), Product("radio", "listening to music", 76),
    Product("table", "eating with friends", 180), Product("vase", "holding flowers", 22),
    Product("ladder", "reaching high places", 84), Product("basket", "gathering fruit", 18),
    Product("candle", "giving a soft light", 6), Product("pillow", "sleeping well", 29),
)  # fmt: skip
COMPLAINTS = {
    "repairs": ("leaks", "is cracked", "makes a loud noise", "stopped working", "is broken"),
    "delivery": ("never arrived", "came two weeks late", "is still on the road", "was sent to the wrong house"),
    "billing": ("was charged twice", "costs more on the bill", "was paid but not booked", "has a wrong price"),
    "returns": ("is too small", "has the wrong colour", "is not what was shown", "is no longer needed"),
    "advice": ("came without a guide", "needs cleaning", "is hard to put together", "is hard to use"),
}


@dataclass(frozen=True, slots=True)
class Person:
    """A customer. `held_out` people appear in no training example of an adapter."""

    first: str
    last: str

    @property
    def name(self) -> str:
        return f"{self.first} {self.last}"

    @property
    def held_out(self) -> bool:
        return (FIRST_NAMES.index(self.first) + 2 * LAST_NAMES.index(self.last)) % 5 == 0


@dataclass(frozen=True, slots=True)
class Ticket:
    """A complaint about one order. queue: who should answer it."""

    person: Person
    town: str
    item: str
    order: str
    queue: str
    complaint: str


@dataclass(frozen=True, slots=True)
class Order:
    """A wish for `quantity` (2 to 99) of one product."""

    person: Person
    town: str
    item: str
    quantity: int


@dataclass(frozen=True, slots=True)
class Journey:
    """A parcel that leaves a town on a day. month counts from 1."""

    person: Person
    town: str
    item: str
    day: int
    month: int
    year: int

    @property
    def date(self) -> str:
        return f"{self.day} {MONTHS[self.month - 1]} {self.year}"

    @property
    def iso(self) -> str:
        return f"{self.year}-{self.month:02d}-{self.day:02d}"


def draw_person(rng: Random, held_out: bool | None = None) -> Person:
    """A person; `held_out` restricts to those kept from (True) or used in (False) adapter training."""
    while True:
        person = Person(rng.choice(FIRST_NAMES), rng.choice(LAST_NAMES))
        if held_out is None or person.held_out == held_out:
            return person


def draw_item(rng: Random) -> str:
    return f"{rng.choice(ADJECTIVES)} {rng.choice(PRODUCTS).name}"


def draw_number(rng: Random) -> str:
    """Four digits, the first not zero."""
    return str(rng.randint(1000, 9999))


def draw_ticket(rng: Random, held_out: bool | None = None) -> Ticket:
    queue = rng.choice(tuple(COMPLAINTS))
    person, town, item = draw_person(rng, held_out), rng.choice(TOWNS).name, draw_item(rng)
    return Ticket(person, town, item, draw_number(rng), queue, rng.choice(COMPLAINTS[queue]))


def draw_order(rng: Random, held_out: bool | None = None) -> Order:
    return Order(draw_person(rng, held_out), rng.choice(TOWNS).name, draw_item(rng), rng.randint(2, 99))


def draw_journey(rng: Random, held_out: bool | None = None) -> Journey:
    person, town, item = draw_person(rng, held_out), rng.choice(TOWNS).name, draw_item(rng)
    return Journey(person, town, item, rng.randint(1, 28), rng.randint(1, 12), rng.randint(2020, 2029))


def say_ticket(rng: Random, ticket: Ticket) -> str:
    """What the customer writes."""
    name, town, item, order, complaint = ticket.person.name, ticket.town, ticket.item, ticket.order, ticket.complaint
    return rng.choice((
        f"Hello, my {item} {complaint}. The order is {order}. I am {name} from {town}.",
        f"I am {name} from {town}. In order {order} the {item} {complaint}.",
        f"Order {order} again: the {item} {complaint}. Please help, {name} in {town}.",
        f"This is {name}. I bought a {item} in {town} and it {complaint}. My order number is {order}.",
    ))  # fmt: skip


def say_order(rng: Random, order: Order) -> str:
    name, town, wish = order.person.name, order.town, f"{order.quantity} {order.item}s"
    return rng.choice((
        f"{name} would like {wish} in {town}.",
        f"Please send {wish} to {name} in {town}.",
        f"I am {name} and I want to buy {wish} for my house in {town}.",
        f"We need {wish}. Send them to {town}, to {name}.",
    ))  # fmt: skip


def say_journey(rng: Random, journey: Journey) -> str:
    name, town, item, date = journey.person.name, journey.town, journey.item, journey.date
    return rng.choice((
        f"The {item} for {name} leaves {town} on {date}.",
        f"On {date} we send the {item} from {town} to {name}.",
        f"{name} is waiting for the {item}. It left {town} on {date}.",
        f"Please note: {item}, to {name}, from {town}, {date}.",
    ))  # fmt: skip


def say_visit(rng: Random, person: Person, town: str) -> str:
    return rng.choice((
        f"Please greet {person.name} from {town}.",
        f"Say hello to {person.name}, who comes from {town}.",
        f"{person.name} has just come in from {town}. Welcome them!",
        f"Our guest today is {person.name} from {town}.",
    ))  # fmt: skip
