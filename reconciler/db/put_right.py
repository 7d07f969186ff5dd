"""Put right what a person knows better: how a key was from when until when, or that a row should not be there.

Each is one transaction under the lock of all runs. The rules are those of `reconciler.core.replay`.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from reconciler.core.billing import following
from reconciler.core.decisions import NotPutRight, PutRight, line_changes, refuse_against_cluster, second
from reconciler.core.model import STATES, Event, Evidence, Moment
from reconciler.core.reasons import Reason
from reconciler.core.replay import Decided, Restated, restate, state_at
from reconciler.db.apply import Author, write_decided
from reconciler.db.decisions import check_source, deciding
from reconciler.db.explain import unknown_tenant
from reconciler.db.keys import KeyHistory, left_out, read_key
from reconciler.db.queries import query
from reconciler.db.schema import raise_unless_current
from reconciler.db.usage import Billed, history, prices

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from reconciler.core.billing import History, Lifetime
    from reconciler.core.decisions import Lookup
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

    def __init__(self, tenant: str, message: str) -> None:
        """Say what would change, and which tenant to look up."""
        super().__init__(message, "Nothing was written. Give what the cluster shows of the tenant.")
        self.tenant = tenant


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
    before = history(cursor, tenant, skill)
    if not before.lifetimes:
        raise unknown_tenant(cursor, tenant, refused=True)
    known = read_key(cursor, (tenant, skill))
    lifetime, until = _bounds(known, before.lifetimes, since, until, now)
    new = Decided(0, kind, since, until, NEXT)
    decided = (*known.decisions.standing, new)
    pins = {since, until}
    stated = restate(known.events, known.aside, decided, known.nothing, as_of=now, pins=pins)
    moment = Moment(since, since, until, Evidence.DECIDED)
    appended = [
        known.appended(one, Reason.RECORDED, moment._replace(occurred_at=one.at), lifetime.org)
        for one in stated
        if since <= one.at <= until
    ]
    changes = tuple(line_changes(tenant, before, with_appended(before, appended), prices(cursor), now))
    done = PutRight(None, tenant, skill, STATES[kind], since, until, None, tuple(appended), changes, *author)
    done = with_billed(cursor, done)
    return done if dry_run else write(cursor, done)


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
        known.appended(one, Reason.RETRACTED, Moment(one.at, one.at, one.at, Evidence.DECIDED), row.org)
        for one in stated
    ] or [left_out(known, row)]
    at = row.occurred_at
    if found.number is None:
        (taken_back,) = found.event_ids
        appended[0] = appended[0]._replace(takes_back=taken_back)
    before = history(cursor, found.tenant, found.skill)
    changes = tuple(line_changes(found.tenant, before, with_appended(before, appended), prices(cursor), now))
    done = PutRight(None, *known.key, None, at, at, found.words, tuple(appended), changes, *author, latest)
    done = with_billed(cursor, done)
    done = done if dry_run else write(cursor, done)
    if done.number is not None and found.number is not None:
        cursor.execute(query("take_back_number"), {"number": found.number, "by": done.number})
    return done


def write(cursor: Cursor, done: PutRight) -> PutRight:
    """Write the events, the first one with what all is worth; return it with its number.

    Raises:
        DecisionDenied: the role may not decide.
    """
    first, others = done.appended[:1], done.appended[1:]
    priced = (*(each._replace(impact_chf=done.difference_chf) for each in first), *others)
    with deciding():
        return done._replace(number=write_decided(cursor, priced, Author(done.by, done.note)))


def with_billed(cursor: Cursor, done: PutRight) -> PutRight:
    """Return it with the months that it changes and that were billed; its rows are marked as of a closed period."""
    billed = Billed(cursor)({change.org for change in done.changes})
    months = {
        change.month
        for change in done.changes
        for first, days in billed[change.org]
        if first < following(change.month).toordinal() and change.month.toordinal() < first + days
    }
    appended = tuple(each._replace(closed_period=bool(months)) for each in done.appended)
    return done._replace(billed=tuple(sorted(months)), appended=appended)


def with_appended(before: History, appended: Iterable[Finding]) -> History:
    """Return a history as it is with the events that are appended."""
    new: dict[str | None, list[Event]] = {}
    for place, each in enumerate(appended):
        if each.event_kind and each.moment:
            event = Event(NEXT + place, each.event_kind, each.moment.occurred_at)
            new.setdefault(each.subject, []).append(event)
    return before.with_events(new)


def begin(cursor: Cursor) -> datetime:
    """Take the lock of all runs; return the database's clock."""
    raise_unless_current(cursor)
    cursor.execute(query("lock"))
    ((now,),) = cursor.execute(query("clock")).fetchall()
    at: datetime = now
    return at


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
        rows = (row.occurred_at for row in known.rows if row.id not in known.aside)
        # what stands of people's decisions has rows too, which are replayed as one
        edges = (at for one in known.decisions.standing for at in (one.begins_at, one.ends_at))
        until = min(ends, now, *(at for at in (*rows, *edges) if at > since))
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
        raise _taken_back(f"The row {target}", f"number {taken_back_by}")
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


def _taken_back(what: str, whom: object) -> NotPutRight:
    return NotPutRight(f"{what} was taken back already, by {whom}.", "Nothing was written, and nothing needs to be.")


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
        raise ClusterNeeded(
            tenant,
            f"Without {found.words}, the latest state of {skill or 'the suspension'} of {tenant} changes, and nobody "
            "has looked at what the cluster shows.",
        )
    check_source(cursor, lookup.listing)
    seen = cursor.execute(query("seen_uid"), {"tenant": tenant}).fetchone()
    refuse_against_cluster(lookup, skill, STATES[after], seen[0] if seen else None)
    return STATES[after]
