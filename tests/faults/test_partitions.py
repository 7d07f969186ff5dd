"""The events may be partitioned, in whatever way: the migration serves them, and a run over them is right."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from reconciler.db import connection as database
from reconciler.db.migrate import MigrationConflict, migrate
from tests.simulation.portal import CLOCK
from tests.support.odd_settings import odd_role
from tests.support.struck_runs import Scenario, staged

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Psql
    from tests.support.fake_api import FakeApi

SKILL_EVENTS: Final = """
CREATE TABLE tenant_skill_events (
    id bigserial, tenant_name text NOT NULL, zitadel_org_id text NOT NULL, skill_id text NOT NULL,
    event_kind text NOT NULL CHECK (event_kind IN ('enabled', 'disabled')),
    occurred_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (id, {key})
) PARTITION BY {by};
"""
SUSPENSION_EVENTS: Final = """
CREATE TABLE tenant_suspension_events (
    id bigserial, tenant_name text NOT NULL, zitadel_org_id text NOT NULL,
    event_kind text NOT NULL CHECK (event_kind IN ('suspended', 'resumed')),
    occurred_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (id, {key})
) PARTITION BY {by};
"""
BY_MONTH: Final = """
CREATE SCHEMA "Old Months";
CREATE TABLE "Old Months"."{table} before" PARTITION OF {table} FOR VALUES FROM (MINVALUE) TO ('2026-02-15Z');
CREATE TABLE {table}_after PARTITION OF {table} FOR VALUES FROM ('2026-02-15Z') TO (MAXVALUE);
"""
BY_TENANT: Final = """
CREATE TABLE {table}_0 PARTITION OF {table} FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE {table}_1 PARTITION OF {table} FOR VALUES WITH (MODULUS 2, REMAINDER 1);
"""
BY_BOTH: Final = """
CREATE TABLE {table}_0 PARTITION OF {table} FOR VALUES WITH (MODULUS 2, REMAINDER 0) PARTITION BY RANGE (occurred_at);
CREATE TABLE {table}_1 PARTITION OF {table} FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE {table}_0_all PARTITION OF {table}_0 DEFAULT;
"""
WAYS: Final = {
    "by time": ("RANGE (occurred_at)", "occurred_at", BY_MONTH),
    "by tenant": ("HASH (tenant_name)", "tenant_name", BY_TENANT),
    "by tenant and then by time": ("HASH (tenant_name)", "tenant_name, occurred_at", BY_BOTH),
    "by time, without any partition yet": ("RANGE (occurred_at)", "occurred_at", ""),
}
EVENTS: Final = ("tenant_skill_events", "tenant_suspension_events")
INDEXES: Final = {
    "idx_tenant_skill_events_org_time",
    "idx_tenant_skill_events_tenant_skill",
    "idx_tenant_suspension_events_tenant",
    "reconciler_skill_state",
    "reconciler_suspension_state",
}


def partition(ledger: psycopg.Connection[Any], way: str) -> None:
    """Create the tables of events as a portal that partitions them would."""
    by, key, partitions = WAYS[way]
    ledger.execute((SKILL_EVENTS + SUSPENSION_EVENTS).format(by=by, key=key).encode())
    for table in EVENTS:
        if partitions:
            text = partitions if table == EVENTS[0] else partitions.replace('CREATE SCHEMA "Old Months";', "")
            ledger.execute(text.format(table=table).encode())


def valid_indexes(ledger: psycopg.Connection[Any]) -> set[str]:
    """Return the indexes of whole partitioned tables that are valid."""
    return {
        name
        for (name,) in ledger.execute(
            "SELECT c.relname FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid "
            "WHERE c.relkind = 'I' AND i.indisvalid AND NOT i.indisprimary AND NOT c.relispartition"
        )
    }


@pytest.mark.parametrize("way", [pytest.param(way, id=f"events partitioned {way} - migrated once") for way in WAYS])
def test_migration(empty_url: str, way: str) -> None:
    with closing(database.connect(empty_url)) as ledger:
        partition(ledger, way)
        ledger.execute(
            "CREATE TABLE tenant_billing_lifecycle "
            "(tenant_name text PRIMARY KEY, zitadel_org_id text NOT NULL, created_at timestamptz NOT NULL, "
            "deleted_at timestamptz)"
        )
        created = migrate(ledger)
        assert {f"index public.{name}" for name in INDEXES} <= set(created)
        assert valid_indexes(ledger) == INDEXES
        assert migrate(ledger) == []
        # a later partition gets them by itself
        if way == "by time, without any partition yet":
            ledger.execute("CREATE TABLE later PARTITION OF tenant_skill_events DEFAULT")
            assert migrate(ledger) == []


@pytest.mark.parametrize(
    "left",
    [
        pytest.param("CREATE INDEX reconciler_skill_state ON ONLY {columns}", id="the whole table's index - finished"),
        pytest.param(
            "CREATE INDEX reconciler_skill_state ON ONLY {columns}; CREATE INDEX theirs ON {partition}; "
            "ALTER INDEX reconciler_skill_state ATTACH PARTITION theirs",
            id="an index of one partition, by another name - finished",
        ),
    ],
)
def test_what_a_dead_migration_left(empty_url: str, left: str) -> None:
    columns = "(tenant_name, skill_id, occurred_at DESC, id DESC) INCLUDE (event_kind)"
    with closing(database.connect(empty_url)) as ledger:
        partition(ledger, "by tenant")
        ledger.execute(
            left.format(columns=f"tenant_skill_events {columns}", partition=f"tenant_skill_events_0 {columns}").encode()
        )
        migrate(ledger)
        assert valid_indexes(ledger) == INDEXES
        ((count,),) = ledger.execute(
            "SELECT count(*) FROM pg_indexes WHERE tablename = 'tenant_skill_events_0' AND indexdef LIKE '%INCLUDE%'"
        ).fetchall()
        assert count == 1


@pytest.mark.parametrize("case", [pytest.param("2s", id="inserts while partitions are indexed - go on")])
def test_inserts_go_on(empty_url: str, case: str) -> None:
    """An open transaction of the portal holds the migration up, and the migration no other."""
    insert = (
        "INSERT INTO tenant_skill_events (tenant_name, zitadel_org_id, skill_id, event_kind) "
        "VALUES ('acme', '1', 's', 'enabled')"
    )
    with (
        closing(database.connect(empty_url)) as ledger,
        closing(psycopg.connect(empty_url)) as held_open,
        closing(psycopg.connect(empty_url, autocommit=True)) as portal,
        ThreadPoolExecutor(1) as pool,
    ):
        partition(ledger, "by tenant")
        held_open.execute(insert.encode())
        migration = pool.submit(migrate, ledger)
        waits = (
            "SELECT FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONCURRENTLY%' AND wait_event_type = 'Lock'"
        )
        until = time.monotonic() + 30
        while not portal.execute(waits.encode()).fetchall():
            assert time.monotonic() < until
        portal.execute(f"SET lock_timeout = '{case}'".encode())
        for _ in range(3):
            portal.execute(insert.encode())
        assert not migration.done()
        held_open.rollback()
        migration.result(timeout=60)
        assert valid_indexes(ledger) == INDEXES


@pytest.fixture
def partitioned(postgres_url: str) -> Iterator[str]:
    """An empty database of one's own."""
    name = f"partitioned_{uuid4().hex}"
    with closing(psycopg.connect(postgres_url, autocommit=True)) as server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield urlsplit(postgres_url)._replace(path=f"/{name}").geturl()
        server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def scenario_over(
    url: str, way: str, api: FakeApi, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Scenario]:
    """Set the scenario over partitioned events."""
    with closing(database.connect(url)) as ledger:
        partition(ledger, way)
        migrate(ledger)
        ledger.execute(CLOCK.encode())
    with staged(url, api, folder, monkeypatch) as scenario:
        yield scenario


