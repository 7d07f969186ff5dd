"""Runs on a schedule, one at a time, with health and metrics over HTTP, until the service is stopped.

APScheduler decides when. A late run still takes place, and several missed runs become one: each compares everything, so
nothing is lost.
"""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from io import StringIO
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler

import structlog
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED
from apscheduler.schedulers.background import BackgroundScheduler
from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from reconciler.core.errors import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime, timedelta
    from wsgiref.types import StartResponse, WSGIEnvironment

    from apscheduler.events import JobEvent, JobExecutionEvent
    from prometheus_client.registry import Collector

    from reconciler.cli.schedule import Trigger
    from reconciler.core.model import Outcome

    _App = Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]

UNHEALTHY_PERIODS = 3
"""Periods without a success after which the service is unhealthy."""

_log = structlog.get_logger(__name__)


class CannotListen(Failure):
    """The address for metrics and health is not available."""


@dataclass(kw_only=True)
class Service:
    """A process that runs on a schedule, and reports its health and metrics.

    Attributes:
        period: the longest time between two runs.
        now: the wall clock, aware.
        starts_at_once: whether the first run starts immediately, not at the first tick.
    """

    run_once: Callable[[], Outcome]
    trigger: Trigger
    period: timedelta
    metrics: Collector
    now: Callable[[], datetime]
    starts_at_once: bool = True
    _healthy_at: datetime = field(init=False)
    _show_metrics: _App = field(init=False)

    def __post_init__(self) -> None:
        """Register the metrics of the runs and of the process; before the first success, health counts from now."""
        registry = CollectorRegistry()
        registry.register(self.metrics)
        ProcessCollector(registry=registry)
        self._show_metrics = make_wsgi_app(registry)
        self._healthy_at = self.now()

    def run(self, host: str, port: int, wait: Callable[[], object]) -> None:
        """Run on schedule until `wait` returns, then let the run in progress complete.

        Raises:
            CannotListen: the address is not available.
        """
        scheduler = BackgroundScheduler(timezone=self._healthy_at.tzinfo)
        scheduler.add_listener(_log_event, EVENT_JOB_ERROR | EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES)
        first = {"next_run_time": self._healthy_at} if self.starts_at_once else {}
        scheduler.add_job(self._run, self.trigger, max_instances=1, coalesce=True, misfire_grace_time=None, **first)
        with _listening(host, port, self.answer) as address:
            scheduler.start()
            _log.info("serve.started", listening=address, period_seconds=self.period.total_seconds())
            wait()
            _log.info("serve.stopping", meaning="a run in progress is completed first")
            scheduler.shutdown(wait=True)
        _log.info("serve.stopped")

    def answer(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        """Answer `/metrics` and `/healthz` (https://peps.python.org/pep-3333/)."""
        match environ.get("PATH_INFO"):
            case "/metrics":
                return self._show_metrics(environ, start)
            case "/healthz":
                status, text = self.health()
            case _:
                status, text = HTTPStatus.NOT_FOUND, "there are /metrics and /healthz"
        start(f"{status.value} {status.phrase}", [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{text}\n".encode()]

    def health(self) -> tuple[HTTPStatus, str]:
        """Return whether the last success is recent enough, and its age."""
        age = (self.now() - self._healthy_at).total_seconds()
        limit = UNHEALTHY_PERIODS * self.period.total_seconds()
        text = f"the last success is {age:.0f} s old; more than {limit:.0f} s is unhealthy"
        return (HTTPStatus.OK if age <= limit else HTTPStatus.SERVICE_UNAVAILABLE), text

    def _run(self) -> None:
        if self.run_once().failure is None:
            self._healthy_at = self.now()


def _log_event(event: JobEvent) -> None:
    """Log what APScheduler reports; a run logs its own outcome."""
    if event.code == EVENT_JOB_ERROR:
        crash: JobExecutionEvent = event
        _log.error("run.crashed", exc_info=crash.exception, meaning="a fault in the reconciler; the next run follows")
    elif event.code == EVENT_JOB_MAX_INSTANCES:
        _log.warning("run.skipped", meaning="the previous one is still in progress; is the period too short?")
    else:
        _log.warning("run.missed", meaning="the next one will see everything that this one would have")


class _Handler(WSGIRequestHandler):
    """Answers one request, and says nothing: there is a probe every few seconds."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Log nothing."""

    def get_stderr(self) -> StringIO:
        """Return where wsgiref prints tracebacks."""
        return StringIO()


class _Server(ThreadingWSGIServer):
    """A server on an address of either family."""

    def __init__(self, family: socket.AddressFamily, address: tuple[str, int], app: _App) -> None:
        self.address_family = family
        super().__init__(address, _Handler)
        self.set_app(app)

    def handle_error(self, request: object, client_address: object) -> None:
        """Log nothing of a client that went away; its base class prints a traceback."""


@contextmanager
def _listening(host: str, port: int, app: _App) -> Iterator[str]:
    host = host or "0.0.0.0"  # noqa: S104 - what an address without a host asks for
    shown = f"[{host}]" if ":" in host else host
    try:
        server = _serve_at(host, port, app)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a name of a host"
        raise CannotListen(
            f"Cannot listen on {shown}:{port} for metrics and health: {reason}.",
            "Is it an address of this machine, and is no other process listening there? "
            "Choose another one with --listen.",
        ) from None
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
    try:
        yield f"{shown}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _serve_at(host: str, port: int, app: _App) -> _Server:
    """Return a server at the first address of the host that can be listened on."""
    failed: OSError | None = None
    for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        try:
            return _Server(family, address, app)  # type: ignore[arg-type]
        except OSError as error:
            failed = failed or error
    raise failed or OSError
