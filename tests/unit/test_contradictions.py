"""The truth tables of `reconciler.core.contradictions`, row by row, and what taking back an event must do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.contradictions import (
    Contradiction,
    Guess,
    Known,
    Row,
    Stretch,
    contradiction,
    state_without,
    superseded,
)
from reconciler.core.model import FIRST, Event

SETTLE = timedelta(seconds=60)
DAY = timedelta(days=1)
INSTANT = timedelta(microseconds=1)


def may(day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(2026, 5, day, hour, minute, tzinfo=UTC)


NOW = may(31)
IN_BETWEEN, BEFORE = "a change in between is missing", "a change before it is missing"
OUTSIDE, NEVER_PAID = "it lies outside of every lifetime", "its organisation never paid"

UNKNOWN = Known("2871", may(1), None, None)
"""A lifetime of which nothing is known."""
SINCE_15 = UNKNOWN._replace(since=may(15))
PROVEN = UNKNOWN._replace(since=may(1))
ENDED = UNKNOWN._replace(ended_at=may(10))


def rows(*said: tuple[str, datetime] | tuple[str, datetime, Stretch] | Row) -> list[Row]:
    """Return the events of a key as the portal wrote them, or with an interval, a run."""
    made = []
    for number, each in enumerate(said, 1):
        if isinstance(each, Row):
            made.append(each)
        else:
            kind, at, *interval = each
            made.append(Row(number, kind, at, "2871", *interval))
    return made


class Case(NamedTuple):
    """Events of one key, and what is found in them."""

    rows: list[Row]
    lifetimes: tuple[Known, ...] = (UNKNOWN,)
    gaps: tuple[Stretch, ...] = ()
    problem: str | None = None
    missing: str | None = None
    interval: Stretch | None = None
    org_moved: bool = False


TABLE: dict[str, Case] = {
    "what alternates": Case(rows(("enabled", may(2)), ("disabled", may(4)), ("enabled", may(4)))),
    "nothing": Case([]),
    "on twice, nothing known": Case(
        rows(("enabled", may(2)), ("enabled", may(4))), (UNKNOWN,), (), IN_BETWEEN, "disabled", (may(2), may(4))
    ),
    "off twice, nothing known": Case(
        rows(("enabled", may(2)), ("disabled", may(4)), ("disabled", may(6))),
        (UNKNOWN,),
        (),
        IN_BETWEEN,
        "enabled",
        (may(4), may(6)),
    ),
    "suspended twice": Case(
        rows(("suspended", may(2)), ("suspended", may(4))), (UNKNOWN,), (), IN_BETWEEN, "resumed", (may(2), may(4))
    ),
    "twice within settle": Case(rows(("enabled", may(2)), ("enabled", may(2) + SETTLE))),
    "twice a moment more than settle apart": Case(
        rows(("enabled", may(2)), ("enabled", may(2) + SETTLE + INSTANT)),
        (UNKNOWN,),
        (),
        IN_BETWEEN,
        "disabled",
        (may(2), may(2) + SETTLE + INSTANT),
    ),
    "twice, in time that is proven": Case(rows(("enabled", may(2)), ("enabled", may(4))), (PROVEN,)),
    "twice, after all is known": Case(rows(("enabled", may(15)), ("enabled", may(17))), (SINCE_15,)),
    "twice, the second after all is known": Case(
        rows(("enabled", may(14)), ("enabled", may(17))), (SINCE_15,), (), IN_BETWEEN, "disabled", (may(14), may(15))
    ),
    "twice over a gap": Case(
        rows(("enabled", may(16)), ("enabled", may(24))),
        (SINCE_15,),
        ((may(18), may(19)),),
        IN_BETWEEN,
        "disabled",
        (may(18), may(19)),
    ),
    "twice over two gaps: from the first to the last": Case(
        rows(("enabled", may(16)), ("enabled", may(24))),
        (PROVEN,),
        ((may(22), may(28)), (may(18), may(19))),
        IN_BETWEEN,
        "disabled",
        (may(18), may(24)),
    ),
    "twice beside a gap": Case(rows(("enabled", may(16)), ("enabled", may(18))), (PROVEN,), ((may(18), may(19)),)),
    "twice, and the second may be of when the first is": Case(
        rows(("enabled", may(2)), ("enabled", may(4), (may(2), may(4))))
    ),
    "twice, and the first may be of when the second is": Case(
        rows(("enabled", may(2), (may(2), may(5))), ("enabled", may(4)))
    ),
    "twice, and neither may be of when the other is": Case(
        rows(("enabled", may(2), (may(2), may(3))), ("enabled", may(6), (may(4), may(6)))),
        (UNKNOWN,),
        (),
        IN_BETWEEN,
        "disabled",
        (may(2), may(6)),
    ),
    "off first": Case(
        rows(("disabled", may(4)), ("enabled", may(6))), (UNKNOWN,), (), BEFORE, "enabled", (may(1), may(4))
    ),
    "resumed first": Case(rows(("resumed", may(4))), (UNKNOWN,), (), BEFORE, "suspended", (may(1), may(4))),
    "off first, in time that is proven": Case(rows(("disabled", may(4))), (PROVEN,)),
    "off first, over a gap": Case(
        rows(("disabled", may(9))), (PROVEN,), ((may(4), may(5)),), BEFORE, "enabled", (may(4), may(5))
    ),
    "off first, as the lifetime begins": Case(rows(("disabled", may(1)), ("enabled", may(2)))),
    "off first in the second lifetime": Case(
        rows(("enabled", may(2)), ("disabled", may(10)), ("disabled", may(14))),
        (ENDED, UNKNOWN._replace(began_at=may(12))),
        (),
        BEFORE,
        "enabled",
        (may(12), may(14)),
    ),
    "off first, and a correction ends what the lifetime before left on": Case(
        rows(("enabled", may(2)), ("disabled", may(14), (may(12), may(14)))),
        (ENDED, UNKNOWN._replace(began_at=may(12))),
    ),
    "on in each of two lifetimes": Case(
        rows(("enabled", may(2)), ("enabled", may(12))), (ENDED, UNKNOWN._replace(began_at=may(12)))
    ),
    "off a moment after the lifetime before, which the next one follows at once": Case(
        rows(("enabled", may(2)), ("disabled", may(10) + SETTLE), ("enabled", may(11))),
        (ENDED, UNKNOWN._replace(began_at=may(10))),
    ),
    "before the lifetime": Case(
        rows(("enabled", may(1) - SETTLE - INSTANT), ("disabled", may(4))), (PROVEN,), (), OUTSIDE
    ),
    "before the lifetime by no more than settle": Case(rows(("enabled", may(1) - SETTLE), ("disabled", may(4)))),
    "after the lifetime": Case(
        rows(("enabled", may(2)), ("disabled", may(10) + SETTLE + INSTANT)), (ENDED,), (), OUTSIDE
    ),
    "after the lifetime by no more than settle": Case(
        rows(("enabled", may(2)), ("disabled", may(10) + SETTLE)), (ENDED,)
    ),
    "between two lifetimes": Case(rows(("enabled", may(11))), (ENDED, UNKNOWN._replace(began_at=may(12))), (), OUTSIDE),
    "a correction before the lifetime": Case(
        rows(("enabled", may(1) - DAY, (may(1) - DAY, may(1)))), (UNKNOWN,), (), OUTSIDE
    ),
    "an organisation that never paid": Case(rows(Row(1, "enabled", may(2), "4711")), (PROVEN,), (), NEVER_PAID),
    "an organisation that paid for another lifetime": Case(
        rows(Row(1, "enabled", may(13), "4711")),
        (ENDED._replace(org="4711"), UNKNOWN._replace(began_at=may(12))),
        (),
        NEVER_PAID,
    ),
    "an organisation that pays for a day of it": Case(
        rows(Row(1, "enabled", may(2), "4711")), (PROVEN._replace(payers=frozenset({"4711"})),)
    ),
    "an organisation that pays for nothing, beside one that does": Case(
        rows(Row(1, "enabled", may(2), "4712")), (PROVEN._replace(payers=frozenset({"4711"})),), (), NEVER_PAID
    ),
    "an organisation where an unknown one pays for a day of it": Case(
        rows(Row(1, "enabled", may(2), "4711")), (PROVEN._replace(payers=frozenset({"unknown"})),)
    ),
    "an organisation that has moved": Case(rows(Row(1, "enabled", may(2), "4711")), org_moved=True),
    "an unknown organisation": Case(rows(Row(1, "enabled", may(2), "unknown"))),
    "an organisation where that of the row is unknown": Case(
        rows(Row(1, "enabled", may(2), "4711")), (UNKNOWN._replace(org="unknown"),)
    ),
    "another organisation on a correction": Case(rows(Row(1, "enabled", may(2), "4711", (may(1), may(2))))),
    "on twice, the second after now": Case(rows(("enabled", may(2)), ("enabled", NOW + INSTANT))),
    "infinitely long ago": Case(rows(("enabled", FIRST))),
    "infinitely long ago, and one after it": Case(rows(("enabled", FIRST), ("enabled", may(2))), problem=OUTSIDE),
    "a tenant without a lifetime": Case(rows(("disabled", may(2)), ("disabled", may(4))), ()),
}


@pytest.mark.parametrize("case", TABLE.values(), ids=TABLE)
def test_the_truth_table_of_contradictions(case: Case) -> None:
    found = contradiction(case.rows, case.lifetimes, case.gaps, as_of=NOW, settle=SETTLE, org_moved=case.org_moved)
    assert (found and found[1:4]) == (case.problem and (case.problem, case.missing, case.interval))


def test_the_rows_are_named_to_the_minute_and_fit_a_line() -> None:
    found = contradiction(
        rows(("enabled", may(1, 10)), ("enabled", may(20, 9, 30))), [UNKNOWN], [], as_of=NOW, settle=SETTLE
    )
    assert found
    assert found.recorded == "enabled 2026-05-01 10:00, enabled 2026-05-20 09:30"
    found = contradiction([Row(1, "enabled", may(2), "x" * 500)], [UNKNOWN], [], as_of=NOW, settle=SETTLE)
    assert found
    assert len(found.recorded) < 200


def test_what_is_missing_fits_between_the_rows() -> None:
    def dated(*said: tuple[str, datetime]) -> Stretch | None:
        found = contradiction(rows(*said), [UNKNOWN], [], as_of=NOW, settle=SETTLE)
        assert isinstance(found, Contradiction)
        return found.dated

    assert dated(("enabled", may(2)), ("enabled", may(4))) == (may(2) + INSTANT, may(4) - INSTANT)
    assert dated(("disabled", may(4))) == (may(1), may(4) - INSTANT)


# --- a better moment ---------------------------------------------------------------------------------------------

GUESSED = Row(5, "enabled", may(10), "2871", (may(2), may(10)))

LATE: dict[str, tuple[list[Row], str | None]] = {
    "in the interval, before it": ([Row(6, "enabled", may(3), "2871")], "enabled"),
    "at the beginning of the interval": ([Row(6, "enabled", may(2), "2871")], "enabled"),
    "at the end of the interval": ([Row(6, "enabled", may(10), "2871")], "enabled"),
    "before the interval": ([Row(6, "enabled", may(2) - INSTANT, "2871")], None),
    "after the interval": ([Row(6, "enabled", may(10) + INSTANT, "2871")], None),
    "of another kind": ([Row(6, "disabled", may(3), "2871")], None),
    "recorded before it": ([Row(4, "enabled", may(3), "2871")], None),
    "a correction too": ([Row(6, "enabled", may(3), "2871", (may(2), may(4)))], None),
    "two of them": ([Row(6, "enabled", may(3), "2871"), Row(7, "enabled", may(4), "2871")], "enabled"),
    "and one more change after it": ([Row(6, "enabled", may(3), "2871"), Row(7, "disabled", may(4), "2871")], None),
    "and two more changes": (
        [Row(6, "enabled", may(3), "2871"), Row(7, "disabled", may(4), "2871"), Row(8, "enabled", may(5), "2871")],
        "enabled",
    ),
}


@pytest.mark.parametrize(("late", "expected"), LATE.values(), ids=LATE)
def test_the_truth_table_of_a_better_moment(late: list[Row], expected: str | None) -> None:
    guess = Guess(GUESSED.event, may(2), may(10))
    found = list(superseded([guess], [*late, GUESSED], "disabled"))
    assert found == ([] if expected is None else [(guess, expected)])


def test_a_guess_that_was_too_early_is_turned_round_at_its_instant() -> None:
    guessed = Row(2, "disabled", may(5), "2871", (may(1), may(25)))
    guess = Guess(guessed.event, may(1), may(25))
    its = [Row(1, "enabled", may(1), "2871"), guessed, Row(3, "disabled", may(20), "2871")]
    assert list(superseded([guess], its, "disabled")) == [(guess, "enabled")]


def test_guesses_that_are_disproved_together_do_not_count_for_each_other() -> None:
    off = Row(2, "disabled", may(5), "2871", (may(1), may(8)))
    on = Row(3, "enabled", may(6), "2871", (may(5), may(12)))
    guesses = [Guess(each.event, *(each.interval or (NOW, NOW))) for each in (off, on)]
    its = [
        Row(1, "enabled", may(1), "2871"),
        off,
        on,
        Row(4, "disabled", may(8), "2871"),
        Row(5, "enabled", may(9), "2871"),
    ]
    assert [kind for _, kind in superseded([guesses[1]], its, "disabled")] == ["disabled"]
    kinds = dict(superseded(guesses, its, "disabled"))
    assert kinds == {guesses[0]: "enabled", guesses[1]: "enabled"}


# --- taking back -------------------------------------------------------------------------------------------------

instants = st.integers(0, 6).map(lambda day: may(1) + day * DAY)


@st.composite
def keys(draw: st.DrawFn) -> tuple[list[Event], int, str]:
    """Draw the events of a key, which one of them is taken back, and what a key without events says."""
    on, off = draw(st.sampled_from([("enabled", "disabled"), ("suspended", "resumed")]))
    times = draw(st.lists(instants, min_size=1, max_size=8))
    its = [Event(number, draw(st.sampled_from([on, off])), at) for number, at in enumerate(times, 1)]
    return its, draw(st.integers(1, len(its))), off


def state_at(events: list[Event], at: datetime, nothing: str) -> str:
    """Return the latest state as the ledger reads it: DISTINCT ON, by time and id."""
    before = sorted((event.occurred_at, event.id, event.kind) for event in events if event.occurred_at <= at)
    return before[-1][2] if before else nothing


@given(keys())
def test_what_is_taken_back_reads_as_never_written(key: tuple[list[Event], int, str]) -> None:
    events, number, nothing = key
    taken = events[number - 1]
    others = [event for event in events if event.id != number]
    kind = state_without(events, {number}, taken.occurred_at, nothing)
    after = [*events, Event(len(events) + 1, kind, taken.occurred_at)]
    for at in {event.occurred_at + shift for event in events for shift in (-INSTANT, timedelta(), INSTANT)}:
        assert state_at(after, at, nothing) == state_at(others, at, nothing)


@given(keys(), st.data())
def test_what_is_taken_back_together_reads_as_never_written(
    key: tuple[list[Event], int, str], data: st.DataObject
) -> None:
    events, _, nothing = key
    gone = data.draw(st.sets(st.sampled_from([event.id for event in events])))
    others = [event for event in events if event.id not in gone]
    after = list(events)
    for event in events:
        if event.id in gone:
            kind = state_without(events, gone, event.occurred_at, nothing)
            after.append(Event(len(after) + 1, kind, event.occurred_at))
    for at in {event.occurred_at + shift for event in events for shift in (-INSTANT, timedelta(), INSTANT)}:
        assert state_at(after, at, nothing) == state_at(others, at, nothing)
