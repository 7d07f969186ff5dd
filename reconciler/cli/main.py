"""The command line: arguments in, a pass, words and an exit code out."""

from __future__ import annotations

import getpass
import os
import signal
import sys
import threading
import time
from contextlib import closing
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click
import structlog

from reconciler import __version__, logs
from reconciler.cli import options as settings
from reconciler.core.errors import Failure
from reconciler.core.model import Mode, Result
from reconciler.core.reasons import REPORTING, Reason

if TYPE_CHECKING:
    from datetime import date
    from zoneinfo import ZoneInfo

    from reconciler.core.model import Outcome

USAGE = 64
"""Exit code of wrong usage or settings (sysexits.h: EX_USAGE)."""
DRIFT = 2
"""Exit code of drift found or corrected, where --detailed-exitcode asks for it."""

ENDING = (signal.SIGTERM, signal.SIGINT)
"""What asks `serve` to end."""

_log = structlog.get_logger("reconciler")


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
@settings.options(settings.SNAPSHOT, settings.CLUSTER, settings.SAFETY, settings.ONCE, settings.OUTPUT)
def plan(**given: Any) -> int:
    """Show what a run would do. Writes nothing, tells nobody."""
    return _pass(Mode.PLAN, **given)


@cli.command()
@settings.options(settings.SNAPSHOT, settings.CLUSTER, settings.SAFETY, settings.ONCE, settings.ALERTS, settings.OUTPUT)
@click.option("--dry-run", is_flag=True, help="Another word for plan: write nothing.")
@click.option("--migrate", "migrate_first", is_flag=True, help="Create missing tables first.")
def run(*, dry_run: bool, migrate_first: bool, **given: Any) -> int:
    """Make one pass: compare, correct, tell."""
    if migrate_first and not dry_run:
        for created in _migrated():
            _log.info("ledger.created", what=created)
    return _pass(Mode.PLAN if dry_run else Mode.RUN, **given)


@cli.command()
@settings.options(settings.CLUSTER, settings.SAFETY, settings.ALERTS, settings.SCHEDULE)
def serve(
    *, cron: str | None, time_zone: ZoneInfo, jitter: timedelta, listen: tuple[str, int], every: timedelta, **given: Any
) -> None:
    """Make passes on a schedule, with /metrics and /healthz, until SIGTERM or SIGINT.

    The pass that is being made then ends first; a second signal ends the process at once.
    """
    from reconciler.cli import assemble as wiring
    from reconciler.cli import serve as schedule
    from reconciler.metrics import RunMetrics

    now = datetime.now(time_zone)
    try:
        when = schedule.trigger(every=every, cron=cron, timezone=time_zone, jitter=jitter)
        period = schedule.period(when, now)
    except ValueError as error:
        raise click.BadParameter(f"{cron!r} is no schedule: {error}.", param_hint="'--cron'") from None
    url = settings.database_url()
    # made once before the first pass, so that what is set wrongly is said at once
    told = wiring.alerts(None, every=period, **given)
    metrics = RunMetrics(period=period, sinks=[sink.name for sink in told.all_sinks])

    def make() -> Outcome:
        outcome = wiring.made(Mode.RUN, url, every=period, undelivered=metrics.undelivered, tenants=None, **given)
        metrics.record(outcome, time.time())
        _say(outcome)
        return outcome

    stop = threading.Event()

    def asked(*_: object) -> None:
        for signal_ in ENDING:
            signal.signal(signal_, signal.SIG_DFL)
        stop.set()

    for signal_ in ENDING:
        signal.signal(signal_, asked)
    schedule.Service(
        make=make,
        when=when,
        period=period,
        metrics=metrics,
        now=lambda: datetime.now(time_zone),
        at_once=cron is None,
    ).run(*listen, stop)


@cli.command()
@click.argument("tenant")
@click.option("--month", type=settings.Month(), help="Show this UTC month alone, as 2026-05.")
@click.option("--all-events", is_flag=True, help="List every event, however many there are.")
@click.option(
    "--svg",
    "picture",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write it to an SVG file too, to put in a mail.",
)
@settings.options(settings.OUTPUT[:1])
def explain(*, tenant: str, month: date | None, all_events: bool, picture: str | None, output: str) -> None:
    """Show one tenant's timeline: every event, which ones were corrections, and what proves their moments."""
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
        click.echo(document(story, period=period))
    else:
        click.echo(printed(story, period=period, all_events=all_events))


