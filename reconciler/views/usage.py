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
from reconciler.core.model import UNKNOWN_ORG
from reconciler.views import ROWS_BATCH, json_in_parts, terminal
from reconciler.views.terminal import Row, plural, print_table, visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from decimal import Decimal

    from rich.console import Console

    from reconciler.core.billing import Line, Statement

COLUMNS = ("org", "tenant", "item", "month", "days", "price_chf", "amount_chf")
"""Of the CSV: the fields of a line."""
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
            "lines": iter(statement.lines),
        }
    )


def table_of_values(statement: Statement) -> Iterator[str]:
    """Yield the statement as CSV, in parts: a row of names, then a row for each line."""
    rows = ([getattr(line, column) for column in COLUMNS] for line in statement.lines)
    every_row: Iterator[Sequence[object]] = chain([COLUMNS], rows)
    while some := list(islice(every_row, ROWS_BATCH)):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(some)
        yield text.getvalue()


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
    console.print(Text(summary(statement)), soft_wrap=True)


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
                "monthly fee" if line.item is FEE else line.item,
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
    if statement.as_of < datetime.combine(statement.until, time(), UTC):
        sentences.append(f"The period is not over: it is counted up to {statement.as_of:%Y-%m-%d %H:%M:%S} UTC.")
    return " ".join(sentences)
