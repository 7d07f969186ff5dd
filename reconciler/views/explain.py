"""Why is this row here? One tenant's timeline: every event, which ones were corrections, and what proves their moments.

Read in one place, drawn in another: a `Story` is a frozen value, and what is printed depends on it alone.
"""

from __future__ import annotations

import difflib
import io
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from rich.console import Console, Group
from rich.table import Table as Grid
from rich.terminal_theme import DEFAULT_TERMINAL_THEME
from rich.text import Text

from reconciler.core.errors import Failure
from reconciler.core.model import FIRST, LAST, Action, Evidence, Table
from reconciler.core.reasons import Reason
from reconciler.db.queries import query
from reconciler.views.terminal import WIDTH_OF_A_FILE, plural, visible
from reconciler.views.timeline import MARK, MARK_STYLE, Change, Lane, Mark, Timeline

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from decimal import Decimal
    from uuid import UUID

    import psycopg
    from rich.console import RenderableType

    from reconciler.views.timeline import Scale

FEW_EVENTS = 20
"""So many are listed without being asked for."""
NAMES = 5_000
"""Names among which the one that was meant is looked for."""
REACH = 10_000
"""Runs among which the one is looked for that last found the tenant true."""
WIDTH_OF_A_MAIL = 120
"""Columns of the picture that is sent by mail."""

NO_CORRECTION = "No correction: every row is the portal's own."
STYLES = {Table.LIFECYCLE: "bold", Table.SUSPENSION_EVENTS: "yellow", Table.SKILL_EVENTS: "green"}
"""rich's styles of the lanes."""
LEGEND = """\
━ on   · off   ╺ turned on   ╸ turned off   ╍ changed more than once   ▸ goes on
◆ a correction, its number below   ╰┄╯ the interval that its moment must lie in"""

PROOF: Mapping[str, str] = {
    Evidence.CREATION: "The tenant was created then",
    Evidence.DELETION: "The tenant was deleted then",
    Evidence.SUSPENDED_AT: "The cluster noted the suspension then",
    Evidence.FIELD_MANAGER: "The setting was last written then",
}
"""What the evidence says of the moment."""


class UnknownTenant(Failure):
    """Nobody has heard of a tenant of that name."""


class PictureUnwritten(Failure):
    """The file of the picture could not be written."""


class Lifetime(NamedTuple):
    """A life of the tenant; the last three are set of one that is over, and was kept when the next one began."""

    org: str
    created_at: datetime
    deleted_at: datetime | None
    reopened_at: datetime | None
    reopened_by: str | None
    note: str | None


class Entry(NamedTuple):
    """Something that happened, as the ledger has it."""

    event_table: str
    id: int | None
    """Of the event; None of what stands in the lifecycle row."""
    org: str
    skill: str | None
    kind: str
    """created, deleted, enabled, disabled, suspended or resumed."""
    at: datetime
    correction: int | None = None
    """The number of the correction that wrote it, from 1; None: the portal did."""


class Correction(NamedTuple):
    """One row of `reconciler.corrections`, with the time of its run."""

    id: int
    reason: str
    org: str
    subject: str | None
    action: str
    recorded: str | None
    observed: str
    occurred_at: datetime | None
    not_before: datetime | None
    not_after: datetime | None
    evidence: str | None
    event_table: str
    event_id: int | None
    supersedes_event_id: int | None
    life_began_at: datetime | None
    closed_period: bool
    impact_chf: Decimal | None
    impact_min_chf: Decimal | None
    impact_max_chf: Decimal | None
    run_id: UUID
    run_at: datetime

    @property
    def at(self) -> datetime:
        """Where it stands among the others: its moment, or where it has none the time of its run."""
        return self.occurred_at or self.run_at


class OpenReport(NamedTuple):
    """What the last pass left to a person."""

    reason: str
    subject: str
    """The skill; empty where it is about the tenant as a whole."""
    recorded: str | None
    observed: str | None
    since: datetime


class Exemption(NamedTuple):
    """A report that people know about and accept for a time."""

    reason: str
    note: str
    created_by: str
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """All that is known of one tenant.

    Attributes:
        tenant: its name.
        as_of: when it was read, by the database's clock: nothing is known of what comes after.
        verified_at: when the last run over the cluster began that found the tenant true.
        lives: in their order.
        entries: every event by time, the later one counts.
        corrections: by their moments.
        reports: what is open.
        exceptions: which reports are accepted, or were.
    """

    tenant: str
    as_of: datetime
    verified_at: datetime | None = None
    lifetimes: tuple[Lifetime, ...] = ()
    entries: tuple[Entry, ...] = ()
    corrections: tuple[Correction, ...] = ()
    reports: tuple[OpenReport, ...] = ()
    exceptions: tuple[Exemption, ...] = ()


