"""Closed months in words: what a closing holds, and what has changed since."""

from __future__ import annotations

from itertools import groupby, islice
from operator import attrgetter
from typing import TYPE_CHECKING

from rich.text import Text

from reconciler.core.billing import NOTHING, following
from reconciler.core.certificate import Cause
from reconciler.core.closing import NOT_INCLUDED
from reconciler.views import json_in_parts
from reconciler.views.terminal import Row, plural, print_table, printed, visible
from reconciler.views.usage import MAX_ROWS, csv_in_parts, name_of, not_included, not_over

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from reconciler.core.billing import LineChange
    from reconciler.core.closing import Closing, Differences

MAX_NAMES = 3
"""Tenants that a sentence names."""
COLUMNS = (
    "org",
    "tenant",
    "item",
    "month",
    "days_before",
    "days_after",
    "price_chf",
    "chf_before",
    "chf_after",
    "difference_chf",
)
"""Of the CSV: the fields of a changed line; more columns follow."""


def closed(done: Closing) -> str:
    """Say what closing a month has added, or would add."""
    return printed(lambda console: _show_closing(done, console))


def closing_document(done: Closing) -> Iterator[str]:
    """Yield what closing a month has added as one JSON document, in parts: CHF as text."""
    return json_in_parts(
        {
            "month": f"{done.month:%Y-%m}",
            "number": done.number if done.adds else None,
            "written": done.written,
            "org": done.org,
            "by": done.by,
            "note": done.note,
            "total_chf": done.total_chf,
            "lines": done.lines,
            "vat_rate": done.prices.vat,
            "prices": done.prices,
            "unpriced": done.unpriced,
            "accepted": [one._asdict() for one in done.accepted],
            "time_zone": "UTC",
            "not_included": NOT_INCLUDED,
            "orgs": (
                {
                    "org": each.org,
                    "before_chf": each.before,
                    "chf": each.chf,
                    "after_chf": each.after,
                    "not_invoiced_chf": each.not_invoiced,
                    "invoices": [one._asdict() for one in each.invoices],
                }
                for each in done.totals
            ),
        }
    )


def _show_closing(done: Closing, console: Console) -> None:
    month, whom = f"{done.month:%Y-%m}", visible(done.org) if done.org else "everybody"
    what = f"{month}, number {done.number}, for {whom}, by {visible(done.by)}: {visible(done.note)}"
    if not done.adds:
        console.print(Text(f"{month} is closed for {whom}, and nothing has changed since: nothing was written."))
    elif done.written:
        console.print(Text(f"Closed {what}"), soft_wrap=True)
    else:
        console.print(Text(f"Nothing is written: this is a dry run. It would close {what}"), soft_wrap=True)
    if done.totals:
        console.print()
        _print_totals(done, console)
    console.print()
    for sentence in _sentences(done):
        console.print(Text(sentence), soft_wrap=True)


def _print_totals(done: Closing, console: Console) -> None:
    columns = ("ORGANISATION", "BEFORE", "CHF", "TOGETHER", "INVOICES", "INVOICED", "TO ADJUST")
    rows = [
        Row(
            [
                visible(each.org),
                *(str(chf) for chf in (each.before, each.chf, each.after)),
                visible(", ".join(one.number for one in each.invoices)) or "-",
                str(sum((one.chf for one in each.invoices), NOTHING)) if each.invoices else "-",
                "-" if each.not_invoiced is None else f"{each.not_invoiced:+}",
            ]
        )
        for each in done.totals[:MAX_ROWS]
    ]
    print_table(console, columns, rows, right={*columns} - {"ORGANISATION", "INVOICES"})
    if len(done.totals) > MAX_ROWS:
        console.print(Text(f"… and {len(done.totals) - MAX_ROWS} more; --output json has all"))


