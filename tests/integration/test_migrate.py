from __future__ import annotations

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import psycopg
import pytest

from reconciler.core.model import Action, Evidence, Mode, Result, Table
from reconciler.db import connection as database
from reconciler.db import migrate, queries, schema

if TYPE_CHECKING:
    from collections.abc import Iterator

    Connection = psycopg.Connection[Any]

OWN = [
    *(
        "changes",
        "closed_lines",
        "closed_lives",
        "closings",
        "corrections",
        "exceptions",
        "gaps",
        "migrations",
        "payers",
        "reports",
        "runs",
        "source",
        "tenants",
        "totals",
    ),
]
"""The tables of schema reconciler."""
VIEWS = ["closed_months", "earlier_lifetimes", "kept_prices", "last_runs", "left_out", "paid_days", "proving_runs"]
"""Its views."""
PATIENCE = 60
"""Seconds for what takes a moment on an idle machine."""
COVERING = ["index public.reconciler_skill_state", "index public.reconciler_suspension_state"]

# Each column: its type, "!" if it is not null, "=" and its default.
LEDGER = {
    "platform_pricing": {
        "id": "integer ! =1",
        "tenant_monthly_fee_chf": "numeric(10,2) ! =0",
        "tenant_setup_fee_chf": "numeric(10,2) ! =0",
        "threema_message_chf": "numeric(10,5) ! =0",
        "vat_rate_chli": "numeric(5,2) ! =8.10",
        "updated_at": "timestamptz ! =now()",
    },
    "skill_pricing": {
        "skill_id": "text !",
        "daily_price_chf": "numeric(10,5) !",
        "created_at": "timestamptz ! =now()",
        "updated_at": "timestamptz ! =now()",
    },
    "tenant_billing_lifecycle": {
        "tenant_name": "text !",
        "zitadel_org_id": "text !",
        "created_at": "timestamptz !",
        "deleted_at": "timestamptz",
    },
    "tenant_skill_events": {
        "id": "bigint ! =nextval('tenant_skill_events_id_seq'::regclass)",
        "tenant_name": "text !",
        "zitadel_org_id": "text !",
        "skill_id": "text !",
        "event_kind": "text !",
        "occurred_at": "timestamptz ! =now()",
    },
    "tenant_suspension_events": {
        "id": "bigint ! =nextval('tenant_suspension_events_id_seq'::regclass)",
        "tenant_name": "text !",
        "zitadel_org_id": "text !",
        "event_kind": "text !",
        "occurred_at": "timestamptz ! =now()",
    },
    "org_billing_config": {
        "zitadel_org_id": "text !",
        "pay_by_invoice": "boolean ! =false",
        "stripe_customer_id": "text",
        "auto_invoice_enabled": "boolean ! =true",
        "auto_reminders_enabled": "boolean ! =true",
        "created_at": "timestamptz ! =now()",
        "updated_at": "timestamptz ! =now()",
    },
    "org_payment_methods": {
        "id": "uuid ! =gen_random_uuid()",
        "zitadel_org_id": "text !",
        "stripe_payment_method_id": "text !",
        "brand": "text",
        "last4": "text",
        "exp_month": "integer",
        "exp_year": "integer",
        "is_default": "boolean ! =false",
        "created_at": "timestamptz ! =now()",
    },
    "invoice_number_counters": {
        "year": "integer !",
        "last_number": "integer ! =0",
    },
    "invoices": {
        "id": "uuid ! =gen_random_uuid()",
        "invoice_number": "text !",
        "zitadel_org_id": "text !",
        "period_start": "date !",
        "period_end": "date !",
        "issued_at": "timestamptz ! =now()",
        "due_at": "date !",
        "subtotal_chf": "numeric(10,2) !",
        "vat_rate": "numeric(5,2) !",
        "vat_amount_chf": "numeric(10,2) !",
        "total_chf": "numeric(10,2) !",
        "status": "text ! ='open'::text",
        "billing_snapshot": "jsonb !",
        "payment_method": "text !",
        "stripe_payment_intent_id": "text",
        "pdf_data": "bytea",
        "pdf_filename": "text",
        "admin_notes": "text",
        "paid_at": "timestamptz",
        "paid_by": "text",
        "paid_method_detail": "text",
        "created_at": "timestamptz ! =now()",
    },
    "invoice_lines": {
        "id": "uuid ! =gen_random_uuid()",
        "invoice_id": "uuid !",
        "tenant_name": "text",
        "kind": "text !",
        "description": "text !",
        "quantity": "numeric(12,4) ! =1",
        "unit_label": "text",
        "unit_price_chf": "numeric(10,5) !",
        "amount_chf": "numeric(10,2) !",
        "metadata": "jsonb",
        "display_order": "integer ! =0",
    },
    "invoice_reminders": {
        "id": "uuid ! =gen_random_uuid()",
        "invoice_id": "uuid !",
        "level": "integer !",
        "sent_at": "timestamptz ! =now()",
        "sent_by": "text !",
        "pdf_data": "bytea",
        "pdf_filename": "text",
        "email_sent_to": "text",
    },
}

