"""What is billed for a period, for people and programs."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from datetime import UTC, datetime, time
from itertools import chain, groupby, islice
from operator import attrgetter
from typing import TYPE_CHECKING

from rich.text import Text

from reconciler.core.billing import FEE, NOTHING
from reconciler.core.closing import NOT_INCLUDED
from reconciler.core.model import UNKNOWN_ORG
from reconciler.views import ROWS_BATCH, json_in_parts, terminal
from reconciler.views.terminal import Row, plural, print_table, visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import date
    from decimal import Decimal

    from rich.console import Console

    from reconciler.core.billing import Line, Statement

COLUMNS = ("org", "tenant", "item", "month", "days", "price_chf", "amount_chf")
"""Of the CSV: the fields of a line; more columns follow."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How text begins that a spreadsheet would compute."""
MAX_ROWS = 1_000
"""Lines that the table shows; its totals are those of all."""


def document(statement: Statement) -> Iterator[str]:
    """Yield the statement as one JSON document, in parts: days in ISO 8601, CHF as text."""
    return json_in_parts(
        {
            "first_day": statement.first,
            "last_day": statement.last,
            "as_of": statement.as_of,
            "total_chf": statement.total_chf,
            "unknown_chf": statement.unknown_chf,
            "vat_rate": _vat_rates(statement)[0],
            "kept_vat_rates": {f"{month:%Y-%m}": rate for month, rate in statement.kept_vat_rates.items()},
            "closings": {f"{month:%Y-%m}": number for month, number in statement.closed.items()},
            "closed_for": {f"{month:%Y-%m}": orgs for month, orgs in statement.closed_for.items()},
            "time_zone": "UTC",
            "not_included": NOT_INCLUDED,
            "not_taken_in_chf": not_taken_in(statement),
            "lines": iter(statement.lines),
        }
    )


def table_of_values(statement: Statement) -> Iterator[str]:
    """Yield the statement as CSV, in parts: a row of names, then a row for each line."""
    rows = (
        [*(getattr(line, name) for name in COLUMNS), statement.vat_rate_of(line.month), "UTC", NOT_INCLUDED]
        for line in statement.lines
    )
    return csv_in_parts((*COLUMNS, "vat_rate", "time_zone", "not_included"), rows)


