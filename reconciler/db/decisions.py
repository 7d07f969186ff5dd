"""What people decide: that a report is accepted for a time, and that a tenant which came back begins a new life.

Each is one transaction, and keeps who decided it, when by the database's clock, and why.
"""

from __future__ import annotations

import difflib
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import psycopg

from reconciler.core.compare import compare
from reconciler.core.errors import Failure, Refusal
from reconciler.core.model import FIRST, LAST, UNKNOWN_ORG, Lifecycle, Observed, Recorded
from reconciler.core.reasons import Reason
from reconciler.db.queries import query
from reconciler.views.terminal import visible

if TYPE_CHECKING:
    from reconciler.core.model import Listing, Spool

ALIKE = 3
"""Names that are offered in place of one that nobody has heard of."""


class UnheardOf(Refusal):
    """Neither the ledger nor the reports know the tenant."""


class AlreadyOver(Failure):
    """A report cannot be accepted until a time that is past."""

    exit_code = 64


class NotAccepted(Refusal):
    """There is no exception to end."""


class NotReopened(Refusal):
    """The tenant is not one that was deleted and created anew, or this source does not show it."""


class NotTheOwner(Failure):
    """The role may not begin a new life."""


# --- accepting a report ------------------------------------------------------------------------------------------


class Acceptance(NamedTuple):
    """That a tenant's reports of one reason are accepted."""

    tenant: str
    reason: Reason
    until: datetime
    """From then on people are told again, in UTC."""
    note: str
    by: str
    open_since: datetime | None
    """Since when such a report is open; None: it is not open now."""
    replaced: datetime | None
    """Until when it was accepted before; None: it was not."""

    @property
    def words(self) -> str:
        """What was done, and when people are told again."""
        until = self.until.astimezone(UTC)
        whole_day = until.time() == time()
        shown = f"the end of {until - timedelta(days=1):%Y-%m-%d}" if whole_day else _second(until)
        what = f"{self.reason} of {visible(self.tenant)}, by {visible(self.by)}: {visible(self.note)}"
        said = [
            f"Accepted until {shown}, in UTC: {what}",
            f"It was accepted until {_second(self.replaced)} UTC before." if self.replaced else "",
            f"The report is open since {_second(self.open_since)} UTC and stays listed."
            if self.open_since
            else "No such report is open now; one that comes is listed.",
            f"People are told of it again from {_second(until)} UTC on, if it is still so.",
        ]
        return "\n".join(filter(None, said))


class Revocation(NamedTuple):
    """That a tenant's reports of one reason are not accepted any longer."""

    tenant: str
    reason: Reason
    open_since: datetime | None
    """Since when such a report is open; None: it is not open now."""

    @property
    def words(self) -> str:
        """What was done, and when people are told again."""
        told = (
            f"The report is open since {_second(self.open_since)} UTC: the next run tells of it again."
            if self.open_since
            else "No such report is open now; one that comes is told."
        )
        return f"No longer accepted: {self.reason} of {visible(self.tenant)}\n{told}"


def accept(
    cursor: psycopg.Cursor[Any], tenant: str, reason: Reason, *, until: datetime, note: str, by: str
) -> Acceptance:
    """Accept a tenant's reports of one reason until then. What was decided of them before is replaced.

    Args:
        cursor: in an open transaction of the ledger.
        tenant: its name. Such a report need not be open yet.
        reason: why it is, or would be, reported.
        until: from when on people are told again, in UTC.
        note: why it is accepted.
        by: who decided it.

    Raises:
        AlreadyOver: that is not in the future, by the ledger's clock.
        UnheardOf: nobody has heard of the tenant.
    """
    now, open_since, accepted_until = _heard_of(cursor, tenant, reason)
    if until <= now:
        raise AlreadyOver(
            f"{_second(until)} UTC is past: by the ledger's clock it is {_second(now)} UTC.",
            "Nothing was changed. Give --until a time to come; with --revoke an exception ends at once.",
        )
    cursor.execute(query("accept_report"), {"tenant": tenant, "reason": reason, "until": until, "note": note, "by": by})
    return Acceptance(tenant, reason, until, note, by, open_since, accepted_until)


