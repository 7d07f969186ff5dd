"""Findings in plain text: the tenant, the time and the impact, safe to print whatever the names hold."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from reconciler.core.model import Action, Result
from reconciler.core.reasons import RUNBOOK
from reconciler.views.terminal import visible

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from reconciler.core.model import Finding, Outcome

MAX_NAME = 100
"""Characters of one name or state that are shown."""

STOP_HEADLINES = {Result.BLOCKED: "the run was refused", Result.FAILED: "the run failed"}
"""How the headline of a run that was refused or failed begins."""


def one_line(text: str, limit: int = MAX_NAME) -> str:
    """Return text on one line of at most `limit` characters, with control characters made visible."""
    return shortened(visible(text), limit)


def shortened(text: str, limit: int) -> str:
    """Return text cut to `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def paragraph(headline: str, findings: Sequence[Finding], limit: int, *, advice: bool = True) -> str:
    """Return the paragraph about all findings of one reason: `limit` of them described, the rest counted.

    The advice says what the reason means and what to do.
    """
    meaning, remedy = RUNBOOK[findings[0].reason]
    lines = [f"- {describe(finding)}" for finding in findings[:limit]]
    if limit and len(findings) > limit:
        lines.append(f"- and {len(findings) - limit} more")
    if advice:
        lines = [meaning, *lines, f"To do: {remedy}"]
    return "\n".join([headline, *lines])


def owed_lines(outcome: Outcome, findings: Collection[Finding]) -> list[str]:
    """Return a line for each earlier run of whose corrections some are among these findings."""
    counted = [(run.run_id, sum(finding in findings for finding in run.findings)) for run in outcome.owed]
    return [
        f"{count} of these {'is' if count == 1 else 'are'} of the earlier run {run_id}, of which nobody was notified."
        for run_id, count in counted
        if count
    ]


def describe(finding: Finding) -> str:
    """Return a finding in one line: tenant, skill, states, time and impact."""
    parts = [f"{one_line(finding.tenant)} (org {one_line(finding.org)})"]
    if finding.subject is not None:
        parts.append(one_line(finding.subject))
    if finding.action is Action.REPORT and (finding.recorded or finding.observed):
        states = (one_line(state) if state is not None else "-" for state in (finding.recorded, finding.observed))
        parts.append(" → ".join(states))
    if finding.moment:
        parts.append(f"at {finding.moment.occurred_at:%Y-%m-%d %H:%M:%S} UTC")
    parts.extend(impact_texts([finding]))
    if finding.closed_period:
        parts.append("closed period")
    return ", ".join(parts)


def impact_texts(findings: Iterable[Finding]) -> list[str]:
    """Return the impact of findings: what was not invoiced, then what was overcharged; empty if nothing is priced.

    Amounts are in CHF before VAT, each with its range where the times are uncertain.
    """
    priced = [(f.impact_chf, *(f.impact_range or (f.impact_chf,) * 2)) for f in findings if f.impact_chf is not None]
    lost = [(impact, low, high) for impact, low, high in priced if (impact or low + high) > 0]
    overcharged = [(-impact, -high, -low) for impact, low, high in priced if (impact or low + high) < 0]
    sums = [
        f"{_sum_text(amounts)} {what}"
        for amounts, what in ((lost, "not invoiced"), (overcharged, "overcharged"))
        if amounts
    ]
    return sums or ["CHF 0.00"] * bool(priced)


def _sum_text(amounts: list[tuple[Decimal, Decimal, Decimal]]) -> str:
    impact, low, high = (sum(column, Decimal()) for column in zip(*amounts, strict=True))
    return f"CHF {impact:.2f}" + ("" if low == high else f" (between {low:.2f} and {high:.2f})")
