"""What a portal or a script records and reads through the ledger's own functions."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal, localcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import sql
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row
from psycopg.types.numeric import FloatLoader

from reconciler import ledger as books
from reconciler.core.errors import Failure
from reconciler.core.model import FIRST, LAST, Lifecycle, Result
from reconciler.core.reasons import Reason
from reconciler.db import queries
from reconciler.ledger import InvalidArgument, NotRecorded, OrgBilling, SkillEvent, SuspensionEvent
from tests.support.contents import contents
from tests.support.world import ORG_LABEL, tenant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.scene import World

Connection = psycopg.Connection[Any]

ROOT = Path(__file__).parents[2]
BORN = datetime(2026, 5, 4, 9, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
ALL_TIME = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))

PUBLIC = {
    name: function
    for name, function in inspect.getmembers(books, inspect.isfunction)
    if function.__module__ == books.__name__ and not name.startswith("_")
}

CALLS: dict[str, Callable[[Connection], object]] = {
    "record_creation": lambda c: books.record_creation(c, "new", "2871", BORN),
    "record_deletion": lambda c: books.record_deletion(c, "acme"),
    "lifecycle": lambda c: books.lifecycle(c, "acme"),
    "lifecycles": lambda c: books.lifecycles(c, "2871"),
    "record_skills": lambda c: books.record_skills(c, "acme", "2871", enabled=["wiki"], disabled=["mail"]),
    "record_suspension": lambda c: books.record_suspension(c, "acme", "2871"),
    "record_resumption": lambda c: books.record_resumption(c, "acme", "2871"),
    "skill_state_at": lambda c: books.skill_state_at(c, "acme", BORN),
    "suspension_state_at": lambda c: books.suspension_state_at(c, "acme", BORN),
    "skill_events": lambda c: books.skill_events(c, *ALL_TIME, tenant="acme"),
    "suspension_events": lambda c: books.suspension_events(c, *ALL_TIME, org="2871"),
    "platform_prices": books.platform_prices,
    "change_platform_prices": lambda c: books.change_platform_prices(c, vat_rate_chli=Decimal("7.7")),
    "skill_prices": books.skill_prices,
    "skill_price": lambda c: books.skill_price(c, "mail"),
    "set_skill_price": lambda c: books.set_skill_price(c, "mail", Decimal(2)),
    "remove_skill_price": lambda c: books.remove_skill_price(c, "mail"),
    "org_billing": lambda c: books.org_billing(c, "2871"),
    "change_org_billing": lambda c: books.change_org_billing(c, "2871", pay_by_invoice=True),
}
"""One call of each function, on a ledger with `seed`."""

WRITES = {name for name in CALLS if name.startswith(("record_", "change_", "set_", "remove_"))} | {"org_billing"}

each_call = pytest.mark.parametrize("name", CALLS)


def seed(connection: Connection) -> None:
    """Record a tenant with something in every table that is read."""
    books.record_creation(connection, "acme", "2871", BORN)
    books.record_skills(connection, "acme", "2871", enabled=["mail"], occurred_at=BORN)
    books.record_suspension(connection, "acme", "2871", BORN)
    books.set_skill_price(connection, "mail", Decimal("0.6"))


@contextmanager
def second(url: str, **how: Any) -> Iterator[Connection]:
    """Open another connection, as a portal would: not in autocommit mode unless it is asked for."""
    with closing(psycopg.connect(url, **how)) as connection:
        yield connection


def waits_for_a_lock(ledger: Connection, waiting: Connection) -> bool:
    """Whether a connection's statement is held up by another transaction."""
    found = ledger.execute(
        "SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'", [waiting.info.backend_pid]
    )
    return found.fetchone() is not None


def one_after_the_other(
    ledger: Connection, url: str, first: Callable[[Connection], object], then: Callable[[Connection], object]
) -> tuple[object, object]:
    """Call both at once on two connections, so that the second has begun before the first is committed."""
    with second(url) as one, second(url) as two, ThreadPoolExecutor(1) as pool:
        done = first(one)
        later = pool.submit(then, two)
        end = time.monotonic() + 30
        while not waits_for_a_lock(ledger, two):
            assert not later.done(), later.result()
            assert time.monotonic() < end, "it did not wait"
            time.sleep(0.01)
        one.commit()
        result = later.result(30)
        two.commit()
        return done, result


def at_once(url: str, call: Callable[[Connection], object], times: int = 8) -> list[object]:
    """Call it on so many connections at once."""

    def run(_: int) -> object:
        with second(url, autocommit=True) as connection:
            return call(connection)

    with ThreadPoolExecutor(times) as pool:
        return list(pool.map(run, range(times)))


# --- the caller's connection -------------------------------------------------------------------------------------


def test_every_function_is_called_here() -> None:
    assert CALLS.keys() == PUBLIC.keys()


@each_call
def test_nothing_is_committed_or_rolled_back_but_by_the_caller(ledger: Connection, ledger_url: str, name: str) -> None:
    """What the caller did before in the same transaction stays open, and goes with it."""
    seed(ledger)
    before = contents(ledger_url)
    with second(ledger_url) as portal:
        portal.execute("INSERT INTO skill_pricing VALUES ('before', 1)")
        CALLS[name](portal)
        assert portal.info.transaction_status == TransactionStatus.INTRANS
        assert contents(ledger_url) == before
        portal.rollback()
    assert contents(ledger_url) == before


@each_call
def test_in_autocommit_mode_what_is_written_stands_at_once(ledger: Connection, ledger_url: str, name: str) -> None:
    seed(ledger)
    before = contents(ledger_url)
    CALLS[name](ledger)
    assert ledger.info.transaction_status == TransactionStatus.IDLE
    assert (contents(ledger_url) != before) is (name in WRITES)


@each_call
def test_errors_of_psycopg_pass_through(ledger: Connection, name: str) -> None:
    seed(ledger)
    with ledger.transaction(force_rollback=True):
        with pytest.raises(psycopg.errors.DivisionByZero):
            ledger.execute("SELECT 1 / 0")
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            CALLS[name](ledger)


