"""Put the past right, as `reconciler record`, `retract` and `reopen` do: who decides says who, and why.

The rules are those of the commands, and so are the refusals. Each takes the lock that runs take, and holds it until the
caller's transaction ends.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

from psycopg.rows import tuple_row

from reconciler.core.decisions import Lookup
from reconciler.core.lifetimes import ALIVE, GONE
from reconciler.core.model import Listing, Observed
from reconciler.db import lifetimes, payers, put_right
from reconciler.db.apply import Author
from reconciler.db.connection import shared_transaction
from reconciler.ledger.calls import (
    InvalidArgument,
    refuse_hidden_rows,
    valid_flag,
    valid_id,
    valid_ids,
    valid_moment,
    valid_moment_or_now,
    valid_text,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from reconciler.core.decisions import PutRight
    from reconciler.db.connection import Connection, Cursor

SETTLE = timedelta(seconds=60)
"""How long after a change the portal may still write its row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a cluster shows under a tenant's name: its custom resource, or that there is none."""

    source: str
    """The uid of the cluster's namespace kube-system."""
    uid: str | None = None
    """metadata.uid; None: there is no such resource, and nothing else counts."""
    created_at: datetime | None = None
    """metadata.creationTimestamp."""
    deleting_at: datetime | None = None
    """metadata.deletionTimestamp."""
    org: str | None = None
    """The label."""
    packages: Collection[str] = ()
    suspended: bool = False


def decide_skill(
    connection: Connection,
    tenant: str,
    skill: str,
    *,
    enabled: bool,
    since: datetime,
    until: datetime | None = None,
    by: str,
    note: str,
    dry_run: bool = False,
) -> PutRight:
    """Decide that a skill was on, or off, from `since` until `until`; outside of that time nothing changes.

    `enabled` says which. Without `until` it is so until the next row of the skill, the end of the lifetime or now,
    whichever is first.
    """
    kind = "enabled" if valid_flag("enabled", enabled) else "disabled"
    return _decide_state(connection, tenant, valid_id("skill", skill), kind, (since, until), (by, note), dry_run)


def decide_suspension(
    connection: Connection,
    tenant: str,
    *,
    suspended: bool,
    since: datetime,
    until: datetime | None = None,
    by: str,
    note: str,
    dry_run: bool = False,
) -> PutRight:
    """Decide that a tenant was suspended, or ran; `suspended` says which. Else it is like `decide_skill`.

    That goes for `since` and `until`, too.
    """
    kind = "suspended" if valid_flag("suspended", suspended) else "resumed"
    return _decide_state(connection, tenant, None, kind, (since, until), (by, note), dry_run)


def _decide_state(  # noqa: PLR0917 - all that is said
    connection: Connection,
    tenant: str,
    skill: str | None,
    kind: str,
    times: tuple[datetime, datetime | None],
    author: tuple[str, str],
    dry_run: bool,  # noqa: FBT001 - handed on
) -> PutRight:
    name, (since, until) = valid_id("tenant", tenant), _valid_times(*times)
    with deciding(connection, *author) as (cursor, who):
        return put_right.record(cursor, name, skill, kind, since=since, until=until, author=who, dry_run=dry_run)


def decide_lifetime(
    connection: Connection,
    tenant: str,
    *,
    alive: bool,
    since: datetime,
    until: datetime | None = None,
    org: str | None = None,
    by: str,
    note: str,
    shown: Shown | None = None,
    dry_run: bool = False,
) -> PutRight:
    """Decide that a tenant lived, or was gone, from `since` until `until`: the ends of its lifetimes move.

    `alive` says which. Without `until` it is so until the next end of a lifetime, else on and on. `org` pays for the
    first lifetime of a tenant, and is not asked for otherwise: where another one pays, it is refused.
    """
    said = ALIVE if valid_flag("alive", alive) else GONE
    name, (since, until) = valid_id("tenant", tenant), _valid_times(since, until)
    payer, lookup = None if org is None else valid_id("org", org), _lookup(name, shown)
    with deciding(connection, by, note) as (cursor, who):
        return lifetimes.record_lifetime(
            cursor, name, said, since=since, until=until, org=payer, author=who, lookup=lookup, dry_run=dry_run
        )


