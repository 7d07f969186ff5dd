from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from reconciler.db import connection as database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Psql

    Connection = psycopg.Connection[Any]

ROWS = """
INSERT INTO tenant_billing_lifecycle VALUES ('acme', 'unknown', '2026-05-01Z');
INSERT INTO tenant_skill_events (tenant_name, zitadel_org_id, skill_id, event_kind)
VALUES ('acme', '1', 's', 'enabled');
INSERT INTO tenant_suspension_events (tenant_name, zitadel_org_id, event_kind) VALUES ('acme', '1', 'suspended');
"""

PERMITTED = [
    "SELECT * FROM tenant_skill_events",
    "SELECT * FROM tenant_suspension_events",
    "SELECT * FROM tenant_billing_lifecycle",
    "SELECT * FROM platform_pricing",
    "SELECT * FROM skill_pricing",
    "SELECT * FROM invoices",
    (
        "INSERT INTO tenant_skill_events (tenant_name, zitadel_org_id, skill_id, event_kind) "
        "VALUES ('acme', '1', 's', 'disabled') RETURNING id"
    ),
    (
        "INSERT INTO tenant_suspension_events (tenant_name, zitadel_org_id, event_kind) "
        "VALUES ('acme', '1', 'resumed') RETURNING id"
    ),
    "INSERT INTO tenant_billing_lifecycle VALUES ('other', '1', now()) ON CONFLICT DO NOTHING",
    "UPDATE tenant_billing_lifecycle SET deleted_at = now() WHERE tenant_name = 'acme' AND deleted_at IS NULL",
    "UPDATE tenant_billing_lifecycle SET zitadel_org_id = '1' WHERE zitadel_org_id = 'unknown'",
    "SELECT * FROM tenant_billing_lifecycle FOR UPDATE",
    "CREATE TEMPORARY TABLE staged (name text) ON COMMIT DROP",
    "SELECT pg_advisory_xact_lock(1)",
    (
        "INSERT INTO reconciler.runs (id, started_at, mode, outcome, version) "
        "VALUES (gen_random_uuid(), now(), 'run', 'clean', '1')"
    ),
    (
        "WITH run AS (INSERT INTO reconciler.runs (id, started_at, mode, outcome, version) "
        "VALUES (gen_random_uuid(), now(), 'run', 'corrected', '1') RETURNING id) "
        "INSERT INTO reconciler.corrections "
        "(run_id, reason, tenant_name, zitadel_org_id, action, observed, event_table) "
        "SELECT id, 'deletion_unrecorded', 'acme', '1', 'stamp', 'deleted', 'tenant_billing_lifecycle' FROM run"
    ),
    (
        "INSERT INTO reconciler.exceptions VALUES ('acme', 'org_moved', 'known', 'me', now(), now()) "
        "ON CONFLICT (tenant_name, reason) DO UPDATE SET note = excluded.note"
    ),
    "DELETE FROM reconciler.exceptions",
    (
        "INSERT INTO reconciler.source (identity) VALUES ('snapshot') "
        "ON CONFLICT (id) DO UPDATE SET resource_version = excluded.resource_version"
    ),
    "SELECT * FROM reconciler.corrections",
    "SELECT * FROM reconciler.proving_runs, reconciler.last_runs",
    "SELECT * FROM reconciler.migrations",
    "SELECT * FROM reconciler.payers",
    "SELECT * FROM reconciler.paid_days",
    "SELECT * FROM reconciler.closings, reconciler.closed_lines, reconciler.kept_prices, reconciler.closed_months",
    "UPDATE reconciler.runs SET notified = '{}'",
    "UPDATE reconciler.corrections SET taken_back_at = now()",
]

