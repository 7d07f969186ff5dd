"""Whatever becomes of the ledger, of the connection to it or of the process itself: every correction once, or none.

Each line of the table names a fault and how a run ends that it strikes: `pytest --collect-only -q` prints it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
import stamina
from psycopg import conninfo, sql

from reconciler.core.model import Result
from reconciler.core.reasons import Reason
from reconciler.db import apply
from reconciler.db import connection as database
from reconciler.run import reconcile
from tests.simulation.boundaries import NOTIFIED, Boundaries, Died
from tests.support import canaries
from tests.support import faults as f
from tests.support.ledger_rows import all_rows
from tests.support.odd_settings import OTHERS, SETTINGS, odd_database
from tests.support.struck_runs import (
    CORRECTIONS,
    SLACK,
    START,
    TRUE_BOOKS,
    End,
    Faults,
    Scenario,
    on,
    spares,
    staged,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Psql
    from tests.support.fake_api import FakeApi

pytestmark = pytest.mark.usefixtures("lost_log")
"""What two lists prove alone."""


FAILED, NORMAL, ONE = End.FAILED, End.NORMAL, End.ONE
LOCK: Final = "SELECT pg_advisory_lock(7234897103)"
LATER: Final = "2026-03-01T09:05:00Z"
INSTANT: Final = timedelta(microseconds=1)

FAULTS = Faults()

_Came = TypeVar("_Came")


# between every two steps


def crossed(scenario: Scenario) -> list[int]:
    """Return the boundaries of a clean run that differ: before every step and after every commit, the last its own."""
    scenario.page_size = 500
    # what follows makes some hundred runs, and to notify everyone takes as long as the rest of a run
    scenario.notifies = False
    boundaries = Boundaries()
    scenario.is_true(scenario.run(boundaries=boundaries))
    steps = [
        number
        for number, where in enumerate(boundaries.passed[: boundaries.passed.index(NOTIFIED)], 1)
        if where.startswith("before") or where == "after commit"
    ]
    assert len(steps) > 30
    return steps


def striking(number: int, act: Callable[[], _Came]) -> tuple[Boundaries, list[_Came]]:
    """Return boundaries at one of which something happens, and where what came of it is kept."""
    boundaries, came = Boundaries(), list[_Came]()

    def at(_: str) -> None:
        if len(boundaries.passed) == number:
            boundaries.off = True
            came.append(act())
            boundaries.off = False

    boundaries.at = at
    return boundaries, came


def cut(scenario: Scenario) -> bool:
    """Let the server end every session of the reconciler, and say whether one was in a transaction."""
    ours = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'reconciler'"
    ended = scenario.write(f"SELECT state, pg_terminate_backend(pid) {ours}")
    while scenario.write(f"SELECT pid {ours}"):
        time.sleep(0.002)
    return "idle in transaction" in {state for state, _ in ended}


PORTAL_ROWS: Final = (
    (
        "INSERT INTO tenant_skill_events (tenant_name, zitadel_org_id, skill_id, event_kind, occurred_at) VALUES "
        "('acme', '2871', 'voice', 'enabled', '2026-02-20T10:00:00.4Z'), "
        "('beta', '2871', 'wiki', 'disabled', '2026-02-21T11:00:00.4Z'), "
        "('dana', '2871', 'mail', 'disabled', '2026-02-19Z'), "
        "('emil', '2871', 'mail', 'enabled', '2026-02-25T10:00:00.4Z')"
    ),
    (
        "INSERT INTO tenant_suspension_events (tenant_name, zitadel_org_id, event_kind, occurred_at) "
        "VALUES ('cara', '2871', 'suspended', '2026-02-22T12:00:00.4Z')"
    ),
    "UPDATE tenant_billing_lifecycle SET deleted_at = '2026-02-19Z' WHERE tenant_name = 'dana' AND deleted_at IS NULL",
    "INSERT INTO tenant_billing_lifecycle VALUES ('emil', '2871', '2026-02-25T10:00:00Z') ON CONFLICT DO NOTHING",
)
"""Every row that the portal has not written, each of them as it would."""


def portal_writes(scenario: Scenario) -> threading.Thread:
    """Let the portal's rows come; where one must wait for the run, it waits beside it."""

    def write() -> None:
        with scenario.ledger() as ledger:
            for row in PORTAL_ROWS:
                ledger.execute(row.encode())

    portal = threading.Thread(target=write)
    portal.start()
    waits = "SELECT pid FROM pg_stat_activity WHERE application_name = 'portal' AND wait_event_type = 'Lock'"
    wait_until(lambda: not portal.is_alive() or scenario.write(f"{waits} AND datname = current_database()"))
    return portal


