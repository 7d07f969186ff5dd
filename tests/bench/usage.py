"""How long it takes to bill and to close a month of a large ledger, beside only reading its events.

Also how long it takes to close it again when nothing has changed, and to value a backfill.

The two queries run on one database in turn, without their rows being sent. The third way is the program's own,
`reconciler.db.usage.statement`, which gets every line. A first closing is undone after each repetition. The table shows
medians.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from rich.console import Console
from rich.table import Table

from reconciler.core.closing import FEE_NAME, VAT_NAME
from reconciler.core.compare import compare
from reconciler.core.dating import Dating
from reconciler.core.impact import with_impact
from reconciler.core.model import Recorded
from reconciler.db.apply import Author
from reconciler.db.closing import close, due
from reconciler.db.connection import brief_transaction, connect, transaction
from reconciler.db.migrate import migrate
from reconciler.db.queries import query
from reconciler.db.usage import asked, price_list, prices, statement
from reconciler.views.terminal import WIDTH_OF_A_FILE
from tests.bench import server, workload

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import psycopg

    from reconciler.core.billing import Prices
    from reconciler.core.closing import Closing
    from reconciler.core.model import Finding, Observed

MEASURED = "measured"
"""The database that holds the history."""
FIRST, UNTIL = date(2026, 1, 1), date(2026, 2, 1)
"""A month after all that `workload.load` records: every event is read, and every item that is on has its line."""
OBSERVED_AT = datetime(2026, 2, 1, 12, tzinfo=UTC)
EVENTS = b"""
SELECT tenant_name, skill_id, event_kind, occurred_at FROM public.tenant_skill_events
WHERE occurred_at < %(until)s::date::timestamp AT TIME ZONE 'UTC'
ORDER BY tenant_name, skill_id, occurred_at DESC, id DESC
"""
"""Reads the events as `usage` does. Beside them, lifetimes and suspensions are few."""
PROVEN = """
INSERT INTO reconciler.runs (id, started_at, observed_at, mode, outcome, version, source, settle)
VALUES (gen_random_uuid(), now(), now(), 'run', 'clean', '1', 'cluster', '0');
INSERT INTO reconciler.source (identity) VALUES ('cluster');
INSERT INTO reconciler.tenants
       (source, uid, tenant_name, resource_version, packages, suspended, suspend_is_set, created_at, since)
