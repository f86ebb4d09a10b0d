"""Which pages disk holds, whose they are, and who leaves when it is full.

Owns the order of use and both limits: of all pages, and of one tenant's. Pure: it knows no file and no byte.
"""

from collections import OrderedDict
from collections.abc import Iterator

from tenantry.runtime.cache.kept import Kept


class Shelves:
    """most: pages in all. tenant_most: of one tenant; 0 for no such limit."""

    def __init__(self, most: int, tenant_most: int = 0) -> None:
        self.most = most
        self.tenant_most = min(tenant_most or most, most)
        self.evictions = 0
        self.count = 0
        self._order: dict[str, OrderedDict[bytes, Kept]] = {}

    def add(self, kept: Kept) -> None:
        kept.disk = True
        self.count += 1
        self._order.setdefault(kept.place.tenant, OrderedDict())[kept.key] = kept

    def remove(self, kept: Kept) -> None:
        kept.disk = False
        self.count -= 1
        order = self._order[kept.place.tenant]
        del order[kept.key]
        if not order:
            del self._order[kept.place.tenant]

    def touch(self, kept: Kept) -> None:
        self._order[kept.place.tenant].move_to_end(kept.key)

    def of(self, tenant: str) -> int:
        return len(self._order.get(tenant, ()))

    def crowding(self, tenant: str) -> Iterator[Kept]:
        """Who must leave so that this tenant may have one more, one after the other: its own if it is at its
        limit, else whatever was used longest ago."""
        while self.of(tenant) and self.of(tenant) + 1 > self.tenant_most:
            yield next(iter(self._order[tenant].values()))
        while self.count and self.count + 1 > self.most:
            yield min((next(iter(order.values())) for order in self._order.values()), key=lambda kept: kept.tick)

    def check(self) -> None:
        assert self.count == sum(map(len, self._order.values())) <= self.most, "pages on disk miscounted"
        for tenant, order in self._order.items():
            assert 0 < len(order) <= self.tenant_most, "a tenant has more of the disk than it may"
            assert all(k.disk and k.place.tenant == tenant and not k.dead for k in order.values()), "not on disk"
