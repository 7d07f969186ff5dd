"""Findings in words: whom they are about, when, and what they are worth. Plain text, whatever the names hold."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from reconciler.core.model import Action
from reconciler.views import terminal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from reconciler.core.model import Finding

LONGEST_NAME = 100
"""Characters of one name, or of one state, that are shown."""


def visible(text: str, longest: int = LONGEST_NAME) -> str:
    """Return text on one line, of at most `longest` characters, with what could steer a display made visible."""
    return shortened(terminal.visible(text), longest)


def shortened(text: str, longest: int) -> str:
    """Return text of at most `longest` characters."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def listed(findings: Collection[Finding], limit: int) -> list[str]:
    """Return a line for each of the first `limit` findings, and one that counts the rest."""
    lines = [told(finding) for finding, _ in zip(findings, range(limit), strict=False)]
    rest = len(findings) - len(lines)
    return lines + [f"and {rest} more"] * bool(rest and limit)


def told(finding: Finding) -> str:
    """Return a finding in one line: whom it is about, what was found, when that happened and what it is worth."""
    parts = [f"{visible(finding.tenant)} (org {visible(finding.org)})"]
    if finding.subject is not None:
        parts.append(visible(finding.subject))
    if finding.action is Action.REPORT and (finding.recorded or finding.observed):
        states = (visible(state) if state is not None else "-" for state in (finding.recorded, finding.observed))
        parts.append(" → ".join(states))
    if finding.moment:
        parts.append(f"at {finding.moment.occurred_at:%Y-%m-%d %H:%M:%S} UTC")
    parts.extend(worth([finding]))
    if finding.closed_period:
        parts.append("closed period")
    return ", ".join(parts)


def worth(findings: Iterable[Finding]) -> list[str]:
    """Return what findings are worth together: what was lost, and what was overcharged; empty where nothing is priced.

    Each amount in CHF, before VAT, with the range that it lies in where the moments are not certain.
    """
    priced = [(f.impact_chf, *(f.impact_range or (f.impact_chf,) * 2)) for f in findings if f.impact_chf is not None]
    lost = [(impact, low, high) for impact, low, high in priced if (impact or low + high) > 0]
    overcharged = [(-impact, -high, -low) for impact, low, high in priced if (impact or low + high) < 0]
    sums = [
        f"{_together(amounts)} {what}"
        for amounts, what in ((lost, "not invoiced"), (overcharged, "overcharged"))
        if amounts
    ]
    return sums or ["CHF 0.00"] * bool(priced)


def _together(amounts: list[tuple[Decimal, Decimal, Decimal]]) -> str:
    impact, low, high = (sum(column, Decimal()) for column in zip(*amounts, strict=True))
    return f"CHF {impact:.2f}" + ("" if low == high else f" (between {low:.2f} and {high:.2f})")
