"""What people decide: accept a report, put right how it was, take a row back, begin a recreated tenant's lifetime."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from reconciler.core.billing import NOTHING, LineChange, lines
from reconciler.core.compare import compare
from reconciler.core.dating import SHORTEST_LIFETIME
from reconciler.core.errors import Refusal
from reconciler.core.model import FIRST, UNKNOWN_ORG, Lifecycle, Listing, Observed, Recorded
from reconciler.core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator
    from decimal import Decimal

    from reconciler.core.billing import History, Prices
    from reconciler.core.model import Finding

NOTHING_WRITTEN = "Nothing was written. The next run records a new tenant."


class NotPutRight(Refusal):
    """What a person says of the past cannot be, or the next run would undo it."""


class Acceptance(NamedTuple):
    """That a tenant's reports of one reason are accepted."""

    tenant: str
    reason: str
    until: datetime
    """From then on people are notified again, in UTC."""
    note: str
    by: str
    open_since: datetime | None
    """Since when such a report is open; None: it is not open now."""
    replaced: datetime | None
    """Until when it was accepted before; None: it was not."""


class PutRight(NamedTuple):
    """What a person put right about a key, a skill of a tenant or its suspension, or would put right."""

    number: int | None
    """None: nothing was written."""
    tenant: str
    skill: str | None
    state: str | None
    """The state that was recorded; None: something was taken back."""
    since: datetime
    until: datetime
    """The same as `since` where something was taken back."""
    taken_back: str | None
    """What was taken back, in words."""
    appended: tuple[Finding, ...]
    """The rows, with what each overrules."""
    changes: tuple[LineChange, ...]
    by: str
    note: str
    latest: str | None = None
    """The latest state of the key from now on, where it is another one than before."""
    reopening: Reopening | None = None
    """The lifetime that begins anew, if one does."""
    billed: tuple[date, ...] = ()
    """The months that it changes and that were billed, by their first day: they are closed, or invoiced."""

    @property
    def difference_chf(self) -> Decimal:
        """What all of it is worth, before VAT: in closed months at their kept prices, else at today's."""
        return sum((change.difference_chf for change in self.changes), NOTHING)


def line_changes(tenant: str, before: History, after: History, prices: Prices, now: datetime) -> Iterator[LineChange]:
    """Yield the lines of a tenant up to now that differ, by month, organisation and item."""
    began = (one.began_at for one in (*before.lifetimes, *after.lifetimes) if one.began_at > FIRST)
    period = {"first": min(began, default=now).date(), "until": (now.astimezone(UTC) + timedelta(days=1)).date()}
    old, new = (
        {(line.month, line.org, line.item): line for line in lines(tenant, each, prices, **period, as_of=now)}
        for each in (before, after)
    )
    for key in sorted(old.keys() | new.keys(), key=lambda key: (key[0], key[1], key[2] or "")):
        was, then = old.get(key), new.get(key)
        days = was.days if was else 0, then.days if then else 0
        if days[0] != days[1]:
            month, org, item = key
            amounts = was.amount_chf if was else NOTHING, then.amount_chf if then else NOTHING
            yield LineChange(org, tenant, item, month, *days, prices.of(month).price(item), *amounts)


def refuse_against_cluster(lookup: Lookup, skill: str | None, state: str, uid: str | None) -> None:
    """Refuse a latest state that the cluster does not show: the next run would undo it, dated now.

    `uid` is the tenant that runs have seen under the name.

    Raises:
        NotPutRight: it shows another state or tenant, or cannot be read.
    """
    resource, what = lookup.resource, f"the skill {skill} of {lookup.tenant}" if skill else lookup.tenant
    if resource and resource.problem:
        raise NotPutRight(
            f"{lookup.tenant} cannot be read: {resource.problem}.",
            "Nothing was written. Correct its custom resource, then repeat the command.",
        )
    is_live = resource is not None and resource.deleting_at is None
    if resource and is_live and uid and resource.uid != uid:
        raise NotPutRight(
            f"The cluster shows another {lookup.tenant} than runs have seen: it was recreated.",
            "Nothing was written. Let a run look at it first; `reconciler reopen` begins its lifetime.",
        )
    if skill:
        shown = "enabled" if resource and is_live and skill in resource.packages else "disabled"
    elif resource and is_live:
        shown = "suspended" if resource.suspended else "running"
    else:
        return  # nothing compares the suspension of a tenant that is gone
    if shown != state:
        raise NotPutRight(
            f"Without that row the ledger would say that {what} is {state} now, and the cluster shows it {shown}: the "
            "next run would append the opposite, dated now.",
            "Nothing was written. If the cluster is right, say how it was with `reconciler record`, from when until "
            "when; if it is wrong, change the custom resource first.",
        )


