"""Write that people accept a report for a time; and what all decisions need: the role, the source.

Each is one transaction, and keeps who decides it (`by`), why (`note`), and when by the database's clock.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg

from reconciler.core.decisions import Acceptance, NotPutRight, second
from reconciler.core.errors import Failure, Refusal
from reconciler.db.explain import unknown_tenant
from reconciler.db.queries import query
from reconciler.db.schema import raise_unless_current

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from reconciler.core.model import Listing
    from reconciler.db.connection import Cursor


class AlreadyOver(Failure):
    """A report cannot be accepted until a time that is past."""

    exit_code = 64


class NotAccepted(Refusal):
    """There is no exception to end."""


HIDES_ROWS = "check_enable_rls"
"""Where PostgreSQL refuses a query because a policy may hide rows from it: no right is missing."""


class DecisionDenied(Failure):
    """The role may not decide."""


def accept(cursor: Cursor, tenant: str, reason: str, *, until: datetime, note: str, by: str) -> Acceptance:
    """Accept a tenant's reports of one reason for a time. This replaces what was decided of them before.

    Such a report need not be open yet. People are notified again from `until` on, in UTC.

    Raises:
        AlreadyOver: `until` is not in the future, by the ledger's clock.
        UnknownTenant: the ledger does not know the tenant.
    """
    now, open_since, accepted_until = _reports(cursor, tenant, reason)
    if until <= now:
        raise AlreadyOver(
            f"{second(until)} UTC is past: by the ledger's clock it is {second(now)} UTC.",
            "Nothing was changed. Give --until a future time; --revoke ends an exception at once.",
        )
    cursor.execute(query("accept_report"), {"tenant": tenant, "reason": reason, "until": until, "note": note, "by": by})
    return Acceptance(tenant, reason, until, note, by, open_since, accepted_until)


def revoke(cursor: Cursor, tenant: str, reason: str) -> datetime | None:
    """End the acceptance of a tenant's reports of one reason; return since when one is open, None if none is.

    Raises:
        UnknownTenant: the ledger does not know the tenant.
        NotAccepted: there is no acceptance to end.
    """
    _, open_since, _ = _reports(cursor, tenant, reason)
    if not cursor.execute(query("end_acceptance"), {"tenant": tenant, "reason": reason}).rowcount:
        raise NotAccepted(
            f"{reason} of {tenant} is not accepted: there is no exception, or it has expired.",
            "Nothing was changed. `reconciler status` lists what is accepted.",
        )
    return open_since


def _reports(cursor: Cursor, tenant: str, reason: str) -> tuple[datetime, datetime | None, datetime | None]:
    """Return the clock, since when such a report is open, and until when it is accepted."""
    raise_unless_current(cursor)
    named = {"tenant": tenant, "reason": reason}
    ((now, is_known, *times),) = cursor.execute(query("tenant_reports"), named).fetchall()
    if not is_known:
        raise unknown_tenant(cursor, tenant, refused=True)
    return now, *times


@contextmanager
def deciding() -> Iterator[None]:
    """Turn a missing right into the failure that says which role may decide."""
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        if error.diag.source_function == HIDES_ROWS:
            raise
        raise DecisionDenied(
            f"The ledger denied it: {error.diag.message_primary}. The role of the runs may not decide.",
            "Nothing was written. Repeat the command with DATABASE_URL of the owner of the ledger's tables, or of the "
            "role for decisions that sql/roles.sql makes.",
        ) from error


def check_source(cursor: Cursor, listing: Listing) -> None:
    """Refuse a list of another source than the ledger's."""
    pinned = cursor.execute(query("source")).fetchone()
    if pinned is None:
        raise NotPutRight(
            "There has been no run yet, so the ledger does not belong to a source.",
            "Nothing was written. Start with a `reconciler run`.",
        )
    if listing.source != pinned[0]:
        raise NotPutRight(
            f"The ledger belongs to the source {pinned[0]}, and this is {listing.source}.",
            "Nothing was written. Is it the right cluster and the right database?",
        )
