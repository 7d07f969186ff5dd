"""How a key reads with what people decided of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.model import Event
from reconciler.core.replay import Decided, reading, restate, state_at

if TYPE_CHECKING:
    from collections.abc import Sequence

NEW = 10**9
"""The place of a decision that is not written yet."""
ON, OFF = "enabled", "disabled"
AS_OF = datetime(2026, 6, 1, tzinfo=UTC)


def may(day: int) -> datetime:
    return datetime(2026, 5, 1, tzinfo=UTC) + timedelta(days=day - 1)


def rows(*said: tuple[int, str]) -> list[Event]:
    """Return events in the order in which they were written: the day in May, and the kind."""
    return [Event(10 * number, kind, may(day)) for number, (day, kind) in enumerate(said, 1)]


class Key:
    """A key of a ledger that is only appended to, and what was decided of it."""

    def __init__(self, *said: tuple[int, str]) -> None:
        self.events = rows(*said)
        self.aside: set[int] = set()
        self.decided: list[Decided] = []

    def says(self, day: int, kind: str) -> None:
        self._append(may(day), kind)

    def records(self, kind: str, first: int, until: int) -> None:
        new = Decided(len(self.decided) + 1, kind, may(first), may(until), NEW)
        place = self._next_id()
        self._restate([*self.decided, new], {may(first), may(until)})
        self.decided.append(new._replace(place=place))

    def retracts(self, event_id: int) -> None:
        self.aside.add(event_id)
        self._restate(self.decided, set())

    def retracts_decision(self, number: int) -> None:
        self.decided = [one for one in self.decided if one.number != number]
        self._restate(self.decided, set())

    def is_upheld(self) -> None:
        self._restate(self.decided, set())

    def days_on(self) -> int:
        return sum(state_at(self.events, may(day), OFF) == ON for day in range(1, 32))

    def on(self) -> set[int]:
        return {day for day in range(1, 32) if state_at(self.events, may(day), OFF) == ON}

    def _restate(self, decided: Sequence[Decided], pins: set[datetime]) -> None:
        appended = [*restate(self.events, self.aside, decided, OFF, as_of=AS_OF, pins=pins)]
        for one in appended:
            self.aside.add(self._append(one.at, one.kind))

    def _append(self, at: datetime, kind: str) -> int:
        event = Event(self._next_id(), kind, at)
        self.events.append(event)
        return event.id

    def _next_id(self) -> int:
        return max((event.id for event in self.events), default=0) + 1


def test_a_guess_taken_back_leaves_the_later_rows_days() -> None:
    key = Key((10, ON), (3, ON))
    key.retracts(10)
    assert key.days_on() == 29


def test_a_state_within_a_stretch_needs_no_neighbour() -> None:
    key = Key((1, ON))
    key.records(OFF, 10, 20)
    assert key.on() == {*range(1, 10), *range(20, 32)}


def test_a_decision_is_replayed_without_the_row_taken_back() -> None:
    key = Key((1, ON))
    key.records(OFF, 10, 12)
    key.says(22, OFF)
    key.retracts(10)
    assert key.days_on() == 0


def test_a_late_row_before_a_decision_leaves_the_decided_days() -> None:
    key = Key((1, ON))
    key.records(ON, 5, 15)
    key.says(3, OFF)
    key.is_upheld()
    assert key.on() == {1, 2, *range(5, 32)}


@pytest.mark.parametrize("day", [pytest.param(3, id="at its beginning"), pytest.param(4, id="inside")])
def test_a_late_row_inside_a_decision_gets_the_decided_state(day: int) -> None:
    key = Key((1, ON))
    key.records(OFF, 3, 5)
    key.says(day, ON)
    key.is_upheld()
    assert key.on() == {1, 2, *range(5, 32)}


def test_a_late_row_at_the_end_of_a_decision_counts() -> None:
    key = Key((1, ON))
    key.records(OFF, 3, 5)
    key.says(5, OFF)
    key.is_upheld()
    assert key.on() == {1, 2}


def test_a_late_row_before_a_retracted_one_counts_alone() -> None:
    key = Key((10, ON))
    key.retracts(10)
    key.says(3, ON)
    key.is_upheld()
    assert key.days_on() == 29


def test_a_retracted_decision_leaves_what_was_there_before() -> None:
    key = Key((1, ON), (20, OFF))
    key.records(OFF, 5, 15)
    key.retracts_decision(1)
    assert key.on() == set(range(1, 20))


def test_the_later_of_two_decisions_counts_where_both_hold() -> None:
    key = Key()
    key.records(ON, 1, 20)
    key.records(OFF, 10, 25)
    assert key.on() == set(range(1, 10))


def test_nothing_is_appended_in_the_future() -> None:
    assert [*restate(rows((40, ON)), {10}, [], OFF, as_of=AS_OF)] == []


def test_a_key_that_reads_as_replayed_is_left_alone() -> None:
    key = Key((1, ON), (9, OFF))
    assert [*restate(key.events, key.aside, [], OFF, as_of=AS_OF)] == []


DAYS = st.integers(1, 31)
KINDS = st.sampled_from([ON, OFF])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("says"), DAYS, KINDS),
        st.tuples(st.just("records"), KINDS, st.integers(1, 30), st.integers(1, 10)),
        st.tuples(st.just("retracts"), st.integers(0, 9)),
        st.tuples(st.just("retracts_decision"), st.integers(0, 9)),
    ),
    max_size=12,
)


def play(steps: Sequence[tuple[Any, ...]]) -> tuple[Key, Key]:
    """Return a key to which all of it happened, and one to which nothing happened that was taken back."""
    key, taken, gone = Key(), set[int](), set[int]()
    said: list[tuple[int, int]] = []
    for number, (step, *how) in enumerate(steps):
        if step == "says":
            key.says(*how)
            said.append((number, key.events[-1].id))
        elif step == "records":
            kind, first, length = how
            key.records(kind, first, first + length)
            key.decided[-1] = key.decided[-1]._replace(number=number)
        elif step == "retracts" and (left := [one for one in said if one[0] not in taken]):
            index, event_id = left[how[0] % len(left)]
            taken.add(index)
            key.retracts(event_id)
        elif step == "retracts_decision" and key.decided:
            index = key.decided[how[0] % len(key.decided)].number
            gone.add(index)
            key.retracts_decision(index)
        key.is_upheld()
    other = Key()
    for number, (step, *how) in enumerate(steps):
        if step == "says" and number not in taken:
            other.says(*how)
        elif step == "records" and number not in gone:
            kind, first, length = how
            other.records(kind, first, first + length)
            other.decided[-1] = other.decided[-1]._replace(number=number)
        other.is_upheld()
    return key, other


@given(STEPS)
def test_what_was_taken_back_reads_as_never_written(steps: Sequence[tuple[Any, ...]]) -> None:
    key, other = play(steps)
    assert key.on() == other.on()


@given(STEPS)
def test_upholding_twice_appends_nothing_more(steps: Sequence[tuple[Any, ...]]) -> None:
    key, _ = play(steps)
    assert [*restate(key.events, key.aside, key.decided, OFF, as_of=AS_OF)] == []


@given(STEPS, KINDS, st.integers(1, 30), st.integers(1, 10))
def test_a_decision_holds_inside_and_changes_nothing_outside(
    steps: Sequence[tuple[Any, ...]], kind: str, first: int, length: int
) -> None:
    key, _ = play(steps)
    before, inside = key.on(), set(range(first, min(first + length, 32)))
    key.records(kind, first, first + length)
    assert key.on() == (before | inside if kind == ON else before - inside)


@given(STEPS)
def test_without_decisions_the_latest_event_counts(steps: Sequence[tuple[Any, ...]]) -> None:
    said = [(how[0], how[1]) for step, *how in steps if step == "says"]
    states = reading(rows(*said), [], OFF)
    for at, kind in states.items():
        assert kind == state_at(rows(*said), at, OFF)