def holds_both(scenario: Scenario) -> bool:
    """Assert that portal and reconciler together have made the ledger true, and say whether the portal did alone."""
    books = scenario.books()
    assert {row[:4] for row in books.skills} == {row[:4] for row in TRUE_BOOKS.skills}
    assert {row[:3] for row in books.suspensions} == {row[:3] for row in TRUE_BOOKS.suspensions}
    assert [row[:3] for row in books.lifecycles] == [row[:3] for row in TRUE_BOOKS.lifecycles]
    assert {row[0] for row in books.lifecycles if row[3]} == {"dana"}
    corrections = scenario.corrections()
    assert len(corrections) == len(set(corrections))
    assert set(corrections) <= CORRECTIONS
    # what stands twice was written once by each
    by_us = {(name, skill) for name, reason, skill in corrections if "skill" in reason}
    for (name, _, skill, _), rows in Counter(row[:4] for row in books.skills).items():
        assert rows <= (2 if (name, skill) in by_us else 1)
    assert len(books.suspensions) <= (2 if ("cara", "suspension_unrecorded", None) in corrections else 1)
    return not corrections


@FAULTS.case("portal's row lands between every two steps", NORMAL)
def _portal_between_steps(scenario: Scenario) -> None:
    """Up to the last look inside the writing transaction they stand alone; after it, nothing wrong comes of them."""
    alone = []
    for number in crossed(scenario):
        scenario.begin_again()
        boundaries, portals = striking(number, lambda: portal_writes(scenario))
        outcome = scenario.run(boundaries=boundaries)
        portals[0].join()
        where = f"{number}, {boundaries.passed[number - 1]}: {outcome.failure}"
        if outcome.failure:
            assert outcome.result is Result.FAILED, where
            assert scenario.corrections() == [], where
        alone.append(holds_both(scenario) and outcome.failure is None)
        scenario.stays()
        holds_both(scenario)
    assert alone == sorted(alone, reverse=True), alone
    # the statements that write are left after the last look, and the commits
    assert 5 < alone.count(False) < 36


@FAULTS.case("a second run between every two steps", NORMAL)
def _run_between_steps(scenario: Scenario) -> None:
    """Where the first holds the lock already, the second gives up; else it writes, and the first does not."""
    scenario.monkeypatch.setattr(database, "LOCK_TIMEOUT", 0.1)
    for number in crossed(scenario):
        scenario.begin_again()
        boundaries, seconds = striking(number, lambda: reconcile(scenario.attempt()))
        outcome = scenario.run(boundaries=boundaries)
        assert outcome.failure is None, outcome.failure
        assert Result.CORRECTED in {seconds[0].result, outcome.result}
        scenario.holds_the_truth(stays=False)
    scenario.stays()


@FAULTS.case("kill -9 at every statement, in this process", NORMAL)
def _died_at_every_step(scenario: Scenario) -> None:
    """One that had not committed leaves every row as it was, so that the next begins where a clean run would."""

    def die() -> None:
        raise Died

    steps = crossed(scenario)
    scenario.begin_again()
    untouched = all_rows(scenario.url)
    completed = 0
    for number in steps:
        scenario.clock.turn(START)
        with pytest.raises(Died):
            scenario.run(boundaries=striking(number, die)[0])
        if all_rows(scenario.url) == untouched:
            continue
        assert scenario.books() == TRUE_BOOKS, "a part of the run was written"
        assert scenario.run().failure is None
        scenario.holds_the_truth()
        scenario.begin_again()
        untouched = all_rows(scenario.url)
        completed += 1
    # whatever the killed runs left behind in the server, one that is not killed goes through
    assert scenario.run().failure is None
    scenario.holds_the_truth()
    assert completed > 0


@FAULTS.case("connection cut at every statement but the last", FAILED)
def _cut_at_every_step(scenario: Scenario) -> None:
    """Also right before COMMIT. Once it has been answered, the run is written; between two, the next one connects."""
    *steps, last = crossed(scenario)
    failed = 0
    for number in steps:
        scenario.begin_again()
        before = scenario.state()
        boundaries, was_open = striking(number, lambda: cut(scenario))
        outcome = scenario.run(boundaries=boundaries)
        if was_open[0]:
            scenario.has_failed(outcome, before, recorded=outcome.observed_at is not None)
            failed += 1
        else:
            assert outcome.failure is None, f"{boundaries.passed[number - 1]}: {outcome.failure}"
    assert failed > 25
    assert scenario.run().failure is None
    scenario.holds_the_truth()
    scenario.begin_again()
    scenario.is_true(scenario.run(boundaries=striking(last, lambda: cut(scenario))[0]))


@FAULTS.case("a connection open while the cluster is asked: never", NORMAL)
def _no_connection_open(scenario: Scenario) -> None:
    boundaries = Boundaries()
    asked = 0

    def at(where: str) -> None:
        nonlocal asked
        if where in {"before identity", "before list", "after list", "before get", "after get"}:
            asked += 1
            wait_until(lambda: not sessions(scenario))

    boundaries.at = at
    scenario.is_true(scenario.run(boundaries=boundaries))
    assert asked > 4


# two runs at once


@FAULTS.case("two runs at once", NORMAL)
def _two_at_once(scenario: Scenario) -> None:
    runs_at_once(scenario, scenario.url)