CONSTRAINTS = {
    "platform_pricing": ["CHECK (id = 1)", "PRIMARY KEY (id)"],
    "skill_pricing": ["PRIMARY KEY (skill_id)"],
    "tenant_billing_lifecycle": ["PRIMARY KEY (tenant_name)"],
    "tenant_skill_events": ["CHECK (event_kind in enabled, disabled)", "PRIMARY KEY (id)"],
    "tenant_suspension_events": ["CHECK (event_kind in suspended, resumed)", "PRIMARY KEY (id)"],
    "org_billing_config": ["PRIMARY KEY (zitadel_org_id)"],
    "org_payment_methods": ["PRIMARY KEY (id)", "UNIQUE (stripe_payment_method_id)"],
    "invoice_number_counters": ["PRIMARY KEY (year)"],
    "invoices": [
        "CHECK (payment_method in invoice, card)",
        "CHECK (status in draft, open, paid, overdue, void, uncollectible)",
        "PRIMARY KEY (id)",
        "UNIQUE (invoice_number)",
    ],
    "invoice_lines": [
        "CHECK (kind in tenant_monthly, tenant_setup, ai_usage, threema_messages, skill_usage, adjustment)",
        "FOREIGN KEY (invoice_id) REFERENCES invoices(id) ON DELETE CASCADE",
        "PRIMARY KEY (id)",
    ],
    "invoice_reminders": [
        "CHECK (level in 1, 2, 3)",
        "FOREIGN KEY (invoice_id) REFERENCES invoices(id) ON DELETE CASCADE",
        "PRIMARY KEY (id)",
        "UNIQUE (invoice_id, level)",
    ],
}

INDEXES = {
    "idx_invoice_lines_invoice": "invoice_lines (invoice_id, display_order)",
    "idx_invoice_reminders_invoice": "invoice_reminders (invoice_id, level)",
    "idx_invoices_org": "invoices (zitadel_org_id, issued_at DESC)",
    "idx_invoices_status": "invoices (status, due_at)",
    "idx_org_payment_methods_org": "org_payment_methods (zitadel_org_id)",
    "idx_tenant_billing_lifecycle_org": "tenant_billing_lifecycle (zitadel_org_id)",
    "idx_tenant_skill_events_org_time": "tenant_skill_events (zitadel_org_id, occurred_at)",
    "idx_tenant_skill_events_tenant_skill": "tenant_skill_events (tenant_name, skill_id, occurred_at)",
    "idx_tenant_suspension_events_tenant": "tenant_suspension_events (tenant_name, occurred_at)",
    "reconciler_skill_state": (
        "tenant_skill_events (tenant_name, skill_id, occurred_at DESC, id DESC) INCLUDE (event_kind)"
    ),
    "reconciler_suspension_state": (
        "tenant_suspension_events (tenant_name, occurred_at DESC, id DESC) INCLUDE (event_kind)"
    ),
    "uniq_invoices_org_period": "unique invoices (zitadel_org_id, period_start)",
    "uniq_org_payment_methods_default": "unique org_payment_methods (zitadel_org_id) WHERE is_default",
}

FRESH = 11 + 1 + len(INDEXES) + 1 + 7 + 1 + 3 + len(schema.STEPS)
"""Lines of the report on a fresh database: tables, the row, indexes, our schema with its first tables, views, indexes,
and the steps."""


