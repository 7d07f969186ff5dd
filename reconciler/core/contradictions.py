"""When recorded events disprove one another: an event between them was lost, or a correction was dated wrongly.

Pure: no clock, no I/O, frozen values. The events of a key, a skill of a tenant or its suspension, alternate. Where two
of them contradict each other and no run could prove what happened in between, a change was lost:

    of the events of one key                                     where                report
    -----------------------------------------------------------  -------------------  ------------------------------
    the same kind twice in a row, more than settle apart         between: unproven    a change in between is missing
    the same, and one is a correction that may have happened     anywhere             nothing
    when the other one did
    the first one of a lifetime turns it off, or resumes it      before it: unproven  a change before it is missing
    the same, and it is a correction that ends what an earlier   anywhere             nothing
    lifetime left on, or suspended
    more than settle outside of every lifetime                   anywhere             it lies outside of every lifetime
    the same, in a time in which a person decided that it was    anywhere             nothing
    gone
    the portal's, of an organisation that never paid             anywhere             its organisation never paid
    the same, `unknown`, or while `org_moved` is open            anywhere             nothing
    the same, and a person decided that it pays for a day of     anywhere             nothing
    the lifetime
    in the future, infinitely long ago as the latest one, or of  anywhere             nothing: those are other reports
    a tenant without a lifetime

Unproven is the time before the history of a tenant is known, and each gap in it. What was taken back, and what took it
back, is not an event here; nor is what a decision wrote, or what any row says in the time that a person decided.

And where the portal's row of a change comes after its correction was dated by policy, that row is right:

    the portal's later row of the same key and kind   and the key's other rows, when the change had    the correction
                                                      happened at the latest,
    ------------------------------------------------  -----------------------------------------------  --------------
    lies in the correction's interval                 say what the correction says                     is taken back
    lies in the correction's interval                 say otherwise: yet another change was lost       stays
    lies outside of it, or came before it             -                                                stays

A correction is taken back by one more event at its own instant, which says what the other rows say there: then the key
reads at every instant as if the correction had never been written.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from reconciler.core.dating import INSTANT
from reconciler.core.model import FIRST, UNKNOWN_ORG, Event

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import timedelta

MAX_ORG = 60
"""Characters of an organisation that are shown."""
OPPOSITE = {"enabled": "disabled", "disabled": "enabled", "suspended": "resumed", "resumed": "suspended"}
NEVER_FIRST = {"disabled", "resumed"}
"""Before its first event a skill is off, and a tenant runs."""

Stretch = tuple[datetime, datetime]
"""From when until when."""


class Row(NamedTuple):
    """A recorded event with what is known of it."""

    id: int
    kind: str
    occurred_at: datetime
    org: str
    interval: Stretch | None = None
    """When the change must have happened, if it is a correction; None: the portal wrote it."""

    @property
    def event(self) -> Event:
        """The event alone."""
        return Event(*self[:3])

    def may_be_at(self, at: datetime) -> bool:
        """True if it is a correction of a change that may have happened then."""
        return self.interval is not None and self.interval[0] <= at <= self.interval[1]


class Known(NamedTuple):
    """A lifetime of a tenant, and from when its history is known."""

    org: str
    began_at: datetime
    ended_at: datetime | None
    since: datetime | None
    """None: nothing is known of it."""
    payers: frozenset[str] = frozenset()
    """The organisations that pay for a day of it because a person decided so."""


class Contradiction(NamedTuple):
    """What the events of a key say that cannot be."""

    recorded: str
    """The rows, in words."""
    problem: str
    missing: str | None = None
    """The kind of the event that was lost; None if none was."""
    interval: Stretch | None = None
    """When that must have happened."""
    dated: Stretch | None = None
    """The first and the last instant at which it can be inserted between the rows."""


class Guess(NamedTuple):
    """A correction that was dated by policy, and the interval that its change must lie in."""

    event: Event
    not_before: datetime
    not_after: datetime


def contradiction(
    rows: Iterable[Row],
    lifetimes: Sequence[Known],
    gaps: Sequence[Stretch],
    *,
    as_of: datetime,
    settle: timedelta,
    org_moved: bool = False,
    decided: Sequence[Stretch] = (),
    gone: Sequence[Stretch] = (),
) -> Contradiction | None:
    """Return the first contradiction among the events of one key; None if there is none.

    What rows say in the time that a person `decided`, its ends included, contradicts nothing; nor does a row outside of
    every lifetime in one that was decided to be `gone`.

    `rows` are those that count, by time and id; `lifetimes` are all of the tenant's, by their beginning, and none of
    them is later than `as_of`; `gaps` is when it is not known what happened to the tenant.
    """
    last: dict[Known, Row] = {}
    latest: Row | None = None
    ancient: Row | None = None
    for row in (row for row in rows if not any(begins <= row.occurred_at <= ends for begins, ends in decided)):
        if row.occurred_at > as_of or not lifetimes:
            break
        lifetime = _lifetime(row, lifetimes, settle)
        if lifetime is None and any(begins <= row.occurred_at <= ends for begins, ends in gone):
            continue
        if ancient or (lifetime is None and row.occurred_at > FIRST):
            return Contradiction(_words(ancient or row), "it lies outside of every lifetime")
        if lifetime is None:
            # infinitely long ago: as the latest event it has another report
            ancient = row
            continue
        if row.interval is None and not org_moved and _never_paid(row.org, lifetime):
            said = row.org if len(row.org) <= MAX_ORG else f"{row.org[: MAX_ORG - 1]}…"
            return Contradiction(f"{_words(row)}, organisation {said}", "its organisation never paid")
        # a correction may end what was left on in an earlier lifetime
        ends_earlier = row.interval is not None and latest is not None and latest.kind != row.kind
        before = last.get(lifetime)
        is_odd = (before or not ends_earlier) and not _is_decided(before, row, lifetime, decided)
        if is_odd and (found := _missing(before, row, lifetime, gaps, settle)):
            return found
        last[lifetime] = latest = row
    return None


def superseded(guesses: Sequence[Guess], rows: Sequence[Row], nothing: str) -> Iterator[tuple[Guess, str]]:
    """Yield which corrections of one key the portal's later rows disprove, and the kind that takes each back.

    `guesses` were dated by policy; `rows` are the key's that count, by time and id, those of the guesses included;
    `nothing` is what a key without events says.
    """
    disproved = [guess for guess in guesses if any(_shows(row, guess) for row in rows)]
    without = {guess.event.id for guess in disproved}
    # a guess that the other rows do not make superfluous stands for one more change, which was lost
    kept = {g.event.id for g in disproved if state_without(rows, without, g.not_after, nothing) != g.event.kind}
    for guess in disproved:
        if guess.event.id not in kept:
            yield guess, state_without(rows, without - kept, guess.event.occurred_at, nothing)


def state_without(rows: Iterable[Row | Event], taken_back: AbstractSet[int], at: datetime, nothing: str) -> str:
    """Return the kind that a key's rows give at an instant without those that are, or were, taken back.

    An event of that kind at the instant of a row, with a higher id, takes that row back: always, also where it says the
    same again, since a later row may move what was before. `taken_back` are the ids of all such rows and of those that
    took them back; `nothing` is what a key without events says.
    """
    before = ((row.occurred_at, row.id, row.kind) for row in rows if row.occurred_at <= at and row.id not in taken_back)
    *_, kind = max(before, default=(at, 0, nothing))
    return kind


def _shows(row: Row, guess: Guess) -> bool:
    """True if the portal's row came after the correction and shows the moment of its change."""
    return (
        row.interval is None
        and row.id > guess.event.id
        and row.kind == guess.event.kind
        and guess.not_before <= row.occurred_at <= guess.not_after
    )


