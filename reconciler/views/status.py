"""Is the ledger true yet? Up to when it is proved and for whom it is not, what is open, and how the last runs went.

Read in one place, shown in another: a `Status` is a frozen value, and what is printed depends on it alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from reconciler.core.model import LAST, SNAPSHOT, Action, Result
from reconciler.db.queries import query
from reconciler.views.terminal import WIDTH_OF_A_FILE, plural, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from uuid import UUID

    import psycopg
    from rich.console import Console
    from rich.text import Text

DAYS = 28
"""UTC days, today the last of them, whose corrections are counted."""
RUNS = 10
"""Runs that are shown."""
MOST = 500
"""Tenants, reports and exceptions that are read: the rest are counted."""
SHOWN = 20
"""Of each of them, what the table shows."""
NAMED = 5
"""Tenants that a sentence names."""
REACH = 2_000
"""Runs among which the last one is looked for that proved a tenant: a week of them, before its report was opened."""

BARS = "·▁▂▃▄▅▆▇█"
"""No correction, then 1, 2, 4, … and 128 or more of them: one among a thousand still shows."""
MIDNIGHT = time()
COLOURS = {Result.CLEAN: "green", Result.CORRECTED: "green", Result.DRIFT: "yellow"}
"""Of the outcomes; those of runs that were stopped are red."""


_WRITING = tuple(action for action in Action if action.writes)


class Unverified(NamedTuple):
    """A tenant that the last run could not prove."""

    tenant: str
    verified_until: datetime | None
    """Up to when an earlier one did; None: none did, or it is longer ago than `REACH` runs."""


class OpenReport(NamedTuple):
    """What the last pass left to a person."""

    tenant: str
    """Empty where it is about the passes themselves: the last one was stopped."""
    reason: str
    subject: str
    """The skill; empty where it is about the tenant as a whole."""
    org: str | None
    recorded: str | None
    observed: str | None
    since: datetime
    accepted_until: datetime | None


class Exemption(NamedTuple):
    """A report that people accept for a time, or did."""

    tenant: str
    reason: str
    note: str
    created_by: str
    created_at: datetime
    expires_at: datetime
    expired: bool


class Corrected(NamedTuple):
    """How many rows were corrected on a UTC day."""

    day: date
    corrections: int


class Run(NamedTuple):
    """One run."""

    run_id: UUID
    started_at: datetime
    finished_at: datetime
    outcome: str
    source: str | None
    tenants_observed: int
    tenants_recorded: int
    counts: Mapping[str, Mapping[str, int]]
    """Findings by reason and by what was done about them. Of a run that was stopped: would have been done."""
    error: str | None

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (self.finished_at - self.started_at).total_seconds()

    @property
    def is_stopped(self) -> bool:
        """Whether it wrote nothing and proved nothing."""
        return self.outcome in {Result.BLOCKED, Result.FAILED}

    def findings(self, *actions: Action) -> int:
        """Return how many findings something of this was done about."""
        return sum(done.get(action, 0) for done in self.counts.values() for action in actions)


class Invoicing(NamedTuple):
    """Whether the month that ended last can be invoiced: no later run will date a correction inside it."""

    month: date
    """Its first day."""
    ended_at: datetime
    """When it was over, in UTC."""
    verified: bool
    """Whether the ledger is proved to its end, but for the tenants below."""
    but_for: tuple[str, ...]
    but_for_count: int
    """How many tenants that is; those beyond `MOST` are taken to be among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How things stand.

    Attributes:
        as_of: when it was read, by the database's clock.
        verified_until: up to when the ledger is proved: what a run over the cluster found true when it began, less
            settle. None: no such run has succeeded yet.
        unverified: the tenants of which that is not so, by name; the first `MOST`.
        unverified_count: how many there are.
        reports: what is open; the first `MOST`, the latest first.
        reports_count: how many there are.
        exceptions: the reports that are accepted, or were until lately; the first `MOST` to expire.
        exceptions_count: how many there are.
        corrections: a count for each of the last `DAYS` UTC days.
        runs: the last `RUNS`, the latest first.
    """

    as_of: datetime
    verified_until: datetime | None = None
    unverified: tuple[Unverified, ...] = ()
    unverified_count: int = 0
    reports: tuple[OpenReport, ...] = ()
    reports_count: int = 0
    exceptions: tuple[Exemption, ...] = ()
    exceptions_count: int = 0
    corrections: tuple[Corrected, ...] = ()
    runs: tuple[Run, ...] = ()

    @property
    def invoicing(self) -> Invoicing:
        """Whether the month that ended last, by the database's clock and in UTC, can be invoiced."""
        ended_at = self.as_of.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        month = (ended_at - timedelta(days=1)).date().replace(day=1)
        verified = self.verified_until is not None and self.verified_until >= ended_at
        behind = tuple(one.tenant for one in self.unverified if not (until := one.verified_until) or until < ended_at)
        beyond = self.unverified_count - len(self.unverified)
        return Invoicing(month, ended_at, verified, behind, len(behind) + beyond)


