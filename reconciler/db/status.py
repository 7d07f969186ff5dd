"""Read how things stand. The time that it takes does not grow with the history."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

from reconciler.core.model import LAST
from reconciler.core.status import (
    Corrected,
    Decided,
    Exemption,
    LastDay,
    OpenReport,
    OwedNotification,
    Run,
    Status,
    TakenBack,
    last_month,
)
from reconciler.db.certificate import read_certificate, read_unverified, read_verification
from reconciler.db.closing import closed_months
from reconciler.db.queries import query
from reconciler.db.standing import read_standing

if TYPE_CHECKING:
    from reconciler.db.connection import Cursor

MAX_ROWS = 500
"""Tenants, reports and exceptions that are read: the rest are counted."""
DAYS = 28
"""UTC days, today the last of them, whose corrections are counted."""
LAST_RUNS = 10
"""Runs that are read."""
MAX_CORRECTIONS = 10_000
"""The latest corrections, of which the ledger is asked whether they stand."""


def read_status(cursor: Cursor, *, settle: timedelta) -> Status:
    """Read how things stand, in a transaction of `reconciler.db.connection.snapshot`."""
    as_of, verified_until, unverified_count, _, changes_until = read_verification(cursor, settle=settle)
    midnight = as_of.replace(hour=0, minute=0, second=0, microsecond=0)
    first = midnight - timedelta(days=DAYS - 1)
    reports = cursor.execute(query("status_reports"), {"max_rows": MAX_ROWS}).fetchall()
    lately = {"since": timedelta(days=DAYS), "max_rows": MAX_ROWS}
    exceptions = cursor.execute(query("status_exceptions"), lately).fetchall()
    corrected: dict[date, int] = dict(cursor.execute(query("status_corrections"), {"since": first}).fetchall())
    runs = cursor.execute(query("status_runs"), {"max_rows": LAST_RUNS}).fetchall()
    taken_back = _read_taken_back(cursor, since=first)
    decisions = cursor.execute(query("status_decisions"), lately).fetchall()
    owed = cursor.execute(query("status_owed"), {"max_rows": MAX_ROWS}).fetchall()
    (last_day,) = cursor.execute(query("status_last_day")).fetchall()
    ((future_runs, future_runs_until),) = cursor.execute(query("status_future_runs")).fetchall()
    days = [first.date() + timedelta(days=number) for number in range(DAYS)]
    return Status(
        as_of=as_of,
        verified_until=verified_until,
        changes_until=changes_until,
        last_month=read_certificate(cursor, last_month(as_of), as_of.date().replace(day=1), settle=settle),
        history=LastDay(*last_day),
        unverified=tuple(read_unverified(cursor, settle=settle, max_rows=MAX_ROWS)),
        unverified_count=unverified_count,
        reports=tuple(OpenReport(*row[:-1]) for row in reports),
        reports_count=reports[0][-1] if reports else 0,
        exceptions=tuple(Exemption(*row[:-1]) for row in exceptions),
        exceptions_count=exceptions[0][-1] if exceptions else 0,
        taken_back=tuple(taken_back[:MAX_ROWS]),
        taken_back_count=len(taken_back),
        decisions=tuple(Decided(*row[:-1]) for row in decisions),
        decisions_count=decisions[0][-1] if decisions else 0,
        owed=tuple(OwedNotification(*row[:-1]) for row in owed),
        owed_count=owed[0][-1] if owed else 0,
        closed_months=tuple(closed_months(cursor)),
        corrections=tuple(Corrected(day, corrected.get(day, 0)) for day in days),
        runs=tuple(Run(*row) for row in runs),
        future_runs=future_runs,
        future_runs_until=future_runs_until,
    )


def _read_taken_back(cursor: Cursor, *, since: datetime) -> list[TakenBack]:
    """Return the latest corrections that the ledger does not show, and those that a run has written again lately."""
    latest = [id_ for (id_,) in cursor.execute(query("status_latest_corrections"), {"max_rows": MAX_CORRECTIONS})]
    undone = [
        one
        for one in read_standing(cursor, latest)
        if (one.taken_back_at >= since if one.taken_back_at else one.difference is not None)
    ]
    return sorted(undone, key=lambda one: (one.taken_back_at or LAST, one.id), reverse=True)