@pytest.mark.parametrize(
    "way", [pytest.param(way, id=f"a run over events partitioned {way} - the same run") for way in list(WAYS)[:3]]
)
def test_run(
    partitioned: str, psql: Psql, api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Also for the role of runs, which has rights on the whole tables alone."""
    with scenario_over(partitioned, way, api, tmp_path, monkeypatch) as scenario:
        with odd_role(partitioned, {}) as url:
            role = str(urlsplit(url).username)
            scenario.write(f"ALTER ROLE {role} NOSUPERUSER")
            psql(partitioned, "roles.sql", role=role)
            scenario.write(f"GRANT USAGE ON SCHEMA sim TO {role}; GRANT SELECT ON sim.clock TO {role}")
            outcome = scenario.run(url=url)
        scenario.is_true(outcome)


@pytest.mark.parametrize("case", [pytest.param("partition", id="no partition for corrections' times - failed")])
def test_no_partition(
    partitioned: str, api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    with scenario_over(partitioned, "by time", api, tmp_path, monkeypatch) as scenario:
        scenario.write("ALTER TABLE tenant_skill_events DETACH PARTITION tenant_skill_events_after")
        before = scenario.state()
        outcome = scenario.run()
        scenario.has_failed(outcome, before, "tenants cannot be written, and the limit is 3")
        assert outcome.failure
        assert case in outcome.failure.remedy


@pytest.mark.parametrize("case", [pytest.param("uniq_org_payment_methods_default", id="duplicate rows - named")])
def test_duplicates(empty_url: str, case: str) -> None:
    with closing(database.connect(empty_url)) as ledger:
        ledger.execute(
            "CREATE TABLE org_payment_methods (id uuid DEFAULT gen_random_uuid(), zitadel_org_id text NOT NULL, "
            "stripe_payment_method_id text NOT NULL, is_default bool NOT NULL DEFAULT false) "
            "PARTITION BY LIST (zitadel_org_id); "
            "CREATE TABLE of_one PARTITION OF org_payment_methods FOR VALUES IN ('1'); "
            "INSERT INTO org_payment_methods (zitadel_org_id, stripe_payment_method_id, is_default) "
            "VALUES ('1', 'a', true), ('1', 'b', true)"
        )
        with pytest.raises(MigrationConflict, match=case):
            migrate(ledger)


# an index is built outside of a transaction, where the role's timeouts hold


@pytest.mark.parametrize(
    "case", [pytest.param("100ms", id="the owner's statement_timeout while an index is built - lifted")]
)
def test_owners_timeout(empty_url: str, case: str) -> None:
    with closing(database.connect(empty_url)) as ledger:
        ledger.execute(SKILL_EVENTS.partition(" PARTITION BY")[0].format(key="occurred_at").encode())
        # sorting is fast, so an expression is slow
        ledger.execute(
            "INSERT INTO tenant_skill_events (tenant_name, zitadel_org_id, skill_id, event_kind) "
            "SELECT 't' || i, '1', md5(i::text), 'enabled' FROM generate_series(1, 150000) i"
        )
    timeouts = {"statement_timeout": case, "lock_timeout": case}
    with odd_role(empty_url, timeouts) as url, closing(database.connect(url)) as owner:
        assert "index public.reconciler_skill_state" in migrate(owner)
        assert owner.execute("SHOW statement_timeout").fetchall() == [(case,)]
