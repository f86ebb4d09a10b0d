"""What nobody may find again: namespaces and tenants that were deleted while requests of theirs were still open.

Owns what has to be forgotten once more when the last of those has ended, since until then it leaves KV behind. It
must not know why something was deleted, nor end any request itself.
"""

from collections.abc import Iterable

from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.scheduler.request import Request


class Farewells:
    def __init__(self, cache: KvCache) -> None:
        self._cache = cache
        self._namespaces: set[bytes] = set()
        self._tenants: set[str] = set()

    def namespace(self, namespace: bytes, left: Iterable[Request]) -> None:
        """Forget its KV in every tier. left: requests that are open."""
        self._cache.drop_namespace(namespace)
        if any(request.submit.namespace == namespace for request in left):
            self._namespaces.add(namespace)

    def tenant(self, tenant: str, left: Iterable[Request]) -> None:
        """As namespace()."""
        self._cache.drop_tenant(tenant)
        if any(request.submit.tenant == tenant for request in left):
            self._tenants.add(tenant)

    def ended(self, request: Request, left: Iterable[Request]) -> None:
        """A request has ended, and these are left."""
        if not self._namespaces and not self._tenants:
            return
        namespace, tenant = request.submit.namespace, request.submit.tenant
        if namespace in self._namespaces:
            self._namespaces.discard(namespace)
            self.namespace(namespace, left)
        if tenant in self._tenants:
            self._tenants.discard(tenant)
            self.tenant(tenant, left)
