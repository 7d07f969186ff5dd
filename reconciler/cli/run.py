"""The commands that reconcile, and the one that prepares the ledger for them."""

from __future__ import annotations

import signal
import weakref
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import click
import structlog

from reconciler.cli import options as settings
from reconciler.cli.options import AlertSettings, ClusterSettings, OutputSettings, Overrides, SafetySettings
from reconciler.cli.output import say, show
from reconciler.core.errors import Failure
from reconciler.core.model import Mode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RAISED_AGAIN_SECONDS = 0.5
"""After which it is seen whether anybody has taken what a signal raised."""

_log = structlog.get_logger("reconciler")


class Terminated(Failure):
    """The process was told to end."""


@click.command()
def migrate() -> None:
    """Create missing tables and indexes, apply the steps that are due, and list them."""
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
@click.option("--migrate", "migrate_first", is_flag=True, help="Migrate first.")
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
    with terminated_in_order():
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


@contextmanager
def terminated_in_order() -> Iterator[None]:
    """Let SIGTERM fail the run, with its row and its alerts: the first process of a pod would ignore it.

    What is raised while an answer of urllib3's is freed is dropped in silence, as in any finalizer of an io.IOBase. So
    it is raised again until somebody has taken it.

    Raises:
        Terminated: the signal came.
    """
    raised: Callable[[], Terminated | None] = lambda: None  # noqa: E731 - until there is one to refer to

    def terminate(*_: object) -> None:
        nonlocal raised
        signal.signal(signal.SIGTERM, before)
        if raised():
            return
        error = Terminated(
            "The run was told to end (SIGTERM), as when a node is drained or a pod is deleted.",
            "Nothing was written unless the log says so. The next run starts from scratch.",
        )
        raised = weakref.ref(error)
        signal.setitimer(signal.ITIMER_REAL, RAISED_AGAIN_SECONDS)
        try:
            raise error
        finally:
            del error  # its own traceback would keep it

    before, alarm = signal.signal(signal.SIGTERM, terminate), signal.signal(signal.SIGALRM, terminate)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, alarm)
        signal.signal(signal.SIGTERM, before)


def _create_missing() -> list[str]:
    from reconciler.db.connection import connect
    from reconciler.db.migrate import migrate as create

    with closing(connect(settings.database_url())) as ledger:
        return create(ledger)
