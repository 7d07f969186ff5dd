"""What people decide: that a report is accepted for a time, and that a recreated tenant begins a new lifetime."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from reconciler.core.compare import compare
from reconciler.core.errors import Refusal
from reconciler.core.model import LAST, UNKNOWN_ORG, Lifecycle, Listing, Observed, Recorded
from reconciler.core.reasons import Reason


class NotReopened(Refusal):
    """The tenant was not deleted and recreated, or this source does not show it."""


class Acceptance(NamedTuple):
    """That a tenant's reports of one reason are accepted."""

    tenant: str
    reason: Reason
    until: datetime
    """From then on people are notified again, in UTC."""
    note: str
    by: str
    open_since: datetime | None
    """Since when such a report is open; None: it is not open now."""
    replaced: datetime | None
    """Until when it was accepted before; None: it was not."""


class Lookup(NamedTuple):
    """What a source shows under a tenant's name."""

    tenant: str
    listing: Listing
    resource: Observed | None


class Reopening(NamedTuple):
    """That a tenant has begun a new lifetime."""

    tenant: str
    closed: Lifecycle
    """The lifetime before, which is kept."""
    begun: Lifecycle


def new_lifetime(lookup: Lookup, closed: Lifecycle, now: datetime) -> Lifecycle:
    """Return the lifetime that the resource began after the closed one, judged as a run judges it at `now`.

    Raises:
        NotReopened: the tenant was not deleted and recreated.
    """
    tenant, resource = lookup.tenant, lookup.resource
    ended_at = closed.deleted_at or LAST
    ahead = max((lookup.listing.server_time or now) - now, timedelta())
    recorded = Recorded(name=tenant, lifecycle=closed)
    found = {finding.reason: finding for finding in compare(resource, recorded, as_of=now, tolerance=ahead)}
    if unreadable := found.get(Reason.TENANT_UNREADABLE):
        raise NotReopened(
            f"{tenant} cannot be read: {unreadable.observed or ''}.",
            "Nothing was written. Correct its custom resource, then repeat the command.",
        )
    if resource is None or resource.created_at is None:
        raise NotReopened(
            f"There is no {tenant}: it was deleted, as the ledger says, at {second(ended_at)} UTC.",
            f"Nothing was written. Is it the right name, and the right one of {lookup.listing.source}?",
        )
    if resource.deleting_at:
        raise NotReopened(
            f"{tenant} is being deleted, since {second(resource.deleting_at)} UTC.",
            "Nothing was written. A lifetime that is ending is not opened; what it owes is billed by hand.",
        )
    if Reason.TENANT_RECREATED not in found or resource.created_at <= closed.created_at:
        raise NotReopened(
            f"{tenant} was created at {second(resource.created_at)} UTC and is recorded from "
            f"{second(closed.created_at)} UTC on as deleted at {second(ended_at)} UTC: this is not a later lifetime, "
            "but one whose deletion is recorded wrongly.",
            f"Nothing was written. `reconciler explain {tenant}` shows where the deletion comes from; the owner of "
            "the ledger corrects it by hand.",
        )
    return Lifecycle(org=resource.org or UNKNOWN_ORG, created_at=resource.created_at)


def second(at: datetime) -> str:
    """Return an instant in UTC, to the second."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
