"""What is different on Citus. Of a cluster it needs the coordinator that TEST_CITUS_URL names, else it is skipped."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from reconciler import ledger as ledger_api
from reconciler.db.citus import ResultMissing, ThroughWorker, TimesAmbiguous
from reconciler.db.connection import brief_transaction, connect, shared_transaction, snapshot, transaction
from reconciler.db.migrate import migrate
from tests.support import citus
from tests.support.ledger_calls import ALL_TIME

if TYPE_CHECKING:
    from tests.conftest import Psql

LOST = "DO $$BEGIN RAISE WARNING 'could not find it' USING ERRCODE = 'CIINF'; END$$"


def _of_workers(cursor: psycopg.Cursor[Any], expression: str) -> set[str]:
    """Return what an expression is where the events lie."""
    rows = cursor.execute(f"SELECT DISTINCT {expression} FROM public.tenant_skill_events".encode()).fetchall()  # noqa: S608
    return {value for (value,) in rows}


def test_a_result_that_citus_lost_is_an_error(ledger: psycopg.Connection[Any]) -> None:
    """The warning itself is not the coordinator's alone to give: any server can."""
    with pytest.raises(ResultMissing, match="could not find it"), transaction(ledger) as cursor:
        cursor.execute(f"CREATE TABLE public.kept (); {LOST}".encode())
    assert ledger.execute("SELECT to_regclass('public.kept')").fetchone() == (None,)


def test_a_result_that_citus_lost_is_another_programs_error_too(ledger: psycopg.Connection[Any]) -> None:
    with pytest.raises(ResultMissing), shared_transaction(ledger) as cursor:
        cursor.execute(LOST)


def test_a_snapshot_with_a_lost_result_is_an_error(ledger_url: str) -> None:
    with pytest.raises(ResultMissing), snapshot(ledger_url) as cursor:
        cursor.execute(LOST)


@pytest.mark.citus
def test_only_the_events_are_distributed(ledger: psycopg.Connection[Any]) -> None:
    found = ledger.execute("SELECT logicalrelid::text FROM pg_dist_partition ORDER BY 1").fetchall()
    assert [name for (name,) in found] == ["tenant_skill_events", "tenant_suspension_events"]


@pytest.mark.citus
def test_distributing_and_migrating_again_change_nothing(
    ledger_url: str, ledger: psycopg.Connection[Any], psql: Psql
) -> None:
    shards = ledger.execute("SELECT count(*) FROM pg_dist_shard").fetchall()
    psql(ledger_url, "citus.sql")
    assert migrate(ledger) == []
    assert ledger.execute("SELECT count(*) FROM pg_dist_shard").fetchall() == shards


@pytest.mark.citus
def test_recorded_events_move_to_the_workers(empty_url: str, psql: Psql) -> None:
    with closing(connect(empty_url)) as connection:
        migrate(connection)
        ledger_api.record_creation(connection, "acme", org="1", created_at=datetime(2026, 5, 1, tzinfo=UTC))
        ledger_api.record_skills(connection, "acme", org="1", enabled=["mail"])
        citus.distribute(empty_url, psql)
        (before,) = ledger_api.skill_events(connection, *ALL_TIME, tenant="acme")
        ledger_api.record_skills(connection, "acme", org="1", disabled=["mail"])
        assert [event.id for event in ledger_api.skill_events(connection, *ALL_TIME, tenant="acme")] == [
            before.id,
            before.id + 1,
        ]
        assert connection.execute("SELECT pg_relation_size('tenant_skill_events')").fetchall() == [(0,)]


@pytest.mark.citus
def test_nothing_runs_through_a_worker(ledger_url: str) -> None:
    _, worker, *_ = citus.nodes(ledger_url)
    with pytest.raises(ThroughWorker, match="a worker of a Citus cluster"), brief_transaction(worker):
        pass


@pytest.mark.citus
def test_no_event_is_written_through_a_worker(ledger_url: str) -> None:
    """Its id would be above all that the coordinator will ever draw."""
    _, worker, *_ = citus.nodes(ledger_url)
    with closing(psycopg.connect(worker)) as connection, pytest.raises(psycopg.errors.CheckViolation):
        connection.execute(
            "INSERT INTO public.tenant_skill_events (tenant_name, zitadel_org_id, skill_id, event_kind)"
            "VALUES ('acme', '1', 'mail', 'enabled')"
        )


@pytest.mark.citus
def test_limits_hold_on_the_workers(ledger: psycopg.Connection[Any]) -> None:
    ledger_api.record_skills(ledger, "acme", org="1", enabled=["mail"])
    with transaction(ledger, 7) as cursor:
        # evaluated by the workers, because of the column in it
        assert _of_workers(cursor, "current_setting('lock_timeout') || left(tenant_name, 0)") == {"7s"}


@pytest.mark.citus
def test_another_programs_transaction_gets_its_limits_back(ledger: psycopg.Connection[Any]) -> None:
    ledger_api.record_skills(ledger, "acme", org="1", enabled=["mail"])
    with ledger.transaction(), ledger.cursor() as own:
        own.execute("SET LOCAL lock_timeout = '3s'")
        with shared_transaction(ledger) as cursor:
            assert _of_workers(cursor, "current_setting('lock_timeout') || left(tenant_name, 0)") == {"15s"}
        assert own.execute("SHOW lock_timeout").fetchall() == [("3s",)]
        assert _of_workers(own, "current_setting('lock_timeout') || left(tenant_name, 0)") == {"3s"}


@pytest.mark.citus
@pytest.mark.parametrize("style", ["SQL, DMY", "German", "Postgres, MDY"])
def test_no_time_is_passed_on_in_an_ambiguous_style(ledger: psycopg.Connection[Any], style: str) -> None:
    """The 11th of December would be the 12th of November on a worker of another style."""
    at = datetime(2026, 12, 11, tzinfo=UTC)
    ledger.execute("SELECT set_config('datestyle', %s, false)", [style])
    with pytest.raises(TimesAmbiguous, match="DateStyle"):
        ledger_api.record_skills(ledger, "acme", org="1", enabled=["mail"], occurred_at=at)
    ledger.execute("SET datestyle = 'ISO, DMY'")
    ledger_api.record_skills(ledger, "acme", org="1", enabled=["mail"], occurred_at=at)
    (event,) = ledger_api.skill_events(ledger, *ALL_TIME, tenant="acme")
    assert event.occurred_at == at
