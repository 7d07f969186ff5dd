"""Is the ledger true yet? What is verified and what is not, what is open, and how the last runs went."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING

from rich.text import Text

from reconciler.core.certificate import Cause
from reconciler.core.history import ANY_TENANT
from reconciler.core.model import SNAPSHOT, Action, Result
from reconciler.core.reasons import Reason
from reconciler.views import as_json, terminal
from reconciler.views.terminal import Row, plural, print_table, visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from reconciler.core.certificate import Certificate, Doubt
    from reconciler.core.status import Corrected, Decided, LastDay, Status

MAX_ROWS = 20
"""Tenants, reports and exceptions that a table shows."""
MAX_NAMES = 5
"""Tenants that a sentence names."""
MANY_LOST = 10
"""Where more than one run in so many has lost the change log, it is said what helps."""
MAX_DOUBTS = 500
"""Of a month, in the JSON document: the rest are counted."""
BARS = "·▁▂▃▄▅▆▇█"
"""No correction, then 1, 2, 4, … and 128 or more: one correction is still seen beside a thousand."""
COLOURS = {Result.CLEAN: "green", Result.CORRECTED: "green", Result.DRIFT: "yellow"}
"""Of the outcomes; those of stopped runs are red."""
FORGET_FUTURE_RUNS = "UPDATE reconciler.runs SET observed_at = NULL WHERE observed_at > now()"
"""Keeps their rows, since corrections refer to them."""

_WRITING = tuple(action for action in Action if action.writes)


def document(status: Status) -> str:
    """Return the status as one JSON document, times in RFC 3339 and UTC."""
    month = status.last_month
    content = {
        "as_of": status.as_of,
        "verified_until": status.verified_until,
        "changes_until": status.changes_until,
        "unverified_count": status.unverified_count,
        "unverified": [one._asdict() for one in status.unverified],
        "last_month": {
            "month": f"{month.first:%Y-%m}",
            "ended_at": month.until,
            "verified": not _waits(month),
            "proven": month.is_proven,
            "but_for": month.tenants[:MAX_DOUBTS],
            "but_for_count": len(month.tenants),
            "doubts": [doubt._asdict() for doubt in month.doubts[:MAX_DOUBTS]],
            "doubts_count": len(month.doubts),
        },
        "history": status.history._asdict(),
        "reports_count": status.reports_count,
        "reports": [
            {**one._asdict(), "tenant": one.tenant or None, "subject": one.subject or None} for one in status.reports
        ],
        "exceptions_count": status.exceptions_count,
        "exceptions": [one._asdict() for one in status.exceptions],
        "taken_back_count": status.taken_back_count,
        "taken_back": [one._asdict() for one in status.taken_back],
        "decisions_count": status.decisions_count,
        "decisions": [one._asdict() for one in status.decisions],
        "owed_count": status.owed_count,
        "owed": [one._asdict() for one in status.owed],
        "closed_months": [{**one._asdict(), "month": f"{one.month:%Y-%m}"} for one in status.closed_months],
        "corrections": [one._asdict() for one in status.corrections],
        "runs": [{**run._asdict(), "seconds": run.seconds} for run in status.runs],
        "future_runs": status.future_runs,
        "future_runs_until": status.future_runs_until,
    }
    return as_json(content)


def printed(status: Status) -> str:
    """Return the status for people, as it fits standard output."""
    return terminal.printed(lambda console: show(status, console))


def show(status: Status, console: Console) -> None:
    """Print the status for people: the answers first, then what they rest on."""
    for sentence, colour in _answers(status):
        console.print(Text(sentence, style=colour), soft_wrap=True)
    _print(console, "NOT VERIFIED", ("TENANT", "VERIFIED UP TO (UTC)"), _tenants(status), status.unverified_count)
    columns: tuple[str, ...]
    columns = ("TENANT", "WHY", "FROM (UTC)", "TO (UTC)", "LAST WRITTEN BY")
    doubts = [
        doubt
        for doubt in status.last_month.doubts
        if doubt.cause not in {Cause.UNVERIFIED, Cause.REPORTED, Cause.DEFERRED}
    ]
    title = f"NOT PROVEN IN {status.last_month.first:%B %Y}".upper()
    _print(console, title, columns, _doubts(doubts[:MAX_DOUBTS]), len(doubts))
    columns = ("", "TENANT", "REASON", "SKILL", "RECORDED", "OBSERVED", "SINCE (UTC)", "FOR", "ACCEPTED UNTIL")
    _print(console, "OPEN REPORTS", columns, _reports(status), status.reports_count)
    columns = ("TENANT", "REASON", "ACCEPTED UNTIL", "BY", "NOTE")
    _print(console, "ACCEPTED REPORTS", columns, _exceptions(status), status.exceptions_count)
    columns = ("ID", "TENANT", "REASON", "SKILL", "WRITTEN (UTC)", "WRITTEN AGAIN (UTC)", "NOW IN THE LEDGER")
    title = "CORRECTIONS TAKEN BACK BY AN UNKNOWN HAND"
    _print(console, title, columns, _taken_back(status), status.taken_back_count)
    columns = ("NUMBER", "TENANT", "DECIDED", "FROM (UTC)", "TO (UTC)", "BY", "AT (UTC)", "NOTE", "SINCE THEN")
    _print(console, "WHAT PEOPLE DECIDED", columns, _decisions(status), status.decisions_count)
    columns = ("RECIPIENT", "RUN", "SINCE (UTC)", "FOR")
    _print(console, "NOTIFICATIONS OWED", columns, _owed(status), status.owed_count)
    columns = ("MONTH", "CLOSINGS", "FOR", "CHF", "VAT", "LAST CLOSED (UTC)", "NOT TAKEN IN")
    _print(console, "CLOSED MONTHS", columns, _closed_months(status), len(status.closed_months))
    for title, lines in (("CORRECTIONS A DAY (UTC)", _chart(status.corrections)), ("LAST RUNS", _runs(status))):
        console.print(Text(f"\n{title}", style="bold"))
        for line in lines:
            line.truncate(console.width, overflow="ellipsis")
            console.print(line, soft_wrap=True)


def _print(console: Console, title: str, columns: tuple[str, ...], rows: Iterator[Row], total: int) -> None:
    """Print a section, if there is anything in it; `total` counts the rows that were not read too."""
    if not total:
        return
    read = [*rows]
    console.print(Text(f"\n{title}", style="bold"))
    print_table(console, columns, read[:MAX_ROWS], header_style="")
    if total > MAX_ROWS:
        console.print(Text(f"… and {total - MAX_ROWS} more; --output json shows {len(read)}"))


def _row(cells: tuple[str, ...], first: str, second: str, colour: str = "") -> Row:
    """Return a row in one colour, and its two lines for a narrow terminal."""
    return Row([Text(cell, style=colour) for cell in cells], Text(f"{first}\n    {second}", style=colour))


def _answers(status: Status) -> Iterator[tuple[str, str]]:
    """Yield the sentences that answer the first questions, each with its colour."""
    if until := status.verified_until:
        but_for = f", except for {plural(status.unverified_count, 'tenant')}" if status.unverified_count else ""
        said = f"Verified true up to {until:%Y-%m-%d %H:%M:%S} UTC, {_long(status.as_of - until)} ago{but_for}."
        if status.changes_until and status.changes_until > until:
            said += f"\nWhat has changed since is in the ledger up to {status.changes_until:%Y-%m-%d %H:%M:%S} UTC; "
            said += "the next list of all tenants verifies that."
        yield said, "yellow" if but_for else "green"
    else:
        yield "No run over the cluster has succeeded yet: nothing is verified.", "red"
    yield _last_run(status)
    yield _invoicing(status.last_month, status.verified_until)
    if status.history.runs:
        yield _last_day(status.history)
    if until := status.future_runs_until:
        yield _future_runs(status.future_runs, until), "red"


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


def _waits(month: Certificate) -> bool:
    """True if no run has verified the ledger to the end of the month."""
    return any(doubt.cause is Cause.UNVERIFIED for doubt in month.doubts)


def _invoicing(month: Certificate, verified_until: datetime | None) -> tuple[str, str]:
    name = f"{month.first:%B %Y}"
    if _waits(month):
        so_far = f"it is verified only up to {_minute(verified_until)} UTC" if verified_until else "it is not verified"
        return f"{name} cannot be invoiced yet: {so_far}.", "red"
    if not month.tenants:
        accepted = len({doubt.tenant for doubt in month.accepted} - {ANY_TENANT})
        but_for = f", but for what was accepted of {plural(accepted, 'tenant')}" if accepted else ""
        return f"{name} can be invoiced: it is proven to its end{but_for}.", "green"
    shown = [visible(tenant) for tenant in month.tenants[:MAX_NAMES]]
    more = len(month.tenants) - len(shown)
    who = ", ".join(shown) + (f" and {more} more" if more else "")
    return f"{name} can be invoiced except for {plural(len(month.tenants), 'tenant')}: {who}.", "yellow"


def _last_day(day: LastDay) -> tuple[str, str]:
    """Return what the change log could prove, and where that was little, what helps."""
    usual, most = (_long(timedelta(seconds=seconds or 0)) for seconds in (day.seconds, day.most_seconds))
    said = (
        f"The change log proves what happened before {day.reached} of the {plural(day.runs, 'run')} of the last 24 h."
    )
    said += f"\nThey were {usual} apart" + (f", at most {most}." if most != usual else ".")
    if day.waiting:
        said += f" {plural(day.waiting, 'change')} may still get the portal's row."
    if day.lost * MANY_LOST <= day.runs:
        return said, ""
    said += f"\n{plural(day.lost, 'run')} lost it, because the API server keeps it for a short time only. A run every "
    return said + "minute helps, and the account of the runs must be allowed to `watch` the tenants.", "yellow"


def _future_runs(number: int, until: datetime) -> str:
    """Return the warning about runs that observed after now."""
    return (
        f"{plural(number, 'run')} observed after now, until {_minute(until)} UTC: the database's clock was ahead. They "
        "prove nothing and are not shown.\nCheck that clock. Then have the owner of the ledger run: "
        f"{FORGET_FUTURE_RUNS}. Otherwise they count once their time has come."
    )


def _tenants(status: Status) -> Iterator[Row]:
    for one in status.unverified:
        until = _minute(one.verified_until) if one.verified_until else "by no recent run"
        yield _row((visible(one.tenant), until), visible(one.tenant), f"verified up to {until}")


def _doubts(doubts: list[Doubt]) -> Iterator[Row]:
    for one in doubts:
        named = one.detail if one.cause is Cause.GAP else ": ".join(filter(None, (one.cause, one.detail)))
        tenant, why = visible(one.tenant), visible(named) + (", accepted" if one.accepted else "")
        begins, ends = (_minute(at) if at else "-" for at in (one.from_at, one.until_at))
        cells = (tenant, why, begins, ends, visible(one.manager or "-"))
        by = f", last written by {visible(one.manager)}" if one.manager else ""
        yield _row(cells, f"{tenant}: {why}", f"{begins} to {ends}{by}", "dim" if one.accepted else "")


def _reports(status: Status) -> Iterator[Row]:
    for one in status.reports:
        tenant, subject, recorded, observed = (
            visible(text or "-") for text in (one.tenant, one.subject, one.recorded, one.observed)
        )
        tenant = tenant if one.tenant else "the runs"
        since, age = _minute(one.since), _long(status.as_of - one.since)
        accepted = _until(one.accepted_until) if one.accepted_until else "-"
        reason = visible(one.reason)
        yield _row(
            ("!", tenant, reason, subject, recorded, observed, since, age, accepted),
            f"! {tenant}{f' {subject}' if one.subject else ''}: {f'{recorded} → ' if one.tenant else ''}{observed}",
            f"{reason} for {age} ({since})" + (f", accepted until {accepted}" if one.accepted_until else ""),
            "dim" if one.accepted_until else "" if one.tenant else "red",
        )


def _exceptions(status: Status) -> Iterator[Row]:
    for one in status.exceptions:
        tenant, reason, by, note = (visible(text) for text in (one.tenant, one.reason, one.created_by, one.note))
        until = _until(one.expires_at)
        if one.expired:
            until += f", expired {_long(status.as_of - one.expires_at)} ago"
        yield _row(
            (tenant, reason, until, by, note),
            f"{tenant}: {reason}, until {until}",
            f"{by}: {note}",
            "red" if one.expired else "",
        )


def _closed_months(status: Status) -> Iterator[Row]:
    for one in status.closed_months:
        whom = "everybody" if one.is_for_everybody else "some"
        changed = f"{one.not_taken_in_chf:+} of {plural(one.tenants_changed, 'tenant')}" if one.tenants_changed else "-"
        month, total, at = f"{one.month:%Y-%m}", str(one.total_chf), _minute(one.closed_at)
        yield _row(
            (month, str(one.closings), whom, total, f"{one.vat_rate} %", at, changed),
            f"{month}: CHF {total} in {plural(one.closings, 'closing')} for {whom}",
            f"closed {at}, not taken in: {changed}",
            "yellow" if one.tenants_changed else "",
        )


def _taken_back(status: Status) -> Iterator[Row]:
    for one in status.taken_back:
        tenant, reason, skill = visible(one.tenant), visible(one.reason), visible(one.subject or "-")
        written, again = _minute(one.written_at), _minute(one.taken_back_at) if one.taken_back_at else "by no run"
        now = "-" if one.taken_back_at else visible(one.difference or "-")
        yield _row(
            (str(one.id), tenant, reason, skill, written, again, now),
            f"{one.id} {tenant}{f' {skill}' if one.subject else ''}: {reason}",
            f"written again {again}" if one.taken_back_at else now,
            "" if one.taken_back_at else "yellow",
        )


def _decisions(status: Status) -> Iterator[Row]:
    for one in status.decisions:
        number, tenant, what = str(one.number), visible(one.tenant), visible(_said(one))
        since, until = _minute(one.from_at), _minute(one.until_at) if one.until_at else "on"
        by, at, note = visible(one.by), _minute(one.decided_at), visible(one.note)
        became = [f"upheld by {plural(one.upheld, 'row')}"] if one.upheld else []
        became += [f"taken back by {one.taken_back}"] if one.taken_back else []
        time = since if one.until_at == one.from_at else f"{since} {'to ' if one.until_at else ''}{until}"
        yield _row(
            (number, tenant, what, since, until, by, at, note, ", ".join(became) or "stands"),
            f"{number} {tenant}: {what}, {time}",
            f"{by} at {at}: {note}" + (f"; {', '.join(became)}" if became else ""),
            "dim" if one.taken_back else "",
        )


def _said(one: Decided) -> str:
    """Return what was decided in a few words."""
    if one.reason == Reason.RETRACTED:
        return f"takes back {one.said}"
    return f"{one.subject} {one.said}" if one.subject else one.said


def _owed(status: Status) -> Iterator[Row]:
    for one in status.owed:
        recipient, since, age = visible(one.recipient), _minute(one.since), _long(status.as_of - one.since)
        yield _row(
            (recipient, str(one.run_id), since, age),
            f"{recipient}, for {age} ({since})",
            f"what run {one.run_id} corrected",
            "yellow",
        )


def _chart(corrections: tuple[Corrected, ...]) -> Iterator[Text]:
    """Yield the lines of a chart: a bar for each day, each step of which doubles the corrections."""
    total = sum(one.corrections for one in corrections)
    if not total:
        yield Text(f"none in the last {len(corrections)} days")
        return
    most = max(corrections, key=lambda one: one.corrections)
    yield Text(" ".join(BARS[min(one.corrections.bit_length(), len(BARS) - 1)] for one in corrections))
    yield Text("".join(f"{one.day:%m-%d}".ljust(14) for one in corrections[::7]).rstrip())
    yield Text(f"{total} in {len(corrections)} days; most on {most.day}: {most.corrections}")
    yield Text("  ".join(f"{bar} ≥{2**step}" for step, bar in enumerate(BARS[1:])))


def _runs(status: Status) -> Iterator[Text]:
    """Yield a line for each run, and below it what stopped it: once for runs in a row that the same thing stopped."""
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
            "  what had changed" if run.compared == "changed" else "",
        )
        if run.error and run.error != newer:
            yield Text(f"    {_line(run.error)}")
        newer = run.error


def _line(text: str) -> str:
    """Return text in one line, escaped."""
    return visible(" ".join(text.split()))


def _minute(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M}"


def _until(at: datetime) -> str:
    """Return when an acceptance ends: its last UTC day if it ends at midnight."""
    at = at.astimezone(UTC)
    return f"{at - timedelta(days=1):%Y-%m-%d}" if at.time() == time() else _minute(at)


def _long(duration: timedelta) -> str:
    """Return about how long it is."""
    seconds = max(0, int(duration.total_seconds()))
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
