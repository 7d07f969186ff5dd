"""A plan becomes rows, once: all of them in one transaction with the run's own row, or none.

All runs share one lock. Under it, inside the transaction, the ledger is read once more: tenants whose record has
changed since the plan was built are deferred. What was written is read again before the commit: a tenant of which that
does not hold, or that cannot be written at all, is parked, and all others go on. A unique index refuses to write the
same correction twice.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

import psycopg
import structlog

from reconciler.core.errors import Failure
from reconciler.core.model import Action, Finding, Moment
from reconciler.core.reasons import Reason
from reconciler.db.candidates import NULL, accepted_reports, escape
from reconciler.db.queries import query

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping, Sequence
    from uuid import UUID

    from reconciler.core.plan import Plan
    from reconciler.db.connection import Cursor

ROWS_BATCH = 1_000
"""Rows of the plan that are sent at once."""
WRITE_LOCK_SECONDS = 1.0
"""How long a row that another session holds is waited for: its tenant must not hold up the others."""
_NO_MOMENT = "\t".join([NULL] * 4)
_CACHE_SIZE = 2**10
"""Cached fields: the findings of one tenant share most of theirs."""

_log = structlog.get_logger(__name__)


class TooManyParked(Failure):
    """More tenants cannot be written than a run may correct: it is not the tenants' fault."""


class SequenceBehind(Failure):
    """The ids of new events are in use, or there are none."""


class _NotInForce(Exception):  # noqa: N818 - it says what is wrong with the rows
    """Rows were written, but the ledger shows something else. The argument says what, by tenant."""


class _Unproven(Exception):  # noqa: N818 - it says what is wrong with the rows
    """Fewer proofs were written than corrections."""


def drop_stale(cursor: Cursor, plan: Plan) -> Plan:
    """Take the lock of all runs, stage the plan, and return it with tenants deferred whose record has changed since."""
    cursor.execute(query("lock"))
    if not plan.corrections:
        return plan
    cursor.execute(query("plan_table"))
    _stage(cursor, plan)
    cursor.execute(query("drop_stale"))
    stale = {tenant for (tenant,) in cursor}
    if not stale:
        return plan
    return replace(plan, findings=tuple(f.deferred() if f.tenant in stale else f for f in plan.findings))


def write(cursor: Cursor, plan: Plan, run_id: UUID, limit: int) -> Plan:
    """Write the corrections, each with its proof; return the plan with the tenants parked that cannot be written.

    The plan is what `drop_stale` returned in the same transaction, where the run's own row must follow.

    Raises:
        TooManyParked: more than `limit` tenants cannot be written.
        SequenceBehind: no event can be written.
    """
    cursor.execute(query("write_limit"), {"limit": f"{WRITE_LOCK_SECONDS * 1000:.0f}ms"})
    causes: dict[str, str] = {}
    groups = [sorted({finding.tenant for finding in plan.corrections})]
    is_staged = True
    while groups:
        if not (tenants := groups.pop()):
            continue
        try:
            with cursor.connection.transaction():
                if not is_staged:
                    cursor.execute(query("empty_plan"))
                    _stage(cursor, plan, {*tenants})
                _write_staged(cursor, run_id)
        except _NotInForce as error:
            (found,) = error.args
            causes |= found
            groups.append([tenant for tenant in tenants if tenant not in found])
        except (psycopg.Error, _Unproven) as error:
            if not _may_be_one_tenants(error):
                raise
            if len(tenants) == 1:
                causes[tenants[0]] = _refusal(error)
            else:
                middle = len(tenants) // 2
                groups += [tenants[middle:], tenants[:middle]]
        is_staged = False
        if len(causes) > limit:
            raise _too_many(causes, limit)
    return plan.parked(causes, accepted_reports(cursor)) if causes else plan


def record(cursor: Cursor, plan: Plan, run: dict[str, Any]) -> None:
    """Write the run's own row, of these columns, and the open reports."""
    cursor.execute(query("record_run"), run)
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


