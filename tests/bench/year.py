"""How much a year of runs takes, one every minute, and what `prune` leaves of it: `python -m tests.bench.year`.

525,600 clean runs as a cluster of 20,000 tenants makes them: during each fortieth somebody changed a tenant, whose row
was still to come. Also what the queries that touch `reconciler.runs` read of it and how long they take, in two such
years: one tenant is proven by none of the runs of the second.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from psycopg import sql
from rich.console import Console
from rich.table import Table

from reconciler.db.certificate import MAX_RUNS_SEARCHED
from reconciler.db.connection import Connection, Ledger, connect, transaction
from reconciler.db.migrate import migrate
from reconciler.db.prune import prune
from reconciler.db.queries import query
from reconciler.views.terminal import WIDTH_OF_A_FILE
from tests.bench import server

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = "0b7e9a1c-3c56-4c0f-9a5e-5d1f6f5b6a77"
YEAR = """
TRUNCATE reconciler.runs, reconciler.source, public.tenant_billing_lifecycle CASCADE;
INSERT INTO reconciler.runs (
  id, started_at, observed_at, finished_at, mode, outcome, version, source, resource_version, tenants_observed,
  tenants_recorded, unverified, settle, history)
SELECT gen_random_uuid(), at, at, at + interval '2.412345 s', 'run', 'clean', '0.2.0', {source},
       (81000000 + number * 7)::text, 20000, 19990,
       CASE WHEN {never} THEN ARRAY['acme']
            WHEN number % 40 = 0 THEN ARRAY['customer-' || number % 20000] ELSE '{{}}' END,
       '60 s', jsonb_build_object('log', 'reached', 'seconds', 60, 'changes', (number % 40 = 0)::int,
                                  'waiting', (number % 40 = 0)::int, 'gaps', 0)
FROM generate_series(1, 525600) AS number, LATERAL (SELECT now() - (525600 - number) * interval '1 min') AS run (at);
INSERT INTO reconciler.source (identity, resource_version, position, position_at)
VALUES ({source}, '84679200', '84679200', now());
INSERT INTO public.tenant_billing_lifecycle VALUES ('acme', '1', now() - interval '400 days');
"""
SIZES = """
SELECT 'the table', pg_table_size('reconciler.runs')
UNION ALL
SELECT * FROM (SELECT indexrelid::regclass::text, pg_relation_size(indexrelid) FROM pg_index
               WHERE indrelid = 'reconciler.runs'::regclass ORDER BY 1) AS one
UNION ALL
SELECT 'in all', pg_total_relation_size('reconciler.runs')
UNION ALL
SELECT 'rows', count(*) * 1000000::bigint FROM reconciler.runs
"""
NAMES = [
    *("last_proof", "unverified", "certificate_facts", "changing", "earlier_lists", "owed_runs", "known_of_row"),
    *("explain_verified", "status_corrections", "status_runs", "status_owed", "status_last_day", "status_future_runs"),
]
MEGABYTE = 1e6


def make_year(ledger: Connection, *, never_proven: bool) -> None:
    """Fill the ledger with a year of runs."""
    ledger.execute(sql.SQL(YEAR).format(source=SOURCE, never=never_proven))
    ledger.execute("VACUUM (ANALYZE) reconciler.runs")


def sizes(ledger: Connection) -> dict[str, float]:
    """Return the megabytes of the table and of its indexes, and its rows."""
    return {name: float(size) / MEGABYTE for name, size in ledger.execute(SIZES).fetchall()}


def visited(plan: dict[str, Any]) -> Iterator[float]:
    """Yield the rows of `runs` that each part of a plan reads."""
    if plan.get("Relation Name") == "runs":
        rows = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
        yield rows * plan["Actual Loops"]
    for inner in plan.get("Plans", ()):
        yield from visited(inner)


def explained(ledger: Connection, name: str) -> tuple[int, float]:
    """Return how many rows of `runs` a query reads, and the milliseconds that it takes."""
    now = datetime.now(UTC)
    asked: dict[str, object] = {"settle": timedelta(minutes=1), "max_runs": MAX_RUNS_SEARCHED, "max_rows": 500}
    asked |= {"source": SOURCE, "as_of": now, "since": now - timedelta(days=28), "last_at": now - timedelta(minutes=3)}
    asked |= {"first": now - timedelta(days=60), "until": now - timedelta(days=30), "org": None, "tenant": "acme"}
    asked |= {"recipients": ["log"], "run_id": "00000000-0000-0000-0000-000000000000", "uid": "u"}
    with transaction(ledger) as cursor:
        found = cursor.execute(b"EXPLAIN (ANALYZE, FORMAT JSON) " + query(name), asked).fetchall()
    (plan,) = found[0][0]
    return round(sum(visited(plan["Plan"]))), plan["Execution Time"]


def pruned(url: str, console: Console) -> None:
    """Prune the year, and print how long it took."""
    for what in ("folded", "looked for more"):
        began = time.perf_counter()
        with Ledger(url) as ledger:
            done = prune(ledger, timedelta(days=90))
        console.print(f"{what}: {done.runs:,} runs of {done.days} days in {time.perf_counter() - began:.1f} s")


def main() -> None:
    """Measure both years, and print the tables."""
    console = Console(width=WIDTH_OF_A_FILE)
    with server.durable() as url, connect(url) as ledger:
        migrate(ledger)
        reads = Table("query", "rows", "ms", "never proven: rows", "ms")
        found: dict[str, list[str]] = {name: [] for name in NAMES}
        for never_proven in (False, True):
            make_year(ledger, never_proven=never_proven)
            for name in NAMES:
                rows, milliseconds = explained(ledger, name)
                found[name] += [f"{rows:,}", f"{milliseconds:.1f}"]
        for name, cells in found.items():
            reads.add_row(name, *cells)
        console.print(reads)
        make_year(ledger, never_proven=False)
        before = sizes(ledger)
        pruned(url, console)
        ledger.execute("VACUUM reconciler.runs")
        vacuumed = sizes(ledger)
        ledger.execute("VACUUM FULL reconciler.runs")
        table = Table("MB", "a year", "pruned, VACUUM", "VACUUM FULL")
        for name, size in sizes(ledger).items():
            table.add_row(name, *(f"{one:,.1f}" for one in (before[name], vacuumed[name], size)))
        console.print(table)


if __name__ == "__main__":
    main()