def story(connection: Connection) -> list[object]:
    """Call everything that returns the same in every ledger."""
    books.record_skills(connection, "acme", "2871", enabled=["wiki"], disabled=["mail"], occurred_at=BORN + HOUR)
    books.record_resumption(connection, "acme", "2871", BORN + HOUR)
    return [
        books.record_creation(connection, "acme", "2871", BORN),
        books.record_deletion(connection, "acme", BORN + 2 * HOUR),
        books.record_deletion(connection, "acme", BORN + 3 * HOUR),
        books.lifecycle(connection, "acme"),
        books.lifecycles(connection, "2871"),
        books.skill_state_at(connection, "acme", BORN + HOUR),
        books.suspension_state_at(connection, "acme", BORN + HOUR),
        books.skill_events(connection, BORN, BORN + 2 * HOUR, tenant="acme"),
        books.suspension_events(connection, BORN, BORN + 2 * HOUR, org="2871"),
        books.change_platform_prices(connection, threema_message_chf=Decimal("0.05")).threema_message_chf,
        books.set_skill_price(connection, "mail", Decimal("0.6")),
        [(price.skill, price.daily_price_chf) for price in books.skill_prices(connection)],
        books.remove_skill_price(connection, "mail"),
        books.change_org_billing(connection, "2871", pay_by_invoice=True).pay_by_invoice,
    ]


