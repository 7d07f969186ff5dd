"""Close months, read what was closed, and find what has changed since.

A closing is one transaction under the lock of all runs, so nobody but the portal writes while it is made. Its lines
come from one statement, and that everything is proven is asked after it: what commits in between can only refuse it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, time
from itertools import groupby, islice
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from reconciler.core.billing import LineChange, following
from reconciler.core.certificate import Cause, Question, certify
from reconciler.core.closing import (
    FEE_NAME,
    SKILL,
    VAT_NAME,
    Accepted,
    ClosedMonth,
    Closing,
    Differences,
    Invoice,
    KeptPrices,
    OrgTotal,
    PriceList,
    accept,
    changed_months,
    prices_to_keep,
    with_given,
)
from reconciler.core.errors import Refusal
from reconciler.db.certificate import read_certificate, read_verification, refuse_unproven
from reconciler.db.connection import server_cursor
from reconciler.db.decisions import deciding
from reconciler.db.put_right import begin
from reconciler.db.queries import query
from reconciler.db.spool import Rows
from reconciler.db.usage import (
    ROWS_BATCH,
    as_of,
    asked,
    decode_prices,
    kept_prices,
    price_list,
    usage,
    vat_rate,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from datetime import timedelta
    from decimal import Decimal

    from reconciler.core.model import Finding
    from reconciler.db.apply import Author
    from reconciler.db.connection import Cursor

TENANTS_BATCH = 500
"""Tenants whose changed lines are explained at once."""
PERCENT = 100
"""More than any VAT rate."""
CAN_ACCEPT = "`--accept TENANT` or `--accept CAUSE` closes it although that is not proven."
MAX_MONTHS = 60
"""Closed months whose state is read."""

_encode = msgspec.json.encode


class NotClosed(Refusal):
    """The month has no such closing."""


class UnknownName(Refusal):
    """A word is probably misspelt: a closing with it would stay."""


class _Earlier(NamedTuple):
    """A closing that there is."""

    id: int
    number: int
    org: str | None
    prices: str
    corrections_seen: int
    skill_events_seen: int
    suspension_events_seen: int

    def holds(self, org: str | None) -> bool:
        """True if it is of this organisation, or of everybody."""
        return self.org in {None, org}


def close(
    cursor: Cursor,
    month: date,
    *,
    org: str | None = None,
    author: Author,
    accepted: Collection[str] = (),
    prices: Mapping[str, Decimal | None] | None = None,
    settle: timedelta,
    dry_run: bool = False,
) -> Closing:
    """Close a month, by its first day, for an organisation or for everybody: keep its lines less what is kept already.

    `accepted` are tenants, or causes, whose doubts do not stop it, and `prices` those that people say, by skill, `fee`
    or `vat`: None means today's. If nothing has changed since the last closing, or with `dry_run`, nothing is written.

    Raises:
        NotVerified: the month is not proven to its end, or a tenant of it is not.
        PriceUncertain: it is not known that a price held for the whole month.
        UnknownName: nobody knows an organisation, a tenant or a skill, or the fee or the VAT rate is none.
        NotAPrice: a price is NaN or infinite.
        DecisionDenied: the role may not close.
    """
    begin(cursor)
    _refuse_unless_over(cursor, month, settle)
    earlier = _closings(cursor, month)
    _refuse_unknown(cursor, org, accepted, prices or {})
    kept = _prices_to_keep(cursor, month, earlier, prices or {})
    (marks,) = cursor.execute(query("closing_marks")).fetchall()
    # the savepoint takes the table along
    with deciding(), cursor.connection.transaction(force_rollback=dry_run):
        parameters = asked(month, following(month), org) | {"prices": _encode(kept).decode(), "whole": [month]}
        cursor.execute(query("closing_lines_table"))
        fill = query("fill_closing_lines") + b"\n" + usage(cursor, "settled_lines")
        cursor.execute(fill, parameters | {"due": True})
        certificate = read_certificate(cursor, month, following(month), settle=settle, org=org)
        certificate, new = accept(certificate, accepted)
        refuse_unproven(certificate, helps=CAN_ACCEPT)
        closing = _closing(cursor, month, org, author, kept, new, earlier)
        if closing.written:
            _write(cursor, closing, marks)
        cursor.execute(query("drop_closing_lines"))
    return replace(closing, written=False) if dry_run else closing


def _refuse_unless_over(cursor: Cursor, month: date, settle: timedelta) -> None:
    """Refuse a month that no run has verified to its end, before anything else is asked about it."""
    verified_until = read_verification(cursor, settle=settle).verified_until
    begins, ends = (datetime.combine(day, time(), UTC) for day in (month, following(month)))
    verified = certify(Question(begins, ends, settle), verified_until, ())
    refuse_unproven(verified, helps="It can be closed after that.")


def _refuse_unknown(
    cursor: Cursor, org: str | None, accepted: Collection[str], prices: Mapping[str, Decimal | None]
) -> None:
    """Refuse words that nothing in the ledger has."""
    skills = [item.removeprefix(SKILL) for item in prices if item not in {FEE_NAME, VAT_NAME}]
    asked_for = {"org": org, "tenants": [name for name in accepted if name not in {*Cause}], "skills": skills}
    ((is_known, tenants, unpriced),) = cursor.execute(query("unknown_names"), asked_for).fetchall()
    unknown = [f"the organisation {org}"] * (not is_known) + [f"the tenant or cause {name}" for name in tenants]
    unknown += [f"the skill {name}" for name in unpriced]
    vat = prices.get(VAT_NAME)
    # the columns of the ledger and of invoices have two decimals
    finer = [item for item in (FEE_NAME, VAT_NAME) if (given := prices.get(item)) and given != round(given, 2)]
    wrong = [f"A VAT rate of {vat} % is none."] if vat is not None and vat >= PERCENT else []
    wrong += [f"{item}={prices[item]} has more than two decimals." for item in finer]
    if unknown or wrong:
        raise UnknownName(
            f"The ledger does not know {', '.join(unknown)}." if unknown else wrong[0],
            "Nothing was written. Check the spelling; `reconciler usage` shows the names. The VAT rate is in percent; "
            "it and the fee have two decimals at most.",
        )


def _prices_to_keep(
    cursor: Cursor, month: date, earlier: Sequence[_Earlier], given: Mapping[str, Decimal | None]
) -> KeptPrices:
    """Return the prices that the month keeps already, or those that it is to keep, with what people say."""
    if earlier and None not in given.values():
        # whatever today's are
        return with_given(decode_prices(earlier[-1].prices), given, PriceList(fee=None, vat=None, skills={}))
    today = price_list(cursor)
    if earlier:
        return with_given(decode_prices(earlier[-1].prices), given, today)
    last = _closings(cursor, month, or_before=True)
    begins = datetime.combine(month, time(), UTC)
    return prices_to_keep(begins, today, decode_prices(last[-1].prices) if last else None, given)


def _closings(cursor: Cursor, month: date, *, or_before: bool = False) -> list[_Earlier]:
    """Return the closings of a month, the first one first; if there are none, maybe those of the last month closed."""
    asked_for = {"month": month, "or_before": or_before}
    return [_Earlier(*row) for row in cursor.execute(query("closings_of"), asked_for)]


def _closing(  # noqa: PLR0917 - all that a closing keeps
    cursor: Cursor,
    month: date,
    org: str | None,
    author: Author,
    kept: KeptPrices,
    accepted: tuple[Accepted, ...],
    earlier: Sequence[_Earlier],
) -> Closing:
    """Return what is to be written, by what was filled in."""
    ((lines, unpriced),) = cursor.execute(query("closing_counts")).fetchall()
    is_new = not any(one.holds(org) for one in earlier)
    reprices = not earlier or kept != decode_prices(earlier[-1].prices)
    adds = bool(lines or is_new or accepted or reprices)
    return Closing(
        month=month,
        number=len(earlier) + 1,
        org=org,
        by=author.by,
        note=author.note,
        prices=kept,
        accepted=accepted,
        totals=tuple(_totals(cursor, month, org)),
        unpriced=tuple(unpriced),
        reprices=reprices,
        lines=lines,
        adds=adds,
        written=adds,
    )


def _totals(cursor: Cursor, month: date, org: str | None) -> Iterator[OrgTotal]:
    """Yield what the closing holds for each organisation, and those whose invoice is another one."""
    period = {"first": month, "until": following(month)}
    rows = cursor.execute(query("closing_totals"), period | {"org": org}).fetchall()
    invoices = _invoices(cursor, month, [row[0] for row in rows])
    for payer, before, chf, has_lines, is_first in rows:
        total = OrgTotal(payer, before, chf, invoices.get(payer, ()), is_first)
        if has_lines or (is_first and total.invoices and total.not_invoiced != 0):
            yield total


def _invoices(cursor: Cursor, month: date, orgs: list[str]) -> dict[str, tuple[Invoice, ...]]:
    """Return the invoices of some organisations over days of a month."""
    found: dict[str, tuple[Invoice, ...]] = {}
    named = {"first": month, "until": following(month), "orgs": orgs}
    for payer, *invoice in cursor.execute(query("invoices_of"), named):
        found[payer] = (*found.get(payer, ()), Invoice(*invoice))
    return found


def _write(cursor: Cursor, closing: Closing, marks: tuple[int, int, int]) -> None:
    row = {
        **dict(zip(("correction", "skill", "suspension"), marks, strict=True)),
        "month": closing.month,
        "number": closing.number,
        "org": closing.org,
        "by": closing.by,
        "note": closing.note,
        "prices": _encode(closing.prices).decode(),
        "accepted": _encode([one._asdict() for one in closing.accepted]).decode(),
        "total": closing.total_chf,
    }
    ((id_,),) = cursor.execute(query("insert_closing"), row).fetchall()
    cursor.execute(query("insert_closed_lines"), {"closing": id_})


def due(cursor: Cursor, month: date, *, org: str | None = None, tenant: str | None = None) -> Differences:
    """Return what the next closing of a month would hold, and what is behind each line of it.

    Raises:
        NotAPrice: a price is NaN or infinite.
    """
    if month not in kept_prices(cursor):
        price_list(cursor)
    parameters = asked(month, following(month), org, [tenant] if tenant else None) | {"whole": [month], "due": True}
    with server_cursor(cursor, "due") as stream:
        stream.itersize = ROWS_BATCH
        changes = (LineChange(*row) for *row, _ in stream.execute(usage(cursor, "settled_lines"), parameters))
        lines = Rows(LineChange, _with_causes(cursor, changes, _closings(cursor, month)))
    return _differences(cursor, month, None, lines, kept_prices(cursor).get(month))


def closed(
    cursor: Cursor, month: date, number: int, *, org: str | None = None, tenant: str | None = None
) -> Differences:
    """Return what one closing of a month holds, and what is behind each line of it.

    Raises:
        NotClosed: there is no such closing.
    """
    closings = _closings(cursor, month)
    if not 0 < number <= len(closings):
        last = f"the last one is {len(closings)}" if closings else "it was never closed"
        raise NotClosed(
            f"{month:%Y-%m} has no closing {number}: {last}.",
            "`reconciler status` lists the closed months.",
        )
    named = {"month": month, "number": number, "org": org, "tenant": tenant}
    with server_cursor(cursor, "closed") as stream:
        stream.itersize = ROWS_BATCH
        changes = (LineChange(*row) for row in stream.execute(query("closed_lines"), named))
        lines = Rows(LineChange, _with_causes(cursor, changes, closings[: number - 1], closings[number - 1]))
    # a later one may have changed the VAT rate
    return _differences(cursor, month, number, lines, decode_prices(closings[number - 1].prices))


def _differences(
    cursor: Cursor, month: date, number: int | None, lines: Rows[LineChange], kept: KeptPrices | None
) -> Differences:
    return Differences(
        month=month,
        number=number,
        lines=lines,
        vat_rate=kept.vat if kept else vat_rate(cursor),
        invoices=_invoices(cursor, month, sorted({line.org for line in lines})),
        was_closed=kept is not None,
        as_of=as_of(cursor),
    )


def closed_months(cursor: Cursor) -> list[ClosedMonth]:
    """Return how the closed months stand, the latest first, with what has changed of those that are reported."""
    found = {
        row[0]: ClosedMonth(*row) for row in cursor.execute(query("closed_month_totals"), {"max_rows": MAX_MONTHS})
    }
    for month, tenants in cursor.execute(query("reported_months")).fetchall():
        if month in found:
            changes = [*_changes(cursor, [month], tenants)]
            not_taken_in = sum((change.difference_chf for change in changes), found[month].not_taken_in_chf)
            changed = len({change.tenant for change in changes})
            found[month] = found[month]._replace(tenants_changed=changed, not_taken_in_chf=not_taken_in)
    return [*found.values()]


def find_changed_months(cursor: Cursor, tenants: Sequence[str]) -> tuple[list[Finding], str | None]:
    """Return reports of the closed months of some tenants that have changed, and of one month of all of them.

    That is the month at which no run has looked whole for a day, if there is one; it is returned, too, in ISO 8601.
    """
    rows = cursor.execute(query("months_to_look_at")).fetchall()
    months, whole = [month for month, _ in rows], next((month for month, is_due in rows if is_due), None)
    if not months:
        return [], None
    names, changes = iter(tenants), set[LineChange]()
    while batch := [*islice(names, TENANTS_BATCH)]:
        changes.update(_changes(cursor, months, batch))
    if whole:
        changes.update(_changes(cursor, [whole], None))
    return [*changed_months(changes)], whole.isoformat() if whole else None


def _changes(cursor: Cursor, months: Sequence[date], tenants: list[str] | None) -> Iterator[LineChange]:
    """Yield the lines of closed months that are not as their closings have them, of some tenants or of all."""
    parameters = asked(min(months), following(max(months)), None, tenants) | {"whole": [*months], "due": True}
    rows = cursor.execute(usage(cursor, "settled_lines"), parameters).fetchall()
    changes = sorted((LineChange(*row) for *row, is_closed in rows if is_closed), key=attrgetter("month"))
    for month, its in groupby(changes, attrgetter("month")):
        yield from _with_causes(cursor, its, _closings(cursor, month))


def _with_causes(
    cursor: Cursor, changes: Iterable[LineChange], earlier: Sequence[_Earlier], at: _Earlier | None = None
) -> Iterator[LineChange]:
    """Yield changed lines of a month with what was written since its closings before, up to the one `at`."""
    rest = iter(changes)
    while batch := [*islice(rest, TENANTS_BATCH)]:
        since = {org: [one for one in earlier if one.holds(org)][-1:] for org in {change.org for change in batch}}
        tenants = sorted({change.tenant for change in batch if since[change.org]})
        written: dict[str, list[tuple[bool, str | None, str, int, str]]] = {}
        if tenants:
            least = min(one.id for its in since.values() for one in its)
            first = next(one for one in earlier if one.id == least)
            above = {
                "correction": first.corrections_seen,
                "skill": first.skill_events_seen,
                "suspension": first.suspension_events_seen,
            }
            named = {"tenants": tenants, "until": following(batch[0].month)}
            for tenant, *row in cursor.execute(query("causes"), above | named):
                written.setdefault(tenant, []).append(tuple(row))
        for change in batch:
            if its := since[change.org]:
                causes = _causes(change, written.get(change.tenant, []), its[0], at)
                yield change._replace(causes=tuple(dict.fromkeys(causes)))
            else:
                yield change


def _causes(
    change: LineChange, written: Iterable[tuple[bool, str | None, str, int, str]], since: _Earlier, at: _Earlier | None
) -> Iterator[str]:
    """Yield what of all that was written about a tenant can be behind one of its lines."""
    for is_of_all, item, kind, id_, name in written:
        place = {"number": "corrections_seen", "skill": "skill_events_seen"}.get(kind, "suspension_events_seen")
        is_between = getattr(since, place) < id_ <= (getattr(at, place) if at else id_)
        if is_between and (is_of_all or item == change.item):
            yield name
