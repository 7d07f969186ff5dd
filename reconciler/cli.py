"""The command line: arguments in, a pass, words and an exit code out."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click
import structlog

from reconciler import __version__, logs, settings
from reconciler.model import Failure, Mode, Reason, Result, Uncertain

if TYPE_CHECKING:
    from datetime import timedelta

    from reconciler.deadline import Deadline
    from reconciler.model import Outcome
    from reconciler.run import Source

USAGE = 64
"""Exit code of wrong usage or settings (sysexits.h: EX_USAGE)."""
DRIFT = 2
"""Exit code of drift found or corrected, where --detailed-exitcode asks for it."""

_log = structlog.get_logger("reconciler")


class WrongSettings(Failure):
    """A setting is missing or wrong."""

    exit_code = USAGE


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="DATABASE_URL names the ledger: postgresql://user:password@host:5432/dbname. Every option can be given as "
    "the variable that its help shows; the option beats the variable. "
    "Exit codes: 0 done, 1 failed, 2 drift (with --detailed-exitcode), 3 refused by a safety rule, 64 wrong usage.",
)
@click.version_option(__version__, prog_name="reconciler")
def cli() -> None:
    """Keep PieCed's billing ledger true.

    Lists the PiecedTenants of a cluster, compares them with the latest events recorded in PostgreSQL, appends what is
    missing and stamps what was deleted. Nothing that stands in the ledger is changed or removed.

    Start with `reconciler demo`, which needs neither a cluster nor a database, or with `reconciler plan`, which writes
    nothing.
    """


@cli.command()
def migrate() -> None:
    """Create the tables and indexes that are missing, and say which."""
    for created in _migrated():
        click.echo(f"created {created}")


@cli.command()
@settings.options(settings.SOURCE, settings.SAFETY, settings.OUTPUT)
def plan(**given: Any) -> int:
    """Show what a run would do. Writes nothing."""
    return _pass(Mode.PLAN, **given)


@cli.command()
@settings.options(settings.SOURCE, settings.SAFETY, settings.OUTPUT)
@click.option("--dry-run", is_flag=True, help="Another word for plan: write nothing.")
@click.option("--migrate", "migrate_first", is_flag=True, help="Create missing tables first.")
def run(*, dry_run: bool, migrate_first: bool, **given: Any) -> int:
    """Make one pass: compare, correct, tell."""
    if migrate_first and not dry_run:
        for created in _migrated():
            _log.info("ledger.created", what=created)
    return _pass(Mode.PLAN if dry_run else Mode.RUN, **given)


@cli.command()
def demo() -> None:
    """Tell the whole story on a bundled sample and an embedded PostgreSQL."""
    from reconciler.demo import tell

    tell()


def main() -> None:
    """Run the command line; every way out has its exit code and leaves no traceback on the terminal."""
    logs.configure()
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = USAGE
    except Failure as failure:
        _complain(failure)
        code = failure.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted; nothing of an unfinished run was written.", err=True)
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except Exception:  # noqa: BLE001 - the edge: what nobody foresaw is logged whole, and has an exit code too
        _log.exception("command.crashed", meaning="a fault in the reconciler; nothing of an unfinished run was written")
        code = 1
    sys.exit(code)


def _pass(mode: Mode, *, output: str, detailed_exitcode: bool, deadline: timedelta, **given: Any) -> int:
    """Make one pass, show it, and return the exit code."""
    from reconciler.deadline import Deadline
    from reconciler.plan import Limits
    from reconciler.run import Pass, Terms

    url, ends = _database_url(), Deadline.after(deadline.total_seconds())
    outcome = Pass(
        database_url=url,
        source=_source(ends, **given),
        deadline=ends,
        terms=Terms(
            mode=mode,
            settle=given["settle"],
            uncertain=Uncertain(given["uncertain"]),
            limits=Limits(
                count=given["limit_count"],
                percent=given["limit_percent"],
                allow_mass=frozenset(Reason(reason) for reason in given["allow_mass"]),
            ),
            accept_source=given["accept_source"],
        ),
    ).execute()
    _show(outcome, output)
    if outcome.failure:
        return outcome.failure.exit_code
    return DRIFT if detailed_exitcode and outcome.result is not Result.CLEAN else 0


def _source(
    deadline: Deadline,
    *,
    tenants: str | None,
    kubeconfig: str | None,
    context: str | None,
    group: str,
    plural: str,
    org_label: str,
    page_size: int,
    **_: Any,
) -> Source:
    if tenants is not None:
        from reconciler.sources.snapshot import Snapshot

        return Snapshot(path=tenants, group=group, org_label=org_label)
    from reconciler.sources import wire
    from reconciler.sources.kubernetes import Cluster

    api = wire.Api(kubeconfig=kubeconfig, context=context, deadline=deadline)
    return Cluster(api=api, group=group, plural=plural, org_label=org_label, page_size=page_size)


def _show(outcome: Outcome, output: str) -> None:
    from reconciler import report

    if output == "json":
        click.echo(report.document(outcome))
    elif outcome.failure is None or outcome.findings:
        click.echo(report.printed(outcome))
    facts = {"run_id": str(outcome.run_id), "mode": outcome.mode, "outcome": outcome.result}
    if outcome.failure:
        _complain(outcome.failure, **facts)
    else:
        _log.info("run.ended", **facts, **report.counts(outcome))


def _complain(failure: Failure, **facts: str) -> None:
    """Say what stopped the command: in words on a terminal, as a log line elsewhere."""
    if not sys.stderr.isatty():
        _log.error("command.failed", **facts, error=str(failure), remedy=failure.remedy)
        return
    click.echo(f"{click.style('Error:', fg='red', bold=True)} {failure}", err=True)
    if failure.remedy:
        click.echo(failure.remedy, err=True)


def _migrated() -> list[str]:
    from reconciler.database import connect
    from reconciler.migrate import migrate as create

    with closing(connect(_database_url())) as ledger:
        return create(ledger)


def _database_url() -> str:
    url = os.environ.get(settings.DATABASE_URL, "")
    if not url:
        raise WrongSettings(
            "DATABASE_URL is not set: there is no ledger to work on.",
            "Set it to postgresql://user:password@host:5432/dbname. To see the reconciler at work without a database, "
            "run `reconciler demo`.",
        )
    return url