FORBIDDEN = [
    "DELETE FROM tenant_skill_events",
    "DELETE FROM tenant_suspension_events",
    "DELETE FROM tenant_billing_lifecycle",
    "UPDATE tenant_skill_events SET occurred_at = now()",
    "UPDATE tenant_suspension_events SET occurred_at = now()",
    "UPDATE tenant_billing_lifecycle SET created_at = now()",
    "UPDATE tenant_billing_lifecycle SET tenant_name = 'other'",
    "TRUNCATE tenant_skill_events",
    "TRUNCATE tenant_billing_lifecycle",
    "TRUNCATE reconciler.corrections",
    "DELETE FROM reconciler.corrections",
    "UPDATE reconciler.corrections SET impact_chf = 0",
    "DELETE FROM reconciler.runs",
    "UPDATE reconciler.runs SET outcome = 'clean'",
    "UPDATE reconciler.runs SET folded = 0",
    "UPDATE reconciler.migrations SET number = 999",
    "DELETE FROM reconciler.closed_lives",
    "INSERT INTO reconciler.payers VALUES ('', 'acme', 1, '1', '2026-05-15')",
    "UPDATE reconciler.payers SET org = '1'",
    "DELETE FROM reconciler.payers",
    "INSERT INTO reconciler.closings (month) VALUES ('2026-05-01')",
    "INSERT INTO reconciler.closed_lines (closing) VALUES (1)",
    "UPDATE reconciler.closings SET total_chf = 0",
    "UPDATE reconciler.closed_lines SET amount_chf = 0",
    "DELETE FROM reconciler.closings",
    "DELETE FROM reconciler.closed_lines",
    "ALTER TABLE tenant_skill_events ADD COLUMN note text",
    "ALTER TABLE reconciler.corrections DROP COLUMN reason",
    "DROP TABLE tenant_skill_events",
    "DROP TABLE reconciler.corrections",
    "DROP INDEX reconciler_skill_state",
    "CREATE INDEX ON tenant_skill_events (event_kind)",
    "CREATE TABLE reconciler.other (id int)",
    "CREATE SCHEMA other",
    "CREATE TRIGGER t BEFORE INSERT ON reconciler.corrections EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "SELECT setval('tenant_skill_events_id_seq', 1)",
    "INSERT INTO platform_pricing VALUES (1)",
    "UPDATE platform_pricing SET tenant_monthly_fee_chf = 0",
    "UPDATE skill_pricing SET daily_price_chf = 0",
    "UPDATE invoices SET status = 'void'",
    "INSERT INTO invoice_number_counters VALUES (2026)",
    "SELECT * FROM org_payment_methods",
    "SELECT * FROM org_billing_config",
    "SELECT * FROM invoice_lines",
    "SELECT * FROM invoice_reminders",
]


@pytest.fixture
def role(ledger: Connection, role_url: str) -> Iterator[Connection]:
    """A session of the least-privilege role, on a ledger with a tenant."""
    ledger.execute(ROWS.encode())
    with database.connect(role_url) as connection:
        yield connection


@pytest.mark.parametrize("statement", PERMITTED)
def test_the_role_may(role: Connection, statement: str) -> None:
    role.execute(statement.encode())


@pytest.mark.parametrize("statement", FORBIDDEN)
def test_the_role_may_not(role: Connection, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        role.execute(statement.encode())


def test_the_role_may_create_nothing_in_public(role: Connection) -> None:
    if role.info.server_version < 150000:
        pytest.skip("there everybody may, and the script warns of it")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        role.execute("CREATE TABLE public.other (id int)")


def test_the_script_warns_if_everybody_may_create_in_public(ledger: Connection, ledger_url: str, psql: Psql) -> None:
    name = f"role_{ledger.info.dbname}"
    ledger.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    try:
        assert "everybody may create tables in schema public" in psql(ledger_url, "roles.sql", role=name)
    finally:
        ledger.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(name)))


def test_the_script_is_repeatable_and_its_role_cannot_log_in(ledger: Connection, ledger_url: str, psql: Psql) -> None:
    name = f'a "strange" role of {ledger.info.dbname}'[:63]
    try:
        ledger.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        assert [psql(ledger_url, "roles.sql", role=name) for _ in range(2)] == ["", ""]
        assert ledger.execute(
            "SELECT rolcanlogin, rolsuper, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname = %s", [name]
        ).fetchall() == [(False, False, False, False)]
    finally:
        ledger.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(name)))


def test_the_role_is_called_reconciler_by_default(ledger: Connection, ledger_url: str, psql: Psql) -> None:
    if ledger.execute("SELECT FROM pg_roles WHERE rolname = 'reconciler'").fetchall():
        pytest.skip("the server that TEST_DATABASE_URL names has a role of that name")
    psql(ledger_url, "roles.sql")
    try:
        assert ledger.execute(
            "SELECT has_table_privilege('reconciler', 'tenant_skill_events', 'INSERT')"
        ).fetchall() == [(True,)]
    finally:
        ledger.execute("DROP OWNED BY reconciler; DROP ROLE reconciler")


# --- the role for decisions --------------------------------------------------------------------------------------

