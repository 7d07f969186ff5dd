"""A run in the ledger: where it starts from, its row, and who was notified of it."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
import structlog
from psycopg.types.json import Jsonb

from reconciler import __version__
from reconciler.core.certificate import NOT_ABOUT_PROOF
from reconciler.core.errors import Failure, as_failure
from reconciler.core.history import Position, left_unwritten
from reconciler.core.model import Action, Evidence, Finding, Listing, Mode, Moment, Owed, Report, Since, Total
from reconciler.core.reasons import Reason
from reconciler.core.recheck import restless
from reconciler.db.apply import drop_stale, record, write
from reconciler.db.connection import Cursor, Ledger, LedgerDenied, LedgerUnreachable, brief_transaction
from reconciler.db.contradictions import read_marks, tenants_with_news
from reconciler.db.queries import query
from reconciler.db.schema import raise_unless_current

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime
    from uuid import UUID

    from reconciler.core.model import Outcome
    from reconciler.core.plan import Limits, Plan
    from reconciler.db.contradictions import EventsSeen, Marks
    from reconciler.db.positions import Sightings

MAX_EARLIER_RUNS = 1_000
"""More than begin in an hour: a run with a tenant that keeps changing waits for the settle period."""
MAX_LATENESS = timedelta(seconds=30)
"""How much later a run may begin than the one before it, so that a list of all tenants is not put off by a run."""
RECORD_SECONDS = 1.0
"""How long recording may wait for anything once the run itself has ended: its deadline may be over already."""

_log = structlog.get_logger(__name__)


class Start(NamedTuple):
    """What a run starts from."""

    observed_at: datetime
    """When the observation begins, by the database's clock."""
    read_at: float
    """When that was read, in seconds of `time.monotonic`."""
    last: Listing | None
    """The source that the ledger belongs to, and the last list of it; None on the first run."""
    position: Position | None
    """The list that the remembered tenants are of; None if none are remembered."""
    lacking: tuple[str, ...]
    """The privileges that a run needs and this role lacks."""
    since: Since | None = None
    """What a run needs that compares only what has changed; None: all tenants are to be compared."""
    marks: Marks | None = None
    """Up to where there are events; None for a role that lacks a privilege, and can only plan."""

    def raise_unless_permitted(self) -> None:
        """Raise `LedgerDenied` if the role of this run lacks a privilege, before anything is observed."""
        if self.lacking:
            raise LedgerDenied(
                f"The reconciler's role lacks privileges on the ledger: {', '.join(self.lacking)}.",
                "Nothing was observed or written. Run sql/roles.sql as the owner of the ledger's tables: a new version "
                "may need more than the one before.",
            )


def start(ledger: Ledger, seconds: float) -> Start:
    """Read what a run starts from, within so many seconds, but for what `look_back` adds."""
    with ledger.transaction(seconds) as cursor:
        raise_unless_current(cursor)
        row = cursor.execute(query("source")).fetchone()
        sequences = [sequence for _, sequence in cursor.execute(query("event_sequences")) if sequence]
        lacking = cursor.execute(query("missing_privileges"), {"sequences": sequences}).fetchall()
        ((now,),) = cursor.execute(query("clock")).fetchall()
        last = row and Listing(*row[:2])
        position = Position(*row[2:]) if row and row[3] else None
        return Start(now, time.monotonic(), last, position, tuple(privilege for (privilege,) in lacking))


def look_back(ledger: Ledger, seconds: float, started: Start, full_every: timedelta) -> Start:
    """Add what the runs before have left to what a run starts from; all tenants are compared every `full_every`.

    It is read before anything is compared, so that what comes later is left to the next run.
    """
    if started.lacking:
        return started
    with ledger.transaction(seconds) as cursor:
        marks = read_marks(cursor)
        since = _read_since(cursor, full_every, marks) if full_every else None
        listed = cursor.execute(query("all_listed_at")).fetchone()
        position = started.position and started.position._replace(listed_at=listed and listed[0])
        return started._replace(marks=marks, since=since, position=position)


