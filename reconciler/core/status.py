"""How things stand: up to when the ledger is verified and for whom it is not, what is open, how the last runs went."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from reconciler.core.model import Action, Result

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from reconciler.core.certificate import Certificate
    from reconciler.core.closing import ClosedMonth


class Unverified(NamedTuple):
    """A tenant that the last run could not prove."""

    tenant: str
    verified_until: datetime | None
    """Up to when an earlier run proved it; None: no recent one did."""


class OpenReport(NamedTuple):
    """What the last run left to a person."""

    tenant: str
    """Empty where the report is about the runs themselves: the last one was stopped."""
    reason: str
    subject: str
    """The skill; empty where the report is about the tenant as a whole."""
    org: str | None
    recorded: str | None
    observed: str | None
    since: datetime
    accepted_until: datetime | None


class Exemption(NamedTuple):
    """A tenant's reports of one reason that people accept for a time, or did."""

    tenant: str
    reason: str
    note: str
    created_by: str
    created_at: datetime
    expires_at: datetime
    expired: bool


class TakenBack(NamedTuple):
    """A correction that an unknown hand undid."""

    id: int
    """Its number in `reconciler.corrections`."""
    tenant: str
    reason: str
    subject: str | None
    written_at: datetime
    """The time of the run that wrote it."""
    taken_back_at: datetime | None
    """When a run noticed, and wrote it again; None: no run did."""
    difference: str | None
    """What the ledger shows in its place now; None: the row has been written again as it was."""


class Decided(NamedTuple):
    """What a person decided of the past."""

    number: int
    tenant: str
    subject: str | None
    """The skill; None where it is about the tenant as a whole."""
    reason: str
    said: str
    """The state; who pays; when the tenant lived; or what was taken back."""
    from_at: datetime
    until_at: datetime | None
    """The same where something was taken back; None: on and on."""
    by: str
    decided_at: datetime
    note: str
    upheld: int
    """Rows that runs have appended since, so that it stands against later ones."""
    taken_back: str | None
    """Who took it back: a number, or an unknown hand; None: it stands."""


class OwedNotification(NamedTuple):
    """That a recipient was never notified of what a run corrected."""

    run_id: UUID
    recipient: str
    since: datetime
    """When that run ended."""


class LastDay(NamedTuple):
    """How far the runs over the cluster could read the change log, those of the last 24 h."""

    runs: int = 0
    """Those that had a list before theirs."""
    reached: int = 0
    partly: int = 0
    lost: int = 0
    seconds: int | None = None
    """How many lay between two lists, as a rule: half of them were as close or closer."""
    most_seconds: int | None = None
    waiting: int = 0
    """Changes whose row could still come after the last of these runs."""


class Corrected(NamedTuple):
    """How many rows were corrected on a UTC day."""

    day: date
    corrections: int


class Run(NamedTuple):
    """One run."""

    run_id: UUID
    started_at: datetime
    finished_at: datetime
    outcome: str
    source: str | None
    tenants_observed: int
    tenants_recorded: int
    counts: Mapping[str, Mapping[str, int]]
    """Findings by reason and action. A stopped run only would have acted."""
    error: str | None
    compared: str = "all"
    """Or `changed`: only the tenants that had changed or were in doubt."""

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (self.finished_at - self.started_at).total_seconds()

    @property
    def is_stopped(self) -> bool:
        """True if it wrote nothing and proved nothing."""
        return self.outcome in {Result.BLOCKED, Result.FAILED}

    def findings(self, *actions: Action) -> int:
        """Return how many of its findings have one of these actions."""
        return sum(done.get(action, 0) for done in self.counts.values() for action in actions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How things stand, at `as_of` by the database's clock. Long lists are read in part; their counts are complete."""

    as_of: datetime
    verified_until: datetime | None = None
    """The beginning of the last run that compared all tenants of a cluster, less settle; None: there is none yet."""
    changes_until: datetime | None = None
    """The same of the last run of all: it may have compared only what had changed."""
    last_month: Certificate
    """Whether the last month that ended can be invoiced: no later run dates a correction inside it."""
    history: LastDay = field(default_factory=LastDay)
    unverified: tuple[Unverified, ...] = ()
    """By name."""
    unverified_count: int = 0
    reports: tuple[OpenReport, ...] = ()
    """The latest first."""
    reports_count: int = 0
    exceptions: tuple[Exemption, ...] = ()
    """The first to expire first; those that expired lately are among them."""
    exceptions_count: int = 0
    taken_back: tuple[TakenBack, ...] = ()
    """Among the latest corrections: first what no run has noticed, then the latest first."""
    taken_back_count: int = 0
    decisions: tuple[Decided, ...] = ()
    """Of the last weeks, the latest first."""
    decisions_count: int = 0
    owed: tuple[OwedNotification, ...] = ()
    """The longest first."""
    owed_count: int = 0
    closed_months: tuple[ClosedMonth, ...] = ()
    """The latest first."""
    corrections: tuple[Corrected, ...] = ()
    """A count for each of the last UTC days, today the last of them."""
    runs: tuple[Run, ...] = ()
    """The latest first, without those that began after `as_of`."""
    future_runs: int = 0
    """How many runs observed after `as_of`: the database's clock was ahead, and they prove nothing."""
    future_runs_until: datetime | None = None
    """When the last of them did."""


def last_month(as_of: datetime) -> date:
    """Return the first day of the last month that ended, in UTC."""
    return (as_of.astimezone(UTC).replace(day=1) - timedelta(days=1)).date().replace(day=1)
