"""Which recorded row explains which change, and what follows from a change that none explains.

Pure. The changes of a key, a skill of a tenant or its suspension, and its rows are paired anew in every run, both in
their order: as many as can be, of those the changes that are due, and of those the closest. A rule is one row:

    a row explains a change of its key and kind if
    ------------------------------------------------------------------------------------------------------------------
    it lies between the change's not_before and its not_after + settle, give or take the tolerance
    or it is a correction, and the change can lie in its interval
    but never at or after the end of its lifetime, nor before its beginning, unless it is the last one before that
    and says on or suspended; and an event that was appended for a change explains that one alone

    a change without a row                     what follows
    -----------------------------------------  ---------------------------------------------------------------------
    younger than settle and the tolerance      it waits: the row may still come
    of a tenant whose creation or deletion     it waits: the lifetime comes first
    waits
    of a tenant that no lifetime holds         it waits, reported as tenant_recreated
    of a day after the end of its lifetime     it waits, reported as deletion_contradicted
    any other                                  it is appended, between the rows of the changes before and after it,
                                               inside its lifetime, and outside of the time that a person decided

A change is due settle and the tolerance after its not_after. A pair is kept until the list lies so far past its row.
"""

from __future__ import annotations

from datetime import UTC
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from reconciler.core.changes import Change, Kind
from reconciler.core.dating import INSTANT, ROUNDING, SHORTEST_LIFETIME
from reconciler.core.model import LAST, UNKNOWN_ORG, Action, Evidence, FallbackDating, Finding, Moment
from reconciler.core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime, timedelta

    from reconciler.core.contradictions import Known, Row
    from reconciler.core.replay import Decided

REASONS = {
    Kind.CREATED: Reason.TENANT_UNRECORDED,
    Kind.DELETED: Reason.DELETION_UNRECORDED,
    Kind.ENABLED: Reason.SKILL_ENABLE_UNRECORDED,
    Kind.DISABLED: Reason.SKILL_DISABLE_UNRECORDED,
    Kind.SUSPENDED: Reason.SUSPENSION_UNRECORDED,
    Kind.RESUMED: Reason.RESUMPTION_UNRECORDED,
}
"""The reason that the same drift has."""
STATES = {
    Kind.CREATED: ("absent", "open"),
    Kind.DELETED: ("open", "deleted"),
    Kind.ENABLED: ("disabled", "enabled"),
    Kind.DISABLED: ("enabled", "disabled"),
    Kind.SUSPENDED: ("running", "suspended"),
    Kind.RESUMED: ("suspended", "running"),
}
"""What was recorded, and what was observed."""
STARTS_TO_COST = {Kind.ENABLED, Kind.RESUMED}
TURNS_ON = {"enabled", "suspended"}
"""What an event before a lifetime can say that is still true in it."""
NOTHING_DECIDED: Mapping[str | None, Sequence[Decided]] = {}
LARGEST = 50
"""Changes of one key that are paired at once; a controller may make thousands."""


class Life(NamedTuple):
    """A lifetime of the ledger, or one that is about to be recorded."""

    began_at: datetime
    ended_at: datetime | None = None
    org: str | None = None
    """Who pays by its row; None if it has none."""


class Rules(NamedTuple):
    """What the pairing of one run depends on."""

    as_of: datetime
    """The ledger was read then or later."""
    settle: timedelta
    tolerance: timedelta
    fallback: FallbackDating

    @property
    def grace(self) -> timedelta:
        """How long after a change its row may come."""
        return self.settle + self.tolerance

    def is_due(self, change: Change) -> bool:
        """True if the row of a change is here by now, if it was written."""
        return change.not_after + self.grace <= self.as_of

    def date(self, change: Change) -> datetime:
        """Return when a change is dated: its own time, else by policy."""
        late = change.kind in STARTS_TO_COST or self.fallback is FallbackDating.DETECTED
        return change.at or (change.not_after if late else change.not_before)


class Tenant(NamedTuple):
    """One uid that a name has or had."""

    uid: str
    created_at: datetime


class Settled(NamedTuple):
    """What follows from the changes of one tenant."""

    findings: tuple[Finding, ...]
    """What is appended, stamped or inserted, and what waits, as deferred."""
    explained: Mapping[Change, datetime]
    """The changes that have a row, and its moment."""
    ended: Moment | None = None
    """The end of its lifetime, if that is known; a deletion may be stamped by this run."""
    is_waiting: bool = False
    """True if its creation or deletion waits, and all else with it."""