def revoke(cursor: psycopg.Cursor[Any], tenant: str, reason: Reason) -> Revocation:
    """End the acceptance of a tenant's reports of one reason at once.

    Args:
        cursor: in an open transaction of the ledger.
        tenant: its name.
        reason: why it is reported.

    Raises:
        UnheardOf: nobody has heard of the tenant.
        NotAccepted: nothing is accepted that could be ended.
    """
    _, open_since, _ = _heard_of(cursor, tenant, reason)
    if not cursor.execute(query("end_acceptance"), {"tenant": tenant, "reason": reason}).rowcount:
        raise NotAccepted(
            f"{reason} of {visible(tenant)} is not accepted: there is no exception, or it has expired.",
            "Nothing was changed. `reconciler status` lists what is accepted.",
        )
    return Revocation(tenant, reason, open_since)


def _heard_of(
    cursor: psycopg.Cursor[Any], tenant: str, reason: Reason
) -> tuple[datetime, datetime | None, datetime | None]:
    """Return the clock, since when such a report is open, and until when it is accepted."""
    ((now, heard_of, open_since, accepted_until),) = cursor.execute(
        query("heard_of"), {"tenant": tenant, "reason": reason, "last": LAST}
    ).fetchall()
    if not heard_of:
        raise UnheardOf(
            f"Nobody has heard of a tenant {visible(tenant)}: it is neither in the ledger nor in the reports.",
            f"Nothing was changed. {_alike(cursor, tenant)}",
        )
    return now, open_since, accepted_until


def _alike(cursor: psycopg.Cursor[Any], tenant: str) -> str:
    """Return which tenants could be meant."""
    names = [name for (name,) in cursor.execute(query("every_tenant"))]
    alike = difflib.get_close_matches(tenant, names, n=ALIKE)
    return f"Is it {' or '.join(map(visible, alike))}?" if alike else "Check its name."


# --- a new life --------------------------------------------------------------------------------------------------


class Source(Protocol):
    """Where the tenants are observed."""

    def identity(self) -> str:
        """Return what tells this source from any other."""

    def observe(self, spool: Spool, /) -> Listing:
        """Put every tenant into the spool, or raise."""


class Sight(NamedTuple):
    """What a source shows under a tenant's name."""

    tenant: str
    listing: Listing
    resource: Observed | None


class Reopening(NamedTuple):
    """That a tenant has begun a new life."""

    tenant: str
    closed: Lifecycle
    """The life before, which is kept."""
    begun: Lifecycle

    @property
    def words(self) -> str:
        """What was done, and what comes next."""
        closed, begun = self.closed, self.begun
        before = f"{_second(closed.created_at)} to {_second(closed.deleted_at or LAST)} UTC"
        return (
            f"Reopened {visible(self.tenant)}: it is billed to {visible(begun.org)} from "
            f"{_second(begun.created_at)} UTC on, when it was created anew.\n"
            f"Its life before is kept: {visible(closed.org)}, {before}.\n"
            "The next run compares its skills and its suspension, and corrects them from then on."
        )


class _Namesakes:
    """A spool that keeps the resources of one name."""

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.found: list[Observed] = []

    def add(self, tenant: Observed, /) -> None:
        if tenant.name == self.tenant:
            self.found.append(tenant)

    def restart(self) -> None:
        self.found.clear()


def look(source: Source, tenant: str) -> Sight:
    """List the source, and return what it shows under this name.

    It is the whole list that is read: asked for alone, a name that stands in two namespaces could pass for one tenant.
    An old list does no harm. A life that it shows either began after the one that the ledger has closed, or is refused.

    Args:
        source: a cluster or a file.
        tenant: the name.

    Raises:
        Failure: what the source raises where the list is not whole.
        NotReopened: the list came from two clusters.
    """
    namesakes = _Namesakes(tenant)
    identity = source.identity()
    listing = source.observe(namesakes)
    if listing.source != identity:
        raise NotReopened(
            "The API server's address led to two clusters while the tenants were listed.",
            "Nothing was written. Look at the load balancer in front of it.",
        )
    found = namesakes.found
    if len(found) > 1:
        problem = "the name stands in more than one namespace: " + ", ".join(sorted(one.namespace for one in found))
        return Sight(tenant, listing, Observed(name=tenant, problem=problem))
    return Sight(tenant, listing, found[0] if found else None)