def _lifetime(row: Row, lifetimes: Sequence[Known], settle: timedelta) -> Known | None:
    """Return the lifetime that an event belongs to; None if it lies outside of every one.

    Where two are so close that it could be either's, what ends something belongs to the earlier one.
    """
    near = [
        each
        for each in lifetimes
        # no instant is moved by settle, which could put it out of range
        if each.began_at - row.occurred_at <= settle
        and (each.ended_at is None or row.occurred_at - each.ended_at <= settle)
    ]
    return near[0 if row.kind in NEVER_FIRST else -1] if near else None


def _is_decided(before: Row | None, row: Row, lifetime: Known, decided: Sequence[Stretch]) -> bool:
    """True if a person decided a part of the time between an event and the one before it in its lifetime."""
    since = before.occurred_at if before else lifetime.began_at
    return any(begins <= row.occurred_at and since <= ends for begins, ends in decided)


def _never_paid(org: str, lifetime: Known) -> bool:
    """True if it is known who paid for a lifetime, and that none of its days was this organisation's."""
    paid = {lifetime.org, *lifetime.payers}
    return org not in paid and UNKNOWN_ORG not in {org, *paid}


def _missing(
    before: Row | None, row: Row, lifetime: Known, gaps: Collection[Stretch], settle: timedelta
) -> Contradiction | None:
    """Return the contradiction between an event and the one before it in its lifetime, or the beginning of that."""
    if before is None:
        if row.kind not in NEVER_FIRST:
            return None
        began, words, problem = lifetime.began_at, f"created {_minute(lifetime.began_at)}", "a change before it"
    else:
        is_apart = row.occurred_at - before.occurred_at > settle
        may_be_one = before.may_be_at(row.occurred_at) or row.may_be_at(before.occurred_at)
        if before.kind != row.kind or not is_apart or may_be_one:
            return None
        began, words, problem = before.occurred_at, _words(before), "a change in between"
    if not (interval := _unproven(began, row.occurred_at, lifetime, gaps)):
        return None
    first = max(interval[0], began + INSTANT) if before else interval[0]
    last = max(first, min(interval[1], row.occurred_at - INSTANT))
    return Contradiction(
        f"{words}, {_words(row)}", f"{problem} is missing", OPPOSITE[row.kind], interval, (first, last)
    )


def _unproven(began: datetime, ended: datetime, lifetime: Known, gaps: Collection[Stretch]) -> Stretch | None:
    """Return from when until when of a stretch of time it is not proven what happened; None if all of it is."""
    unknown = [(began, ended if lifetime.since is None else lifetime.since), *gaps]
    parts = [(max(start, began), min(end, ended)) for start, end in unknown]
    open_parts = [part for part in parts if part[0] < part[1]]
    return (min(open_parts)[0], max(end for _, end in open_parts)) if open_parts else None


def _words(row: Row) -> str:
    return f"{row.kind} {_minute(row.occurred_at)}"


def _minute(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M}"