def csv_in_parts(names: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """Yield rows as CSV below a row of their names. No text of it is a formula for a spreadsheet."""
    every_row: Iterator[Sequence[object]] = chain([names], ([*map(_cell, row)] for row in rows))
    while some := list(islice(every_row, ROWS_BATCH)):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(some)
        yield text.getvalue()


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def name_of(item: str | None) -> str:
    """Return how an item is called."""
    return "monthly fee" if item is FEE else item


def not_taken_in(statement: Statement) -> Decimal:
    """Return what no closing of the closed months has taken in yet, in CHF."""
    return sum((change.difference_chf for change in statement.changes), NOTHING)


def printed(statement: Statement) -> str:
    """Return the statement for people, as it fits standard output."""
    return terminal.printed(lambda console: show(statement, console))


def show(statement: Statement, console: Console) -> None:
    """Print the statement for people: its lines with a subtotal for each organisation, then a summary."""
    subtotals: dict[str, Decimal] = defaultdict(lambda: NOTHING)
    count = 0
    for count, line in enumerate(statement.lines, 1):  # noqa: B007 - how many there are
        subtotals[line.org] += line.amount_chf
    if count:
        columns = ("ORGANISATION", "TENANT", "ITEM", "MONTH", "DAYS", "PRICE", "CHF")
        print_table(console, columns, _rows(statement.lines, subtotals), right={"DAYS", "PRICE", "CHF"})
        if count > MAX_ROWS:
            console.print(Text(f"… and {count - MAX_ROWS} more; --output csv shows all"))
        console.print()
    for sentences in (summary(statement), *_of_closed_months(statement), not_included(_vat_rates_said(statement))):
        console.print(Text(sentences), soft_wrap=True)


def _rows(lines: Iterable[Line], subtotals: Mapping[str, Decimal]) -> Iterator[Row]:
    """Yield the rows of the table: the lines of each organisation, which name it and its tenants once, and its sum."""
    for number, (org, its) in enumerate(groupby(islice(lines, MAX_ROWS), key=attrgetter("org"))):
        if number:
            yield Row([])
        named, tenant = org, ""
        for line in its:
            cells = (
                named,
                line.tenant if line.tenant != tenant else "",
                name_of(line.item),
                f"{line.month:%Y-%m}",
                str(line.days),
                "-" if line.price_chf is None else str(line.price_chf),
                str(line.amount_chf),
            )
            yield Row([Text(visible(cell)) for cell in cells])
            named, tenant = "", line.tenant
        yield Row([Text(visible(org)), *[""] * 5, Text(str(subtotals[org]))], style="bold")


def summary(statement: Statement) -> str:
    """Return the statement in a few sentences."""
    tenants, orgs = set(), set()
    for line in statement.lines:
        tenants.add(line.tenant)
        orgs.add(line.org)
    seen = f"{plural(len(tenants), 'tenant')}, {plural(len(orgs - {UNKNOWN_ORG}), 'organisation')}"
    sentences = [f"{statement.first} to {statement.last}: CHF {statement.total_chf} before VAT, {seen}."]
    if UNKNOWN_ORG in orgs:
        sentences.append(f"CHF {statement.unknown_chf} of it cannot be invoiced: the organisation is unknown.")
    return " ".join([*sentences, *not_over(statement.until, statement.as_of)])


def not_over(until: date, as_of: datetime) -> Iterator[str]:
    """Say of a period that is not over up to when it is counted."""
    if as_of < datetime.combine(until, time(), UTC):
        yield f"The period is not over: it is counted up to {as_of:%Y-%m-%d %H:%M:%S} UTC."


def _of_closed_months(statement: Statement) -> Iterator[str]:
    """Yield what is said of the months that are shown as they were closed."""
    changed = sorted({change.month for change in statement.changes})
    for month, number in statement.closed.items():
        orgs = statement.closed_for.get(month)
        whom = f" for {', '.join(map(visible, orgs))} alone" if orgs else ""
        yield f"{month:%Y-%m} is shown as it was closed{whom}, in {plural(number, 'closing')}."
    if changed:
        count, months = sum(1 for _ in statement.changes), " and ".join(f"{month:%Y-%m}" for month in changed)
        yield (
            f"CHF {not_taken_in(statement):+} in {plural(count, 'line')} of {months} is not taken in yet: "
            f"`reconciler usage --month {changed[0]:%Y-%m} --changes` shows it."
        )


def _vat_rates(statement: Statement) -> tuple[Decimal, dict[date, Decimal]]:
    """Return the VAT rate of the period, and the closed months of it that keep another one.

    Where all of its months are closed at one rate it is that one, else today's.
    """
    begins, last = statement.first.replace(day=1), statement.last
    kept = {month: rate for month, rate in statement.kept_vat_rates.items() if begins <= month < statement.until}
    is_closed = len(kept) == 12 * (last.year - begins.year) + last.month - begins.month + 1
    rate = kept[begins] if is_closed and len({*kept.values()}) == 1 else statement.vat_rate
    return rate, {month: other for month, other in kept.items() if other != rate}


def _vat_rates_said(statement: Statement) -> str:
    rate, others = _vat_rates(statement)
    return f"{rate} %{''.join(f', {month:%Y-%m} {other} %' for month, other in others.items())}"


def not_included(vat_rates: str) -> str:
    """Say what the amounts leave out, and which days are counted."""
    return f"VAT ({vat_rates}), {NOT_INCLUDED} are not included. Days are UTC days."
