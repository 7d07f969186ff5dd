"""Read one tenant's story, or say which tenants an unknown name could mean."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from reconciler.core.billing import Payer
from reconciler.core.certificate import OpenGap
from reconciler.core.closing import ClosedShare
from reconciler.core.errors import Failure, Refusal
from reconciler.core.explanation import Correction, Entry, RecordedLifetime, Story, join_corrections
from reconciler.core.status import Exemption, OpenReport
from reconciler.db.queries import query
from reconciler.db.spool import Rows
from reconciler.db.standing import read_standing

if TYPE_CHECKING:
    from reconciler.db.connection import Cursor

ROWS_BATCH = 5_000
"""Events that are in memory at a time."""
MAX_RUNS_SEARCHED = 10_000
"""Runs among which the one is searched that last found the tenant true."""
MAX_NAMES = 5_000
"""Names that are compared with the unknown one."""
MAX_SUGGESTIONS = 3


class UnknownTenant(Failure):
    """No tenant of that name is in the ledger or in the reports."""


def read_story(cursor: Cursor, tenant: str) -> Story:
    """Read one tenant's story, in a transaction of `reconciler.db.connection.snapshot`.

    Raises:
        UnknownTenant: the ledger has nothing under that name.
    """
    if not _is_storable(tenant):
        raise unknown_tenant(cursor, tenant)

    def rows(name: str) -> list[tuple[Any, ...]]:
        return cursor.execute(query(name), {"tenant": tenant, "max_runs": MAX_RUNS_SEARCHED}).fetchall()

    lifetimes = tuple(RecordedLifetime(*row) for row in rows("explain_lifetimes"))
    corrections = tuple(Correction(*row) for row in rows("explain_corrections"))
    differences = {row.id: row.difference for row in read_standing(cursor, [made.id for made in corrections])}
    corrections = tuple(made._replace(difference=differences.get(made.id)) for made in corrections)
    gaps = tuple(OpenGap(*row) for row in rows("explain_gaps"))
    reports = tuple(OpenReport(*row) for row in rows("explain_reports"))
    exceptions = tuple(Exemption(*row) for row in rows("explain_exceptions"))
    closings = tuple(ClosedShare(*row) for row in rows("explain_closings"))
    with cursor.connection.cursor("events") as stream:
        stream.itersize = ROWS_BATCH
        events = (Entry(*row) for row in stream.execute(query("explain_events"), {"tenant": tenant}))
        entries = Rows(Entry, join_corrections(lifetimes, events, corrections))
    if not (corrections or gaps or reports or exceptions or closings or any(True for _ in entries)):
        raise unknown_tenant(cursor, tenant)
    ((as_of,),), ((verified_at,),) = rows("clock"), rows("explain_verified")
    ((known_since,),) = rows("explain_known_since")
    return Story(
        tenant=tenant,
        as_of=as_of,
        verified_at=verified_at,
        known_since=known_since,
        lifetimes=lifetimes,
        payers=tuple(Payer(*row[1:]) for row in cursor.execute(query("tenant_payers"), {"names": [tenant]})),
        entries=entries,
        corrections=corrections,
        gaps=gaps,
        reports=reports,
        exceptions=exceptions,
        closings=closings,
    )


def unknown_tenant(cursor: Cursor, tenant: str, *, refused: bool = False) -> UnknownTenant:
    """Return the failure that names those that could be meant; `refused` says that it stops a change."""
    remedy = did_you_mean(cursor, tenant)
    failure = UnknownTenant(
        f'The ledger knows no tenant "{tenant}": no lifecycle row, event, correction, report or exception.',
        f"Nothing was changed. {remedy}" if refused else remedy,
    )
    if refused:
        failure.exit_code = Refusal.exit_code
    return failure


def did_you_mean(cursor: Cursor, tenant: str) -> str:
    """Return the question whether one of the known tenants is meant: those that contain the name, then similar ones."""
    named = {"tenant": tenant, "max_names": MAX_NAMES}
    names = [name for (name,) in cursor.execute(query("similar_names"), named)] if _is_storable(tenant) else []
    containing = [name for name in names if tenant and tenant.lower() in name.lower()]
    similar = difflib.get_close_matches(tenant, names, MAX_SUGGESTIONS)
    suggested = list(dict.fromkeys(containing[:MAX_SUGGESTIONS] + similar))[:MAX_SUGGESTIONS]
    return f"Did you mean {' or '.join(suggested)}?" if suggested else "Check the name."


def _is_storable(text: str) -> bool:
    """True if PostgreSQL can hold the text: a command line may have any bytes."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False