def _constraint(definition: str) -> str:
    """Normalise a CHECK's list of values, which PostgreSQL's versions print differently."""
    if listed := re.match(r"CHECK \(\(?(\w+) = ANY", definition):
        values = re.findall(r"'(\w+)'", definition) or re.findall(r"\b\d+\b", definition)
        return f"CHECK ({listed[1]} in {', '.join(values)})"
    return definition.replace("((", "(").replace("))", ")")


def _definitions(connection: Connection, schema: str) -> dict[str, list[str]]:
    constraints: dict[str, list[str]] = {}
    for table, definition in connection.execute(
        "SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE connamespace = %s::regnamespace AND contype IN ('c', 'f', 'p', 'u') AND conrelid <> 0",
        [schema],
    ):
        constraints.setdefault(table, []).append(_constraint(definition))
    return {table: sorted(definitions) for table, definitions in constraints.items()}


@contextmanager
def _open_insert(url: str) -> Iterator[None]:
    """Hold a portal's transaction open: a concurrent build waits for it."""
    with database.connect(url) as portal, portal.transaction():
        _insert(portal)
        yield


def _insert(portal: Connection) -> None:
    portal.execute(
        "INSERT INTO tenant_skill_events (tenant_name, zitadel_org_id, skill_id, event_kind) "
        "VALUES ('acme', '2871', 'searxng', 'enabled')"
    )


def _migrate(url: str) -> list[str]:
    with database.connect(url) as connection:
        return migrate.migrate(connection)


def _wait_for_a_build(connection: Connection) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if connection.execute(
            "SELECT FROM pg_stat_progress_create_index WHERE datname = current_database() AND phase LIKE 'waiting%'"
        ).fetchall():
            return
        time.sleep(0.05)
    pytest.fail("no session builds an index")


def _valid(connection: Connection) -> dict[str, bool]:
    return dict(
        connection.execute(
            "SELECT indexrelid::regclass::text, indisvalid FROM pg_index "
            "WHERE indexrelid::regclass::text LIKE 'reconciler%state'"
        ).fetchall()
    )


@pytest.fixture
def portal(ledger: Connection) -> Connection:
    """A ledger as the portal alone creates it: without the covering indexes."""
    ledger.execute("DROP INDEX reconciler_skill_state, reconciler_suspension_state")
    return ledger


def test_a_fresh_database_gets_exactly_the_eleven_tables_and_columns(ledger: Connection) -> None:
    columns: dict[str, dict[str, str]] = {}
    for table, column, kind, required, default in ledger.execute(
        "SELECT attrelid::regclass::text, attname, format_type(atttypid, atttypmod), attnotnull, "
        "       pg_get_expr(adbin, adrelid) "
        "FROM pg_attribute JOIN pg_class c ON c.oid = attrelid "
        "LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum "
        "WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0 ORDER BY attrelid, attnum"
    ):
        kind_ = kind.replace("timestamp with time zone", "timestamptz")
        columns.setdefault(table, {})[column] = (
            kind_ + " !" * required + (f" ={default}" if default is not None else "")
        )
    assert columns == LEDGER
    assert {table: list(of) for table, of in columns.items()} == {table: list(of) for table, of in LEDGER.items()}


def test_a_fresh_database_gets_exactly_these_constraints(ledger: Connection) -> None:
    assert _definitions(ledger, "public") == CONSTRAINTS


def test_a_fresh_database_gets_exactly_these_indexes(ledger: Connection) -> None:
    indexes = {}
    for name, definition in ledger.execute(
        "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND indexname NOT IN "
        "(SELECT conname FROM pg_constraint)"
    ):
        unique, what = re.fullmatch(r"CREATE (UNIQUE )?INDEX \w+ ON public\.(.+)", definition).groups()  # type: ignore[union-attr]
        indexes[name] = ("unique " if unique else "") + what.replace("USING btree ", "")
    assert indexes == INDEXES


def test_platform_pricing_gets_its_only_row(ledger: Connection) -> None:
    assert ledger.execute(
        "SELECT id, tenant_monthly_fee_chf::text, vat_rate_chli::text FROM platform_pricing"
    ).fetchall() == [(1, "0.00", "8.10")]


def test_the_checks_of_schema_reconciler_match_the_enumerations(ledger: Connection) -> None:
    checks = _definitions(ledger, "reconciler")
    assert f"CHECK (mode in {', '.join(Mode)})" in checks["reconciler.runs"]
    assert f"CHECK (outcome in {', '.join(Result)})" in checks["reconciler.runs"]
    assert f"CHECK (evidence in {', '.join(Evidence)})" in checks["reconciler.corrections"]
    writing = ", ".join(action for action in Action if action.writes)
    assert f"CHECK (action in {writing})" in checks["reconciler.corrections"]


