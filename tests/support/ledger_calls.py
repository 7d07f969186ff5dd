"""Calls of the ledger's functions, alone, concurrent and overlapping."""

from __future__ import annotations

import inspect
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from reconciler import ledger as ledger_api

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Connection = psycopg.Connection[Any]

BORN = datetime(2026, 5, 4, 9, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
ALL_TIME = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))

SAID: dict[str, Any] = {"by": "m.keller", "note": "the customer's log"}
SPAN: dict[str, Any] = {"since": BORN + HOUR, "until": BORN + 2 * HOUR}
SHOWN = ledger_api.Shown(source="cluster", uid="2", created_at=BORN + 24 * HOUR, org="2872", packages=["mail"])
"""The cluster shows another acme, which is of a later day."""
BEFORE, MONTH = date(2026, 4, 1), date(2026, 5, 1)
CLOSED: dict[str, Any] = {"accepted": ["known_since"]}
PROVEN = """
INSERT INTO reconciler.source (identity) VALUES ('cluster');
INSERT INTO reconciler.runs (id, started_at, observed_at, mode, outcome, version, source, settle)
SELECT gen_random_uuid(), at, at, 'run', 'clean', '1', 'cluster', '0'
FROM (SELECT now() - interval '1 minute') AS run (at);
INSERT INTO reconciler.closings (source, month, number, by, note, run_id, prices, accepted, total_chf, corrections_seen,
                                 skill_events_seen, suspension_events_seen)
SELECT 'cluster', '2026-04-01', 1, 'm.keller', 'the invoices', id, '{"fee": "0", "vat": "8.1", "skills": {}}', '[]', 0,
       0, 0, 0 FROM reconciler.runs;
"""
"""A run has just proved the ledger, and April is closed."""

PUBLIC = {
    name: getattr(ledger_api, name) for name in ledger_api.__all__ if inspect.isfunction(getattr(ledger_api, name))
}

CALLS: dict[str, Callable[[Connection], object]] = {
    "record_creation": lambda c: ledger_api.record_creation(c, "new", "2871", BORN),
    "record_deletion": lambda c: ledger_api.record_deletion(c, "acme"),
    "lifecycle": lambda c: ledger_api.lifecycle(c, "acme"),
    "lifecycles": lambda c: ledger_api.lifecycles(c, "2871"),
    "record_skills": lambda c: ledger_api.record_skills(c, "acme", "2871", enabled=["wiki"], disabled=["mail"]),
    "record_suspension": lambda c: ledger_api.record_suspension(c, "acme", "2871"),
    "record_resumption": lambda c: ledger_api.record_resumption(c, "acme", "2871"),
    "skill_state_at": lambda c: ledger_api.skill_state_at(c, "acme", BORN),
    "suspension_state_at": lambda c: ledger_api.suspension_state_at(c, "acme", BORN),
    "skill_events": lambda c: ledger_api.skill_events(c, *ALL_TIME, tenant="acme"),
    "suspension_events": lambda c: ledger_api.suspension_events(c, *ALL_TIME, org="2871"),
    "platform_prices": ledger_api.platform_prices,
    "change_platform_prices": lambda c: ledger_api.change_platform_prices(c, vat_rate_chli=Decimal("7.7")),
    "skill_prices": ledger_api.skill_prices,
    "skill_price": lambda c: ledger_api.skill_price(c, "mail"),
    "set_skill_price": lambda c: ledger_api.set_skill_price(c, "mail", Decimal(2)),
    "remove_skill_price": lambda c: ledger_api.remove_skill_price(c, "mail"),
    "org_billing": lambda c: ledger_api.org_billing(c, "2871"),
    "change_org_billing": lambda c: ledger_api.change_org_billing(c, "2871", pay_by_invoice=True),
    "decide_skill": lambda c: ledger_api.decide_skill(c, "acme", "wiki", enabled=True, **SPAN, **SAID),
    "decide_suspension": lambda c: ledger_api.decide_suspension(c, "acme", suspended=False, **SPAN, **SAID),
    "decide_lifetime": lambda c: ledger_api.decide_lifetime(c, "acme", alive=False, **SPAN, **SAID),
    "decide_payer": lambda c: ledger_api.decide_payer(c, "acme", "2872", since=BORN.date(), **SAID),
    "retract": lambda c: ledger_api.retract(c, "suspension:1", shown=SHOWN, **SAID),
    "close_month": lambda c: ledger_api.close_month(c, MONTH, prices=todays(c), **CLOSED, **SAID),
    "month_changes": lambda c: ledger_api.month_changes(c, MONTH),
    "month_closing": lambda c: ledger_api.month_closing(c, BEFORE, 1),
    "reopen": lambda c: ledger_api.reopen(c, "acme", shown=SHOWN, **SAID),
}
"""One call of each function, for a ledger with `record_acme`."""

READS = ("lifecycle", "month_", "platform_prices", "skill_prices", "skill_price")
WRITES = {name for name in CALLS if not name.startswith(READS) and not name.endswith(("_at", "_events"))}


def todays(connection: Connection) -> dict[str, None]:
    """Accept every price as it is today."""
    return dict.fromkeys(["fee", "vat", *(price.skill for price in ledger_api.skill_prices(connection))])


def record_acme(connection: Connection) -> None:
    """Record the tenant acme, with a row in every table that is read."""
    ledger_api.record_creation(connection, "acme", "2871", BORN)
    ledger_api.record_skills(connection, "acme", "2871", enabled=["mail"], occurred_at=BORN)
    ledger_api.record_suspension(connection, "acme", "2871", BORN)
    ledger_api.set_skill_price(connection, "mail", Decimal("0.6"))
    connection.execute(PROVEN)


@contextmanager
def open_connection(url: str, **how: Any) -> Iterator[Connection]:
    """Open another connection, as a portal would: not in autocommit mode unless asked for."""
    with closing(psycopg.connect(url, **how)) as connection:
        yield connection


def is_waiting_for_a_lock(ledger: Connection, waiting: Connection) -> bool:
    """True if a statement of the connection waits for another transaction."""
    found = ledger.execute(
        "SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'", [waiting.info.backend_pid]
    )
    return found.fetchone() is not None


def call_overlapping(
    ledger: Connection, url: str, first: Callable[[Connection], object], then: Callable[[Connection], object]
) -> tuple[object, object]:
    """Call both on two connections, so that the second begins before the first is committed."""
    with open_connection(url) as one, open_connection(url) as two, ThreadPoolExecutor(1) as pool:
        done = first(one)
        later = pool.submit(then, two)
        end = time.monotonic() + 30
        while not is_waiting_for_a_lock(ledger, two):
            assert not later.done(), later.result()
            assert time.monotonic() < end, "it did not wait for the other transaction"
            time.sleep(0.01)
        one.commit()
        result = later.result(30)
        two.commit()
        return done, result


def call_concurrently(url: str, call: Callable[[Connection], object], times: int = 8) -> list[object]:
    """Call it on that many connections at once."""

    def run(_: int) -> object:
        with open_connection(url, autocommit=True) as connection:
            return call(connection)

    with ThreadPoolExecutor(times) as pool:
        return list(pool.map(run, range(times)))


def row_version(ledger: Connection, table: str) -> str:
    """Return a value that changes with every write of a table's only row."""
    select = sql.SQL("SELECT xmin::text || ctid::text FROM {}").format(sql.Identifier(table))
    ((version,),) = ledger.execute(select).fetchall()
    return str(version)
