"""What a run is told: what it works on, and how it goes about it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from reconciler.alerts import Alerts
from reconciler.core.model import FallbackDating, Mode
from reconciler.core.plan import Limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from reconciler.core.history import Position
    from reconciler.core.model import Source, StartLog
    from reconciler.deadline import Deadline


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a run goes about it."""

    mode: Mode = Mode.RUN
    settle: timedelta = timedelta(seconds=60)
    """How long after a change of the resource the portal may still write its row."""
    fallback: FallbackDating = FallbackDating.CUSTOMER
    full_every: timedelta = timedelta()
    """How often all tenants are compared; runs in between compare what has changed. Zero: every run compares all."""
    limits: Limits = field(default_factory=Limits)
    accept_source: bool = False
    """True if another source than the pinned one is accepted, and pinned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a run works on, and when it must end. People are notified after that, and never of a plan."""

    database_url: str = field(repr=False)
    source: Source
    options: RunOptions
    deadline: Deadline
    alerts: Alerts = field(default_factory=Alerts)
    sleep: Callable[[float], object] = time.sleep
    began: float = field(default_factory=time.monotonic)
    """In seconds of `time.monotonic`."""

    def start_log(self, position: Position | None) -> StartLog | None:
        """Return what starts to read the change log since this position; None without one."""
        since = position and position.resource_version
        return (lambda until: self.deadline.start(partial(self.source.read_log, since, until))) if since else None