# --- reading -----------------------------------------------------------------------------------------------------


def read(cursor: psycopg.Cursor[Any], *, settle: timedelta) -> Status:
    """Read how things stand. How long that takes does not grow with the history.

    Args:
        cursor: in a transaction of `reconciler.db.connection.transaction` that sees one state of the ledger throughout.
        settle: how long after a change the portal may still write its row.
    """
    ((as_of, verified_until, unverified),) = cursor.execute(query("status_verification"), {"settle": settle}).fetchall()
    as_of = as_of.astimezone(UTC)
    midnight = as_of.replace(hour=0, minute=0, second=0, microsecond=0)
    first = midnight - timedelta(days=DAYS - 1)
    bounds = {"most": MOST, "last": LAST}
    tenants = cursor.execute(query("status_unverified"), {"settle": settle, "reach": REACH, "most": MOST}).fetchall()
    reports = cursor.execute(query("status_reports"), bounds).fetchall()
    exceptions = cursor.execute(query("status_exceptions"), {"since": timedelta(days=DAYS), **bounds}).fetchall()
    corrected: dict[date, int] = dict(cursor.execute(query("status_corrections"), {"since": first}).fetchall())
    runs = cursor.execute(query("status_runs"), {"most": RUNS}).fetchall()
    days = [first.date() + timedelta(days=number) for number in range(DAYS)]
    return Status(
        as_of=as_of,
        verified_until=verified_until,
        unverified=tuple(Unverified(*row) for row in tenants),
        unverified_count=unverified or 0,
        reports=tuple(OpenReport(*row[:-1]) for row in reports),
        reports_count=reports[0][-1] if reports else 0,
        exceptions=tuple(Exemption(*row[:-1]) for row in exceptions),
        exceptions_count=exceptions[0][-1] if exceptions else 0,
        corrections=tuple(Corrected(day, corrected.get(day, 0)) for day in days),
        runs=tuple(Run(*row) for row in runs),
    )


# --- for programs ------------------------------------------------------------------------------------------------


def document(status: Status) -> str:
    """Return the status as one JSON document, times in RFC 3339 and UTC."""
    invoicing = status.invoicing
    content: dict[str, Any] = {
        "as_of": status.as_of,
        "verified_until": status.verified_until,
        "unverified_count": status.unverified_count,
        "unverified": [one._asdict() for one in status.unverified],
        "last_month": {**invoicing._asdict(), "month": f"{invoicing.month:%Y-%m}"},
        "reports_count": status.reports_count,
        "reports": [
            {**one._asdict(), "tenant": one.tenant or None, "subject": one.subject or None} for one in status.reports
        ],
        "exceptions_count": status.exceptions_count,
        "exceptions": [one._asdict() for one in status.exceptions],
        "corrections": [one._asdict() for one in status.corrections],
        "runs": [{**run._asdict(), "seconds": run.seconds} for run in status.runs],
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=2).decode()


# --- for people --------------------------------------------------------------------------------------------------