TOLD: list[object] = [
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

MANNERS: dict[str, Callable[[Connection], object]] = {
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


@pytest.mark.parametrize("manner", MANNERS)
def test_whatever_a_connection_is_set_to_the_answers_are_the_same(ledger: Connection, manner: str) -> None:
    seed(ledger)
    MANNERS[manner](ledger)
    assert story(ledger) == TOLD


def test_in_a_pipeline_the_answers_are_the_same(ledger: Connection) -> None:
    seed(ledger)
    with ledger.pipeline():
        assert story(ledger) == TOLD


def test_every_call_may_go_to_another_session(ledger: Connection, ledger_url: str) -> None:
    """As behind a PgBouncer in transaction mode: nothing of one call is needed by the next."""
    seed(ledger)

    with second(ledger_url, autocommit=True) as other:
        sessions = [ledger, other] * 20
        original = psycopg.Cursor.__init__

        def init(cursor: psycopg.Cursor[Any], _: Connection, **how: Any) -> None:
            original(cursor, sessions.pop(), **how)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(psycopg.Cursor, "__init__", init)
            assert story(ledger) == TOLD


def test_a_connection_that_prepares_nothing_has_nothing_prepared(ledger: Connection) -> None:
    """Behind a PgBouncer before 1.21 a prepared statement would be another client's."""
    ledger.prepare_threshold = None
    for _ in range(10):
        books.skill_state_at(ledger, "acme", BORN)
        books.record_skills(ledger, "acme", "2871", enabled=["mail"])
    assert ledger.execute("SELECT name FROM pg_prepared_statements").fetchall() == []


# --- tenants -----------------------------------------------------------------------------------------------------


def test_a_creation_is_recorded_once(ledger: Connection) -> None:
    """Neither a repetition nor another story about the same name moves what is there."""
    assert books.record_creation(ledger, "acme", "2871", BORN)
    assert not books.record_creation(ledger, "acme", "2871", BORN)
    assert not books.record_creation(ledger, "acme", "2872", BORN - HOUR)
    assert books.lifecycle(ledger, "acme") == Lifecycle(org="2871", created_at=BORN)


def test_a_creation_does_not_open_a_deleted_tenant_again(ledger: Connection) -> None:
    books.record_creation(ledger, "acme", "2871", BORN)
    books.record_deletion(ledger, "acme", BORN + HOUR)
    assert not books.record_creation(ledger, "acme", "2871", BORN + 2 * HOUR)
    assert books.lifecycle(ledger, "acme") == Lifecycle(org="2871", created_at=BORN, deleted_at=BORN + HOUR)


def test_of_two_creations_at_once_one_is_written(ledger: Connection, ledger_url: str) -> None:
    assert one_after_the_other(
        ledger,
        ledger_url,
        lambda one: books.record_creation(one, "acme", "2871", BORN),
        lambda two: books.record_creation(two, "acme", "2872", BORN + HOUR),
    ) == (True, False)
    assert books.lifecycle(ledger, "acme") == Lifecycle(org="2871", created_at=BORN)


def test_of_many_creations_at_once_one_is_written(ledger_url: str) -> None:
    assert sum(map(bool, at_once(ledger_url, CALLS["record_creation"]))) == 1


def test_a_creation_that_was_rolled_back_can_be_recorded(ledger: Connection, ledger_url: str) -> None:
    with second(ledger_url) as portal:
        assert books.record_creation(portal, "acme", "2871", BORN)
        portal.rollback()
    assert books.record_creation(ledger, "acme", "2871", BORN)


@pytest.mark.parametrize("org", [None, ""])
def test_an_organisation_that_is_empty_is_recorded_and_found_as_unknown(ledger: Connection, org: str | None) -> None:
    books.record_creation(ledger, "acme", org, BORN)
    (skill,) = books.record_skills(ledger, "acme", org, enabled=["mail"], occurred_at=BORN)
    suspension = books.record_suspension(ledger, "acme", org, BORN)
    assert {skill.org, suspension.org} == {"unknown"}
    assert books.lifecycles(ledger, org) == {"acme": Lifecycle(org="unknown", created_at=BORN)}
    assert books.skill_events(ledger, *ALL_TIME, org="") == [skill]
    assert books.suspension_events(ledger, *ALL_TIME, org="") == [suspension]


def test_a_deletion_is_recorded_once(ledger: Connection) -> None:
    books.record_creation(ledger, "acme", "2871", BORN)
    assert books.record_deletion(ledger, "acme", BORN + HOUR)
    assert not books.record_deletion(ledger, "acme", BORN + 2 * HOUR)
    assert not books.record_deletion(ledger, "acme")
    assert books.lifecycle(ledger, "acme") == Lifecycle(org="2871", created_at=BORN, deleted_at=BORN + HOUR)


def test_of_two_deletions_at_once_the_first_is_written(ledger: Connection, ledger_url: str) -> None:
    books.record_creation(ledger, "acme", "2871", BORN)
    assert one_after_the_other(
        ledger,
        ledger_url,
        lambda one: books.record_deletion(one, "acme", BORN + 2 * HOUR),
        lambda two: books.record_deletion(two, "acme", BORN + HOUR),
    ) == (True, False)
    assert books.lifecycle(ledger, "acme") == Lifecycle(org="2871", created_at=BORN, deleted_at=BORN + 2 * HOUR)


def test_of_many_deletions_at_once_one_is_written(ledger: Connection, ledger_url: str) -> None:
    seed(ledger)
    assert sum(map(bool, at_once(ledger_url, CALLS["record_deletion"]))) == 1


def test_a_deletion_without_a_time_is_dated_by_the_database(ledger: Connection) -> None:
    books.record_creation(ledger, "acme", "2871", BORN)
    with ledger.transaction():
        books.record_deletion(ledger, "acme")
        ((now,),) = ledger.execute("SELECT now()").fetchall()
    row = books.lifecycle(ledger, "acme")
    assert row
    assert row.deleted_at == now


def test_a_deletion_is_not_dated_before_a_creation_by_a_clock_that_is_ahead(ledger: Connection) -> None:
    ((now,),) = ledger.execute("SELECT now() AT TIME ZONE 'UTC'").fetchall()
    ahead = now.replace(tzinfo=UTC) + HOUR
    books.record_creation(ledger, "acme", "2871", ahead)
    assert books.record_deletion(ledger, "acme")
    assert books.lifecycle(ledger, "acme") == Lifecycle(org="2871", created_at=ahead, deleted_at=ahead)


def test_a_deletion_before_the_creation_is_rejected(ledger: Connection) -> None:
    """At the very instant it may be: Kubernetes cuts its times to whole seconds."""
    books.record_creation(ledger, "acme", "2871", BORN)
    with ledger.transaction():
        with pytest.raises(InvalidArgument, match="lies before"):
            books.record_deletion(ledger, "acme", BORN - timedelta(microseconds=1))
        assert books.lifecycle(ledger, "acme") == Lifecycle(org="2871", created_at=BORN)
        assert books.record_deletion(ledger, "acme", BORN)


def test_the_deletion_of_a_tenant_that_is_not_recorded_is_no_success(ledger: Connection) -> None:
    """And the caller's transaction goes on."""
    with ledger.transaction():
        with pytest.raises(NotRecorded, match="nobody"):
            books.record_deletion(ledger, "nobody", BORN)
        books.record_creation(ledger, "acme", "2871", BORN)
    assert books.lifecycle(ledger, "nobody") is None
    assert books.lifecycle(ledger, "acme") is not None


def test_the_tenants_of_an_organisation_come_in_the_order_of_their_names(ledger: Connection) -> None:
    for name, org in [("b", "2871"), ("Z", "2871"), ("a", "2871"), ("c", "2872")]:
        books.record_creation(ledger, name, org, BORN)
    books.record_deletion(ledger, "b", BORN + HOUR)
    found = books.lifecycles(ledger, "2871")
    assert list(found) == ["Z", "a", "b"]
    assert found["b"] == Lifecycle(org="2871", created_at=BORN, deleted_at=BORN + HOUR)
    assert books.lifecycles(ledger, "2873") == {}


# --- skills and suspension ---------------------------------------------------------------------------------------


def test_a_change_of_skills_has_one_time(ledger: Connection) -> None:
    """The database's, where none is given; and the events come back as they stand there."""
    events = books.record_skills(ledger, "acme", "2871", enabled=["wiki", "bexio", "wiki"], disabled=iter(["mail"]))
    assert [(event.skill, event.kind, event.enabled) for event in events] == [
        ("bexio", "enabled", True),
        ("mail", "disabled", False),
        ("wiki", "enabled", True),
    ]
    assert len({event.occurred_at for event in events}) == 1
    assert [event.id for event in events] == [1, 2, 3]
    assert books.skill_events(ledger, *ALL_TIME, tenant="acme") == events


def test_events_without_a_time_happen_when_the_transaction_began(ledger: Connection) -> None:
    with ledger.transaction():
        ((now,),) = ledger.execute("SELECT now()").fetchall()
        (skill,) = books.record_skills(ledger, "acme", "2871", enabled=["mail"])
        suspension = books.record_suspension(ledger, "acme", "2871")
    assert skill.occurred_at == suspension.occurred_at == now


def test_a_change_of_nothing_writes_nothing(ledger: Connection, ledger_url: str) -> None:
    before = contents(ledger_url)
    assert books.record_skills(ledger, "acme", "2871") == []
    assert books.record_skills(ledger, "acme", "2871", enabled=iter(()), disabled={}) == []
    assert contents(ledger_url) == before


def test_events_are_only_ever_appended(ledger: Connection) -> None:
    for _ in range(2):
        books.record_skills(ledger, "acme", "2871", enabled=["mail"], occurred_at=BORN)
        books.record_suspension(ledger, "acme", "2871", BORN)
    assert [event.id for event in books.skill_events(ledger, *ALL_TIME, tenant="acme")] == [1, 2]
    assert [event.id for event in books.suspension_events(ledger, *ALL_TIME, tenant="acme")] == [1, 2]


def test_of_two_events_in_one_transaction_the_second_is_the_latest(ledger: Connection) -> None:
    """Both have the time when it began: the higher id decides."""
    with ledger.transaction():
        books.record_skills(ledger, "acme", "2871", enabled=["mail"])
        (off,) = books.record_skills(ledger, "acme", "2871", disabled=["mail"])
        books.record_suspension(ledger, "acme", "2871")
        running = books.record_resumption(ledger, "acme", "2871")
    assert books.skill_state_at(ledger, "acme", off.occurred_at) == {"mail": off}
    assert books.suspension_state_at(ledger, "acme", running.occurred_at) == running
    assert not running.suspended


INSTANTS = [BORN + timedelta(microseconds=number) for number in range(5)]
SKILLS = ["Mail", "mail", "wiki"]
TENANTS = ["acme", "beta"]

_changes = st.tuples(
    st.sampled_from(TENANTS),
    st.sampled_from(["2871", "2872"]),
    st.dictionaries(st.sampled_from(SKILLS), st.booleans()),
    st.booleans(),
    st.sampled_from(INSTANTS),
)


@settings(max_examples=60)
@given(st.lists(_changes, max_size=14), st.sampled_from([BORN - HOUR, *INSTANTS, BORN + HOUR]))
def test_state_and_events_are_those_of_a_naive_model(
    ledger: Connection, changes: list[tuple[str, str, dict[str, bool], bool, datetime]], instant: datetime
) -> None:
    """Whatever the order in which it was recorded, and however many happened at one instant."""
    skills: list[SkillEvent] = []
    suspensions: list[SuspensionEvent] = []
    with ledger.transaction(force_rollback=True):
        for name, org, turned, suspends, at in changes:
            on = {skill for skill, enabled in turned.items() if enabled}
            skills += books.record_skills(ledger, name, org, enabled=on, disabled=turned.keys() - on, occurred_at=at)
            record = books.record_suspension if suspends else books.record_resumption
            suspensions.append(record(ledger, name, org, at))

        def heard(events: list[Any]) -> list[Any]:
            return sorted((e for e in events if e.occurred_at <= instant), key=lambda e: (e.occurred_at, e.id))

        for name in TENANTS:
            latest = {event.skill: event for event in heard(skills) if event.tenant == name}
            assert books.skill_state_at(ledger, name, instant) == latest
            last = [event for event in heard(suspensions) if event.tenant == name][-1:]
            assert books.suspension_state_at(ledger, name, instant) == (last[0] if last else None)
        since, until = sorted([instant, INSTANTS[3]])
        for whose in [{"tenant": "acme"}, {"org": "2871"}, {"tenant": "acme", "org": "2871"}]:
            assert books.skill_events(ledger, since, until, **whose) == within(skills, since, until, whose)
            assert books.suspension_events(ledger, since, until, **whose) == within(suspensions, since, until, whose)


def within(events: list[Any], since: datetime, until: datetime, whose: dict[str, str]) -> list[Any]:
    """Return the events of an interval, as a sentence says it."""
    found = [event for event in events if since <= event.occurred_at < until]
    found = [event for event in found if all(getattr(event, field) == value for field, value in whose.items())]
    return sorted(found, key=lambda event: (event.occurred_at, event.id))


def test_the_beginning_of_an_interval_counts_and_its_end_does_not(ledger: Connection) -> None:
    """So that the intervals of two months hold every event once."""
    books.record_skills(ledger, "acme", "2871", enabled=["mail"], occurred_at=BORN)
    books.record_skills(ledger, "acme", "2871", disabled=["mail"], occurred_at=BORN + HOUR)
    assert [e.kind for e in books.skill_events(ledger, BORN, BORN + HOUR, tenant="acme")] == ["enabled"]
    assert [e.kind for e in books.skill_events(ledger, BORN + HOUR, BORN + 2 * HOUR, tenant="acme")] == ["disabled"]
    assert books.skill_events(ledger, BORN, BORN, tenant="acme") == []


TIMES = {
    "-infinity": FIRST,
    "4713-01-01 00:00:00+00 BC": FIRST,
    "0001-01-01 00:00:00+00": FIRST,
    "2026-05-04 09:30:00.000001+00": BORN + timedelta(microseconds=1),
    "9999-12-31 23:59:59.999999+00": LAST,
    "294276-12-31 23:59:59+00": LAST,
    "infinity": LAST,
}
"""What PostgreSQL may hold, and what is read of it."""


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Etc/GMT+12"])
@pytest.mark.parametrize("text", TIMES)
def test_a_time_that_a_datetime_cannot_hold_is_read_as_the_first_or_the_last(
    ledger: Connection, text: str, zone: str
) -> None:
    """In whatever time zone the session is; what can be held is read to the microsecond."""
    ledger.execute("SELECT set_config('timezone', %s, false)", [zone])
    ledger.execute("INSERT INTO tenant_billing_lifecycle VALUES ('acme', '2871', %(at)s, %(at)s)", {"at": text})
    ledger.execute("UPDATE platform_pricing SET updated_at = %s", [text])
    ledger.execute("INSERT INTO skill_pricing VALUES ('mail', 1, %(at)s, %(at)s)", {"at": text})
    ledger.execute(
        "INSERT INTO org_billing_config (zitadel_org_id, created_at, updated_at) VALUES ('2871', %(at)s, %(at)s)",
        {"at": text},
    )
    at = TIMES[text]
    assert books.lifecycle(ledger, "acme") == Lifecycle(org="2871", created_at=at, deleted_at=at)
    assert books.lifecycles(ledger, "2871") == {"acme": Lifecycle(org="2871", created_at=at, deleted_at=at)}
    assert books.platform_prices(ledger).updated_at == at
    (price,) = books.skill_prices(ledger)
    settled = books.org_billing(ledger, "2871")
    assert {price.created_at, price.updated_at, settled.created_at, settled.updated_at} == {at}
    assert price.created_at.tzinfo is UTC


@pytest.mark.parametrize("text", TIMES)
def test_an_event_at_such_a_time_breaks_no_reader(ledger: Connection, text: str) -> None:
    ledger.execute(
        "INSERT INTO tenant_skill_events (tenant_name, zitadel_org_id, skill_id, event_kind, occurred_at) "
        "VALUES ('acme', '2871', 'mail', 'enabled', %s)",
        [text],
    )
    ledger.execute(
        "INSERT INTO tenant_suspension_events (tenant_name, zitadel_org_id, event_kind, occurred_at) "
        "VALUES ('acme', '2871', 'suspended', %s)",
        [text],
    )
    heard = TIMES[text] < LAST
    state = books.skill_state_at(ledger, "acme", BORN + HOUR)
    assert {skill: event.occurred_at for skill, event in state.items()} == ({"mail": TIMES[text]} if heard else {})
    suspension = books.suspension_state_at(ledger, "acme", BORN + HOUR)
    assert (suspension.occurred_at if suspension else None) == (TIMES[text] if heard else None)
    assert {event.occurred_at for event in books.skill_events(ledger, *ALL_TIME, tenant="acme")} <= {TIMES[text]}
    assert {event.occurred_at for event in books.suspension_events(ledger, *ALL_TIME, org="2871")} <= {TIMES[text]}


# --- prices and settings -----------------------------------------------------------------------------------------


def row_version(ledger: Connection, table: str) -> str:
    """Return what changes with every write of a table's one row."""
    select = sql.SQL("SELECT xmin::text || ctid::text FROM {}").format(sql.Identifier(table))
    ((version,),) = ledger.execute(select).fetchall()
    return str(version)


PRICES = {
    "tenant_monthly_fee_chf": Decimal("49.90"),
    "tenant_setup_fee_chf": Decimal("99999999.99"),
    "threema_message_chf": Decimal("0.00001"),
    "vat_rate_chli": Decimal("8.1"),
}


@pytest.mark.parametrize("name", PRICES)
def test_only_the_platform_price_that_is_given_changes(ledger: Connection, name: str) -> None:
    before = books.platform_prices(ledger)
    with ledger.transaction():
        after = books.change_platform_prices(ledger, **{name: PRICES[name]})
        ((now,),) = ledger.execute("SELECT now()").fetchall()
    assert after == books.platform_prices(ledger)
    changed = {field for field in PRICES if getattr(after, field) != getattr(before, field)}
    assert changed == {name} - {"vat_rate_chli"}
    assert getattr(after, name) == PRICES[name]
    assert after.updated_at == now


def test_a_change_of_no_platform_price_writes_nothing(ledger: Connection) -> None:
    before, version = books.platform_prices(ledger), row_version(ledger, "platform_pricing")
    assert books.change_platform_prices(ledger) == before
    assert row_version(ledger, "platform_pricing") == version


def test_two_changes_at_once_keep_each_others_platform_price(ledger: Connection, ledger_url: str) -> None:
    one_after_the_other(
        ledger,
        ledger_url,
        lambda one: books.change_platform_prices(one, tenant_monthly_fee_chf=Decimal(49)),
        lambda two: books.change_platform_prices(two, tenant_setup_fee_chf=Decimal(99)),
    )
    after = books.platform_prices(ledger)
    assert (after.tenant_monthly_fee_chf, after.tenant_setup_fee_chf) == (Decimal(49), Decimal(99))


@pytest.mark.parametrize("name", ["platform_prices", "change_platform_prices"])
def test_platform_prices_that_are_not_there_are_missed(ledger: Connection, name: str) -> None:
    ledger.execute("DELETE FROM platform_pricing")
    with pytest.raises(NotRecorded, match="no platform prices"):
        CALLS[name](ledger)


def test_a_skill_price_that_is_the_same_is_not_written(ledger: Connection) -> None:
    assert books.set_skill_price(ledger, "mail", Decimal("0.60"))
    version = row_version(ledger, "skill_pricing")
    assert not books.set_skill_price(ledger, "mail", Decimal("0.600"))
    assert row_version(ledger, "skill_pricing") == version


def test_a_new_skill_price_moves_the_time_of_the_last_change_alone(ledger: Connection) -> None:
    books.set_skill_price(ledger, "mail", Decimal("0.60"))
    first = books.skill_price(ledger, "mail")
    assert first
    assert first.created_at == first.updated_at
    assert books.set_skill_price(ledger, "mail", Decimal("0.61"))
    second_ = books.skill_price(ledger, "mail")
    assert second_
    assert (second_.created_at, second_.daily_price_chf) == (first.created_at, Decimal("0.61"))
    assert second_.updated_at > first.updated_at


def test_of_two_equal_skill_prices_at_once_one_is_written(ledger: Connection, ledger_url: str) -> None:
    call = CALLS["set_skill_price"]
    assert one_after_the_other(ledger, ledger_url, call, call) == (True, False)
    assert sum(map(bool, at_once(ledger_url, lambda c: books.set_skill_price(c, "wiki", Decimal(1))))) == 1


def test_a_skill_price_can_be_removed_once(ledger: Connection) -> None:
    books.set_skill_price(ledger, "mail", Decimal("0.60"))
    assert books.remove_skill_price(ledger, "mail")
    assert not books.remove_skill_price(ledger, "mail")
    assert books.skill_price(ledger, "mail") is None


def test_of_two_removals_at_once_one_finds_the_price(ledger: Connection, ledger_url: str) -> None:
    seed(ledger)
    call = CALLS["remove_skill_price"]
    assert one_after_the_other(ledger, ledger_url, call, call) == (True, False)


def test_skill_prices_come_in_the_order_of_their_ids(ledger: Connection) -> None:
    assert books.skill_prices(ledger) == []
    for skill in ["b", "Z", "a"]:
        books.set_skill_price(ledger, skill, Decimal(0))
    assert [price.skill for price in books.skill_prices(ledger)] == ["Z", "a", "b"]


def test_settings_that_are_read_first_are_the_defaults_and_stay(ledger: Connection) -> None:
    first = books.org_billing(ledger, "2871")
    assert first == OrgBilling(
        org="2871",
        pay_by_invoice=False,
        stripe_customer_id=None,
        auto_invoice_enabled=True,
        auto_reminders_enabled=True,
        created_at=first.created_at,
        updated_at=first.created_at,
    )
    version = row_version(ledger, "org_billing_config")
    assert books.org_billing(ledger, "2871") == first
    assert row_version(ledger, "org_billing_config") == version


def test_two_who_read_settings_first_get_the_same_row(ledger: Connection, ledger_url: str) -> None:
    """The second began before the row of the first could be seen."""
    call = CALLS["org_billing"]
    first, then = one_after_the_other(ledger, ledger_url, call, call)
    assert first == then == books.org_billing(ledger, "2871")


def test_what_was_set_before_a_first_read_is_committed_is_what_it_reads(ledger: Connection, ledger_url: str) -> None:
    _, read = one_after_the_other(ledger, ledger_url, CALLS["change_org_billing"], CALLS["org_billing"])
    assert read == books.org_billing(ledger, "2871")
    assert books.org_billing(ledger, "2871").pay_by_invoice


def test_many_who_read_settings_first_get_the_same_row(ledger_url: str) -> None:
    assert len(set(at_once(ledger_url, CALLS["org_billing"]))) == 1


SETTINGS: dict[str, tuple[Any, Any]] = {
    "pay_by_invoice": (True, False),
    "stripe_customer_id": ("cus_1", "cus_2"),
    "auto_invoice_enabled": (False, True),
    "auto_reminders_enabled": (False, True),
}
"""Two values of each."""


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("exists", [False, True])
def test_only_the_setting_that_is_given_changes(ledger: Connection, name: str, *, exists: bool) -> None:
    """Also where the change is what makes the row."""
    before = books.org_billing(ledger, "2871" if exists else "2872")
    for value in SETTINGS[name]:
        after = books.change_org_billing(ledger, "2871", **{name: value})
        assert after == books.org_billing(ledger, "2871")
        assert after.updated_at > after.created_at
        for field in SETTINGS:
            assert getattr(after, field) == (value if field == name else getattr(before, field))


def test_a_stripe_customer_can_be_taken_away_and_is_not_by_silence(ledger: Connection) -> None:
    books.change_org_billing(ledger, "2871", stripe_customer_id="cus_1")
    assert books.change_org_billing(ledger, "2871", pay_by_invoice=True).stripe_customer_id == "cus_1"
    assert books.change_org_billing(ledger, "2871", stripe_customer_id=None).stripe_customer_id is None


def test_a_change_of_no_setting_writes_nothing(ledger: Connection) -> None:
    before = books.org_billing(ledger, "2871")
    version = row_version(ledger, "org_billing_config")
    assert books.change_org_billing(ledger, "2871") == before
    assert row_version(ledger, "org_billing_config") == version


def test_two_changes_at_once_keep_each_others_setting(ledger: Connection, ledger_url: str) -> None:
    """Also where neither found a row."""
    one_after_the_other(
        ledger,
        ledger_url,
        lambda one: books.change_org_billing(one, "2871", pay_by_invoice=True),
        lambda two: books.change_org_billing(two, "2871", stripe_customer_id="cus_1"),
    )
    after = books.org_billing(ledger, "2871")
    assert (after.pay_by_invoice, after.stripe_customer_id) == (True, "cus_1")


# --- what cannot stand in the ledger -----------------------------------------------------------------------------

IDS: dict[str, Callable[[Connection, Any], object]] = {
    "record_creation": lambda c, id_: books.record_creation(c, id_, "2871", BORN),
    "record_deletion": books.record_deletion,
    "lifecycle": books.lifecycle,
    "record_skills tenant": lambda c, id_: books.record_skills(c, id_, "2871", enabled=["mail"]),
    "record_skills nothing": lambda c, id_: books.record_skills(c, id_, "2871"),
    "record_skills enabled": lambda c, id_: books.record_skills(c, "acme", "2871", enabled=[id_]),
    "record_skills disabled": lambda c, id_: books.record_skills(c, "acme", "2871", disabled=["mail", id_]),
    "record_suspension": lambda c, id_: books.record_suspension(c, id_, "2871"),
    "record_resumption": lambda c, id_: books.record_resumption(c, id_, "2871"),
    "skill_state_at": lambda c, id_: books.skill_state_at(c, id_, BORN),
    "suspension_state_at": lambda c, id_: books.suspension_state_at(c, id_, BORN),
    "skill_price": books.skill_price,
    "set_skill_price": lambda c, id_: books.set_skill_price(c, id_, Decimal(1)),
    "remove_skill_price": books.remove_skill_price,
    "org_billing": books.org_billing,
    "change_org_billing": lambda c, id_: books.change_org_billing(c, id_, pay_by_invoice=True),
}
ORGS: dict[str, Callable[[Connection, Any], object]] = {
    "record_creation": lambda c, org: books.record_creation(c, "acme", org, BORN),
    "lifecycles": books.lifecycles,
    "record_skills": lambda c, org: books.record_skills(c, "acme", org, enabled=["mail"]),
    "record_suspension": lambda c, org: books.record_suspension(c, "acme", org),
    "skill_events": lambda c, org: books.skill_events(c, *ALL_TIME, org=org),
    "suspension_events": lambda c, org: books.suspension_events(c, *ALL_TIME, org=org),
    "stripe_customer_id": lambda c, org: books.change_org_billing(c, "2871", stripe_customer_id=org),
}
"""Those that may be empty, or None."""

BAD_IDS: list[Any] = ["a\0b", "\ud800", 2871, b"acme", ["acme"]]


@contextmanager
def rejected(ledger: Connection, url: str, says: str | None = None) -> Iterator[None]:
    """It is said before anything is written, in words that tell what to do, and the transaction goes on."""
    before = contents(url)
    with ledger.transaction():
        with pytest.raises(InvalidArgument, match=says) as raised:
            yield
        assert ledger.info.transaction_status == TransactionStatus.INTRANS
    assert isinstance(raised.value, Failure)
    assert isinstance(raised.value, ValueError)
    assert raised.value.remedy
    assert contents(url) == before


@pytest.mark.parametrize("value", ["", None, *BAD_IDS], ids=ascii)
def test_a_name_that_is_none_is_rejected(ledger: Connection, ledger_url: str, value: Any) -> None:
    for call in IDS.values():
        with rejected(ledger, ledger_url):
            call(ledger, value)


@pytest.mark.parametrize("value", BAD_IDS, ids=ascii)
def test_an_organisation_that_is_no_text_is_rejected(ledger: Connection, ledger_url: str, value: Any) -> None:
    for call in ORGS.values():
        with rejected(ledger, ledger_url):
            call(ledger, value)


def test_a_customer_id_is_none_but_not_empty(ledger: Connection, ledger_url: str) -> None:
    with rejected(ledger, ledger_url, "stripe_customer_id is empty"):
        books.change_org_billing(ledger, "2871", stripe_customer_id="")


NASTY = ["a'; DROP TABLE invoices; --", "%s %(org)s", "\\", "tab\tline\n", "Ünïcödé 😀", "null", "{}", '"']


@pytest.mark.parametrize("text", NASTY)
def test_any_other_text_comes_back_as_it_was_given(ledger: Connection, text: str) -> None:
    books.record_creation(ledger, text, text, BORN)
    (event,) = books.record_skills(ledger, text, text, enabled=[text], occurred_at=BORN)
    assert (event.tenant, event.org, event.skill) == (text, text, text)
    assert books.lifecycles(ledger, text) == {text: Lifecycle(org=text, created_at=BORN)}
    assert books.skill_state_at(ledger, text, BORN) == {text: event}
    assert books.change_org_billing(ledger, text, stripe_customer_id=text).stripe_customer_id == text


MOMENTS: dict[str, Callable[[Connection, Any], object]] = {
    "record_creation": lambda c, at: books.record_creation(c, "acme", "2871", at),
    "record_deletion": lambda c, at: books.record_deletion(c, "acme", at),
    "record_skills": lambda c, at: books.record_skills(c, "acme", "2871", enabled=["mail"], occurred_at=at),
    "record_skills nothing": lambda c, at: books.record_skills(c, "acme", "2871", occurred_at=at),
    "record_suspension": lambda c, at: books.record_suspension(c, "acme", "2871", at),
    "record_resumption": lambda c, at: books.record_resumption(c, "acme", "2871", at),
}
INSTANT_READERS: dict[str, Callable[[Connection, Any], object]] = {
    "skill_state_at": lambda c, at: books.skill_state_at(c, "acme", at),
    "suspension_state_at": lambda c, at: books.suspension_state_at(c, "acme", at),
    "skill_events since": lambda c, at: books.skill_events(c, at, ALL_TIME[1], tenant="acme"),
    "suspension_events until": lambda c, at: books.suspension_events(c, ALL_TIME[0], at, tenant="acme"),
}


@pytest.mark.parametrize(
    ("instant", "says"),
    [
        (BORN.replace(tzinfo=None), "only a datetime with a time zone"),
        (BORN.date(), "only a datetime with a time zone"),
        ("2026-05-04T09:30:00Z", "only a datetime with a time zone"),
        (BORN.timestamp(), "only a datetime with a time zone"),
        (BORN.astimezone(timezone(timedelta(hours=2))), "are UTC"),
        (BORN.astimezone(ZoneInfo("Europe/Zurich")), "are UTC"),
        (datetime(2026, 1, 4, 9, 30, tzinfo=ZoneInfo("Europe/London")), "are UTC"),
    ],
    ids=repr,
)
def test_a_time_that_is_not_in_utc_is_rejected(ledger: Connection, ledger_url: str, instant: Any, says: str) -> None:
    """London's in winter too, or it would be taken until summer comes."""
    seed(ledger)
    for call in (MOMENTS | INSTANT_READERS).values():
        with rejected(ledger, ledger_url, says):
            call(ledger, instant)


@pytest.mark.parametrize("zone", [UTC, ZoneInfo("UTC"), ZoneInfo("Etc/UTC"), timezone(timedelta(0))], ids=repr)
def test_utc_is_utc_whoever_says_so(ledger: Connection, zone: Any) -> None:
    books.record_creation(ledger, "acme", "2871", BORN.astimezone(zone))
    assert books.lifecycle(ledger, "acme") == Lifecycle(org="2871", created_at=BORN)


@pytest.mark.parametrize("instant", [*ALL_TIME, FIRST, LAST])
def test_a_zero_or_endless_time_is_no_moment_but_bounds_an_interval(
    ledger: Connection, ledger_url: str, instant: datetime
) -> None:
    seed(ledger)
    for call in MOMENTS.values():
        with rejected(ledger, ledger_url, "no moment"):
            call(ledger, instant)
    for call in INSTANT_READERS.values():
        call(ledger, instant)


def test_an_interval_that_ends_before_it_begins_is_rejected(ledger: Connection, ledger_url: str) -> None:
    for events in (books.skill_events, books.suspension_events):
        with rejected(ledger, ledger_url, "before"):
            events(ledger, BORN, BORN - timedelta(microseconds=1), tenant="acme")


def test_events_of_nobody_in_particular_are_not_asked_for(ledger: Connection, ledger_url: str) -> None:
    for events in (books.skill_events, books.suspension_events):
        with rejected(ledger, ledger_url, "Neither"):
            events(ledger, *ALL_TIME)


def test_a_skill_is_not_turned_on_and_off_at_one_time(ledger: Connection, ledger_url: str) -> None:
    with rejected(ledger, ledger_url, "^mail: "):
        books.record_skills(ledger, "acme", "2871", enabled=["mail", "wiki"], disabled=["mail"])


def test_one_text_is_not_a_list_of_skills(ledger: Connection, ledger_url: str) -> None:
    for side in ("enabled", "disabled"):
        with rejected(ledger, ledger_url, side):
            books.record_skills(ledger, "acme", "2871", **{side: "mail"})  # type: ignore[arg-type]


MONEY: dict[str, tuple[str, Callable[[Connection, Any], object]]] = {
    "tenant_monthly_fee_chf": (
        "platform_pricing",
        lambda c, value: books.change_platform_prices(c, tenant_monthly_fee_chf=value),
    ),
    "tenant_setup_fee_chf": (
        "platform_pricing",
        lambda c, value: books.change_platform_prices(c, tenant_setup_fee_chf=value),
    ),
    "threema_message_chf": (
        "platform_pricing",
        lambda c, value: books.change_platform_prices(c, threema_message_chf=value),
    ),
    "vat_rate_chli": ("platform_pricing", lambda c, value: books.change_platform_prices(c, vat_rate_chli=value)),
    "daily_price_chf": ("skill_pricing", lambda c, value: books.set_skill_price(c, "mail", value)),
}
each_amount = pytest.mark.parametrize("name", MONEY)


@each_amount
def test_an_amount_is_held_to_the_last_digit_of_its_column_or_rejected(
    ledger: Connection, ledger_url: str, name: str
) -> None:
    """Whatever the precision that the caller's own decimals are set to."""
    table, change = MONEY[name]
    select = sql.SQL("SELECT {} FROM {}").format(sql.Identifier(name), sql.Identifier(table))
    ((precision, scale),) = ledger.execute(
        "SELECT numeric_precision, numeric_scale FROM information_schema.columns "
        "WHERE table_name = %s AND column_name = %s",
        [table, name],
    ).fetchall()
    least = Decimal(1).scaleb(-scale)
    greatest = Decimal(10) ** (precision - scale) - least
    with localcontext(prec=2):
        for value in (least, greatest, Decimal(0), Decimal(f"{greatest}0000"), Decimal("1E+1")):
            change(ledger, value)
            assert ledger.execute(select).fetchall() == [(value,)]
        for text in (f"0.{'0' * scale}1", f"1{'0' * (precision - scale)}", f"{greatest}5"):
            with rejected(ledger, ledger_url, name):
                change(ledger, Decimal(text))


@each_amount
@pytest.mark.parametrize("text", ["-1", "NaN", "sNaN", "Infinity", "-Infinity", "1E+999999", "1E-999999"])
def test_a_value_that_is_no_price_is_rejected(ledger: Connection, ledger_url: str, name: str, text: str) -> None:
    with rejected(ledger, ledger_url, name):
        MONEY[name][1](ledger, Decimal(text))


@each_amount
@pytest.mark.parametrize("value", [0.6, 1, "0.60", None, True], ids=repr)
def test_money_that_is_no_decimal_is_rejected(ledger: Connection, ledger_url: str, name: str, value: Any) -> None:
    with rejected(ledger, ledger_url, "money is Decimal"):
        MONEY[name][1](ledger, value)


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "stripe_customer_id"])
@pytest.mark.parametrize("value", [None, 1, "false"], ids=repr)
def test_a_setting_that_is_neither_true_nor_false_is_rejected(
    ledger: Connection, ledger_url: str, name: str, value: Any
) -> None:
    """None least of all: it would be taken for a setting that is not given."""
    with rejected(ledger, ledger_url, name):
        books.change_org_billing(ledger, "2871", **{name: value})


