"""The commands by which a person decides about a tenant."""

from __future__ import annotations

import getpass
from datetime import time
from typing import TYPE_CHECKING, NamedTuple

import click
import structlog

from reconciler.cli import options as settings
from reconciler.cli.options import ClusterSettings
from reconciler.cli.output import say
from reconciler.core.reasons import ACCEPTABLE

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime, timedelta

    from reconciler.core.decisions import Lookup, PutRight
    from reconciler.db.apply import Author
    from reconciler.db.connection import Cursor

BY = click.option("--by", type=settings.text, help="Who decides; by default the name of this account.")

_TIME = "An instant, as 2026-05-10T08:00Z, or the beginning of a UTC day, as 2026-05-10."

_log = structlog.get_logger("reconciler")


@click.command("except")
@click.argument("tenant", type=settings.text)
@click.argument("reason", type=click.Choice(ACCEPTABLE))
@click.option(
    "--until",
    type=settings.until,
    metavar="DATE",
    help="Until the end of this UTC day, as 2026-12-31, or until this instant, as 2026-12-31T18:00Z.",
)
@click.option("--note", type=settings.text, help="Why it is decided.")
@BY
@click.option("--revoke", is_flag=True, help="Stop accepting the report, from now on.")
def except_(
    *, tenant: str, reason: str, until: datetime | None, note: str | None, by: str | None, revoke: bool
) -> None:
    """Accept a report for a time: it stays listed, and nobody is notified of it."""
    from reconciler.db import decisions
    from reconciler.db.connection import brief_transaction
    from reconciler.views import decisions as view

    if revoke and (until or note):
        raise click.UsageError("--revoke takes effect now: it takes neither --until nor --note.")
    if not revoke and not (until and note):
        raise click.UsageError("Give either both --until and --note, or --revoke.")
    by = decider(by)
    with brief_transaction(settings.database_url()) as cursor:
        if until and note:
            text = view.accepted(decisions.accept(cursor, tenant, reason, until=until, note=note, by=by))
        else:
            text = view.revoked(tenant, reason, decisions.revoke(cursor, tenant, reason))
    _log.info("report.decided", tenant=tenant, reason=reason, accepted=not revoke, by=by)
    say(text, stands="The decision was written")


DRY_RUN = click.option("--dry-run", is_flag=True, help="Show the rows and what they are worth, and write nothing.")


@click.command()
@click.argument("tenant", type=settings.text)
@click.argument("state", type=click.Choice(["on", "off", "suspended", "running", "alive", "gone", "payer"]))
@click.argument("what", metavar="[SKILL | ORG]", type=settings.text, required=False)
@click.option("--from", "since", type=settings.since, required=True, metavar="TIME", help=_TIME)
@click.option(
    "--to",
    "until",
    type=settings.since,
    metavar="TIME",
    help="Until when; the state before holds again from then on. By default until the next row of the skill or the "
    "suspension, the end of the lifetime or now, whichever is first; of alive and gone the next end, else on and on.",
)
@click.option("--org", type=settings.text, help="With alive, where the ledger has no row: who pays.")
@click.option("--note", type=settings.text, required=True, help="Why it is decided.")
@BY
@DRY_RUN
@settings.OUTPUT
@settings.TENANTS
@settings.options(cluster=ClusterSettings)
@settings.DEADLINE
def record(
    *,
    tenant: str,
    state: str,
    what: str | None,
    since: datetime,
    until: datetime | None,
    org: str | None,
    note: str,
    by: str | None,
    dry_run: bool,
    output: str,
    tenants: str | None,
    cluster: ClusterSettings,
    deadline: timedelta,
) -> None:
    """Record how it was from when until when: on or off SKILL, suspended, running, alive, gone, or payer ORG.

    Outside of that time nothing changes. No row is removed: at each row that says otherwise the right state is
    appended.
    """
    from reconciler.db.apply import Author

    _check_said(state, what, (since, until), org)
    said, author = _Said(tenant, state, what, since, until, org), Author(decider(by), note)

    def decide(cursor: Cursor, lookup: Lookup | None) -> PutRight:
        return _record(cursor, said, author, lookup, dry_run=dry_run)

    done = _decided(decide, tenants, cluster, deadline)
    _say_put_right(done, output)


@click.command()
@click.argument("target", metavar="NUMBER")
@click.option("--note", type=settings.text, required=True, help="Why it is decided.")
@BY
@DRY_RUN
@settings.OUTPUT
@settings.TENANTS
@settings.options(cluster=ClusterSettings)
@settings.DEADLINE
def retract(
    *,
    target: str,
    note: str,
    by: str | None,
    dry_run: bool,
    output: str,
    tenants: str | None,
    cluster: ClusterSettings,
    deadline: timedelta,
) -> None:
    """Take back a correction or a decision by its NUMBER, or a row: skill:ID or suspension:ID.

    The skill or the suspension then reads as if it had never been written. Where that changes how it is now, the
    cluster is looked at: it must show the same.
    """
    from reconciler.db import put_right
    from reconciler.db.apply import Author

    author = Author(decider(by), note)

    def decide(cursor: Cursor, lookup: Lookup | None) -> PutRight:
        return put_right.retract(cursor, target, author=author, lookup=lookup, dry_run=dry_run)

    done = _decided(decide, tenants, cluster, deadline)
    _say_put_right(done, output)


