"""The commands that reconcile, and the one that prepares the ledger for them."""

from __future__ import annotations

from contextlib import closing

import click
import structlog

from reconciler.cli import options as settings
from reconciler.cli.options import AlertSettings, ClusterSettings, OutputSettings, Overrides, SafetySettings
from reconciler.cli.output import say, show
from reconciler.core.model import Mode

_log = structlog.get_logger("reconciler")


@click.command()
def migrate() -> None:
    """Create missing tables and indexes, and list them."""
    if created := _create_missing():
        say("\n".join(f"created {what}" for what in created), stands="The ledger was migrated")


@click.command()
@settings.TENANTS
@settings.options(cluster=ClusterSettings, safety=SafetySettings, overrides=Overrides, shown=OutputSettings)
def plan(
    *,
    tenants: str | None,
    cluster: ClusterSettings,
    safety: SafetySettings,
    overrides: Overrides,
    shown: OutputSettings,
) -> int:
    """Show what a run would do. Writes nothing and notifies nobody."""
    from reconciler.cli.assemble import run_once

    outcome = run_once(
        Mode.PLAN, settings.database_url(), cluster=cluster, safety=safety, tenants=tenants, overrides=overrides
    )
    return show(outcome, shown)


@click.command()
@settings.TENANTS
@settings.options(
    cluster=ClusterSettings, safety=SafetySettings, overrides=Overrides, alerts=AlertSettings, shown=OutputSettings
)
@click.option("--dry-run", is_flag=True, help="The same as plan: write nothing.")
@click.option("--migrate", "migrate_first", is_flag=True, help="Create missing tables first.")
def run(
    *,
    tenants: str | None,
    cluster: ClusterSettings,
    safety: SafetySettings,
    overrides: Overrides,
    alerts: AlertSettings,
    shown: OutputSettings,
    dry_run: bool,
    migrate_first: bool,
) -> int:
    """Reconcile once: compare, correct, notify."""
    from reconciler.cli.assemble import run_once

    if migrate_first and not dry_run:
        for created in _create_missing():
            _log.info("ledger.created", what=created)
    outcome = run_once(
        Mode.PLAN if dry_run else Mode.RUN,
        settings.database_url(),
        cluster=cluster,
        safety=safety,
        tenants=tenants,
        overrides=overrides,
        alerts=None if dry_run else alerts,
    )
    return show(outcome, shown)


def _create_missing() -> list[str]:
    from reconciler.db.connection import connect
    from reconciler.db.migrate import migrate as create

    with closing(connect(settings.database_url())) as ledger:
        return create(ledger)
