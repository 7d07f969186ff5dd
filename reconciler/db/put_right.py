"""Put right what a person knows better: how a key was from when until when, or that a row should not be there.

Each is one transaction under the lock of all runs. The rules are those of `reconciler.core.replay`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import psycopg

from reconciler.core.billing import NOTHING, History, lines
from reconciler.core.decisions import NotPutRight, PutRight, line_changes, refuse_against_cluster, second
from reconciler.core.model import FIRST, STATES, Event, Evidence, Moment
from reconciler.core.reasons import Reason
from reconciler.core.replay import Decided, Restated, restate, state_at
from reconciler.db.apply import Author, write_decided
from reconciler.db.decisions import NotTheOwner, check_source
from reconciler.db.explain import unknown_tenant
from reconciler.db.keys import KeyHistory, left_out, read_key
from reconciler.db.queries import query
from reconciler.db.schema import raise_unless_current
from reconciler.db.usage import histories, prices

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from reconciler.core.billing import Lifetime, Line
    from reconciler.core.decisions import LineChange, Lookup
    from reconciler.core.model import Finding
    from reconciler.db.connection import Cursor

NEXT = 2**63
"""The place of a decision that is not written yet: after every event."""
MAX_DIGITS = 18
"""Of an id: PostgreSQL's highest has 19."""
TABLES = {"skill": "tenant_skill_events", "suspension": "tenant_suspension_events"}
"""How a row is named that no correction wrote: skill:ID or suspension:ID."""


class ClusterNeeded(NotPutRight):
    """The latest state would change, and nobody has looked at the cluster."""

    tenant: str = ""
    """What to look up."""


class _Target(NamedTuple):
    """What is to be taken back."""

    words: str
    tenant: str
    skill: str | None
    event_ids: frozenset[int]
    number: int | None
    """None: no correction wrote it."""
    decision: int | None


def record(
    cursor: Cursor,
    tenant: str,
    skill: str | None,
    kind: str,
    *,
    since: datetime,
    until: datetime | None = None,
    author: Author,
    dry_run: bool = False,
) -> PutRight:
    """Record that a skill, or the suspension, was in a state from one instant until another; nothing else changes.

    `kind` is that of the event which begins the state: enabled, disabled, suspended or resumed. Without `until` it is
    the key's next row, the end of the lifetime or now, whichever is first. With `dry_run` nothing is written.

    Raises:
        NotPutRight: the time is not inside one lifetime, or after now.
        UnknownTenant: the ledger does not know the tenant.
    """
    now = begin(cursor)
    lived = _lifetimes(cursor, tenant)
    if not lived:
        raise unknown_tenant(cursor, tenant, refused=True)
    known = read_key(cursor, (tenant, skill))
    lifetime, until = _bounds(known, lived, since, until, now)
    new = Decided(0, kind, since, until, NEXT)
    decided = (*known.decisions.standing, new)
    pins = {since, until}
    stated = restate(known.events, known.aside, decided, known.nothing, as_of=now, pins=pins)
    moment = Moment(since, since, until, Evidence.DECIDED)
    appended = [
        known.appended(one, Reason.RECORDED, None, moment._replace(occurred_at=one.at), lifetime.org)
        for one in stated
        if since <= one.at <= until
    ]
    priced, changes = _priced(cursor, known, lived, appended, now)
    done = PutRight(None, tenant, skill, STATES[kind], since, until, None, priced, changes, *author)
    return done if dry_run else done._replace(number=_write(cursor, priced, author))


def retract(
    cursor: Cursor, target: str, *, author: Author, lookup: Lookup | None = None, dry_run: bool = False
) -> PutRight:
    """Take back a correction or a decision about a skill or a suspension by its number, or any row: `skill:ID`.

    Its key then reads as if it had never been written. Where its latest state changes, the cluster must show that:
    `lookup` is what it shows of the tenant.

    Raises:
        NotPutRight: there is nothing to take back, it is taken back already, or the cluster shows another state.
        ClusterNeeded: the latest state would change, and there is no `lookup`.
    """
    now = begin(cursor)
    found = _target(cursor, target)
    known = read_key(cursor, (found.tenant, found.skill))
    standing = [one for one in known.decisions.standing if one.number != found.decision]
    aside = known.aside | found.event_ids
    stated = [*restate(known.events, aside, standing, known.nothing, as_of=now)]
    latest = _latest(cursor, known, stated, found, lookup=lookup, now=now)
    row = next((row for row in known.rows if row.id in found.event_ids), None)
    if row is None:
        raise NotPutRight(
            f"The ledger does not show what {found.words} wrote: an unknown hand took it out.",
            f"Nothing was written. `reconciler explain {found.tenant}` shows what it wrote.",
        )
    if not stated and row.occurred_at <= now:
        # it leaves a number too where nothing reads otherwise without it
        stated = [Restated(row.occurred_at, state_at(known.events, row.occurred_at, known.nothing), row.event)]
    appended = [
        known.appended(one, Reason.RETRACTED, None, Moment(one.at, one.at, one.at, Evidence.DECIDED), row.org)
        for one in stated
    ] or [left_out(known, row)]
    at = row.occurred_at
    if found.number is None:
        (taken_back,) = found.event_ids
        appended[0] = appended[0]._replace(takes_back=taken_back)
    priced, changes = _priced(cursor, known, _lifetimes(cursor, found.tenant), appended, now)
    said = found.words
    done = PutRight(None, found.tenant, found.skill, None, at, at, said, priced, changes, *author, latest)
    if dry_run:
        return done
    number = _write(cursor, priced, author)
    if found.number is not None:
        cursor.execute(query("take_back_number"), {"number": found.number, "by": number})
    return done._replace(number=number)


