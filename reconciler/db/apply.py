"""A plan becomes rows, once: all of them in one transaction with the run's own row, or none.

All runs share one lock. Under it, inside the transaction, the ledger is read once more: tenants whose record has
changed since the plan was built are deferred. What was written is read again before the commit: a tenant of which that
does not hold, or that cannot be written at all, is parked, and all others go on. A unique index refuses to write the
same correction twice.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
import structlog
from psycopg import sql

from reconciler.core.errors import Failure, Refusal
from reconciler.core.model import Action, Finding, Moment
from reconciler.core.reasons import Reason
from reconciler.db.candidates import accepted_reports
from reconciler.db.citus import commit_in_two_phases, copy_near, near, set_local
from reconciler.db.copied import NULL, escape
from reconciler.db.queries import query

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
    from uuid import UUID

    from reconciler.core.model import Table
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


class NotDecided(Refusal):
    """A decision cannot be written."""


class Author(NamedTuple):
    """Who decides, and why. The database knows its role, and the time."""

    by: str
    note: str


class SequenceBehind(Failure):
    """The ids of new events are in use, or there are none."""


class _NotInForce(Exception):  # noqa: N818 - it says what is wrong with the rows
    """Rows were written, but the ledger shows something else. The argument says what, by tenant."""


def drop_stale(cursor: Cursor, plan: Plan) -> Plan:
    """Take the lock of all runs, stage the plan, and return it with tenants deferred whose record has changed since."""
    cursor.execute(query("lock"))
    if not plan.corrections:
        return plan
    cursor.execute(query("plan_table"))
    _stage(cursor, plan.corrections)
    copy_near(cursor)
    cursor.execute(near(cursor, "drop_stale"))
    stale = {tenant for (tenant,) in cursor}
    return replace(plan, findings=tuple(f.deferred() if f.tenant in stale else f for f in plan.findings))


def write(cursor: Cursor, plan: Plan, run_id: UUID, limit: int, time_left: Callable[[], float]) -> Plan:
    """Write the corrections, each with its proof; return the plan with the tenants parked that cannot be written.

    A tenant whose rows another session holds is deferred. The plan is what `drop_stale` returned in the same
    transaction, where the run's own row must follow. `time_left` raises when the run's time is over.

    Raises:
        TooManyParked: more than `limit` tenants cannot be written.
        SequenceBehind: no event can be written.
    """
    set_local(cursor, "lock_timeout", f"{WRITE_LOCK_SECONDS * 1000:.0f}ms")
    causes: dict[str, str] = {}
    held: set[str] = set()
    groups = [sorted({finding.tenant for finding in plan.corrections})]
    takes_back = any(f.reason is Reason.CORRECTION_SUPERSEDED for f in plan.corrections)
    is_staged = True
    while groups:
        if not (tenants := groups.pop()):
            continue
        time_left()
        try:
            with cursor.connection.transaction():
                if not is_staged:
                    cursor.execute(query("empty_plan"))
                    _stage(cursor, _corrections_of(plan, {*tenants}))
                _write_staged(cursor, run_id, takes_back=takes_back)
        except _NotInForce as error:
            (found,) = error.args
            causes |= found
            groups.append([tenant for tenant in tenants if tenant not in found])
        except psycopg.Error as error:
            if not _may_be_one_tenants(cursor, error):
                raise
            if len(tenants) > 1:
                middle = len(tenants) // 2
                groups += [tenants[middle:], tenants[:middle]]
            elif isinstance(error, psycopg.errors.LockNotAvailable):
                held |= {*tenants}
            else:
                causes[tenants[0]] = f"PostgreSQL refused it: {error.diag.message_primary}"
        is_staged = False
        if len(causes) + len(held) > limit:
            raise _too_many(causes or dict.fromkeys(held, "another session holds a lock."), limit)
    plan = _deferred(plan, held)
    return plan.parked(causes, accepted_reports(cursor)) if causes else plan


def record(cursor: Cursor, plan: Plan, run: dict[str, Any], compared: Collection[str] | None) -> None:
    """Write the run's own row, of these columns, and the open reports of the tenants that it compared; None: of all."""
    cursor.execute(query("record_run"), run)
    reports = [finding for finding in plan.findings if finding.action is Action.REPORT]
    # what a run has seen of a parked tenant is whole: only its corrections are put off
    parked = {report.tenant for report in reports if report.reason is Reason.TENANT_PARKED}
    deferred = {finding.tenant for finding in plan.findings if finding.action is Action.DEFER}
    cursor.execute(
        query("keep_reports"),
        {
            "tenants": [report.tenant for report in reports],
            "reasons": [report.reason for report in reports],
            "subjects": [report.subject or "" for report in reports],
            "orgs": [report.org for report in reports],
            "recorded": [report.recorded for report in reports],
            "observed": [report.observed for report in reports],
            "deferred": sorted(deferred - parked),
            "compared": None if compared is None else sorted(compared),
        },
    )