def lives_of(tenants: Iterable[Tenant], lives: Iterable[Life], rules: Rules) -> dict[str, Life]:
    """Return the lifetime of each tenant of one name that has one; of several the last.

    A lifetime is of the last tenant that was created by its beginning; where none was, of the first, unless that was
    created after its end.
    """
    found: dict[str, Life] = {}
    known = sorted(tenants, key=attrgetter("created_at"))
    for life in sorted(lives, key=attrgetter("began_at")) if known else ():
        by_then = [one for one in known if one.created_at <= life.began_at + rules.tolerance]
        owner = by_then[-1] if by_then else known[0]
        if life.ended_at is None or owner.created_at <= life.ended_at + rules.tolerance:
            found[owner.uid] = life
    return found


def is_after_the_end(change: Change, life: Life | None, lives: Iterable[Known], rules: Rules) -> bool:
    """True if a change surely happened on a day after the end of its lifetime, and in no other of its name.

    The day of the end is billed, and so are the days of the others.
    """
    if life is None or life.ended_at is None:
        return False
    if any(one.began_at <= change.earliest < (one.ended_at or LAST) for one in lives):
        return False
    return change.earliest.astimezone(UTC).date() > (life.ended_at + rules.grace).astimezone(UTC).date()


def contradicted(change: Change) -> Finding:
    """Return the report of a change after the end of its lifetime."""
    reason = Reason.DELETION_CONTRADICTED
    observed = "gone" if change.kind is Kind.DELETED else "live"
    return Finding(reason, change.tenant, change.org or UNKNOWN_ORG, reason.action, None, "deleted", observed)


def settle_tenant(
    changes: Sequence[Change],
    life: Life | None,
    rows: Mapping[str | None, Sequence[Row]],
    rules: Rules,
    *,
    can_insert: bool,
    newest: Mapping[str | None, int],
    decided: Mapping[str | None, Sequence[Decided]] = NOTHING_DECIDED,
) -> Settled:
    """Return what follows from the changes of one tenant, in their order.

    `life` is the lifetime that holds it, `rows` are the rows of each key that count, by time and id, `newest` is the
    highest id of each, and `decided` what people said of it; `can_insert` is true if the name has no lifetime at all.
    """
    if life is None and not can_insert:
        return Settled((_recreated(changes[-1]),), {})
    of_lifetime = [change for change in changes if change.kind.is_of_lifetime]
    if life is None and not any(change.kind is Kind.CREATED for change in of_lifetime):
        # the truth table records it, by what it is now
        return Settled((), {})
    placed, explained, life = _lifetime(of_lifetime, life, rows, rules)
    is_waiting = any(moment is None for _, moment in placed)
    events = sorted((each for each in changes if not each.kind.is_of_lifetime), key=lambda each: each.skill or "")
    if is_waiting:
        placed += [(change, None) for change in events]
        events = []
    for skill, its in groupby(events, attrgetter("skill")):
        key = [*its]
        pairs = pair(key, rows.get(skill, ()), life, rules)
        missing, left_out = _placed(key, pairs, life, rules, decided.get(skill, ()))
        explained |= {change: row.occurred_at for change, row in pairs.items()} | left_out
        placed += missing
    ended = next((moment for change, moment in placed if change.kind is Kind.DELETED), None)
    if life.ended_at and not ended:
        ended = Moment(life.ended_at, life.ended_at, life.ended_at, Evidence.DELETION)
    found = tuple(_finding(change, moment, newest, life.org) for change, moment in placed)
    return Settled(found, explained, ended, is_waiting)


_Placed = list[tuple[Change, Moment | None]]
"""Changes that no row explains, each with its moment; None where its row may still come."""