@dataclass(frozen=True, slots=True)
class Period:
    """What of a story is shown: from one instant to another, both within."""

    start: datetime
    end: datetime

    @classmethod
    def of(cls, month: date) -> Period:
        """Return the UTC month that a day lies in."""
        start = datetime(month.year, month.month, 1, tzinfo=UTC)
        following = (start + timedelta(days=31)).replace(day=1)
        return cls(start, following - timedelta.resolution)

    def holds(self, at: datetime) -> bool:
        """Whether an instant lies in it."""
        return self.start <= at <= self.end


# --- reading -----------------------------------------------------------------------------------------------------


def read(cursor: psycopg.Cursor[Any], tenant: str) -> Story:
    """Read a tenant's story.

    Args:
        cursor: in a transaction of `db.connection.transaction`, which sees one state of the ledger throughout.
        tenant: its name.

    Raises:
        UnknownTenant: there is nothing of that name.
    """
    if not _storable(tenant):
        raise _unknown(tenant, [])
    named = {"tenant": tenant, "first": FIRST, "last": LAST, "reach": REACH, "most": NAMES}

    def rows(name: str) -> list[tuple[Any, ...]]:
        return cursor.execute(query(name), named).fetchall()

    lifetimes = tuple(Lifetime(*row) for row in rows("explain_lives"))
    corrections = tuple(Correction(*row) for row in rows("explain_corrections"))
    events = [(*row, None) for row in rows("explain_events")]
    reports = tuple(OpenReport(*row) for row in rows("explain_reports"))
    exceptions = tuple(Exemption(*row) for row in rows("explain_exceptions"))
    if not (lifetimes or corrections or events or reports or exceptions):
        raise _unknown(tenant, [name for (name,) in rows("explain_names")])
    ((as_of,),), ((verified_at,),) = rows("clock"), rows("explain_verified")
    return Story(
        tenant=tenant,
        as_of=as_of,
        verified_at=verified_at,
        lifetimes=lifetimes,
        entries=_entries(lifetimes, [Entry(*event) for event in events], corrections),
        corrections=corrections,
        reports=reports,
        exceptions=exceptions,
    )


def _entries(
    lifetimes: Sequence[Lifetime], events: Sequence[Entry], corrections: Sequence[Correction]
) -> tuple[Entry, ...]:
    """Return everything that happened by time, each with the number of the correction that wrote it."""
    numbers: dict[tuple[object, ...], int] = {}
    for number, correction in enumerate(corrections, 1):
        if correction.event_id is not None:
            numbers[correction.event_table, correction.event_id] = number
        elif correction.action in _OF_A_LIFE:
            numbers[_OF_A_LIFE[correction.action], correction.life_began_at] = number
    found = [(1, event._replace(correction=numbers.get((event.event_table, event.id)))) for event in events]
    for lifetime in lifetimes:
        for rank, kind, at in ((0, "created", lifetime.created_at), (2, "deleted", lifetime.deleted_at)):
            if at:
                written_by = numbers.get((kind, lifetime.created_at))
                found.append((rank, Entry(Table.LIFECYCLE, None, lifetime.org, None, kind, at, written_by)))
    # at the same instant a tenant is created first and deleted last; events keep their own order
    return tuple(entry for _, entry in sorted(found, key=lambda ranked: (ranked[1].at, ranked[0])))


_OF_A_LIFE: Mapping[str, str] = {Action.INSERT: "created", Action.STAMP: "deleted"}