def test_every_table_and_view_of_schema_reconciler_has_a_comment(ledger: Connection) -> None:
    assert ledger.execute(
        "SELECT relname, obj_description(oid, 'pg_class') IS NOT NULL FROM pg_class "
        "WHERE relnamespace = 'reconciler'::regnamespace AND relkind IN ('r', 'v') ORDER BY relname COLLATE \"C\""
    ).fetchall() == [(name, True) for name in sorted(OWN + VIEWS)]


def test_the_report_names_everything_in_the_order_of_the_files(empty_url: str) -> None:
    report = _migrate(empty_url)
    assert [words for words in report if words.startswith("table public.")] == [
        f"table public.{table}" for table in LEDGER
    ]
    assert report[:2] == ["table public.platform_pricing", "row public.platform_pricing 1"]
    steps = [f"step {step.name}" for step in schema.STEPS]
    assert report[-len(steps) - 2 :] == COVERING + steps
    assert report.index("schema reconciler") < report.index("table reconciler.runs")
    assert len(report) == len(set(report)) == FRESH


def test_a_second_migration_creates_and_reports_nothing(empty_url: str) -> None:
    _migrate(empty_url)
    with database.connect(empty_url) as connection:
        before = connection.execute("SELECT oid, xmin FROM pg_class ORDER BY oid").fetchall()
        assert migrate.migrate(connection) == []
        assert connection.execute("SELECT oid, xmin FROM pg_class ORDER BY oid").fetchall() == before


def test_a_second_migration_waits_for_no_lock(ledger_url: str) -> None:
    """Not even if a transaction locks the tables, as a backup or a long report does, and never ends."""
    with database.connect(ledger_url) as other, other.transaction():
        other.execute("LOCK TABLE tenant_skill_events, invoices, reconciler.runs IN SHARE ROW EXCLUSIVE MODE")
        assert _migrate(ledger_url) == []


def test_existing_tables_rows_and_columns_survive(empty_url: str) -> None:
    with database.connect(empty_url) as portal:
        portal.execute(
            "CREATE TABLE tenant_billing_lifecycle (tenant_name text PRIMARY KEY, zitadel_org_id text NOT NULL, "
            "created_at timestamptz NOT NULL, deleted_at timestamptz, portal_note varchar(9))"
        )
        portal.execute("INSERT INTO tenant_billing_lifecycle VALUES ('acme', '2871', '2026-05-01Z', NULL, 'ours')")
        portal.execute("CREATE TABLE platform_pricing (id int PRIMARY KEY, tenant_monthly_fee_chf numeric(10, 2))")
        portal.execute("INSERT INTO platform_pricing VALUES (1, 49.00)")
        report = migrate.migrate(portal)
        assert "table public.invoices" in report
        assert "index public.idx_tenant_billing_lifecycle_org" in report
        assert not {"table public.tenant_billing_lifecycle", "row public.platform_pricing 1"} & set(report)
        assert portal.execute("SELECT tenant_name, portal_note FROM tenant_billing_lifecycle").fetchall() == [
            ("acme", "ours")
        ]
        assert portal.execute("SELECT id, tenant_monthly_fee_chf::text FROM platform_pricing").fetchall() == [
            (1, "49.00")
        ]


@pytest.mark.parametrize("sessions", [2, 8])
def test_concurrent_migrations_of_an_empty_database_all_succeed(empty_url: str, sessions: int) -> None:
    """Exactly one of them reports each object."""
    with ThreadPoolExecutor(sessions) as pool:
        reports = list(pool.map(_migrate, [empty_url] * sessions))
    assert sorted(map(bool, reports)) == [False] * (sessions - 1) + [True]
    assert len(max(reports, key=len)) == FRESH


@pytest.mark.parametrize("sessions", [2, 8])
def test_migrations_of_the_portals_ledger_at_the_same_time_all_succeed(
    portal: Connection, ledger_url: str, sessions: int
) -> None:
    with ThreadPoolExecutor(sessions) as pool:
        reports = list(pool.map(_migrate, [ledger_url] * sessions))
    assert sorted(sum(reports, [])) == COVERING  # noqa: RUF017 - eight short lists
    assert _valid(portal) == {"reconciler_skill_state": True, "reconciler_suspension_state": True}