@click.command()
@click.argument("tenant", type=settings.text)
@click.option(
    "--ended",
    type=settings.until,
    metavar="TIME",
    help="When it was deleted, if the ledger does not know: an instant, or the end of this UTC day. Without it, the "
    "last run that proved the tenant counts.",
)
@click.option("--note", type=settings.text, required=True, help="Why it is decided.")
@BY
@DRY_RUN
@settings.OUTPUT
@settings.TENANTS
@settings.options(cluster=ClusterSettings)
@settings.SETTLE
@settings.DEADLINE
def reopen(
    *,
    tenant: str,
    ended: datetime | None,
    note: str,
    by: str | None,
    dry_run: bool,
    output: str,
    tenants: str | None,
    cluster: ClusterSettings,
    settle: timedelta,
    deadline: timedelta,
) -> None:
    """Begin a new lifetime for a tenant that was deleted and recreated, and keep the previous one.

    It is short for `record TENANT gone`, from the end of the row's lifetime to the creation that the cluster shows. The
    database role of the runs may not do this: set DATABASE_URL to the role for decisions, or the tables' owner.
    """
    from reconciler.db import lifetimes
    from reconciler.db.apply import Author

    author = Author(decider(by), note)

    def decide(cursor: Cursor, lookup: Lookup | None) -> PutRight:
        return lifetimes.reopen(
            cursor, tenant, ended_at=ended, settle=settle, author=author, lookup=lookup, dry_run=dry_run
        )

    done = _decided(decide, tenants, cluster, deadline)
    _say_put_right(done, output)


class _Said(NamedTuple):
    """What a person says of a tenant."""

    tenant: str
    state: str
    what: str | None
    """The skill, or the organisation."""
    since: datetime
    until: datetime | None
    org: str | None


def _record(cursor: Cursor, said: _Said, author: Author, lookup: Lookup | None, *, dry_run: bool) -> PutRight:
    from reconciler.db import lifetimes, payers, put_right

    tenant, state, what, since, until, org = said
    if state in {"alive", "gone"}:
        return lifetimes.record_lifetime(
            cursor, tenant, state, since=since, until=until, org=org, author=author, lookup=lookup, dry_run=dry_run
        )
    if state == "payer" and what:
        first, last = since.date(), until.date() if until else None
        return payers.record_payer(cursor, tenant, what, since=first, until=last, author=author, dry_run=dry_run)
    kind = {"on": "enabled", "off": "disabled", "running": "resumed"}.get(state, state)
    return put_right.record(cursor, tenant, what, kind, since=since, until=until, author=author, dry_run=dry_run)


def _check_said(state: str, what: str | None, times: tuple[datetime | None, ...], org: str | None) -> None:
    """Refuse words that do not go together."""
    if (state in {"on", "off", "payer"}) != bool(what):
        raise click.UsageError("Give a skill with on and off, an organisation with payer, and nothing with the others.")
    if state == "payer" and any(at.time() != time() for at in times if at):
        raise click.UsageError("An organisation pays for whole UTC days: give --from and --to as 2026-05-15.")
    if org and state != "alive":
        raise click.UsageError("--org goes with alive, where the ledger has no row of the tenant.")


def _decided(
    decide: Callable[[Cursor, Lookup | None], PutRight],
    tenants: str | None,
    cluster: ClusterSettings,
    deadline: timedelta,
) -> PutRight:
    """Return what is decided in a transaction; where that needs a look at the cluster, after it, in another one."""
    from reconciler.cli.assemble import make_source
    from reconciler.db.connection import brief_transaction
    from reconciler.db.put_right import ClusterNeeded
    from reconciler.deadline import Deadline
    from reconciler.sources.lookup import look_up

    ends, url = Deadline.after(deadline.total_seconds()), settings.database_url()
    try:
        with brief_transaction(url, ends.left()) as cursor:
            return decide(cursor, None)
    except ClusterNeeded as needed:
        # no connection idles while the cluster answers
        lookup = look_up(make_source(cluster, ends, tenants), needed.tenant)
    with brief_transaction(url, ends.left()) as cursor:
        return decide(cursor, lookup)


def _say_put_right(done: PutRight, output: str) -> None:
    from reconciler.views import decisions as view

    if done.number is not None:
        _log.info("decision.written", number=done.number, tenant=done.tenant, by=done.by)
    if output == "json":
        say(view.document(done), for_programs=True, stands="The decision was written")
    else:
        say(view.put_right(done), stands="The decision was written")


def decider(by: str | None) -> str:
    """Return who decides: the given name, or the account's."""
    try:
        return by or getpass.getuser()
    except (KeyError, OSError):
        raise settings.WrongSettings(
            "This account has no name, so the decision would have no author.", "Nothing was written. Give --by."
        ) from None