# --- a portal that records through it ----------------------------------------------------------------------------


class Portal:
    """Changes the cluster, then records it, but for what it forgets."""

    def __init__(self, world: World, forgets: str | None) -> None:
        self.world = world
        self.forgets = forgets

    def record(self, function: Callable[..., object], *args: Any, **how: Any) -> None:
        """Record something in a transaction of its own, as the portal does."""
        if function.__name__ != self.forgets:
            # a deletion cannot be recorded where the creation was forgotten
            with psycopg.connect(self.world.url) as connection, suppress(NotRecorded):
                function(connection, *args, **how)

    def create(self, name: str, skills: list[str], at: datetime, **how: Any) -> None:
        made = self.world.api.create(tenant(name, skills, **how), at=at)
        born = datetime.fromisoformat(made["metadata"]["creationTimestamp"])
        org = made["metadata"].get("labels", {}).get(ORG_LABEL)
        self.record(books.record_creation, name, org, born)
        self.record(books.record_skills, name, org, enabled=skills, occurred_at=born)

    def live(self) -> None:
        """Let everything happen that is recorded."""
        api, now = self.world.api, self.world.now
        for name in ("acme", "beta", "cara", "dana", "emil", "fred"):
            self.create(name, ["mail", "wiki"], now - 9 * HOUR, finalizers=["x"] if name == "emil" else [])
        api.patch("acme", {"spec": {"packages": ["wiki", "voice"]}}, at=now - 8 * HOUR)
        self.record(
            books.record_skills, "acme", "2871", enabled=["voice"], disabled=["mail"], occurred_at=now - 8 * HOUR
        )
        for name in ("beta", "cara"):
            api.patch(name, {"spec": {"suspend": True}}, at=now - 7 * HOUR)
            self.record(books.record_suspension, name, "2871", now - 7 * HOUR)
        api.patch("cara", {"spec": {"suspend": False}}, at=now - 6 * HOUR)
        self.record(books.record_resumption, "cara", "2871", now - 6 * HOUR)
        for name in ("dana", "emil"):
            api.delete(name, at=now - 5 * HOUR)
            self.record(books.record_deletion, name, now - 5 * HOUR)
            self.record(books.record_skills, name, "2871", disabled=["mail", "wiki"], occurred_at=now - 5 * HOUR)
        # just now, and dated by the database itself
        api.patch("fred", {"spec": {"packages": ["mail"], "suspend": True}})
        self.record(books.record_skills, "fred", "2871", disabled=["wiki"])
        self.record(books.record_suspension, "fred", "2871")


