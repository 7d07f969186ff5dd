"""What people decided, written by other programs: in their transaction, with the rules of the commands."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql
from psycopg.pq import TransactionStatus

from reconciler import ledger as ledger_api
from reconciler.ledger import InvalidArgument, IsolationTooStrict, NotPutRight, Shown
from tests.integration.test_ledger_connection import CONNECTION_SETTINGS
from tests.support.ledger_calls import BORN, HOUR, SAID, SHOWN, SPAN, Connection, open_connection, record_acme
from tests.support.ledger_rows import all_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from reconciler.core.errors import Failure
    from tests.conftest import Psql

DAY = timedelta(days=1)
GONE = Shown(source="cluster")


@pytest.fixture
def acme(ledger: Connection) -> Connection:
    record_acme(ledger)
    return ledger


STRICT = {"repeatable read", "serializable"}


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize("setting", [name for name in CONNECTION_SETTINGS if name not in STRICT])
def test_connection_settings_do_not_change_a_decision(ledger_url: str, setting: str) -> None:
    off: dict[str, Any] = {"since": BORN + DAY, "until": BORN + 3 * DAY}
    with open_connection(ledger_url) as portal:
        CONNECTION_SETTINGS[setting](portal)
        done = ledger_api.decide_skill(portal, "acme", "mail", enabled=False, **off, **SAID)
        back = ledger_api.retract(portal, done.number or 0, **SAID)
    assert [(line.days_before, line.days_after, line.difference_chf) for line in done.changes] == [
        (28, 27, Decimal("-0.60"))
    ]
    assert [(row.event_kind, row.moment and row.moment.occurred_at) for row in done.appended] == [
        ("disabled", BORN + DAY),
        ("enabled", BORN + 3 * DAY),
    ]
    assert back.difference_chf == Decimal("0.60")


@pytest.mark.usefixtures("acme")
def test_the_transaction_goes_on_with_its_own_settings(ledger_url: str) -> None:
    with open_connection(ledger_url) as portal:
        portal.execute(
            "SET timezone = 'Europe/Zurich'; SET LOCAL search_path = ''; SET LOCAL statement_timeout = '9min'"
        )
        before = portal.execute("SHOW ALL").fetchall()
        ledger_api.decide_payer(portal, "acme", "2872", since=BORN.date(), **SAID)
        assert portal.execute("SHOW ALL").fetchall() == before
        with pytest.raises(NotPutRight):
            ledger_api.decide_skill(portal, "acme", "mail", enabled=True, since=BORN - DAY, **SAID)
        assert portal.execute("SHOW ALL").fetchall() == before


def test_several_decisions_are_one_transaction(acme: Connection, ledger_url: str) -> None:
    before = all_rows(ledger_url)
    with open_connection(ledger_url) as portal:
        for _ in range(2):
            ledger_api.decide_skill(portal, "acme", "wiki", enabled=True, **SPAN, **SAID)
        assert portal.info.transaction_status == TransactionStatus.INTRANS
        assert all_rows(ledger_url) == before
        portal.commit()
    numbers = acme.execute("SELECT count(DISTINCT number) FROM reconciler.corrections").fetchall()
    assert numbers == [(2,)]


def test_a_dry_run_returns_the_same_and_writes_nothing(acme: Connection, ledger_url: str) -> None:
    before = all_rows(ledger_url)
    shown = ledger_api.decide_skill(acme, "acme", "mail", enabled=False, **SPAN, **SAID, dry_run=True)
    assert all_rows(ledger_url) == before
    done = ledger_api.decide_skill(acme, "acme", "mail", enabled=False, **SPAN, **SAID)
    assert (shown.number, shown.changes, shown.appended) == (None, done.changes, done.appended)


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize("level", [psycopg.IsolationLevel.REPEATABLE_READ, psycopg.IsolationLevel.SERIALIZABLE])
def test_a_transaction_that_may_be_stale_decides_nothing(ledger_url: str, level: psycopg.IsolationLevel) -> None:
    before = all_rows(ledger_url)
    with open_connection(ledger_url) as portal:
        portal.isolation_level = level
        with pytest.raises(IsolationTooStrict):
            ledger_api.decide_skill(portal, "acme", "mail", enabled=False, **SPAN, **SAID)
        portal.commit()
    assert all_rows(ledger_url) == before


def test_the_cluster_is_asked_for_where_now_would_change(acme: Connection) -> None:
    gone: dict[str, Any] = {"alive": False, "since": BORN + DAY}
    with pytest.raises(ledger_api.ClusterNeeded):
        ledger_api.decide_lifetime(acme, "acme", **gone, **SAID)
    with pytest.raises(NotPutRight, match="the cluster shows it alive"):
        ledger_api.decide_lifetime(acme, "acme", **gone, **SAID, shown=SHOWN)
    with pytest.raises(NotPutRight, match="belongs to the source"):
        ledger_api.decide_lifetime(acme, "acme", **gone, **SAID, shown=Shown(source="another"))
    ledger_api.decide_lifetime(acme, "acme", **gone, **SAID, shown=GONE)
    found = ledger_api.lifecycle(acme, "acme")
    assert found
    assert found.deleted_at == BORN + DAY


def test_the_latest_row_is_taken_back_with_the_cluster(acme: Connection) -> None:
    with pytest.raises(ledger_api.ClusterNeeded):
        ledger_api.retract(acme, "suspension:1", **SAID)
    ledger_api.retract(acme, "suspension:1", **SAID, shown=SHOWN)
    state = ledger_api.suspension_state_at(acme, "acme", BORN + DAY)
    assert state
    assert not state.suspended


def test_a_recreated_tenant_is_reopened_from_python(acme: Connection) -> None:
    done = ledger_api.reopen(acme, "acme", shown=SHOWN, ended_at=BORN + HOUR, **SAID)
    found = ledger_api.lifecycle(acme, "acme")
    assert found == ledger_api.Lifecycle(org="2872", created_at=BORN + DAY)
    assert acme.execute(
        "SELECT number, reason, by, note FROM reconciler.corrections WHERE event_table = 'tenant_billing_lifecycle'"
    ).fetchall() == [(done.number, "reopened", *SAID.values())]


def call(function: Any, *arguments: Any, **named: Any) -> Callable[[Connection], object]:
    """Return a call with arguments that a type checker would refuse."""
    return lambda connection: function(connection, *arguments, **named)


REFUSED: list[Any] = [
    pytest.param(
        lambda c: ledger_api.decide_skill(c, "acne", "mail", enabled=True, **SPAN, **SAID),
        ledger_api.UnknownTenant,
        id="a name that nobody knows",
    ),
    pytest.param(lambda c: ledger_api.retract(c, 999, **SAID), NotPutRight, id="a number that nobody knows"),
    pytest.param(call(ledger_api.retract, None, **SAID), InvalidArgument, id="no number"),
    pytest.param(
        lambda c: ledger_api.decide_payer(c, "acme", "2872", since=BORN, **SAID), InvalidArgument, id="half a day"
    ),
    pytest.param(
        lambda c: ledger_api.decide_payer(c, "acme", "", since=BORN.date(), **SAID), InvalidArgument, id="nobody pays"
    ),
    pytest.param(
        call(ledger_api.decide_skill, "acme", "mail", enabled=None, **SPAN, **SAID),
        InvalidArgument,
        id="neither on nor off",
    ),
    pytest.param(
        lambda c: ledger_api.decide_skill(c, "acme", "mail", enabled=True, **SPAN, by="", note="why"),
        InvalidArgument,
        id="nobody decides",
    ),
    pytest.param(
        lambda c: ledger_api.decide_skill(c, "acme", "mail", enabled=True, **SPAN, by="me", note="a\0b"),
        InvalidArgument,
        id="a note that cannot be stored",
    ),
    pytest.param(
        lambda c: ledger_api.decide_suspension(c, "acme", suspended=True, since=datetime(2026, 5, 5), **SAID),  # noqa: DTZ001
        InvalidArgument,
        id="a time without a zone",
    ),
    pytest.param(
        lambda c: ledger_api.reopen(c, "acme", shown=Shown(source="cluster", uid="2"), **SAID),
        InvalidArgument,
        id="a resource without its creation",
    ),
]


@pytest.mark.parametrize(("refused", "error"), REFUSED)
def test_what_is_refused_leaves_the_transaction_as_it_was(
    acme: Connection, ledger_url: str, refused: Callable[[Connection], object], error: type[Failure]
) -> None:
    with open_connection(ledger_url) as portal:
        ledger_api.set_skill_price(portal, "wiki", Decimal(1))
        with pytest.raises(error) as raised:
            refused(portal)
        assert raised.value.remedy
        portal.commit()
    assert ledger_api.skill_price(acme, "wiki")
    assert acme.execute("SELECT FROM reconciler.corrections").fetchall() == []


def test_the_role_of_the_runs_may_not_decide_from_python(acme: Connection, ledger_url: str, psql: Psql) -> None:
    names = {role: f"{role}_{urlsplit(ledger_url).path.strip('/')}" for role in ("run", "decide")}
    psql(ledger_url, "roles.sql", role=names["run"], decider=names["decide"])
    before = all_rows(ledger_url)
    try:
        with open_connection(ledger_url) as portal:
            portal.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(names["run"])))
            with pytest.raises(ledger_api.DecisionDenied):
                ledger_api.decide_skill(portal, "acme", "mail", enabled=False, **SPAN, **SAID)
            portal.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(names["decide"])))
            assert all_rows(ledger_url) == before
            assert ledger_api.decide_skill(portal, "acme", "mail", enabled=False, **SPAN, **SAID).number
    finally:
        for name in names.values():
            acme.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(name)))


def test_times_of_decisions_are_in_utc(acme: Connection) -> None:
    done = ledger_api.decide_skill(acme, "acme", "mail", enabled=False, **SPAN, **SAID)
    assert done.since.tzinfo is UTC