def _read_since(cursor: Cursor, full_every: timedelta, marks: Marks) -> Since | None:
    """Return what a run needs that compares only what has changed; None where it must compare all tenants."""
    within = full_every - min(MAX_LATENESS, full_every / 10)
    known = cursor.execute(query("last_list_of_all"), {"within": within, "version": __version__}).fetchone()
    if known is None or not marks.is_recent:
        return None
    recorded, unverified = known
    news = tenants_with_news(cursor, marks)
    reported = [name for (name,) in cursor.execute(query("reported_tenants"))]
    due = dict(cursor.execute(query("remembered_versions"), {"names": [*{*news, *reported, *unverified}]}).fetchall())
    return Since(due, recorded)


def report_restless(cursor: Cursor, plan: Plan, as_of: datetime) -> Plan:
    """Return the plan with a report of each tenant that kept changing in every run of the last hour."""
    if not (names := plan.changing):
        return plan
    earlier = cursor.execute(query("changing"), {"as_of": as_of, "max_runs": MAX_EARLIER_RUNS})
    return plan.with_restless(restless(names, earlier, as_of))


def commit(
    ledger: Ledger,
    plan: Plan,
    outcome: Outcome,
    sightings: Sightings,
    seen: EventsSeen | None,
    *,
    limits: Limits,
    time_left: Callable[[], float],
) -> Iterator[Outcome]:
    """Write the plan and the run's own row in one transaction; yield the outcome before that and as it was written.

    What became stale meanwhile is deferred, and tenants that cannot be written are parked. If the server's answer to
    COMMIT is lost, a new connection asks how the transaction ended. `time_left` returns the seconds that the run has
    left, or raises. `sightings` are what is remembered of the list, and `seen` is up to where the events were looked
    at; a file has neither.

    Raises:
        Failure: nothing was written, or the failure says how to find out.
    """
    reached_end = False
    try:
        with ledger.transaction(time_left()) as cursor:
            plan = drop_stale(cursor, plan)
            outcome = replace(outcome, unproven=outcome.unproven | sightings.unread(cursor))
            yield (outcome := replace(outcome, result=plan.result(outcome.mode), findings=plan.findings))
            plan = write(cursor, plan, outcome.run_id, plan.parking_limit(limits), time_left)
            yield (outcome := replace(outcome, result=plan.result(outcome.mode), findings=plan.findings))
            record(cursor, plan, _row(outcome), outcome.names)
            pinned = {"identity": outcome.source, "resource_version": outcome.resource_version}
            cursor.execute(query("pin_source"), pinned)
            sightings.keep(cursor, left_unwritten(plan.findings), outcome.run_id)
            if seen:
                seen.keep(cursor)
            outcome = _with_memory(cursor, outcome)
            time_left()
            reached_end = True
    except Exception:
        if not reached_end or not _is_committed(ledger, outcome.run_id):
            raise
        _log.warning("commit.unanswered", run_id=str(outcome.run_id), meaning="the run's row says it was committed")
    yield replace(outcome, recorded=True)


def record_stop(ledger: Ledger, outcome: Outcome, sightings: Sightings | None = None) -> Outcome:
    """Leave a row that says what stopped the run, where the ledger can be reached, and return the outcome.

    A plan leaves none, nor does a run that had not yet begun to observe. `sightings` are what is remembered of a list
    that was not refused itself.
    """
    if outcome.mode is Mode.PLAN or outcome.observed_at is None:
        return outcome
    try:
        with ledger.transaction(RECORD_SECONDS) as cursor:
            # while another run writes, what this one has seen counts as unread: the next one sees it too
            if sightings and cursor.execute(query("try_lock")).fetchall() == [(True,)]:
                with suppress(psycopg.Error), cursor.connection.transaction():
                    sightings.keep(cursor, left_unwritten(outcome.findings, is_blocked=True), outcome.run_id)
            cursor.execute(query("record_run"), _row(outcome))
            kind = type(outcome.failure).__name__
            cursor.execute(query("keep_stop"), {"reason": outcome.result, "observed": kind})
            return replace(_with_memory(cursor, outcome), recorded=True)
    except Exception as error:  # noqa: BLE001 - what stopped the run is still to be told
        _log.warning("run.unrecorded", error=str(as_failure(error)))
        return outcome


