"""Why is this row here? One tenant's timeline: its events, which of them are corrections, and what proves those."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from datetime import date
from itertools import islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.table import Table as Grid
from rich.terminal_theme import DEFAULT_TERMINAL_THEME
from rich.text import Text

from reconciler.core.billing import NOTHING
from reconciler.core.certificate import HELP, Cause
from reconciler.core.errors import Failure
from reconciler.core.explanation import Period
from reconciler.core.history import Unproven
from reconciler.core.model import FIRST, LAST, Action, Evidence, Table
from reconciler.views import json_in_parts, terminal
from reconciler.views.proofs import chf, details, instant, summary
from reconciler.views.terminal import plural, visible
from reconciler.views.timeline import MARK, MARK_STYLE, UNKNOWN, Change, Lane, Mark, Timeline, add

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from typing import TypeVar

    from rich.console import RenderableType

    from reconciler.core.billing import Payer
    from reconciler.core.certificate import OpenGap
    from reconciler.core.explanation import Correction, Entry, Story
    from reconciler.views.timeline import Scale

    _Dated = TypeVar("_Dated", Correction, Entry)

MAX_EVENTS = 20
"""Events that are listed without --all-events."""
MAX_PICTURED = 1_000
"""Events that are listed in a table that fits its columns, and in a picture for a mail."""
MAX_SKILLS = 200
"""Skills that have a lane."""
MAIL_WIDTH = 120
"""Columns of the picture that is sent by mail."""

NO_CORRECTION = "No correction: every row is the portal's own."
STYLES = {Table.LIFECYCLE: "bold", Table.SUSPENSION_EVENTS: "yellow", Table.SKILL_EVENTS: "green"}
"""rich's styles of the lanes."""
LEGEND = """\
━ on   · off   ╺ turned on   ╸ turned off   ╍ changed more than once   ▸ goes on
◆ a correction, its number below   ╰┄╯ the interval that its moment must lie in"""
UNKNOWN_LEGEND = "? time of which nobody knows what happened, listed below"

UNPROVEN: Mapping[str, str] = {
    Unproven.UNREADABLE: "The resource could not be read",
    Unproven.RECREATED: "The tenant was gone, and another one had its name",
    Unproven.VANISHED: "The tenant was gone, and what it did before is unknown",
    Unproven.SUSPEND_UNSET: "spec.suspend was not a boolean, so it could be suspended and resumed unseen",
    Unproven.CHANGED_OFTEN: "The spec was changed more than once between two runs",
    Unproven.RESTORED: "The cluster was restored from a backup",
}
"""Why nobody knows what happened in a gap."""
PAYER_KEYS = ("org", "from_day", "to_day")
REPORT_KEYS = ("reason", "subject", "recorded", "observed", "since")
EXCEPTION_KEYS = ("reason", "note", "created_by", "created_at", "expires_at")
"""What the JSON document has of a payer (the last day, null: on and on), of a report, and of an exception."""


class PictureUnwritten(Failure):
    """The file of the picture could not be written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What the whole of a story's entries says, so that they need not be in memory."""

    skills: Sequence[str]
    """Those that have a lane, by name."""
    has_more_skills: bool
    first: datetime
    """The earliest time that is one, or now."""
    org: str | None
    """The organisation of the latest entry."""
    has_one_org: bool
    listed: int
    """Entries inside the period."""
    listed_corrections: int


def survey(story: Story, period: Period | None = None) -> Survey:
    """Read a story's entries once; a period restricts what is listed."""
    corrected = {made.subject or "" for made in story.corrections if made.event_table == Table.SKILL_EVENTS}
    skills, has_more = set(corrected), False
    first, org, orgs = story.as_of, None, set[str]()
    listed = listed_corrections = 0
    for entry in story.entries:
        if entry.event_table == Table.SKILL_EVENTS and (skill := entry.skill or "") not in skills:
            skills.add(skill)
            if len(skills) > 2 * MAX_SKILLS:
                skills, has_more = set(_first_skills(skills, corrected)), True
        if FIRST < entry.at < first:
            first = entry.at
        org = entry.org
        if len(orgs) <= 1:
            orgs.add(org)
        if period is None or period.contains(entry.at):
            listed += 1
            listed_corrections += entry.correction is not None
    return Survey(
        skills=sorted(_first_skills(skills, corrected)),
        has_more_skills=has_more or len(skills) > MAX_SKILLS,
        first=min((made.at for made in story.corrections if FIRST < made.at < first), default=first),
        org=org,
        has_one_org=len(orgs) == 1,
        listed=listed,
        listed_corrections=listed_corrections,
    )


