"""Fold clean runs that are long past into one row a day. What is proven stays as it is: reconciler/core/folding.py."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from reconciler.core.folding import CleanRun, Folded, fold
from reconciler.core.model import FIRST
from reconciler.db.connection import LedgerDenied, server_cursor
from reconciler.db.queries import query
from reconciler.db.schema import raise_unless_current
from reconciler.db.status import LAST_RUNS

if TYPE_CHECKING:
    from datetime import datetime

    from reconciler.db.connection import Cursor, Ledger

DAY = timedelta(days=1)


def prune(ledger: Ledger, age: timedelta, *, dry_run: bool = False) -> Folded:
    """Fold the clean runs of the UTC days that ended before `age`, each day in a transaction of its own.

    It may be interrupted at any time and repeated any number of times, beside runs: each day locks them out for as long
    as a run's own commit does.

    Raises:
        LedgerDenied: the role is not the owner of the tables.
    """
    with ledger.transaction() as cursor:
        raise_unless_current(cursor)
        if not dry_run and cursor.execute(query("may_prune")).fetchall() != [(True,)]:
            raise LedgerDenied(
                "This role may not remove rows of reconciler.runs.",
                "Nothing was removed. Set DATABASE_URL to the owner of the ledger's tables: the roles of sql/roles.sql "
                "may not, since a role that could rewrite the proof would prove nothing.",
            )
        ((until,),) = cursor.execute(query("foldable_until"), {"age": age, "last_runs": LAST_RUNS}).fetchall()
    runs = days = 0
    day = FIRST
    while until:
        with ledger.transaction() as cursor:
            ((day,),) = cursor.execute(query("day_of_clean_runs"), {"from": day, "until": until}).fetchall()
            if day is None:
                break
            went = _fold_day(cursor, day, dry_run=dry_run)
        runs, days, day = runs + went, days + bool(went), day + DAY
    return Folded(runs, days, until)


def _fold_day(cursor: Cursor, day: datetime, *, dry_run: bool) -> int:
    """Fold the runs of a day, and return how many rows went."""
    if not dry_run:
        cursor.execute(query("lock"))
    opened = [since for (since,) in cursor.execute(query("opened_reports"), {"day": day})]
    with server_cursor(cursor, "clean") as stream:
        rows = stream.execute(query("clean_runs_of_day"), {"day": day})
        folded = fold((CleanRun(*row)._replace(unverified=frozenset(row[3])) for row in rows), opened)
    pairs = [(gone, into) for into, some in folded.items() for gone in some]
    if pairs and not dry_run:
        ids, into = zip(*pairs, strict=True)
        cursor.execute(query("fold_runs"), {"gone": [*ids], "into": [*into]})
    return len(pairs)
