"""What people and programs read about a run: the table, and the JSON document."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from reconciler.core.model import Action, Mode, Moment, Result, Table
from reconciler.views import json_in_parts, terminal
from reconciler.views.terminal import Row, plural, print_table, visible

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from rich.console import Console
    from rich.text import Text

    from reconciler.core.model import Finding, Outcome

MAX_ROWS = 500
"""Findings that the table shows; the rest are counted."""
KEYS = ("reason", "tenant", "org", "subject", "action", "recorded", "observed")
"""What the JSON document and the log say first of a finding."""

SIGNS = {
    Action.INSERT: ("+", "green"),
    Action.APPEND: ("+", "green"),
    Action.STAMP: ("-", "red"),
    Action.UPDATE: ("~", "yellow"),
    Action.REPORT: ("!", "magenta"),
    Action.DEFER: ("?", "cyan"),
}
"""What stands before a finding, and its colour."""
UNWRITTEN = {Action.REPORT: "to look at", Action.DEFER: "deferred"}


def counts(outcome: Outcome) -> dict[str, int]:
    """Return how many rows the run wrote, or a plan would write."""
    written = outcome.failure is None
    actions = Counter((f.table, f.action) for f in outcome.findings) if written else Counter()
    return {
        "lifecycle_inserted": actions[Table.LIFECYCLE, Action.INSERT],
        "events_inserted": actions[Table.SKILL_EVENTS, Action.APPEND],
        "suspension_events_inserted": actions[Table.SUSPENSION_EVENTS, Action.APPEND],
        "deletions_stamped": actions[Table.LIFECYCLE, Action.STAMP],
        "orgs_resolved": actions[Table.LIFECYCLE, Action.UPDATE],
    }


def document(outcome: Outcome) -> Iterator[str]:
    """Yield the outcome as one JSON document, in parts: times in RFC 3339 and UTC, CHF as text."""
    content: dict[str, Any] = {
        "run_id": outcome.run_id,
        "mode": outcome.mode,
        "outcome": outcome.result,
        "observed_at": outcome.observed_at,
        "source": outcome.source,
        "compared": outcome.compared,
        "history": outcome.history._asdict(),
        "tenants_observed": outcome.tenants_observed,
        "tenants_recorded": outcome.tenants_recorded,
        **counts(outcome),
        "impact_chf": _total(outcome),
        "findings": map(_object, outcome.findings),
    }
    if outcome.failure:
        content["error"] = {"message": str(outcome.failure), "remedy": outcome.failure.remedy}
    return json_in_parts(content)


def _total(outcome: Outcome) -> Decimal | None:
    """Return the impact of all corrections; None if the run was stopped, so that it is not known."""
    return None if outcome.failure else outcome.impact_chf or Decimal("0.00")


def _object(finding: Finding) -> dict[str, Any]:
    when = finding.moment._asdict() if finding.moment else dict.fromkeys(Moment._fields)
    if finding.interval:
        when["not_before"], when["not_after"] = finding.interval
    return {
        **{key: getattr(finding, key) for key in KEYS},
        **when,
        "closed_period": finding.closed_period,
        "impact_chf": finding.impact_chf,
    }


def printed(outcome: Outcome) -> str:
    """Return the outcome for people, as it fits standard output."""
    return terminal.printed(lambda console: show(outcome, console))


def show(outcome: Outcome, console: Console) -> None:
    """Print the outcome for people: a line for each finding, then a summary."""
    from rich.text import Text

    if outcome.findings:
        columns = ("", "TENANT", "REASON", "SKILL", "RECORDED", "OBSERVED", "WHEN (UTC)", "EVIDENCE", "CHF")
        print_table(console, columns, map(_row, outcome.findings[:MAX_ROWS]), right={"CHF"})
        if len(outcome.findings) > MAX_ROWS:
            console.print(Text(f"… and {len(outcome.findings) - MAX_ROWS} more; --output json shows all"))
        console.print()
    console.print(Text(summary(outcome)))


def _row(finding: Finding) -> Row:
    from rich.text import Text

    sign, colour = SIGNS[finding.action]
    cells = (
        Text(sign, style=colour),
        Text(visible(finding.tenant)),
        Text(finding.reason + _mark(finding)),
        *(Text(visible(text or "-")) for text in (finding.subject, finding.recorded, finding.observed)),
        Text(_when(finding)),
        Text(_evidence(finding)),
        Text(_impact(finding) or "-"),
    )
    return Row(cells, _stacked(finding))


def _stacked(finding: Finding) -> Text:
    """Return a finding in two lines, for a narrow terminal: identifiers are never folded."""
    from rich.text import Text

    sign, colour = SIGNS[finding.action]
    what = " ".join(visible(text) for text in (finding.tenant, finding.subject) if text)
    change = f"{visible(finding.recorded or '-')} → {visible(finding.observed or '-')}"
    proof = [f"at {_when(finding)}"] * bool(finding.moment) + [_evidence(finding)] * (_evidence(finding) != "-")
    impact = [f"CHF {_impact(finding)}"] * bool(_impact(finding))
    facts = ", ".join([finding.reason + _mark(finding), *proof, *impact])
    return Text.assemble((sign, colour), f" {what}: {change}\n    {facts}")


def summary(outcome: Outcome) -> str:
    """Return the outcome in one sentence."""
    seen = f"{plural(outcome.tenants_observed, 'tenant')} observed, {outcome.tenants_recorded} recorded as open"
    if outcome.names is not None:
        seen += f", and {len(outcome.names)} compared: what had changed"
    if outcome.failure:
        return f"{outcome.result.capitalize()}: nothing was written. {seen}."
    unwritten = Counter("accepted" if f.accepted_until else UNWRITTEN.get(f.action) for f in outcome.findings)
    aside = [f"{unwritten[what]} {what}" for what in ("to look at", "accepted", "deferred") if unwritten[what]]
    nouns = ("tenant", "skill event", "suspension event", "deletion", "organisation")
    rows = ", ".join(plural(count, noun) for count, noun in zip(counts(outcome).values(), nouns, strict=True) if count)
    if outcome.mode is Mode.PLAN:
        verb = f"Plan: would write {rows}" if rows else "Plan: nothing to write"
    else:
        verb = f"Wrote {rows}" if rows else "Nothing to write"
    if outcome.impact_chf:
        verb += f", impact CHF {_total(outcome):+}"
    if outcome.result is Result.CLEAN and not aside:
        verb += ": the ledger is true" if outcome.names is None else ": what had changed is in the ledger"
    return f"{'; '.join([verb, *aside])}. {seen}."


def _impact(finding: Finding) -> str:
    """Return the impact of a correction in CHF, with what it would be at either end of its interval."""
    between = "" if finding.impact_range is None else " ({:+}…{:+})".format(*finding.impact_range)
    if finding.impact_chf is None:
        return between.strip(" ()")
    return f"{finding.impact_chf:+}{between}"


def _mark(finding: Finding) -> str:
    if finding.accepted_until:
        return f" (accepted until {finding.accepted_until:%Y-%m-%d})"
    return " (closed period)" if finding.closed_period else ""


def _when(finding: Finding) -> str:
    return f"{finding.moment.occurred_at:%Y-%m-%d %H:%M:%S}" if finding.moment else "-"


def _evidence(finding: Finding) -> str:
    if finding.action is Action.DEFER:
        return "its row may still come" if finding.shown_by else "rechecked next time"
    if finding.interval:
        return "between {} and {}".format(*map(_short, finding.interval))
    if finding.moment is None:
        return "-"
    first, last = finding.moment.not_before, finding.moment.not_after
    return finding.moment.evidence + ("" if first == last else f", between {_short(first)} and {_short(last)}")


def _short(time: datetime) -> str:
    return f"{time:%m-%d %H:%M}"
