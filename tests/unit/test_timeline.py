"""The picture: what each column shows, where each mark stands, and that it always fits."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.views.timeline import (
    CHANGES,
    COLUMNS,
    DAY,
    FALLS,
    GOES_ON,
    MARK,
    MONTH_NAMES,
    OFF,
    ON,
    RISES,
    UNKNOWN,
    Change,
    Lane,
    Mark,
    Scale,
    Timeline,
    cells,
    notes,
    ruler,
)


def on(day: int, hour: int = 0, minute: int = 0, month: int = 5, year: int = 2026) -> datetime:
    """Return an instant of May 2026, by default."""
    return datetime(year, month, day, hour, minute, tzinfo=UTC)


MAY: Final = Scale.fitted(on(1), on(31, 23, 59), on(31, 23, 59), 31)
"""A column a day."""

instants = (st.integers(0, 60 * 24) | st.integers(0, 60).map(lambda day: day * 24)).map(
    lambda hours: on(1) + timedelta(hours=hours)
)
"""At any hour of two months, and often at midnight: few enough that columns, changes and marks meet."""
changes = st.lists(st.builds(Change, instants, st.booleans()), max_size=30).map(
    lambda found: sorted(found, key=lambda change: change.at)
)
widths = st.integers(20, 220)


@st.composite
def scales(draw: st.DrawFn) -> Scale:
    start, end = sorted((draw(instants), draw(instants)))
    return Scale.fitted(start, end, draw(st.just(end) | instants), draw(st.integers(8, 40)))


@st.composite
def marks(draw: st.DrawFn) -> list[Mark]:
    moments = sorted(sorted(draw(st.tuples(instants, instants, instants))) for _ in range(draw(st.integers(0, 12))))
    numbered = enumerate(sorted(moments, key=lambda moment: moment[1]), draw(st.sampled_from([1, 95, 995])))
    return [Mark(number, at, first, last) for number, (first, at, last) in numbered]


lanes = st.builds(
    Lane, label=st.text(st.sampled_from("abc-日本語é"), min_size=1, max_size=60), changes=changes, marks=marks()
)


def state_at(events: list[Change], instant: datetime) -> bool:
    """Return the latest state, as the ledger defines it: off where there is none."""
    return next((change.on for change in reversed(events) if change.at <= instant), False)


# --- the scale ---------------------------------------------------------------------------------------------------


@given(scales(), widths)
def test_the_scale_is_the_finest_that_fits(scale: Scale, width: int) -> None:
    """A column is whole days, or hours that divide a day; each begins with a UTC day or inside one."""
    fitted = Scale.fitted(scale.start, scale.end, scale.known_until, width)
    assert fitted.count <= width
    assert fitted.start == scale.start.replace(hour=0, minute=0)
    assert fitted.column % DAY == timedelta() or DAY % fitted.column == timedelta()
    assert fitted.start <= fitted.end < fitted.start + fitted.count * fitted.column
    finer = [column for column in (*COLUMNS, fitted.column - DAY) if timedelta() < column < fitted.column]
    assert all((fitted.end - fitted.start) // column + 1 > width for column in finer)


@given(scales())
def test_an_instant_lies_in_its_column(scale: Scale) -> None:
    for at in (scale.start, scale.end, scale.start + (scale.end - scale.start) / 3):
        begins = scale.start + scale.index(at) * scale.column
        assert begins <= at < begins + scale.column


@pytest.mark.parametrize(
    ("first", "last", "width", "words"),
    [
        (on(1), on(31), 31, "1 day"),
        (on(1), on(31), 30, "2 days"),
        (on(1), on(31), 61, "12 hours"),
        (on(1), on(31, 23), 93, "8 hours"),
        (on(1, year=2006), on(1), 80, "92 days"),
        (on(1), on(1, 9), 80, "1 hour"),
    ],
)
def test_a_column_is_said_in_words(first: datetime, last: datetime, width: int, words: str) -> None:
    assert Scale.fitted(first, last, last, width).words == words


# --- the states --------------------------------------------------------------------------------------------------


@given(changes, scales())
def test_every_column_shows_the_states_at_both_its_ends(events: list[Change], scale: Scale) -> None:
    row = cells(Lane(label="mail", changes=events), scale)
    assert len(row) == scale.count + 1
    for column, cell in enumerate(row[: scale.known]):
        begins = scale.start + column * scale.column
        ends = min(begins + scale.column - timedelta.resolution, scale.known_until)
        within = sorted({begins, *(change.at for change in events if begins <= change.at <= ends)})
        states = [state_at(events, at) for at in within]
        turns = sum(before is not after for before, after in pairwise(states))
        if cell == CHANGES:
            # two changes at one instant may leave the state as it was
            assert turns > 1 or len(events) > len({change.at for change in events})
        else:
            expected = {OFF: (False, False), ON: (True, True), RISES: (False, True), FALLS: (True, False)}
            assert (states[0], states[-1]) == expected[cell]
            assert turns == (states[0] is not states[-1])
    goes_on = scale.known > 0 and state_at(events, scale.known_until)
    assert row[scale.known] == (GOES_ON if goes_on else " ")


@given(changes, scales())
def test_nothing_is_shown_of_what_lies_after_now(events: list[Change], scale: Scale) -> None:
    earlier = [change for change in events if change.at <= scale.known_until]
    assert cells(Lane(label="mail", changes=events), scale) == cells(Lane(label="mail", changes=earlier), scale)


def test_what_comes_later_today_is_not_shown() -> None:
    noon = Scale.fitted(on(1), on(9, 12), on(9, 12), 31)
    row = cells(Lane(label="mail", changes=[Change(on(9, 13), on=True)]), noon)
    assert set(row) == {OFF, " "}


def test_a_skill_on_before_the_picture_is_on_from_its_edge() -> None:
    row = cells(Lane(label="mail", changes=[Change(on(20, month=3), on=True), Change(on(4), on=False)]), MAY)
    assert row.startswith(ON * 3 + OFF)


def test_a_day_says_what_happened_on_it() -> None:
    lane = Lane(
        label="mail",
        changes=[
            *(Change(on(2, 8), on=True), Change(on(4, 8), on=False)),
            *(Change(on(6, 8), on=True), Change(on(6, 9), on=False)),
            Change(on(8), on=True),
        ],
    )
    assert cells(lane, MAY) == "·╺━╸·╍·" + ON * 24 + GOES_ON


# --- what is unknown ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("begins", "ends", "row"),
    [
        (on(2, 8), on(2, 9), "·?" + OFF * 29),
        (on(2, 8), on(4), "·??" + OFF * 28),
        (on(2), on(4, 1), "·???" + OFF * 27),
        (on(20, month=4), on(2), "?" + OFF * 30),
        (on(31, 12), on(4, month=6), OFF * 30 + "?"),
        (on(20, month=4), on(1), OFF * 31),
        (on(1, month=6), on(4, month=6), OFF * 31),
    ],
)
def test_unknown_is_every_column_that_a_gap_touches(begins: datetime, ends: datetime, row: str) -> None:
    assert cells(Lane(label="not proven", unknown=[(begins, ends)]), MAY) == row + " "


@given(st.lists(st.tuples(instants, instants).map(sorted).map(tuple), max_size=4), scales())
def test_nothing_outside_of_the_gaps_is_unknown(gaps: list[tuple[datetime, datetime]], scale: Scale) -> None:
    row = cells(Lane(label="not proven", unknown=gaps), scale)
    assert len(row) == scale.count + 1
    for column, cell in enumerate(row[:-1]):
        begins = scale.start + column * scale.column
        touched = any(first < begins + scale.column and last > begins for first, last in gaps)
        assert (cell == UNKNOWN) <= touched


# --- the marks ---------------------------------------------------------------------------------------------------


@given(marks(), scales())
def test_a_mark_stands_in_the_column_of_its_instant(found: list[Mark], scale: Scale) -> None:
    row = cells(Lane(label="mail", marks=found), scale)
    inside = {scale.index(mark.at) for mark in found if scale.start <= mark.at <= scale.known_until}
    assert {index for index, cell in enumerate(row) if cell == MARK} == inside


@given(marks(), scales())
def test_every_number_stands_below_its_mark(found: list[Mark], scale: Scale) -> None:
    """A column with many marks names the first and the last."""
    rows = list(notes(Lane(label="mail", marks=found), scale))
    columns: dict[int, list[int]] = {}
    for mark in found:
        if scale.start <= mark.at <= scale.known_until:
            columns.setdefault(scale.index(mark.at), []).append(mark.number)
    for column, numbers in columns.items():
        label = ",".join(map(str, numbers))
        label = label if len(label) <= 8 else f"{numbers[0]}…{numbers[-1]}"
        places = [match.start() for row in rows for match in re.finditer(rf"(?<![\d,…]){label}(?![\d,…])", row)]
        assert any(place <= column < max(place + len(label), scale.count) for place in places)


def test_an_interval_is_drawn_from_its_beginning_to_its_end() -> None:
    found = [Mark(1, on(5), on(3), on(5)), Mark(2, on(11), on(11), on(13)), Mark(3, on(20), on(18), on(23))]
    assert list(notes(Lane(label="mail", marks=found), MAY)) == ["  ╰┄1     2┄╯    ╰┄3┄┄╯"]


def test_an_interval_beyond_the_picture_has_no_corner_there() -> None:
    found = [Mark(1, on(3), on(20, month=4), on(3)), Mark(2, on(29), on(29), on(2, month=6))]
    assert list(notes(Lane(label="mail", marks=found), MAY)) == ["┄┄1" + " " * 25 + "2┄┄"]


def test_intervals_that_overlap_stand_in_lines_of_their_own() -> None:
    found = [Mark(1, on(5), on(1), on(5)), Mark(2, on(7), on(2), on(9))]
    assert list(notes(Lane(label="mail", marks=found), MAY)) == ["╰┄┄┄1", " ╰┄┄┄┄2┄╯"]


def test_numbers_never_touch() -> None:
    found = [Mark(number, on(number), on(number), on(number)) for number in (4, 5, 7)]
    assert list(notes(Lane(label="mail", marks=found), MAY)) == ["   4  7", "    5"]


def test_marks_of_one_column_share_it() -> None:
    found = [Mark(number, on(5, number), on(5), on(5, 23)) for number in range(1, 4)]
    assert list(notes(Lane(label="mail", marks=found), MAY)) == ["    1,2,3"]


# --- the ruler ---------------------------------------------------------------------------------------------------


@given(scales())
def test_every_label_stands_at_the_beginning_of_what_it_names(scale: Scale) -> None:
    *rows, ticks = ruler(scale)
    assert len(ticks) == scale.count
    for row in rows:
        labels = [(match.start(), match.group()) for match in re.finditer(r"\S+", row)]
        assert all(start + len(label) <= scale.count + 1 for start, label in labels)
        for column, label in labels:
            days = {scale.start + column * scale.column + number * DAY for number in range(max(scale.column // DAY, 1))}
            assert any(label in {str(day.year), MONTH_NAMES[day.month], str(day.day)} for day in days)
            if column and scale.column <= DAY:
                (day,) = days
                assert day == day.replace(hour=0)


def test_a_month_that_had_begun_gives_way_to_the_next() -> None:
    _, months, *_ = ruler(Scale.fitted(on(31), on(20, month=6), on(20, month=6), 21))
    assert months == " Jun"


@pytest.mark.parametrize("first", [on(1, year=1900), on(1, month=1, year=27), on(31, month=12, year=2025), on(1)])
def test_there_is_always_something_to_go_by(first: datetime) -> None:
    """Over a day, and over two thousand years."""
    assert len(list(ruler(Scale.fitted(first, on(2), on(2), 57)))) > 1


# --- all of it ---------------------------------------------------------------------------------------------------


@given(st.lists(lanes, min_size=1, max_size=5), scales(), widths)
def test_no_line_is_wider_than_the_terminal(found: list[Lane], scale: Scale, width: int) -> None:
    timeline = Timeline(lanes=found, start=scale.start, end=scale.end, known_until=scale.known_until)
    labels = {lane.label for lane in found}
    for line in timeline.drawn(width):
        assert line.cell_len <= width or line.plain in labels


@given(st.lists(lanes, min_size=1, max_size=5), scales(), widths)
def test_every_lane_is_named_in_full(found: list[Lane], scale: Scale, width: int) -> None:
    timeline = Timeline(lanes=found, start=scale.start, end=scale.end, known_until=scale.known_until)
    drawn = [line.plain for line in timeline.drawn(width)]
    for lane in found:
        assert any(line == lane.label or line.startswith(f"{lane.label} ") for line in drawn)


@given(st.lists(lanes, min_size=1, max_size=5), scales(), widths)
def test_all_lanes_begin_in_the_same_column(found: list[Lane], scale: Scale, width: int) -> None:
    timeline = Timeline(lanes=found, start=scale.start, end=scale.end, known_until=scale.known_until)
    fitted = timeline.scale(width)
    rows = [line for line in timeline.drawn(width) if any(line.plain.endswith(cells(lane, fitted)) for lane in found)]
    assert len({line.cell_len for line in rows}) == 1
