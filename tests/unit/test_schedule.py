"""Runs on a schedule: when they take place, that they do so one at a time, and what ends them."""

from __future__ import annotations

import re
import threading
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from prometheus_client import CollectorRegistry, Gauge
from structlog.testing import capture_logs

from reconciler.cli.options import address
from reconciler.cli.schedule import Trigger, longest_wait, make_trigger
from reconciler.cli.service import CannotListen, Service
from reconciler.core.errors import Failure
from reconciler.core.model import Mode, Outcome, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from structlog.typing import EventDict

MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
TICK = timedelta(milliseconds=50)
CLEAN = Outcome(run_id=uuid4(), mode=Mode.RUN, result=Result.CLEAN)
FAILED = Outcome(run_id=uuid4(), mode=Mode.RUN, result=Result.FAILED, failure=Failure("no"))


def cron(expression: str, zone: str = "UTC") -> Trigger:
    return make_trigger(every=TICK, cron=expression, timezone=ZoneInfo(zone), jitter=timedelta())


def weekdays(expression: str) -> list[str]:
    """Return the days of the week, Monday first, that have a tick."""
    days, tick = [], cron(f"0 9 * * {expression}").get_next_fire_time(None, MONDAY)
    while tick and tick < MONDAY + timedelta(days=7):
        days.append(f"{tick:%a}")
        tick = cron(f"0 9 * * {expression}").get_next_fire_time(tick, tick)
    return days


