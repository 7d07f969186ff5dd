"""What people decided, in words."""

from __future__ import annotations

from datetime import UTC, time, timedelta
from typing import TYPE_CHECKING

from rich.text import Text

from reconciler.core.billing import LineChange
from reconciler.core.decisions import second
from reconciler.core.model import LAST
from reconciler.views import json_in_parts
from reconciler.views.terminal import Row, print_table, printed, visible

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from rich.console import Console

    from reconciler.core.decisions import Acceptance, PutRight, Reopening
    from reconciler.core.model import Finding


def accepted(decision: Acceptance) -> str:
    """Say that a report is accepted, and when people are notified again."""
    until = decision.until.astimezone(UTC)
    whole_day = until.time() == time()
    shown = f"the end of {until - timedelta(days=1):%Y-%m-%d}" if whole_day else second(until)
    what = f"{decision.reason} of {visible(decision.tenant)}, by {visible(decision.by)}: {visible(decision.note)}"
    sentences = [
        f"Accepted until {shown}, in UTC: {what}",
        f"It was accepted until {second(decision.replaced)} UTC before." if decision.replaced else "",
        f"The report is open since {second(decision.open_since)} UTC and stays listed."
        if decision.open_since
        else "No such report is open now; a new one is listed.",
        f"People are notified of it again from {second(until)} UTC on, if it is still open.",
    ]
    return "\n".join(filter(None, sentences))


def revoked(tenant: str, reason: str, open_since: datetime | None) -> str:
    """Say that a report is no longer accepted, and when people are notified again."""
    notified = (
        f"The report is open since {second(open_since)} UTC: the next run notifies of it again."
        if open_since
        else "No such report is open now; people are notified of a new one."
    )
    return f"No longer accepted: {reason} of {visible(tenant)}\n{notified}"


def document(done: PutRight) -> Iterator[str]:
    """Yield what was put right as one JSON document, in parts: times in ISO 8601, CHF as text."""
    return json_in_parts(
        {
            "number": done.number,
            "tenant": done.tenant,
            "subject": done.skill,
            "state": done.state,
            "from": done.since,
            "to": None if done.until == LAST else done.until,
            "org": done.reopening and done.reopening.begun.org,
            "taken_back": done.taken_back,
            "by": done.by,
            "note": done.note,
            "impact_chf": done.difference_chf,
            "billed_months": [f"{month:%Y-%m}" for month in done.billed],
            "rows": [
                {
                    "occurred_at": row.moment and row.moment.occurred_at,
                    "subject": row.subject,
                    "event_kind": row.event_kind,
                    "recorded": row.recorded,
                    "observed": row.observed,
                }
                for row in done.appended
            ],
            "lines": [
                {name: getattr(line, name) for name in LineChange._fields if name != "causes"}
                | {"difference_chf": line.difference_chf}
                for line in done.changes
            ],
        }
    )


def put_right(done: PutRight) -> str:
    """Say what was put right, or would be: the rows that are appended, and what changes in CHF by month and payer."""
    return printed(lambda console: _show(done, console))


def _show(done: PutRight, console: Console) -> None:
    what = f"the skill {visible(done.skill)} of {visible(done.tenant)}" if done.skill else visible(done.tenant)
    if done.state:
        until = "on" if done.until == LAST else f"to {second(done.until)} UTC"
        said = f"{what} was {done.state} from {second(done.since)} {until}"
    else:
        said = f"taken back of {what}: {visible(done.taken_back or '')}"
    head = f"Number {done.number}" if done.number is not None else "Nothing is written: this is a dry run"
    console.print(Text(f"{head}: {said},\nby {visible(done.by)}: {visible(done.note)}"), soft_wrap=True)
    if done.reopening:
        console.print(Text(_reopened(done.reopening)), soft_wrap=True)
    if done.latest:
        console.print(Text(f"It is {done.latest} now, as the cluster shows."))
    console.print()
    _show_rows(done, console)
    if not done.changes:
        console.print(Text("No day is billed otherwise."))
        return
    columns = ("MONTH", "ORGANISATION", "ITEM", "DAYS", "CHF", "DAYS NOW", "CHF NOW", "DIFFERENCE")
    lines = [
        Row(
            [
                f"{line.month:%Y-%m}",
                visible(line.org),
                visible(line.item or "monthly fee"),
                *(str(cell) for cell in (line.days_before, line.chf_before, line.days_after, line.chf_after)),
                f"{line.difference_chf:+}",
            ]
        )
        for line in done.changes
    ]
    print_table(console, columns, lines, right={*columns[3:]})
    owed = "the customer owes it" if done.difference_chf > 0 else "it is owed to the customer"
    worth = f"Together CHF {done.difference_chf:+} before VAT, at today's prices, in closed months at theirs"
    console.print(Text(f"{worth}: {owed}." if done.difference_chf else f"{worth}."))
    if done.billed:
        months = ", ".join(f"{month:%Y-%m}" for month in done.billed)
        console.print(Text(f"Billed already: {months}. An adjustment is due."))


def _show_rows(done: PutRight, console: Console) -> None:
    """Show what is appended; a lifetime ends for every skill, so there each row names its own."""
    names_skills = done.skill is None and any(row.subject for row in done.appended)
    columns = ("WHEN (UTC)", *(["SKILL"] if names_skills else []), "APPENDED", "IN PLACE OF")
    rows = [
        Row([second(row.moment.occurred_at), *([skill] if names_skills else []), _says(row), row.recorded or "-"])
        for row, skill in ((row, visible(row.subject or "-")) for row in done.appended)
        if row.moment
    ]
    if rows:
        print_table(console, columns, rows)
        console.print()


def _says(row: Finding) -> str:
    return row.event_kind or "nothing: it lies in the future, and is left out"


def _reopened(begins: Reopening) -> str:
    """Say which lifetime begins, which one is kept, and what the next run does."""
    closed, begun = begins.closed, begins.begun
    before = f"{second(closed.created_at)} to {second(closed.deleted_at or LAST)} UTC"
    assumed = ", as far as runs have proved it; give --ended if somebody knows when it ended"
    return (
        f"It is billed to {visible(begun.org)} from {second(begun.created_at)} UTC on, when it was recreated.\n"
        f"Its lifetime before is kept: {visible(closed.org)}, {before}{assumed if begins.is_assumed else ''}.\n"
        "The next run compares its skills and its suspension, and corrects them from then on."
    )
