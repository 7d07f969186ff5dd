"""`serve`: a pass on a schedule, one at a time, until it is told to stop.

APScheduler decides when. A pass that starts late is still made, and several that were missed become one: each sees the
whole truth, so nothing is lost by it.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol
from wsgiref.simple_server import WSGIRequestHandler, make_server

import structlog
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger
from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from reconciler.core.errors import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime, timedelta, tzinfo
    from wsgiref.types import StartResponse, WSGIEnvironment

    from apscheduler.events import JobEvent, JobExecutionEvent
    from prometheus_client.registry import Collector

    from reconciler.core.model import Outcome

UNHEALTHY_AFTER = 3
"""Periods without a success."""
LOOKED_AHEAD = 100
"""Ticks of a cron expression among which the longest wait is its period."""

WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")

_log = structlog.get_logger(__name__)


class CannotListen(Failure):
    """The address for metrics and health cannot be had."""


class Trigger(Protocol):
    """When passes are made."""

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """Return when the next pass is due."""


def trigger(*, every: timedelta, cron: str | None, timezone: tzinfo, jitter: timedelta) -> Trigger:
    """Return when passes are made.

    Args:
        every: the time from one pass to the next; a cron expression takes its place.
        cron: five fields, as in crontab.
        timezone: what the cron expression is in.
        jitter: a pass is late by a random time of at most this.

    Raises:
        ValueError: the cron expression is none, or has no tick.
    """
    late: dict[str, Any] = {"timezone": timezone, "jitter": jitter.total_seconds() or None}
    chosen: Trigger
    if cron is None:
        chosen = IntervalTrigger(seconds=every.total_seconds(), **late)
        return chosen
    minute, hour, day, month, day_of_week = cron.split()
    if day != "*" and day_of_week != "*":
        # crontab takes either, APScheduler both: nobody should have to know
        raise ValueError("it names both a day of the month and a day of the week")
    # APScheduler counts the days of the week from Monday
    chosen = CronTrigger(minute=minute, hour=hour, day=day, month=month, day_of_week=_weekdays(day_of_week), **late)
    return chosen


def period(when: Trigger, now: datetime) -> timedelta:
    """Return how long at most a trigger waits from one pass to the next.

    Args:
        when: the trigger.
        now: from when on it is looked at.

    Raises:
        ValueError: it never comes.
    """
    ticks: list[datetime] = []
    tick = when.get_next_fire_time(None, now)
    while tick is not None and len(ticks) < LOOKED_AHEAD:
        ticks.append(tick)
        tick = when.get_next_fire_time(tick, tick)
    waits = [after - before for before, after in pairwise(ticks)]
    if not waits:
        raise ValueError("it names no time that comes again")
    return max(waits)


@dataclass(kw_only=True)
class Service:
    """Passes on a schedule, and what is known of them.

    Attributes:
        make: makes one pass.
        when: the trigger.
        period: how long at most it waits.
        metrics: what `/metrics` shows.
        now: the wall clock, aware.
        at_once: whether the first pass is made before the first tick.
    """

    make: Callable[[], Outcome]
    when: Trigger
    period: timedelta
    metrics: Collector
    now: Callable[[], datetime]
    at_once: bool = True
    _healthy_at: datetime | None = field(default=None, init=False)
    _registry: CollectorRegistry = field(default_factory=CollectorRegistry, init=False)

    def __post_init__(self) -> None:
        """Show the process beside the passes."""
        self._registry.register(self.metrics)
        ProcessCollector(registry=self._registry)

    def run(self, host: str, port: int, stop: threading.Event) -> None:
        """Make passes until `stop` is set; then let the one that is being made end.

        Raises:
            CannotListen: the address cannot be had.
        """
        self._healthy_at = self.now()
        scheduler = BackgroundScheduler(timezone=self._healthy_at.tzinfo)
        scheduler.add_listener(_tell, EVENT_JOB_ERROR | EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES)
        first = {"next_run_time": self._healthy_at} if self.at_once else {}
        scheduler.add_job(self._pass, self.when, max_instances=1, coalesce=True, misfire_grace_time=None, **first)
        with _listening(host, port, self.answer) as address:
            scheduler.start()
            _log.info("serve.started", listening=address, period_seconds=self.period.total_seconds())
            stop.wait()
            _log.info("serve.stopping", meaning="the pass that is being made ends first")
            scheduler.shutdown(wait=True)
        _log.info("serve.stopped")

    def answer(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        """Answer `/metrics` and `/healthz` (https://peps.python.org/pep-3333/)."""
        match environ.get("PATH_INFO"):
            case "/metrics":
                app: Any = make_wsgi_app(self._registry)
                answer: Iterable[bytes] = app(environ, start)
                return answer
            case "/healthz":
                status, said = self.health()
            case _:
                status, said = HTTPStatus.NOT_FOUND, "there are /metrics and /healthz"
        start(f"{status.value} {status.phrase}", [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{said}\n".encode()]

    def health(self) -> tuple[HTTPStatus, str]:
        """Return whether the last success is recent enough, and since when. Until the first one, the start counts."""
        if self._healthy_at is None:
            return HTTPStatus.SERVICE_UNAVAILABLE, "not started"
        age = (self.now() - self._healthy_at).total_seconds()
        limit = UNHEALTHY_AFTER * self.period.total_seconds()
        said = f"the last success is {age:.0f} s old; more than {limit:.0f} s are unhealthy"
        return (HTTPStatus.OK if age <= limit else HTTPStatus.SERVICE_UNAVAILABLE), said

    def _pass(self) -> None:
        outcome = self.make()
        if outcome.failure is None:
            self._healthy_at = self.now()


def _tell(event: JobEvent) -> None:
    """Log what APScheduler has to say; the outcome of a pass is logged by the pass."""
    if event.code == EVENT_JOB_ERROR:
        crash: JobExecutionEvent = event
        _log.error("pass.crashed", exc_info=crash.exception, meaning="a fault in the reconciler; the next pass comes")
    elif event.code == EVENT_JOB_MAX_INSTANCES:
        _log.warning("pass.skipped", meaning="the one before is still being made; is the period too short?")
    else:
        _log.warning("pass.missed", meaning="the next one sees all that this one would have")


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Log nothing: a probe every few seconds is no news."""


@contextmanager
def _listening(host: str, port: int, app: Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]) -> Iterator[str]:
    try:
        server = make_server(host, port, app, ThreadingWSGIServer, _Quiet)
    except OSError as error:
        raise CannotListen(
            f"Cannot listen on {host}:{port} for metrics and health: {error.strerror or error}.",
            "Does another process listen there? Name another address with --listen.",
        ) from None
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
    try:
        yield f"{host}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _weekdays(field_: str) -> str:
    """Return crontab's days of the week, Sunday being 0 or 7, by the names that APScheduler knows."""
    days: set[int] = set()
    for part in field_.lower().split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        start, end = (0, 6) if first == "*" else (_weekday(first), _weekday(last or (first if not step else "6")))
        chosen = range(start, end + 1, int(step or 1))
        if not chosen or end > len(WEEKDAYS):
            raise ValueError(f"{part!r} are no days of the week")
        days.update(day % 7 for day in chosen)
    return ",".join(WEEKDAYS[day] for day in sorted(days))


def _weekday(name: str) -> int:
    return WEEKDAYS.index(name) if name in WEEKDAYS else int(name)
