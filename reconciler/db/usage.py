"""Read what is billed: a period's lines, and the histories that the rules are applied to.

The query `usage` prices a whole period; `reconciler.core.billing` prices one tenant's history. Both give the same. What
becomes of the lines of the query says the one that follows it.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from reconciler.core.billing import (
    FEE,
    NOTHING,
    History,
    Lifetime,
    Line,
    LineChange,
    Payer,
    Prices,
    Statement,
    following,
)
from reconciler.core.closing import KeptPrices, PriceList
from reconciler.core.errors import Failure
from reconciler.core.model import Event
from reconciler.db.citus import query_for
from reconciler.db.connection import server_cursor
from reconciler.db.queries import query
from reconciler.db.spool import Rows

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from decimal import Decimal

    from reconciler.db.connection import Cursor

ROWS_BATCH = 5_000
"""Rows that are in memory at a time."""

decode_prices = msgspec.json.Decoder(KeptPrices).decode
"""Read the prices that a closing keeps."""

_log = structlog.get_logger(__name__)


class NotAPrice(Failure):
    """Something is billed at a price that is not an amount."""


def statement(cursor: Cursor, first: date, until: date, org: str | None = None, tenant: str | None = None) -> Statement:
    """Read what is billed for a period, up to now, in one query however many tenants there are.

    Now is when the transaction began. The period's days are in UTC, and `until` is the day after its last one; `org`
    restricts it to what this organisation pays for, `tenant` to this tenant. A whole month that is closed is as its
    closings have it, and every other day of it has its prices.

    Raises:
        NotAPrice: a price of it is NaN, which PostgreSQL takes for a number, or infinite.
    """
    parameters = asked(first, until, org, [tenant] if tenant else None)
    closed = {
        month: number
        for month, number in cursor.execute(query("closed_numbers"), {"org": org})
        if first <= month and following(month) <= until
    }
    whole = {"whole": [*closed], "due": False}
    name = "settled_lines" if closed else "usage_lines"
    with server_cursor(cursor, "lines") as stream:
        stream.itersize = ROWS_BATCH
        rows = stream.execute(usage(cursor, name), parameters | whole)
        changes = Rows(LineChange, ())
        lines = Rows(Line, _settled(rows, changes) if closed else (_line(*row) for row in rows))
    return Statement(
        first=first,
        until=until,
        as_of=as_of(cursor),
        lines=lines,
        vat_rate=vat_rate(cursor),
        kept_vat_rates={month: kept.vat for month, kept in kept_prices(cursor).items()},
        closed=closed,
        closed_for={
            month: tuple(orgs)
            for month, is_for_everybody, orgs in cursor.execute(query("closed_months"))
            if month in closed and not is_for_everybody
        },
        changes=changes,
    )


def usage(cursor: Cursor, then: str) -> bytes:
    """Return the query `usage`, followed by another one that says what becomes of its lines."""
    return b"WITH usage AS (\n" + query_for(cursor, "usage") + b"\n)\n" + query(then)


def asked(first: date, until: date, org: str | None = None, tenants: list[str] | None = None) -> dict[str, object]:
    """Return the parameters of the query `usage`, at the prices that the months have."""
    return {"first": first, "until": until, "org": org, "tenants": tenants, "prices": None}


def _settled(rows: Iterable[tuple[Any, ...]], changes: Rows[LineChange]) -> Iterator[Line]:
    """Yield the lines as the closings have them, or else as they are; put what no closing has taken in among `changes`.

    A line of which nothing is left is none.
    """
    for *row, is_closed in rows:
        change = LineChange(*row)
        before = change.days_before, change.chf_before
        now = change.days_after, change.chf_after
        if is_closed and before != now:
            changes.append(change)
        days, amount = before if is_closed else now
        if days or amount:
            yield _line(*change[:4], days, change.price_chf, amount)


def _line(  # noqa: PLR0917 - as the query returns them
    org: str, tenant: str, item: str | None, month: date, days: int, price: Decimal | None, amount: Decimal
) -> Line:
    """Return a line, unless its price is not an amount."""
    _refuse_unless_amount(item, price)
    return Line(org=org, tenant=tenant, item=item, month=month, days=days, price_chf=price, amount_chf=amount)


def _refuse_unless_amount(item: str | None, price: Decimal | None) -> None:
    if price is not None and not price.is_finite():
        what, where = _price(item)
        raise NotAPrice(
            f"{what} is {price} in the ledger, which is not an amount: nothing can be billed at it.",
            f"Set it to an amount in {where}, then repeat the command.",
        )


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
    """Return today's prices, and those of the months that are closed.

    One that is not an amount is warned about and counts as 0: it stops no correction.
    """
    found = {item: price for item, price, _ in cursor.execute(query("prices"))}
    for item, price in [*found.items()]:
        if not price.is_finite():
            _log.warning("price.invalid", price=_price(item)[0], value=str(price), meaning="its impact counts as 0")
            found[item] = NOTHING
    kept = {
        month: Prices(monthly_fee_chf=each.fee, daily_chf=each.skills) for month, each in kept_prices(cursor).items()
    }
    return Prices(monthly_fee_chf=found.pop(FEE, NOTHING), daily_chf=found, kept=kept)


def price_list(cursor: Cursor) -> PriceList:
    """Return today's prices with when each was set or changed last.

    Raises:
        NotAPrice: one is NaN, which PostgreSQL takes for a number, or infinite.
    """
    rows = {item: (price, since) for item, price, since in cursor.execute(query("prices"))}
    for item, (price, _) in rows.items():
        _refuse_unless_amount(item, price)
    vat = cursor.execute(query("vat_rate")).fetchone()
    if vat and not vat[0].is_finite():
        raise NotAPrice(
            f"The VAT rate is {vat[0]} in the ledger, which is no rate.",
            "Set it to percents in public.platform_pricing.vat_rate_chli, then repeat the command.",
        )
    fee = rows.pop(FEE, None)
    return PriceList(fee=fee, vat=vat and (vat[0], vat[1]), skills=rows)


def vat_rate(cursor: Cursor) -> Decimal:
    """Return today's VAT rate, in percent."""
    row = cursor.execute(query("vat_rate")).fetchone()
    return row[0] if row else NOTHING


def kept_prices(cursor: Cursor) -> dict[date, KeptPrices]:
    """Return the prices that the closed months keep, by the first day of the month."""
    return {month: decode_prices(text) for month, text in cursor.execute(query("kept_prices"))}


class Billed:
    """Which days were billed to whom: those of the months that are closed, and of the invoices."""

    def __init__(self, cursor: Cursor) -> None:
        """Read which months are closed."""
        self._cursor = cursor
        self._known: dict[str, list[tuple[int, int]]] = {}
        self._months = cursor.execute(query("closed_months")).fetchall()

    def __call__(self, orgs: set[str]) -> Mapping[str, Sequence[tuple[int, int]]]:
        """Return what was billed to some organisations: the ordinal of a first day, and how many days, each."""
        if new := orgs - self._known.keys():
            for org in new:
                self._known[org] = [
                    (month.toordinal(), (following(month) - month).days)
                    for month, is_for_everybody, only in self._months
                    if is_for_everybody or org in only
                ]
            for org, start, end in self._cursor.execute(query("invoiced_periods"), {"orgs": [*new]}):
                self._known[org].append((start.toordinal(), (end - start).days + 1))
        return {org: self._known[org] for org in orgs}


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
    with server_cursor(cursor, "histories") as stream:
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
