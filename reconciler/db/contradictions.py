"""Find what new rows say: contradictions, corrections that they disprove, and closed months that they change.

Only what is new since the run before is looked at, and once a day all of it. The ids of events are drawn in order and
committed in any, so a later event may have a lower id: a run keeps how many events it saw near the highest one.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from reconciler.core.billing import NOTHING
from reconciler.core.contradictions import Contradiction, Guess, Known, Stretch, contradiction, superseded
from reconciler.core.impact import needed_histories, with_impact
from reconciler.core.model import FIRST, LAST, STATES, Action, Event, Evidence, Finding, Moment
from reconciler.core.reasons import Reason
from reconciler.core.replay import NOTHING as NO_EVENT
from reconciler.core.replay import reading, state_of
from reconciler.db.closing import find_changed_months
from reconciler.db.keys import KEYS_BATCH, Decisions, key_rows, standing_decisions, upheld
from reconciler.db.queries import query
from reconciler.db.usage import histories, prices

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from datetime import datetime, timedelta
    from decimal import Decimal

    from reconciler.core.plan import Plan
    from reconciler.db.connection import Cursor
    from reconciler.db.keys import Key

REACH = 10_000
"""How far the ids of events that are committed later lie below the highest one, at most: else a day passes."""

_ALL = {"skill": -1, "suspension": -1}
"""Below the ids of all events."""


class EventsSeen(NamedTuple):
    """Up to where a run has looked at the events."""

    skill: int
    suspension: int
    correction: int
    near: str
    checked_at: datetime | None
    """When, if it has looked at all of them."""
    month: str | None = None
    """The closed month of which it has looked at all lines."""

    def keep(self, cursor: Cursor) -> None:
        """Keep it, in the transaction of the run's row, which has pinned the source."""
        cursor.execute(query("keep_events_seen"), self._asdict())


class Marks(NamedTuple):
    """Up to where there were events when a run began, and up to where the runs before it had looked at them.

    What comes while a run compares is new for the next one, whether this one sees it or not.
    """

    as_of: datetime
    is_recent: bool
    """All events were looked at within a day, and none is gone."""
    skill_seen: int
    suspension_seen: int
    correction_seen: int
    skill: int
    suspension: int
    correction: int
    is_undisturbed: bool
    """No event has come below the highest that was looked at."""
    near: str

    @property
    def above(self) -> dict[str, int]:
        """Above which ids events are new, as parameters."""
        margin = 0 if self.is_undisturbed else REACH
        skill, suspension = self.skill_seen - margin, self.suspension_seen - margin
        return {"skill": skill, "suspension": suspension, "correction": self.correction_seen}


def read_marks(cursor: Cursor) -> Marks:
    """Return up to where there are events."""
    ((*marks,),) = cursor.execute(query("events_seen"), {"reach": REACH}).fetchall()
    return Marks(*marks)


def tenants_with_news(cursor: Cursor, marks: Marks) -> list[str]:
    """Return the tenants of which the ledger has what no run has looked at."""
    return [name for (name,) in cursor.execute(query("tenants_with_news"), marks.above)]


def look_at_events(cursor: Cursor, plan: Plan, settle: timedelta, marks: Marks) -> tuple[Plan, EventsSeen]:
    """Return the plan with the contradictions and the disproved corrections, and up to where the events were looked at.

    A disproved correction is deferred where the plan writes to the same key.
    """
    news = tenants_with_news(cursor, marks)
    changed, month = find_changed_months(cursor, news)
    checked_at = None if marks.is_recent else marks.as_of
    seen = EventsSeen(marks.skill, marks.suspension, marks.correction, marks.near, checked_at, month)
    if marks.is_recent and not news:
        return plan.with_findings(changed), seen
    names, above = (news, marks.above) if marks.is_recent else (None, _ALL)
    ((now,),) = cursor.execute(query("clock")).fetchall()
    moved = {finding.tenant for finding in plan.findings if finding.reason is Reason.ORG_MOVED}
    moved.update(name for (name,) in cursor.execute(query("moved_tenants")))
    written = {_key(finding) for finding in plan.corrections if finding.event_kind}
    disproved = [*_superseded(cursor, names)]
    # without what is taken back now, a decision may ask for other rows
    moving = written.union(map(_key, disproved))
    found = [
        *changed,
        *_contradictions(cursor, {"names": names, **above}, moved, as_of=now, settle=settle),
        *(each.deferred() if _key(each) in written else each for each in disproved),
        *(each.deferred() if _key(each) in moving else each for each in upheld(cursor, names, now)),
    ]
    return plan.with_findings(found), seen


def _key(finding: Finding) -> Key:
    return finding.tenant, finding.subject


