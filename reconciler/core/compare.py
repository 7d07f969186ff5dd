"""The truth table: how the cluster can differ from the ledger, and what is done about each difference.

Pure: no clock, no I/O. A rule is one or two rows of this table, and its name states the fault. `compare` applies the
rules of `RULES` in order.

    the resource    lifecycle row            reason                          action
    --------------  -----------------------  ------------------------------  --------------------------------
    unreadable      any                      tenant_unreadable               report
    none            none, yet events         events_without_tenant           report
    live            none                     tenant_unrecorded               insert; then as if it were open
    being deleted   none                     tenant_unrecorded,              insert, stamp
                                             deletion_unrecorded
    being deleted   open                     deletion_unrecorded             stamp
    none            open                     deletion_unrecorded             stamp
    live            closed before it began   tenant_recreated                report
    live or being   open, of another tenant  tenant_recreated                report, and nothing else
    deleted
    live            open, begins after it    creation_misrecorded            report
    live            closed after it began    deletion_contradicted           report

    on a tenant that is         when                                  reason                     action
    --------------------------  ------------------------------------  -------------------------  ------
    live, open                  package on, latest is not enabled     skill_enable_unrecorded    append
    live, open                  latest is enabled, package off        skill_disable_unrecorded   append
    live, open                  suspended, latest is not suspended    suspension_unrecorded      append
    live, open                  running, latest is suspended          resumption_unrecorded      append
    being deleted, unstamped    package listed, without any event     skill_enable_unrecorded,   append,
                                                                      skill_open_after_deletion  append
    deleted, after its stamp    latest is enabled                     skill_open_after_deletion  append
    live, open                  row's org unknown, label set          org_resolved               update
    live                        no label                              org_unlabelled             report
    live, open                  today's payer and label differ        org_moved                  report
    any, unreadable too         latest event after now, or infinite   event_time_invalid         report
    any                         every run of an hour deferred it      tenant_restless            report
    any, and nothing else       its record is too long to be held     tenant_parked              report

Today's payer is whom a person decided on for this UTC day, else the row's org.

A row is of another tenant if the resource was created later than it begins, or if the name had another uid since then;
unless a person took the resource for the same tenant, or decided when the row begins while it was this one. Both allow
for the settle period, as a row may be that late, and for how far the clocks are apart.

A key whose latest event lies after now is left alone by every other rule. A run that writes also parks a tenant that
cannot be written, see `reconciler.db.apply`. Which tenants are restless, `reconciler.core.recheck` says.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from reconciler.core.model import FIRST, UNKNOWN_ORG, Finding
from reconciler.core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from reconciler.core.model import Event, Lifecycle, Observed, Recorded


class Case(NamedTuple):
    """One tenant: both sides, and what follows from them together."""

    observed: Observed | None
    """The resource; None if there is none, or if it cannot be read."""
    unreadable: str | None
    """Why the resource cannot be read; None if it can."""
    recorded: Recorded
    as_of: datetime
    """No recorded event may lie after this instant."""
    slack: timedelta = timedelta()
    """How far the row may begin from the creation."""

    @property
    def row(self) -> Lifecycle | None:
        """The lifecycle row."""
        return self.recorded.lifecycle

    @property
    def live(self) -> Observed | None:
        """The resource, if it exists and is not being deleted."""
        return self.observed if self.observed and not self.observed.deleting_at else None

    @property
    def open(self) -> Observed | None:
        """The live resource, if its row is open, and its own, or about to be inserted."""
        return self.live if (self.row is None or self.row.deleted_at is None) and not self.is_recreated else None

    @property
    def is_recreated(self) -> bool:
        """True if the resource is another tenant than the one of its row, which is open."""
        created_at = self.observed.created_at if self.observed else None
        is_decided = self.recorded.continues or self.recorded.start_is_decided
        if created_at is None or self.row is None or self.row.deleted_at or is_decided:
            return False
        is_another = self.recorded.follows and created_at != self.row.created_at
        return is_another or created_at > self.row.created_at + self.slack

    @property
    def gone(self) -> bool:
        """True if the tenant is absent or being deleted, and its row is closed or about to be stamped."""
        is_known = self.row is not None or self.observed is not None
        return self.live is None and self.unreadable is None and is_known and not self.is_recreated

    @property
    def org(self) -> str:
        """The organisation that rows are written with: the label of a live tenant, the row of one that is gone."""
        if self.row and not self.live:
            return self.row.org
        return (self.observed and self.observed.org) or UNKNOWN_ORG

    def usable(self, event: Event | None) -> bool:
        """True if a correction may follow the key's latest event."""
        return event is None or is_past(event, self.as_of)

    def finding(
        self,
        reason: Reason,
        recorded: str | None,
        observed: str | None,
        *,
        subject: str | None = None,
        supersedes: Event | None = None,
    ) -> Finding:
        """Return a finding about this tenant."""
        return Finding(reason, self.recorded.name, self.org, reason.action, subject, recorded, observed, supersedes)


