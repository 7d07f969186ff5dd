"""I12, no false proof: what the certificate lets pass is billed as it truly happened, and what can be proven passes."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, NamedTuple

from reconciler.core.billing import FEE, History, Lifetime, Prices, lines
from reconciler.core.certificate import Cause
from reconciler.core.history import ANY_TENANT
from reconciler.core.model import UNKNOWN_ORG, Event, Evidence
from reconciler.core.reasons import Reason
from reconciler.db.certificate import read_certificate
from reconciler.db.usage import histories, statement
from tests.simulation.invariants import ROUNDING
from tests.simulation.portal import SETTLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from reconciler.core.certificate import Certificate
    from reconciler.db.connection import Cursor
    from tests.simulation.history_world import HistoryWorld, Seen
    from tests.simulation.portal import Truth

UNSETTLED = {Cause.DEFERRED, Cause.REPORTED}
"""What waits for a row, or for a person."""
Days = dict[str | None, set[date]]
"""The billable days of each item."""
Correction = tuple[str, str | None, datetime, datetime, str]
"""Reason, subject, the interval and the evidence."""


class Verdict(NamedTuple):
    """One month of one tenant: how the certificate and the bill compare with the truth.

    `kind` is one of

        refused   the certificate does not let it pass
        denied    it does not, though everything about it could be proven
        unknown   no run saw it then and no row tells of it: it came and went in a gap of `*`, or before the first run
        exact     it passes, and is billed as it truly happened
        edge      but for a day whose edge lies within settle and the tolerance of a true change, or on which an item
                  was on for no longer than that
        policy    but for a day inside the interval of a correction that was dated by policy
        wrong     it passes, and is billed otherwise
        lost      it is billed otherwise, though the change log showed all of it and nothing of it waits
    """

    kind: str
    tenant: str
    first: date
    until: date
    is_active: bool = False
    """True if something truly changed."""
    is_provable: bool = False
    """True if everything about it was there to be seen: then it must pass."""
    causes: tuple[str, ...] = ()
    """Why it is refused."""
    detail: str = ""


def judge(cursor: Cursor, world: HistoryWorld, first: date, until: date) -> Iterator[Verdict]:
    """Yield the verdict on every tenant that was there in the period, or is billed for it."""
    certificate = read_certificate(cursor, first, until, settle=SETTLE)
    assert not [doubt for doubt in certificate.refused if not doubt.tenant], f"unverified: {certificate.refused}"
    truth = {name: true_history(true) for name, true in world.portal.truth.items()}
    recorded = dict(recorded_histories(cursor, [*truth]))
    stated: dict[str, dict[str | None, int]] = defaultdict(lambda: defaultdict(int))
    for line in statement(cursor, first, until).lines:
        stated[line.tenant][line.item] += line.days
    corrections = _corrections(cursor)
    assert stated.keys() <= truth.keys(), "somebody is billed who never lived"
    for name, lived in truth.items():
        held = recorded.get(name, History())
        history = _knowable(lived, held, world, certificate)
        right, billed = (billable_days(each, first, until) for each in (history, held))
        counted = {item: len(days) for item, days in billed.items()}
        assert counted == stated.get(name, {}), f"{name}: usage says {stated.get(name)}, the rules say {counted}"
        if not right and not billed:
            if billable_days(lived, first, until):
                yield Verdict("unknown", name, first, until)
            continue
        changes = _changes(world.portal.truth[name])
        begins, ends = _instants(first, until)
        is_active = any(begins <= at < ends for _, at in changes)
        verdict = Verdict("", name, first, until, is_active, _is_provable(world, name, first, until))
        doubts = [doubt for doubt in certificate.refused if doubt.tenant == name]
        slack = SETTLE + ROUNDING + abs(world.clock.ahead)
        if _was_shown(world, name) and not any(doubt.cause in UNSETTLED for doubt in doubts):
            kind, detail = _compared(history, held, right, billed, changes, corrections.get(name, []), slack)
            if kind == "wrong":
                yield verdict._replace(kind="lost", detail=detail)
        if doubts:
            refused = tuple(dict.fromkeys(f"{doubt.cause} {doubt.detail}".strip() for doubt in doubts))
            # a report is not about a month
            is_reported = name in world.portal.unsound and any(doubt.cause is Cause.REPORTED for doubt in doubts)
            # where the log was cut short, the next run will know: also when a tenant began that it did not show yet
            causes = {doubt.cause for doubt in doubts}
            is_deferred = Cause.DEFERRED in causes and causes <= {Cause.DEFERRED, Cause.KNOWN_SINCE}
            is_read_on = is_deferred and world.log_style in {"lags", "cut"}
            denied = verdict.is_provable and not is_reported and not is_read_on
            yield verdict._replace(kind="denied" if denied else "refused", causes=refused)
        else:
            kind, detail = _compared(history, held, right, billed, changes, corrections.get(name, []), slack)
            yield verdict._replace(kind=kind, detail=detail)


def _compared(
    true: History,
    recorded: History,
    right: Days,
    billed: Days,
    changes: list[tuple[str | None, datetime]],
    corrections: list[Correction],
    slack: timedelta,
) -> tuple[str, str]:
    """Return the kind of verdict, and the days that are billed and should not be, or the other way round."""
    kinds, said = {"exact"}, []
    for item in right.keys() | billed.keys():
        for day in right.get(item, set()) ^ billed.get(item, set()):
            said.append(f"{item or 'fee'} {day} {'too much' if day in billed.get(item, set()) else 'missing'}")
            begins, ends = _instants(day, day + timedelta(days=1))
            is_close = any(of in {item, "*"} and min(abs(at - begins), abs(at - ends)) <= slack for of, at in changes)
            if is_close or max(_lasted(each, item, begins, ends) for each in (true, recorded)) <= slack:
                kinds.add("edge")
            elif any(_is_by_policy(one, item) and one[2] < ends and one[3] > begins for one in corrections):
                kinds.add("policy")
            else:
                kinds.add("wrong")
    kind = next(kind for kind in ("wrong", "policy", "edge", "exact") if kind in kinds)
    return kind, ", ".join(sorted(said))


def _lasted(history: History, item: str | None, begins: datetime, ends: datetime) -> timedelta:
    """Return for how long an item was on between two instants."""
    lasted, is_on, since = timedelta(), item is FEE, datetime.min.replace(tzinfo=UTC)
    for event in (*history.items.get(item, ()), Event(0, "", ends)):
        if is_on:
            for lived in history.lifetimes:
                first, last = max(since, lived.began_at, begins), min(event.occurred_at, lived.ended_at or ends, ends)
                lasted += max(last - first, timedelta())
        is_on, since = event.kind in {"enabled", "resumed"}, event.occurred_at
    return lasted


def _is_by_policy(correction: Correction, item: str | None) -> bool:
    reason, subject, not_before, not_after, evidence = correction
    suspends = reason in {Reason.SUSPENSION_UNRECORDED, Reason.RESUMPTION_UNRECORDED, Reason.DELETION_UNRECORDED}
    is_open = evidence == Evidence.CHANGE_LOG and not_before < not_after
    is_about = suspends if item is FEE else subject == item or reason is Reason.DELETION_UNRECORDED
    return (is_open or evidence == Evidence.NONE) and is_about


def _was_shown(world: HistoryWorld, name: str) -> bool:
    """Whether the change log showed all of a tenant's only life, and its organisation has not moved."""
    lives = [at for at, alive in world.portal.truth[name].lifetimes if alive]
    return world.is_whole and len(lives) == 1 and lives[0] > world.runs[0][0]