class Lookup(NamedTuple):
    """What a source shows under a tenant's name."""

    tenant: str
    listing: Listing
    resource: Observed | None


class Reopening(NamedTuple):
    """That a tenant begins a new lifetime."""

    closed: Lifecycle
    """The lifetime before, which is kept."""
    begun: Lifecycle
    is_assumed: bool = False
    """True if nobody knows when the one before ended: it is billed only to the last run that proved it."""


def new_lifetime(lookup: Lookup, recorded: Recorded, now: datetime, settle: timedelta, reopened: str = "") -> Lifecycle:
    """Return the lifetime that the resource began after the recorded one, judged as a run judges it at `now`.

    `reopened` says who reopened it last.

    Raises:
        NotPutRight: the tenant was not deleted and recreated.
    """
    tenant, resource, before = lookup.tenant, lookup.resource, recorded.lifecycle
    if before is None:
        raise NotPutRight(f"The ledger has no lifetime of {tenant} that could be reopened.", NOTHING_WRITTEN)
    ahead = max((lookup.listing.server_time or now) - now, timedelta())
    differences = compare(resource, recorded, as_of=now, tolerance=ahead, settle=settle)
    found = {finding.reason: finding for finding in differences}
    if unreadable := found.get(Reason.TENANT_UNREADABLE):
        raise NotPutRight(
            f"{tenant} cannot be read: {unreadable.observed or ''}.",
            "Nothing was written. Correct its custom resource, then repeat the command.",
        )
    if resource is None or resource.created_at is None:
        raise NotPutRight(
            f"There is no {tenant}: it was deleted, as the ledger says, at {second(before.deleted_at)} UTC."
            if before.deleted_at
            else f"There is no {tenant}, which the ledger records as open.",
            f"Nothing was written. Is it the right name, and the right one of {lookup.listing.source}?",
        )
    if resource.deleting_at:
        raise NotPutRight(
            f"{tenant} is being deleted, since {second(resource.deleting_at)} UTC.",
            "Nothing was written. A lifetime that is ending is not opened; say when it lived with `reconciler record`.",
        )
    if Reason.TENANT_RECREATED not in found or resource.created_at <= before.created_at:
        if before.deleted_at is None:
            raise NotPutRight(
                f"{tenant} is open already: it is billed from {second(before.created_at)} UTC on.{reopened}",
                "Nothing was written, and nothing needs to be: the resource is the tenant of that row.",
            )
        raise NotPutRight(
            f"{tenant} was created at {second(resource.created_at)} UTC and is recorded from "
            f"{second(before.created_at)} UTC on as deleted at {second(before.deleted_at)} UTC: this is not a later "
            "lifetime, but one whose deletion is recorded wrongly.",
            f"Nothing was written. `reconciler explain {tenant}` shows where the deletion comes from; "
            f"`reconciler record {tenant} alive --from TIME` puts it right.",
        )
    return Lifecycle(org=resource.org or UNKNOWN_ORG, created_at=resource.created_at)


def ended(recorded: Recorded, begun: Lifecycle, ended_at: datetime | None) -> tuple[Lifecycle, bool]:
    """Return the recorded lifetime with its end, and whether that is only assumed.

    `ended_at` is what a person says of an open row. Without it, it cost nothing after the last run that proved it.

    Raises:
        NotPutRight: the row has an end already, or the end does not lie between the two beginnings.
    """
    before = recorded.lifecycle
    assert before is not None  # noqa: S101 - new_lifetime has looked
    if before.deleted_at is not None:
        if ended_at is not None:
            raise NotPutRight(
                f"The ledger has stamped the deletion of {recorded.name}: {second(before.deleted_at)} UTC.",
                "Nothing was written. Leave --ended out.",
            )
        return before, False
    least = before.created_at + SHORTEST_LIFETIME
    assumed = min(max(recorded.verified_at or least, least), begun.created_at)
    chosen = ended_at or assumed
    if not before.created_at < chosen <= begun.created_at:
        raise NotPutRight(
            f"{recorded.name} cannot have ended at {second(chosen)} UTC: it was there from "
            f"{second(before.created_at)} UTC on, and the new one since {second(begun.created_at)} UTC.",
            "Nothing was written. Give --ended a time between the two.",
        )
    return replace(before, deleted_at=chosen), ended_at is None


def second(at: datetime) -> str:
    """Return an instant in UTC, to the second."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
