"""When did it happen? The interval that a change must lie in, and the moment that is chosen in it.

Pure. Evidence, best first:

    creation       the tenant is only now being recorded and the key has no event of its lifetime, or generation 1:
                   the spec is as it was at creation
    deletion       deletionTimestamp, or the row's own deleted_at
    suspended_at   status.suspendedAt, if it lies in the interval
    field_manager  when the owner of the field last wrote, if that lies in the interval; not in the second of the
                   event that is corrected, which may be that event's own write
    none           nothing: what starts to cost is dated as late as possible, what stops costing as early as possible

The interval begins at the latest of: the key's latest recorded event, the start of billing, and the last run that
found the tenant true. It ends when the observation began, or earlier if evidence says so. A moment lies at least a
microsecond after the event that it corrects: else it might not become the latest, and the same correction would be
written again indefinitely. A stamp lies at least a second after the start of its lifetime.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from reconciler.core.compare import compare
from reconciler.core.history import is_as_created
from reconciler.core.model import Event, Evidence, FallbackDating, Finding, Moment, Observed, Recorded
from reconciler.core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from reconciler.core.model import Listing

ROUNDING = timedelta(seconds=1)
"""Kubernetes truncates its times to whole seconds."""
INSTANT = timedelta(microseconds=1)
"""What PostgreSQL tells apart."""
SHORTEST_LIFETIME = timedelta(seconds=1)


def clock_difference(observed_at: datetime, listing: Listing, began: float) -> timedelta:
    """Return how far the API server's clock and the database's are apart, as far as the server sent its own.

    `observed_at`, by the database's clock, and `began`, in seconds of `time.monotonic`, are the same instant.
    """
    if listing.server_time is None:
        return timedelta()
    return abs(listing.server_time - observed_at - timedelta(seconds=listing.read_at - began))


class Interval(NamedTuple):
    """The time in which a change must have happened."""

    not_before: datetime
    not_after: datetime

    def clip(self, at: datetime) -> datetime:
        """Return the instant of the interval that is closest to `at`."""
        return min(max(at, self.not_before), self.not_after)


def find_dated(
    candidates: Iterable[tuple[Observed | None, Recorded]], dating: Dating, *, as_of: datetime, settle: timedelta
) -> dict[str, tuple[Finding, ...]]:
    """Return by tenant how its resource and its record differ, dated; see `compare` for `as_of` and `settle`."""
    findings = {}
    for observed, recorded in candidates:
        differences = compare(observed, recorded, as_of=as_of, tolerance=dating.tolerance, settle=settle)
        findings[recorded.name] = tuple(dating.dated(differences, observed, recorded))
    return findings


@dataclass(frozen=True, slots=True, kw_only=True)
class Dating:
    """What the dating of one run's corrections depends on."""

    observed_at: datetime
    """Whatever was observed had happened by then, by the database's clock."""
    tolerance: timedelta = ROUNDING
    """How far the API server's clock may be off; evidence that misses its interval by no more is clipped."""
    fallback: FallbackDating = FallbackDating.CUSTOMER

    def dated(self, findings: Iterable[Finding], observed: Observed | None, recorded: Recorded) -> Iterator[Finding]:
        """Yield one tenant's findings, with a moment for each correction of an event or a lifetime.

        A deletion must come before the events that it closes, and what turns a skill on before what closes it, as
        `compare` yields them.
        """
        moments: dict[tuple[Reason, Event | Moment | None], Moment | None] = {}
        enabled: dict[str | None, Moment] = {}
        for finding in findings:
            before = finding.supersedes or enabled.get(finding.subject)
            # changes that follow the same event get the same moment: above all the packages of a new tenant
            change = finding.reason, before
            if change not in moments:
                deletion = moments.get((Reason.DELETION_UNRECORDED, None))
                if finding.reason is Reason.SKILL_OPEN_AFTER_DELETION:
                    moment = _closing(before, deletion or self._recorded_deletion(recorded))
                else:
                    moment = self._moment(finding, observed, recorded, deletion)
                moments[change] = moment and self._following(moment, finding, observed, recorded, before)
            moment = moments[change]
            if moment and finding.reason is Reason.SKILL_ENABLE_UNRECORDED:
                enabled[finding.subject] = moment
            yield finding.dated(moment) if moment else finding

    def _moment(
        self, finding: Finding, observed: Observed | None, recorded: Recorded, deletion: Moment | None
    ) -> Moment | None:
        interval = self._interval(finding, observed, recorded)
        moment: Moment | None = None
        match finding.reason:
            case Reason.TENANT_UNRECORDED if observed:
                moment = _exactly(Evidence.CREATION, interval.not_before)
            case Reason.CREATION_MISRECORDED if observed and observed.created_at:
                moment = _exactly(Evidence.CREATION, observed.created_at)
            case Reason.DELETION_UNRECORDED:
                moment = self._deletion(interval, observed, recorded)
            case Reason.SKILL_ENABLE_UNRECORDED if observed:
                if deletion:
                    # it was on by then: the closing event at the deletion must follow it
                    interval = interval._replace(not_after=interval.clip(deletion.occurred_at - INSTANT))
                moment = self._enabling(interval, finding, observed, recorded)
            case Reason.SKILL_DISABLE_UNRECORDED if observed:
                written = self._written(interval, finding, observed.packages_written_at)
                moment = written or self._unproved(interval, starts_to_cost=False)
            case Reason.SUSPENSION_UNRECORDED if observed:
                moment = self._suspending(interval, finding, observed)
            case Reason.RESUMPTION_UNRECORDED if observed:
                moment = self._resuming(interval, finding, observed, recorded)
            case _:
                pass  # neither a report nor the organisation of a row has a moment
        return moment

    def _following(
        self,
        moment: Moment,
        finding: Finding,
        observed: Observed | None,
        recorded: Recorded,
        before: Event | Moment | None,
    ) -> Moment:
        """Return the moment, late enough to follow the event before: at one instant, the order of ids would decide."""
        after = before.occurred_at + INSTANT if before else moment.occurred_at
        start = recorded.lifecycle.created_at if recorded.lifecycle else observed and observed.created_at
        if finding.reason is Reason.DELETION_UNRECORDED and start:
            # else it would be a lifetime without a day
            after = min(start, self.observed_at) + SHORTEST_LIFETIME
        if moment.occurred_at >= after:
            return moment
        return moment._replace(occurred_at=after, not_after=max(moment.not_after, after))

    def _interval(self, finding: Finding, observed: Observed | None, recorded: Recorded) -> Interval:
        """Return the interval before any evidence is considered."""
        start = recorded.lifecycle.created_at if recorded.lifecycle else observed and observed.created_at
        # a start of billing by a clock that is ahead must not move a correction into the future
        known = [min(time, self.observed_at) for time in (start, recorded.lifecycle and recorded.verified_at) if time]
        superseded = [finding.supersedes.occurred_at] if finding.supersedes else []
        not_before = max([*known, *superseded], default=self.observed_at)
        return Interval(not_before, max(self.observed_at, not_before))

    def _deletion(self, interval: Interval, observed: Observed | None, recorded: Recorded) -> Moment:
        if observed and observed.deleting_at:
            return _exactly(Evidence.DELETION, interval.clip(observed.deleting_at))
        # a tenant that has an event was not gone before it
        events = [*recorded.skills.values(), *([recorded.suspension] if recorded.suspension else [])]
        latest = [event.occurred_at for event in events if event.occurred_at <= interval.not_after]
        return self._unproved(interval._replace(not_before=max([interval.not_before, *latest])), starts_to_cost=False)

    def _recorded_deletion(self, recorded: Recorded) -> Moment | None:
        if recorded.lifecycle is None or recorded.lifecycle.deleted_at is None:
            return None
        return _exactly(Evidence.DELETION, min(recorded.lifecycle.deleted_at, self.observed_at))

    def _enabling(self, interval: Interval, finding: Finding, observed: Observed, recorded: Recorded) -> Moment:
        written = self._written(interval, finding, observed.packages_written_at)
        is_first = finding.supersedes is None or _is_of_earlier_lifetime(finding.supersedes, observed, recorded)
        if recorded.lifecycle is None and is_first:
            # the backfill bills a package from the creation on; the interval says how late it may have been added
            until = interval.not_before if is_as_created(observed) else (written or interval).not_after
            return Moment(interval.not_before, interval.not_before, until, Evidence.CREATION)
        row, verified_at = recorded.lifecycle, recorded.verified_at
        verified_since = row and verified_at and verified_at > row.created_at
        if is_as_created(observed) and finding.supersedes is None and observed.created_at and not verified_since:
            # on since the creation, or since the start of billing where that is later
            return _exactly(Evidence.CREATION, interval.clip(observed.created_at))
        return written or self._unproved(interval, starts_to_cost=True)

    def _suspending(self, interval: Interval, finding: Finding, observed: Observed) -> Moment:
        written = self._written(interval, finding, observed.suspend_written_at)
        seen = self._proved(interval, Evidence.SUSPENDED_AT, observed.suspended_at)
        if seen is None:
            return written or self._unproved(interval, starts_to_cost=False)
        # the status may be that of an earlier suspension: it bounds the change only if the spec was not written since
        unwritten_since = observed.suspend_written_at and observed.suspend_written_at <= seen.occurred_at
        return seen if unwritten_since else seen._replace(not_after=(written or interval).not_after)

    def _resuming(self, interval: Interval, finding: Finding, observed: Observed, recorded: Recorded) -> Moment:
        written = self._written(interval, finding, observed.suspend_written_at)
        if finding.supersedes and _is_of_earlier_lifetime(finding.supersedes, observed, recorded):
            # recreated, and no run saw it suspended: it runs from its start, as a tenant without events does
            return Moment(interval.not_before, interval.not_before, (written or interval).not_after, Evidence.CREATION)
        return written or self._unproved(interval, starts_to_cost=True)

    def _written(self, interval: Interval, finding: Finding, at: datetime | None) -> Moment | None:
        """Return the moment that the field's last write proves, unless it may be the corrected event's own write."""
        corrected = finding.supersedes
        if at and corrected and at == corrected.occurred_at.replace(microsecond=0):
            return None
        return self._proved(interval, Evidence.FIELD_MANAGER, at)

    def _proved(self, interval: Interval, evidence: Evidence, at: datetime | None) -> Moment | None:
        """Return the moment that the evidence proves; None if it misses the interval."""
        if at is None or not interval.not_before - self.tolerance <= at <= interval.not_after + self.tolerance:
            return None
        clipped = interval.clip(at)
        return Moment(clipped, interval.not_before, clipped, evidence)

    def _unproved(self, interval: Interval, *, starts_to_cost: bool) -> Moment:
        late = starts_to_cost or self.fallback is FallbackDating.DETECTED
        occurred_at = interval.not_after if late else interval.not_before
        return Moment(occurred_at, interval.not_before, interval.not_after, Evidence.NONE)


def _is_of_earlier_lifetime(event: Event, observed: Observed, recorded: Recorded) -> bool:
    """True if the event was recorded before this lifetime, and no run has verified the tenant since."""
    row, verified_at = recorded.lifecycle, recorded.verified_at
    if row and verified_at and verified_at > row.created_at:
        return False
    began_at = row.created_at if row else observed.created_at
    return began_at is not None and event.occurred_at < began_at


def _closing(closed: Event | Moment | None, deletion: Moment | None) -> Moment | None:
    """Return the moment of the deletion, but not before the event that is closed."""
    if deletion is None or closed is None:
        return None
    first = closed.occurred_at
    occurred_at, not_before, not_after, evidence = deletion
    return Moment(max(occurred_at, first), max(not_before, first), max(not_after, first), evidence)


def _exactly(evidence: Evidence, at: datetime) -> Moment:
    return Moment(at, at, at, evidence)
