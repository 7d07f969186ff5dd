"""A plan becomes rows, once: all of them in one transaction with the run's own row, or none.

Every run takes the same lock first. Then the ledger is looked at once more, inside the transaction: tenants that have
moved since the plan was made leave it. What is written is counted against what is left of the plan before the commit,
and a unique index refuses to correct the same thing twice.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg

from reconciler.model import TABLE_OF, Action, Failure, Finding, Reason, Table
from reconciler.queries import query

if TYPE_CHECKING:
    from reconciler.plan import Plan

EVENT_KIND = {
    Reason.SKILL_ENABLE_UNRECORDED: "enabled",
    Reason.SKILL_DISABLE_UNRECORDED: "disabled",
    Reason.SKILL_OPEN_AFTER_DELETION: "disabled",
    Reason.SUSPENSION_UNRECORDED: "suspended",
    Reason.RESUMPTION_UNRECORDED: "resumed",
}


class WrittenOtherwise(Failure):
    """The rows written are not the rows planned."""


def apply(cursor: psycopg.Cursor[Any], plan: Plan) -> Plan:
    """Write the plan's corrections to the ledger, and nothing else of the run.

    Args:
        cursor: in an open transaction, in which the run's own row comes next.
        plan: what to write.

    Returns:
        The plan as it was written: findings of tenants whose record moved meanwhile are deferred.

    Raises:
        WrittenOtherwise: a count differs from the plan's; the transaction must not be committed.
    """
    cursor.execute(query("lock"))
    _stage(cursor, plan)
    cursor.execute(query("last_look"))
    moved = {tenant for (tenant,) in cursor}
    written = replace(plan, findings=tuple(deferred(f) if f.tenant in moved else f for f in plan.findings))
    expected = Counter((TABLE_OF[f.reason], f.action) for f in written.corrections)
    for statement, table, action in (
        ("insert_lifecycles", Table.LIFECYCLE, Action.INSERT),
        ("stamp_deletions", Table.LIFECYCLE, Action.STAMP),
        ("resolve_orgs", Table.LIFECYCLE, Action.UPDATE),
        ("append_skill_events", Table.SKILL_EVENTS, Action.APPEND),
        ("append_suspension_events", Table.SUSPENSION_EVENTS, Action.APPEND),
    ):
        if expected[table, action]:
            cursor.execute(query(statement))
            _hold(statement, expected[table, action], cursor.rowcount)
    return written


def record(cursor: psycopg.Cursor[Any], plan: Plan, run: dict[str, Any]) -> None:
    """Write the run's own row, every correction that `apply` has written in this transaction, and the open reports.

    Args:
        cursor: in the transaction of `apply`.
        plan: what `apply` returned.
        run: the columns of the run's row.

    Raises:
        WrittenOtherwise: a count differs from the plan's.
    """
    cursor.execute(query("record_run"), run)
    try:
        cursor.execute(query("record_corrections"), {"run_id": run["id"]})
    except psycopg.errors.UniqueViolation as error:
        raise WrittenOtherwise(
            f"A correction was written before, and the ledger does not show it: {error.diag.message_detail}",
            "The whole run was rolled back. Rows were removed from the ledger: restore them, or ask who did.",
        ) from error
    _hold("record_corrections", len(plan.corrections), cursor.rowcount)
    cursor.execute(query("count_corrections"))
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


def deferred(finding: Finding) -> Finding:
    """Return the finding as one that is shown and left for a later run."""
    return finding._replace(action=Action.DEFER, moment=None, closed_period=False, impact_chf=None, impact_range=None)


def _hold(statement: str, planned: int, written: int) -> None:
    if planned != written:
        raise WrittenOtherwise(
            f"{statement} wrote {written} rows where {planned} were planned: the ledger was changed meanwhile.",
            "The whole run was rolled back. Run it again; if it stays, look for another writer of these rows.",
        )


def _stage(cursor: psycopg.Cursor[Any], plan: Plan) -> None:
    inserted = {f.tenant for f in plan.corrections if f.action is Action.INSERT}
    stamped = {f.tenant for f in plan.corrections if f.action is Action.STAMP}
    cursor.execute(query("plan_table"))
    with cursor.copy(query("copy_plan")) as copy:
        for f in plan.corrections:
            closed = f.reason is Reason.SKILL_OPEN_AFTER_DELETION and f.tenant not in stamped
            copy.write_row(
                (
                    f.reason,
                    f.tenant,
                    f.org,
                    f.subject,
                    f.action,
                    f.recorded,
                    f.observed,
                    *(f.moment or (None, None, None, None)),
                    f.closed_period,
                    f.impact_chf,
                    *(f.impact_range or (None, None)),
                    TABLE_OF[f.reason],
                    EVENT_KIND.get(f.reason),
                    f.supersedes and f.supersedes.id,
                    "absent" if f.tenant in inserted else "deleted" if closed else "open",
                )
            )
