"""The structured log: it shows every drift, whatever other sinks are set up."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, ClassVar

import structlog

from reconciler.views.findings import KEYS

if TYPE_CHECKING:
    from reconciler.core.model import Finding, Outcome

MAX_LINES = 100
"""Findings that get a line each; the rest are counted by reason."""
UNNOTIFIED = "an earlier run wrote them, and nobody was notified; they follow"

_log = structlog.get_logger(__name__)


class Log:
    """A sink that logs one line for each finding."""

    name: ClassVar[str] = "log"
    deduplicates: ClassVar[bool] = True

    def notify(self, outcome: Outcome) -> None:
        """Log corrections and reports. The caller of the run logs why a run was refused or failed."""
        for run in outcome.owed:
            _log.warning("corrections.owed", run_id=str(run.run_id), corrections=len(run.findings), meaning=UNNOTIFIED)
        drift = [finding for finding in outcome.news if finding.is_drift]
        for finding in drift[:MAX_LINES]:
            _log.warning("drift.corrected" if finding.action.writes else "drift.reported", **_facts(outcome, finding))
        for reason, more in sorted(Counter(finding.reason for finding in drift[MAX_LINES:]).items()):
            _log.warning("drift.more", run_id=str(outcome.run_id), reason=reason, findings=more)


def _facts(outcome: Outcome, finding: Finding) -> dict[str, object]:
    facts: dict[str, object] = {"run_id": str(outcome.run_id)} | {key: getattr(finding, key) for key in KEYS}
    if moment := finding.moment:
        facts |= {
            "occurred_at": moment.occurred_at.isoformat(),
            "evidence": moment.evidence,
            "closed_period": finding.closed_period,
            "impact_chf": None if finding.impact_chf is None else str(finding.impact_chf),
        }
    return facts