def _storable(text: str) -> bool:
    """Whether PostgreSQL can hold the text: a command line may have any bytes."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def _unknown(tenant: str, names: Sequence[str]) -> UnknownTenant:
    holding = [name for name in names if tenant and tenant.lower() in name.lower()]
    close = dict.fromkeys(holding[:3] + difflib.get_close_matches(tenant, names, 3))
    remedy = f"Did you mean {' or '.join([visible(name) for name in close][:3])}?" if close else "Check the name."
    return UnknownTenant(
        f'The ledger knows no tenant "{visible(tenant)}": no lifecycle row, no event, no correction, no report.', remedy
    )


# --- the picture -------------------------------------------------------------------------------------------------


def timeline(story: Story, period: Period | None = None) -> Timeline:
    """Return the picture of a story, or of a period of it: a lane for its life, for suspension and for each skill."""
    # a dict keeps the order in which keys came
    labels = {(Table.LIFECYCLE.value, ""): "tenant", (Table.SUSPENSION_EVENTS.value, ""): "suspended"}
    skills = {entry.skill or "" for entry in story.entries if entry.event_table == Table.SKILL_EVENTS}
    skills |= {made.subject or "" for made in story.corrections if made.event_table == Table.SKILL_EVENTS}
    labels |= {(Table.SKILL_EVENTS.value, skill): _named(skill) for skill in sorted(skills)}
    changes: dict[tuple[str, str], list[Change]] = {lane: [] for lane in labels}
    marks: dict[tuple[str, str], list[Mark]] = {lane: [] for lane in labels}
    for lifetime in story.lifetimes:
        changes[Table.LIFECYCLE, ""].append(Change(lifetime.created_at, on=True))
        if lifetime.deleted_at:
            changes[Table.LIFECYCLE, ""].append(Change(lifetime.deleted_at, on=False))
    for entry in story.entries:
        if entry.event_table != Table.LIFECYCLE:
            on = entry.kind in {"enabled", "suspended"}
            changes[entry.event_table, entry.skill or ""].append(Change(entry.at, on))
    for number, made in enumerate(story.corrections, 1):
        if made.occurred_at and made.not_before and made.not_after:
            mark = Mark(number, made.occurred_at, made.not_before, made.not_after)
            marks[made.event_table, made.subject or ""].append(mark)
    lanes = [
        Lane(label=label, style=STYLES[Table(lane[0])], changes=changes[lane], marks=marks[lane])
        for lane, label in labels.items()
    ]
    times = [entry.at for entry in story.entries] + [made.at for made in story.corrections]
    first = min((at for at in times if FIRST < at <= story.as_of), default=story.as_of)
    shown = period or Period(first, story.as_of)
    return Timeline(lanes=lanes, start=shown.start, end=shown.end, known_until=story.as_of)


# --- for people --------------------------------------------------------------------------------------------------


def printed(story: Story, *, period: Period | None = None, all_events: bool = False) -> str:
    """Return a story as it fits standard output: its width and colours on a terminal, no colours in a file.

    The picture fits the terminal in either case; text is folded only on a terminal.
    """
    console = Console(highlight=False)
    width = console.width
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH_OF_A_FILE)
    with console.capture() as captured:
        draw(story, console, width=width, period=period, all_events=all_events)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def svg(story: Story, *, period: Period | None = None, all_events: bool = False) -> str:
    """Return the same as a picture for a mail: one SVG document, which loads nothing from elsewhere."""
    # with a height, so that the terminal that it is written from plays no part
    console = Console(
        record=True, file=io.StringIO(), width=WIDTH_OF_A_MAIL, height=1, force_terminal=True, color_system="standard"
    )
    draw(story, console, width=WIDTH_OF_A_MAIL, period=period, all_events=all_events)
    drawn = console.export_svg(title=f"reconciler explain {visible(story.tenant)}", theme=DEFAULT_TERMINAL_THEME)
    # rich would have its font fetched from the web
    return re.sub(r"@font-face {.*?}", "", drawn, flags=re.DOTALL)


def save(story: Story, path: str, *, period: Period | None = None, all_events: bool = False) -> None:
    """Write the picture for a mail to a file.

    Raises:
        PictureUnwritten: the file cannot be written.
    """
    try:
        Path(path).write_text(svg(story, period=period, all_events=all_events), encoding="utf-8")
    except OSError as error:
        raise PictureUnwritten(
            f"The picture could not be written to {visible(path)}: {error.strerror}",
            "Name a file in a folder that exists and that you may write to.",
        ) from error


def draw(story: Story, console: Console, *, width: int, period: Period | None = None, all_events: bool = False) -> None:
    """Print a story for people: the picture, each correction and what proves it, what is open, the events.

    Args:
        story: what is told.
        console: where it goes; text is folded at its width.
        width: columns of the picture.
        period: shows what lies in it alone.
        all_events: lists every event, however many there are.
    """
    picture = timeline(story, period)
    sections = (
        _heading(story),
        (*_caption(story, picture.scale(width)), *picture.drawn(width)),
        (Text(LEGEND, style="dim"),),
        _corrections(story, period),
        _reports(story),
        _exceptions(story),
        _events(story, period, all_events=all_events),
    )
    for number, lines in enumerate(filter(None, map(tuple, sections))):
        if number:
            console.print()
        for line in lines:
            console.print(line)


def _heading(story: Story) -> Iterator[Text]:
    orgs = [lifetime.org for lifetime in story.lifetimes] or [entry.org for entry in story.entries]
    yield Text.assemble((visible(story.tenant), "bold"), f", organisation {visible(orgs[-1])}" if orgs else "")
    for lifetime in story.lifetimes:
        until = f"deleted {_time(lifetime.deleted_at)}" if lifetime.deleted_at else "open"
        yield Text(f"created {_time(lifetime.created_at)}, {until}")
        if lifetime.reopened_at:
            who, why = visible(lifetime.reopened_by or "?"), visible(lifetime.note or "-")
            yield Text(f"reopened {_time(lifetime.reopened_at)} by {who}: {why}")
    if not story.lifetimes:
        yield Text("no lifecycle row")
    if story.verified_at:
        yield Text(f"last found true by the run of {_time(story.verified_at)}")


def _caption(story: Story, scale: Scale) -> Iterator[Text]:
    end = f"now, {_time(story.as_of)}" if scale.end == story.as_of else f"{scale.end:%Y-%m-%d}"
    yield Text(f"{scale.start:%Y-%m-%d} to {end}. All times are UTC, a column is {scale.words}.")
    yield Text()


def _corrections(story: Story, period: Period | None) -> Iterator[RenderableType]:
    """Yield each correction: when, what, why that moment, what it is worth, by whom."""
    shown = [(n, made) for n, made in enumerate(story.corrections, 1) if period is None or period.holds(made.at)]
    others = len(story.corrections) - len(shown)
    outside = f"{plural(others, 'correction')} outside of this month." if others else ""
    if not shown:
        yield Text(f"No correction in this month. {outside}" if others else NO_CORRECTION)
        return
    yield Text("Corrections: rows that the reconciler wrote, and why", style="bold")
    for number, made in shown:
        when = _time(made.occurred_at) if made.occurred_at else "without a moment"
        head = Text.assemble(f"{when}  ", (_change(made), "bold"))
        if made.closed_period:
            head.append("  ").append("closed period", "bold red")
        yield _block(Text(str(number), MARK_STYLE), head, _details(made))
    worth = [made.impact_chf for _, made in shown if made.impact_chf is not None]
    unpriced = f"{len(shown) - len(worth)} not priced." if len(worth) < len(shown) else ""
    total = f"Together {_chf(sum(worth[1:], worth[0]))}, before VAT, up to the runs that found them." if worth else ""
    if words := " ".join(filter(None, (total, unpriced, outside))):
        yield Text(words)


def _details(made: Correction) -> Iterator[tuple[str, str]]:
    meaning = _summary(made.reason)
    yield "what", f"{meaning} ({made.reason})" if meaning else visible(made.reason)
    if made.evidence:
        yield "why then", f"{_proof(made)} ({made.evidence})"
    if made.not_before and made.not_after and made.not_before < made.not_after:
        yield "between", f"{_time(made.not_before)} and {_time(made.not_after)}"
    if made.closed_period:
        yield "invoiced", "That month was already invoiced: an adjustment is owed."
    if made.impact_chf is None:
        yield "worth", "not priced"
    else:
        sense = ", revenue that was being lost" if made.impact_chf > 0 else ", the customer was being overcharged"
        yield "worth", _chf(made.impact_chf) + (sense if made.impact_chf else "")
    if made.impact_min_chf is not None and made.impact_max_chf is not None:
        ends = f"{_chf(made.impact_min_chf)} to {_chf(made.impact_max_chf)}"
        yield "range", f"{ends}, by when in the interval it happened"
    yield "found", f"{_time(made.run_at)} by run {made.run_id}"


def _summary(reason: str) -> str | None:
    """Return what a reason says to somebody who has never seen the cluster; None where a later version recorded it."""
    return Reason(reason).summary if reason in set(Reason) else None


def _proof(made: Correction) -> str:
    """Return in words why that moment was chosen."""
    if made.evidence != Evidence.NONE:
        return PROOF.get(made.evidence or "", "So says the evidence")
    if made.occurred_at == made.not_after:
        return "Nothing proves the moment, and the latest possible one was taken"
    if made.occurred_at == made.not_before:
        return "Nothing proves the moment, and the earliest possible one was taken"
    return "Nothing proves the moment"


def _change(made: Correction) -> str:
    what = "organisation" if made.action == Action.UPDATE else _named(made.subject)
    return f"{what}: {visible(made.recorded or '-')} → {visible(made.observed)}"


def _reports(story: Story) -> Iterator[RenderableType]:
    """Yield what is open."""
    if story.reports:
        yield Text("Open: what a person has to look at", style="bold")
    accepted = {exemption.reason for exemption in story.exceptions if exemption.expires_at > story.as_of}
    for report in story.reports:
        about = f"{visible(report.subject)}: " if report.subject else ""
        states = f"recorded {visible(report.recorded or '-')}, observed {visible(report.observed or '-')}"
        details = [("what", _summary(report.reason) or "-"), ("since", _time(report.since))]
        details += [("accepted", "see below")] if report.reason in accepted else []
        yield _block(Text("!", "magenta"), Text(f"{visible(report.reason)}  {about}{states}"), details)


def _exceptions(story: Story) -> Iterator[RenderableType]:
    """Yield which reports are accepted, or were."""
    if story.exceptions:
        yield Text("Accepted: what people know about", style="bold")
    for each in story.exceptions:
        over = "" if each.expires_at > story.as_of else ", which is over"
        details = [("why", visible(each.note)), ("by", f"{visible(each.created_by)}, {_time(each.created_at)}")]
        yield _block(Text("~", "cyan"), Text(f"{visible(each.reason)}  until {_time(each.expires_at)}{over}"), details)


def _events(story: Story, period: Period | None, *, all_events: bool) -> Iterator[RenderableType]:
    """Yield every event by time, each marked as the portal's or a correction."""
    shown = [entry for entry in story.entries if period is None or period.holds(entry.at)]
    if len(shown) > FEW_EVENTS and not all_events:
        made = sum(entry.correction is not None for entry in shown)
        yield Text(f"{len(shown)} events, {made} of them corrections; --all-events lists them")
        return
    if not shown:
        yield Text("No event.")
        return
    yield Text("Events: everything that happened, by the ledger", style="bold")
    one_org = len({entry.org for entry in story.entries}) == 1
    grid = Grid.grid(padding=(0, 2, 0, 0))
    for entry in shown:
        cells = [Text(_time(entry.at)), Text(_named(entry.skill), overflow="fold"), Text(entry.kind)]
        cells += [] if one_org else [Text(visible(entry.org), overflow="fold")]
        by = Text("portal", "dim") if entry.correction is None else Text(f"{MARK} {entry.correction}", MARK_STYLE)
        late = [Text("after now", "bold red")] if entry.at > story.as_of else []
        grid.add_row(*cells, by, *late)
    yield grid


