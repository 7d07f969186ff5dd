"""Who is told of a pass: one sink a file, all taking the same frozen outcome.

Telling comes after everything is written, and changes nothing of it: each sink is called alone, in a thread of its own
and for a bounded time, and one that fails is logged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

import structlog

from reconciler.core.model import Action, Outcome, Report
from reconciler.deadline import Deadline, DeadlineExceeded

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from reconciler.core.model import Finding

BEGINNING = 3.0
"""Seconds that a pass waits for it to be known that it begins."""
TELLING = 15.0
"""Seconds that a sink may take, its retries included."""


_log = structlog.get_logger(__name__)


class Undelivered(Exception):  # noqa: N818 - it names what happened to the message
    """A receiver could not be told. The message says why, and holds no secret."""


class Sink(Protocol):
    """Where people or programs hear of passes."""

    @property
    def name(self) -> str:
        """What the log, the metrics and `reconciler.reports` call it."""

    @property
    def deduplicates(self) -> bool:
        """Whether the receiver itself tells what is new: then it is given every outcome, whole.

        Any other is given only what is news to it, see `news`, and is not called where nothing is.
        """

    def tell(self, outcome: Outcome) -> None:
        """Deliver the outcome of a pass.

        Raises:
            Undelivered: it could not be.
        """


class HeartbeatSink(Sink, Protocol):
    """A sink that also wants to know when a pass begins."""

    def begin(self, run_id: UUID) -> None:
        """Say that a pass begins.

        Raises:
            Undelivered: it could not be said.
        """


@dataclass(frozen=True, kw_only=True)
class Alerts:
    """Everybody who is told of passes.

    Attributes:
        sinks: those who are told how a pass ended.
        heartbeat: who is told, too, that one begins.
        undelivered: is called with the name of each sink that could not be told.
    """

    sinks: tuple[Sink, ...] = ()
    heartbeat: HeartbeatSink | None = None
    undelivered: Callable[[str], object] | None = None

    @property
    def all_sinks(self) -> tuple[Sink, ...]:
        """Who is told how a pass ended."""
        return (*self.sinks, self.heartbeat) if self.heartbeat else self.sinks

    def begin(self, run_id: UUID) -> None:
        """Say that a pass begins. Nothing that goes wrong here stops it."""
        if heartbeat := self.heartbeat:
            self._delivered(heartbeat, Deadline.after(BEGINNING).start(partial(heartbeat.begin, run_id)))

    def tell(self, outcome: Outcome) -> dict[str, tuple[Report, ...]]:
        """Tell all of them at once, each as much as it wants to know. Nothing that goes wrong here changes the outcome.

        Returns:
            The reports that were told as news, by the name of the sink.
        """
        deadline = Deadline.after(TELLING)
        messages = [(sink, outcome if sink.deduplicates else news(outcome, sink.name)) for sink in self.all_sinks]
        calls = [(sink, message, deadline.start(partial(sink.tell, message))) for sink, message in messages if message]
        told = [(sink, message) for sink, message, delivery in calls if self._delivered(sink, delivery)]
        return {
            sink.name: reports for sink, message in told if not sink.deduplicates and (reports := _reports(message))
        }

    def _delivered(self, sink: Sink, delivery: Callable[[], None]) -> bool:
        try:
            delivery()
        except Undelivered as error:
            _log.warning("alert.undelivered", sink=sink.name, error=str(error))
        except DeadlineExceeded as error:
            _log.warning("alert.undelivered", sink=sink.name, error=f"no answer within {error.seconds:g} s")
        except Exception:  # noqa: BLE001 - whatever is wrong with a receiver or its library, the pass stands
            _log.exception("alert.crashed", sink=sink.name)
        else:
            return True
        if self.undelivered:
            self.undelivered(sink.name)
        return False


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


def _reports(message: Outcome) -> tuple[Report, ...]:
    """Return what a message reported, to be remembered."""
    if message.failure:
        return (stopped(message),)
    return tuple(known for finding in message.findings if (known := report(finding)))


def report(finding: Finding) -> Report | None:
    """Return what a finding is remembered by, where it is a report."""
    return Report(finding.tenant, finding.reason, finding.subject or "") if finding.action is Action.REPORT else None


def stopped(outcome: Outcome) -> Report:
    """Return what a pass that was stopped is remembered by."""
    return Report("", outcome.result)
