"""`reconciler serve` as a process: it keeps the ledger true until it is stopped, whatever happens in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import IO, TYPE_CHECKING, Any
from urllib.error import HTTPError

import pytest

from tests.support.api_state import tenant
from tests.support.faults import Fault, anything, delay, status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.system import System

PATIENCE = 30.0
"""Seconds that anything may take on a busy machine."""


@dataclass
class Served:
    """A serving process, and what it has logged."""

    process: subprocess.Popen[str]
    logged: list[dict[str, Any]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def read(self, errors: IO[str]) -> None:
        for line in errors:
            self.said.append(line)
            if line.startswith("{"):
                self.logged.append(json.loads(line))

    def until(self, event: str, times: int = 1) -> dict[str, Any]:
        """Wait until this event was logged that many times, and return the last one."""
        until(lambda: len(self.of(event)) >= times)
        return self.of(event)[times - 1]

    def of(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.logged if line["event"] == event]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def fetch(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(self.url + path, timeout=PATIENCE) as answer:  # noqa: S310 - of our own server
                return answer.status, answer.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()

    @property
    def url(self) -> str:
        return f"http://{self.until('serve.started')['listening']}"


def until(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < ends, "the condition was never met"
        time.sleep(0.02)


@contextmanager
def serving(system: System, *options: str, program: tuple[str, ...] = ("-m", "reconciler")) -> Iterator[Served]:
    given = {"DATABASE_URL": system.url, "RECONCILER_KUBECONFIG": system.kubeconfig, "RECONCILER_SETTLE": "0s"}
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RECONCILER_", "KUBE", "PG"))}
    command = [sys.executable, *program, "serve", "--listen", "127.0.0.1:0", *options]
    with subprocess.Popen(command, env=clean | given, stderr=subprocess.PIPE, text=True) as process:
        served = Served(process)
        assert process.stderr
        threading.Thread(target=served.read, args=(process.stderr,), daemon=True).start()
        try:
            yield served
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()


def test_a_scheduled_run_corrects_what_the_portal_lost(system: System) -> None:
    with serving(system, "--every", "1s") as served:
        served.until("run.ended")
        system.api.create(tenant("acme", ["mail"]), at=system.now - timedelta(hours=2))
        assert served.until("drift.corrected")["tenant"] == "acme"
        assert served.stop() == 0
    assert system.ledger.execute("SELECT tenant_name FROM tenant_billing_lifecycle").fetchall() == [("acme",)]


def test_the_metrics_show_the_runs(system: System) -> None:
    system.api.create(tenant("acme", ["mail"]), at=system.now - timedelta(hours=2))
    with serving(system) as served:
        served.until("run.ended")
        code, metrics = served.fetch("/metrics")
    assert code == 200
    assert "reconciler_tenants_observed 1.0" in metrics
    assert 'reconciler_corrections_total{reason="skill_enable_unrecorded"} 1.0' in metrics
    assert 'reconciler_last_run_outcome{outcome="corrected"} 1.0' in metrics
    assert "acme" not in metrics


def test_runs_recover_after_the_api_server_was_unavailable(system: System) -> None:
    """Runs fail and are logged, the first one after that succeeds, and the service is unhealthy in between."""
    with serving(system, "--every", "1s", "--deadline", "1s") as served:
        served.until("run.ended")
        away = Fault(status(503), when=anything, times=None)
        system.api.faults.append(away)
        served.until("command.failed")
        until(lambda: served.fetch("/healthz")[0] == 503)
        system.api.faults.remove(away)
        until(lambda: served.fetch("/healthz")[0] == 200)
        assert served.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_lets_the_run_in_progress_complete(system: System, number: signal.Signals) -> None:
    system.api.create(tenant("acme"), at=system.now - timedelta(hours=2))
    system.api.faults.append(Fault(delay(1.5), when=anything, times=1))
    with serving(system) as served:
        until(lambda: bool(system.api.requests))
        assert served.stop(number) == 0
        assert served.of("run.ended")[0]["outcome"] == "corrected"
        assert [line["event"] for line in served.logged][-1] == "serve.stopped"


SIGNALLED = """
import signal, threading, time
def receive():
    while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        time.sleep(0.01)
    time.sleep(0.5)
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
threading.Thread(target=receive).start()
from reconciler.__main__ import main
main()
"""


def test_a_signal_that_another_thread_receives_stops_it(system: System) -> None:
    with serving(system, program=("-c", SIGNALLED)) as served:
        assert served.process.wait(PATIENCE) == 0


def test_a_second_signal_stops_immediately_and_writes_nothing(system: System) -> None:
    system.api.create(tenant("acme", ["mail"]), at=system.now - timedelta(hours=2))
    system.api.faults.append(Fault(delay(300), when=anything, times=1))
    with serving(system) as served:
        until(lambda: bool(system.api.requests))
        served.process.send_signal(signal.SIGTERM)
        served.until("serve.stopping")
        began = time.monotonic()
        assert served.stop() == -signal.SIGTERM
        assert time.monotonic() - began < PATIENCE
    assert system.ledger.execute("SELECT count(*) FROM tenant_billing_lifecycle").fetchone() == (0,)


def test_a_process_that_was_suspended_continues_and_misses_no_run(system: System) -> None:
    """A run that is two seconds late still takes place; several missed ones become one."""
    with serving(system, "--every", "3s") as served:
        served.until("run.ended")
        served.process.send_signal(signal.SIGSTOP)
        time.sleep(4.5)
        served.process.send_signal(signal.SIGCONT)
        served.until("run.ended", 2)
        assert served.of("run.missed") == []
        assert served.stop() == 0


def test_two_processes_over_one_ledger_write_each_correction_once(system: System) -> None:
    with serving(system, "--every", "1s") as one, serving(system, "--every", "1s") as other:
        one.until("run.ended")
        other.until("run.ended")
        for number in range(5):
            system.api.create(tenant(f"tenant-{number}", ["mail"]), at=system.now - timedelta(hours=2))
        ended = len(one.of("run.ended")), len(other.of("run.ended"))
        one.until("run.ended", ended[0] + 2)
        other.until("run.ended", ended[1] + 2)
        assert (one.stop(), other.stop()) == (0, 0)
    written = system.ledger.execute("SELECT tenant_name, count(*) FROM tenant_skill_events GROUP BY 1 ORDER BY 1")
    assert written.fetchall() == [(f"tenant-{number}", 1) for number in range(5)]


CRASHES = """
import reconciler.cli.assemble as assemble
def crash(*_, **__): raise RuntimeError("quoted")
assemble.run_once = crash
from reconciler.__main__ import main
main()
"""


def test_a_crashed_run_is_seen_in_metrics_and_health(system: System) -> None:
    with serving(system, "--every", "1s", program=("-c", CRASHES)) as served:
        served.until("command.failed", 2)
        until(lambda: served.fetch("/healthz")[0] == 503)
        assert 'reconciler_last_run_outcome{outcome="failed"} 1.0' in served.fetch("/metrics")[1]
        assert served.stop() == 0
    assert "RuntimeError" in served.of("command.failed")[0]["error"]
    assert "quoted" not in "".join(served.said)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--cron", "every five minutes"], "is not a schedule"),
        (["--every", "0s"], "--every"),
        (["--listen", "nowhere"], "--listen"),
        (["--time-zone", "Mars/Olympus"], "--time-zone"),
        (["--alertmanager", "ftp://alertmanager"], "Alertmanager"),
    ],
)
def test_wrong_settings_are_reported_immediately(system: System, options: list[str], says: str) -> None:
    with serving(system, *options) as served:
        assert served.process.wait(PATIENCE) == 64
        until(lambda: says in "".join(served.said))
        assert "Traceback" not in "".join(served.said)