def _block(sign: Text, head: Text, details: Iterable[tuple[str, str]]) -> RenderableType:
    """Return a head line with its sign before it, and details below, each under its name."""
    inner = Grid.grid(padding=(0, 2, 0, 0))
    inner.add_column(min_width=8)
    for name, text in details:
        inner.add_row(Text(name, "dim"), Text(text, overflow="fold"))
    outer = Grid.grid(padding=(0, 2, 0, 0))
    outer.add_column(width=max(2, sign.cell_len), justify="right")
    outer.add_row(sign, Group(head, inner))
    return outer


def _named(skill: str | None) -> str:
    """Return what something is about, printable: a skill by its id, however odd that is, or the tenant as a whole."""
    return "tenant" if skill is None else visible(skill) or '""'


def _time(at: datetime) -> str:
    if FIRST < at < LAST:
        return f"{at:%Y-%m-%d %H:%M:%S}"
    return "at the end of time" if at == LAST else "at the beginning of time"


def _chf(amount: Decimal) -> str:
    return f"{amount:+.2f} CHF" if amount else "0.00 CHF"


# --- for programs ------------------------------------------------------------------------------------------------


def document(story: Story, *, period: Period | None = None) -> str:
    """Return a story as one JSON document, times in RFC 3339 and UTC, CHF as text.

    Args:
        story: what is told.
        period: leaves out the events and corrections that lie outside of it.
    """
    inside = [
        (number, made) for number, made in enumerate(story.corrections, 1) if period is None or period.holds(made.at)
    ]
    content = {
        "tenant": story.tenant,
        "as_of": story.as_of,
        "verified_at": story.verified_at,
        "from": period and period.start,
        "until": period and period.end,
        "lives": [lifetime._asdict() for lifetime in story.lifetimes],
        "events": [
            {**entry._asdict(), "by": "portal" if entry.correction is None else "reconciler"}
            for entry in story.entries
            if period is None or period.holds(entry.at)
        ],
        "corrections": [{"number": number, **made._asdict()} for number, made in inside],
        "reports": [report._asdict() for report in story.reports],
        "exceptions": [each._asdict() for each in story.exceptions],
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=2).decode()
