"""Close months and read what was closed, as `reconciler close` and `usage --changes` do.

The rules are those of the commands, and so are the refusals.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

from psycopg.rows import tuple_row

from reconciler.db import closing as closings
from reconciler.db.connection import shared_transaction
from reconciler.ledger.calls import (
    InvalidArgument,
    refuse_hidden_rows,
    valid_amount,
    valid_id,
    valid_ids,
)
from reconciler.ledger.decisions import SETTLE, TABLES, deciding

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from decimal import Decimal

    from reconciler.core.closing import Closing, Differences
    from reconciler.db.connection import Connection

PRICE_DIGITS, PRICE_SCALE = 13, 5
"""Of a price that a closing keeps."""


def close_month(
    connection: Connection,
    month: date,
    *,
    org: str | None = None,
    by: str,
    note: str,
    accepted: Collection[str] = (),
    prices: Mapping[str, Decimal | None] | None = None,
    settle: timedelta = SETTLE,
    dry_run: bool = False,
) -> Closing:
    """Close a UTC month, by its first day: keep what it costs, or what has changed since it was closed last.

    Without `org` it is closed for everybody. `accepted` are tenants, or causes such as `known_since`, that are not
    proven and do not stop it. `prices` are those that held, by skill, `fee`, or `vat` in percent: None means today's.

    Raises:
        NotVerified: the month is not proven to its end, or a tenant of it is not.
        PriceUncertain: it is not known that a price held for the whole month.
    """
    payer, names = None if org is None else valid_id("org", org), valid_ids("accepted", accepted)
    given = {
        valid_id("prices", item): None if price is None else valid_amount(item, price, PRICE_DIGITS, PRICE_SCALE)
        for item, price in (prices or {}).items()
    }
    first = _valid_month(month)
    with deciding(connection, by, note) as (cursor, author):
        return closings.close(
            cursor, first, org=payer, author=author, accepted=names, prices=given, settle=settle, dry_run=dry_run
        )


def month_changes(
    connection: Connection, month: date, *, org: str | None = None, tenant: str | None = None
) -> Differences:
    """Return what the next closing of a month would hold, and what is behind each line of it."""
    only = _valid_only(org, tenant)
    first = _valid_month(month)
    with shared_transaction(connection) as cursor:
        refuse_hidden_rows(cursor, TABLES)
        cursor.row_factory = tuple_row
        return closings.due(cursor, first, **only)


def month_closing(
    connection: Connection, month: date, number: int, *, org: str | None = None, tenant: str | None = None
) -> Differences:
    """Return what one closing of a month holds; `number` says which, the first being 1.

    Raises:
        NotClosed: there is no such closing.
    """
    only = _valid_only(org, tenant)
    first = _valid_month(month)
    which = _valid_number(number)
    with shared_transaction(connection) as cursor:
        return closings.closed(cursor, first, which, **only)


def _valid_month(value: object) -> date:
    if not isinstance(value, date) or isinstance(value, datetime) or value.day != 1 or value.year == date.max.year:
        raise InvalidArgument(
            f"month is {value!r}, but a month is named by its first day.",
            "Nothing was written. Give a date such as date(2026, 5, 1).",
        )
    return value


def _valid_number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidArgument(f"number is {value!r}, but closings are numbered from 1 on.", "Give an int.")
    return value


def _valid_only(org: str | None, tenant: str | None) -> dict[str, str | None]:
    given = {"org": org, "tenant": tenant}
    return {name: None if value is None else valid_id(name, value) for name, value in given.items()}