def _stage(cursor: Cursor, plan: Plan, tenants: Container[str] | None = None) -> None:
    """Stage the corrections; `tenants` restricts it to some."""
    rows = _rows([finding for finding in plan.corrections if tenants is None or finding.tenant in tenants])
    with cursor.copy(query("copy_plan")) as copy:
        while block := "".join(islice(rows, ROWS_BATCH)):
            copy.write(block)


def _write_staged(cursor: Cursor, run_id: UUID) -> None:
    """Write what is staged, and raise unless the ledger then shows it."""
    for statement in ("insert_lifecycles", "stamp_deletions", "resolve_orgs"):
        cursor.execute(query(statement))
    (skill,), (suspension,) = cursor.execute(query("event_sequences")).fetchall()
    planned = cursor.execute(query("number_events"), {"skill": skill, "suspension": suspension}).rowcount
    if undone := [number for (number,) in cursor.execute(query("take_back_undone"))]:
        _log.warning("corrections.undone", corrections=undone, meaning="the ledger lost them; they are written again")
    try:
        cursor.execute(query("write_corrections"), {"run_id": run_id})
    except psycopg.errors.IntegrityError as error:
        if _is_about_the_id(error):
            raise _sequence_behind(error, (skill, suspension)) from error
        raise
    if cursor.rowcount != planned:
        raise _Unproven
    found: dict[str, str] = {}
    for tenant, table, columns in cursor.execute(query("not_in_force")):
        found.setdefault(tenant, _difference(table, columns))
    if found:
        raise _NotInForce(found)
    cursor.execute(query("count_corrections"))


def _difference(table: str, columns: list[str]) -> str:
    """Return how the ledger differs from what was written, in words that stay the same from run to run."""
    if not columns:
        return f"public.{table} has a later row of the same key than the one that was written."
    shown = "does not show it" if columns == ["row"] else f"shows another {', '.join(columns)}"
    return f"public.{table} accepted the row and {shown}: a trigger, a rule, a policy or another program interferes."


def _may_be_one_tenants(error: psycopg.Error | _Unproven) -> bool:
    """True unless the error is about the connection or the server (the classes of SQLSTATE)."""
    return isinstance(error, _Unproven) or (error.sqlstate or "08")[:2] not in {
        "08",
        "25",
        "40",
        "53",
        "57",
        "58",
        "XX",
    }


def _refusal(error: psycopg.Error | _Unproven) -> str:
    """Return why a tenant cannot be written."""
    if isinstance(error, _Unproven):
        return "reconciler.corrections did not keep the proof: a trigger, a rule or a policy interferes."
    if isinstance(error, psycopg.errors.LockNotAvailable):
        return "Another session holds a lock on its rows, and did not let go of it."
    return f"PostgreSQL refused it: {error.diag.message_primary}"


def _is_about_the_id(error: psycopg.errors.IntegrityError) -> bool:
    """True if the id of an event was in use or missing, whatever the language of the message."""
    is_event = error.diag.schema_name == "public"
    return is_event and (error.diag.column_name == "id" or "(id" in (error.diag.message_detail or ""))


def _sequence_behind(error: psycopg.errors.IntegrityError, sequences: tuple[str | None, str | None]) -> SequenceBehind:
    names = ", ".join(filter(None, sequences)) or "no sequence"
    return SequenceBehind(
        f"No event can be written, because its id is in use or missing: {error.diag.message_primary} "
        f"{error.diag.message_detail or ''} The ids come from {names}.",
        "The whole run was rolled back. After a restore or a switch to a replica a sequence can lie below the ids in "
        "use, for the portal's inserts too. Have the owner of the ledger run, for each of the two event tables: SELECT "
        "setval(pg_get_serial_sequence('public.tenant_skill_events', 'id'), max(id)) FROM public.tenant_skill_events",
    )


def _too_many(causes: Mapping[str, str], limit: int) -> TooManyParked:
    tenant, cause = next(iter(causes.items()))
    return TooManyParked(
        f"{len(causes)} tenants cannot be written, and the limit is {limit}. The first is {tenant}: {cause}",
        "The whole run was rolled back: what hits so many is not the fault of a tenant. Remove the cause; look for "
        "triggers, rules, policies and missing partitions of the ledger's tables.",
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
