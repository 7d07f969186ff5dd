"""The list of tenants, checked: it is of the source that the ledger belongs to, and no older than the last one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reconciler.core.errors import Refusal
from reconciler.core.history import is_older

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from reconciler.core.model import Listing, Observed, Source, Spool


class OtherSource(Refusal):
    """The ledger belongs to another source."""


class StaleList(Refusal):
    """The list is older than one that an earlier run has seen."""


def read_again(source: Source, spool: Spool, names: Iterable[str], before: Mapping[str, Observed | None]) -> None:
    """Put those of these tenants into the spool that exist now, each read by itself where it was listed before."""
    for name in names:
        listed = before[name]
        if tenant := source.get(name, listed.namespace if listed else None):
            spool.add(tenant)


def list_tenants(source: Source, spool: Spool, last: Listing | None, *, accept: bool) -> Listing:
    """Put every tenant into the spool, and return what is known of the list.

    `last` is the last list of the source that the ledger belongs to, None on the first run; `accept` allows another
    source, or an older list.

    Raises:
        OtherSource: it is another source, or the address led to two of them.
        StaleList: the list is older than the last one.
        Failure: what the source raises where the list is not whole.
    """
    identity = source.identity()
    if last and last.source != identity and not accept:
        raise OtherSource(
            f"The ledger belongs to the source {last.source}, and this is {identity}.",
            "Nothing was written. Is it the right cluster and the right database? If the ledger is to follow this "
            "source from now on, say so once with --accept-source.",
        )
    listing = source.observe(spool)
    if listing.source != identity:
        raise OtherSource(
            "The API server's address led to two clusters during one run.",
            "Nothing was written. Check the load balancer in front of it.",
        )
    if last and not accept and is_older(listing.resource_version, last.resource_version):
        raise StaleList(
            f"The list has resourceVersion {listing.resource_version}; an earlier run has seen "
            f"{last.resource_version}.",
            "Nothing was written: the API server is behind, or its etcd was restored. If it was restored, say so "
            "once with --accept-source.",
        )
    return listing