def record_notified(database_url: str, outcome: Outcome, notified: Mapping[str, tuple[Report, ...]]) -> None:
    """Record which sink was notified of which reports, and of the corrections of this run and of earlier ones.

    What cannot be recorded is sent again by the next run.
    """
    corrected = [run.run_id for run in outcome.owed] + [outcome.run_id] * _has_corrected(outcome)
    if not corrected and not any(notified.values()):
        return
    try:
        with brief_transaction(database_url, RECORD_SECONDS) as cursor:
            for sink, reports in notified.items():
                if reports:
                    tenants, reasons, subjects = zip(*reports, strict=True)
                    columns = {"tenants": [*tenants], "reasons": [*reasons], "subjects": [*subjects]}
                    cursor.execute(query("mark_notified"), {"sink": sink, **columns})
                cursor.execute(query("mark_run_notified"), {"sink": sink, "runs": corrected})
    except Exception as error:  # noqa: BLE001 - the run stands, and its alerts are sent
        _log.warning(
            "alerts.unrecorded", error=str(as_failure(error)), meaning="the next run notifies of the same again"
        )


def _is_committed(ledger: Ledger, run_id: UUID) -> bool:
    """True if the transaction was committed although the server's answer to COMMIT was lost: its own row can tell."""
    try:
        with ledger.transaction() as cursor:
            # the lost session may be committing still: it holds the lock until it has ended
            cursor.execute(query("lock"))
            return cursor.execute(query("run_outcome"), {"id": run_id}).fetchone() is not None
    except Failure as failure:
        raise LedgerUnreachable(
            f"The connection was lost while the run was being written, and a new one failed: {failure}",
            f"The run was written, whole, if reconciler.runs has a row {run_id}, and otherwise not at all. "
            "Running again is safe in either case.",
        ) from failure


def _with_memory(cursor: Cursor, outcome: Outcome) -> Outcome:
    """Return the outcome with what the ledger keeps of all runs: the totals, and who was notified of what."""
    known = {*Reason}
    totals = {Reason(reason): Total(*total) for reason, *total in cursor.execute(query("totals")) if reason in known}
    notified: dict[str, set[Report]] = {}
    for sink, *report in cursor.execute(query("notified")):
        notified.setdefault(sink, set()).add(Report(*report))
    return replace(
        outcome,
        totals=totals,
        notified={sink: frozenset(reports) for sink, reports in notified.items()},
        owed=tuple(_owed(cursor, outcome)),
    )


def _owed(cursor: Cursor, outcome: Outcome) -> Iterator[Owed]:
    """Yield the earlier runs whose corrections recipients of this run were never notified of."""
    asked = {"recipients": [*outcome.recipients], "run_id": outcome.run_id}
    runs = cursor.execute(query("owed_runs"), asked).fetchall()
    for run_id, recipients in runs:
        rows = cursor.execute(query("corrections_of_run"), {"run_id": run_id, "reasons": [*Reason]})
        yield Owed(run_id, frozenset(recipients), tuple(map(_finding, rows)))


def _finding(row: tuple[Any, ...]) -> Finding:
    """Return a correction as the run that wrote it had it."""
    reason, tenant, org, action, subject, recorded, observed, at, start, end, evidence, closed, impact, low, high = row
    return Finding(
        Reason(reason),
        tenant,
        org,
        Action(action),
        subject,
        recorded,
        observed,
        moment=Moment(at, start, end, Evidence(evidence)) if evidence else None,
        closed_period=closed,
        impact_chf=impact,
        impact_range=None if low is None else (low, high),
    )


def _has_corrected(outcome: Outcome) -> bool:
    return outcome.failure is None and any(finding.action.writes for finding in outcome.findings)


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
        "unverified": sorted(
            outcome.unproven.union(
                finding.tenant
                for finding in outcome.findings
                if not finding.action.writes and finding.reason not in NOT_ABOUT_PROOF
            )
        ),
        "changing": sorted({finding.tenant for finding in outcome.findings if finding.changing}),
        "error": str(outcome.failure) if outcome.failure else None,
        "settle": outcome.settle,
        "history": Jsonb(outcome.history._asdict()),
        "compared": outcome.compared,
        "notified": Jsonb(dict.fromkeys(outcome.recipients) if _has_corrected(outcome) else {}),
    }