def _first_skills(skills: set[str], corrected: set[str]) -> list[str]:
    """Return as many as have a lane: those that were corrected, and then the first ones by name."""
    return sorted(skills, key=lambda skill: (skill not in corrected, skill))[:MAX_SKILLS]


def timeline(story: Story, width: int, period: Period | None = None, known: Survey | None = None) -> Timeline:
    """Return the picture of a story or a period of it: a lane for the tenant, its suspension and each skill.

    It is drawn from no more than a picture of that width shows.
    """
    known = known or survey(story)
    labels = {(Table.LIFECYCLE.value, ""): "tenant", (Table.SUSPENSION_EVENTS.value, ""): "suspended"}
    labels |= {(Table.SKILL_EVENTS.value, skill): _named(skill) for skill in known.skills}
    changes: dict[tuple[str, str], list[Change]] = {lane: [] for lane in labels}
    marks: dict[tuple[str, str], list[Mark]] = {lane: [] for lane in labels}
    for number, made in enumerate(story.corrections, 1):
        lane = made.event_table, made.subject or ""
        if made.occurred_at and made.not_before and made.not_after and lane in marks and not made.is_taken_back:
            marks[lane].append(Mark(number, made.occurred_at, made.not_before, made.not_after))
    lanes = [
        Lane(label=label, style=STYLES[Table(lane[0])], changes=changes[lane], marks=marks[lane])
        for lane, label in labels.items()
    ]
    if unknown := [gap[:2] for gap in story.gaps if period is None or period.touches(gap)]:
        lanes.insert(1, Lane(label="not proven", style="red", unknown=unknown))
    shown = period or Period(known.first, story.as_of)
    picture = Timeline(lanes=lanes, start=shown.start, end=shown.end, known_until=story.as_of)
    scale = picture.scale(width)
    for lifetime in story.lifetimes:
        ends = ((lifetime.created_at, True), (lifetime.deleted_at, False))
        changes[Table.LIFECYCLE, ""] += [Change(at, on) for at, on in ends if at]
    for entry in story.entries:
        if (
            entry.event_table != Table.LIFECYCLE
            and (its := changes.get((entry.event_table, entry.skill or ""))) is not None
        ):
            add(its, Change(entry.at, entry.kind in {"enabled", "suspended"}), scale)
    return picture


def printed(story: Story, *, period: Period | None = None, all_events: bool = False) -> Iterator[str]:
    """Yield a story for people in parts, each without its last line feed, as they fit standard output.

    The picture fits the terminal even if it goes to a file; text is folded only on a terminal.
    """
    width = Console().width
    return terminal.printed_in_parts(
        _drawn(story, width=width, period=period, max_events=None if all_events else MAX_EVENTS)
    )


def svg(story: Story, *, period: Period | None = None, all_events: bool = False) -> str:
    """Return the same as a picture for a mail: one SVG document that loads nothing from elsewhere."""
    # the height keeps rich from asking the terminal
    console = Console(
        record=True, file=io.StringIO(), width=MAIL_WIDTH, height=1, force_terminal=True, color_system="standard"
    )
    draw(story, console, width=MAIL_WIDTH, period=period, all_events=all_events)
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
            f"The picture could not be written to {path}: {error.strerror}",
            "Name a file in a folder that exists, that you may write to and that has room.",
        ) from error


def draw(story: Story, console: Console, *, width: int, period: Period | None = None, all_events: bool = False) -> None:
    """Print a story for people: the picture, each correction with its proof, what is open, the events.

    Text is folded at the console's width, the picture fits `width`; a period restricts it to what lies in it.
    """
    max_events = MAX_PICTURED if all_events else MAX_EVENTS
    for each in _drawn(story, width=width, period=period, max_events=max_events):
        console.print(each)


