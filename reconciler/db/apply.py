"""A plan becomes rows, once: all of them in one transaction with the run's own row, or none.

All runs share one lock. Under it, inside the transaction, the ledger is read once more: tenants whose record has
changed since the plan was built are deferred. The rows written are counted against the plan before the commit, and a
unique index refuses to write the same correction twice.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import psycopg

from reconciler.core.errors import Failure
from reconciler.core.model import Action, Finding, Moment
from reconciler.core.reasons import Reason
from reconciler.db.candidates import NULL, escape
from reconciler.db.queries import query

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from uuid import UUID

    from reconciler.core.plan import Plan
    from reconciler.db.connection import Cursor

ROWS_BATCH = 1_000
"""Rows of the plan that are sent at once."""
_NO_MOMENT = "\t".join([NULL] * 4)
_CACHE_SIZE = 2**10
"""Cached fields: the findings of one tenant share most of theirs."""


class WrittenOtherwise(Failure):
    """The rows written are not the rows of the plan."""


def drop_stale(cursor: Cursor, plan: Plan) -> Plan:
    """Take the lock of all runs, stage the plan, and return it with tenants deferred whose record has changed since."""
    cursor.execute(query("lock"))
    if not plan.corrections:
        return plan
    rows = _rows(plan.corrections)
    cursor.execute(query("plan_table"))
    with cursor.copy(query("copy_plan")) as copy:
        while block := "".join(islice(rows, ROWS_BATCH)):
            copy.write(block)
    cursor.execute(query("drop_stale"))
    stale = {tenant for (tenant,) in cursor}
    if not stale:
        return plan
    return replace(plan, findings=tuple(f.deferred() if f.tenant in stale else f for f in plan.findings))


def apply(cursor: Cursor, plan: Plan, run: dict[str, Any]) -> None:
    """Write the columns of the run's own row, the corrections with the proof of each, and the open reports.

    The plan is what `drop_stale` returned in the same transaction.

    Raises:
        WrittenOtherwise: the rows written are not those of the plan; the transaction must not be committed.
    """
    cursor.execute(query("record_run"), run)
    if plan.corrections:
        _write(cursor, plan, run["id"])
    reports = [finding for finding in plan.findings if finding.action is Action.REPORT]
    cursor.execute(
        query("keep_reports"),
        {
            "tenants": [report.tenant for report in reports],
            "reasons": [report.reason for report in reports],
            "subjects": [report.subject or "" for report in reports],
            "orgs": [report.org for report in reports],
            "recorded": [report.recorded for report in reports],
            "observed": [report.observed for report in reports],
            "deferred": sorted({finding.tenant for finding in plan.findings if finding.action is Action.DEFER}),
        },
    )


def _write(cursor: Cursor, plan: Plan, run_id: UUID) -> None:
    planned = Counter(map(attrgetter("action"), plan.corrections))
    for statement, action in (
        ("insert_lifecycles", Action.INSERT),
        ("stamp_deletions", Action.STAMP),
        ("resolve_orgs", Action.UPDATE),
    ):
        if planned[action]:
            cursor.execute(query(statement))
            _raise_unless_equal(statement, planned[action], cursor.rowcount)
    try:
        cursor.execute(query("write_corrections"), {"run_id": run_id})
    except psycopg.errors.UniqueViolation as error:
        if error.diag.table_name != "corrections":
            raise
        raise WrittenOtherwise(
            f"This correction was written before, but the ledger does not show it: {error.diag.message_detail}",
            "The whole run was rolled back. Rows were removed from the ledger: restore them, or ask who did.",
        ) from error
    _raise_unless_equal("write_corrections", len(plan.corrections), cursor.rowcount)
    cursor.execute(query("count_corrections"))


def _raise_unless_equal(statement: str, planned: int, written: int) -> None:
    if planned != written:
        raise WrittenOtherwise(
            f"{statement} wrote {written} rows where {planned} were planned: the ledger was changed meanwhile.",
            "The whole run was rolled back. Run it again. If it happens again, look for another writer of these rows.",
        )


def _rows(corrections: Sequence[Finding]) -> Iterator[str]:
    """Yield the corrections as rows of COPY's text format."""
    inserted = {f.tenant for f in corrections if f.action is Action.INSERT}
    stamped = {f.tenant for f in corrections if f.action is Action.STAMP}
    for f in corrections:
        closed = f.reason is Reason.SKILL_OPEN_AFTER_DELETION and f.tenant not in stamped
        least, most = f.impact_range or (NULL, NULL)
        fields = (
            f.reason,
            _text(f.tenant),
            _text(f.org),
            _text(f.subject),
            f.action,
            _text(f.recorded),
            _text(f.observed),
            _moment_fields(f.moment) if f.moment else _NO_MOMENT,
            "t" if f.closed_period else "f",
            NULL if f.impact_chf is None else str(f.impact_chf),
            str(least),
            str(most),
            str(f.reason.table),
            f.reason.event_kind or NULL,
            str(f.supersedes.id) if f.supersedes else NULL,
            "absent" if f.tenant in inserted else "deleted" if closed else "open",
        )
        yield "\t".join(fields) + "\n"


_text = lru_cache(_CACHE_SIZE)(escape)
_iso = lru_cache(_CACHE_SIZE)(datetime.isoformat)


@lru_cache(_CACHE_SIZE)
def _moment_fields(moment: Moment) -> str:
    """Return the four fields of a moment."""
    *times, evidence = moment
    return "\t".join([*map(_iso, times), evidence])
