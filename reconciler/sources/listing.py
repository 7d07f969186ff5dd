"""The list of tenants, checked: it is of the source that the ledger belongs to, and no older than the last one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reconciler.core.errors import Refusal

if TYPE_CHECKING:
    from reconciler.core.model import Listing, Source, Spool


class OtherSource(Refusal):
    """The ledger belongs to another source."""


class StaleList(Refusal):
    """The list is older than one that an earlier run has seen."""


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
    if last and not accept and _is_older(listing.resource_version, last.resource_version):
        raise StaleList(
            f"The list has resourceVersion {listing.resource_version}; an earlier run has seen "
            f"{last.resource_version}.",
            "Nothing was written: the API server is behind, or its etcd was restored. If it was restored, say so "
            "once with --accept-source.",
        )
    return listing


def _is_older(version: str | None, last: str | None) -> bool:
    # comparable as integers: https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions
    return bool(version and last and _is_number(version) and _is_number(last) and int(version) < int(last))


def _is_number(version: str) -> bool:
    return version.isascii() and version.isdigit()