def begin(cursor: Cursor) -> datetime:
    """Take the lock of all runs; return the database's clock."""
    raise_unless_current(cursor)
    cursor.execute(query("lock"))
    ((now,),) = cursor.execute(query("clock")).fetchall()
    at: datetime = now
    return at


def _lifetimes(cursor: Cursor, tenant: str) -> list[Lifetime]:
    """Return the lifetimes of a tenant, by their beginning."""
    ((_, lived, _),) = [*histories(cursor, [], {(tenant, "")})]
    return [*lived]


def _bounds(
    known: KeyHistory, lived: Sequence[Lifetime], since: datetime, until: datetime | None, now: datetime
) -> tuple[Lifetime, datetime]:
    """Return the lifetime that a state is recorded in, and until when."""
    tenant = known.key[0]
    if since >= now or (until and until > now):
        raise NotPutRight(
            f"It is {second(now)} UTC by the ledger's clock: what comes after that is not known.",
            "Nothing was written. Give times that are past; without --to it is recorded until now at most.",
        )
    lifetime = next(
        (one for one in lived if one.began_at <= since and (not one.ended_at or since < one.ended_at)), None
    )
    spans = ", ".join(f"{second(one.began_at)} to {second(one.ended_at) if one.ended_at else 'now'}" for one in lived)
    if lifetime is None:
        raise NotPutRight(
            f"At {second(since)} UTC {tenant} did not exist, as the ledger says. It did from {spans} UTC.",
            "Nothing was written. Give --from a time inside a lifetime.",
        )
    ends = lifetime.ended_at or now
    if until is None:
        following = (row.occurred_at for row in known.rows if row.id not in known.aside and row.occurred_at > since)
        until = min(ends, now, *following)
    if not since < until <= ends:
        raise NotPutRight(
            f"{second(since)} to {second(until)} UTC is not a time inside one lifetime of {tenant}: {spans} UTC."
            if since < until
            else f"--to, {second(until)} UTC, is not after --from, {second(since)} UTC.",
            "Nothing was written. Record each lifetime by itself, and give --to a time after --from.",
        )
    return lifetime, until


def _target(cursor: Cursor, target: str) -> _Target:
    """Return what a number, or `skill:ID` or `suspension:ID`, names."""
    name, colon, digits = target.rpartition(":")
    if not digits.isascii() or not digits.isdecimal() or len(digits) > MAX_DIGITS or (colon and name not in TABLES):
        raise NotPutRight(
            f"{target!r} names nothing that can be taken back.",
            "Nothing was written. Give a number of `reconciler explain TENANT`, or a row as skill:ID or suspension:ID.",
        )
    asked = {"number": None if colon else int(digits), "table": TABLES.get(name), "event_id": int(digits)}
    rows = cursor.execute(query("numbered"), asked).fetchall()
    if rows:
        return _numbered(rows)
    row = cursor.execute(query("portal_row"), asked).fetchone() if colon else None
    if row is None:
        what = f"no row {target}" if colon else f"no correction and no decision with the number {digits}"
        raise NotPutRight(
            f"The ledger has {what}.",
            "Nothing was written. `reconciler explain TENANT` shows the numbers and the rows.",
        )
    tenant, skill, kind, at, taken_back_by = row
    if taken_back_by:
        raise _taken_back(f"The row {target}", taken_back_by)
    words = f"the row {target}, {kind} at {second(at)} UTC"
    return _Target(words, tenant, skill, frozenset([int(digits)]), None, None)


