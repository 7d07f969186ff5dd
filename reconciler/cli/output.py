"""What a command prints of a run and of a failure, and its exit codes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click
import structlog

from reconciler.core.model import Result

if TYPE_CHECKING:
    from reconciler.cli.options import OutputSettings
    from reconciler.core.errors import Failure
    from reconciler.core.model import Outcome

FAILED = 1
"""Exit code of a command that failed."""
DRIFT = 2
"""Exit code of drift found or corrected, with --detailed-exitcode."""
USAGE = 64
"""Exit code of wrong usage or settings (sysexits.h: EX_USAGE)."""
INTERRUPTED = 130
"""Exit code of a command that was interrupted, as a shell reports SIGINT."""

_log = structlog.get_logger("reconciler")


def show(outcome: Outcome, settings: OutputSettings) -> int:
    """Print what a run found, log how it ended, and return its exit code."""
    from reconciler.views import findings as report

    if settings.output == "json":
        for part in report.document(outcome):
            click.echo(part, nl=False)
        click.echo()
    elif outcome.failure is None or outcome.findings:
        click.echo(report.printed(outcome))
    log_end(outcome)
    if outcome.failure:
        return outcome.failure.exit_code
    return DRIFT if settings.detailed_exitcode and outcome.result is not Result.CLEAN else 0


def log_end(outcome: Outcome) -> None:
    """Log how a run ended."""
    from reconciler.views import findings as report

    facts = {"run_id": str(outcome.run_id), "mode": outcome.mode, "outcome": outcome.result}
    if outcome.failure:
        complain(outcome.failure, **facts)
    else:
        _log.info("run.ended", **facts, seconds=round(outcome.seconds, 3), **report.counts(outcome))


def complain(failure: Failure, **facts: str) -> None:
    """Say what stopped the command: in words on a terminal, as a log line elsewhere."""
    if not sys.stderr.isatty():
        _log.error("command.failed", **facts, error=str(failure), remedy=failure.remedy)
        return
    from reconciler.views.terminal import visible

    click.echo(f"{click.style('Error:', fg='red', bold=True)} {visible(str(failure))}", err=True)
    if failure.remedy:
        click.echo(visible(failure.remedy), err=True)