class Comparison(NamedTuple):
    """What comparing the listed tenants with the ledger found, by tenant."""

    observed: Mapping[str, Observed | None]
    """The resource; None where the list has none of that name."""
    findings: Mapping[str, tuple[Finding, ...]]
    """The differences, dated; empty where there are none."""
    tenants_observed: int
    tenants_recorded: int
    """Lifecycle rows that are open."""
    ledger_is_empty: bool
    """True if there is no lifecycle row at all."""
    as_of: datetime
    """The database's clock when the ledger was read: what was listed had happened by then."""


def is_past(event: Event, as_of: datetime) -> bool:
    """True if the event lies in the past, but not infinitely far."""
    return FIRST < event.occurred_at <= as_of


def unreadable(case: Case) -> Iterator[Finding]:
    """The resource cannot be read. Nothing follows from that, least of all that the tenant is absent."""
    if case.unreadable is not None:
        state = "absent" if case.row is None else "deleted" if case.row.deleted_at else "open"
        yield case.finding(Reason.TENANT_UNREADABLE, state, case.unreadable)


def events_without_tenant(case: Case) -> Iterator[Finding]:
    """There are events, but neither a resource nor a row."""
    if case.observed is None and case.unreadable is None and case.row is None:
        yield case.finding(Reason.EVENTS_WITHOUT_TENANT, "events", "absent")


def unrecorded(case: Case) -> Iterator[Finding]:
    """The resource has no row."""
    if case.observed and case.row is None:
        yield case.finding(Reason.TENANT_UNRECORDED, "absent", "open")


def deletion_unrecorded(case: Case) -> Iterator[Finding]:
    """The tenant is absent or being deleted, and its row does not say so."""
    being_deleted = case.observed is not None and case.observed.deleting_at is not None
    stamped = case.row is not None and case.row.deleted_at is not None
    if (being_deleted or case.gone) and not stamped and not case.is_recreated:
        yield case.finding(Reason.DELETION_UNRECORDED, "open", "deleted")


def deletion_contradicted(case: Case) -> Iterator[Finding]:
    """The row is closed, but the resource is live."""
    if case.live and case.live.created_at and case.row and case.row.deleted_at:
        recreated = case.live.created_at > case.row.deleted_at
        reason = Reason.TENANT_RECREATED if recreated else Reason.DELETION_CONTRADICTED
        yield case.finding(reason, "deleted", "recreated" if recreated else "live")


def tenant_recreated(case: Case) -> Iterator[Finding]:
    """The row is open, and of a tenant that was deleted: the resource is another one of its name."""
    if case.is_recreated:
        yield case.finding(Reason.TENANT_RECREATED, "open", "recreated")


def creation_misrecorded(case: Case) -> Iterator[Finding]:
    """The row is open, and begins later than the tenant."""
    is_decided = case.recorded.start_is_decided
    if not is_decided and case.open and case.row and _is_older(case.open, case.row.created_at - case.slack):
        times = (case.row.created_at, case.open.created_at)
        recorded, observed = (f"{at:%Y-%m-%dT%H:%M:%SZ}" for at in times if at)
        yield case.finding(Reason.CREATION_MISRECORDED, recorded, observed)


def _is_older(observed: Observed, at: datetime) -> bool:
    return observed.created_at is not None and observed.created_at < at


def skills_differ(case: Case) -> Iterator[Finding]:
    """A package is on and not recorded as enabled, or off and recorded as enabled."""
    if case.open is None:
        return
    recorded = case.recorded.skills
    for skill in case.open.packages:
        event = recorded.get(skill)
        if case.usable(event) and not (event and event.kind == "enabled"):
            yield case.finding(Reason.SKILL_ENABLE_UNRECORDED, "disabled", "enabled", subject=skill, supersedes=event)
    for skill, event in recorded.items():
        if event.kind == "enabled" and skill not in case.open.packages and case.usable(event):
            yield case.finding(Reason.SKILL_DISABLE_UNRECORDED, "enabled", "disabled", subject=skill, supersedes=event)