def printed(status: Status) -> str:
    """Return the status as it fits standard output: its width and colours on a terminal, neither in a file."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH_OF_A_FILE)
    with console.capture() as captured:
        show(status, console)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def show(status: Status, console: Console) -> None:
    """Print the status for people: the answers first, then what they rest on."""
    from rich.text import Text

    for sentence, colour in _answers(status):
        console.print(Text(sentence, style=colour), soft_wrap=True)
    for section in _sections(status):
        _print(section, console)
    for title, lines in (("CORRECTIONS A DAY (UTC)", _chart(status.corrections)), ("LAST RUNS", _runs(status))):
        console.print(Text(f"\n{title}", style="bold"))
        for line in lines:
            line.truncate(console.width, overflow="ellipsis")
            console.print(line, soft_wrap=True)


class _Row(NamedTuple):
    """What stands in a row of a section, and in two lines where the console is too narrow for its columns."""

    cells: tuple[str, ...]
    first: str
    second: str
    colour: str = ""


class _Section(NamedTuple):
    """What is listed under a title; `total` counts the rows that were not read too."""

    title: str
    columns: tuple[str, ...]
    rows: list[_Row]
    total: int


def _sections(status: Status) -> Iterator[_Section]:
    columns: tuple[str, ...] = ("TENANT", "VERIFIED UP TO (UTC)")
    yield _Section("NOT VERIFIED", columns, [*_tenants(status)], status.unverified_count)
    columns = ("", "TENANT", "REASON", "SKILL", "RECORDED", "OBSERVED", "SINCE (UTC)", "FOR", "ACCEPTED UNTIL")
    yield _Section("OPEN REPORTS", columns, [*_reports(status)], status.reports_count)
    columns = ("TENANT", "REASON", "ACCEPTED UNTIL", "BY", "NOTE")
    yield _Section("ACCEPTED REPORTS", columns, [*_exceptions(status)], status.exceptions_count)


def _answers(status: Status) -> Iterator[tuple[str, str]]:
    """Yield the sentences that answer what is asked first, each with its colour."""
    if until := status.verified_until:
        but_for = f", but for {plural(status.unverified_count, 'tenant')}" if status.unverified_count else ""
        said = f"Verified true up to {until:%Y-%m-%d %H:%M:%S} UTC, {_long(status.as_of - until)} ago{but_for}."
        yield said, "yellow" if but_for else "green"
    else:
        yield "No run over the cluster has succeeded yet: nothing is verified.", "red"
    yield _last_run(status)
    yield _invoicing(status.invoicing, status.verified_until)


def _last_run(status: Status) -> tuple[str, str]:
    if not status.runs:
        return "No run is on record.", "red"
    run = status.runs[0]
    said = f"The last run, {_long(status.as_of - run.started_at)} ago, "
    if not run.is_stopped:
        corrected, left = run.findings(*_WRITING), run.findings(Action.REPORT)
        said += f"corrected {plural(corrected, 'row')}" if corrected else "had nothing to correct"
        return f"{said} and left {plural(left, 'report')}.", COLOURS.get(Result(run.outcome), "")
    said += f"{'was refused' if run.outcome == Result.BLOCKED else 'failed'}: {_line(run.error or 'unknown')}"
    since = [report.since for report in status.reports if not report.tenant and report.reason == run.outcome]
    longer = (f"\nIt has been so since {_minute(at)} UTC, for {_long(status.as_of - at)}." for at in since)
    return said + "".join(longer), "red"


def _invoicing(invoicing: Invoicing, verified_until: datetime | None) -> tuple[str, str]:
    month = f"{invoicing.month:%B %Y}"
    if not invoicing.verified:
        so_far = f"it is verified only up to {_minute(verified_until)} UTC" if verified_until else "it is not verified"
        return f"{month} cannot be invoiced yet: {so_far}.", "red"
    if not invoicing.but_for_count:
        return f"{month} can be invoiced: it is verified to its end.", "green"
    names = [visible(name) for name in invoicing.but_for[:NAMED]]
    more = invoicing.but_for_count - len(names)
    who = ", ".join(names) + (f" and {more} more" if more else "")
    return f"{month} can be invoiced but for {plural(invoicing.but_for_count, 'tenant')}: {who}.", "yellow"


def _tenants(status: Status) -> Iterator[_Row]:
    for one in status.unverified:
        until = _minute(one.verified_until) if one.verified_until else "by no recent run"
        yield _Row((visible(one.tenant), until), visible(one.tenant), f"verified up to {until}")


def _reports(status: Status) -> Iterator[_Row]:
    for one in status.reports:
        tenant, subject, recorded, observed = (
            visible(text or "-") for text in (one.tenant, one.subject, one.recorded, one.observed)
        )
        tenant = tenant if one.tenant else "the runs"
        since, age = _minute(one.since), _long(status.as_of - one.since)
        accepted = _until(one.accepted_until) if one.accepted_until else "-"
        reason = visible(one.reason)
        yield _Row(
            ("!", tenant, reason, subject, recorded, observed, since, age, accepted),
            f"! {tenant}{f' {subject}' if one.subject else ''}: {f'{recorded} → ' if one.tenant else ''}{observed}",
            f"{reason} for {age} ({since})" + (f", accepted until {accepted}" if one.accepted_until else ""),
            "dim" if one.accepted_until else "" if one.tenant else "red",
        )


def _exceptions(status: Status) -> Iterator[_Row]:
    for one in status.exceptions:
        tenant, reason, by, note = (visible(text) for text in (one.tenant, one.reason, one.created_by, one.note))
        until = _until(one.expires_at)
        if one.expired:
            until += f", expired {_long(status.as_of - one.expires_at)} ago"
        yield _Row(
            (tenant, reason, until, by, note),
            f"{tenant}: {reason}, until {until}",
            f"{by}: {note}",
            "red" if one.expired else "",
        )


def _print(section: _Section, console: Console) -> None:
    """Print a section, if there is anything in it: in columns where they fit, else two lines a row."""
    from rich.table import Table as Grid
    from rich.text import Text

    if not section.total:
        return
    console.print(Text(f"\n{section.title}", style="bold"))
    shown = section.rows[:SHOWN]
    grid = Grid(box=None, pad_edge=False, header_style="")
    for column in section.columns:
        grid.add_column(column, overflow="fold")
    for row in shown:
        grid.add_row(*(Text(cell, style=row.colour) for cell in row.cells))
    if console.measure(grid, options=console.options.update(width=WIDTH_OF_A_FILE)).maximum <= console.width:
        console.print(grid)
    else:
        for row in shown:
            console.print(Text(f"{row.first}\n    {row.second}", style=row.colour), soft_wrap=True)
    if section.total > len(shown):
        more = section.total - len(shown)
        console.print(Text(f"… and {more} more; --output json shows {min(section.total, MOST)}"))


def _chart(corrections: tuple[Corrected, ...]) -> Iterator[Text]:
    """Yield the lines of a bar a day, each step of which is twice as many corrections as the one below."""
    from rich.text import Text

    total = sum(one.corrections for one in corrections)
    if not total:
        yield Text(f"none in the last {DAYS} days")
        return
    most = max(corrections, key=lambda one: one.corrections)
    yield Text(" ".join(BARS[min(one.corrections.bit_length(), len(BARS) - 1)] for one in corrections))
    yield Text("".join(f"{one.day:%m-%d}".ljust(14) for one in corrections[::7]).rstrip())
    yield Text(f"{total} in {DAYS} days; most on {most.day}: {most.corrections}")
    yield Text("  ".join(f"{bar} ≥{2**step}" for step, bar in enumerate(BARS[1:])))


def _runs(status: Status) -> Iterator[Text]:
    """Yield a line a run, and below it what stopped it, once where that stopped the runs before it too."""
    from rich.text import Text

    if not status.runs:
        yield Text("none")
        return
    yield Text(f"{'AT (UTC)':16}  {'OUTCOME':9}  TENANTS  WROTE  REPORTS  DEFERRED      TOOK")
    newer = None
    for run in status.runs:
        colour = COLOURS.get(Result(run.outcome), "red")
        done = (run.findings(*_WRITING), run.findings(Action.REPORT), run.findings(Action.DEFER))
        wrote, left, deferred = ("-", "-", "-") if run.is_stopped else map(str, done)
        tenants = "-" if run.is_stopped else str(run.tenants_observed)
        yield Text.assemble(
            f"{_minute(run.started_at)}  ",
            (f"{run.outcome:9}", colour),
            f"  {tenants:>7}  {wrote:>5}  {left:>7}  {deferred:>8}  {f'{run.seconds:.1f} s':>8}",
            "  file" if run.source == SNAPSHOT else "",
        )
        if run.error and run.error != newer:
            yield Text(f"    {_line(run.error)}")
        newer = run.error


def _line(text: str) -> str:
    """Return text in one line, with what could steer a terminal made visible."""
    return visible(" ".join(text.split()))


def _minute(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M}"


def _until(at: datetime) -> str:
    """Return the end of a time: the last UTC day of it where it is whole days."""
    at = at.astimezone(UTC)
    return f"{at - timedelta(days=1):%Y-%m-%d}" if at.time() == MIDNIGHT else _minute(at)


def _long(duration: timedelta) -> str:
    """Return about how long it is."""
    seconds = max(0, int(duration.total_seconds()))
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