DECISION = (
    "INSERT INTO reconciler.corrections (reason, tenant_name, zitadel_org_id, action, observed, event_table, "
    "decision, decided_at, by, role, note) VALUES ('recorded', 'acme', '1', 'append', 'enabled', "
    "'tenant_skill_events', 1, now(), 'me', current_user, 'why')"
)
CLOSING = (
    "WITH made AS (INSERT INTO reconciler.closings (source, month, number, by, note, run_id, prices, accepted, "
    "total_chf, corrections_seen, skill_events_seen, suspension_events_seen) "
    "VALUES ('', '2026-05-01', 1, 'me', 'why', gen_random_uuid(), '{}', '[]', 0, 0, 0, 0) RETURNING id)"
)
LINE = "'1', 'acme', 's', 1, 1, 1"
DECIDER_MAY = [
    pytest.param(DECISION, id="decide"),
    pytest.param("SELECT nextval('reconciler.corrections_id_seq')", id="draw a number"),
    pytest.param(
        "UPDATE tenant_billing_lifecycle SET created_at = created_at, deleted_at = NULL", id="move a lifetime"
    ),
    pytest.param(
        "INSERT INTO reconciler.closed_lives VALUES ('acme', '1', now(), now(), now(), 'me', 'why')",
        id="keep a lifetime",
    ),
    pytest.param("UPDATE reconciler.corrections SET taken_back_by = 1", id="take back"),
    pytest.param("UPDATE reconciler.exceptions SET expires_at = now()", id="end an exception"),
    pytest.param(f"{CLOSING} INSERT INTO reconciler.closed_lines SELECT id, {LINE} FROM made", id="close"),  # noqa: S608
    pytest.param("SELECT * FROM invoice_lines", id="compare invoices"),
]
PROOFS = [
    *("runs", "corrections", "closed_lives", "payers", "closings", "closed_lines"),
    *("source", "tenants", "changes", "gaps", "totals", "reports"),
]


@pytest.fixture
def decider(ledger_url: str, psql: Psql) -> Iterator[Connection]:
    """A session of the role for decisions."""
    name = f"decider_{uuid.uuid4().hex}"
    psql(ledger_url, "roles.sql", role=f"run_{uuid.uuid4().hex}", decider=name)
    with database.connect(ledger_url) as connection:
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(name)))
        yield connection


@pytest.mark.parametrize("statement", DECIDER_MAY)
def test_the_role_for_decisions_may(decider: Connection, statement: str) -> None:
    decider.execute(statement)


@pytest.mark.parametrize("closing", ["max(id)", "max(id) + 1"], ids=["one that stands", "the next one"])
def test_no_line_is_added_to_another_closing(decider: Connection, closing: str) -> None:
    decider.execute(f"{CLOSING} SELECT FROM made")
    with pytest.raises(psycopg.errors.RestrictViolation):
        decider.execute(
            f"INSERT INTO reconciler.closed_lines SELECT {closing}, {LINE} FROM reconciler.closings"  # noqa: S608
        )


DECIDER_ALONE_MAY = {
    "UPDATE tenant_billing_lifecycle SET created_at = now()",
    "INSERT INTO reconciler.payers VALUES ('', 'acme', 1, '1', '2026-05-15')",
    "INSERT INTO reconciler.closings (month) VALUES ('2026-05-01')",
    "INSERT INTO reconciler.closed_lines (closing) VALUES (1)",
    "SELECT * FROM invoice_lines",
}


@pytest.mark.parametrize("statement", [each for each in FORBIDDEN if each not in DECIDER_ALONE_MAY])
def test_the_role_for_decisions_may_not(decider: Connection, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        decider.execute(statement.encode())


@pytest.mark.parametrize("table", PROOFS)
def test_the_role_for_decisions_removes_no_proof(decider: Connection, table: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        decider.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier("reconciler", table)))


def _columns(connection: Connection, table: str) -> list[str]:
    found = connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped "
        "AND attgenerated = '' AND attidentity = ''",
        [f"reconciler.{table}"],
    )
    return [name for (name,) in found.fetchall()]


def test_no_role_changes_a_proof_but_where_a_run_fills_in_later(role: Connection, decider: Connection) -> None:
    may = {
        (name, table, column)
        for name, connection in (("run", role), ("decider", decider))
        for table in PROOFS[:6]
        for column in _columns(connection, table)
        if connection.execute(
            "SELECT has_column_privilege(%s::regclass, %s, 'UPDATE')", [f"reconciler.{table}", column]
        ).fetchone()
        == (True,)
    }
    taken_back = {("corrections", "taken_back_at"), ("corrections", "taken_back_by")}
    assert may == {
        ("run", "runs", "notified"),
        *(("run", *column) for column in taken_back),
        *(("decider", *column) for column in taken_back),
    }


@pytest.mark.parametrize("column", ["by", "role", "note", "decided_at", "takes_back_event_id"])
def test_a_run_cannot_say_that_a_person_decided(role: Connection, column: str) -> None:
    assert role.execute("SELECT has_column_privilege('reconciler.corrections', %s, 'INSERT')", [column]).fetchone() == (
        False,
    )