def _deferred(plan: Plan, tenants: Container[str]) -> Plan:
    """Return the plan with the corrections of these tenants left for a later run."""
    findings = (f.deferred() if f.tenant in tenants and f.action.writes else f for f in plan.findings)
    return replace(plan, findings=tuple(findings))


def _corrections_of(plan: Plan, tenants: Container[str]) -> list[Finding]:
    return [finding for finding in plan.corrections if finding.tenant in tenants]


def _stage(cursor: Cursor, corrections: Sequence[Finding]) -> None:
    """Stage the corrections, each event under the id that it is written with."""
    rows = _rows(corrections, _drawn_ids(cursor, corrections))
    with cursor.copy(query("copy_plan")) as copy:
        while block := "".join(islice(rows, ROWS_BATCH)):
            copy.write(block)
    cursor.execute(query("count_plan"))


def _drawn_ids(cursor: Cursor, corrections: Sequence[Finding]) -> dict[Table, Iterator[int]]:
    """Draw the ids of the events, and return them by table in the order in which they are to be used."""
    needed = Counter(f.table for f in corrections if f.table and f.event_kind)
    sequences = _sequences(cursor)
    drawn: dict[Table, Iterator[int]] = {}
    for table, number in needed.items():
        if sequence := sequences[table]:
            cursor.execute(query("draw_ids"), {"sequence": sequence, "number": number})
            drawn[table] = chain.from_iterable(cursor.fetchall())
    return drawn


def _sequences(cursor: Cursor) -> dict[str, str | None]:
    """Return the sequence of each event table; None where PostgreSQL knows none."""
    return dict(cursor.execute(query("event_sequences")).fetchall())


def write_decided(cursor: Cursor, findings: Sequence[Finding], author: Author) -> int:
    """Write what a person decided, each row with its proof, if there are any; return the number of the decision.

    The caller holds the lock of all runs, and has read under it what the findings follow from.

    Raises:
        NotDecided: the ledger does not show what was written.
    """
    ((number,),) = cursor.execute(query("decision_number")).fetchall()
    decided = [finding._replace(decision=number) for finding in findings]
    if not decided:
        return int(number)
    cursor.execute(query("plan_table"))
    _stage(cursor, decided)
    try:
        _write_staged(cursor, None, takes_back=False, author=author)
    except _NotInForce as error:
        (found,) = error.args
        raise NotDecided(next(iter(found.values())), "Nothing was written. Remove the cause, then repeat.") from None
    cursor.execute(query("drop_plan"))
    return int(number)


def _write_staged(cursor: Cursor, run_id: UUID | None, *, takes_back: bool, author: Author | None = None) -> None:
    """Write what is staged, and raise unless the ledger then shows it; `takes_back` if events may be taken back.

    It is a run's, or with an author a person's.
    """
    cursor.execute(query("note_beginnings"))
    copy_near(cursor)
    cursor.execute(near(cursor, "supersede_planned"))
    if in_use := cursor.execute(near(cursor, "ids_in_use")).fetchone():
        table, number = in_use
        raise _sequence_behind(table, number, _sequences(cursor)[table])
    for statement in ("insert_lifecycles", "stamp_deletions", "resolve_orgs"):
        cursor.execute(query(statement))
    taken_back = [number for (number,) in cursor.execute(query("take_back_undone"))]
    commit_in_two_phases(cursor)
    cursor.execute(query("write_events"))
    if author:
        cursor.execute(query("prove_decision"), author._asdict())
    else:
        cursor.execute(query("prove_corrections"), {"run_id": run_id})
    if takes_back:
        cursor.execute(query("take_back_superseded"), {"run_id": run_id})
    if deferred := cursor.execute(query("deferred_constraints")).fetchall():
        names = sql.SQL(", ").join(sql.Identifier(*name) for name in deferred)
        cursor.execute(sql.SQL("SET CONSTRAINTS {} IMMEDIATE").format(names))
    found: dict[str, str] = {}
    copy_near(cursor)
    for tenant, table, columns in cursor.execute(near(cursor, "not_in_force"), {"run_id": run_id}):
        found.setdefault(tenant, _difference(table, columns))
    if found:
        raise _NotInForce(found)
    if not author:
        cursor.execute(query("count_corrections"))
    if taken_back:
        meaning = "an unknown hand took them back, and they are written again"
        _log.warning("corrections.taken_back", corrections=taken_back, meaning=meaning)


