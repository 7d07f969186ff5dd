"""One pass, in order. This is the only module that knows it.

Observe the tenants, recall what the ledger says of them, compare the two, weigh the evidence, look again at what is in
doubt, plan, check the brake, value what is to be corrected, apply, tell people.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from itertools import groupby, islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID, uuid4

import structlog
from psycopg.types.json import Jsonb

from reconciler import __version__
from reconciler.alerts import Alerts, stopped
from reconciler.core.billing import concerned, valued
from reconciler.core.compare import compare
from reconciler.core.dating import ROUNDING, Dating
from reconciler.core.errors import Failure, Refusal
from reconciler.core.model import LAST, Action, FallbackDating, Finding, Listing, Mode, Outcome, Report, Result, Total
from reconciler.core.plan import Limits, Plan, planned, refuse_empty
from reconciler.core.reasons import Reason
from reconciler.db.apply import apply, deferred, last_look
from reconciler.db.candidates import TenantSpool, find_candidates
from reconciler.db.connection import LedgerUnreachable, connect, transaction
from reconciler.db.queries import query
from reconciler.db.usage import histories, prices

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    import psycopg

    from reconciler.core.model import Observed, Source
    from reconciler.deadline import Deadline

CLOCKS_APART = timedelta(seconds=5)
"""A difference between the API server's clock and the database's that is warned about."""
RECORD_LIMIT = 1.0
"""Seconds that the row of a failed run may wait for anything: the deadline may be over already."""
ONE_BY_ONE = 20
"""Tenants in doubt that are read again one by one, however few there are in all."""
REQUEST_COST = 20
"""What a request for one tenant is taken to cost, in tenants of a list: 8 where the API server is near."""
AT_ONCE = 500
"""Tenants whose histories are held in memory at a time, to value what is corrected of them."""

_log = structlog.get_logger(__name__)


class OtherSource(Refusal):
    """The ledger belongs to another source."""


class StaleList(Refusal):
    """The list is older than one that an earlier run has seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a pass is to be made.

    Attributes:
        mode: whether it may write.
        settle: how long after the resource the portal may still write its row.
        uncertain: how a correction without evidence is dated.
        limits: the brake.
        accept_source: whether another source than the pinned one is taken, and pinned.
    """

    mode: Mode = Mode.RUN
    settle: timedelta = timedelta(seconds=60)
    uncertain: FallbackDating = FallbackDating.CUSTOMER
    limits: Limits = field(default_factory=Limits)
    accept_source: bool = False


class _Look(NamedTuple):
    """What one look at the tenants and the ledger found, by tenant."""

    observed: dict[str, Observed | None]
    findings: dict[str, tuple[Finding, ...]]
    tenants_observed: int
    tenants_recorded: int
    ledger_is_empty: bool
    as_of: datetime
    """The database's clock when the ledger was asked: what the look showed had happened by then."""


