"""Which row explains which change, and what follows from a change without one: row by row, and in any small world."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.changes import Change, Kind
from reconciler.core.contradictions import Row
from reconciler.core.model import Action, FallbackDating
from reconciler.core.pairing import LARGEST, Life, Rules, Settled, Tenant, lives_of, pair, settle_tenant
from reconciler.core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

NOON = datetime(2026, 5, 10, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
SETTLE = 60 * SECOND
BORN = -3600.0
ALIVE = Life(NOON - 3600 * SECOND)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def rules(now: float = 600, fallback: FallbackDating = FallbackDating.CUSTOMER) -> Rules:
    return Rules(at(now), SETTLE, SECOND, fallback)


def change(
    kind: Kind,
    start: float,
    end: float | None = None,
    *,
    number: int = 0,
    skill: str | None = "mail",
    event_id: int | None = None,
) -> Change:
    """A change with a time of its own, or one that lies between two."""
    own = at(start) if end is None else None
    until = at(start if end is None else end)
    of = skill if kind.is_of_skill else None
    version = str(number or int(1000 + start))
    return Change("1", "acme", version, kind, of, "2871", at(start), until, own, at(BORN), event_id)


def toggles(*times: float) -> list[Change]:
    return [change(Kind.DISABLED if number % 2 else Kind.ENABLED, time) for number, time in enumerate(times)]


def row(id_: int, kind: str, seconds: float, interval: tuple[float, float] | None = None) -> Row:
    return Row(id_, kind, at(seconds), "2871", (at(interval[0]), at(interval[1])) if interval else None)


def settle(
    changes: Sequence[Change],
    rows: Sequence[Row] = (),
    life: Life | None = ALIVE,
    *,
    by: Rules | None = None,
    can_insert: bool = False,
) -> Settled:
    of = next((each.skill for each in changes if each.kind.is_of_skill), None)
    newest = {of: max((each.id for each in rows), default=0)}
    ordered = sorted(changes, key=lambda each: each.order)
    return settle_tenant(ordered, life, {of: rows}, by or rules(), can_insert=can_insert, newest=newest)


class Case(NamedTuple):
    """What follows: the action, what is observed then, and when, in seconds."""

    claim: str
    changes: list[Change]
    rows: list[Row]
    said: list[tuple[str, str, float | None]]
    life: Life | None = ALIVE
    now: float = 600
    can_insert: bool = False


ON, OFF = Kind.ENABLED, Kind.DISABLED
CASES = [
    Case("a row in time explains it", toggles(0), [row(1, "enabled", 50)], []),
    Case("a row that is late by less than settle", toggles(0), [row(1, "enabled", 61)], []),
    Case("a row that is too late", toggles(0), [row(1, "enabled", 62)], [("append", "enabled", 0)]),
    Case("a row before it", toggles(0), [row(1, "enabled", -2)], [("append", "enabled", 0)]),
    Case("a row of the other kind", toggles(0), [row(1, "disabled", 5)], [("append", "enabled", 0)]),
    Case("its row may still come", toggles(0), [], [("defer", "enabled", None)], now=60),
    Case("its row is due", toggles(0), [], [("append", "enabled", 0)], now=61),
    Case(
        "each row explains one change",
        toggles(0, 20, 40),
        [row(1, "enabled", 41)],
        [("append", "enabled", 0), ("append", "disabled", 20)],
    ),
    Case(
        "of the changes the one that is due",
        [*toggles(13, 38), change(ON, 38, 62, number=1039)],
        [row(1, "enabled", 40)],
        [("defer", "disabled", None), ("defer", "enabled", None)],
        now=78,
    ),
    Case(
        "between the rows around it",
        toggles(0, 20, 40),
        [row(1, "enabled", 30), row(2, "enabled", 45)],
        [("append", "disabled", 30.000001)],
    ),
    Case(
        "and before the row of the next one",
        [change(ON, 0, 100), change(OFF, 90)],
        [row(1, "disabled", 95)],
        [("append", "enabled", 94.999999)],
    ),
    Case(
        "each of several before the row of the next one",
        [change(ON, 0, 100, number=1), change(OFF, 0, 100, number=2), change(ON, 0, 100, number=3)],
        [row(1, "enabled", 50)],
        [("append", "enabled", 49.999998), ("append", "disabled", 49.999999)],
    ),
    Case(
        "nor where the rows around it leave no room",
        toggles(0, 1, 2),
        [row(1, "enabled", 3), row(2, "enabled", 3)],
        [],
    ),
    Case(
        "a change without a time starts to cost late",
        [change(ON, 0, 30)],
        [],
        [("append", "enabled", 30)],
    ),
    Case("and ends early", [change(OFF, 0, 30)], [], [("append", "disabled", 0)]),
    Case(
        "none alone that would make the state wrong",
        [*toggles(0), change(OFF, 20, 590)],
        [],
        [("defer", "enabled", None), ("defer", "disabled", None)],
    ),
    Case(
        "a pair that leaves the state as it is",
        [*toggles(0, 20), change(ON, 30, 590)],
        [],
        [("append", "enabled", 0), ("append", "disabled", 20), ("defer", "enabled", None)],
    ),
    Case(
        "a correction whose interval holds it",
        toggles(0),
        [row(1, "enabled", 300, (-30, 300))],
        [],
    ),
    Case(
        "an event that was appended for another change",
        [change(ON, 0, event_id=1), change(OFF, 20), change(ON, 40)],
        [row(1, "enabled", 0), row(2, "disabled", 20)],
        [("append", "enabled", 40)],
    ),
    Case(
        "a row at the end of the lifetime explains nothing",
        toggles(4),
        [row(1, "enabled", 34)],
        [("append", "enabled", 4)],
        life=Life(at(0), at(17)),
    ),
    Case(
        "the last row before the lifetime says on",
        [change(ON, 0)],
        [row(1, "enabled", 3)],
        [],
        life=Life(at(5)),
    ),
    Case(
        "another one before the lifetime explains nothing",
        [change(ON, 0)],
        [row(1, "enabled", 3), row(2, "disabled", 4)],
        [("append", "enabled", 5)],
        life=Life(at(5)),
    ),
    Case(
        "inside the lifetime",
        toggles(30),
        [],
        [("append", "enabled", 16.999999)],
        life=Life(at(0), at(17)),
    ),
    Case(
        "a row of the second at which it may have gone",
        [*toggles(0), change(Kind.DELETED, 0, 100)],
        [row(1, "enabled", 0.5)],
        [("stamp", "deleted", 0.500001)],
    ),
    Case(
        "a row of the second at which it was deleted",
        [*toggles(0), change(Kind.DELETED, 0)],
        [row(1, "enabled", 0.5)],
        [("stamp", "deleted", 0.500001)],
    ),
    Case(
        "but no row of a later second",
        [change(ON, -9), change(Kind.DELETED, 0)],
        [row(1, "enabled", -9), row(2, "disabled", 1)],
        [("stamp", "deleted", 0)],
    ),
    Case("its lifetime ended before it began", toggles(0, 20), [], [], life=Life(at(-5), at(-10))),
    Case(
        "the rows leave no room before the end of the lifetime",
        toggles(0, 20, 30),
        [row(1, "enabled", 16.999999)],
        [],
        life=Life(at(0), at(17)),
    ),
    Case(
        "nor between the beginning and a row before it",
        toggles(0, 1, 2),
        [row(1, "enabled", 3)],
        [],
        life=Life(at(5)),
    ),
    Case(
        "while the deletion waits all waits",
        [*toggles(0), change(Kind.DELETED, 590)],
        [],
        [("defer", "deleted", None), ("defer", "enabled", None)],
    ),
    Case(
        "the deletion first, and the changes before it",
        [*toggles(0), change(Kind.DELETED, 20)],
        [row(1, "enabled", 30)],
        [("stamp", "deleted", 20), ("append", "enabled", 0)],
    ),
    Case(
        "a stamp lies a second after the beginning",
        [change(Kind.DELETED, 3)],
        [],
        [("stamp", "deleted", 36)],
        life=Life(at(35)),
    ),
    Case(
        "a tenant that came and went is recorded whole",
        [change(Kind.CREATED, BORN), *toggles(0), change(Kind.DELETED, 20)],
        [],
        [("insert", "open", BORN), ("stamp", "deleted", 20), ("append", "enabled", 0)],
        life=None,
        can_insert=True,
    ),
    Case(
        "a creation waits for its row",
        [change(Kind.CREATED, BORN), *toggles(0), change(Kind.DELETED, 590)],
        [],
        [("defer", "open", None), ("defer", "deleted", None), ("defer", "enabled", None)],
        life=None,
        can_insert=True,
    ),
    Case(
        "a tenant that no lifetime holds",
        [change(Kind.CREATED, BORN), *toggles(0)],
        [],
        [("report", "recreated", None)],
        life=None,
    ),
    Case("a tenant that the comparison records", toggles(0), [], [], life=None, can_insert=True),
    Case("a row explains a suspension", [change(Kind.SUSPENDED, 0)], [row(1, "suspended", 5)], []),
    Case("none explains it", [change(Kind.SUSPENDED, 0)], [], [("append", "suspended", 0)]),
    Case("nor the end of it", [change(Kind.RESUMED, 0, 30)], [], [("append", "running", 30)]),
]


@pytest.mark.parametrize("case", CASES, ids=[case.claim for case in CASES])
def test_what_follows_from_a_change(case: Case) -> None:
    found = settle(case.changes, case.rows, case.life, by=rules(case.now), can_insert=case.can_insert).findings
    said = [
        (each.action, each.observed, each.moment and (each.moment.occurred_at - NOON).total_seconds()) for each in found
    ]
    assert said == case.said
    for each in found:
        if each.moment:
            assert each.moment.not_before <= each.moment.occurred_at <= each.moment.not_after
        if each.action.writes and each.reason not in {Reason.TENANT_UNRECORDED, Reason.DELETION_UNRECORDED}:
            assert each.newest_id == max((row.id for row in case.rows), default=0)


def test_detected_dates_the_end_late_too() -> None:
    (found,) = settle([change(OFF, 0, 30)], by=rules(fallback=FallbackDating.DETECTED)).findings
    assert found.moment
    assert found.moment.occurred_at == at(30)


def test_a_lifetime_is_of_the_last_tenant_created_by_then() -> None:
    first, second = Tenant("1", at(0)), Tenant("2", at(1000))
    ended, later = Life(at(5), at(500)), Life(at(1005))
    assert lives_of([second, first], [ended, later], rules()) == {"1": ended, "2": later}
    assert lives_of([second, first], [Life(at(5))], rules()) == {"1": Life(at(5))}
    assert lives_of([first, Tenant("3", at(30))], [Life(at(5))], rules()) == {"1": Life(at(5))}
    # a row may be early by how far the clocks are apart
    assert lives_of([second, first], [Life(at(999))], rules()) == {"2": Life(at(999))}


def test_a_lifetime_before_the_first_tenant_is_its_if_it_lasted() -> None:
    only = Tenant("2", at(1000))
    assert lives_of([only], [Life(at(5))], rules()) == {"2": Life(at(5))}
    assert lives_of([only], [Life(at(5), at(500))], rules()) == {}


def test_ten_thousand_changes_of_one_key_are_paired() -> None:
    number = 40 * LARGEST
    changes = [change(OFF if each % 2 else ON, each / 200, number=1000 + each) for each in range(number)]
    rows = [row(each, "disabled" if each % 2 else "enabled", each / 200 + 0.001) for each in range(number)]
    assert len(pair(changes, rows, ALIVE, rules())) == number


class Deed(NamedTuple):
    """A change, how late its row is, in seconds, or that it is lost; and whether it shows its own time."""

    after: float
    late: float | None
    is_dated: bool


DEEDS = st.lists(
    st.builds(
        Deed,
        after=st.one_of(st.floats(1, 90), st.floats(90, 100_000)),
        late=st.one_of(st.none(), st.floats(0, 59)),
        is_dated=st.booleans(),
    ),
    max_size=8,
)


@given(deeds=DEEDS, between=st.floats(30, 50_000))
def test_what_was_lost_is_billed_as_it_happened(deeds: list[Deed], between: float) -> None:
    """Where the log is whole, whatever rows are lost or late: every day is billed, but near its edges; none twice."""
    times: list[float] = []
    for deed in deeds:
        times.append((times[-1] if times else 0.0) + deed.after)
    truth = [(time, number % 2 == 0) for number, time in enumerate(times)]
    arriving = [
        (time + deed.late, Row(number + 1, "enabled" if on else "disabled", at(time + deed.late), "2871"))
        for number, (deed, (time, on)) in enumerate(zip(deeds, truth, strict=True))
        if deed.late is not None
    ]
    end = (times[-1] if times else 0.0) + 2 * between + 200
    known: list[Change] = []
    ours: list[Row] = []
    last, now = 0.0, between
    while now <= end + between:
        for number, (time, on) in enumerate(truth):
            if last < time <= now:
                start, later = max([last, *times[:number][-1:]]), [each for each in times if time < each <= now]
                interval = (time, None) if deeds[number].is_dated else (start, min([now, *later]))
                known.append(change(ON if on else OFF, *interval, number=2000 + number))
        rows = sorted(
            [*(row for when, row in arriving if when <= now), *ours], key=lambda row: (row.occurred_at, row.id)
        )
        for each in settle(known, rows, by=rules(now)).findings if known else ():
            if each.action is Action.APPEND and each.moment and each.shown_by and each.observed:
                id_ = 1000 + len(ours)
                ours.append(Row(id_, each.observed, each.moment.occurred_at, "2871"))
                known = [
                    one._replace(event_id=id_) if one.resource_version == each.shown_by[1] else one for one in known
                ]
        last, now = now, now + between
    rows = sorted([*(row for _, row in arriving), *ours], key=lambda row: (row.occurred_at, row.id))
    assert len({one.event_id for one in known if one.event_id}) == len(ours) <= len(deeds)
    intervals = [(float(each.not_before.timestamp()), float(each.not_after.timestamp())) for each in known]
    true = _days([(at(time), on) for time, on in truth], at(now))
    billed = _days([(row.occurred_at, row.kind == "enabled") for row in rows], at(now))
    for day in true ^ billed:
        begins = datetime.combine(day, datetime.min.time(), UTC)
        edges = [begins.timestamp(), (begins + timedelta(days=1)).timestamp()]
        slack = (SETTLE + SECOND).total_seconds()
        is_near = any(start - slack <= edge <= stop + slack for start, stop in intervals for edge in edges)
        is_brief = any(stop - start <= 2 * slack for start, stop in pairwise(times))
        assert is_near or is_brief, f"{day}: {truth} {rows}"


def _days(states: Sequence[tuple[datetime, bool]], end: datetime) -> set[date]:
    """The days on which it was on for more than an instant."""
    found: set[date] = set()
    for (since, on), (until, _) in pairwise([*states, (end, False)]):
        if on and until > since:
            last = (until - timedelta(microseconds=1)).date()
            found |= {since.date() + timedelta(days=number) for number in range((last - since.date()).days + 1)}
    return found