@pytest.mark.parametrize(
    ("forgets", "found"),
    [
        (None, set()),
        ("record_creation", {Reason.TENANT_UNRECORDED, Reason.DELETION_UNRECORDED, Reason.EVENTS_WITHOUT_TENANT}),
        ("record_deletion", {Reason.DELETION_UNRECORDED}),
        ("record_skills", {Reason.SKILL_ENABLE_UNRECORDED}),
        ("record_suspension", {Reason.SUSPENSION_UNRECORDED}),
        ("record_resumption", {Reason.RESUMPTION_UNRECORDED}),
    ],
)
def test_a_pass_finds_what_the_portal_forgot_to_record_and_nothing_else(
    world: World, forgets: str | None, found: set[Reason]
) -> None:
    """A portal that records everything with these functions is true, whatever was done."""
    portal = Portal(world, forgets)
    portal.live()
    outcome = world.run()
    assert {finding.reason for finding in outcome.findings} == found
    assert (outcome.result is Result.CLEAN) is (forgets is None)


def test_a_tenant_without_an_organisation_is_only_reported(world: World) -> None:
    Portal(world, None).create("acme", ["mail"], world.now - HOUR, org=None)
    assert [finding.reason for finding in world.run().findings] == [Reason.ORG_UNLABELLED]


