"""A month's closings add up to its usage, whatever happened between them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.certificate import Cause
from reconciler.db import closing as closings
from reconciler.db.apply import Author
from reconciler.db.connection import transaction
from tests.integration.test_usage import lines_by_rules, write_histories
from tests.unit import test_billing
from tests.unit.test_billing import any_prices, histories

if TYPE_CHECKING:
    from reconciler.core.billing import History, Prices

Connection = psycopg.Connection[Any]
Key = tuple[str, str, str | None]

MONTH, NEXT = date(2026, 2, 1), date(2026, 3, 1)
AUTHOR = Author("finance", "the invoices")
EVERY_CAUSE = [*Cause]
TENANTS = ["acme", "beta"]

versions = st.tuples(
    st.fixed_dictionaries(dict.fromkeys(TENANTS, histories(test_billing.near))),
    any_prices,
    st.sampled_from([None, None, "1", "2", "3"]),
    st.dictionaries(st.sampled_from(["fee", "vat", "files", "search"]), st.sampled_from([None, Decimal("0.33")])),
)
"""What the ledger holds when it is closed, for whom, and the prices that are given then: none, today's or another."""


def recomputed(cursor: psycopg.Cursor[Any], org: str | None) -> dict[Key, tuple[int, Any]]:
    """Return the month's lines by the rules in Python, at the kept prices."""
    return {
        (line.org, line.tenant, line.item): (line.days, line.amount_chf)
        for line in lines_by_rules(cursor, TENANTS, MONTH, NEXT)
        if org in {None, line.org}
    }


def held(cursor: psycopg.Cursor[Any], org: str | None) -> dict[Key, tuple[int, Any]]:
    """Return what all closings together hold, without lines of which nothing is left."""
    rows = cursor.execute(
        "SELECT org, tenant_name, item, sum(days)::int, sum(amount_chf) FROM reconciler.closed_lines "
        "WHERE %(org)s::text IS NULL OR org = %(org)s GROUP BY 1, 2, 3 HAVING sum(days) <> 0 OR sum(amount_chf) <> 0",
        {"org": org},
    )
    return {(payer, tenant, item): (days, amount) for payer, tenant, item, days, amount in rows}


def begin(cursor: psycopg.Cursor[Any]) -> None:
    """Open the month: nothing is closed, and a run has just proved the ledger."""
    cursor.execute("TRUNCATE reconciler.closings, reconciler.closed_lines, reconciler.runs CASCADE")
    now = datetime.now(UTC) - timedelta(minutes=5)
    cursor.execute(
        "INSERT INTO reconciler.runs (id, started_at, observed_at, mode, outcome, version, source, settle) "
        "VALUES (gen_random_uuid(), %(now)s, %(now)s, 'run', 'clean', '1', 'cluster', '0')",
        {"now": now},
    )


def all_closed(cursor: psycopg.Cursor[Any]) -> list[tuple[Any, ...]]:
    return [
        *cursor.execute("SELECT * FROM reconciler.closings ORDER BY id").fetchall(),
        *cursor.execute("SELECT * FROM reconciler.closed_lines ORDER BY closing, org, tenant_name, item").fetchall(),
    ]


@settings(max_examples=40)
@given(st.lists(versions, min_size=1, max_size=4))
def test_closings_add_up_to_the_usage_at_kept_prices(
    ledger: Connection, of: list[tuple[dict[str, History], Prices, str | None, dict[str, Decimal | None]]]
) -> None:
    """To the rappen, by line; to close again adds nothing, and no closing ever changes."""
    with transaction(ledger) as cursor:
        begin(cursor)
        before: list[tuple[Any, ...]] = []
        for histories_, prices, org, said in of:
            write_histories(cursor, histories_, prices)
            words: dict[str, Any] = {"org": org, "author": AUTHOR, "accepted": EVERY_CAUSE, "settle": timedelta()}
            every = dict.fromkeys(["fee", "vat", *prices.daily_chf])
            # an organisation that nobody knows is refused
            cursor.execute("INSERT INTO reconciler.payers VALUES ('', 'nobody', 1, %s, '2020-01-01')", [org or "1"])
            closings.close(cursor, MONTH, prices=said if before else every | said, **words)

            expected = {key: line for key, line in recomputed(cursor, org).items() if line != (0, 0)}
            assert held(cursor, org) == expected
            assert not closings.close(cursor, MONTH, **words).adds
            now = all_closed(cursor)
            assert all(row in now for row in before)
            before = now