def reopen(cursor: psycopg.Cursor[Any], sight: Sight, *, note: str, by: str) -> Reopening:
    """Keep a tenant's closed life, and begin the one of the resource that was created after it.

    Events stay where they are. Those of the life before still are the latest of their keys, until the next run appends
    what differs: no correction of the new life is dated before it began.

    Args:
        cursor: in an open transaction of the ledger; it waits for the lock that all runs share.
        sight: what `look` saw.
        note: why it is reopened.
        by: who decided it.

    Raises:
        NotReopened: the tenant was not deleted and created anew, or the source is not the ledger's.
        NotTheOwner: the role may not move created_at.
    """
    tenant = sight.tenant
    cursor.execute(query("lock"))
    _check_source(cursor, sight.listing)
    ((now,),) = cursor.execute(query("clock")).fetchall()
    closed = _closed_life(cursor, tenant)
    begun = _new_life(sight, closed, now)
    cursor.execute(query("keep_closed_life"), {"tenant": tenant, "by": by, "note": note})
    try:
        cursor.execute(query("begin_life"), {"tenant": tenant, "created_at": begun.created_at, "org": begun.org})
    except psycopg.errors.InsufficientPrivilege as error:
        raise NotTheOwner(
            f"The ledger denied it: {error.diag.message_primary}. The role of the runs may not move created_at.",
            "Nothing was written. Give the command again with DATABASE_URL of the owner of the ledger's tables.",
        ) from error
    return Reopening(tenant, closed, begun)


def _check_source(cursor: psycopg.Cursor[Any], listing: Listing) -> None:
    pinned = cursor.execute(query("source")).fetchone()
    if pinned is None:
        raise NotReopened(
            "No run has been made yet: nobody knows which source this ledger belongs to.",
            "Nothing was written. Make a `reconciler run` first: it reports the tenants that were created anew.",
        )
    if listing.source != pinned[0]:
        raise NotReopened(
            f"The ledger belongs to the source {pinned[0]}, and this is {listing.source}.",
            "Nothing was written. Is it the right cluster and the right database?",
        )


def _closed_life(cursor: psycopg.Cursor[Any], tenant: str) -> Lifecycle:
    """Return the tenant's life that is over, locked."""
    row = cursor.execute(query("lock_life"), {"tenant": tenant, "first": FIRST, "last": LAST}).fetchone()
    if row is None:
        raise NotReopened(
            f"The ledger has no life of {visible(tenant)} that could be reopened.",
            f"Nothing was written. {_alike(cursor, tenant)} A tenant that is new is recorded by the next run.",
        )
    lifetime = Lifecycle(org=row[0], created_at=row[1], deleted_at=row[2])
    if lifetime.deleted_at is None:
        last = cursor.execute(query("last_reopening"), {"tenant": tenant}).fetchone()
        said = f" It was reopened at {_second(last[0])} UTC by {visible(last[1])}: {visible(last[2])}" if last else ""
        raise NotReopened(
            f"{visible(tenant)} is open already: it is billed from {_second(lifetime.created_at)} UTC on.{said}",
            "Nothing was written, and nothing needs to be.",
        )
    return lifetime


def _new_life(sight: Sight, closed: Lifecycle, now: datetime) -> Lifecycle:
    """Return the life that the resource began, judged as a run judges it."""
    tenant, resource = visible(sight.tenant), sight.resource
    ended_at = closed.deleted_at or LAST
    ahead = max((sight.listing.server_time or now) - now, timedelta())
    recorded = Recorded(name=sight.tenant, lifecycle=closed)
    found = {finding.reason: finding for finding in compare(resource, recorded, as_of=now, tolerance=ahead)}
    if unreadable := found.get(Reason.TENANT_UNREADABLE):
        raise NotReopened(
            f"{tenant} cannot be read: {visible(unreadable.observed or '')}.",
            "Nothing was written. Put its custom resource right, then give the command again.",
        )
    if resource is None or resource.created_at is None:
        raise NotReopened(
            f"There is no {tenant}: it was deleted, as the ledger says, at {_second(ended_at)} UTC.",
            f"Nothing was written. Is it the right name, and the right one of {sight.listing.source}?",
        )
    if resource.deleting_at:
        raise NotReopened(
            f"{tenant} is being deleted, since {_second(resource.deleting_at)} UTC.",
            "Nothing was written. A life that is ending is not opened; what it owes is billed by hand.",
        )
    if Reason.TENANT_RECREATED not in found or resource.created_at <= closed.created_at:
        raise NotReopened(
            f"{tenant} was created at {_second(resource.created_at)} UTC and is recorded from "
            f"{_second(closed.created_at)} UTC on as deleted at {_second(ended_at)} UTC: that is no life after it, "
            "but one whose deletion is recorded wrongly.",
            f"Nothing was written. See in `reconciler explain {tenant}` where the deletion comes from; the owner of "
            "the ledger takes back by hand what is wrong.",
        )
    return Lifecycle(org=resource.org or UNKNOWN_ORG, created_at=resource.created_at)


def _second(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
