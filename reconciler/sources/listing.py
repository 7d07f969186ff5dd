"""The list of tenants, checked: it is of the source that the ledger belongs to, and no older than the last one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reconciler.core.errors import Refusal
from reconciler.core.history import is_older
from reconciler.core.model import Changed, ChangeLog, LogRead, VersionKind
from reconciler.core.recheck import costs_a_list

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from reconciler.core.model import Listing, Observed, Since, Source, Spool, StartLog


class OtherSource(Refusal):
    """The ledger belongs to another source."""


class StaleList(Refusal):
    """The list is older than one that an earlier run has seen."""


def list_tenants(
    source: Source,
    spool: Spool,
    last: Listing | None,
    since: Since | None,
    start_log: StartLog | None,
    *,
    accept: bool,
) -> Listing:
    """Put those tenants into the spool that have changed or are due, where that is enough, else all of them.

    Raises:
        Refusal: what `list_all` raises.
    """
    if last and since and start_log and not accept and (changed := list_changed(source, spool, since, last, start_log)):
        return changed
    return list_all(source, spool, last, start_log, accept=accept)


def list_changed(source: Source, spool: Spool, since: Since, last: Listing, start_log: StartLog) -> Listing | None:
    """Put those tenants into the spool that have changed or are due, each as a list of all would show it.

    Returns:
        None where only a list of all tenants can tell: the log did not reach that list, a tenant has changed since, or
        it is another source; where there is none; and where it costs less. So it is, too, where tenants live in
        namespaces: a name that is in two of them belongs to no tenant.
    """
    if source.namespaced or (head := source.head()) is None:
        return None
    listing, number = head
    # of an empty cluster only the rows that are open now say whether that can be
    is_good = number and listing.source == last.source and not is_older(listing.resource_version, last.resource_version)
    log = start_log(listing.resource_version or "")() if is_good else ChangeLog()
    if log.read is not LogRead.REACHED:
        return None
    tenants = {seen.name: None if kind is VersionKind.DELETED else seen for kind, seen in log.versions}
    unchanged = sorted(since.due.keys() - tenants.keys())
    if costs_a_list(len(unchanged), number):
        return None
    for name in unchanged:
        tenants[name] = source.get(name, None)
        if not _is_unchanged(since.due[name], tenants[name]):
            return None
    for tenant in filter(None, tenants.values()):
        spool.add(tenant)
    changed = Changed(frozenset(tenants), number, since.tenants_recorded)
    return listing._replace(changed=changed, log=lambda: log)


def _is_unchanged(remembered: str | None, tenant: Observed | None) -> bool:
    """True if a tenant of which the change log shows nothing new is what it was: otherwise it has changed since.

    One of which no version is remembered was not there, or could not be read.
    """
    if remembered is None:
        return tenant is None or tenant.problem is not None
    return tenant is not None and tenant.resource_version == remembered


def read_again(source: Source, spool: Spool, names: Iterable[str], before: Mapping[str, Observed | None]) -> None:
    """Put those of these tenants into the spool that exist now, each read by itself where it was listed before."""
    for name in names:
        listed = before[name]
        if tenant := source.get(name, listed.namespace if listed else None):
            spool.add(tenant)


def list_all(
    source: Source, spool: Spool, last: Listing | None, start_log: StartLog | None = None, *, accept: bool
) -> Listing:
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
    listing = source.observe(spool, start_log)
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
