"""Whose transaction the ledger's functions use, and which settings of the connection do not matter."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.pq import Format, TransactionStatus
from psycopg.rows import dict_row
from psycopg.types.numeric import Float8BinaryLoader, FloatLoader

from reconciler import ledger as ledger_api
from reconciler.core.model import Lifecycle
from reconciler.ledger import SkillEvent, SuspensionEvent
from tests.support.ledger_calls import BORN, CALLS, HOUR, PUBLIC, WRITES, Connection, open_connection, record_acme
from tests.support.ledger_rows import all_rows

if TYPE_CHECKING:
    from collections.abc import Callable


each_call = pytest.mark.parametrize("name", CALLS)


def test_calls_has_every_function() -> None:
    assert CALLS.keys() == PUBLIC.keys()


@each_call
def test_only_the_caller_commits_or_rolls_back(ledger: Connection, ledger_url: str, name: str) -> None:
    """What the caller did before in the same transaction is still open, and rolled back with it."""
    record_acme(ledger)
    before = all_rows(ledger_url)
    with open_connection(ledger_url) as portal:
        portal.execute("INSERT INTO skill_pricing VALUES ('before', 1)")
        CALLS[name](portal)
        assert portal.info.transaction_status == TransactionStatus.INTRANS
        assert all_rows(ledger_url) == before
        portal.rollback()
    assert all_rows(ledger_url) == before


@each_call
def test_autocommit_makes_every_write_visible_immediately(ledger: Connection, ledger_url: str, name: str) -> None:
    record_acme(ledger)
    before = all_rows(ledger_url)
    CALLS[name](ledger)
    assert ledger.info.transaction_status == TransactionStatus.IDLE
    assert (all_rows(ledger_url) != before) is (name in WRITES)


@each_call
def test_psycopg_errors_pass_through_unchanged(ledger: Connection, name: str) -> None:
    record_acme(ledger)
    with ledger.transaction(force_rollback=True):
        with pytest.raises(psycopg.errors.DivisionByZero):
            ledger.execute("SELECT 1 / 0")
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            CALLS[name](ledger)


def call_everything(connection: Connection) -> list[object]:
    """Call every function whose result does not depend on the clock."""
    ledger_api.record_skills(connection, "acme", "2871", enabled=["wiki"], disabled=["mail"], occurred_at=BORN + HOUR)
    ledger_api.record_resumption(connection, "acme", "2871", BORN + HOUR)
    return [
        ledger_api.record_creation(connection, "acme", "2871", BORN),
        ledger_api.record_deletion(connection, "acme", BORN + 2 * HOUR),
        ledger_api.record_deletion(connection, "acme", BORN + 3 * HOUR),
        ledger_api.lifecycle(connection, "acme"),
        ledger_api.lifecycles(connection, "2871"),
        ledger_api.skill_state_at(connection, "acme", BORN + HOUR),
        ledger_api.suspension_state_at(connection, "acme", BORN + HOUR),
        ledger_api.skill_events(connection, BORN, BORN + 2 * HOUR, tenant="acme"),
        ledger_api.suspension_events(connection, BORN, BORN + 2 * HOUR, org="2871"),
        ledger_api.change_platform_prices(connection, threema_message_chf=Decimal("0.05")).threema_message_chf,
        ledger_api.set_skill_price(connection, "mail", Decimal("0.6")),
        [(price.skill, price.daily_price_chf) for price in ledger_api.skill_prices(connection)],
        ledger_api.remove_skill_price(connection, "mail"),
        ledger_api.change_org_billing(connection, "2871", pay_by_invoice=True).pay_by_invoice,
    ]


EXPECTED: list[object] = [
    False,
    True,
    False,
    Lifecycle(org="2871", created_at=BORN, deleted_at=BORN + 2 * HOUR),
    {"acme": Lifecycle(org="2871", created_at=BORN, deleted_at=BORN + 2 * HOUR)},
    {
        "mail": SkillEvent(id=2, tenant="acme", org="2871", skill="mail", kind="disabled", occurred_at=BORN + HOUR),
        "wiki": SkillEvent(id=3, tenant="acme", org="2871", skill="wiki", kind="enabled", occurred_at=BORN + HOUR),
    },
    SuspensionEvent(id=2, tenant="acme", org="2871", kind="resumed", occurred_at=BORN + HOUR),
    [
        SkillEvent(id=1, tenant="acme", org="2871", skill="mail", kind="enabled", occurred_at=BORN),
        SkillEvent(id=2, tenant="acme", org="2871", skill="mail", kind="disabled", occurred_at=BORN + HOUR),
        SkillEvent(id=3, tenant="acme", org="2871", skill="wiki", kind="enabled", occurred_at=BORN + HOUR),
    ],
    [
        SuspensionEvent(id=1, tenant="acme", org="2871", kind="suspended", occurred_at=BORN),
        SuspensionEvent(id=2, tenant="acme", org="2871", kind="resumed", occurred_at=BORN + HOUR),
    ],
    Decimal("0.05"),
    False,
    [("mail", Decimal("0.6"))],
    True,
    True,
]

CONNECTION_SETTINGS: dict[str, Callable[[Connection], object]] = {
    "none": lambda _: None,
    "rows are dicts": lambda c: setattr(c, "row_factory", dict_row),
    "raw cursors": lambda c: setattr(c, "cursor_factory", psycopg.RawCursor),
    "client cursors": lambda c: setattr(c, "cursor_factory", psycopg.ClientCursor),
    "everything is prepared": lambda c: setattr(c, "prepare_threshold", 0),
    "nothing is prepared": lambda c: setattr(c, "prepare_threshold", None),
    "numerics are floats": lambda c: c.adapters.register_loader("numeric", FloatLoader),
    "another time zone": lambda c: c.execute("SET timezone = 'Europe/Zurich'"),
    "another notation": lambda c: c.execute("SET datestyle = 'SQL, DMY'"),
    "no search path": lambda c: c.execute("SET search_path = ''"),
    "repeatable read": lambda c: setattr(c, "isolation_level", psycopg.IsolationLevel.REPEATABLE_READ),
    "serializable": lambda c: setattr(c, "isolation_level", psycopg.IsolationLevel.SERIALIZABLE),
}


@pytest.mark.parametrize("setting", CONNECTION_SETTINGS)
def test_connection_settings_do_not_change_the_results(ledger: Connection, setting: str) -> None:
    record_acme(ledger)
    CONNECTION_SETTINGS[setting](ledger)
    assert call_everything(ledger) == EXPECTED


def test_loaders_of_the_whole_program_do_not_change_the_results(ledger: Connection) -> None:
    record_acme(ledger)
    psycopgs_own = psycopg.adapters.get_loader(psycopg.adapters.types["timestamptz"].oid, Format.BINARY)
    assert psycopgs_own
    psycopg.adapters.register_loader("timestamptz", Float8BinaryLoader)
    try:
        assert call_everything(ledger) == EXPECTED
    finally:
        psycopg.adapters.register_loader("timestamptz", psycopgs_own)


def test_a_pipeline_does_not_change_the_results(ledger: Connection) -> None:
    record_acme(ledger)
    with ledger.pipeline():
        assert call_everything(ledger) == EXPECTED


def test_each_call_may_use_another_session(ledger: Connection, ledger_url: str) -> None:
    """As behind a PgBouncer in transaction mode: no call relies on the session of the one before."""
    record_acme(ledger)

    with open_connection(ledger_url, autocommit=True) as other:
        sessions = [ledger, other] * 20
        original = psycopg.Cursor.__init__

        def init(cursor: psycopg.Cursor[Any], _: Connection, **how: Any) -> None:
            original(cursor, sessions.pop(), **how)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(psycopg.Cursor, "__init__", init)
            assert call_everything(ledger) == EXPECTED


def test_nothing_is_prepared_where_the_connection_forbids_it(ledger: Connection) -> None:
    """Behind a PgBouncer before 1.21, a prepared statement would belong to another client."""
    ledger.prepare_threshold = None
    for _ in range(10):
        ledger_api.skill_state_at(ledger, "acme", BORN)
        ledger_api.record_skills(ledger, "acme", "2871", enabled=["mail"])
    assert ledger.execute("SELECT name FROM pg_prepared_statements").fetchall() == []
