"""What is billed, from the ledger: a period's lines for people and programs, and the histories that rules are put to.

The query `usage` prices a period as a whole; `reconciler.core.billing` prices one tenant's history. Both give the same.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec

from reconciler.core.billing import FEE, NOTHING, History, Lifetime, Line, Prices
from reconciler.core.errors import Refusal
from reconciler.core.model import FIRST, LAST, UNKNOWN_ORG, Event
from reconciler.db.queries import query
from reconciler.views.terminal import WIDTH_OF_A_FILE, plural, visible

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from collections.abc import Set as AbstractSet
    from decimal import Decimal

    import psycopg
    from rich.console import Console

COLUMNS = ("org", "tenant", "item", "month", "days", "price_chf", "amount_chf")
"""Of the CSV: the fields of a line."""
LONGEST_TABLE = 1_000
"""Lines that the table shows; its totals are those of all."""
NAMED = 5
"""Tenants that a message names."""
REACH = 2_000
"""Runs among which the one is looked for that proved a tenant: a week of them, before its report was opened."""
MOST = 2**31 - 1
"""As many tenants as there are."""


class NotVerified(Refusal):
    """A later run may still date a correction inside the period."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What was used in a period.

    Attributes:
        first: its first UTC day.
        until: the day after its last one.
        as_of: nothing that happens from then on counts.
        lines: in the order of `reconciler.core.billing.in_order`.
    """

    first: date
    until: date
    as_of: datetime
    lines: tuple[Line, ...]

    @property
    def last(self) -> date:
        """Its last UTC day."""
        return self.until - timedelta(days=1)

    @property
    def total_chf(self) -> Decimal:
        """What all of it costs, before VAT."""
        return _total(self.lines)

    @property
    def unknown_chf(self) -> Decimal:
        """What of that nobody can be invoiced for, since the organisation is not known."""
        return _total(line for line in self.lines if line.org == UNKNOWN_ORG)


# --- reading -----------------------------------------------------------------------------------------------------


def statement(
    cursor: psycopg.Cursor[Any], first: date, until: date, org: str | None = None, tenant: str | None = None
) -> Statement:
    """Read what was used in a period, see `usage`."""
    lines = usage(cursor, first, until, org, tenant)
    return Statement(first=first, until=until, as_of=as_of(cursor), lines=tuple(lines))


def usage(
    cursor: psycopg.Cursor[Any], first: date, until: date, org: str | None = None, tenant: str | None = None
) -> list[Line]:
    """Return what is billed for a period, up to now, in one query however many tenants there are.

    Args:
        cursor: in an open transaction, whose beginning is now.
        first: the period's first UTC day.
        until: the day after its last one.
        org: what this organisation pays for, alone.
        tenant: this tenant, alone.
    """
    parameters = {"first": first, "until": until, "org": org, "tenant": tenant}
    return [
        Line(org=org, tenant=tenant, item=item, month=month, days=days, price_chf=price, amount_chf=amount)
        for org, tenant, item, month, days, price, amount in cursor.execute(query("usage"), parameters)
    ]


def as_of(cursor: psycopg.Cursor[Any]) -> datetime:
    """Return the instant up to which `usage` counts in this transaction."""
    (now,) = cursor.execute(query("as_of")).fetchone() or (None,)
    assert isinstance(now, datetime)  # noqa: S101 - the query returns one
    return now.astimezone(UTC)


def prices(cursor: psycopg.Cursor[Any]) -> Prices:
    """Return today's prices."""
    found = dict(cursor.execute(query("prices")).fetchall())
    fee = found.pop(FEE, NOTHING)
    return Prices(monthly_fee_chf=fee, daily_chf=found)


def histories(
    cursor: psycopg.Cursor[Any], names: Collection[str], items: AbstractSet[tuple[str, str | None]] = frozenset()
) -> dict[str, History]:
    """Return all that is recorded of these tenants, by name; of one that nobody has heard of, an empty history.

    Args:
        cursor: in a transaction of `reconciler.db.connection.transaction`, so that times come in UTC.
        names: of the tenants.
        items: other tenants, each with an item, see `core.billing.FEE`: of their skills, these alone are read.
    """
    known = {*names, *(tenant for tenant, _ in items)}
    parameters = {
        "names": list(known),
        "whole": list(names),
        "tenants": [tenant for tenant, _ in items],
        "skills": [item for _, item in items],
        "first": FIRST,
        "last": LAST,
    }
    lifetimes: dict[str, list[Lifetime]] = defaultdict(list)
    for tenant, org, began_at, ended_at in cursor.execute(query("lives"), parameters):
        lifetimes[tenant].append(Lifetime(org=org, began_at=began_at, ended_at=ended_at))
    skills: dict[str, dict[str, list[Event]]] = defaultdict(lambda: defaultdict(list))
    suspensions: dict[str, list[Event]] = defaultdict(list)
    for tenant, skill, *event in cursor.execute(query("history"), parameters):
        (suspensions[tenant] if skill is None else skills[tenant][skill]).append(Event(*event))
    nothing = History()
    return dict.fromkeys(known, nothing) | {
        name: History(
            lifetimes=tuple(lifetimes[name]),
            skills={skill: tuple(events) for skill, events in skills[name].items()},
            suspensions=tuple(suspensions[name]),
        )
        for name in {*lifetimes, *skills, *suspensions}
    }


