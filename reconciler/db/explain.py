"""Read one tenant's story."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reconciler.core.explanation import Correction, Entry, RecordedLifetime, Story, join_corrections
from reconciler.core.status import Exemption, OpenReport
from reconciler.db.names import is_storable, unknown_tenant
from reconciler.db.queries import query

if TYPE_CHECKING:
    import psycopg

MAX_RUNS_SEARCHED = 10_000
"""Runs among which the one is searched that last found the tenant true."""


def read_story(cursor: psycopg.Cursor[Any], tenant: str) -> Story:
    """Read one tenant's story, in a transaction of `reconciler.db.connection.snapshot`.

    Raises:
        UnknownTenant: the ledger has nothing under that name.
    """
    if not is_storable(tenant):
        raise unknown_tenant(cursor, tenant)

    def rows(name: str) -> list[tuple[Any, ...]]:
        return cursor.execute(query(name), {"tenant": tenant, "max_runs": MAX_RUNS_SEARCHED}).fetchall()

    lifetimes = tuple(RecordedLifetime(*row) for row in rows("explain_lifetimes"))
    corrections = tuple(Correction(*row) for row in rows("explain_corrections"))
    events = [Entry(*row) for row in rows("explain_events")]
    reports = tuple(OpenReport(*row) for row in rows("explain_reports"))
    exceptions = tuple(Exemption(*row) for row in rows("explain_exceptions"))
    if not (lifetimes or corrections or events or reports or exceptions):
        raise unknown_tenant(cursor, tenant)
    ((as_of,),), ((verified_at,),) = rows("clock"), rows("explain_verified")
    return Story(
        tenant=tenant,
        as_of=as_of,
        verified_at=verified_at,
        lifetimes=lifetimes,
        entries=join_corrections(lifetimes, events, corrections),
        corrections=corrections,
        reports=reports,
        exceptions=exceptions,
    )
