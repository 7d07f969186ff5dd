"""However many runs there were, no run and no question reads them all."""

from __future__ import annotations

import time
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest

from reconciler.db.connection import connect
from tests.support.api_state import tenant
from tests.support.command import invoke

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    from tests.support.system import System

DAY: Final = timedelta(days=1)
RUNS: Final = 70_000
"""One every minute for seven weeks: more than a search for a tenant's last proof goes through."""
SEARCHED: Final = 50_000
FEW: Final = 10_000
MONTH: Final = 28 * 24 * 60
"""`status` counts the corrections of four weeks."""
MINUTES: Final = """
INSERT INTO reconciler.runs (id, started_at, observed_at, finished_at, mode, outcome, version, source,
                             resource_version, unverified, settle, history)
SELECT gen_random_uuid(), at, at, at, 'run', 'clean', '1', identity, '1', %(unverified)s, '60 s', '{"log": "reached"}'
FROM reconciler.source, generate_series(%(runs)s, 1, -1) AS number,
     LATERAL (SELECT now() - number * interval '1 min') AS run (at)
"""


def read(ledger: psycopg.Connection[Any], act: Callable[[], object]) -> tuple[int, int]:
    """Return how often all runs were scanned meanwhile, and how many rows of theirs were read by an index."""
    before = _settled(ledger)
    act()
    after = _settled(ledger)
    return after[0] - before[0], after[1] - before[1]


def _settled(ledger: psycopg.Connection[Any]) -> tuple[int, int]:
    """Return the counts, once the sessions that have ended have added theirs."""
    scans, rows, last = 0, 0, (-1, -1)
    while (scans, rows) != last:
        time.sleep(0.3)
        last = (scans, rows)
        ((scans, rows),) = ledger.execute(
            "SELECT seq_scan, idx_tup_fetch FROM pg_stat_user_tables "
            "WHERE (schemaname, relname) = ('reconciler', 'runs')"
        ).fetchall()
    return scans, rows


@pytest.fixture
def years(system: System) -> Callable[[list[str]], System]:
    """A tenant, and a run every minute; each could not verify the tenants that are given."""

    def build(unverified: list[str]) -> System:
        system.api.create(tenant("acme", ["mail"], suspend=False), at=system.now - 90 * DAY)
        system.record("acme", -90 * DAY, mail=-90 * DAY)
        assert system.run().failure is None
        # in a session that ends: one that goes on may add its own scans to the counts a second later
        with closing(connect(system.url)) as writer:
            writer.execute("UPDATE reconciler.runs SET unverified = %s", [unverified])
            writer.execute(MINUTES, {"unverified": unverified, "runs": RUNS})
            writer.execute("ANALYZE reconciler.runs")
        return system

    return build


@pytest.mark.parametrize(
    ("unverified", "most"),
    [pytest.param([], FEW, id="all was proven"), pytest.param(["acme"], SEARCHED + FEW, id="one was never proven")],
)
def test_no_run_reads_all_that_were_before(
    years: Callable[[list[str]], System], unverified: list[str], most: int
) -> None:
    system = years(unverified)
    system.api.patch("acme", {"spec": {"packages": ["mail", "wiki"]}}, at=system.now - timedelta(hours=1))
    system.record_skill("acme", "files", -DAY)

    scans, rows = read(system.ledger, system.run)

    assert (scans, rows <= most) == (0, True), rows


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("status", id="status"),
        pytest.param("usage --month 2026-05 --verified", id="the certificate"),
        pytest.param("explain acme", id="explain"),
    ],
)
def test_no_question_reads_all_runs(
    years: Callable[[list[str]], System],
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    system = years(["acme"])
    environment = {"DATABASE_URL": system.url}

    scans, rows = read(system.ledger, lambda: invoke(monkeypatch, capsys, *command.split(), environment=environment))

    assert (scans, rows <= MONTH + FEW) == (0, True), rows
    assert rows > 0
