"""The structured log: who reads it sees every drift, whatever else is set up."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, ClassVar

import structlog

if TYPE_CHECKING:
    from reconciler.core.model import Finding, Outcome

MOST = 100
"""Findings that are logged one by one; of the rest the number of each reason."""

_log = structlog.get_logger(__name__)


class Log:
    """A sink that logs a line a finding."""

    name: ClassVar[str] = "log"
    deduplicates: ClassVar[bool] = True

    def tell(self, outcome: Outcome) -> None:
        """Log what was corrected and what is reported. What stopped a pass is said by whoever started it."""
        drift = [finding for finding in outcome.findings if finding.is_drift] if outcome.failure is None else []
        for finding in drift[:MOST]:
            _log.warning("drift.corrected" if finding.action.writes else "drift.reported", **_facts(outcome, finding))
        for reason, more in sorted(Counter(finding.reason for finding in drift[MOST:]).items()):
            _log.warning("drift.more", run_id=str(outcome.run_id), reason=reason, findings=more)


def _facts(outcome: Outcome, finding: Finding) -> dict[str, object]:
    facts: dict[str, object] = {
        "run_id": str(outcome.run_id),
        "reason": finding.reason,
        "tenant": finding.tenant,
        "org": finding.org,
        "subject": finding.subject,
        "action": finding.action,
        "recorded": finding.recorded,
        "observed": finding.observed,
    }
    if moment := finding.moment:
        facts |= {
            "occurred_at": moment.occurred_at.isoformat(),
            "evidence": moment.evidence,
            "closed_period": finding.closed_period,
            "impact_chf": None if finding.impact_chf is None else str(finding.impact_chf),
        }
    return facts