def _superseded(cursor: Cursor, names: list[str] | None) -> Iterator[Finding]:
    """Yield the corrections that the portal's later rows disprove, each as the one that takes it back."""
    found: dict[Key, dict[Guess, str]] = {}
    for tenant, skill, org, *event, not_before, not_after in cursor.execute(
        query("disproved_corrections"), {"names": names}
    ):
        found.setdefault((tenant, skill), {})[Guess(Event(*event), not_before, not_after)] = org
    decided = standing_decisions(cursor, {tenant for tenant, _ in found}) if found else {}
    for (tenant, skill), rows in key_rows(cursor, found):
        orgs, events = found[tenant, skill], [*rows]
        newest_id = max(row.id for row, _ in events)
        counting = [row for row, counts in events if counts]
        nothing = NO_EVENT[skill is not None]
        taken_back = [guess for guess, _ in superseded([*orgs], counting, nothing)]
        without = {guess.event.id for guess in taken_back}
        standing = decided.get((tenant, skill), Decisions()).standing
        states = reading((row.event for row in counting if row.id not in without), standing, nothing)
        for guess in taken_back:
            at = guess.event.occurred_at
            yield Finding(
                Reason.CORRECTION_SUPERSEDED,
                tenant,
                orgs[guess],
                Action.APPEND,
                skill,
                STATES[guess.event.kind],
                STATES[state_of(states, at, nothing)],
                guess.event,
                Moment(at, at, at, Evidence.NONE),
                newest_id=newest_id,
            )


def _contradictions(
    cursor: Cursor, among: Mapping[str, object], moved: Collection[str], *, as_of: datetime, settle: timedelta
) -> Iterator[Finding]:
    """Yield the keys whose events contradict each other, with what is missing and what that is worth.

    `among` restricts it to what is new.
    """
    bounds = {"settle": settle, "first": FIRST, "last": LAST}
    keys = iter(cursor.execute(query("suspicious_keys"), {**among, **bounds}).fetchall())
    while batch := [*islice(keys, KEYS_BATCH)]:
        names = sorted({tenant for tenant, _ in batch})
        lifetimes = known_lifetimes(cursor, names, settle)
        gaps: dict[str, list[Stretch]] = {}
        for tenant, from_at, until_at in cursor.execute(query("gaps_of"), {"names": names}):
            gaps.setdefault(tenant, []).append((from_at, until_at))
        decided = {
            key: [(one.begins_at, one.ends_at) for one in known.standing]
            for key, known in standing_decisions(cursor, names).items()
        }
        gone: dict[str, list[Stretch]] = {}
        for tenant, *said in cursor.execute(query("decided_lifetimes"), {"names": names, "last": LAST}):
            gone.setdefault(tenant, []).append((said[0], said[1]))
        found: list[tuple[Finding, Contradiction]] = []
        for (tenant, skill), rows in key_rows(cursor, batch):
            its, unknown = lifetimes.get(tenant, []), gaps.get(tenant, [])
            events = (row for row, counts in rows if counts)
            one = contradiction(
                events,
                its,
                unknown,
                as_of=as_of,
                settle=settle,
                org_moved=tenant in moved,
                decided=decided.get((tenant, skill), ()),
                gone=gone.get(tenant, ()),
            )
            if one:
                reason = Reason.HISTORY_CONTRADICTS
                said = tenant, its[-1].org, reason.action, skill, one.recorded, one.problem
                found.append((Finding(reason, *said, interval=one.interval), one))
        yield from _priced(cursor, found, as_of)


def _priced(cursor: Cursor, found: list[tuple[Finding, Contradiction]], as_of: datetime) -> Iterator[Finding]:
    """Yield the reports, each with what the missing event is worth at either end of its interval."""
    lost: dict[str, list[Finding]] = {}
    for report, one in found:
        if one.missing and one.dated:
            lost.setdefault(report.tenant, []).append(_as_correction(report, one.missing, one.dated))
    worth: dict[Key, tuple[Decimal, Decimal]] = {}
    if lost:
        today, needed = prices(cursor), needed_histories([finding for its in lost.values() for finding in its])
        for tenant, lifetimes, items in histories(cursor, *needed):
            for priced in with_impact(lost[tenant], lifetimes, items, today, as_of):
                impact = priced.impact_chf or NOTHING
                worth[_key(priced)] = priced.impact_range or (impact, impact)
    for report, _ in found:
        yield report._replace(impact_range=worth.get(_key(report)))


def _as_correction(report: Finding, kind: str, dated: Stretch) -> Finding:
    """Return the correction that would append the missing event."""
    return report._replace(
        reason=Reason.CORRECTION_SUPERSEDED,
        action=Action.APPEND,
        observed=STATES[kind],
        moment=Moment(dated[0], *dated, Evidence.NONE),
    )


def known_lifetimes(cursor: Cursor, names: list[str], settle: timedelta) -> dict[str, list[Known]]:
    """Return the lifetimes of the tenants that have any, by their beginning."""
    found: dict[str, list[Known]] = {}
    if names:
        asked = {"names": names, "settle": settle, "last": LAST}
        for tenant, *known, payers in cursor.execute(query("known_lifetimes"), asked):
            found.setdefault(tenant, []).append(Known(*known)._replace(payers=frozenset(payers)))
    return found