def _sentences(done: Closing) -> Iterator[str]:
    month = f"{done.month:%Y-%m}"
    yield f"CHF {done.total_chf} before VAT in {plural(done.lines, 'line')}."
    yield not_included(f"{done.prices.vat} %")
    if done.reprices:
        priced = f"the monthly fee, CHF {done.prices.fee}, and {plural(len(done.prices.skills), 'price')} of skills"
        yield f"From now on {month} has these prices: {priced}."
    if done.unpriced:
        yield f"On, and without a price, so that it costs nothing: {', '.join(map(visible, done.unpriced))}."
    for cause, its in groupby(sorted(done.accepted, key=attrgetter("cause")), attrgetter("cause")):
        # of a report, which one
        said = (f"{one.tenant} {one.detail}" if cause == Cause.REPORTED else one.tenant for one in its)
        names = [visible(name) for name in dict.fromkeys(said)]
        more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
        yield f"Accepted, though not proven ({cause}): {', '.join(names[:MAX_NAMES])}{more}."
    if rates := sorted({one.vat_rate for each in done.totals for one in each.invoices} - {done.prices.vat}):
        yield f"Some invoices have another VAT rate: {', '.join(f'{rate} %' for rate in rates)}."
    if done.written:
        yield f"`reconciler usage --month {month} --closing {done.number}` shows its lines."


def differences_document(found: Differences) -> Iterator[str]:
    """Yield changed lines as one JSON document, in parts: days in ISO 8601, CHF as text."""
    return json_in_parts(
        {
            "month": f"{found.month:%Y-%m}",
            "closing": found.number,
            "difference_chf": found.difference_chf,
            "vat_rate": found.vat_rate,
            "time_zone": "UTC",
            "not_included": NOT_INCLUDED,
            "lines": (
                {
                    **{name: getattr(line, name) for name in (*COLUMNS, "causes")},
                    "invoices": [one.number for one in found.invoices.get(line.org, ())],
                }
                for line in found.lines
            ),
        }
    )


def differences_table_of_values(found: Differences) -> Iterator[str]:
    """Yield changed lines as CSV, in parts: a row of names, then a row for each line."""
    rows = (
        [
            *(getattr(line, name) for name in COLUMNS),
            found.vat_rate,
            " ".join(line.causes),
            " ".join(one.number for one in found.invoices.get(line.org, ())),
            "UTC",
            NOT_INCLUDED,
        ]
        for line in found.lines
    )
    return csv_in_parts((*COLUMNS, "vat_rate", "causes", "invoices", "time_zone", "not_included"), rows)


def differences(found: Differences) -> str:
    """Return changed lines for people, as they fit standard output."""
    return printed(lambda console: _show_differences(found, console))


def _show_differences(found: Differences, console: Console) -> None:
    then = "AFTER" if found.number else "NOW"
    names = ("ORGANISATION", "TENANT", "ITEM", "DAYS", "CHF", f"DAYS {then}", f"CHF {then}", "DIFFERENCE")
    count = sum(1 for _ in found.lines)
    if count:
        rows = (Row(_cells(line, found)) for line in islice(found.lines, MAX_ROWS))
        print_table(console, (*names, "BECAUSE OF", "INVOICE"), rows, right={*names[3:]})
        if count > MAX_ROWS:
            console.print(Text(f"… and {count - MAX_ROWS} more; --output csv shows all"))
        console.print()
    for sentence in (_worth(found, count), not_included(f"{found.vat_rate} %")):
        console.print(Text(sentence), soft_wrap=True)


def _worth(found: Differences, count: int) -> str:
    """Say what all lines are worth: what customers owe, and what is owed to them."""
    month, lines = f"{found.month:%Y-%m}", plural(count, "line")
    if not found.was_closed:
        total = f"CHF {found.difference_chf} before VAT in {lines}"
        said = f"{month} was never closed: this is all of it, at today's prices. {total}."
        return " ".join([said, *not_over(following(found.month), found.as_of)])
    what = f"closing {found.number} of {month}" if found.number else f"the next closing of {month}"
    said = f"CHF {found.difference_chf:+} before VAT in {lines} of {what}"
    owed = sum((line.difference_chf for line in found.lines if line.difference_chf > 0), NOTHING)
    credited = owed - found.difference_chf
    if owed and credited:
        return f"{said}: customers owe {owed}, and are owed {credited}."
    owes = "the customers owe it" if owed else "it is owed to the customers"
    return f"{said}: {owes}." if owed or credited else f"{said}."


def _cells(line: LineChange, found: Differences) -> list[str]:
    invoices = ", ".join(one.number for one in found.invoices.get(line.org, ()))
    shown = (
        line.org,
        line.tenant,
        name_of(line.item),
        *(str(cell) for cell in (line.days_before, line.chf_before, line.days_after, line.chf_after)),
        f"{line.difference_chf:+}",
        ", ".join(line.causes) or "-",
        invoices or "-",
    )
    return [visible(cell) for cell in shown]