SELECT 'cluster', tenant_name, tenant_name, '1', '{}', false, true, created_at, created_at
FROM public.tenant_billing_lifecycle;
ANALYZE reconciler.tenants;
"""
"""A run has seen every tenant since its creation."""
PRICED = """
UPDATE public.platform_pricing SET tenant_monthly_fee_chf = 49;
INSERT INTO public.skill_pricing SELECT DISTINCT skill_id, 0.33333 FROM public.tenant_skill_events;
"""


class Cost(NamedTuple):
    """What one repetition took, in seconds, and the rows that came."""

    wall: float
    client: float
    server: float
    rows: int


@dataclass(slots=True)
class Meter:
    """Clocks of wall time and of CPU time, the client's and the server's."""

    postmaster: int
    _started: tuple[float, float, float] = field(default=(0.0, 0.0, 0.0), init=False)

    def start(self) -> None:
        """Count from now."""
        gc.collect()
        self._started = (server.cpu_seconds(self.postmaster), time.process_time(), time.perf_counter())

    def cost(self, rows: int) -> Cost:
        """Return what was used since the start."""
        wall, client = time.perf_counter(), time.process_time()
        time.sleep(server.AFTERMATH)
        before, client_before, wall_before = self._started
        return Cost(wall - wall_before, client - client_before, server.cpu_seconds(self.postmaster) - before, rows)


def executed(cursor: psycopg.Cursor[Any], statement: bytes) -> int:
    """Execute a query of that month without sending its rows; return how many there are."""
    parameters = asked(FIRST, UNTIL)
    ((((plan,)),),) = cursor.execute(b"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) " + statement, parameters).fetchall()
    return int(plan["Plan"]["Actual Rows"])


def got(cursor: psycopg.Cursor[Any]) -> int:
    """Get every line; return how many there are."""
    return sum(1 for _ in statement(cursor, FIRST, UNTIL).lines)


def measured(url: str, repeat: int, meter: Meter, console: Console) -> dict[str, Cost]:
    """Return what each way takes, by its medians."""
    ways: dict[str, Callable[[psycopg.Cursor[Any]], int]] = {
        "the events alone": lambda cursor: executed(cursor, EVENTS),
        "the query usage": lambda cursor: executed(cursor, query("usage")),
        "statement(), every line": got,
        "a first closing": lambda cursor: closed(cursor, dry_run=True).lines,
    }
    first = _measured(url, ways, repeat, meter, console)
    lines = int(first["a first closing"].rows)
    with brief_transaction(url) as cursor:
        closed(cursor, dry_run=False)

    def again(cursor: psycopg.Cursor[Any]) -> int:
        assert not closed(cursor, dry_run=False).adds
        return lines

    def changes(cursor: psycopg.Cursor[Any]) -> int:
        assert not [*due(cursor, FIRST).lines]
        return lines

    return first | _measured(url, {"a second closing": again, "what has changed": changes}, repeat, meter, console)


def closed(cursor: psycopg.Cursor[Any], *, dry_run: bool) -> Closing:
    """Close the month for everybody."""
    author = Author("bench", "to measure")
    every = {FEE_NAME: None, VAT_NAME: None} | dict.fromkeys(price_list(cursor).skills)
    return close(cursor, FIRST, author=author, prices=every, settle=timedelta(), dry_run=dry_run)


def _measured(
    url: str,
    ways: dict[str, Callable[[psycopg.Cursor[Any]], int]],
    repeat: int,
    meter: Meter,
    console: Console,
) -> dict[str, Cost]:
    costs: dict[str, list[Cost]] = {way: [] for way in ways}
    with closing(connect(url)) as ledger, console.status("") as status:
        for number in range(1, repeat + 1):
            for way, run in ways.items():
                status.update(f"{way}: {number} of {repeat}")
                with transaction(ledger) as cursor:
                    meter.start()
                    costs[way].append(meter.cost(run(cursor)))
    return {way: Cost(*map(statistics.median, zip(*some, strict=True))) for way, some in costs.items()}


def backfill(observed: Sequence[Observed]) -> list[list[Finding]]:
    """Return what a run finds where nothing is recorded of these tenants, dated."""
    dating = Dating(observed_at=OBSERVED_AT)
    found = []
    for tenant in observed:
        recorded = Recorded(name=tenant.name)
        found.append(list(dating.dated(compare(tenant, recorded, as_of=OBSERVED_AT), tenant, recorded)))
    return found


def microseconds_a_finding(found: Sequence[Sequence[Finding]], at: Prices) -> float:
    """Return the CPU time that it takes to value a finding."""
    gc.collect()
    began = time.process_time()
    for findings in found:
        with_impact(findings, (), (), at, OBSERVED_AT)
    return (time.process_time() - began) / sum(map(len, found)) * 1e6


def table(costs: dict[str, Cost], title: str) -> Table:
    """Return what people read."""
    made = Table(title=title, title_justify="left")
    made.add_column("", no_wrap=True)
    for name in ("wall s", "client CPU s", "server CPU s", "rows", "CPU µs a row"):
        made.add_column(name, justify="right")
    for way, cost in costs.items():
        made.add_row(
            way,
            *(f"{seconds:.2f}" for seconds in (cost.wall, cost.client, cost.server)),
            f"{cost.rows:,.0f}",
            f"{(cost.client + cost.server) / cost.rows * 1e6:.2f}",
        )
    return made


@click.command(context_settings={"show_default": True})
@click.option("--tenants", type=click.IntRange(1), default=100_000, help="Live tenants.")
@click.option("--packages", type=click.IntRange(1), default=8, help="Skills that each tenant has on.")
@click.option("--events", type=click.IntRange(1), default=5, help="Recorded events of each skill of each tenant.")
@click.option("--valued", "to_value", type=click.IntRange(1), default=20_000, help="Tenants of the backfill.")
@click.option("--repeat", type=click.IntRange(1), default=5, help="Repetitions, of which medians are shown.")
@click.option("--seed", type=int, default=1, help="What the tenants and their history are drawn from.")
def main(*, to_value: int, repeat: int, **size_options: int) -> None:
    """Measure what it takes to bill a month of a large ledger, and to value a backfill."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH_OF_A_FILE)
    size = workload.Size(**size_options)
    observed = workload.tenants(size)
    with server.durable() as url:
        ledger_url = server.database(url, MEASURED)
        with console.status(f"recording the history of {size.tenants:,} tenants"):
            with closing(connect(url)) as maintenance:
                maintenance.execute(f"CREATE DATABASE {MEASURED}")
            with closing(connect(ledger_url)) as ledger:
                migrate(ledger)
                recorded = workload.load(ledger_url, observed, events=size.events)
                ledger.execute(PRICED)
                ledger.execute(PROVEN)
        costs = measured(ledger_url, repeat, Meter(server.postmaster(url)), console)
        with closing(connect(ledger_url)) as ledger, transaction(ledger) as cursor:
            at = prices(cursor)
    console.print(
        table(
            costs,
            f"{size.tenants:,} tenants, {size.packages} skills each, {recorded:,} events, one month; "
            f"medians of {repeat}, seed {size.seed}",
        )
    )
    found = backfill(observed[:to_value])
    each = statistics.median(microseconds_a_finding(found, at) for _ in range(repeat))
    findings = sum(map(len, found))
    console.print(f"A backfill of {len(found):,} tenants: {each:.1f} µs of CPU to value each of {findings:,} findings")


if __name__ == "__main__":
    main()
