"""A picture of what was on and off over time, for a terminal: a scale of UTC days, a lane for each thing, and marks.

Pure: the lines depend on the arguments alone. Times are aware UTC datetimes.

    ━  on          ╺  turned on in this column     ╍  changed more than once in it     ▸  goes on
    ·  off         ╸  turned off in it             ◆  marked; its number stands below, between the ends of its interval
    ?  unknown in a part of this column
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, NamedTuple

from rich.cells import cell_len
from rich.text import Text

from reconciler.views.terminal import plural

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Sequence

ON, OFF, RISES, FALLS, CHANGES, MARK, GOES_ON, NOTHING = "━·╺╸╍◆▸ "
UNKNOWN = "?"
MARK_STYLE = "bold magenta"
FAINT = OFF + "╰┄╯"

MAX_CHANGES = 3
"""Changes of a lane that a column is drawn from."""
NARROWEST = 8
"""Columns that a picture has even on the narrowest terminal."""
DAY = timedelta(days=1)
COLUMNS = [timedelta(hours=hours) for hours in (1, 2, 3, 4, 6, 8, 12)]
"""How long a column may be where a day is wide: what divides a day."""

YEARS = [range(0, 10_000, step) for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)]
MONTHS = [range(1, 13, step) for step in (1, 2, 3, 6)]
DAYS = [range(1, 32), range(1, 31, 2), (1, 5, 10, 15, 20, 25), (1, 10, 20), (1, 15)]
"""Which of them are named, the finest choice first: the first one that fits is taken."""
MONTH_NAMES = ("", "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Change(NamedTuple):
    """At this instant, something turns on or off."""

    at: datetime
    on: bool


class Mark(NamedTuple):
    """A numbered mark at an instant, and the interval that this lies in."""

    number: int
    at: datetime
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One thing that is on or off: off before its first change. Changes and marks are in the order of time."""

    label: str
    """Printable."""
    style: str = "green"
    """Of what is on, for rich."""
    changes: Sequence[Change] = ()
    marks: Sequence[Mark] = ()
    unknown: Sequence[tuple[datetime, datetime]] = ()
    """From when until when nobody knows what happened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Which instants each column stands for."""

    start: datetime
    """A UTC midnight."""
    column: timedelta
    """How long each is: whole days, or hours that divide a day."""
    count: int
    end: datetime
    """The last instant of the picture."""
    known_until: datetime

    @classmethod
    def fitted(cls, start: datetime, end: datetime, known_until: datetime, width: int) -> Scale:
        """Return the finest scale from the day of `start` to the instant `end` that `width` columns hold."""
        start = start.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        end, width = max(start, end), max(width, NARROWEST)
        whole_days = DAY * (((end - start) // DAY) // width + 1)
        column = next(column for column in (*COLUMNS, whole_days) if (end - start) // column < width)
        count = (end - start) // column + 1
        return cls(start=start, column=column, count=count, end=end, known_until=min(known_until, end))

    def index(self, at: datetime) -> int:
        """Return the column that an instant lies in; the first or the last one where it lies outside."""
        return min(max((at - self.start) // self.column, 0), self.count - 1)

    def ends_in(self, at: datetime) -> int:
        """Return the column that begins before an instant and ends with it or after it; -1 for what is before all."""
        return max((at - self.start - timedelta.resolution) // self.column, -1)

    @property
    def known(self) -> int:
        """How many of the columns lie before `known_until`."""
        return self.index(self.known_until) + 1 if self.known_until >= self.start else 0

    @property
    def words(self) -> str:
        """How long a column is."""
        unit, name = (DAY, "day") if self.column >= DAY else (COLUMNS[0], "hour")
        return plural(self.column // unit, name)


def add(changes: list[Change], change: Change, scale: Scale) -> None:
    """Add the next change of a lane to those that its picture needs: three for each column at the most.

    In a column that shows more than one change, only how it begins and how it ends counts.
    """
    was_on = bool(changes) and changes[-1].on
    if change.on is was_on or change.at > scale.known_until:
        return
    if len(changes) >= MAX_CHANGES and scale.ends_in(changes[-MAX_CHANGES].at) == scale.ends_in(change.at):
        changes.pop()
    changes.append(change)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """Lanes, from above, over the time from the UTC day of `start` to the instant `end`."""

    lanes: Sequence[Lane] = field(repr=False)
    start: datetime
    end: datetime
    known_until: datetime
    """Nothing is known of what lies after it."""

    def scale(self, width: int) -> Scale:
        """Return the scale that fits a terminal of that many columns."""
        # two blanks after the labels, and one column more for what goes on
        return Scale.fitted(self.start, self.end, self.known_until, width - self._room(width) - 3)

    def drawn(self, width: int) -> Iterator[Text]:
        """Yield the picture's lines, none wider than `width` unless its label alone is."""
        scale, room = self.scale(width), self._room(width)
        for row in ruler(scale):
            yield _coloured(" " * (room + 2) + row, "dim")
        for lane in self.lanes:
            label = Text(lane.label)
            if label.cell_len > room:
                yield label
                label = Text()
            label.pad_right(room + 2 - label.cell_len)
            yield label.append_text(_coloured(cells(lane, scale), lane.style))
            for row in notes(lane, scale):
                yield _coloured(" " * (room + 2) + row, MARK_STYLE)

    def _room(self, width: int) -> int:
        """Return the columns that labels get; a longer label stands on a line of its own."""
        return max((length for lane in self.lanes if (length := cell_len(lane.label)) <= width // 4), default=0)


def cells(lane: Lane, scale: Scale) -> str:
    """Return a lane's states: one character for each column, and one more for what goes on."""
    changes = iter(lane.changes)
    change = next(changes, None)
    on, row = False, ""
    for column in range(scale.known):
        begins = scale.start + column * scale.column
        ends = begins + scale.column
        while change and change.at <= begins:
            on, change = change.on, next(changes, None)
        states = [on]
        while change and change.at < ends and change.at <= scale.known_until:
            if change.on is not on:
                states.append(change.on)
            on, change = change.on, next(changes, None)
        row += _CELLS.get(tuple(states), CHANGES)
    row += GOES_ON if on else NOTHING
    signs = dict.fromkeys(_unknown(lane, scale), UNKNOWN)
    signs |= {scale.index(mark.at): MARK for mark in _within(lane, scale)}
    return "".join(signs.get(index, cell) for index, cell in enumerate(row)).ljust(scale.count + 1)


_CELLS = {(False,): OFF, (True,): ON, (False, True): RISES, (True, False): FALLS}


def notes(lane: Lane, scale: Scale) -> Iterator[str]:
    """Yield the lines below a lane: the number of each mark under it, between the ends of its interval."""
    rows: list[str] = []
    for column, marks in groupby(_within(lane, scale), key=lambda mark: scale.index(mark.at)):
        together = list(marks)
        number = ",".join(str(mark.number) for mark in together)
        if len(number) > NARROWEST:
            number = f"{together[0].number}…{together[-1].number}"
        at = max(0, min(column, scale.count + 1 - len(number)))
        begins, ends = min(mark.not_before for mark in together), max(mark.not_after for mark in together)
        before, after = at - scale.index(begins), scale.index(ends) - (at + len(number)) + 1
        left = ("╰" if begins >= scale.start else "┄").ljust(before, "┄") if before > 0 else ""
        right = ("╯" if ends <= scale.end else "┄").rjust(after, "┄") if after > 0 else ""
        start, note = at - len(left), left + number + right
        for index, row in enumerate(rows):
            if len(row) < start:
                rows[index] = row.ljust(start) + note
                break
        else:
            rows.append(" " * start + note)
    yield from rows


def _unknown(lane: Lane, scale: Scale) -> Iterator[int]:
    """Yield each column of which a part is unknown."""
    for begins, ends in lane.unknown:
        if begins <= scale.known_until and ends > scale.start:
            yield from range(scale.index(begins), min(scale.ends_in(ends), scale.known - 1) + 1)


def _within(lane: Lane, scale: Scale) -> Iterator[Mark]:
    return (mark for mark in lane.marks if scale.start <= mark.at <= scale.known_until)


def ruler(scale: Scale) -> Iterator[str]:
    """Yield the lines above the lanes: years, months and days, as far as there is room for them, and their ticks."""
    first, last = scale.start, scale.end
    years = [datetime(year, 1, 1, tzinfo=UTC) for year in range(first.year + 1, last.year + 1)]
    rows = [_labels(scale, [(at, at.year, str(at.year)) for at in (first, *years)], YEARS)]
    # a picture may span all of time: skip the units of which not even the coarsest choice fits
    if scale.column < 50 * DAY:
        months = [at.replace(month=month) for at in (first.replace(month=1, day=1), *years) for month in range(1, 13)]
        starts = [first, *(at for at in months if first < at <= last)]
        rows.append(_labels(scale, [(at, at.month, MONTH_NAMES[at.month]) for at in starts], MONTHS))
    if scale.column < 5 * DAY:
        days = [first + number * DAY for number in range((last - first) // DAY + 1)]
        rows.append(_labels(scale, [(at, at.day, str(at.day)) for at in days], DAYS))
    ticks: set[int] = set()
    for row in filter(None, rows):
        line = ""
        for index, label in row.items():
            line = line.ljust(index) + label
        yield line
        ticks = set(row)
    yield "".join("┬" if index in ticks else "─" for index in range(scale.count))


def _labels(
    scale: Scale, starts: Sequence[tuple[datetime, int, str]], choices: Iterable[Container[int]]
) -> dict[int, str]:
    """Return the labels by column, of the finest choice that leaves a blank between neighbours."""
    for chosen in choices:
        row = [(scale.index(at), label) for at, value, label in starts if value in chosen]
        if len(row) > 1 and row[0][0] + len(row[0][1]) >= row[1][0]:
            del row[0]  # its unit began before the picture
        if row and row[-1][0] + len(row[-1][1]) > scale.count + 1:
            del row[-1]
        if row and all(index + len(label) < following for (index, label), (following, _) in pairwise(row)):
            return dict(row)
    return {}


def _coloured(row: str, style: str) -> Text:
    """Return a row in its colours; blanks have none, so that an SVG can place each word by itself."""
    styles = {NOTHING: "", MARK: MARK_STYLE, **dict.fromkeys(FAINT, "dim")}
    runs = groupby(row, key=lambda cell: styles.get(cell, style))
    return Text.assemble(*(("".join(run), each) for each, run in runs))