@pytest.mark.parametrize(
    ("expression", "days"),
    [
        ("0", "Sun"),
        ("7", "Sun"),
        ("1", "Mon"),
        ("1-5", "Mon Tue Wed Thu Fri"),
        ("5-7", "Fri Sat Sun"),
        ("0,6", "Sat Sun"),
        ("*/2", "Tue Thu Sat Sun"),
        ("1/2", "Mon Wed Fri"),
        ("mon-wed", "Mon Tue Wed"),
        ("SUN", "Sun"),
        ("*", "Mon Tue Wed Thu Fri Sat Sun"),
    ],
)
def test_days_of_the_week_are_those_of_crontab(expression: str, days: str) -> None:
    assert weekdays(expression) == days.split()


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("", "it has 0 of the five fields"),
        ("* * * *", "it has 4 of the five fields"),
        ("* * * * * *", "it has 6 of the five fields"),
        ("61 * * * *", "61"),
        ("* * * * 8", "'8' is not a day of the week"),
        ("* * * * */0", "'*/0' is not a day of the week"),
        ("* * * * fri-mon", "'fri-mon' is not a day of the week"),
        ("* * * * someday", "'someday' is not a day of the week"),
        ("0 0 1 * 1", "both a day of the month and a day of the week"),
        ("0 0 31 2 *", "no time that comes again"),
        ("noon", "it has 1 of the five fields"),
    ],
)
def test_an_invalid_schedule_is_refused_with_its_fault(expression: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        longest_wait(cron(expression), MONDAY)


def test_a_cron_expression_is_in_its_time_zone() -> None:
    """Nine in Zurich is eight in winter and seven in summer."""
    nine = cron("0 9 * * *", "Europe/Zurich")
    for now, hour in ((MONDAY, 8), (MONDAY.replace(month=7), 7)):
        tick = nine.get_next_fire_time(None, now)
        assert tick is not None
        assert tick.astimezone(UTC).hour == hour


def test_the_period_of_a_cron_expression_is_its_longest_wait() -> None:
    """Office hours on working days: from Friday evening to Monday morning."""
    assert longest_wait(cron("0 8-17 * * 1-5"), MONDAY) == timedelta(hours=63)


def test_the_period_of_an_interval_is_the_interval() -> None:
    every = make_trigger(every=timedelta(minutes=5), cron=None, timezone=UTC, jitter=timedelta())
    assert longest_wait(every, MONDAY) == timedelta(minutes=5)


@dataclass
class FakeRuns:
    """Runs that take a while, and how many took place at once."""

    lasting: float = 0.0
    outcome: Outcome | None = CLEAN
    begun: int = 0
    ended: int = 0
    at_once: int = 0
    began: threading.Event = field(default_factory=threading.Event)

    def run_once(self) -> Outcome:
        self.begun += 1
        self.at_once = max(self.at_once, self.begun - self.ended)
        self.began.set()
        time.sleep(self.lasting)
        self.ended += 1
        if self.outcome is None:
            raise ZeroDivisionError
        return self.outcome


def service(run_once: Callable[[], Outcome], now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Service:
    registry = CollectorRegistry()
    Gauge("answer", "What is shown.", registry=registry).set(42)
    when = make_trigger(every=TICK, cron=None, timezone=UTC, jitter=timedelta())
    return Service(run_once=run_once, trigger=when, period=TICK, metrics=registry, now=now)


@contextmanager
def serving(running: Service, host: str = "127.0.0.1") -> Iterator[tuple[str, list[EventDict]]]:
    """Run the service; stop it, and wait for its end, at the end of the block."""
    stop = threading.Event()
    with capture_logs() as logged:
        thread = threading.Thread(target=running.run, args=(host, 0, stop.wait))
        thread.start()
        try:
            until(lambda: any(line["event"] == "serve.started" for line in logged))
            # the first run may have logged something before
            started = next(line for line in logged if line["event"] == "serve.started")
            yield f"http://{started['listening']}", logged
        finally:
            stop.set()
            thread.join(60)
            assert not thread.is_alive()


def until(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < ends, "the condition was never met"
        time.sleep(0.01)


def test_runs_repeat() -> None:
    runs = FakeRuns()
    with serving(service(runs.run_once)):
        until(lambda: runs.ended >= 3)


def test_one_run_takes_place_at_a_time_and_skipped_ones_are_logged() -> None:
    runs = FakeRuns(lasting=0.3)
    with serving(service(runs.run_once)) as (_, logged):
        until(lambda: any(line["event"] == "run.skipped" for line in logged))
        until(lambda: runs.ended >= 2)
    assert runs.at_once == 1


def test_the_service_stops_after_the_run_in_progress() -> None:
    runs = FakeRuns(lasting=0.5)
    with serving(service(runs.run_once)):
        runs.began.wait(60)
    assert runs.ended == runs.begun >= 1


def test_a_crashed_run_is_logged_and_the_next_one_follows() -> None:
    runs = FakeRuns(outcome=None)
    with serving(service(runs.run_once)) as (_, logged):
        until(lambda: any(line["event"] == "run.crashed" for line in logged))
        crashed = runs.begun
        until(lambda: runs.begun > crashed)


def fetch(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 - of our own server
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_metrics_are_served() -> None:
    with serving(service(FakeRuns().run_once)) as (url, _):
        status, body = fetch(f"{url}/metrics")
    assert (status, "answer 42.0" in body) == (200, True)


def test_a_query_for_single_metrics_is_answered() -> None:
    with serving(service(FakeRuns().run_once)) as (url, _):
        assert fetch(f"{url}/metrics?name[]=process_open_fds")[0] == 200


def test_the_process_is_measured_too() -> None:
    with serving(service(FakeRuns().run_once)) as (url, _):
        assert "process_resident_memory_bytes" in fetch(f"{url}/metrics")[1]


def test_an_unknown_path_names_the_known_ones() -> None:
    with serving(service(FakeRuns().run_once)) as (url, _):
        assert fetch(f"{url}/") == (404, "there are /metrics and /healthz\n")


@pytest.mark.parametrize(
    ("outcome", "status"), [(CLEAN, 200), (FAILED, 503), (None, 503)], ids=["clean", "failed", "crashed"]
)
def test_health_is_lost_three_periods_after_the_last_success(outcome: Outcome | None, status: int) -> None:
    runs = FakeRuns(outcome=outcome)
    with serving(service(runs.run_once)) as (url, _):
        time.sleep(3 * TICK.total_seconds() + 0.1)
        until(lambda: fetch(f"{url}/healthz")[0] == status)


@pytest.mark.parametrize(("periods", "healthy"), [(0, True), (3, True), (3.1, False)])
def test_before_the_first_success_health_counts_from_the_start(periods: float, *, healthy: bool) -> None:
    now = [MONDAY]
    asleep = service(FakeRuns().run_once, now=lambda: now[0])
    asleep.starts_at_once = False
    asleep.run("127.0.0.1", 0, bool)
    now[0] += periods * TICK
    assert asleep.health()[0] is (HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE)


def test_an_address_in_use_is_reported_with_its_remedy() -> None:
    with serving(service(FakeRuns().run_once)) as (url, _):
        port = int(url.rpartition(":")[2])
        with pytest.raises(CannotListen) as failed:
            service(FakeRuns().run_once).run("127.0.0.1", port, bool)
    assert f"127.0.0.1:{port}" in str(failed.value)
    assert "--listen" in failed.value.remedy


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        pytest.param("::1", "[::1]", id="IPv6 - in brackets"),
        pytest.param("localhost", "localhost", id="a name - as it is"),
        pytest.param("", "0.0.0.0", id="none - every address of IPv4"),  # noqa: S104 - what it means
    ],
)
def test_every_form_of_an_address_is_listened_on(host: str, shown: str) -> None:
    with serving(service(FakeRuns().run_once), host) as (url, _):
        assert url.startswith(f"http://{shown}:")
        assert fetch(f"{url}/metrics")[0] == 200


@pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 70, "192.0.2.1"])
def test_an_address_of_another_machine_is_refused(host: str) -> None:
    with pytest.raises(CannotListen, match=f"Cannot listen on {host}:0"):
        service(FakeRuns().run_once).run(host, 0, bool)


@pytest.mark.parametrize(
    ("given", "parsed"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        (":8080", ("", 8080)),
        ("[::]:8080", ("::", 8080)),
        ("[::1]:0", ("::1", 0)),
        ("[fe80::1%eth0]:80", ("fe80::1%eth0", 80)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_an_address_is_parsed(given: str, parsed: tuple[str, int]) -> None:
    assert address(given) == parsed


@pytest.mark.parametrize(
    "given",
    [
        *("", ":", "8080", "localhost", "localhost:", "localhost:http", "localhost:65536", "localhost:-1", "a b:80"),
        *("::1:8080", "::1", "[::1]", "[::1:8080", "[localhost]:8080", "[]:8080", "http://localhost:80", "host:٨٠"),
    ],
)
def test_what_is_no_address_is_named(given: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(given))):
        address(given)


def test_a_crashing_page_is_answered_without_a_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    def crash() -> Outcome:
        return CLEAN

    broken = service(crash)
    broken._show_metrics = lambda *_: 1 / 0  # type: ignore[assignment] # noqa: SLF001 - no other crashes
    with serving(broken) as (url, _):
        assert fetch(f"{url}/metrics")[0] == 500
    assert "Traceback" not in capfd.readouterr().err