def refuse_unverified(cursor: psycopg.Cursor[Any], statement: Statement, *, settle: timedelta) -> None:
    """Refuse a statement that a later run may still change: of a period, or a tenant, not proved to its end.

    What proves is a run over a cluster that succeeded. Where the latest one could not verify a tenant, an earlier one
    will do that began late enough.

    Args:
        cursor: in the transaction that the statement was read in.
        statement: what was read.
        settle: how long after a change the portal may still write its row.

    Raises:
        NotVerified: it is not verified.
    """
    end = datetime.combine(statement.until, time(), UTC)
    _, verified_until, _ = cursor.execute(query("status_verification"), {"settle": settle}).fetchone() or (None,) * 3
    if verified_until is None or verified_until < end:
        so_far = f"only up to {verified_until:%Y-%m-%d %H:%M:%S} UTC" if verified_until else "by no run yet"
        raise NotVerified(
            f"The period ends with {statement.last} UTC, and the ledger is verified {so_far}.",
            "A run may still date a correction inside it. Make one with `reconciler run` after its end and --settle.",
        )
    cursor.execute(query("status_unverified"), {"settle": settle, "reach": REACH, "most": MOST})
    behind = {tenant for tenant, proved_until in cursor if proved_until is None or proved_until < end}
    if listed := sorted(behind & {line.tenant for line in statement.lines}):
        more = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
        raise NotVerified(
            f"No run could verify to the end of the period: {', '.join(map(visible, listed[:NAMED]))}{more}.",
            "`reconciler status` shows what is open about them. Without --verified they are listed as they stand.",
        )


# --- for programs ------------------------------------------------------------------------------------------------


def document(statement: Statement) -> str:
    """Return the statement as one JSON document: days in ISO 8601, CHF as text."""
    content: dict[str, Any] = {
        "first_day": statement.first,
        "last_day": statement.last,
        "as_of": statement.as_of,
        "total_chf": statement.total_chf,
        "unknown_chf": statement.unknown_chf,
        "lines": statement.lines,
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=2).decode()


def table_of_values(statement: Statement) -> str:
    """Return the statement as CSV: a row of names, then one a line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([getattr(line, column) for column in COLUMNS] for line in statement.lines)
    return text.getvalue()


# --- for people --------------------------------------------------------------------------------------------------


def printed(statement: Statement) -> str:
    """Return the statement as it fits standard output: its width and colours on a terminal, neither in a file."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH_OF_A_FILE)
    with console.capture() as captured:
        show(statement, console)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def show(statement: Statement, console: Console) -> None:
    """Print the statement for people: its lines with a subtotal for each organisation, then what it comes to."""
    from rich.table import Table as Grid
    from rich.text import Text

    if statement.lines:
        grid = Grid(box=None, pad_edge=False, show_header=True, header_style="bold")
        for name in ("ORGANISATION", "TENANT", "ITEM", "MONTH"):
            grid.add_column(name, overflow="fold")
        for name in ("DAYS", "PRICE", "CHF"):
            grid.add_column(name, overflow="fold", justify="right")
        subtotals: dict[str, Decimal] = defaultdict(lambda: NOTHING)
        for line in statement.lines:
            subtotals[line.org] += line.amount_chf
        for number, (org, its) in enumerate(groupby(statement.lines[:LONGEST_TABLE], key=attrgetter("org"))):
            if number:
                grid.add_row()
            for row in _rows(its):
                grid.add_row(*(Text(visible(cell)) for cell in row))
            grid.add_row(Text(visible(org)), *[""] * 5, Text(str(subtotals[org])), style="bold")
        console.print(grid)
        if len(statement.lines) > LONGEST_TABLE:
            more = len(statement.lines) - LONGEST_TABLE
            console.print(Text(f"… and {more} more; --output csv shows all"))
        console.print()
    console.print(Text(summary(statement)), soft_wrap=True)


def summary(statement: Statement) -> str:
    """Return the statement in a few sentences."""
    tenants = {line.tenant for line in statement.lines}
    orgs = {line.org for line in statement.lines} - {UNKNOWN_ORG}
    seen = f"{plural(len(tenants), 'tenant')}, {plural(len(orgs), 'organisation')}"
    sentences = [f"{statement.first} to {statement.last}: CHF {statement.total_chf} before VAT, {seen}."]
    if any(line.org == UNKNOWN_ORG for line in statement.lines):
        sentences.append(f"CHF {statement.unknown_chf} of it cannot be invoiced: the organisation is unknown.")
    if statement.as_of < datetime.combine(statement.until, time(), UTC):
        sentences.append(f"The period is not over: it is counted up to {statement.as_of:%Y-%m-%d %H:%M:%S} UTC.")
    return " ".join(sentences)


def _rows(lines: Iterable[Line]) -> Iterator[tuple[str, ...]]:
    """Yield the cells of an organisation's lines; it and its tenants are named once."""
    org = tenant = None
    for line in lines:
        yield (
            line.org if line.org != org else "",
            line.tenant if line.tenant != tenant else "",
            "monthly fee" if line.item is FEE else line.item,
            f"{line.month:%Y-%m}",
            str(line.days),
            "-" if line.price_chf is None else str(line.price_chf),
            str(line.amount_chf),
        )
        org, tenant = line.org, line.tenant


def _total(lines: Iterable[Line]) -> Decimal:
    return sum((line.amount_chf for line in lines), NOTHING)
