"""How much of the shared pages is whose: a floor that nobody else's pages push a tenant's below, and a ceiling above
which its own go first.

Owns counts by tenant. It must not know pages, order or time. Soft: what nobody wants may be anybody's, and what is in
use is not counted against anybody (fairness.py charges for that).
"""


class Shares:
    """least, most: pages in the tree of one tenant; 0 for no floor, or no ceiling. pages: of all tenants. Where many
    have pages, floors shrink, so that together they never are more than there is."""

    def __init__(self, pages: int, least: int = 0, most: int = 0) -> None:
        self._pages, self._least, self._most = pages, least, most
        self.counts: dict[str, int] = {}

    @property
    def floor(self) -> int:
        return min(self._least, self._pages // max(len(self.counts), 1))

    def grew(self, tenant: str) -> bool:
        """One page more. Whether that took it over its floor."""
        count = self.counts[tenant] = self.counts.get(tenant, 0) + 1
        return count == self.floor + 1

    def shrank(self, tenant: str) -> None:
        self.counts[tenant] -= 1
        if not self.counts[tenant]:
            del self.counts[tenant]

    def over(self, tenant: str) -> bool:
        """Whether it has more than its ceiling."""
        return 0 < self._most < self.counts.get(tenant, 0)

    def guarded(self, tenant: str) -> bool:
        """Whether it has no more than its floor."""
        return self.counts.get(tenant, 0) <= self.floor