def runs_at_once(scenario: Scenario, url: str, number: int = 4) -> None:
    """Let several runs start together: their corrections are written once."""
    scenario.settles_at_once()
    ready = threading.Barrier(number)
    outcomes = []

    def run() -> None:
        attempt = scenario.attempt(url=url)
        ready.wait()
        outcomes.append(reconcile(attempt))

    threads = [threading.Thread(target=run) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [outcome.failure for outcome in outcomes] == [None] * number
    assert Counter(outcome.result for outcome in outcomes)[Result.CORRECTED] == 1
    scenario.holds_the_truth()


# the portal's transaction is still open


@contextmanager
def held(scenario: Scenario, *statements: str) -> Iterator[psycopg.Connection[Any]]:
    """Hold what these statements lock or write, uncommitted."""
    with scenario.ledger() as portal:
        portal.execute("BEGIN")
        for statement in statements:
            portal.execute(statement.encode())
        yield portal


@FAULTS.case("portal's row uncommitted during the check: events", NORMAL)
def _uncommitted_events(scenario: Scenario) -> None:
    with held(scenario, *PORTAL_ROWS[:2]) as portal:
        outcome = scenario.run()
        portal.execute("COMMIT")
    assert outcome.failure is None
    assert set(scenario.corrections()) == CORRECTIONS
    holds_both(scenario)
    scenario.stays()


for fault, tenant, row in (("a stamp", "dana", PORTAL_ROWS[2]), ("a new tenant", "emil", PORTAL_ROWS[3])):

    @FAULTS.case(f"portal's row uncommitted during the check: {fault}", ONE)
    def _uncommitted_lifecycle(scenario: Scenario, row: str = row, tenant: str = tenant) -> None:
        """Whether the portal then commits or rolls back, the next run is right."""
        scenario.monkeypatch.setattr(apply, "WRITE_LOCK_SECONDS", 0.2)
        for end in ("ROLLBACK", "COMMIT"):
            scenario.begin_again()
            with held(scenario, row) as portal:
                outcome = scenario.run()
                portal.execute(end.encode())
            assert outcome.failure is None
            assert set(scenario.corrections()) == {row for row in CORRECTIONS if row[0] != tenant}
            assert scenario.run().failure is None
            holds_both(scenario)
            scenario.stays()

    @FAULTS.case(f"portal's row committed while the run waits for it: {fault}", ONE)
    def _committed_meanwhile(scenario: Scenario, row: str = row, tenant: str = tenant) -> None:
        with held(scenario, row) as portal:
            commit = threading.Timer(0.5, lambda: portal.execute("COMMIT"))
            commit.start()
            outcome = scenario.run()
            commit.join()
        assert outcome.failure is None
        assert {row for row in CORRECTIONS if row[0] != tenant} <= {*scenario.corrections()}
        assert scenario.run().failure is None
        holds_both(scenario)
        scenario.stays()


# timeouts


@FAULTS.case("lock timeout", FAILED)
def _lock_timeout(scenario: Scenario) -> None:
    scenario.monkeypatch.setattr(database, "LOCK_TIMEOUT", 0.2)
    before = scenario.state()
    with held(scenario, LOCK):
        scenario.has_failed(scenario.run(), before, "lock timeout")
    scenario.is_true(scenario.run())


@FAULTS.case("lock timeout on a table", FAILED)
def _table_locked(scenario: Scenario) -> None:
    scenario.monkeypatch.setattr(database, "LOCK_TIMEOUT", 0.2)
    before = scenario.state()
    with held(scenario, "LOCK TABLE tenant_skill_events") as portal:
        outcome = scenario.run()
        portal.execute("ROLLBACK")
    scenario.has_failed(outcome, before, "lock timeout")
    scenario.is_true(scenario.run())


@FAULTS.case("a lock held beyond the deadline", FAILED)
def _locked_beyond_deadline(scenario: Scenario) -> None:
    scenario.deadline = 0.6
    scenario.settles_at_once()
    before = scenario.state()
    with held(scenario, LOCK):
        outcome = scenario.run()
    scenario.has_failed(outcome, before)
    assert scenario.took < scenario.deadline + SLACK


@FAULTS.case("the runs locked beyond the deadline", FAILED)
def _runs_locked_beyond_deadline(scenario: Scenario) -> None:
    """Not even the row that says what went wrong may hold the run up."""
    scenario.deadline = 0.6
    scenario.settles_at_once()
    scenario.monkeypatch.setattr(database, "LOCK_TIMEOUT", 60)
    before = scenario.state()
    with held(scenario, "LOCK TABLE reconciler.runs IN SHARE MODE"):
        outcome = scenario.run()
    scenario.has_failed(outcome, before, recorded=False)
    assert "run.unrecorded" in {line["event"] for line in scenario.logged}
    assert scenario.took < scenario.deadline + 2 * SLACK


@contextmanager
def slowed(scenario: Scenario, seconds: float, table: str = "tenant_skill_events", when: str = "") -> Iterator[None]:
    """Let every insert into a table take its time, or the commit after it."""
    kind = "CONSTRAINT TRIGGER slow AFTER" if when else "TRIGGER slow BEFORE"
    scenario.write(
        "CREATE FUNCTION sim.slow() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN PERFORM pg_sleep({seconds}); RETURN NEW; END $$"
    )
    scenario.write(f"CREATE {kind} INSERT ON {table} {when} FOR EACH ROW EXECUTE FUNCTION sim.slow()")
    try:
        yield
    finally:
        scenario.write("DROP FUNCTION sim.slow() CASCADE")


@FAULTS.case("statement timeout", FAILED)
def _statement_timeout(scenario: Scenario) -> None:
    scenario.monkeypatch.setattr(database, "STATEMENT_TIMEOUT", 0.3)
    before = scenario.state()
    with slowed(scenario, 60):
        outcome = scenario.run()
    scenario.has_failed(outcome, before, "statement timeout")
    assert scenario.took < SLACK


@FAULTS.case("a statement that takes longer than the deadline leaves", FAILED)
def _statement_beyond_deadline(scenario: Scenario) -> None:
    scenario.deadline = 0.6
    scenario.settles_at_once()
    before = scenario.state()
    with slowed(scenario, 60):
        outcome = scenario.run()
    scenario.has_failed(outcome, before)
    assert scenario.took < scenario.deadline + SLACK


@FAULTS.case("idle-in-transaction timeout", FAILED)
def _idle_timeout(scenario: Scenario) -> None:
    """In every transaction: what waits inside one is thrown out, and so holds up nobody."""
    boundaries = Boundaries()
    scenario.is_true(scenario.run(boundaries=boundaries))
    passed = boundaries.passed[: boundaries.passed.index(NOTIFIED)]
    commits = [number for number, where in enumerate(passed, 1) if where == "before commit"]
    assert len(commits) > 3
    scenario.monkeypatch.setattr(database, "IDLE_TIMEOUT", 0.5)
    for number in commits:
        scenario.begin_again()
        before = scenario.state()
        thrown_out = striking(
            number, lambda: wait_until(lambda: not sessions(scenario, "state = 'idle in transaction'"))
        )
        outcome = scenario.run(boundaries=thrown_out[0])
        scenario.has_failed(outcome, before, recorded=number > commits[0])


# the answer to COMMIT is lost


class Proxy:
    """Stands between the reconciler and the server, and cuts the line at the COMMIT of a writing transaction.

    Attributes:
        url: the way through it.
        before: whether the server never sees that COMMIT; else only its answer is lost.
        struck: whether it has.
    """

    def __init__(self, url: str, folder: Path, *, before: bool) -> None:
        self.before = before
        self.struck = False
        settings = conninfo.conninfo_to_dict(url)
        host, port = str(settings.get("host", "localhost")), int(settings.get("port") or 5432)
        self._upstream: Any = f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / ".s.PGSQL.5432"))
        self._listener.listen()
        self.url = conninfo.make_conninfo(url, host=str(folder), port=5432)
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        sessions = []
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if isinstance(self._upstream, str):
                    server = socket.socket(socket.AF_UNIX)
                    server.connect(self._upstream)
                else:
                    server = socket.create_connection(self._upstream)
                sessions.append(threading.Thread(target=self._serve, args=(client, server)))
                sessions[-1].start()
        for session in sessions:
            session.join()

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        lost = threading.Event()
        back = threading.Thread(target=self._answer, args=(client, server, lost))
        back.start()
        writes = False
        with suppress(OSError):
            while data := client.recv(65536):
                writes = writes or b"INSERT INTO reconciler.source" in data
                if writes and b"COMMIT" in data and b"ON COMMIT" not in data:
                    self.struck = True
                    lost.set()
                    if not self.before:
                        server.sendall(data)
                    client.shutdown(socket.SHUT_RDWR)
                    break
                server.sendall(data)
        if not lost.is_set() or self.before:
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
        else:
            with suppress(OSError):
                server.shutdown(socket.SHUT_WR)
        back.join()
        client.close()
        server.close()

    @staticmethod
    def _answer(client: socket.socket, server: socket.socket, lost: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                if not lost.is_set():
                    client.sendall(data)
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


@contextmanager
def cut_at_commit(scenario: Scenario, *, before: bool) -> Iterator[str]:
    """Yield a way to the ledger on which the line is cut at COMMIT, once."""
    with tempfile.TemporaryDirectory(prefix="proxy-", dir="/tmp") as folder:
        proxy = Proxy(scenario.url, Path(folder), before=before)
        try:
            yield proxy.url
        finally:
            proxy.close()
        assert proxy.struck


@FAULTS.case("connection cut before COMMIT", FAILED)
def _cut_before_commit(scenario: Scenario) -> None:
    before = scenario.state()
    with cut_at_commit(scenario, before=True) as url:
        outcome = scenario.run(url=url)
    scenario.has_failed(outcome, before, "lost")
    scenario.is_true(scenario.run())


@FAULTS.case("connection cut after COMMIT", NORMAL)
def _cut_after_commit(scenario: Scenario) -> None:
    """The answer is lost: the run's own row says that it was written."""
    with cut_at_commit(scenario, before=False) as url:
        outcome = scenario.run(url=url)
    assert "commit.unanswered" in {line["event"] for line in scenario.logged}
    scenario.is_true(outcome)


@FAULTS.case("connection cut during a slow COMMIT", NORMAL)
def _cut_during_commit(scenario: Scenario) -> None:
    """The lost session is committing still: its end is waited for."""
    slow = slowed(scenario, 0.4, "reconciler.runs", "DEFERRABLE INITIALLY DEFERRED")
    with slow, cut_at_commit(scenario, before=False) as url:
        outcome = scenario.run(url=url)
    assert "commit.unanswered" in {line["event"] for line in scenario.logged}
    scenario.is_true(outcome)


@FAULTS.case("connection cut after COMMIT, and the ledger gone", FAILED)
def _gone_after_commit(scenario: Scenario) -> None:
    """Nobody can tell: the failure says where it stands, and another run is safe."""
    connect, steps = database.connect, crossed(scenario)
    scenario.begin_again()

    def gone(_: str) -> None:
        raise database.LedgerUnreachable("No connection to the ledger: gone", "")

    def lose() -> None:
        scenario.monkeypatch.setattr(database, "connect", gone)
        cut(scenario)
        raise psycopg.OperationalError("the connection was lost")

    outcome = scenario.run(boundaries=striking(steps[-1], lose)[0])
    scenario.monkeypatch.setattr(database, "connect", connect)
    assert outcome.result is Result.FAILED
    assert str(outcome.run_id) in getattr(outcome.failure, "remedy", "")
    scenario.holds_the_truth()


# the process is killed


KILLED: Final = {
    "insert_lifecycles": "LOCK TABLE tenant_billing_lifecycle IN SHARE MODE",
    "append_skill_events": "LOCK TABLE tenant_skill_events IN SHARE MODE",
    "record_corrections": "LOCK TABLE reconciler.corrections IN SHARE MODE",
    "pin_source": "LOCK TABLE reconciler.source IN SHARE MODE",
}


@contextmanager
def process(scenario: Scenario, *arguments: str, within: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    """Run the command as a process of its own, within another command."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    environment |= {"DATABASE_URL": scenario.url, "PYTHONDONTWRITEBYTECODE": "1"}
    command = (*within, sys.executable, "-m", "reconciler", "run", "--kubeconfig", str(scenario.kubeconfig), *arguments)
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        canaries.look_at(Path(f"/proc/{run.pid}/cmdline").read_text(encoding="utf-8"))
        try:
            yield run
        finally:
            run.kill()
            canaries.look_at(*(stream.read() for stream in (run.stdout, run.stderr) if stream and not stream.closed))


def sessions(scenario: Scenario, condition: str = "true") -> int:
    """Return how many sessions of the reconciler there are."""
    ours = "SELECT query, state, wait_event_type FROM pg_stat_activity WHERE datname = current_database()"
    return len(scenario.write(f"{ours} AND application_name = 'reconciler' AND {condition}"))


def wait_until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait for what comes from elsewhere."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


def killed(scenario: Scenario, ready: Callable[[], object]) -> None:
    """Kill a run that has come to where it must wait."""
    scenario.settles_at_once()
    with process(scenario, "--settle", "0s") as run:
        wait_until(lambda: run.poll() is not None or ready())
        assert run.poll() is None, run.communicate()
        run.send_signal(signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL


for statement, lock in KILLED.items():

    @FAULTS.case(f"kill -9 at {statement}", NORMAL)
    def _killed_at(scenario: Scenario, lock: str = lock) -> None:
        before = scenario.state()
        with held(scenario, lock):
            killed(scenario, lambda: sessions(scenario, "wait_event_type = 'Lock'"))
        wait_until(lambda: not sessions(scenario))
        assert scenario.state() == before
        scenario.is_true(scenario.run())


@FAULTS.case("kill -9 while the list is read", NORMAL)
def _killed_in_list(scenario: Scenario) -> None:
    before = scenario.state()
    scenario.strike(f.stall(0.5))
    killed(scenario, lambda: scenario.api.lists)
    wait_until(lambda: not sessions(scenario))
    assert scenario.state() == before
    scenario.is_true(scenario.run())


@FAULTS.case("SIGTERM while the list is read", FAILED)
def _terminated_in_list(scenario: Scenario) -> None:
    """The first process of a pod would ignore the signal, and be killed without a word."""
    before = scenario.state()
    scenario.strike(f.stall(5))
    scenario.settles_at_once()
    with process(scenario, "--settle", "0s") as run:
        wait_until(lambda: run.poll() is not None or scenario.api.lists)
        run.send_signal(signal.SIGTERM)
        _, err = run.communicate(timeout=30)
        assert run.returncode == 1, err
        assert "SIGTERM" in err
    assert scenario.state() == before
    assert scenario.write("SELECT outcome FROM reconciler.runs WHERE error LIKE '%%SIGTERM%%'") == [("failed",)]


@FAULTS.case("kill -9 during COMMIT", NORMAL)
def _killed_in_commit(scenario: Scenario) -> None:
    """The server ends what was asked of it: the killed run has written, and the next one need not."""
    with slowed(scenario, 0.5, "reconciler.runs", "DEFERRABLE INITIALLY DEFERRED"):
        killed(scenario, lambda: sessions(scenario, "wait_event = 'PgSleep'"))
        wait_until(lambda: not sessions(scenario))
    assert scenario.write("SELECT outcome FROM reconciler.runs ORDER BY observed_at DESC LIMIT 1") == [("corrected",)]
    assert scenario.run().failure is None
    scenario.holds_the_truth()


# events out of time


def recorded_at(at: str, kind: str = "enabled") -> Callable[[Scenario], None]:
    """Return what records acme's lost skill at an odd time."""
    return lambda scenario: scenario.skill_row("acme", "voice", kind, at)


for fault, at in (
    ("in the future", LATER),
    ("far in the future", "9999-12-31Z"),
    ("beyond the years of Python", "294276-12-31Z"),
    ("infinite", "infinity"),
    ("minus infinite", "-infinity"),
    ("before the years of Python", "4000-01-01Z BC"),
):
    FAULTS.add(f"latest event {fault}, of the same state", recorded_at(at), spares("acme", Reason.EVENT_TIME_INVALID))
    FAULTS.add(
        f"latest event {fault}, of another state",
        recorded_at(at, "disabled"),
        spares("acme", Reason.EVENT_TIME_INVALID),
    )


def suspended_in_the_future(scenario: Scenario) -> None:
    scenario.write(
        "INSERT INTO tenant_suspension_events (tenant_name, zitadel_org_id, event_kind, occurred_at) "
        "VALUES ('cara', '2871', 'resumed', 'infinity')"
    )


FAULTS.add("latest suspension infinite", suspended_in_the_future, spares("cara", Reason.EVENT_TIME_INVALID))


@FAULTS.case("latest events tied in time: the higher id is the latest", NORMAL)
def _tied(scenario: Scenario) -> None:
    for name, skill, kinds in (("acme", "voice", ("disabled", "enabled")), ("beta", "wiki", ("disabled", "enabled"))):
        for kind in kinds:
            scenario.skill_row(name, skill, kind, on(22))
    assert scenario.run().failure is None
    assert set(scenario.corrections()) == {c for c in CORRECTIONS if c[0] != "acme"}
    # evidence of a time before what it corrects proves nothing: it follows at once
    assert scenario.correction("beta", Reason.SKILL_DISABLE_UNRECORDED, "wiki") == (
        on(22) + INSTANT,
        on(22),
        START,
        "none",
    )
    scenario.stays()


@FAULTS.case("a correction tied in time with what it corrects", NORMAL)
def _tied_with_correction(scenario: Scenario) -> None:
    """It lies a microsecond after it, and so is the latest: it is not written again indefinitely."""
    # in the second of each event its field was written, which may have been that event's own write
    scenario.skill_row("acme", "voice", "disabled", on(20, 10))
    scenario.skill_row("beta", "wiki", "enabled", on(21, 11))
    scenario.run()
    assert scenario.correction("acme", Reason.SKILL_ENABLE_UNRECORDED, "voice") == (START, on(20, 10), START, "none")
    assert scenario.correction("beta", Reason.SKILL_DISABLE_UNRECORDED, "wiki") == (
        *(on(21, 11) + INSTANT, on(21, 11), START),
        "none",
    )
    assert set(scenario.corrections()) == CORRECTIONS
    scenario.stays()


@FAULTS.case("ids out of order: the later time is the latest", NORMAL)
def _out_of_order(scenario: Scenario) -> None:
    scenario.skill_row("acme", "voice", "enabled", on(20, 10))
    scenario.skill_row("acme", "voice", "disabled", on(18))
    scenario.skill_row("beta", "wiki", "disabled", on(21, 11))
    scenario.skill_row("beta", "wiki", "enabled", on(18))
    outcome = scenario.run()
    assert outcome.failure is None
    assert set(scenario.corrections()) == {c for c in CORRECTIONS if c[0] not in {"acme", "beta"}}
    scenario.stays()


# another database, or another role


@FAULTS.case("a read-only ledger", FAILED)
def _read_only(scenario: Scenario) -> None:
    name = sql.Identifier(urlsplit(scenario.url).path.removeprefix("/"))
    with scenario.ledger() as ledger:
        ledger.execute(sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name))
        try:
            before = scenario.state()
            outcome = scenario.run()
        finally:
            ledger.execute(sql.SQL("ALTER DATABASE {} RESET default_transaction_read_only").format(name))
    scenario.has_failed(outcome, before, "read-only", recorded=False)
    assert outcome.failure
    assert "default_transaction_read_only is on" in outcome.failure.remedy


@pytest.mark.parametrize("fault", [pytest.param("migrate", id="the wrong database - failed")])
def test_wrong_database(scenario: Scenario, empty_url: str, fault: str) -> None:
    before = scenario.state()
    outcome = scenario.run(url=empty_url)
    scenario.has_failed(outcome, before, "has no schema reconciler", recorded=False)
    assert outcome.failure
    assert fault in outcome.failure.remedy


@FAULTS.case("no such database", FAILED)
def _no_database(scenario: Scenario) -> None:
    before = scenario.state()
    url = urlsplit(scenario.url)._replace(path="/nowhere").geturl()
    scenario.has_failed(scenario.run(url=url), before, "No connection", recorded=False)


@FAULTS.case("a ledger that does not answer", FAILED)
def _no_answer(scenario: Scenario) -> None:
    scenario.monkeypatch.setattr(database, "CONNECT_TIMEOUT", 1)
    before = scenario.state()
    with (
        tempfile.TemporaryDirectory(prefix="proxy-", dir="/tmp") as folder,
        socket.socket(socket.AF_UNIX) as listener,
    ):
        listener.bind(f"{folder}/.s.PGSQL.5432")
        listener.listen()
        outcome = scenario.run(url=conninfo.make_conninfo(scenario.url, host=folder, port=5432))
    scenario.has_failed(outcome, before, "No connection", recorded=False)
    assert scenario.took < 1 + SLACK


PRIVILEGES: Final = (
    "SELECT ON public.tenant_billing_lifecycle",
    "INSERT ON public.tenant_billing_lifecycle",
    "UPDATE (deleted_at) ON public.tenant_billing_lifecycle",
    "SELECT ON public.tenant_skill_events",
    "INSERT ON public.tenant_skill_events",
    "SELECT ON public.tenant_suspension_events",
    "INSERT ON public.tenant_suspension_events",
    "USAGE ON SEQUENCE public.tenant_skill_events_id_seq",
    "USAGE ON SEQUENCE public.tenant_suspension_events_id_seq",
    "SELECT ON public.invoices",
    "USAGE ON SCHEMA reconciler",
    "SELECT ON reconciler.proving_runs",
    "SELECT ON reconciler.last_runs",
    "INSERT ON reconciler.runs",
    "UPDATE (notified) ON reconciler.runs",
    "INSERT ON reconciler.corrections",
    "UPDATE (taken_back_at) ON reconciler.corrections",
    "SELECT ON reconciler.source",
    "INSERT ON reconciler.source",
    "UPDATE ON reconciler.source",
    "USAGE ON SCHEMA public",
    "TEMPORARY ON DATABASE {database}",
)
UNRECORDED: Final = {
    "USAGE ON SCHEMA public",
    "USAGE ON SCHEMA reconciler",
    "INSERT ON reconciler.runs",
    "SELECT ON reconciler.source",
}
"""Without these, not even the failure can be recorded, or the run ends before it begins to observe."""


@pytest.fixture(scope="module")
def role(url: str) -> Iterator[str]:
    """A login role with no more rights than sql/roles.sql gives, and none that everybody has."""
    name = f"role_{uuid4().hex}"
    role, of = sql.Identifier(name), sql.Identifier(urlsplit(url).path.removeprefix("/"))
    with closing(psycopg.connect(url, autocommit=True)) as owner:
        owner.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, sql.Literal(name)))
        owner.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(of))
        owner.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
        owner.execute(sql.SQL("GRANT USAGE ON SCHEMA sim TO {0}; GRANT SELECT ON sim.clock TO {0}").format(role))
        yield name
        owner.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(role))