def _drawn(story: Story, *, width: int, period: Period | None, max_events: int | None) -> Iterator[RenderableType]:
    known = survey(story, period)
    picture = timeline(story, width, period, known)
    gaps = [gap for gap in story.gaps if period is None or period.touches(gap)]
    sections = (
        _heading(story, known),
        (*_caption(story, picture.scale(width)), *picture.drawn(width)),
        _more_skills(known),
        (Text(f"{LEGEND}\n{UNKNOWN_LEGEND}" if gaps else LEGEND, style="dim"),),
        _corrections(story, period),
        _gaps(story, gaps, max_events),
        _reports(story),
        _exceptions(story),
        _closings(story, period),
        _events(story, period, known, max_events),
    )
    is_first = True
    for lines in sections:
        for number, line in enumerate(lines):
            if number == 0 and not is_first:
                yield Text()
            is_first = False
            yield line


def _more_skills(known: Survey) -> Iterator[Text]:
    if known.has_more_skills:
        yield Text(
            f"More skills than {MAX_SKILLS} have events: those that were corrected and then the first ones by name "
            "have a line here; --output json shows all events.",
            "yellow",
        )


def _heading(story: Story, known: Survey) -> Iterator[Text]:
    org = story.lifetimes[-1].org if story.lifetimes else known.org
    yield Text.assemble((visible(story.tenant), "bold"), "" if org is None else f", organisation {visible(org)}")
    for lifetime in story.lifetimes:
        until = f"deleted {instant(lifetime.deleted_at)}" if lifetime.deleted_at else "open"
        yield Text(f"created {instant(lifetime.created_at)}, {until}")
        if lifetime.reopened_at:
            who, why = visible(lifetime.reopened_by or "?"), visible(lifetime.note or "-")
            yield Text(f"reopened {instant(lifetime.reopened_at)} by {who}: {why}")
    if not story.lifetimes:
        yield Text("no lifecycle row")
    for org, first, last in map(_paid, story.payers):
        yield Text(f"paid for by {visible(org)} from {first} {f'to {last}' if last else 'on'}")
    if story.verified_at:
        yield Text(f"last found true by the run of {instant(story.verified_at)}")
    if story.known_since:
        gaps = f", but for {plural(len(story.gaps), 'gap')}" if story.gaps else ""
        yield Text(f"what happened is known since {instant(story.known_since)}{gaps}")
    else:
        yield Text("what happened is not proven: no run has seen it in a cluster")


def _paid(payer: Payer) -> tuple[str, date, date | None]:
    """Return who pays, and the first and the last day; None: on and on."""
    is_open = payer.last >= LAST.toordinal()
    return payer.org, date.fromordinal(payer.first), None if is_open else date.fromordinal(payer.last)


def _caption(story: Story, scale: Scale) -> Iterator[Text]:
    end = f"now, {instant(story.as_of)}" if scale.end == story.as_of else f"{scale.end:%Y-%m-%d}"
    yield Text(f"{scale.start:%Y-%m-%d} to {end}. All times are UTC, a column is {scale.words}.")
    yield Text()


def _corrections(story: Story, period: Period | None) -> Iterator[RenderableType]:
    """Yield each correction: when, what, why that moment, its impact, by which run."""
    shown = list(_inside(story.corrections, period))
    others = len(story.corrections) - len(shown)
    outside = f"{plural(others, 'correction')} outside of this month." if others else ""
    if not shown:
        yield Text(f"No correction in this month. {outside}" if others else NO_CORRECTION)
        return
    yield Text("Corrections: rows that the reconciler wrote, and why", style="bold")
    # a decision about a lifetime is not taken back, nor are its events
    of_rows = {made.ledger_number for made in story.corrections if made.event_id is None}
    numbers = {made.ledger_number or made.id: number for number, made in reversed([*enumerate(story.corrections, 1)])}
    for number, made in shown:
        when = instant(made.occurred_at) if made.occurred_at else "without a moment"
        head = Text.assemble(f"{when}  ", (_change(made), "bold"))
        if made.closed_period:
            head.append("  ").append("closed period", "bold red")
        if made.is_taken_back:
            head.append("  ").append("taken back", "bold red")
        if later := numbers.get(made.taken_back_by or 0):
            head.append("  ").append(f"taken back by {later}", "bold")
        yield _block(Text(str(number), MARK_STYLE), head, details(made, whole=made.ledger_number in of_rows))
    standing = [made for _, made in shown if not made.is_taken_back]
    impacts = [made.impact_chf for made in standing if made.impact_chf is not None]
    unpriced = f"{len(standing) - len(impacts)} not priced." if len(impacts) < len(standing) else ""
    total = f"Together {chf(sum(impacts, NOTHING))}, before VAT, up to the runs that found them." if impacts else ""
    undone = f"{len(shown) - len(standing)} taken back, not counted." if len(standing) < len(shown) else ""
    if words := " ".join(filter(None, (total, unpriced, undone, outside))):
        yield Text(words)