def test_inserts_go_on_while_an_index_is_built(portal: Connection, ledger_url: str) -> None:
    with ThreadPoolExecutor(1) as pool:
        with _open_insert(ledger_url):
            report = pool.submit(_migrate, ledger_url)
            _wait_for_a_build(portal)
            portal.execute("SET statement_timeout = '30s'")
            _insert(portal)
            assert not report.done()
        assert report.result(PATIENCE) == COVERING


def test_another_sessions_build_is_waited_for(portal: Connection, ledger_url: str) -> None:
    def build() -> None:
        with database.connect(ledger_url) as other:
            other.execute(
                "CREATE INDEX CONCURRENTLY reconciler_skill_state ON tenant_skill_events "
                "(tenant_name, skill_id, occurred_at DESC, id DESC) INCLUDE (event_kind)"
            )

    with ThreadPoolExecutor(2) as pool:
        with _open_insert(ledger_url):
            other = pool.submit(build)
            _wait_for_a_build(portal)
            report = pool.submit(_migrate, ledger_url)
            time.sleep(1.5)  # longer than it takes PostgreSQL to find a deadlock
            assert not report.done()
            assert not other.done()
        other.result(PATIENCE)
        assert report.result(PATIENCE) == COVERING[1:]


def test_another_sessions_build_is_not_waited_for_indefinitely(
    portal: Connection, ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadPoolExecutor(1) as pool, _open_insert(ledger_url):
        first = pool.submit(_migrate, ledger_url)
        _wait_for_a_build(portal)
        monkeypatch.setattr(migrate, "MAX_BUILD_SECONDS", 0.5)
        with pytest.raises(migrate.MigrationBusy):
            _migrate(ledger_url)
        portal.execute(
            "SELECT pg_cancel_backend(pid) FROM pg_stat_progress_create_index WHERE datname = current_database()"
        )
        with pytest.raises(migrate.MigrationHeldUp):
            first.result(PATIENCE)


def test_an_index_left_by_a_dead_build_is_rebuilt(
    portal: Connection, ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, _open_insert(ledger_url):
        patch.setattr(migrate, "MAX_BUILD_SECONDS", 0.5)
        with pytest.raises(migrate.MigrationHeldUp, match="reconciler_skill_state was not built in time"):
            _migrate(ledger_url)
    assert _valid(portal) == {"reconciler_skill_state": False}
    assert _migrate(ledger_url) == [
        "index public.reconciler_skill_state (rebuilt: an earlier build had died)",
        "index public.reconciler_suspension_state",
    ]
    assert _valid(portal) == {"reconciler_skill_state": True, "reconciler_suspension_state": True}
    assert _migrate(ledger_url) == []


def test_a_build_that_hits_a_deadlock_is_repeated(
    portal: Connection, ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, fails = migrate._execute_bounded, [psycopg.errors.DeadlockDetected("deadlock detected")]  # noqa: SLF001

    def fail_once(*arguments: Any) -> None:
        if fails:
            raise fails.pop()
        run(*arguments)

    monkeypatch.setattr(migrate, "_execute_bounded", fail_once)
    assert _migrate(ledger_url) == COVERING
    assert all(_valid(portal).values())


def test_duplicate_rows_are_named_and_leave_no_index(ledger: Connection, ledger_url: str) -> None:
    ledger.execute("DROP INDEX uniq_invoices_org_period")
    ledger.execute(
        "INSERT INTO invoices (invoice_number, zitadel_org_id, period_start, period_end, due_at, subtotal_chf, "
        "vat_rate, vat_amount_chf, total_chf, billing_snapshot, payment_method) "
        "SELECT number, '2871', '2026-05-01', '2026-05-31', '2026-06-30', 1, 8.1, 0.08, 1.08, '{}', 'invoice' "
        "FROM unnest(ARRAY['1', '2']) AS number"
    )
    with pytest.raises(migrate.MigrationConflict, match=r"Key \(zitadel_org_id, period_start\)=\(2871, 2026-05-01\)"):
        _migrate(ledger_url)
    assert ledger.execute("SELECT to_regclass('uniq_invoices_org_period')").fetchall() == [(None,)]


@pytest.mark.parametrize(
    ("taken", "named"),
    [
        ("CREATE VIEW invoices AS SELECT 1", r"table public\.invoices .*something else has that name"),
        ("CREATE TABLE invoices (id uuid)", "table public.invoice_lines does not fit"),
        (
            "CREATE SCHEMA reconciler; CREATE TABLE reconciler.proving_runs (id int)",
            "view reconciler.proving_runs does not fit",
        ),
        ("CREATE TABLE tenant_skill_events (id int)", "index public.idx_tenant_skill_events_tenant_skill"),
        (
            (
                "CREATE TABLE tenant_skill_events "
                "(tenant_name text, zitadel_org_id text, skill_id text, occurred_at timestamptz);"
                "CREATE VIEW idx_tenant_skill_events_tenant_skill AS SELECT 1"
            ),
            r"index public\.idx_tenant_skill_events_tenant_skill .*something else has that name",
        ),
    ],
)
def test_a_conflict_names_the_object(empty_url: str, taken: str, named: str) -> None:
    with database.connect(empty_url) as connection:
        connection.execute(taken.encode())
        with pytest.raises(migrate.MigrationConflict, match=named):
            migrate.migrate(connection)


def test_a_role_without_rights_learns_who_has_them(empty_url: str) -> None:
    role = f"role_{uuid4().hex}"
    with database.connect(empty_url) as owner:
        owner.execute(f"CREATE ROLE {role}; REVOKE CREATE ON SCHEMA public FROM PUBLIC".encode())
        try:
            owner.execute(f"SET ROLE {role}".encode())
            with pytest.raises(migrate.MigrationDenied, match="platform_pricing") as caught:
                migrate.migrate(owner)
            assert "as the owner" in caught.value.remedy
        finally:
            owner.execute(f"RESET ROLE; DROP ROLE {role}".encode())


def test_a_role_without_rights_can_migrate_if_nothing_is_missing(role_url: str) -> None:
    assert _migrate(role_url) == []


def test_a_migration_sees_the_one_before_at_any_isolation_level(empty_url: str) -> None:
    with database.connect(empty_url) as connection, database.connect(empty_url) as holder:
        connection.execute("SET default_transaction_isolation = 'repeatable read'")
        with ThreadPoolExecutor(1) as pool:
            with holder.transaction():
                holder.execute(queries.query("migration_lock"))
                report = pool.submit(migrate.migrate, connection)
                time.sleep(0.3)
                holder.execute("CREATE TABLE public.skill_pricing (skill_id text PRIMARY KEY)")
            assert "table public.skill_pricing" not in report.result(PATIENCE)


def test_the_latest_states_come_from_an_index_only_scan(ledger: Connection) -> None:
    for table, key, values in (
        ("tenant_skill_events", "tenant_name, skill_id", "'enabled', 'skill-' || s"),
        ("tenant_suspension_events", "tenant_name", "'suspended'"),
    ):
        ledger.execute(
            f"INSERT INTO {table} (tenant_name, zitadel_org_id, occurred_at, event_kind"  # noqa: S608
            f"{', skill_id' if 'skill_id' in key else ''}) "
            f"SELECT 'tenant-' || t, 'org', timestamptz '2026-01-01Z' + e * interval '1 day', {values} "
            "FROM generate_series(1, 5) e, generate_series(1, 8) s, generate_series(1, 2000) t".encode()
        )
        _vacuum(ledger, table)
        plan = "\n".join(
            line
            for (line,) in ledger.execute(
                f"EXPLAIN SELECT DISTINCT ON ({key}) {key}, event_kind, occurred_at, id FROM {table} "  # noqa: S608
                f"ORDER BY {key}, occurred_at DESC, id DESC".encode()
            )
        )
        assert "Index Only Scan using reconciler_" in plan
        assert "Sort" not in plan


def _vacuum(ledger: Connection, table: str) -> None:
    """Vacuum a table until every page of it is marked as visible to all.

    PostgreSQL leaves out what an older snapshot may still see, such as that of an ANALYZE by autovacuum.
    """
    ends, visible = time.monotonic() + PATIENCE, False
    while not visible:
        assert time.monotonic() < ends, f"{table} was never visible to all"
        ledger.execute(f"VACUUM ANALYZE {table}".encode())
        asked = "SELECT relallvisible >= relpages FROM pg_catalog.pg_class WHERE oid = %s::regclass"
        ((visible,),) = ledger.execute(asked, [f"public.{table}"]).fetchall()


def _correct(connection: Connection, run: UUID, **changed: Any) -> None:
    values = {"subject": "searxng", "supersedes_event_id": 7, "observed": "enabled"} | changed
    connection.execute(
        "INSERT INTO reconciler.corrections (run_id, reason, tenant_name, zitadel_org_id, action, event_table, "
        "subject, supersedes_event_id, observed) VALUES (%(run)s, 'skill_enable_unrecorded', 'acme', '2871', 'append', "
        "%(table)s, %(subject)s, %(supersedes_event_id)s, %(observed)s)",
        {"run": run, "table": Table.SKILL_EVENTS} | values,
    )


@pytest.fixture
def run(ledger: Connection) -> UUID:
    """The id of a recorded run."""
    run = uuid4()
    ledger.execute(
        "INSERT INTO reconciler.runs (id, started_at, mode, outcome, version) "
        "VALUES (%s, now(), 'run', 'corrected', '1')",
        [run],
    )
    return run


@pytest.fixture
def runs_of_every_kind(ledger: Connection) -> Connection:
    """A ledger with a thousand runs of each mode, outcome and source."""
    ledger.execute(
        "INSERT INTO reconciler.runs (id, started_at, observed_at, mode, outcome, version, source) "
        "SELECT gen_random_uuid(), now(), now() - number * interval '1 min', mode, outcome, '1', source "
        "FROM generate_series(1, 1000) AS number, unnest(%s::text[]) AS mode, unnest(%s::text[]) AS outcome, "
        "     unnest(%s::text[]) AS source",
        [list(Mode), list(Result), ["snapshot", "a cluster", None]],
    )
    ledger.execute("ANALYZE reconciler.runs")
    return ledger


def test_only_successful_runs_over_a_cluster_prove_the_ledger(runs_of_every_kind: Connection) -> None:
    assert runs_of_every_kind.execute(
        "SELECT mode, outcome, source, count(*) FROM reconciler.proving_runs GROUP BY 1, 2, 3 ORDER BY 2"
    ).fetchall() == [("run", outcome, "a cluster", 1000) for outcome in ("clean", "corrected", "drift")]


def test_the_latest_proving_run_is_found_by_its_index(runs_of_every_kind: Connection) -> None:
    plan = runs_of_every_kind.execute(
        "EXPLAIN SELECT observed_at FROM reconciler.proving_runs "
        "WHERE observed_at <= now() AND 'acme' <> ALL (unverified) ORDER BY observed_at DESC LIMIT 1"
    ).fetchall()
    assert any("Index Scan using runs_succeeded" in line for (line,) in plan)
    assert not any("Sort" in line for (line,) in plan)


@pytest.mark.parametrize("missing", [{}, {"subject": None}, {"supersedes_event_id": None}])
def test_the_same_correction_is_refused_twice(ledger: Connection, run: UUID, missing: dict[str, None]) -> None:
    """Also if it has no subject, or corrects no earlier event."""
    _correct(ledger, run, **missing)
    with pytest.raises(psycopg.errors.UniqueViolation) as caught:
        _correct(ledger, run, **missing)
    assert caught.value.diag.constraint_name == "uniq_corrections_identity"


@pytest.mark.parametrize(
    "other",
    [{"subject": "threema"}, {"supersedes_event_id": 8}, {"observed": "disabled"}, {"table": Table.SUSPENSION_EVENTS}],
)
def test_another_correction_is_not_refused(ledger: Connection, run: UUID, other: dict[str, Any]) -> None:
    _correct(ledger, run)
    _correct(ledger, run, **other)


def test_there_is_only_one_source(ledger: Connection) -> None:
    ledger.execute("INSERT INTO reconciler.source (identity) VALUES ('snapshot')")
    with pytest.raises(psycopg.errors.IntegrityError):
        ledger.execute("INSERT INTO reconciler.source (id, identity) VALUES (2, 'snapshot')")


def test_no_thread_is_left_behind(portal: Connection) -> None:
    """The thread that would cancel a build ends with it."""
    before = threading.enumerate()
    assert migrate.migrate(portal) == COVERING
    assert threading.enumerate() == before