def _is_provable(world: HistoryWorld, name: str, first: date, until: date) -> bool:
    """Whether all about it was there to be seen, so that a certificate that refuses it refuses too much."""
    true, (begins, ends) = world.portal.truth[name], _instants(first, until)
    if sum(alive for _, alive in true.lifetimes) > 1 or world.restored_at:
        return False
    # what was lost between a run outside of it and one inside may have happened in it, for all that the runs can tell
    since = max((at for at, _ in world.runs if at < begins), default=begins)
    until = min((at for at, _ in world.runs if at >= ends), default=ends)
    if any(since - SETTLE <= at < until + SETTLE for at in world.portal.unsound.get(name, [])):
        return False
    before: Seen | None = None
    before_at = datetime.min.replace(tzinfo=UTC)
    for at, seen in world.runs:
        now = seen.get(name)
        if before is None and now and not (now.is_as_created and now.suspend_is_set):
            return False
        concerns = at >= begins and before_at < ends
        if before and concerns and not before.is_deleting and not _is_provable_step(before, now):
            return False
        before, before_at = now or before, at
        if now is None and before:
            break
    return before is not None


def _is_provable_step(before: Seen, now: Seen | None) -> bool:
    return now is not None and now.suspend_is_set and now.generation - before.generation <= 1