@pytest.mark.parametrize(
    "privilege",
    [
        pytest.param(name, id=f"a missing privilege: {name.format(database='the database')} - failed")
        for name in PRIVILEGES
    ],
)
def test_missing_privilege(scenario: Scenario, role: str, psql: Psql, privilege: str) -> None:
    psql(scenario.url, "roles.sql", role=role)
    parts = urlsplit(scenario.url)
    url = parts._replace(netloc=f"{role}:{role}@{parts.netloc.rpartition('@')[2]}").geturl()
    named = privilege.format(database=parts.path.removeprefix("/"))
    scenario.write(f"REVOKE {named} FROM {role}")
    before = scenario.state()

    outcome = scenario.run(url=url)

    scenario.has_failed(outcome, before, "role lacks ", recorded=privilege not in UNRECORDED)
    psql(scenario.url, "roles.sql", role=role)
    scenario.is_true(scenario.run(url=url))


# PgBouncer


@pytest.fixture
def pooled_url(scenario: Scenario) -> Iterator[str]:
    """The way to the ledger through PgBouncer in transaction mode; every transaction may get another server process."""
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.skip("pgbouncer is not installed (Debian's package of that name)")
    settings = conninfo.conninfo_to_dict(scenario.url)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
    server = {key: settings[key] for key in ("host", "port", "user", "password") if key in settings}
    config = folder / "pgbouncer.ini"
    config.write_text(
        f"[databases]\n* = {' '.join(f'{key}={value}' for key, value in server.items())}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        "pool_mode = transaction\ndefault_pool_size = 3\nmin_pool_size = 3\nserver_round_robin = 1\n"
    )
    as_user: dict[str, Any] = {}
    if os.geteuid() == 0:
        # it refuses to be root, and the socket of the server lies in a folder of this user's
        user = pwd.getpwnam("nobody")
        as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        for path in (folder, config):
            os.chown(path, user.pw_uid, user.pw_gid)
    with (folder / "log").open("w") as log, subprocess.Popen([program, config], stderr=log, **as_user) as bouncer:
        url = urlsplit(scenario.url)._replace(netloc=f"{settings.get('user')}@127.0.0.1:{port}", query="").geturl()
        try:
            wait_until(lambda: bouncer.poll() is not None or _answers(port))
            assert bouncer.poll() is None, (folder / "log").read_text()
            yield url
        finally:
            bouncer.terminate()
            bouncer.wait()
            shutil.rmtree(folder)


