"""The vocabulary: what is observed, what is recorded, how they can differ, and what is done about it.

Everything here is a frozen value. Times are aware datetimes in UTC, amounts in CHF are `Decimal`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta
    from decimal import Decimal
    from uuid import UUID

    from reconciler.core.errors import Failure
    from reconciler.core.reasons import Reason

UNKNOWN_ORG = "unknown"
"""The organisation that rows are written with if the tenant carries no organisation label."""

FIRST = datetime(1, 1, 2, tzinfo=UTC)
LAST = datetime(9999, 12, 30, tzinfo=UTC)
"""Earlier and later times of PostgreSQL, the infinite ones too, are read as these: a datetime can hold no others."""
FIRST_KUBERNETES = datetime(2014, 6, 6, tzinfo=UTC)
"""The day of the first commit of Kubernetes: no resource is older."""

SNAPSHOT = "snapshot"
"""The identity of a source that is a file."""


class Action(enum.StrEnum):
    """What a run does about a finding. `report` and `defer` write nothing to the ledger."""

    INSERT = "insert"
    APPEND = "append"
    STAMP = "stamp"
    UPDATE = "update"
    REPORT = "report"
    DEFER = "defer"

    @property
    def writes(self) -> bool:
        """True if a run changes the ledger for it."""
        return self is not Action.REPORT and self is not Action.DEFER


class Evidence(enum.StrEnum):
    """What proves the moment of a correction, best first."""

    CHANGE_LOG = "change_log"
    DECIDED = "decided"
    CREATION = "creation"
    DELETION = "deletion"
    SUSPENDED_AT = "suspended_at"
    FIELD_MANAGER = "field_manager"
    NONE = "none"


class FallbackDating(enum.StrEnum):
    """How a correction without evidence is dated.

    `customer`: what starts to cost as late as possible, what stops costing as early as possible.
    `detected`: everything at the time of observation.
    """

    CUSTOMER = "customer"
    DETECTED = "detected"


class Mode(enum.StrEnum):
    """Whether a run may write."""

    PLAN = "plan"
    RUN = "run"


class Result(enum.StrEnum):
    """How a run ended."""

    CLEAN = "clean"
    CORRECTED = "corrected"
    DRIFT = "drift"
    BLOCKED = "blocked"
    FAILED = "failed"


class Table(enum.StrEnum):
    """The ledger's tables that corrections are written to."""

    LIFECYCLE = "tenant_billing_lifecycle"
    SKILL_EVENTS = "tenant_skill_events"
    SUSPENSION_EVENTS = "tenant_suspension_events"


class Observed(NamedTuple):
    """One PiecedTenant as the source showed it. A tuple, since a run makes one for every tenant.

    If `problem` is set, the custom resource is unreadable: only its name, namespace and uid can be relied on.
    """

    name: str
    namespace: str = ""
    uid: str | None = None
    problem: str | None = None
    org: str | None = None
    created_at: datetime | None = None
    deleting_at: datetime | None = None
    generation: int | None = None
    packages: tuple[str, ...] = ()
    """Sorted by code point, each once."""
    suspended: bool = False
    suspended_at: datetime | None = None
    last_modified_at: datetime | None = None
    """The newest time on it: creation, deletion or any write in managedFields. None if its writes carry no times."""
    packages_written_at: datetime | None = None
    """When the owner of spec.packages last wrote; None if managedFields cannot prove it."""
    suspend_written_at: datetime | None = None
    """When the owner of spec.suspend last wrote; None if managedFields cannot prove it."""
    suspend_is_set: bool = False
    """True if spec.suspend is a boolean: then the status, which moves no generation, decides nothing."""
    last_modified_by: str | None = None
    """The field manager that wrote last; None if its writes carry no times."""
    resource_version: str | None = None
    """Which version of the resource it is."""


class Event(NamedTuple):
    """A recorded event of one key: a skill of a tenant, or its suspension."""

    id: int
    kind: str
    occurred_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifecycle:
    """A tenant's row in tenant_billing_lifecycle; open while `deleted_at` is None."""

    org: str
    created_at: datetime
    deleted_at: datetime | None = None


class Moment(NamedTuple):
    """When a change happened: the moment chosen, inside the interval that it must lie in, and what proves it."""

    occurred_at: datetime
    not_before: datetime
    not_after: datetime
    evidence: Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What the ledger says of one tenant: its lifecycle row and the latest event of every key."""

    name: str
    lifecycle: Lifecycle | None = None
    skills: Mapping[str, Event] = field(default_factory=dict)
    suspension: Event | None = None
    follows: bool = False
    """True if its name had another uid since the row began: the resource is another tenant than the row's."""
    continues: bool = False
    """True if the resource has another uid, and a person took it for the row's own tenant."""
    start_is_decided: bool = False
    """True if a person decided when the row begins, while its name had the uid of the resource."""
    payer: str | None = None
    """Who pays today, where a person decided that; None: the organisation of the row does."""
    verified_at: datetime | None = None
    """Up to when this tenant is proved: the start of the last run that found it true, less its settle or this run's."""
    problem: str | None = None
    """Why its record cannot be held in memory; None if it can. If it is set, nothing but the name can be relied on."""


