"""The command that folds old runs."""

from __future__ import annotations

from datetime import timedelta

import click
import structlog

from reconciler.cli import options as settings
from reconciler.cli.output import say

DAYS_KEPT = 90
"""Days of which every run stays, unless more or fewer are asked for."""
FEWEST_DAYS = 30
"""More than `status` looks back."""

_log = structlog.get_logger("reconciler")


@click.command()
@click.option(
    "--keep-days",
    type=click.IntRange(FEWEST_DAYS, 36_500),
    default=DAYS_KEPT,
    show_default=True,
    help="Of how many days every run stays.",
)
@click.option("--dry-run", is_flag=True, help="Say how many there are, and write nothing.")
def prune(*, keep_days: int, dry_run: bool) -> None:
    """Fold clean runs that are long past into one row a day; what is proven stays as it is.

    Runs that found, corrected or could not prove anything stay. Only the tables' owner may do this.
    """
    from reconciler.db.connection import Ledger
    from reconciler.db.prune import prune as fold
    from reconciler.views.folding import folded

    with Ledger(settings.database_url()) as ledger:
        done = fold(ledger, timedelta(days=keep_days), dry_run=dry_run)
    if not dry_run:
        _log.info("runs.folded", runs=done.runs, days=done.days)
    say(folded(done, dry_run=dry_run), stands="" if dry_run else "The runs were folded")