def pooled(url: str) -> psycopg.Connection[Any]:
    """Connect as another client of the pooler."""
    return psycopg.connect(url, autocommit=True, prepare_threshold=None)


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(1, id="PgBouncer in transaction mode - normal"),
        pytest.param(4, id="two runs at once through PgBouncer - normal"),
    ],
)
def test_pgbouncer(scenario: Scenario, pooled_url: str, number: int) -> None:
    """Nothing of a run hangs on one server process, and nothing of it is left on one."""
    seen = set()
    if number == 1:
        boundaries = Boundaries()
        with closing(pooled(pooled_url)) as other:
            with closing(pooled(pooled_url)) as second, closing(pooled(pooled_url)) as third:
                # three transactions at once: from now on there are three server processes, in turn
                second.execute("BEGIN")
                third.execute("BEGIN")
                other.execute("SELECT 1")
                third.execute("COMMIT")
                second.execute("COMMIT")

            def at(where: str) -> None:
                if where == "after commit":
                    # another client's transaction lies between any two of ours
                    seen.update(other.execute("SELECT pg_backend_pid(), current_setting('lock_timeout')").fetchall())

            boundaries.at = at
            outcome = scenario.run(url=pooled_url, boundaries=boundaries)
        assert len({pid for pid, _ in seen}) == 3
        assert {timeout for _, timeout in seen} == {"0"}
        scenario.is_true(outcome)
    else:
        runs_at_once(scenario, pooled_url, number)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(
            OTHERS | {setting: values[-1] for setting, values in SETTINGS.items()},
            id="every odd setting at once, behind PgBouncer - normal",
        )
    ],
)
def test_odd_settings_behind_pgbouncer(scenario: Scenario, pooled_url: str, settings: dict[str, str]) -> None:
    """What a run sets there for itself is gone with its transaction: the portal's next one has what the role has."""
    with odd_database(scenario.url, settings):
        outcome = scenario.run(url=pooled_url)
        with closing(pooled(pooled_url)) as other:
            shown = {other.execute("SELECT current_setting('search_path')").fetchall()[0] for _ in range(6)}
    assert shown == {('""',)}
    scenario.is_true(outcome)