def _lifetime(
    changes: Iterable[Change], life: Life | None, rows: Mapping[str | None, Iterable[Row]], rules: Rules
) -> tuple[_Placed, dict[Change, datetime], Life]:
    """Return the creation and the deletion where no row explains them, and where one does; and the lifetime then."""
    explained: dict[Change, datetime] = {}
    missing: list[Change] = []
    for change in changes:
        if at := life and (life.began_at if change.kind is Kind.CREATED else life.ended_at):
            explained[change] = at
        else:
            missing.append(change)
    if not all(map(rules.is_due, missing)):
        return [(change, None) for change in missing], explained, life or Life(missing[0].created_at)
    placed: _Placed = []
    for change in missing:
        if life is None or change.kind is Kind.CREATED:
            placed.append((change, _moment(change, change.created_at)))
            life = Life(change.created_at, org=change.org or UNKNOWN_ORG)
        else:
            # else it would be a lifetime without a day
            end = max(rules.date(change), life.began_at + SHORTEST_LIFETIME, _after_its_rows(change, rows, rules))
            placed.append((change, _moment(change, end)))
            life = life._replace(ended_at=end)
    return placed, explained, life or Life(next(iter(explained)).created_at)


def _after_its_rows(deletion: Change, rows: Mapping[str | None, Iterable[Row]], rules: Rules) -> datetime:
    """Return the earliest time of a deletion after the rows of its second: these are still of its lifetime."""
    start = deletion.at or deletion.not_before
    # what a version shows is cut to the second, and may be by another clock than the rows
    end = start + ROUNDING if deletion.at else min(start + rules.tolerance, deletion.not_after)
    times = (row.occurred_at + INSTANT for its in rows.values() for row in its if start <= row.occurred_at < end)
    return max(times, default=start)


def pair(changes: Sequence[Change], rows: Sequence[Row], life: Life, rules: Rules) -> dict[Change, Row]:
    """Return which row explains which change of one key; both are in their order, and so are the pairs."""
    before = [row for row in rows if row.occurred_at < life.began_at]
    usable = [row for row in rows if row.occurred_at >= life.began_at]
    if before and before[-1].kind in TURNS_ON:
        usable.insert(0, before[-1])
    if life.ended_at:
        usable = [row for row in usable if row.occurred_at < life.ended_at]
    pairs: dict[Change, Row] = {}
    places = {row.id: number for number, row in enumerate(usable)}
    free: list[Change] = []
    first = 0
    for change in changes:
        place = places.get(change.event_id or 0, -1)
        if place < first:
            free.append(change)
            continue
        # an appended event explains its change alone: what lies before the one lies before the other
        pairs |= _pair_free(free, usable[first:place], rules)
        pairs[change] = usable[place]
        free, first = [], place + 1
    return pairs | _pair_free(free, usable[first:], rules)


def _pair_free(changes: Sequence[Change], rows: Sequence[Row], rules: Rules) -> dict[Change, Row]:
    """Return the best pairs of changes for which nothing was appended yet; a controller may make thousands."""
    pairs: dict[Change, Row] = {}
    for number in range(0, len(changes), LARGEST):
        some = changes[number : number + LARGEST]
        start, end = some[0].not_before - rules.tolerance, max(change.not_after for change in some) + rules.grace
        rows = [row for row in rows if (row.interval or (row.occurred_at,))[-1] >= start]
        near = [row for row in rows if (row.interval or (row.occurred_at,))[0] <= end]
        if found := _pair_some(some, near[: 40 * LARGEST], rules):
            pairs |= found
            rows = rows[rows.index([*found.values()][-1]) + 1 :]
    return pairs


_Score = tuple[int, int, float]
"""How many pairs, of those how many that are due, and how close they are; more is better."""


def _pair_some(changes: Sequence[Change], rows: Sequence[Row], rules: Rules) -> dict[Change, Row]:
    """Return the best pairs in order: the longest common subsequence, by `_Score`."""
    none: _Score = (0, 0, 0.0)
    best = [[none] * (len(rows) + 1)]
    for change in changes:
        last, line = best[-1], [none]
        for number, row in enumerate(rows):
            score = max(line[-1], last[number + 1])
            if worth := _worth(change, row, rules):
                score = max(score, _sum(last[number], worth))
            line.append(score)
        best.append(line)
    pairs: dict[Change, Row] = {}
    at, number = len(changes), len(rows)
    while at and number:
        change, row = changes[at - 1], rows[number - 1]
        worth = _worth(change, row, rules)
        if worth and best[at][number] == _sum(best[at - 1][number - 1], worth):
            pairs[change] = row
            at, number = at - 1, number - 1
        elif best[at][number] == best[at - 1][number]:
            at -= 1
        else:
            number -= 1
    return dict(reversed(pairs.items()))


