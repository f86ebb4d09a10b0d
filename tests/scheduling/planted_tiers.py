"""Known defects of the tiers, planted like those of planted.py: the simulator over lower.py must catch each."""

from tenantry.runtime.cache import leases
from tenantry.runtime.cache.arena import Arena
from tenantry.runtime.cache.kept import Kept, Slots
from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.cache.shelves import Shelves
from tenantry.runtime.cache.tiers import Tiers
from tenantry.runtime.plan import Copies
from tests.scheduling.planted import Plant

TIER_DEFECTS: dict[str, Plant] = {}


def defect(plant: Plant) -> Plant:
    TIER_DEFECTS[plant.__name__] = plant
    return plant


@defect
def a_slot_read_before_its_page_has_come(patch):
    patch.setattr(Kept, "readable", property(lambda self: self.slot >= 0))


@defect
def a_slot_given_away_under_a_transfer(patch):
    """Nobody pins anything."""
    patch.setattr(Slots, "pin", lambda self, kept: None)
    patch.setattr(Slots, "unpin", lambda self, kept: None)


@defect
def memory_given_up_under_a_transfer(patch):
    """Host memory goes whole, whoever still reads from it or writes into it."""
    original = Slots.close

    def close(self):
        original(self)
        self.released = list(range(self.slots))

    patch.setattr(Slots, "close", close)


@defect
def memory_that_is_never_given_back(patch):
    """The books are empty and the slots are not."""
    original = Tiers.take

    def take(self, now):
        copies = original(self, now)
        return Copies(copies.saves, copies.restores, copies.fetches, copies.stores, copies.erases)

    patch.setattr(Tiers, "take", take)


@defect
def pages_saved_from_where_they_will_be(patch):
    """A page that is to move is copied from its new place, before it is there."""
    patch.setattr(Arena, "where", lambda self, page: page)


@defect
def names_that_forget_what_came_before(patch):
    """A page's name is made of its own tokens alone."""
    original = leases.chain

    def chain(namespace, tokens, width):
        for name in original(namespace, tokens, width):
            yield name._replace(key=name.tokens[:1] * 32, parent=namespace)

    patch.setattr(leases, "chain", chain)
    patch.setattr("tenantry.runtime.cache.nodes.name_of", lambda parent, tokens: tokens[:1] * 32)
    patch.setattr(Tiers, "knows", lambda self, namespace, weights: True)
    patch.setattr(Tiers, "reach", _believing_reach)


def _believing_reach(self, namespace, weights, names):
    """Looks at nothing but the key."""
    found = []
    for name in names:
        kept = self._kept.get(name.key)
        if kept is None or not kept.readable:
            break
        self._slots.pin(kept)
        found.append(kept)
    return found


@defect
def a_tenant_left_out_of_one_tiers_keys(patch):
    """Every namespace's chain begins alike."""
    original = leases.chain
    patch.setattr(leases, "chain", lambda namespace, tokens, width: original(bytes(32), tokens, width))
    patch.setattr(
        "tenantry.runtime.cache.nodes.Node.name",
        property(lambda node: [*original(bytes(32), _path(node), len(node.key))][-1]),
    )
    patch.setattr(Tiers, "knows", lambda self, namespace, weights: True)


def _path(node) -> bytes:
    keys = []
    while node.parent is not None:
        keys.append(node.key)
        node = node.parent
    return b"".join(reversed(keys))


@defect
def restored_to_where_the_page_was(patch):
    """Pages that are moved in the same plan are not followed."""
    patch.setattr(Tiers, "moved", lambda self, moves: None)


@defect
def what_was_not_restored_counts_as_computed(patch):
    """A short read is taken for the whole."""
    original = Tiers.take

    def take(self, now):
        copies = original(self, now)
        return Copies(copies.saves, copies.restores[1:], copies.fetches, copies.stores, copies.erases)

    patch.setattr(Tiers, "take", take)


@defect
def a_damaged_page_is_believed(patch):
    original = Tiers.settle

    def settle(self, copied, now):
        believed = tuple((op, "done" if end == "bad" else end) for op, end in copied.fetched)
        original(self, type(copied)(believed, copied.stored, copied.fetch_s), now)

    patch.setattr(Tiers, "settle", settle)


@defect
def one_tenant_may_fill_the_disk(patch):
    original = Shelves.__init__
    patch.setattr(Shelves, "__init__", lambda self, most, tenant_most=0: original(self, most))


@defect
def pins_that_are_never_undone(patch):
    """A waiting request's pages stay pinned when it starts."""
    patch.setattr(KvCache, "close", lambda self, fetching: None)


@defect
def what_was_deleted_stays_below(patch):
    """Deleting clears the device alone."""
    patch.setattr(Tiers, "drop_namespace", lambda self, namespace: None)
    patch.setattr(Tiers, "drop_tenant", lambda self, tenant: None)
