"""What a ledger holds: all of it to the byte, or the billing rows alone as people would write them down."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final, NamedTuple

from psycopg import sql

from reconciler.core.model import FIRST, LAST
from reconciler.db.connection import bound_times, connect, transaction

if TYPE_CHECKING:
    from datetime import datetime

    from reconciler.db.connection import Connection

PUBLIC: Final = ("public",)
BOTH: Final = ("public", "reconciler")

OF_A_STOPPED_PASS: Final = ("reconciler.reports", "reconciler.runs")
"""All that a run writes which was stopped: its own row, and the report that it was."""

Contents = dict[str, list[str]]
"""Every row as PostgreSQL prints it, by table."""


class BillingRows(NamedTuple):
    """The rows that invoices are computed from, without the ids of events, sorted."""

    lifecycles: list[tuple[str, str, datetime, datetime | None]]
    """Tenant, organisation, created_at, deleted_at."""
    skills: list[tuple[str, str, str, str, datetime]]
    """Tenant, organisation, skill, kind, occurred_at."""
    suspensions: list[tuple[str, str, str, datetime]]
    """Tenant, organisation, kind, occurred_at."""

    def beyond(self, before: BillingRows) -> BillingRows:
        """What is in these books and was not in those before."""
        return BillingRows(
            [row for row in self.lifecycles if row not in before.lifecycles],
            [row for row in self.skills if row not in before.skills],
            [row for row in self.suspensions if row not in before.suspensions],
        )


def all_rows(url: str, schemas: tuple[str, ...] = BOTH) -> Contents:
    """Return every row of every table of these schemas."""
    with closing(connect(url)) as ledger:
        tables = ledger.execute(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname = ANY (%s) ORDER BY 1, 2", [list(schemas)]
        ).fetchall()
        found = {}
        for name in tables:
            every_row = sql.SQL("SELECT t::text FROM {} t ORDER BY 1").format(sql.Identifier(*name))
            found[".".join(name)] = [row for (row,) in ledger.execute(every_row)]
        return found


def untouched(contents: Contents) -> Contents:
    """Return what a run that was stopped leaves as it was."""
    return {table: rows for table, rows in contents.items() if table not in OF_A_STOPPED_PASS}


def billing_rows(url: str) -> BillingRows:
    """Return the rows that invoices are computed from; infinite times are brought into those of Python."""
    with closing(connect(url)) as ledger:
        return billing_rows_of(ledger)


def billing_rows_of(ledger: Connection) -> BillingRows:
    """Return them by a connection that is there already, in autocommit mode."""
    with transaction(ledger) as cursor:
        bound_times(cursor)
        return BillingRows(
            cursor.execute(
                "SELECT tenant_name, zitadel_org_id, created_at, deleted_at FROM public.tenant_billing_lifecycle "
                'ORDER BY tenant_name COLLATE "C"'
            ).fetchall(),
            sorted(
                cursor.execute(
                    "SELECT tenant_name, zitadel_org_id, skill_id, event_kind, "
                    "least(greatest(occurred_at, %s), %s) FROM public.tenant_skill_events",
                    [FIRST, LAST],
                ).fetchall()
            ),
            sorted(
                cursor.execute(
                    "SELECT tenant_name, zitadel_org_id, event_kind, "
                    "least(greatest(occurred_at, %s), %s) FROM public.tenant_suspension_events",
                    [FIRST, LAST],
                ).fetchall()
            ),
        )
