"""Look up one tenant by its name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reconciler.core.decisions import Lookup, NotPutRight
from reconciler.core.model import Observed

if TYPE_CHECKING:
    from reconciler.core.model import Source


@dataclass
class _Namesakes:
    """A spool that keeps the resources of one name."""

    tenant: str
    found: list[Observed] = field(default_factory=list)

    def add(self, tenant: Observed, /) -> None:
        if tenant.name == self.tenant:
            self.found.append(tenant)

    def restart(self) -> None:
        self.found.clear()


def look_up(source: Source, tenant: str) -> Lookup:
    """List the source, and return what it shows under this name.

    The whole list is read: a lookup by name would not show that the name stands in two namespaces. An old list does no
    harm: either the lifetime that it shows began after the one that the ledger has closed, or it is refused.

    Raises:
        Failure: what the source raises where the list is not whole.
        NotPutRight: the list came from two clusters.
    """
    namesakes = _Namesakes(tenant)
    identity = source.identity()
    listing = source.observe(namesakes)
    if listing.source != identity:
        raise NotPutRight(
            "The API server's address led to two clusters while the tenants were listed.",
            "Nothing was written. Check the load balancer in front of it.",
        )
    found = namesakes.found
    if len(found) > 1:
        problem = "the name stands in more than one namespace: " + ", ".join(sorted(one.namespace for one in found))
        return Lookup(tenant, listing, Observed(name=tenant, problem=problem))
    return Lookup(tenant, listing, found[0] if found else None)