def _numbered(rows: Sequence[tuple[object, ...]]) -> _Target:
    """Return a correction or a decision that may be taken back."""
    (number, tenant, skill, reason, _, decision, observed, at, taken_back_by, _), *_ = rows
    ids = frozenset(row[-1] for row in rows if row[-1] is not None)
    what = f"Number {number}, {reason} of {tenant}"
    if reason in {Reason.RETRACTED, Reason.CORRECTION_SUPERSEDED}:
        raise NotPutRight(
            f"{what}, took a row back itself, and that cannot be taken back.",
            f"Nothing was written. Say how it was with `reconciler record {tenant}`.",
        )
    if not {row[4] for row in rows} <= {*TABLES.values()}:
        raise NotPutRight(
            f"{what}, is about a lifetime or who pays, and only a row of a skill or suspension is taken back.",
            f"Nothing was written. Say how it was with `reconciler record {tenant}`: alive, gone, or payer ORG.",
        )
    if taken_back_by:
        raise _taken_back(what, taken_back_by)
    assert isinstance(at, datetime)  # noqa: S101 - of an event it is never empty
    words = f"number {number}, {reason}: {observed} at {second(at)} UTC"
    return _Target(words, tenant, skill, ids, number, decision)  # type: ignore[arg-type]


def _taken_back(what: str, number: object) -> NotPutRight:
    return NotPutRight(
        f"{what} was taken back already, by number {number}.", "Nothing was written, and nothing needs to be."
    )


def _latest(
    cursor: Cursor,
    known: KeyHistory,
    stated: Iterable[Restated],
    found: _Target,
    *,
    lookup: Lookup | None,
    now: datetime,
) -> str | None:
    """Return the key's latest state without the target, where that changes; the cluster must show it."""
    tenant, skill = known.key
    before = state_at(known.events, now, known.nothing)
    future = [row for row in known.rows if row.id in found.event_ids and row.occurred_at > now]
    changed = [*known.events, *(Event(NEXT + place, one.kind, one.at) for place, one in enumerate(stated))]
    after = state_at(changed, now, known.nothing)
    if after == before or future:
        return None
    if lookup is None:
        needed = ClusterNeeded(
            f"Without {found.words}, the latest state of {skill or 'the suspension'} of {tenant} changes, and nobody "
            "has looked at what the cluster shows.",
            "Nothing was written. Give what the cluster shows of the tenant.",
        )
        needed.tenant = tenant
        raise needed
    check_source(cursor, lookup.listing)
    seen = cursor.execute(query("seen_uid"), {"tenant": tenant}).fetchone()
    refuse_against_cluster(lookup, skill, STATES[after], seen[0] if seen else None)
    return STATES[after]


def _priced(
    cursor: Cursor, known: KeyHistory, lived: Sequence[Lifetime], appended: Sequence[Finding], now: datetime
) -> tuple[tuple[Finding, ...], tuple[LineChange, ...]]:
    """Return the findings, the first one with the impact of all, and the lines that change; at today's prices."""
    tenant, skill = known.key
    gone = {found.takes_back for found in appended if found.event_kind is None}
    before = sorted((e for e in known.events if e.occurred_at <= now), key=lambda e: (e.occurred_at, e.id))
    new = [
        Event(NEXT + place, found.event_kind, found.moment.occurred_at)
        for place, found in enumerate(appended)
        if found.event_kind and found.moment
    ]
    after = sorted((e for e in (*before, *new) if e.id not in gone), key=lambda e: (e.occurred_at, e.id))
    today, last = prices(cursor), (now.astimezone(UTC) + timedelta(days=1)).date()
    first = min((one.began_at for one in lived if one.began_at > FIRST), default=now).date()

    def billed(events: Sequence[Event]) -> Iterable[Line]:
        history = History(
            lifetimes=tuple(lived),
            skills={skill: tuple(events)} if skill else {},
            suspensions=() if skill else tuple(events),
        )
        made = lines(tenant, history, today, first=first, until=last, as_of=now)
        return (line for line in made if line.item == skill)

    changes = tuple(line_changes(billed(before), billed(after)))
    impact = sum((change.difference_chf for change in changes), NOTHING)
    return (appended[0]._replace(impact_chf=impact), *appended[1:]), changes


def _write(cursor: Cursor, appended: Sequence[Finding], author: Author) -> int:
    try:
        return write_decided(cursor, appended, author)
    except psycopg.errors.InsufficientPrivilege as error:
        raise denied(error) from error


def denied(error: psycopg.Error) -> NotTheOwner:
    """Return the failure that says which role may decide."""
    return NotTheOwner(
        f"The ledger denied it: {error.diag.message_primary}. The role of the runs may not decide.",
        "Nothing was written. Repeat the command with DATABASE_URL of the role for decisions, which sql/roles.sql "
        "makes, or of the owner of the ledger's tables.",
    )
