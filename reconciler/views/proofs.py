"""What proves a correction, who decided it and what became of it, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reconciler.core.model import FIRST, LAST, Evidence
from reconciler.core.reasons import Reason
from reconciler.views.terminal import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime
    from decimal import Decimal

    from reconciler.core.explanation import Correction

PROOF: Mapping[str, str] = {
    Evidence.CHANGE_LOG: "The API server's change log shows the change",
    Evidence.DECIDED: "A person said so",
    Evidence.CREATION: "The tenant was created then",
    Evidence.DELETION: "The tenant was deleted then",
    Evidence.SUSPENDED_AT: "The cluster noted the suspension then",
    Evidence.FIELD_MANAGER: "The setting was last written then",
}
"""What the evidence says about the moment."""


def details(made: Correction, *, whole: bool = False) -> Iterator[tuple[str, str]]:
    """Yield what is known of a correction, each fact under its name; `whole` if its decision is not about events."""
    meaning = summary(made.reason)
    yield "what", f"{meaning} ({made.reason})" if meaning else visible(made.reason)
    if made.is_taken_back:
        yield "ledger", _taken_back(made)
    if made.evidence:
        yield "why then", f"{_proof(made)} ({made.evidence})"
    if made.not_before and made.not_after and made.not_before < made.not_after:
        yield "between", f"{instant(made.not_before)} and {instant(made.not_after)}"
    if made.closed_period:
        yield "invoiced", "It changes a month that was closed or invoiced already: an adjustment is owed."
    if made.impact_chf is None:
        yield "impact", "not priced"
    else:
        sense = ", revenue that was being lost" if made.impact_chf > 0 else ", the customer was being overcharged"
        yield "impact", chf(made.impact_chf) + (sense if made.impact_chf else "")
    if made.impact_min_chf is not None and made.impact_max_chf is not None:
        ends = f"{chf(made.impact_min_chf)} to {chf(made.impact_max_chf)}"
        yield "range", f"{ends}, by when in the interval it happened"
    if made.by is not None:
        yield "decided", f"by {visible(made.by)} (role {visible(made.role or '')}): {visible(made.note or '')}"
    if made.ledger_number is not None:
        yield "number", f"{made.ledger_number}{_remedy(made, whole=whole)}"
    yield (
        "found" if made.run_id else "written",
        f"{instant(made.run_at)}{f' by run {made.run_id}' if made.run_id else ''}",
    )


def _remedy(made: Correction, *, whole: bool) -> str:
    """Say how it is taken back, if it can be."""
    takes_back = made.reason in {Reason.RETRACTED, Reason.CORRECTION_SUPERSEDED}
    if whole or made.event_id is None or takes_back or made.taken_back_at:
        return ""
    return f"; `reconciler retract {made.ledger_number}` takes it back"


def _taken_back(made: Correction) -> str:
    """Say what the ledger shows in its place, and what became of it."""
    now = f": {visible(made.difference)}" if made.difference else ""
    if at := made.taken_back_at:
        return f"Taken back by an unknown hand{now}. At {instant(at)} a run noticed, and wrote the correction again."
    return f"Taken back by an unknown hand{now}. No run has written the correction again."


def summary(reason: str) -> str | None:
    """Return what a reason means; None for one that a later version recorded."""
    return Reason(reason).summary if reason in set(Reason) else None


def _proof(made: Correction) -> str:
    """Say why that moment was chosen."""
    if made.evidence == Evidence.CREATION and made.not_before != made.not_after:
        return "Nothing was recorded of it before, so it counts from the creation on"
    if made.opposes_a_row:
        return "No change in the change log explains the portal's row, so it is answered at its own moment"
    if made.evidence != Evidence.NONE:
        return PROOF.get(made.evidence or "", "According to the evidence")
    if made.reason == Reason.CORRECTION_SUPERSEDED:
        return "It stands at the moment of the correction that it takes back"
    end = {made.not_before: "earliest", made.not_after: "latest"}.get(made.occurred_at)
    return f"Nothing proves the moment{f', and the {end} possible one was taken' if end else ''}"


def instant(at: datetime) -> str:
    """Return an instant in UTC, to the second."""
    if FIRST < at < LAST:
        return f"{at:%Y-%m-%d %H:%M:%S}"
    return "at the end of time" if at == LAST else "at the beginning of time"


def chf(amount: Decimal) -> str:
    """Return an amount with its sign."""
    return f"{amount:+.2f} CHF" if amount else "0.00 CHF"
