"""Which tenants are rechecked, and which findings the recheck confirms.

The portal changes a custom resource first and writes its row up to `settle` later. Drift that is younger than that may
be a row still on its way; a tenant that is absent may be one that a list missed. Such tenants are read again, and only
drift that is the same both times counts. Pure: `run.py` does the waiting and the reading.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from reconciler.core.dating import ROUNDING
from reconciler.core.errors import SourceFault
from reconciler.core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from datetime import datetime

    from reconciler.core.compare import Comparison
    from reconciler.core.model import Finding, Listing, Observed

MIN_RELISTED = 20
"""Up to so many tenants are read again one by one, however few there are in all."""
REQUEST_COST = 20
"""What a request for one tenant is taken to cost, in tenants of a list. Measured: 8 where the API server is near."""
RESTLESS_AFTER = timedelta(minutes=55)
"""An hour, less what a run may begin late."""
MIN_EARLIER_RUNS = 2
"""So many runs in a row must have deferred a restless tenant before, however far apart they are."""

_PACKAGES = {Reason.SKILL_ENABLE_UNRECORDED, Reason.SKILL_DISABLE_UNRECORDED}


class IncompleteList(SourceFault):
    """The list lacked a tenant that was there."""


def needs_recheck(first: Comparison, listing: Listing, settle: timedelta, observed_at: datetime) -> list[str]:
    """Return the names of the tenants whose drift may not be what it seems.

    A tenant is not rechecked only if it is quiet: no time on it is younger than `settle`, by the API server's clock,
    and no event that is corrected is younger than `observed_at`, when the run began, by the database's. Without the API
    server's clock no tenant is known to be quiet.
    """
    quiet_since = listing.server_time and listing.server_time - settle - ROUNDING
    return [
        name
        for name, findings in first.findings.items()
        if findings
        and not _is_unreadable(first.observed[name])
        and not _is_quiet(first, name, quiet_since, observed_at)
    ]


def refuse_incomplete(first: Comparison, second: Comparison, listing: Listing, settle: timedelta) -> None:
    """Raise IncompleteList if a tenant that the list lacked is there, and was created before the list was read."""
    if listing.server_time is None or not first.tenants_observed:
        # an empty list is refused as such
        return
    # the list may have been read some time before its first page was sent
    began = listing.server_time - settle - ROUNDING
    for name, before in first.observed.items():
        again = second.observed.get(name)
        if before is None and again and again.created_at and again.created_at < began:
            raise IncompleteList(
                f"The list lacked {name}, which exists since {again.created_at:%Y-%m-%d %H:%M:%S} UTC: "
                "it was not the whole list.",
                "Nothing was written. Is there a proxy between this machine and the API server, or is a server behind?",
            )


def confirm(
    first: Comparison, second: Comparison, rechecked: Collection[str], observed_at: datetime
) -> Iterator[Finding]:
    """Yield what counts: a rechecked tenant's findings, deferred if only one look found them, and all of the others.

    The first look may lie before an event that is younger than `observed_at`, when the run began: then it does not show
    what came after that event.
    """
    names = frozenset(rechecked)
    for name, findings in first.findings.items():
        if name not in names:
            yield from findings
            continue
        unchanged = _is_unchanged(first.observed[name], second.observed.get(name))
        again = second.findings.get(name, ())
        seen = (each for each in findings if not (each.action.writes and _corrects_younger(each, observed_at)))
        before = {_identity(finding) for finding in seen} if unchanged else set()
        for finding in again:
            yield finding if _identity(finding) in before else finding.deferred(changing=True)
        found_again = {_identity(finding) for finding in again}
        # of a resource that has not changed it has vanished because the portal's row came
        vanished = (finding for finding in findings if _identity(finding) not in found_again)
        yield from (finding.deferred(changing=not unchanged) for finding in vanished)


def restless(
    changing: Collection[str], earlier: Iterable[tuple[datetime, Collection[str]]], as_of: datetime
) -> frozenset[str]:
    """Return which of the tenants that keep changing did so in every run of the last hour, and at least in two.

    `earlier` has when each run before began and which tenants kept changing in it, the latest run first.
    """
    names = frozenset(changing)
    for number, (observed_at, changed) in enumerate(earlier, 1):
        names &= frozenset(changed)
        if number >= MIN_EARLIER_RUNS and as_of - observed_at >= RESTLESS_AFTER:
            return names
    return frozenset()


def is_relisting_cheaper(first: Comparison, names: Collection[str], *, namespaced: bool) -> bool:
    """True if one more list costs the API server less than a request for each of these tenants."""
    # to find a tenant whose namespace is not known, the API server reads all of them
    unlocated = sum(first.observed[name] is None for name in names) if namespaced else 0
    return unlocated > 1 or costs_a_list(len(names), first.tenants_observed)


def costs_a_list(requests: int, tenants: int) -> bool:
    """True if so many requests for one tenant cost the API server more than a list of so many."""
    return requests > max(MIN_RELISTED, tenants // REQUEST_COST)


def _is_unreadable(observed: Observed | None) -> bool:
    return observed is not None and observed.problem is not None


def _is_quiet(first: Comparison, name: str, quiet_since: datetime | None, observed_at: datetime) -> bool:
    """True if the resource is there, has not changed lately, and its times can show that."""
    observed, findings = first.observed[name], first.findings[name]
    if observed is None or observed.last_modified_at is None or quiet_since is None:
        return False
    if any(_is_undated(finding.reason, observed) for finding in findings):
        return False
    # the ledger may know of a later change than the resource shows: then what was read may be stale, or from before it
    latest = min(observed.last_modified_at + ROUNDING, observed_at)
    if any(_corrects_younger(finding, latest) for finding in findings):
        return False
    return observed.last_modified_at <= quiet_since


def _is_undated(reason: Reason, observed: Observed) -> bool:
    """True if the change may have moved no time on the resource: removing a field, or a member of a set, moves none."""
    if reason in _PACKAGES:
        return observed.packages_written_at is None
    return reason is Reason.RESUMPTION_UNRECORDED and observed.suspend_written_at is None


def _corrects_younger(finding: Finding, at: datetime) -> bool:
    """True if it corrects an event that is younger than this instant."""
    return finding.supersedes is not None and finding.supersedes.occurred_at > at


def _is_unchanged(first: Observed | None, second: Observed | None) -> bool:
    """True if it is the same resource, and what is billed of it has not changed meanwhile."""
    if first is None or second is None:
        return first is second
    return _billed(first) == _billed(second)


def _billed(observed: Observed) -> tuple[object, ...]:
    """Return what is billed of a resource. Its generation is not: a controller may move it for other reasons."""
    return observed.uid, observed.deleting_at, observed.packages, observed.suspended


def _identity(finding: Finding) -> tuple[object, ...]:
    """Return what makes a finding the same at both looks."""
    return finding.reason, finding.subject, finding.recorded, finding.observed, finding.supersedes
