"""The commands that read the ledger and change nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import click

from reconciler.cli import options as settings
from reconciler.cli.output import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import date

_Found = TypeVar("_Found")


@click.command()
@click.argument("tenant")
@click.option("--month", type=settings.month, help="Show only this UTC month, as 2026-05.")
@click.option("--all-events", is_flag=True, help="List every event, however many there are.")
@click.option(
    "--svg",
    "picture",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Also write it to an SVG file, to attach to an email.",
)
@settings.OUTPUT
def explain(*, tenant: str, month: date | None, all_events: bool, picture: str | None, output: str) -> None:
    """Show one tenant's timeline: every event, which ones were corrections, and the evidence for their times."""
    from reconciler.core.explanation import Period
    from reconciler.db.connection import snapshot
    from reconciler.db.explain import read_story
    from reconciler.views.explain import document, printed, save

    with snapshot(settings.database_url()) as cursor:
        story = read_story(cursor, tenant)
    period = Period.of(month) if month else None
    if picture:
        save(story, picture, period=period, all_events=all_events)
    if output == "json":
        say(document(story, period=period), for_programs=True)
    else:
        say((f"{lines}\n" for lines in printed(story, period=period, all_events=all_events)), end="")


@click.command()
@settings.SETTLE
@settings.OUTPUT
def status(*, settle: timedelta, output: str) -> None:
    """Show until when the ledger is verified, what is open, and the latest runs.

    Exit code 0 means that the status could be shown, not that all is well.
    """
    from reconciler.db.connection import snapshot
    from reconciler.db.status import read_status
    from reconciler.views.status import document, printed

    with snapshot(settings.database_url()) as cursor:
        found = read_status(cursor, settle=settle)
    if output == "json":
        say(document(found), for_programs=True)
    else:
        say(printed(found))


@click.command()
@click.option("--month", type=settings.month, help="Period: this UTC month, as 2026-05.")
@click.option("--from", "first", type=settings.day, help="Period: from this UTC day, as 2026-05-01 …")
@click.option("--to", "last", type=settings.day, help="… to this one, inclusive.")
@click.option(
    "--org", type=settings.text, help="Only what this organisation pays for, or unknown for tenants without one."
)
@click.option("--tenant", type=settings.text, help="Only this tenant.")
@click.option("--verified", is_flag=True, help="Refuse a period that no run has verified to its end.")
@click.option("--changes", is_flag=True, help="Of a month, only what its next closing would hold.")
@click.option("--closing", type=click.IntRange(min=1), help="Of a month, only what its closing of this number holds.")
@settings.SETTLE
@settings.OUTPUT_OR_CSV
def usage(
    *,
    month: date | None,
    first: date | None,
    last: date | None,
    org: str | None,
    tenant: str | None,
    verified: bool,
    changes: bool,
    closing: int | None,
    settle: timedelta,
    output: str,
) -> None:
    """Show what is billed for a period: days and CHF before VAT, by organisation, tenant and skill.

    A whole month that is closed is shown as it was closed.
    """
    if changes or closing is not None:
        if not month or first or last or verified or (changes and closing is not None):
            raise click.UsageError("--changes and --closing go with --month, --org and --tenant, and not together.")
        _show_differences(month, closing, org, tenant, output)
    else:
        _show_usage(_period(month, first, last), org, tenant, settle if verified else None, output)


def _show_usage(
    period: tuple[date, date], org: str | None, tenant: str | None, settle: timedelta | None, output: str
) -> None:
    """Show a period's lines; with `settle`, only if it is proven."""
    from reconciler.db import usage as used
    from reconciler.db.certificate import read_certificate, refuse_unproven
    from reconciler.db.connection import snapshot
    from reconciler.views import usage as view

    begins, until = period
    with snapshot(settings.database_url()) as cursor:
        _refuse_future(begins, used.as_of(cursor).date())
        statement = used.statement(cursor, begins, until, org, tenant)
        if settle is not None:
            refuse_unproven(read_certificate(cursor, begins, until, settle=settle, org=org, tenant=tenant))
    _say(statement, output, view.document, view.table_of_values, view.printed)


def _refuse_future(begins: date, today: date) -> None:
    if begins > today:
        raise settings.WrongSettings(
            f"The period begins on {begins}, and today is {today} in UTC.",
            "Give a period that has begun; it is counted up to now.",
        )


def _show_differences(month: date, closing: int | None, org: str | None, tenant: str | None, output: str) -> None:
    """Show what a closing of the month holds, or what the next one would."""
    from reconciler.db import closing as closings
    from reconciler.db.connection import snapshot
    from reconciler.db.usage import as_of
    from reconciler.views import closing as view

    with snapshot(settings.database_url()) as cursor:
        if closing is None:
            _refuse_future(month, as_of(cursor).date())
            found = closings.due(cursor, month, org=org, tenant=tenant)
        else:
            found = closings.closed(cursor, month, closing, org=org, tenant=tenant)
    _say(found, output, view.differences_document, view.differences_table_of_values, view.differences)


def _say(
    found: _Found,
    output: str,
    document: Callable[[_Found], Iterator[str]],
    table_of_values: Callable[[_Found], Iterator[str]],
    printed: Callable[[_Found], str],
) -> None:
    """Show something as JSON, as CSV or for people."""
    if output == "json":
        say(document(found), for_programs=True)
    elif output == "csv":
        say(table_of_values(found), for_programs=True, end="")
    else:
        say(printed(found))


def _period(month: date | None, first: date | None, last: date | None) -> tuple[date, date]:
    """Return the first day of the period, and the day after its last one."""
    if month and not (first or last):
        return month, (month + timedelta(days=31)).replace(day=1)
    if month or not (first and last):
        raise click.UsageError("Give the period: --month 2026-05, or both --from 2026-05-01 and --to 2026-05-31.")
    if last < first:
        raise click.UsageError(f"--to {last} is before --from {first}.")
    return first, last + timedelta(days=1)
