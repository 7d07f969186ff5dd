"""Who is told of a pass: one sink a file, all taking the same frozen outcome.

Telling comes after everything is written, and changes nothing of it: each sink is called alone, in a thread of its own
and for a bounded time, and one that fails is logged.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from reconciler.model import Action, Outcome, Report

if TYPE_CHECKING:
    from reconciler.model import Finding

TELLING = 15.0
"""Seconds that a sink may take, its retries included."""


class Undelivered(Exception):  # noqa: N818 - it names what happened to the message
    """A receiver could not be told. The message says why, and holds no secret."""


class Sink(Protocol):
    """Where people or programs hear of passes."""

    @property
    def name(self) -> str:
        """What the log, the metrics and `reconciler.reports` call it."""

    @property
    def remembers(self) -> bool:
        """Whether the receiver itself tells what is new: then it is given every outcome, whole.

        Any other is given only what is news to it, see `news`, and is not called where nothing is.
        """

    def tell(self, outcome: Outcome) -> None:
        """Deliver the outcome of a pass.

        Raises:
            Undelivered: it could not be.
        """


def news(outcome: Outcome, sink: str) -> Outcome | None:
    """Return the part of an outcome that is news to a sink, or None where nothing is.

    News are all corrections, and the reports that the sink was not told of: not in this form, or not for a day. What is
    deferred or accepted never is. A pass that was stopped is a report of its own.
    """
    told = outcome.told.get(sink, frozenset())
    if outcome.failure:
        return None if stopped(outcome) in told else replace(outcome, findings=())
    findings = tuple(f for f in outcome.findings if f.is_drift and (f.action.writes or report(f) not in told))
    return replace(outcome, findings=findings) if findings else None


def report(finding: Finding) -> Report | None:
    """Return what a finding is remembered by, where it is a report."""
    return Report(finding.tenant, finding.reason, finding.subject or "") if finding.action is Action.REPORT else None


def stopped(outcome: Outcome) -> Report:
    """Return what a pass that was stopped is remembered by."""
    return Report("", outcome.result)
