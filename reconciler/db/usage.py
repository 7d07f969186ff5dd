"""Read what is billed: a period's lines, and the histories that the rules are applied to.

The query `usage` prices a whole period; `reconciler.core.billing` prices one tenant's history. Both give the same.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

import structlog

from reconciler.core.billing import FEE, NOTHING, History, Lifetime, Line, Payer, Prices, Statement
from reconciler.core.errors import Failure
from reconciler.core.model import Event
from reconciler.db.queries import query
from reconciler.db.spool import Rows

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from collections.abc import Set as AbstractSet
    from decimal import Decimal

    from reconciler.db.connection import Cursor

ROWS_BATCH = 5_000
"""Rows that are in memory at a time."""

_log = structlog.get_logger(__name__)


class NotAPrice(Failure):
    """Something is billed at a price that is not an amount."""


def statement(cursor: Cursor, first: date, until: date, org: str | None = None, tenant: str | None = None) -> Statement:
    """Read what is billed for a period, up to now, in one query however many tenants there are.

    Now is when the transaction began. The period's days are in UTC, and `until` is the day after its last one; `org`
    restricts it to what this organisation pays for, `tenant` to this tenant.

    Raises:
        NotAPrice: a price of it is NaN, which PostgreSQL takes for a number, or infinite.
    """
    parameters = {"first": first, "until": until, "org": org, "tenant": tenant}
    with cursor.connection.cursor("lines") as stream:
        stream.itersize = ROWS_BATCH
        lines = Rows(Line, (_line(*row) for row in stream.execute(query("usage"), parameters)))
    return Statement(first=first, until=until, as_of=as_of(cursor), lines=lines)


def _line(  # noqa: PLR0917 - as the query returns them
    org: str, tenant: str, item: str | None, month: date, days: int, price: Decimal | None, amount: Decimal
) -> Line:
    """Return a line, unless its price is not an amount."""
    if price is not None and not price.is_finite():
        what, where = _price(item)
        raise NotAPrice(
            f"{what} is {price} in the ledger, which is not an amount: nothing can be billed at it.",
            f"Set it to an amount in {where}, then repeat the command.",
        )
    return Line(org=org, tenant=tenant, item=item, month=month, days=days, price_chf=price, amount_chf=amount)


def _price(item: str | None) -> tuple[str, str]:
    """Return an item's price in words, and its column."""
    if item is FEE:
        return "The monthly fee", "public.platform_pricing.tenant_monthly_fee_chf"
    return f"The daily price of {item}", "public.skill_pricing.daily_price_chf"


def as_of(cursor: Cursor) -> datetime:
    """Return the instant up to which `statement` counts in this transaction."""
    ((now,),) = cursor.execute(query("as_of")).fetchall()
    at: datetime = now.astimezone(UTC)
    return at


def prices(cursor: Cursor) -> Prices:
    """Return today's prices. One that is not an amount is warned about and counts as 0: it stops no correction."""
    found = dict(cursor.execute(query("prices")).fetchall())
    for item, price in [*found.items()]:
        if not price.is_finite():
            _log.warning("price.invalid", price=_price(item)[0], value=str(price), meaning="its impact counts as 0")
            found[item] = NOTHING
    return Prices(monthly_fee_chf=found.pop(FEE, NOTHING), daily_chf=found)


def histories(
    cursor: Cursor, names: Collection[str], items: AbstractSet[tuple[str, str | None]] = frozenset()
) -> Iterator[tuple[str, tuple[Lifetime, ...], Iterator[tuple[str | None, Iterator[Event]]]]]:
    """Yield all that is recorded of these tenants: the name, the lifetimes, and each item with its events.

    `items` are other tenants, each with an item, see `core.billing.FEE`: of their skills, only these are read. Items
    and events are read while they are taken, in their order, so that no history has to fit into memory.
    """
    known = {*names, *(tenant for tenant, _ in items)}
    parameters = {
        "names": list(known),
        "whole": list(names),
        "tenants": [tenant for tenant, _ in items],
        "skills": [item for _, item in items],
    }
    payers: dict[str, tuple[Payer, ...]] = dict.fromkeys(known, ())
    for tenant, org, *days in cursor.execute(query("tenant_payers"), parameters):
        payers[tenant] += (Payer(org, *days),)
    lifetimes: dict[str, tuple[Lifetime, ...]] = dict.fromkeys(known, ())
    for tenant, org, began_at, ended_at in cursor.execute(query("tenant_lifetimes"), parameters):
        lifetimes[tenant] += (Lifetime(org=org, began_at=began_at, ended_at=ended_at, payers=payers[tenant]),)
    with cursor.connection.cursor("histories") as stream:
        stream.itersize = ROWS_BATCH
        for name, rows in groupby(stream.execute(query("tenant_events"), parameters), key=itemgetter(0)):
            events = ((item, (Event(*row[2:]) for row in its)) for item, its in groupby(rows, key=itemgetter(1)))
            yield name, lifetimes.pop(name), events
    for name, lived in lifetimes.items():
        yield name, lived, iter(())


def history(cursor: Cursor, tenant: str, *items: str | None) -> History:
    """Return what is recorded of one tenant, in memory: everything, or only the lifetimes and these items."""
    some = {(tenant, item) for item in items}
    found = History()
    for _, lifetimes, each in histories(cursor, [] if some else [tenant], some):
        # the events are read while they are taken
        events = {item: its for item, its in ((item, tuple(its)) for item, its in each) if not some or item in items}
        found = History(lifetimes=lifetimes).with_events(events)
    return found