def _knowable(lived: History, held: History, world: HistoryWorld, certificate: Certificate) -> History:
    """Return a history without the lifetimes that nobody can know of: no row tells of them.

    They came and went before the first run, or in time of which it is said that names may have come and gone in it.
    """
    blind = [(datetime.min.replace(tzinfo=UTC), world.runs[0][0])]
    unseen = [one for one in certificate.accepted if one.tenant == ANY_TENANT]
    blind += [(one.from_at, one.until_at) for one in unseen if one.from_at and one.until_at]

    def is_unknowable(life: Lifetime) -> bool:
        ended = life.ended_at or datetime.max.replace(tzinfo=UTC)
        is_unseen = any(begins <= life.began_at and ended <= ends for begins, ends in blind)
        return is_unseen and not any(
            one.began_at < ended and life.began_at < (one.ended_at or ended) for one in held.lifetimes
        )

    return replace(lived, lifetimes=tuple(life for life in lived.lifetimes if not is_unknowable(life)))


def true_history(truth: Truth) -> History:
    """Return what happened as the history of a ledger that lacks nothing."""
    lifetimes: list[Lifetime] = []
    for at, alive in truth.lifetimes:
        if alive:
            lifetimes.append(Lifetime(UNKNOWN_ORG, at))
        else:
            lifetimes[-1] = lifetimes[-1]._replace(ended_at=at)
    return History(
        lifetimes=tuple(lifetimes),
        skills={skill: _events(key, "enabled", "disabled") for skill, key in truth.skills.items()},
        suspensions=_events(truth.suspended, "suspended", "resumed"),
    )


def _events(key: list[tuple[datetime, bool]], on: str, off: str) -> tuple[Event, ...]:
    return tuple(Event(number, on if state else off, at) for number, (at, state) in enumerate(key))


def _changes(truth: Truth) -> list[tuple[str | None, datetime]]:
    """Return what truly changed, and when: a skill, None for the suspension, `*` for the tenant as a whole."""
    changes: list[tuple[str | None, datetime]] = [("*", at) for at, _ in truth.lifetimes]
    changes += [(FEE, at) for at, _ in truth.suspended]
    return changes + [(skill, at) for skill, key in truth.skills.items() for at, _ in key]


def recorded_histories(cursor: Cursor, names: list[str]) -> Iterator[tuple[str, History]]:
    for name, lifetimes, events in histories(cursor, names):
        items = {item: tuple(its) for item, its in events}
        suspensions = items.pop(FEE, ())
        skills = {item: its for item, its in items.items() if item is not None}
        if lifetimes or skills or suspensions:
            yield name, History(lifetimes=lifetimes, skills=skills, suspensions=suspensions)


def _corrections(cursor: Cursor) -> Mapping[str, list[Correction]]:
    found: dict[str, list[Correction]] = defaultdict(list)
    for name, *rest in cursor.execute(
        "SELECT tenant_name, reason, subject, not_before, not_after, evidence FROM reconciler.corrections "
        "WHERE evidence IS NOT NULL"
    ):
        found[name].append((rest[0], rest[1], rest[2], rest[3], rest[4]))
    return found


def billable_days(history: History, first: date, until: date) -> Days:
    days: Days = defaultdict(set)
    for number in range((until - first).days):
        day = first + timedelta(days=number)
        _, end = _instants(day, day + timedelta(days=1))
        for line in lines("", history, Prices(), first=day, until=day + timedelta(days=1), as_of=end):
            days[line.item].add(day)
    return dict(days)


def _instants(first: date, until: date) -> tuple[datetime, datetime]:
    return datetime.combine(first, time(), UTC), datetime.combine(until, time(), UTC)