@cli.command()
@settings.options(settings.SETTLE, settings.OUTPUT[:1])
def status(*, settle: timedelta, output: str) -> None:
    """Show up to when the ledger is verified true, what is open, and the last runs.

    The exit code says that it could be shown, not that all is well.
    """
    from reconciler.db.connection import snapshot
    from reconciler.db.status import read_status
    from reconciler.views.status import document, printed

    with snapshot(settings.database_url()) as cursor:
        found = read_status(cursor, settle=settle)
    click.echo(document(found) if output == "json" else printed(found))


@cli.command()
@click.option("--month", type=settings.Month(), help="The period: this UTC month, as 2026-05.")
@click.option("--from", "first", type=settings.Day(), help="The period: from this UTC day on, as 2026-05-01 …")
@click.option("--to", "last", type=settings.Day(), help="… up to this one, both of them included.")
@click.option("--org", type=settings.Words(), help="Only what this organisation pays for; unknown is one too.")
@click.option("--tenant", type=settings.Words(), help="Only this tenant.")
@click.option("--verified", is_flag=True, help="Refuse a period that no run has verified to its end.")
@settings.options(settings.SETTLE, settings.LINES)
def usage(
    *,
    month: date | None,
    first: date | None,
    last: date | None,
    org: str | None,
    tenant: str | None,
    verified: bool,
    settle: timedelta,
    output: str,
) -> None:
    """Show what is billed for a period: days and CHF before VAT, by organisation, tenant and skill."""
    from reconciler.db import usage as used
    from reconciler.db.connection import snapshot
    from reconciler.views import usage as view

    begins, until = _period(month, first, last)
    with snapshot(settings.database_url()) as cursor:
        today = used.as_of(cursor).date()
        if begins > today:
            raise settings.WrongSettings(
                f"The period begins on {begins}, and today is {today} in UTC.",
                "Give a period that has begun; it is counted up to now.",
            )
        statement = used.statement(cursor, begins, until, org, tenant)
        if verified:
            used.refuse_unverified(cursor, statement, settle=settle)
    if output == "json":
        click.echo(view.document(statement))
    elif output == "csv":
        click.echo(view.table_of_values(statement), nl=False)
    else:
        click.echo(view.printed(statement))


@cli.command("except")
@click.argument("tenant", type=settings.Words())
@click.argument("reason", type=click.Choice([reason.value for reason in REPORTING]))
@click.option(
    "--until",
    type=settings.Until(),
    metavar="DATE",
    help="Up to the end of this UTC day, as 2026-12-31, or up to this instant, as 2026-12-31T18:00Z.",
)
@click.option("--note", type=settings.Words(), help="Why.")
@click.option("--by", type=settings.Words(), help="Who decides it; else the name of this account.")
@click.option("--revoke", is_flag=True, help="Accept it no longer, from now on.")
def except_(
    *, tenant: str, reason: str, until: datetime | None, note: str | None, by: str | None, revoke: bool
) -> None:
    """Accept a report until then: it stays listed, and nobody is told of it."""
    from reconciler.db import decisions
    from reconciler.db.connection import connect, transaction
    from reconciler.views import decisions as view

    if revoke and (until or note):
        raise click.UsageError("--revoke ends it now: it takes neither --until nor --note.")
    if not revoke and not (until and note):
        raise click.UsageError("Until when, and why? Give --until and --note; or --revoke.")
    decider = _decider(by)
    with closing(connect(settings.database_url())) as ledger, transaction(ledger) as cursor:
        if until and note:
            accepted = decisions.accept(cursor, tenant, Reason(reason), until=until, note=note, by=decider)
            said = view.accepted(accepted)
        else:
            said = view.revoked(tenant, Reason(reason), decisions.revoke(cursor, tenant, Reason(reason)))
    _log.info("report.decided", tenant=tenant, reason=reason, accepted=not revoke, by=decider)
    click.echo(said)


