"""What people decided, in words."""

from __future__ import annotations

from datetime import UTC, time, timedelta
from typing import TYPE_CHECKING

from reconciler.core.decisions import second
from reconciler.core.model import LAST
from reconciler.views.terminal import visible

if TYPE_CHECKING:
    from datetime import datetime

    from reconciler.core.decisions import Acceptance, Reopening


def accepted(decision: Acceptance) -> str:
    """Say that a report is accepted, and when people are notified again."""
    until = decision.until.astimezone(UTC)
    whole_day = until.time() == time()
    shown = f"the end of {until - timedelta(days=1):%Y-%m-%d}" if whole_day else second(until)
    what = f"{decision.reason} of {visible(decision.tenant)}, by {visible(decision.by)}: {visible(decision.note)}"
    sentences = [
        f"Accepted until {shown}, in UTC: {what}",
        f"It was accepted until {second(decision.replaced)} UTC before." if decision.replaced else "",
        f"The report is open since {second(decision.open_since)} UTC and stays listed."
        if decision.open_since
        else "No such report is open now; a new one is listed.",
        f"People are notified of it again from {second(until)} UTC on, if it is still open.",
    ]
    return "\n".join(filter(None, sentences))


def revoked(tenant: str, reason: str, open_since: datetime | None) -> str:
    """Say that a report is no longer accepted, and when people are notified again."""
    notified = (
        f"The report is open since {second(open_since)} UTC: the next run notifies of it again."
        if open_since
        else "No such report is open now; people are notified of a new one."
    )
    return f"No longer accepted: {reason} of {visible(tenant)}\n{notified}"


def reopened(decision: Reopening) -> str:
    """Say which lifetime has begun, which one is kept, and what the next run does."""
    closed, begun = decision.closed, decision.begun
    before = f"{second(closed.created_at)} to {second(closed.deleted_at or LAST)} UTC"
    assumed = (
        ", as far as runs have proved it; give --ended if somebody knows when it ended" if decision.is_assumed else ""
    )
    return (
        f"Reopened {visible(decision.tenant)}: it is billed to {visible(begun.org)} from "
        f"{second(begun.created_at)} UTC on, when it was recreated.\n"
        f"Its lifetime before is kept: {visible(closed.org)}, {before}"
        f"{assumed}.\n"
        "The next run compares its skills and its suspension, and corrects them from then on."
    )
