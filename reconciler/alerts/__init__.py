"""Notify people and programs of a run: one sink a file, all taking the same frozen outcome.

Notification comes after everything is written and changes nothing of it. Each sink is called in its own thread, for a
bounded time; a sink that fails is logged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

import structlog

from reconciler.core.errors import describe, trail
from reconciler.core.model import Action, Outcome, Report
from reconciler.deadline import Deadline, DeadlineExceeded

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from reconciler.core.model import Finding

BEGIN_SECONDS = 3.0
"""How long a run waits for the heartbeat to be notified of its start."""
NOTIFY_SECONDS = 15.0
"""How long a sink may take at the end of a run, retries included."""

_log = structlog.get_logger(__name__)


class Undelivered(Exception):  # noqa: N818 - it names what happened to the message
    """A receiver could not be notified. The message says why and contains no secret."""


class PartlyDelivered(Undelivered):
    """A part of a message was delivered, so that it must not be sent again."""


class Sink(Protocol):
    """A way to notify a receiver of runs."""

    @property
    def name(self) -> str:
        """Return the name used in the log, the metrics and `reconciler.reports`."""

    @property
    def deduplicates(self) -> bool:
        """True if the receiver itself recognises what it has seen before; it gets every outcome whole.

        Every other sink gets only what it has not seen, see `unseen`, and is not called if that is nothing.
        """

    def notify(self, outcome: Outcome) -> None:
        """Deliver the outcome of a run, or raise `Undelivered`."""


class HeartbeatSink(Sink, Protocol):
    """A sink that is also notified of the start of a run."""

    def begin(self, run_id: UUID) -> None:
        """Report that a run begins, or raise `Undelivered`."""


@dataclass(frozen=True, kw_only=True)
class Alerts:
    """All sinks of an installation; only the heartbeat is notified of the start of a run, too."""

    sinks: tuple[Sink, ...] = ()
    heartbeat: HeartbeatSink | None = None
    undelivered: Callable[[str], object] | None = None
    """Called with the name of each sink that failed."""

    @property
    def names(self) -> tuple[str, ...]:
        """Return the name of every sink."""
        return tuple(sink.name for sink in self.all_sinks)

    @property
    def all_sinks(self) -> tuple[Sink, ...]:
        """Return every sink that is notified of the end of a run."""
        return (*self.sinks, self.heartbeat) if self.heartbeat else self.sinks

    def begin(self, run_id: UUID) -> None:
        """Notify the heartbeat that a run begins. A failure is logged and does not stop the run."""
        if heartbeat := self.heartbeat:
            self._wait_for(heartbeat, Deadline.after(BEGIN_SECONDS).start(partial(heartbeat.begin, run_id)))

    def notify(self, outcome: Outcome) -> dict[str, tuple[Report, ...]]:
        """Notify all sinks at the same time; return those that were, by name, each with the reports to remember.

        A failure is logged and does not change the outcome.
        """
        deadline = Deadline.after(NOTIFY_SECONDS)
        messages = [(sink, _message(outcome, sink)) for sink in self.all_sinks]
        calls = [
            (sink, message, deadline.start(partial(sink.notify, message))) for sink, message in messages if message
        ]
        notified = [(sink, message) for sink, message, delivery in calls if self._wait_for(sink, delivery)]
        return {sink.name: () if sink.deduplicates else _reports(message) for sink, message in notified}

    def _wait_for(self, sink: Sink, delivery: Callable[[], None]) -> bool:
        """Return whether the message was delivered, or a part of it; log and count what was not."""
        is_delivered = False
        try:
            delivery()
        except PartlyDelivered as error:
            _log.warning("alert.undelivered", sink=sink.name, error=str(error))
            is_delivered = True
        except Undelivered as error:
            _log.warning("alert.undelivered", sink=sink.name, error=str(error))
        except DeadlineExceeded as error:
            _log.warning("alert.undelivered", sink=sink.name, error=f"no answer within {error.seconds:g} s")
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a receiver or its library, the run stands
            _log.error("alert.crashed", sink=sink.name, error=describe(error), trail=trail(error))
        else:
            return True
        if self.undelivered:
            self.undelivered(sink.name)
        return is_delivered


def _message(outcome: Outcome, sink: Sink) -> Outcome | None:
    """Return what a sink is notified of, or None if that is nothing."""
    outcome = replace(outcome, owed=tuple(run for run in outcome.owed if sink.name in run.recipients))
    return outcome if sink.deduplicates else unseen(outcome, sink.name)


def unseen(outcome: Outcome, sink: str) -> Outcome | None:
    """Return the part of an outcome that a sink has not seen, or None if there is none.

    That is every correction, also of earlier runs if it is owed, and each report that the sink was not notified of in
    this form within a day. Deferred and accepted findings never count. A run that was refused or failed is a report of
    its own.
    """
    notified = outcome.notified.get(sink, frozenset())
    if outcome.failure:
        return replace(outcome, findings=()) if outcome.owed or stop_report(outcome) not in notified else None
    findings = tuple(
        f for f in outcome.findings if f.is_drift and (f.action.writes or finding_report(f) not in notified)
    )
    return replace(outcome, findings=findings) if findings or outcome.owed else None


def _reports(message: Outcome) -> tuple[Report, ...]:
    """Return the reports in a message."""
    found = [stop_report(message)] if message.failure else map(finding_report, message.findings)
    return tuple(filter(None, found))


def finding_report(finding: Finding) -> Report | None:
    """Return the key that a finding is remembered by, or None if it is not a report."""
    return Report(finding.tenant, finding.reason, finding.subject or "") if finding.action is Action.REPORT else None


def stop_report(outcome: Outcome) -> Report:
    """Return the key that a run that was refused or failed is remembered by."""
    return Report("", outcome.result)