@dataclass(slots=True, kw_only=True)
class Pass:
    """One pass over the tenants.

    Attributes:
        database_url: the ledger.
        source: where the tenants are observed.
        terms: how the pass is to be made.
        deadline: when it must end; to tell people of it comes after that.
        alerts: who is told of it; of a plan nobody is.
        sleep: waits that many seconds.
    """

    database_url: str = field(repr=False)
    source: Source
    terms: RunOptions
    deadline: Deadline
    alerts: Alerts = field(default_factory=Alerts)
    sleep: Callable[[float], object] = time.sleep

    _run_id: UUID = field(default_factory=uuid4, init=False)
    _began: float = field(default=0.0, init=False)
    """In seconds of `time.monotonic`."""
    _observed_at: datetime | None = field(default=None, init=False)
    _listing: Listing | None = field(default=None, init=False)
    _tolerance: timedelta = field(default=ROUNDING, init=False)
    _plan: Plan | None = field(default=None, init=False)
    _observed: dict[str, Observed] = field(default_factory=dict, init=False)
    _recorded: bool = field(default=False, init=False)

    def execute(self) -> Outcome:
        """Make the pass. What stopped it is in the outcome, and in the ledger where that can be reached."""
        if self.terms.mode is Mode.PLAN:
            return self._made()
        self.alerts.begin(self._run_id)
        outcome = self._made()
        told = self.alerts.tell(outcome)
        if told and self._recorded:
            self._remember(told)
        return outcome

    def _made(self) -> Outcome:
        self._began = time.monotonic()
        try:
            with closing(connect(self.database_url)) as ledger:
                outcome = self._execute(ledger)
        except Failure as failure:
            blocked = isinstance(failure, Refusal)
            outcome = self._outcome(Result.BLOCKED if blocked else Result.FAILED, failure)
            outcome = self._record_failure(outcome)
        return replace(outcome, seconds=self._seconds())

    def _execute(self, ledger: psycopg.Connection[Any]) -> Outcome:
        self._observed_at, pinned = self._begin(ledger)
        began = time.monotonic()
        with TenantSpool() as spool:
            self._listing = self._observe(spool, pinned, accept=self.terms.accept_source)
            self._measure_clocks(self._listing, began)
            look = self._look(ledger, spool, self._observed_at)
        self._plan = planned(
            self._seen_twice(ledger, look),
            tenants_observed=look.tenants_observed,
            tenants_recorded=look.tenants_recorded,
            ledger_is_empty=look.ledger_is_empty,
        )
        self._observed = {f.tenant: seen for f in self._plan.findings if (seen := look.observed.get(f.tenant))}
        self._plan.check(self.terms.limits)
        self._plan = self._valued(ledger, self._plan, self._observed_at)
        if self.terms.mode is Mode.PLAN:
            return self._outcome(self._plan.result(Mode.PLAN))
        return self._write(ledger, self._plan)

    def _seconds(self) -> float:
        """Return for how long the pass has been made."""
        return time.monotonic() - self._began

    def _begin(self, ledger: psycopg.Connection[Any]) -> tuple[datetime, Listing | None]:
        """Return when the observation begins, and which list of which source the last run saw."""
        with transaction(ledger, self.deadline.left()) as cursor:
            pinned = cursor.execute(query("source")).fetchone()
            return _clock(cursor), pinned and Listing(*pinned)

    def _observe(self, spool: TenantSpool, last: Listing | None, *, accept: bool) -> Listing:
        """Spool the whole list: of the same source as the last one, and no older."""
        identity = self.source.identity()
        if last and last.source != identity and not accept:
            raise OtherSource(
                f"The ledger belongs to the source {last.source}, and this is {identity}.",
                "Nothing was written. Is it the right cluster and the right database? If the ledger is to follow this "
                "source from now on, say so once with --accept-source.",
            )
        listing = self.source.observe(spool)
        if listing.source != identity:
            raise OtherSource(
                "The API server's address led to two clusters during one run.",
                "Nothing was written. Look at the load balancer in front of it.",
            )
        if last and not accept and _is_older(listing.resource_version, last.resource_version):
            raise StaleList(
                f"The list is of resourceVersion {listing.resource_version}; {last.resource_version} was seen before.",
                "Nothing was written: the API server is behind, or its etcd was restored. If it was restored, say so "
                "once with --accept-source.",
            )
        facts = {"resource_version": listing.resource_version, "seconds": round(self._seconds(), 3)}
        _log.info("tenants.observed", source=identity, **facts)
        return listing

    def _measure_clocks(self, listing: Listing, began: float) -> None:
        """Find out how far the API server's clock and the database's are apart."""
        if listing.server_time and self._observed_at:
            apart = abs(listing.server_time - self._observed_at - timedelta(seconds=listing.read_at - began))
            self._tolerance = ROUNDING + apart
            if apart > CLOCKS_APART:
                _log.warning("clocks.apart", seconds=round(apart.total_seconds()), meaning="evidence is less exact")

    def _look(
        self,
        ledger: psycopg.Connection[Any],
        spool: TenantSpool,
        happened_by: datetime,
        names: Collection[str] | None = None,
    ) -> _Look:
        """Hold what was observed against the ledger: of all tenants those that differ, or these tenants alone."""
        observed: dict[str, Observed | None] = {}
        findings: dict[str, tuple[Finding, ...]] = {}
        dating = Dating(observed_at=happened_by, tolerance=self._tolerance, uncertain=self.terms.uncertain)
        with transaction(ledger, self.deadline.left()) as cursor:
            recalled = find_candidates(cursor, spool, settle=self.terms.settle, names=names, everyone=names is not None)
            for pair in recalled.pairs:
                found = compare(*pair, as_of=recalled.as_of, tolerance=self._tolerance)
                observed[pair.recorded.name] = pair.observed
                findings[pair.recorded.name] = tuple(dating.dated(found, *pair))
            closed = _invoiced_periods(cursor, findings)
            accepted = {
                (name, reason): until for name, reason, until in cursor.execute(query("accepted"), {"last": LAST})
            }
        if closed or accepted:
            findings = {name: tuple(_marked(f, closed, accepted) for f in found) for name, found in findings.items()}
        return _Look(observed, findings, *recalled[1:])

    def _seen_twice(self, ledger: psycopg.Connection[Any], first: _Look) -> Iterator[Finding]:
        """Yield the findings that count, and as deferred those that may be the portal's row still on its way."""
        doubted = [name for name in first.findings if self._is_doubted(first, name)]
        second = self._look_again(ledger, first, doubted) if doubted else None
        unsure = frozenset(doubted)
        for name, findings in first.findings.items():
            if second is None or name not in unsure:
                yield from findings
            else:
                still = _is_still(first.observed[name], second.observed.get(name))
                yield from _confirmed(findings, second.findings.get(name, ()), still=still)

    def _is_doubted(self, look: _Look, name: str) -> bool:
        """Whether a tenant that differs must be looked at again: it is absent, or not quiet."""
        observed, findings = look.observed[name], look.findings[name]
        if not self.source.is_live or not findings or (observed and observed.problem):
            return False
        if (
            observed is None
            or observed.last_modified_at is None
            or self._listing is None
            or not self._listing.server_time
        ):
            return True
        if any(_is_undated(finding.reason, observed) for finding in findings):
            return True
        # the ledger may know of a later change than the resource shows: then what was read may be stale
        news = max((finding.supersedes.occurred_at for finding in findings if finding.supersedes), default=None)
        quiet_since = self._listing.server_time - self.terms.settle - ROUNDING
        return observed.last_modified_at > quiet_since or (
            news is not None and news > observed.last_modified_at + ROUNDING
        )

    def _look_again(self, ledger: psycopg.Connection[Any], first: _Look, doubted: list[str]) -> _Look:
        """Wait until the portal's rows must have come, then read these tenants and the ledger once more."""
        _log.info("tenants.doubted", tenants=len(doubted), settle_seconds=self.terms.settle.total_seconds())
        self.sleep(min(self.terms.settle.total_seconds(), self.deadline.left()))
        with TenantSpool() as spool:
            many = self._is_sooner_listed(first, doubted)
            if many:
                self._listing = self._observe(spool, self._listing, accept=False)
            for name in [] if many else doubted:
                before = first.observed[name]
                if again := self.source.get(name, before.namespace if before else None):
                    spool.add(again)
            # what counts is what the first look showed too: by its end, it had happened
            second = self._look(ledger, spool, first.as_of, doubted)
        if many:
            refuse_empty(second.tenants_observed, second.tenants_recorded)
        return second

    def _is_sooner_listed(self, look: _Look, names: list[str]) -> bool:
        """Whether one more list takes the API server less than a request for each of these tenants."""
        # to find one whose namespace is not known, the API server reads them all
        lost = sum(look.observed[name] is None for name in names) if self.source.namespaced else 0
        return lost > 1 or len(names) > max(ONE_BY_ONE, look.tenants_observed // REQUEST_COST)

    def _valued(self, ledger: psycopg.Connection[Any], plan: Plan, as_of: datetime) -> Plan:
        """Return the plan with what each of its corrections is worth, up to the observation and at today's prices."""
        if not plan.corrections:
            return plan
        findings: list[Finding] = []
        by_tenant = ((name, tuple(found)) for name, found in groupby(plan.findings, attrgetter("tenant")))
        with transaction(ledger, self.deadline.left()) as cursor:
            today = prices(cursor)
            while some := dict(islice(by_tenant, AT_ONCE)):
                corrections = [finding for found in some.values() for finding in found if finding.action.writes]
                known = histories(cursor, *concerned(corrections))
                for name, found in some.items():
                    findings += valued(found, known[name], today, as_of) if name in known else found
        return replace(plan, findings=tuple(findings))

    def _write(self, ledger: psycopg.Connection[Any], plan: Plan) -> Outcome:
        """Write the plan and the run's own row, in one transaction."""
        outcome = None
        try:
            with transaction(ledger, self.deadline.left()) as cursor:
                self._plan = plan = last_look(cursor, plan)
                outcome = self._outcome(plan.result(self.terms.mode))
                apply(cursor, plan, _row(outcome))
                cursor.execute(
                    query("pin_source"), {"identity": outcome.source, "resource_version": outcome.resource_version}
                )
                outcome = _with_memory(cursor, outcome)
                self.deadline.left()
        except LedgerUnreachable:
            if outcome is None or not self._is_committed():
                raise
            _log.warning("commit.unanswered", run_id=str(self._run_id), meaning="the run's row says it was committed")
        self._recorded = True
        return outcome

    def _is_committed(self) -> bool:
        """Whether the transaction was committed whose end was not answered: only the run's own row can tell."""
        try:
            with closing(connect(self.database_url)) as ledger, transaction(ledger) as cursor:
                # the lost session may be committing still: it holds the lock until it has ended
                cursor.execute(query("lock"))
                return cursor.execute(query("run_outcome"), {"id": self._run_id}).fetchone() is not None
        except Failure as failure:
            raise LedgerUnreachable(
                f"The connection was lost while the run was being written, and cannot be had again: {failure}",
                f"The run was written, whole, if reconciler.runs has a row {self._run_id}, and else not at all. "
                "To run again is safe in either case.",
            ) from failure

    def _record_failure(self, outcome: Outcome) -> Outcome:
        """Leave a row that says what stopped the run, where the ledger can be reached and takes it."""
        if outcome.mode is Mode.PLAN or outcome.observed_at is None:
            return outcome
        try:
            with closing(connect(self.database_url)) as ledger, transaction(ledger, RECORD_LIMIT) as cursor:
                cursor.execute(query("record_run"), _row(outcome))
                kind = type(outcome.failure).__name__
                cursor.execute(query("keep_stop"), {"reason": stopped(outcome).reason, "observed": kind})
                outcome = _with_memory(cursor, outcome)
            self._recorded = True
        except Failure as failure:
            _log.warning("run.unrecorded", error=str(failure))
        return outcome

    def _remember(self, told: Mapping[str, tuple[Report, ...]]) -> None:
        """Keep who was told of which report. What cannot be kept is told again by the next pass."""
        try:
            with closing(connect(self.database_url)) as ledger, transaction(ledger, RECORD_LIMIT) as cursor:
                for sink, reports in told.items():
                    tenants, reasons, subjects = zip(*reports, strict=True)
                    columns = {"tenants": [*tenants], "reasons": [*reasons], "subjects": [*subjects]}
                    cursor.execute(query("tell"), {"sink": sink, **columns})
        except Failure as failure:
            _log.warning("alerts.forgotten", error=str(failure), meaning="the next pass tells of the same again")

    def _outcome(self, result: Result, failure: Failure | None = None) -> Outcome:
        plan = self._plan
        return Outcome(
            run_id=self._run_id,
            mode=self.terms.mode,
            result=result,
            observed_at=self._observed_at,
            source=self._listing and self._listing.source,
            resource_version=self._listing and self._listing.resource_version,
            tenants_observed=plan.tenants_observed if plan else 0,
            tenants_recorded=plan.tenants_recorded if plan else 0,
            findings=plan.findings if plan else (),
            failure=failure,
            verified_until=self._verified_until() if failure is None else None,
            observed=self._observed,
        )

    def _verified_until(self) -> datetime | None:
        """Return up to when a run that succeeds has proved the ledger: rows of younger changes may be on their way."""
        if self.terms.mode is Mode.PLAN or not self.source.is_live or self._observed_at is None:
            return None
        return self._observed_at - self.terms.settle


def _clock(cursor: psycopg.Cursor[Any]) -> datetime:
    (now,) = cursor.execute(query("clock")).fetchone() or (None,)
    assert isinstance(now, datetime)  # noqa: S101 - the query returns one
    return now


def _is_older(version: str | None, last: str | None) -> bool:
    # comparable as integers: https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions
    return bool(version and last and version.isdecimal() and last.isdecimal() and int(version) < int(last))


def _is_undated(reason: Reason, observed: Observed) -> bool:
    """Whether the change may have moved no time on the resource: the removal of a field, or of a set's member."""
    if reason in {Reason.SKILL_ENABLE_UNRECORDED, Reason.SKILL_DISABLE_UNRECORDED}:
        return observed.packages_written_at is None
    return reason is Reason.RESUMPTION_UNRECORDED and observed.suspend_written_at is None


def _is_still(first: Observed | None, second: Observed | None) -> bool:
    """Whether the resource is the same one, and its spec has not changed meanwhile."""
    if first is None or second is None:
        return first is second
    return (first.uid, first.generation, first.deleting_at) == (second.uid, second.generation, second.deleting_at)


def _confirmed(first: tuple[Finding, ...], second: tuple[Finding, ...], *, still: bool) -> Iterator[Finding]:
    """Yield what both looks found, and as deferred what only one of them did."""
    seen = {_drift(finding) for finding in first} if still else set()
    for finding in second:
        yield finding if _drift(finding) in seen else deferred(finding)
    found_again = {_drift(finding) for finding in second}
    yield from (deferred(finding) for finding in first if _drift(finding) not in found_again)


def _drift(finding: Finding) -> tuple[object, ...]:
    """Return what makes a finding the same at both looks."""
    return finding.reason, finding.subject, finding.recorded, finding.observed, finding.supersedes


def _invoiced_periods(
    cursor: psycopg.Cursor[Any], findings: Mapping[str, tuple[Finding, ...]]
) -> dict[str, list[tuple[date, date]]]:
    """Return the invoiced periods, first and last UTC day, of the organisations that corrections are written for."""
    orgs = {finding.org for found in findings.values() for finding in found if finding.moment}
    periods: dict[str, list[tuple[date, date]]] = {}
    if orgs:
        for org, start, end in cursor.execute(query("invoiced_periods"), {"orgs": sorted(orgs)}):
            periods.setdefault(org, []).append((start, end))
    return periods


def _marked(
    finding: Finding, closed: Mapping[str, list[tuple[date, date]]], accepted: Mapping[tuple[str, str], datetime]
) -> Finding:
    """Return the finding, marked where it is dated inside a month that was invoiced, or a report that is accepted."""
    if finding.action is Action.REPORT:
        return finding._replace(accepted_until=accepted.get((finding.tenant, finding.reason)))
    if finding.moment is None:
        return finding
    day = finding.moment.occurred_at.astimezone(UTC).date()
    return finding._replace(closed_period=any(start <= day <= end for start, end in closed.get(finding.org, ())))


def _with_memory(cursor: psycopg.Cursor[Any], outcome: Outcome) -> Outcome:
    """Return the outcome with what the ledger remembers of all passes: the corrections, and who was told of what."""
    known = {*Reason}
    totals = {Reason(reason): Total(*total) for reason, *total in cursor.execute(query("totals")) if reason in known}
    told: dict[str, set[Report]] = {}
    for sink, *report in cursor.execute(query("told")):
        told.setdefault(sink, set()).add(Report(*report))
    return replace(outcome, totals=totals, told={sink: frozenset(reports) for sink, reports in told.items()})


def _row(outcome: Outcome) -> dict[str, Any]:
    """Return the columns of the run's own row."""
    counts: dict[str, dict[str, int]] = {}
    for (reason, action), count in sorted(Counter(map(attrgetter("reason", "action"), outcome.findings)).items()):
        counts.setdefault(reason, {})[action] = count
    return {
        "id": outcome.run_id,
        "started_at": outcome.observed_at,
        "observed_at": outcome.observed_at,
        "mode": outcome.mode,
        "outcome": outcome.result,
        "version": __version__,
        "source": outcome.source,
        "resource_version": outcome.resource_version,
        "tenants_observed": outcome.tenants_observed,
        "tenants_recorded": outcome.tenants_recorded,
        "counts": Jsonb(counts),
        "unverified": sorted({finding.tenant for finding in outcome.findings if not finding.action.writes}),
        "error": str(outcome.failure) if outcome.failure else None,
    }
