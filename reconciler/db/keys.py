"""Read the events of keys, and what people decided of them. A key is a skill of a tenant, or its suspension."""

from __future__ import annotations

from itertools import groupby, islice
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from reconciler.core.contradictions import Row
from reconciler.core.model import LEFT_OUT, STATES, Action, Evidence, Finding, Moment
from reconciler.core.reasons import Reason
from reconciler.core.replay import NOTHING, Decided, Restated, restate
from reconciler.db.connection import server_cursor
from reconciler.db.queries import query

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from reconciler.core.model import Event
    from reconciler.db.connection import Cursor

KEYS_BATCH = 500
"""Keys whose events are asked for at once."""
ROWS_BATCH = 5_000
"""Rows that are in memory at a time."""

Key = tuple[str, str | None]
"""A tenant, and a skill of it or None for its suspension."""


class Decisions(NamedTuple):
    """What people decided of a key, and what stands."""

    standing: tuple[Decided, ...] = ()
    latest: int = 0
    """The highest number, of those that take a row back too."""

    def at(self, at: datetime) -> Decided | None:
        """Return the one that holds at an instant: of several the latest."""
        return max((one for one in self.standing if one.holds(at)), default=None)


class KeyHistory(NamedTuple):
    """All that the ledger holds of a key."""

    key: Key
    rows: Sequence[Row]
    aside: frozenset[int]
    """The ids of the events that do not count: what was taken back, and what a decision wrote."""
    decisions: Decisions = Decisions()
    left_out: frozenset[int] = frozenset()
    """The ids of the events that lay in the future when a person took them back: they count nowhere."""

    @property
    def events(self) -> list[Event]:
        """Its events, without those that are left out."""
        return [row.event for row in self.rows if row.id not in self.left_out]

    @property
    def nothing(self) -> str:
        """What it says without events."""
        return NOTHING[self.key[1] is not None]

    def appended(self, one: Restated, reason: Reason, moment: Moment, org: str) -> Finding:
        """Return what is appended to it for a decision; `org` is written where no event is overruled."""
        orgs = {row.id: row.org for row in self.rows}
        return Finding(
            reason,
            self.key[0],
            orgs[one.wrong.id] if one.wrong else org,
            Action.APPEND,
            self.key[1],
            STATES[one.wrong.kind if one.wrong else self.nothing],
            STATES[one.kind],
            one.wrong,
            moment,
            newest_id=max(orgs, default=0),
        )


def key_rows(cursor: Cursor, keys: Iterable[Key]) -> Iterator[tuple[Key, Iterator[tuple[Row, bool]]]]:
    """Yield each key with its events, read while they are taken, and whether each counts."""
    rest = iter(keys)
    while batch := [*islice(rest, KEYS_BATCH)]:
        named = {"tenants": [tenant for tenant, _ in batch], "skills": [skill for _, skill in batch]}
        with server_cursor(cursor, "key_events") as stream:
            stream.itersize = ROWS_BATCH
            for key, rows in groupby(stream.execute(query("key_events"), named), key=itemgetter(0, 1)):
                yield key, (_row(*row[2:]) for row in rows)


def standing_decisions(cursor: Cursor, names: Iterable[str]) -> dict[Key, Decisions]:
    """Return what people decided of the keys of these tenants."""
    found: dict[Key, Decisions] = {}
    rows = cursor.execute(query("decisions_of"), {"names": [*names]})
    for tenant, skill, number, is_state, observed, since, until, place in rows:
        known = found.get((tenant, skill), Decisions())
        standing = known.standing
        if is_state:
            kind = next(kind for kind, state in STATES.items() if state == observed)
            standing = (*standing, Decided(number, kind, since, until, place))
        found[tenant, skill] = Decisions(standing, max(number, known.latest))
    return found


def read_key(cursor: Cursor, key: Key) -> KeyHistory:
    """Read one key."""
    return _history(cursor, key, standing_decisions(cursor, [key[0]]).get(key, Decisions()), read_left_out(cursor))


def _history(cursor: Cursor, key: Key, decisions: Decisions, left_out: Mapping[bool, list[int]]) -> KeyHistory:
    read = [found for _, rows in key_rows(cursor, [key]) for found in rows]
    aside = frozenset(row.id for row, counts in read if not counts)
    return KeyHistory(key, [row for row, _ in read], aside, decisions, frozenset(left_out[key[1] is not None]))


def read_left_out(cursor: Cursor) -> dict[bool, list[int]]:
    """Return the ids of the events that count nowhere, by whether they are of skills."""
    ((skills, suspensions),) = cursor.execute(query("left_out")).fetchall()
    return {True: skills, False: suspensions}


def upheld(cursor: Cursor, names: Sequence[str] | None, as_of: datetime) -> Iterator[Finding]:
    """Yield what must be appended so that decisions stand against the rows that came later.

    `names` restricts it to some tenants.
    """
    decided = [tenant for (tenant,) in cursor.execute(query("decided_tenants"), {"names": names})]
    if not decided:
        return
    left_out = read_left_out(cursor)
    for key, decisions in standing_decisions(cursor, decided).items():
        known = _history(cursor, key, decisions, left_out)
        for one in restate(known.events, known.aside, decisions.standing, known.nothing, as_of=as_of):
            held = decisions.at(one.at)
            reason, number = (Reason.RECORDED, held.number) if held else (Reason.RETRACTED, decisions.latest)
            moment = Moment(one.at, one.at, one.at, Evidence.DECIDED)
            yield known.appended(one, reason, moment, known.rows[0].org)._replace(decision=number)


def left_out(known: KeyHistory, row: Row) -> Finding:
    """Return the proof that an event in the future was taken back: nothing is appended to it."""
    at = row.occurred_at
    moment = Moment(at, at, at, Evidence.DECIDED)
    appended = known.appended(Restated(at, row.kind, row.event), Reason.RETRACTED, moment, row.org)
    return appended._replace(observed=LEFT_OUT, takes_back=row.id)


def _row(  # noqa: PLR0917 - as the query returns them
    id_: int,
    kind: str,
    at: datetime,
    org: str,
    not_before: datetime | None,
    not_after: datetime | None,
    *facts: bool,
) -> tuple[Row, bool]:
    is_ours, counts = facts
    interval = (not_before or at, not_after or at) if is_ours else None
    return Row(id_, kind, at, org, interval), counts