class Finding(NamedTuple):
    """One difference between the cluster and the ledger, and what is done about it.

    A tuple, since there may be hundreds of thousands: making one is several times as fast as making a dataclass.
    """

    reason: Reason
    tenant: str
    org: str
    action: Action
    subject: str | None = None
    """The skill id; None if the finding is about the tenant as a whole."""
    recorded: str | None = None
    observed: str | None = None
    supersedes: Event | None = None
    """The latest recorded event of the key; a correction must not precede it."""
    moment: Moment | None = None
    closed_period: bool = False
    accepted_until: datetime | None = None
    """Until when people accept the report; None if they do not, or if it is not a report."""
    changing: bool = False
    """True if it is deferred because its tenant changed between the two looks, not because a row came meanwhile."""
    interval: tuple[datetime, datetime] | None = None
    """When a change that is missing, and left to a person, must have happened; None if it is about something else."""
    newest_id: int | None = None
    """The highest id of its key when an event in its past was decided on, 0 for a key without events; None if the
    latest event is corrected."""
    shown_by: tuple[str, str] | None = None
    """The uid and the resourceVersion of the version in the change log that showed the change."""
    decision: int | None = None
    """The number of the decision that it belongs to; None if a person decided nothing about it."""
    takes_back: int | None = None
    """The id of the event that it takes back, if no correction wrote that."""
    impact_chf: Decimal | None = None
    """The impact of the correction. Positive: revenue that was being lost. Negative: a customer was overcharged."""
    impact_range: tuple[Decimal, Decimal] | None = None
    """The impact at either end of its interval, the lower amount first; None if they are the same."""

    def dated(self, moment: Moment) -> Finding:
        """Return it with its moment, before anything else is known of it: `_replace` takes twice as long."""
        return Finding(*self[:8], moment)

    def deferred(self, *, changing: bool = False) -> Finding:
        """Return it as one that is shown, and left for a later run; `changing` is kept where it was set before."""
        return self._replace(
            action=Action.DEFER,
            moment=None,
            closed_period=False,
            accepted_until=None,
            changing=changing or self.changing,
            impact_chf=None,
            impact_range=None,
        )

    @property
    def table(self) -> Table | None:
        """The table that it is written to; None if it is left to a person. An event without a skill is a suspension."""
        table = self.reason.table
        return Table.SUSPENSION_EVENTS if table is Table.SKILL_EVENTS and self.subject is None else table

    @property
    def event_kind(self) -> str | None:
        """The kind of the event that corrects it; None if no event is appended."""
        return event_kind(self.reason, self.observed)

    def with_impact(self, impact: Decimal, between: tuple[Decimal, Decimal] | None = None) -> Finding:
        """Return it with its impact, and the impact at either end of its interval."""
        return Finding(*self[:-2], impact, between)

    @property
    def is_drift(self) -> bool:
        """True if people should be notified of it: it is neither deferred nor accepted."""
        return self.action is not Action.DEFER and self.accepted_until is None


STATES = {"enabled": "enabled", "disabled": "disabled", "suspended": "suspended", "resumed": "running"}
"""How the state is called that an event of each kind begins."""
LEFT_OUT = "left out"
"""In the place of a state: an event in the future that was taken back, and has none that follows it."""


def event_kind(reason: Reason, observed: str | None) -> str | None:
    """Return the kind of the event that corrects it: the reason's, or where that depends, that of the state."""
    if reason.event_kind is None and reason.action is Action.APPEND:
        return next((kind for kind, state in STATES.items() if state == observed), None)
    return reason.event_kind


class Listing(NamedTuple):
    """What is known of a list of tenants, once it is known to be complete."""

    source: str
    resource_version: str | None = None
    server_time: datetime | None = None
    """The API server's clock when it sent the first page."""
    read_at: float = 0.0
    """When that page was read, in seconds of `time.monotonic`."""
    changed: Changed | None = None
    """What was read in place of all tenants; None if they were listed."""
    log: Callable[[], ChangeLog] | None = None
    """Waits for the change log up to this list; None if nobody reads it."""


StartLog = Callable[[str], Callable[[], "ChangeLog"]]
"""Starts to read the change log up to a resourceVersion, and returns what waits for it."""


class Compared(enum.StrEnum):
    """Which tenants a run compares with the ledger."""

    ALL = "all"
    CHANGED = "changed"
    """Those that have changed since the run before, and those that were in doubt then."""


class Since(NamedTuple):
    """What a run starts from that compares only what has changed."""

    due: Mapping[str, str | None]
    """The tenants that are compared even if they have not changed, each with its resourceVersion there, if known."""
    tenants_recorded: int
    """Lifecycle rows that were open when all tenants were compared last."""


class Changed(NamedTuple):
    """What a run knows that reads only what has changed."""

    names: frozenset[str]
    """The tenants that could differ from the ledger."""
    tenants_observed: int
    tenants_recorded: int


class LogRead(enum.StrEnum):
    """How far a run could read the change log."""

    REACHED = "reached"
    """Up to the list."""
    PARTLY = "partly"
    """Not up to the list: the next run goes on from there."""
    LOST = "lost"
    """Not at all: the API server has forgotten it, or the role may not read it."""
    NONE = "none"
    """A file has none."""