# the disk


@FAULTS.case("full disk for the spool", FAILED)
def _full_disk(scenario: Scenario) -> None:
    before = scenario.state()

    def full(**_: Any) -> IO[bytes]:
        return open("/dev/full", "w+b", buffering=0)  # noqa: PTH123 - it stands for tempfile.TemporaryFile

    scenario.monkeypatch.setattr(tempfile, "TemporaryFile", full)
    scenario.has_failed(scenario.run(), before, "No space left on device")
    scenario.monkeypatch.undo()
    scenario.is_true(scenario.run())


@FAULTS.case("no folder for the spool", FAILED)
def _no_folder(scenario: Scenario) -> None:
    before = scenario.state()
    scenario.monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    scenario.has_failed(scenario.run(), before, "could not be kept")


@FAULTS.case("a file size limit under the spool, in a process", FAILED)
def _file_size_limit(scenario: Scenario) -> None:
    before = scenario.state()
    scenario.api.plant(*(padded(number) for number in range(40)))
    # the limit of a shell counts in blocks of 512 bytes or of a kilobyte
    limited = ("sh", "-c", 'ulimit -f 1; exec "$@"', "sh")
    with process(scenario, "--settle", "0s", "--limit-count", "100", within=limited) as run:
        out, err = run.communicate()
        canaries.look_at(out, err)
    assert run.returncode == 1, err
    assert "File too large" in err
    assert "Make room" in err
    assert scenario.state() == before


def padded(number: int) -> dict[str, Any]:
    """Return a tenant that takes some room in the spool."""
    name = f"tenant-{number:03}"
    return {
        "apiVersion": "pieced.ch/v1alpha1",
        "kind": "PiecedTenant",
        "metadata": {"name": name, "uid": name, "generation": 1, "creationTimestamp": "2026-02-20T10:00:00Z"},
        "spec": {"packages": [f"{letter}" * 100 for letter in "abcdefgh"]},
    }


# the scenario


@pytest.fixture
def scenario(url: str, api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scenario]:
    """The world that is known by heart."""
    with staged(url, api, tmp_path, monkeypatch) as scenario, stamina.set_testing(testing=True, attempts=3):
        yield scenario


@pytest.mark.parametrize("story", FAULTS)
def test_fault(scenario: Scenario, story: Callable[[Scenario], None]) -> None:
    """A run that this strikes ends as the table says."""
    story(scenario)
