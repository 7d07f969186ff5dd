"""The command that closes a month."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING

import click
import structlog

from reconciler.cli import options as settings
from reconciler.cli.decide import BY, DRY_RUN, decider
from reconciler.cli.output import say

if TYPE_CHECKING:
    from datetime import date, timedelta

_PRICE = re.compile(r"[0-9]{1,8}(\.[0-9]{1,5})?")
"""What the columns of the lines can hold."""

_log = structlog.get_logger("reconciler")


@click.command()
@click.argument("month", type=settings.month)
@click.option("--org", type=settings.text, help="Close it for this organisation only; by default for everybody.")
@click.option(
    "--accept",
    type=settings.text,
    multiple=True,
    metavar="TENANT|CAUSE",
    help="Close it although this tenant is not proven, or those that are not for this cause, such as known_since.",
)
@click.option(
    "--accept-price",
    type=settings.text,
    multiple=True,
    metavar="ITEM[=CHF]",
    help="The price that held: of a skill, fee or vat (in percent). Without an amount, today's.",
)
@click.option("--note", type=settings.text, required=True, help="Why it is closed.")
@BY
@DRY_RUN
@settings.SETTLE
@settings.OUTPUT
@settings.DEADLINE
def close(
    *,
    month: date,
    org: str | None,
    accept: tuple[str, ...],
    accept_price: tuple[str, ...],
    note: str,
    by: str | None,
    dry_run: bool,
    settle: timedelta,
    output: str,
    deadline: timedelta,
) -> None:
    """Close a UTC month, as 2026-05: keep what it costs, or what has changed since it was closed last.

    Invoices and adjustments are made from closings. The database role of the runs may not do this: set DATABASE_URL to
    the role for decisions, or the tables' owner.
    """
    from reconciler.db.apply import Author
    from reconciler.db.closing import close as close_month
    from reconciler.db.connection import brief_transaction
    from reconciler.views import closing as view

    given = [*map(_price, accept_price)]
    prices, author = dict(given), Author(decider(by), note)
    if len(prices) < len(given):
        raise click.UsageError("--accept-price names an item twice.")
    with brief_transaction(settings.database_url(), deadline.total_seconds()) as cursor:
        done = close_month(
            cursor, month, org=org, author=author, accepted=accept, prices=prices, settle=settle, dry_run=dry_run
        )
    if done.written:
        _log.info("month.closed", month=f"{month:%Y-%m}", number=done.number, chf=str(done.total_chf), by=done.by)
    stands = "The closing was written" if done.written else ""
    if output == "json":
        say(view.closing_document(done), for_programs=True, stands=stands)
    else:
        say(view.closed(done), stands=stands)


def _price(given: str) -> tuple[str, Decimal | None]:
    """Return an item with the price that is given for it; None: today's."""
    item, sign, amount = given.partition("=")
    if not item or (sign and not _PRICE.fullmatch(amount)):
        raise click.UsageError(f"--accept-price {given} is not a price: write it as mail, mail=1.20 or fee=49.00.")
    return item, Decimal(amount) if sign else None