def _worth(change: Change, row: Row, rules: Rules) -> _Score | None:
    """Return what a pair is worth; None if the row does not explain the change."""
    if row.kind != change.kind:
        return None
    at = row.occurred_at
    is_near = change.not_before - rules.tolerance <= at <= change.not_after + rules.grace
    if not is_near and not (row.interval and _overlap(change, row.interval, rules.tolerance)):
        return None
    distance = max((change.not_before - at).total_seconds(), (at - change.not_after).total_seconds(), 0.0)
    return 1, int(rules.is_due(change)), -distance


def _sum(one: _Score, other: _Score) -> _Score:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2]


def _overlap(change: Change, interval: tuple[datetime, datetime], tolerance: timedelta) -> bool:
    return interval[0] - tolerance <= change.not_after and change.not_before <= interval[1] + tolerance


def _placed(
    changes: Sequence[Change], pairs: Mapping[Change, Row], life: Life, rules: Rules, decided: Sequence[Decided]
) -> tuple[_Placed, dict[Change, datetime]]:
    """Return the changes of one key that no row explains, each with its moment, in their order; and what is left out.

    No change is appended that would make the latest state another one than it is, while the change after it waits.
    Where the rows around it and its lifetime leave no room it is left out: what lasts no time changes no bill.
    """
    # each with the row after it, and how many are to lie before that
    afters: list[tuple[datetime | None, int]] = [(None, 0)]
    for change in reversed(changes):
        after, number = afters[-1]
        afters.append((pairs[change].occurred_at, 0) if change in pairs else (after, number + 1))
    placed: _Placed = []
    left_out: dict[Change, datetime] = {}
    last: datetime | None = None
    appended = 0
    for change, (after, number) in zip(changes, reversed(afters[1:]), strict=True):
        if row := pairs.get(change):
            last, appended = row.occurred_at, 0
            continue
        if not rules.is_due(change):
            if appended % 2 and after is None:
                # alone, the one before it would make the latest state wrong
                placed[-1] = placed[-1][0], None
            placed.append((change, None))
            appended = 0
            continue
        ends = [end - number * INSTANT for end in (after, life.ended_at) if end]
        starts = [life.began_at, *([last + INSTANT] if last else [])]
        if ends and min(ends) < max(starts):
            left_out[change] = max(starts)
            continue
        at = _outside(max(min([rules.date(change), *ends]), *starts), change, starts, ends, decided)
        placed.append((change, _moment(change, at)))
        last, appended = at, appended + 1
    return placed, left_out


def _outside(
    at: datetime, change: Change, starts: Sequence[datetime], ends: Sequence[datetime], decided: Sequence[Decided]
) -> datetime:
    """Return the moment of a change outside of the time that a person decided, where its interval has room for that.

    After it rather than before: at the end of a decision the key is again as it was read before that.
    """
    start, end = (change.at, change.at) if change.at else (change.not_before, change.not_after)
    later = earlier = at
    while held := next((one for one in decided if one.holds(later)), None):
        later = held.ends_at
    while held := next((one for one in decided if one.holds(earlier)), None):
        earlier = held.begins_at - INSTANT
    return later if later <= min([end, *ends]) else earlier if earlier >= max([start, *starts]) else at


def _finding(change: Change, moment: Moment | None, newest: Mapping[str | None, int], payer: str | None) -> Finding:
    reason = REASONS[change.kind]
    recorded, observed = STATES[change.kind]
    action = reason.action if moment else Action.DEFER
    # a stamp leaves the row's organisation as it is
    org = (change.kind is Kind.DELETED and payer) or change.org or UNKNOWN_ORG
    found = Finding(reason, change.tenant, org, action, change.skill, recorded, observed, moment=moment)
    shown = change.uid, change.resource_version
    is_event = not change.kind.is_of_lifetime
    return found._replace(shown_by=shown, newest_id=newest.get(change.skill, 0) if moment and is_event else None)


def _recreated(change: Change) -> Finding:
    reason = Reason.TENANT_RECREATED
    observed = "gone" if change.kind is Kind.DELETED else "recreated"
    return Finding(reason, change.tenant, change.org or UNKNOWN_ORG, reason.action, None, "deleted", observed)


def _moment(change: Change, at: datetime) -> Moment:
    """Return when a change is dated, in its interval; one with a time of its own happened then, or not later."""
    start, end = (change.at, change.at) if change.at else (change.not_before, change.not_after)
    start = change.not_before if change.is_latest else start
    return Moment(at, min(start, at), max(end, at), Evidence.CHANGE_LOG)