@cli.command()
@click.argument("tenant", type=settings.Words())
@click.option("--note", type=settings.Words(), required=True, help="Why.")
@click.option("--by", type=settings.Words(), help="Who decides it; else the name of this account.")
@settings.options(settings.SNAPSHOT, settings.CLUSTER, settings.DEADLINE)
def reopen(*, tenant: str, note: str, by: str | None, deadline: timedelta, **given: Any) -> None:
    """Begin a new life for a tenant that was deleted and created anew, and keep the one before.

    The ledger's role of the runs may not do this: give it DATABASE_URL of the owner of its tables.
    """
    from reconciler.cli import assemble as wiring
    from reconciler.db import decisions
    from reconciler.db.connection import connect, transaction
    from reconciler.deadline import Deadline
    from reconciler.sources.lookup import look_up
    from reconciler.views import decisions as view

    ends, decider = Deadline.after(deadline.total_seconds()), _decider(by)
    with closing(connect(settings.database_url())) as ledger:
        lookup = look_up(wiring.source(ends, **given), tenant)
        with transaction(ledger, ends.left()) as cursor:
            done = decisions.reopen(cursor, lookup, note=note, by=decider)
    _log.info("tenant.reopened", tenant=tenant, by=decider)
    click.echo(view.reopened(done))


@cli.command()
def demo() -> None:
    """Tell the whole story on a bundled sample and an embedded PostgreSQL."""
    from reconciler.demo.story import tell

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


def _pass(mode: Mode, *, output: str, detailed_exitcode: bool, **given: Any) -> int:
    """Make one pass, show it, and return the exit code."""
    from reconciler.cli import assemble as wiring

    outcome = wiring.made(mode, settings.database_url(), **given)
    _show(outcome, output)
    if outcome.failure:
        return outcome.failure.exit_code
    return DRIFT if detailed_exitcode and outcome.result is not Result.CLEAN else 0


def _period(month: date | None, first: date | None, last: date | None) -> tuple[date, date]:
    """Return the first day of the period that is asked for, and the day after its last one."""
    if month and not (first or last):
        return month, (month + timedelta(days=31)).replace(day=1)
    if month or not (first and last):
        raise click.UsageError("Which period? Give --month 2026-05, or both --from 2026-05-01 and --to 2026-05-31.")
    if last < first:
        raise click.UsageError(f"--to {last} lies before --from {first}.")
    return first, last + timedelta(days=1)


def _show(outcome: Outcome, output: str) -> None:
    from reconciler.views import findings as report

    if output == "json":
        click.echo(report.document(outcome))
    elif outcome.failure is None or outcome.findings:
        click.echo(report.printed(outcome))
    _say(outcome)


def _say(outcome: Outcome) -> None:
    """Say how a pass ended."""
    from reconciler.views import findings as report

    facts = {"run_id": str(outcome.run_id), "mode": outcome.mode, "outcome": outcome.result}
    if outcome.failure:
        _complain(outcome.failure, **facts)
    else:
        _log.info("run.ended", **facts, seconds=round(outcome.seconds, 3), **report.counts(outcome))


def _complain(failure: Failure, **facts: str) -> None:
    """Say what stopped the command: in words on a terminal, as a log line elsewhere."""
    if not sys.stderr.isatty():
        _log.error("command.failed", **facts, error=str(failure), remedy=failure.remedy)
        return
    from reconciler.views.terminal import visible

    click.echo(f"{click.style('Error:', fg='red', bold=True)} {visible(str(failure))}", err=True)
    if failure.remedy:
        click.echo(visible(failure.remedy), err=True)


def _decider(by: str | None) -> str:
    """Return who decides: the name that was given, or the account's."""
    try:
        return by or getpass.getuser()
    except (KeyError, OSError):
        raise settings.WrongSettings(
            "This account has no name: nobody would know who decided it.", "Nothing was written. Give --by."
        ) from None


def _migrated() -> list[str]:
    from reconciler.db.connection import connect
    from reconciler.db.migrate import migrate as create

    with closing(connect(settings.database_url())) as ledger:
        return create(ledger)