def _gaps(story: Story, gaps: Sequence[OpenGap], max_events: int | None) -> Iterator[RenderableType]:
    """Yield the time of which nobody knows what happened, the latest last."""
    if not gaps:
        return
    yield Text("Not proven: nobody knows what happened then", style="bold")
    shown = gaps if max_events is None else gaps[-max_events:]
    if len(shown) < len(gaps):
        yield Text(f"{len(gaps) - len(shown)} earlier; --output json has them")
    for gap in shown:
        facts = [("why", f"{UNPROVEN.get(gap.why, 'No run could prove it')} ({visible(gap.why)})")]
        facts += [("last by", visible(gap.manager))] if gap.manager else []
        facts += [("accepted", "see below")] if story.accepts(gap) else []
        yield _block(Text(UNKNOWN, "red"), Text(f"{instant(gap.from_at)} to {instant(gap.until_at)}"), facts)
    if not all(map(story.accepts, gaps)):
        yield Text(f"To do: {HELP[Cause.GAP]}.")


def _change(made: Correction) -> str:
    of_whole = "lifetime" if made.evidence == Evidence.DECIDED else "organisation"
    what = of_whole if made.action == Action.UPDATE else "payer" if made.is_of_payer else _named(made.subject)
    return f"{what}: {visible(made.recorded or '-')} → {visible(made.observed)}"


def _reports(story: Story) -> Iterator[RenderableType]:
    """Yield the open reports."""
    if story.reports:
        yield Text("Open: what a person has to look at", style="bold")
    for report in story.reports:
        about = f"{visible(report.subject)}: " if report.subject else ""
        states = f"recorded {visible(report.recorded or '-')}, observed {visible(report.observed or '-')}"
        facts = [("what", summary(report.reason) or "-"), ("since", instant(report.since))]
        facts += [("accepted", "see below")] if report.accepted_until else []
        yield _block(Text("!", "magenta"), Text(f"{visible(report.reason)}  {about}{states}"), facts)


def _exceptions(story: Story) -> Iterator[RenderableType]:
    """Yield which reports are accepted, or were."""
    if story.exceptions:
        yield Text("Accepted: what people know about", style="bold")
    for each in story.exceptions:
        over = ", which is over" if each.expired else ""
        facts = [("why", visible(each.note)), ("by", f"{visible(each.created_by)}, {instant(each.created_at)}")]
        yield _block(Text("~", "cyan"), Text(f"{visible(each.reason)}  until {instant(each.expires_at)}{over}"), facts)


def _closings(story: Story, period: Period | None) -> Iterator[RenderableType]:
    """Yield what the closed months hold of it; of a period, only those that lie in it."""
    shown = [each for each in story.closings if period is None or each.month == period.start.date()]
    if shown:
        yield Text("Closed: what its months cost, in CHF before VAT", style="bold")
    for each in shown:
        number = f"{each.month:%Y-%m}, closing {each.number}"
        yield Text(f"  {number}  {each.chf:+}  for {visible(each.org)}, {instant(each.closed_at)}")