# --- what is said of it ------------------------------------------------------------------------------------------

_, _, SECTION = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## From Python\n")
SECTION = SECTION.partition("\n## ")[0]


def test_the_example_runs_as_it_stands(ledger: Connection, ledger_url: str) -> None:
    """It prints what its comment says, and what it recorded is there."""
    (example,) = re.findall(r"^```python\n(.*?)^```$", SECTION, flags=re.MULTILINE | re.DOTALL)
    printed = subprocess.run(
        [sys.executable, "-c", example],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"DATABASE_URL": ledger_url},
    ).stdout
    assert printed == "".join(f"{line}\n" for line in re.findall(r"^ *print\(.*\)  # (.*)$", example, re.MULTILINE))
    assert printed
    assert books.lifecycle(ledger, "hotel-seeblick") is not None


def test_the_functions_that_are_named_are_those_that_there_are() -> None:
    rows = [line.split("|")[1] for line in SECTION.splitlines() if line.startswith("| `")]
    assert sorted(name for row in rows for name in re.findall(r"`(\w+)`", row)) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_function_says_what_it_takes_and_what_is_raised(name: str) -> None:
    """Each parameter by its name, and InvalidArgument wherever there is one that can be wrong."""
    parameters = list(inspect.signature(PUBLIC[name]).parameters)
    doc = inspect.getdoc(PUBLIC[name]) or ""
    assert [word for word in parameters if not re.search(rf"^    {word}: ", doc, re.MULTILINE)] == []
    assert ("InvalidArgument:" in doc) is (parameters != ["connection"])


def test_every_query_is_asked_and_has_its_name_for_itself() -> None:
    texts = {file: (queries.folder() / "queries" / file).read_text(encoding="utf-8") for file in queries.FILES}
    named = {file: re.findall(r"^-- name: (\w+)$", text, re.MULTILINE) for file, text in texts.items()}
    ours = named.pop("ledger.sql")
    source = Path(books.__file__).read_text(encoding="utf-8")
    assert [name for name in ours if f'"{name}"' not in source] == []
    assert len(set(ours)) == len(ours)
    assert set(ours).isdisjoint(name for others in named.values() for name in others)