class VersionKind(enum.StrEnum):
    """What the change log says that happened to a tenant."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


class Version(NamedTuple):
    """One version of a tenant, as the change log showed it."""

    kind: VersionKind
    observed: Observed


class ChangeLog(NamedTuple):
    """What was read of the change log."""

    read: LogRead = LogRead.NONE
    position: str | None = None
    """The resourceVersion up to which it was read; None if it was not."""
    versions: tuple[Version, ...] = ()
    """In their order."""
    problem: str | None = None
    """Why it was not read up to the list."""


class HistoryRead(NamedTuple):
    """What a run learned of the time since the run before."""

    log: LogRead = LogRead.NONE
    seconds: int | None = None
    """Between the two lists; None if there was none before."""
    changes: int = 0
    """Which the log showed."""
    waiting: int = 0
    """Changes of which the row may still come."""
    gaps: int = 0
    """How many tenants have time of which it is not proven what happened."""


class Spool(Protocol):
    """Where a source puts the tenants that it lists."""

    def add(self, tenant: Observed, /) -> None:
        """Add one tenant."""

    def restart(self) -> None:
        """Remove every tenant that was added: the list starts again."""


class Source(Protocol):
    """Where the tenants are listed: a cluster, or a file."""

    @property
    def is_live(self) -> bool:
        """True for a cluster, False for a file, which cannot change during a run."""

    @property
    def namespaced(self) -> bool:
        """True if a tenant may be in one of many namespaces."""

    def identity(self) -> str:
        """Return what identifies this source."""

    def observe(self, spool: Spool, start_log: StartLog | None = None, /) -> Listing:
        """Put every tenant into the spool, or raise; start to read the change log as soon as the list has a version."""

    def head(self) -> tuple[Listing, int] | None:
        """Return what is known of a list of all tenants, and how many there are, by listing one; None: not that."""

    def get(self, name: str, namespace: str | None) -> Observed | None:
        """Read one tenant again; None if there is none of that name."""

    def read_log(self, position: str, until: str) -> ChangeLog:
        """Read what happened after one resourceVersion and up to another."""


class Report(NamedTuple):
    """What identifies a report across runs: a finding that a person must look at, or a run that was stopped."""

    tenant: str
    """Empty if it is about the run itself."""
    reason: str
    subject: str = ""


class Total(NamedTuple):
    """All corrections for one reason, by all runs."""

    corrections: int
    positive_chf: Decimal
    """Revenue that was being lost."""
    negative_chf: Decimal
    """What customers were being overcharged, as a negative amount."""
    from_log: int = 0
    """How many of them the change log showed."""


class Owed(NamedTuple):
    """The corrections of an earlier run that some recipients of alerts were never notified of."""

    run_id: UUID
    recipients: frozenset[str]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one run saw and did: output, alerts and the run's row are made of it."""

    run_id: UUID
    mode: Mode
    result: Result
    settle: timedelta | None = None
    """How long after a change of a resource the portal could still write its row, as the run was told."""
    history: HistoryRead = field(default_factory=HistoryRead)
    names: frozenset[str] | None = None
    """The tenants that it compared; None: all of them."""
    unproven: frozenset[str] = frozenset()
    """The tenants of which only a later change log can show what happened up to this list."""
    observed_at: datetime | None = None
    source: str | None = None
    resource_version: str | None = None
    tenants_observed: int = 0
    tenants_recorded: int = 0
    findings: tuple[Finding, ...] = ()
    failure: Failure | None = None
    seconds: float = 0.0
    """How long the run took."""
    verified_until: datetime | None = None
    """Up to when the run has proved the ledger, except for the tenants that it reports or defers; None if it did not
    compare all tenants."""
    observed: Mapping[str, Observed] = field(default_factory=dict)
    """The resources of the tenants that findings are about, by name."""
    totals: Mapping[Reason, Total] = field(default_factory=dict)
    """All corrections by all runs, this one included."""
    notified: Mapping[str, frozenset[Report]] = field(default_factory=dict)
    """By the name of a sink: the reports that it was notified of within a day and that have not changed since."""
    recipients: tuple[str, ...] = ()
    """The names of all sinks that are notified of the run."""
    owed: tuple[Owed, ...] = ()
    """What these recipients were never notified of, the earliest run first: it died, or a sink failed."""
    recorded: bool = False
    """True if the ledger has the run's own row."""

    @property
    def compared(self) -> Compared:
        """Which tenants it compared."""
        return Compared.ALL if self.names is None else Compared.CHANGED

    @property
    def news(self) -> tuple[Finding, ...]:
        """What people are notified of: the findings of a run that was not stopped, and what is owed."""
        return sum((run.findings for run in self.owed), () if self.failure else self.findings)

    @property
    def impact_chf(self) -> Decimal | None:
        """The impact of the run's corrections together; None if none of them is priced."""
        known = [f.impact_chf for f in self.findings if f.impact_chf is not None and f.action.writes]
        return sum(known[1:], known[0]) if known else None