def _events(story: Story, period: Period | None, known: Survey, max_events: int | None) -> Iterator[RenderableType]:
    """Yield every event by time, each marked as the portal's own or a correction."""
    if max_events is not None and known.listed > max_events:
        option = "--all-events lists" if max_events == MAX_EVENTS else "--output json has"
        yield Text(f"{known.listed} events, {known.listed_corrections} of them corrections; {option} them")
        return
    if not known.listed:
        yield Text("No event.")
        return
    yield Text("Events: everything that happened, by the ledger", style="bold")
    changed = {number for number, made in enumerate(story.corrections, 1) if made.is_taken_back}
    rows = (_cells(story, entry, changed, one_org=known.has_one_org) for _, entry in _inside(story.entries, period))
    if known.listed <= MAX_PICTURED:
        grid = Grid.grid(padding=(0, 2, 0, 0))
        for cells in rows:
            grid.add_row(*cells)
        yield grid
        return
    # of so many, rich's own grid would need gigabytes: a thousand at a time, and without colours
    while some := list(islice(rows, MAX_PICTURED)):
        widths = [max(cell.cell_len for cell in column if cell) for column in zip_longest(*some)]
        for cells in some:
            for cell, width in zip(cells[:-1], widths, strict=False):
                cell.pad_right(width - cell.cell_len)
        yield "\n".join("  ".join(cell.plain for cell in cells) for cells in some)


def _cells(story: Story, entry: Entry, changed: Container[int], *, one_org: bool) -> list[Text]:
    """Return an event's cells in the list; `changed` are the corrections whose rows no longer read as written."""
    cells = [Text(instant(entry.at)), Text(_named(entry.skill), overflow="fold"), Text(entry.kind)]
    cells += [] if one_org else [Text(visible(entry.org), overflow="fold")]
    # what `retract` takes, where no correction has a number for it
    name = f", {entry.target}" if entry.target else ""
    by = Text(f"portal{name}", "dim") if entry.correction is None else Text(f"{MARK} {entry.correction}", MARK_STYLE)
    if entry.correction in changed:
        by.append(", changed by hand", "bold red")
    late = [Text("after now", "bold red")] if entry.at > story.as_of else []
    return [*cells, by, *late]


def _inside(found: Iterable[_Dated], period: Period | None) -> Iterator[tuple[int, _Dated]]:
    """Yield what lies in the period, each with its number from 1; all of it if there is no period."""
    return ((number, each) for number, each in enumerate(found, 1) if period is None or period.contains(each.at))


def _block(sign: Text, head: Text, details: Iterable[tuple[str, str]]) -> RenderableType:
    """Return a heading with a sign before it, and named details below it."""
    inner = Grid.grid(padding=(0, 2, 0, 0))
    inner.add_column(min_width=8)
    for name, text in details:
        inner.add_row(Text(name, "dim"), Text(text, overflow="fold"))
    outer = Grid.grid(padding=(0, 2, 0, 0))
    outer.add_column(width=max(2, sign.cell_len), justify="right")
    outer.add_row(sign, Group(head, inner))
    return outer


def _named(skill: str | None) -> str:
    """Return what something is about, escaped: a skill by its id, even an empty one, or the tenant as a whole."""
    return "tenant" if skill is None else visible(skill) or '""'


def document(story: Story, *, period: Period | None = None) -> Iterator[str]:
    """Yield a story as one JSON document, in parts; of a period, only the events and corrections inside it.

    Times are in UTC.
    """
    return json_in_parts(
        {
            "tenant": story.tenant,
            "as_of": story.as_of,
            "verified_at": story.verified_at,
            "known_since": story.known_since,
            "from": period and period.start,
            "until": period and period.end,
            "lives": [lifetime._asdict() for lifetime in story.lifetimes],
            "payers": [dict(zip(PAYER_KEYS, _paid(payer), strict=True)) for payer in story.payers],
            "events": (
                {**entry._asdict(), "by": "portal" if entry.correction is None else "reconciler"}
                for _, entry in _inside(story.entries, period)
            ),
            "corrections": [
                {"number": number, **made._asdict()} for number, made in _inside(story.corrections, period)
            ],
            "gaps": [
                {**gap._asdict(), "accepted": story.accepts(gap)}
                for gap in story.gaps
                if period is None or period.touches(gap)
            ],
            "reports": [{key: getattr(report, key) for key in REPORT_KEYS} for report in story.reports],
            "closings": [
                {**each._asdict(), "month": f"{each.month:%Y-%m}"}
                for each in story.closings
                if period is None or each.month == period.start.date()
            ],
            "exceptions": [{key: getattr(each, key) for key in EXCEPTION_KEYS} for each in story.exceptions],
        }
    )