def _difference(table: str, columns: list[str]) -> str:
    """Return how the ledger differs from what was written, in words that stay the same from run to run."""
    if not columns:
        return f"public.{table} has a later row of the same key than the one that was written."
    if columns == ["proof"]:
        return "reconciler.corrections did not keep the proof: a trigger, a rule or a policy interferes."
    shown = "does not show it" if columns == ["row"] else f"shows another {', '.join(columns)}"
    return f"public.{table} accepted the row and {shown}: a trigger, a rule, a policy or another program interferes."


def _may_be_one_tenants(cursor: Cursor, error: psycopg.Error) -> bool:
    """True unless the connection is lost, or the error is about the server or another session, by its SQLSTATE."""
    return not cursor.connection.broken and (error.sqlstate or "08")[:2] not in {"25", "40", "53", "57"}


def _sequence_behind(table: str, in_use: int | None, sequence: str | None) -> SequenceBehind:
    if in_use is None:
        return SequenceBehind(
            f"No id can be drawn for public.{table}: PostgreSQL knows no sequence that its column id depends on.",
            f"Nothing was written. Have its owner name the sequence: ALTER TABLE public.{table} ALTER id SET DEFAULT "
            "nextval('the_sequence'::regclass)",
        )
    set_it = f"SELECT setval('{sequence}', max(id)) FROM public.{table};"  # noqa: S608 - shown to a person, not run
    return SequenceBehind(
        f"The next id that {sequence} gives for public.{table}, {in_use}, is in use.",
        "Nothing was written. After a restore or a switch to a replica a sequence can lie below the ids in use, also "
        f"for the portal's inserts. Have the owner of the ledger run: {set_it}",
    )


def _too_many(causes: Mapping[str, str], limit: int) -> TooManyParked:
    tenant, cause = next(iter(causes.items()))
    return TooManyParked(
        f"{len(causes)} tenants cannot be written, and the limit is {limit}. The first is {tenant}: {cause}",
        "The whole run was rolled back: what hits so many is not the fault of a tenant. Remove the cause; look for "
        "triggers, rules, policies, missing partitions and locks of the ledger's tables. If it is theirs, let a run "
        "leave more of them out with --limit-count.",
    )


def _rows(corrections: Sequence[Finding], ids: Mapping[Table, Iterator[int]]) -> Iterator[str]:
    """Yield the corrections as rows of COPY's text format; the ids of their events are taken in turn."""
    inserted = {f.tenant for f in corrections if f.action is Action.INSERT}
    stamped = {f.tenant for f in corrections if f.action is Action.STAMP}
    for f in corrections:
        closed = f.reason is Reason.SKILL_OPEN_AFTER_DELETION and f.tenant not in stamped
        is_past = f.newest_id is not None
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
            str(f.table),
            f.event_kind or NULL,
            str(f.supersedes.id) if f.supersedes else NULL,
            "absent" if f.tenant in inserted else "any" if is_past else "deleted" if closed else "open",
            str(f.newest_id) if is_past else NULL,
            *(map(_text, f.shown_by) if f.shown_by else (NULL, NULL)),
            NULL if f.decision is None else str(f.decision),
            NULL if f.takes_back is None else str(f.takes_back),
            str(next(ids[f.table])) if f.table and f.table in ids and f.event_kind else NULL,
        )
        yield "\t".join(fields) + "\n"


_text = lru_cache(_CACHE_SIZE)(escape)
_iso = lru_cache(_CACHE_SIZE)(datetime.isoformat)


@lru_cache(_CACHE_SIZE)
def _moment_fields(moment: Moment) -> str:
    """Return the four fields of a moment."""
    *times, evidence = moment
    return "\t".join([*map(_iso, times), evidence])