def skills_on_until_deletion(case: Case) -> Iterator[Finding]:
    """The tenant is being deleted, and a package that it lists was never recorded: it was on, and is off by then.

    A package with an event was recorded as on, and the portal may have recorded it as off before the deletion.
    """
    is_unstamped = not (case.row and case.row.deleted_at) and not case.is_recreated
    if case.observed and case.observed.deleting_at and is_unstamped:
        for skill in case.observed.packages:
            if skill not in case.recorded.skills:
                yield case.finding(Reason.SKILL_ENABLE_UNRECORDED, "disabled", "enabled", subject=skill)
                # what it supersedes is the event before it, which has no id yet
                yield case.finding(Reason.SKILL_OPEN_AFTER_DELETION, "enabled", "disabled", subject=skill)


def skills_open_after_deletion(case: Case) -> Iterator[Finding]:
    """The tenant is gone, and a skill is still recorded as enabled."""
    if case.gone:
        for skill, event in case.recorded.skills.items():
            if event.kind == "enabled" and case.usable(event):
                after = Reason.SKILL_OPEN_AFTER_DELETION
                yield case.finding(after, "enabled", "disabled", subject=skill, supersedes=event)


def suspension_differs(case: Case) -> Iterator[Finding]:
    """The tenant is suspended and not recorded as such, or running and recorded as suspended."""
    event = case.recorded.suspension
    was_suspended = event is not None and event.kind == "suspended"
    if case.open is None or case.open.suspended == was_suspended or not case.usable(event):
        return
    if case.open.suspended:
        yield case.finding(Reason.SUSPENSION_UNRECORDED, "running", "suspended", supersedes=event)
    else:
        yield case.finding(Reason.RESUMPTION_UNRECORDED, "suspended", "running", supersedes=event)


def org_differs(case: Case) -> Iterator[Finding]:
    """The organisation is not labelled, was unknown until now, or is not the one that pays today."""
    recorded = case.row.org if case.row else None
    if case.live and case.live.org is None:
        yield case.finding(Reason.ORG_UNLABELLED, recorded, None)
    elif case.open:
        if recorded == UNKNOWN_ORG:
            yield case.finding(Reason.ORG_RESOLVED, UNKNOWN_ORG, case.open.org)
            recorded = None
        payer = recorded if case.recorded.payer is None else case.recorded.payer
        if payer is not None and payer != case.open.org:
            yield case.finding(Reason.ORG_MOVED, payer, case.open.org)


def event_time_invalid(case: Case) -> Iterator[Finding]:
    """A latest event lies after now: nothing written now could follow it."""
    suspension = case.recorded.suspension
    for subject, event in (*case.recorded.skills.items(), *([(None, suspension)] if suspension else [])):
        if not case.usable(event):
            recorded = f"{event.kind} at {event.occurred_at:%Y-%m-%dT%H:%M:%SZ}"
            yield case.finding(Reason.EVENT_TIME_INVALID, recorded, None, subject=subject, supersedes=event)


RULES: tuple[Callable[[Case], Iterator[Finding]], ...] = (
    unreadable,
    events_without_tenant,
    unrecorded,
    org_differs,
    skills_differ,
    suspension_differs,
    deletion_unrecorded,
    skills_on_until_deletion,
    skills_open_after_deletion,
    deletion_contradicted,
    tenant_recreated,
    creation_misrecorded,
    event_time_invalid,
)


def compare(
    observed: Observed | None,
    recorded: Recorded,
    *,
    as_of: datetime,
    tolerance: timedelta = timedelta(),
    settle: timedelta = timedelta(),
) -> Iterator[Finding]:
    """Yield how one tenant's resource and its record differ, in the order of `RULES`; nothing is dated yet.

    No recorded event may lie after `as_of`, the database's clock when the ledger was read; the API server's clock may
    be ahead of that by `tolerance`. A row may begin so far from the creation as `settle` and that together.
    """
    problem = (observed.problem or _out_of_time(observed, as_of + tolerance)) if observed else None
    case = Case(None if problem else observed, problem, recorded, as_of, settle + tolerance)
    if recorded.problem:
        yield case.finding(Reason.TENANT_PARKED, None, recorded.problem)
        return
    for rule in RULES:
        yield from rule(case)


def _out_of_time(observed: Observed, latest: datetime) -> str | None:
    """Return what is wrong with a resource that was created or deleted in the future; None if nothing is."""
    for name, time in (("creationTimestamp", observed.created_at), ("deletionTimestamp", observed.deleting_at)):
        if time and time > latest:
            return f"metadata.{name} lies in the future: {time:%Y-%m-%dT%H:%M:%SZ}"
    return None