def decide_payer(
    connection: Connection,
    tenant: str,
    org: str,
    *,
    since: date,
    until: date | None = None,
    by: str,
    note: str,
    dry_run: bool = False,
) -> PutRight:
    """Decide that an organisation pays for a tenant from the UTC day `since` until the day before `until`.

    Without `until` it pays until the lifetime ends. Events keep the organisation that they have.

    Raises:
        InvalidArgument: also if `org` is empty or None.
    """
    name, payer = valid_id("tenant", tenant), valid_id("org", org)
    first, last = _valid_day("since", since), None if until is None else _valid_day("until", until)
    with deciding(connection, by, note) as (cursor, who):
        return payers.record_payer(cursor, name, payer, since=first, until=last, author=who, dry_run=dry_run)


def retract(
    connection: Connection,
    target: int | str,
    *,
    by: str,
    note: str,
    shown: Shown | None = None,
    dry_run: bool = False,
) -> PutRight:
    """Take back a correction or a decision, as if it had never been written: `target` is its number.

    Any row of a skill or a suspension is taken back, too, as `skill:ID` or `suspension:ID`.
    """
    named = str(target) if isinstance(target, int) else valid_text("target", target, "Give a number, or skill:ID.")
    with deciding(connection, by, note) as (cursor, who):
        try:
            return put_right.retract(cursor, named, author=who, dry_run=dry_run)
        except put_right.ClusterNeeded as needed:
            if shown is None:
                raise
            lookup = _lookup(needed.tenant, shown)
        return put_right.retract(cursor, named, author=who, lookup=lookup, dry_run=dry_run)


def reopen(
    connection: Connection,
    tenant: str,
    *,
    shown: Shown,
    ended_at: datetime | None = None,
    settle: timedelta = SETTLE,
    by: str,
    note: str,
    dry_run: bool = False,
) -> PutRight:
    """Begin a new lifetime for a tenant that was deleted and recreated, and keep the one before.

    `ended_at` says when that ended, where the ledger has its row open; without it, it ends with the last run that
    proved it. `settle` is what the runs use.
    """
    name, at = valid_id("tenant", tenant), valid_moment_or_now("ended_at", ended_at)
    lookup = _lookup(name, shown)
    with deciding(connection, by, note) as (cursor, who):
        return lifetimes.reopen(cursor, name, ended_at=at, settle=settle, author=who, lookup=lookup, dry_run=dry_run)


@contextmanager
def deciding(connection: Connection, by: str, note: str) -> Iterator[tuple[Cursor, Author]]:
    """Yield a cursor in the caller's transaction, and who decides."""
    author = Author(valid_text("by", by, "Say who decides."), valid_text("note", note, "Say why it is decided."))
    with shared_transaction(connection) as cursor:
        refuse_hidden_rows(cursor, TABLES)
        cursor.row_factory = tuple_row
        yield cursor, author


TABLES = [
    *("public.tenant_billing_lifecycle", "public.tenant_skill_events", "public.tenant_suspension_events"),
    *("public.platform_pricing", "public.skill_pricing", "public.invoices"),
]
"""What a decision is about."""


def _valid_times(since: datetime, until: datetime | None) -> tuple[datetime, datetime | None]:
    return valid_moment("since", since), valid_moment_or_now("until", until)


def _valid_day(name: str, value: object) -> date:
    """Return a day: a time would be cut to the day that it has in its own zone."""
    if not isinstance(value, date) or isinstance(value, datetime):
        raise InvalidArgument(
            f"{name} is {value!r}, but an organisation pays for whole UTC days.", "Nothing was written. Give a date."
        )
    return value


def _lookup(tenant: str, shown: Shown | None) -> Lookup | None:
    """Return what the cluster shows as the rules know it."""
    if shown is None:
        return None
    listing = Listing(valid_id("shown.source", shown.source))
    if shown.uid is None:
        return Lookup(tenant, listing, None)
    resource = Observed(
        tenant,
        uid=valid_id("shown.uid", shown.uid),
        org=None if shown.org is None else valid_id("shown.org", shown.org),
        created_at=valid_moment("shown.created_at", shown.created_at),
        deleting_at=valid_moment_or_now("shown.deleting_at", shown.deleting_at),
        packages=tuple(sorted(valid_ids("shown.packages", shown.packages))),
        suspended=valid_flag("shown.suspended", shown.suspended),
    )
    return Lookup(tenant, listing, resource)
