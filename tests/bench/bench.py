"""How long a pass takes after the pages have arrived, beside the obvious way: three queries for each tenant.

Both look at the same ledger on the same server, in turn, several times over; the table shows medians. The pass is the
program's own, `reconciler.run.Pass`, timed from the moment that its source has spooled the last tenant to its end.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import click
import structlog
from rich.console import Console
from rich.table import Table

from reconciler.database import connect, transaction
from reconciler.deadline import Deadline
from reconciler.migrate import migrate
from reconciler.model import FIRST, LAST, Listing, Reason
from reconciler.plan import Limits
from reconciler.queries import query
from reconciler.recall import TenantSpool, recall
from reconciler.report import WIDTH_OF_A_FILE
from reconciler.run import Pass, Terms
from tests.bench import obvious, server, workload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from reconciler.model import Observed, Spool

MEASURED, FRESH = "measured", "fresh"
"""The database that holds the history, and the template of those that hold nothing yet."""
AFTERMATH = 0.05
"""Seconds after which the CPU time of a server process that has ended is known."""


class Cost(NamedTuple):
    """What one repetition took and did."""

    wall: float
    client: float
    server: float
    findings: int
    written: int


@dataclass(slots=True)
class Meter:
    """Clocks of wall time and of CPU time, the client's and the server's."""

    postmaster: int
    _started: tuple[float, float, float] = field(default=(0.0, 0.0, 0.0), init=False)

    def start(self) -> None:
        """Count from now."""
        gc.collect()
        self._started = (server.cpu_seconds(self.postmaster), time.process_time(), time.perf_counter())

    def cost(self, findings: int, written: int) -> Cost:
        """Return what was used since the start."""
        wall, client = time.perf_counter(), time.process_time()
        time.sleep(AFTERMATH)
        before, client_before, wall_before = self._started
        used = server.cpu_seconds(self.postmaster) - before
        return Cost(wall - wall_before, client - client_before, used, findings, written)


@dataclass(slots=True)
class Arrived:
    """A source whose pages have arrived: the meter starts when the last tenant is spooled."""

    tenants: Sequence[Observed]
    meter: Meter

    moves: ClassVar[bool] = False

    def identity(self) -> str:
        """Return a name of its own, so that runs count as those of a cluster."""
        return "bench"

    def observe(self, spool: Spool, /) -> Listing:
        """Put every tenant into the spool, outside the measured time."""
        for tenant in self.tenants:
            spool.add(tenant)
        self.meter.start()
        return Listing(self.identity())

    def get(self, name: str, namespace: str | None) -> Observed | None:
        """Raise: nothing moves, so nothing is looked at twice."""
        raise NotImplementedError(name, namespace)


@dataclass(slots=True)
class Bench:
    """The server, the tenants, and how often each way is taken."""

    url: str
    size: workload.Size
    repeat: int
    meter: Meter
    console: Console

    def no_drift(self, observed: Sequence[Observed]) -> Comparison:
        """The ledger is true: both ways find nothing."""
        url = server.database(self.url, MEASURED)
        costs = [(self._obviously(url, observed), self._passed(url, observed)) for _ in self._repetitions("no drift")]
        return Comparison.of("no drift", costs)

    def drift(self, observed: Sequence[Observed], percent: float) -> Comparison:
        """Writes are lost before each repetition. The obvious way only counts them, the pass records them."""
        url = server.database(self.url, MEASURED)
        costs = []
        for number in self._repetitions(f"{percent:g} % drift"):
            observed = workload.moved_on(observed, percent=percent, seed=self.size.seed + number)
            costs.append((self._obviously(url, observed), self._passed(url, observed)))
        return Comparison.of(f"{percent:g} % drift", costs)

    def backfill(self, observed: Sequence[Observed]) -> Comparison:
        """The ledger is empty, each time anew; both ways must fill it with the same rows."""
        costs = []
        for _ in self._repetitions("backfill"):
            costs.append((self._filled(self._obviously_filled, observed), self._filled(self._passed, observed)))
            assert costs[-1][0].written == costs[-1][1].written
        return Comparison.of("backfill", costs)

    def _repetitions(self, what: str) -> Iterator[int]:
        with self.console.status("") as status:
            for number in range(1, self.repeat + 1):
                status.update(f"{what}: {number} of {self.repeat}")
                yield number

    def _passed(self, url: str, observed: Sequence[Observed]) -> Cost:
        outcome = Pass(
            database_url=url,
            source=Arrived(observed, self.meter),
            terms=Terms(limits=Limits(allow_mass=frozenset(Reason))),
            deadline=Deadline.after(3600),
        ).execute()
        if outcome.failure:
            raise outcome.failure
        return self.meter.cost(len(outcome.findings), sum(finding.action.writes for finding in outcome.findings))

    def _obviously(self, url: str, observed: Sequence[Observed]) -> Cost:
        self.meter.start()
        done = obvious.check(url, observed)
        return self.meter.cost(done.findings, done.written)

    def _obviously_filled(self, url: str, observed: Sequence[Observed]) -> Cost:
        self.meter.start()
        done = obvious.fill(url, observed)
        return self.meter.cost(done.findings, done.written)

    def _filled(self, way: Callable[[str, Sequence[Observed]], Cost], observed: Sequence[Observed]) -> Cost:
        with closing(connect(self.url)) as maintenance:
            maintenance.execute(f"CREATE DATABASE filled TEMPLATE {FRESH}")
            try:
                return way(server.database(self.url, "filled"), observed)
            finally:
                maintenance.execute("DROP DATABASE filled WITH (FORCE)")


class Comparison(NamedTuple):
    """Both ways, by their medians."""

    what: str
    obvious: Cost
    passed: Cost
    ratio: float

    @classmethod
    def of(cls, what: str, costs: Sequence[tuple[Cost, Cost]]) -> Comparison:
        """Return the medians of the repetitions; the ratio is that of the two medians of wall time."""
        assert all(one.findings == other.findings for one, other in costs), "the two ways disagree"
        ways = [Cost(*map(statistics.median, zip(*way, strict=True))) for way in zip(*costs, strict=True)]
        return cls(what, ways[0], ways[1], ways[0].wall / ways[1].wall)


def explain(url: str, observed: Sequence[Observed]) -> str:
    """Return the plan of the query `differing` as a pass would run it, executed."""
    with TenantSpool() as spool, closing(connect(url)) as ledger, transaction(ledger) as cursor:
        for tenant in observed:
            spool.add(tenant)
        recall(cursor, spool)
        cursor.execute(
            b"EXPLAIN (ANALYZE, BUFFERS) " + query("differing"),
            {"names": None, "everyone": False, "settle": timedelta(), "first": FIRST, "last": LAST},
        )
        return "\n".join(line for (line,) in cursor)


def prepare(url: str, size: workload.Size, observed: Sequence[Observed]) -> int:
    """Create the two databases, fill the one, and return its number of events."""
    with closing(connect(url)) as maintenance:
        for name in (FRESH, MEASURED):
            maintenance.execute(f"CREATE DATABASE {name}")
            with closing(connect(server.database(url, name))) as ledger:
                migrate(ledger)
    with closing(connect(server.database(url, MEASURED))) as ledger:
        recorded = workload.load(ledger, observed, events=size.events)
        ledger.execute("CHECKPOINT")
    return recorded


def table(comparisons: Sequence[Comparison], tenants: int, title: str) -> Table:
    """Return what people read."""
    made = Table(title=title, title_justify="left")
    for name in ("", "way"):
        made.add_column(name, no_wrap=True)
    for name in ("wall s", "client CPU s", "server CPU s", "µs a tenant", "findings", "rows written", "ratio"):
        made.add_column(name, justify="right")
    for comparison in comparisons:
        for way, cost, ratio in (
            ("three queries a tenant", comparison.obvious, 1.0),
            ("the pass", comparison.passed, comparison.ratio),
        ):
            made.add_row(
                comparison.what if ratio == 1.0 else "",
                way,
                *(f"{seconds:.2f}" for seconds in (cost.wall, cost.client, cost.server)),
                f"{cost.wall / tenants * 1e6:.0f}",
                f"{cost.findings:,.0f}",
                f"{cost.written:,.0f}",
                f"{ratio:.1f}",
            )
    return made


@click.command(context_settings={"show_default": True})
@click.option("--tenants", type=click.IntRange(1), default=20_000, help="Live tenants.")
@click.option("--packages", type=click.IntRange(1), default=8, help="Packages that each tenant has on.")
@click.option("--events", type=click.IntRange(1), default=5, help="Recorded events of each package of each tenant.")
@click.option("--repeat", type=click.IntRange(1), default=5, help="Repetitions, of which medians are shown.")
@click.option("--seed", type=int, default=1, help="What the tenants and their history are drawn from.")
@click.option("--drift", type=click.FloatRange(0, 100), help="Measure also with this percentage of tenants changed.")
@click.option("--backfill", is_flag=True, help="Measure also from an empty ledger; the obvious way takes its time.")
@click.option("--explain", "explained", is_flag=True, help="Print how PostgreSQL runs the query of the pass.")
@click.option("--expect", type=float, metavar="RATIO", help="Exit 1 if the ratio without drift is below it.")
def main(
    *,
    repeat: int,
    drift: float | None,
    backfill: bool,
    explained: bool,
    expect: float | None,
    **size_options: int,
) -> None:
    """Measure passes over a large ledger, after the pages have arrived, beside three queries for each tenant."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH_OF_A_FILE)
    size = workload.Size(**size_options)
    observed = workload.tenants(size)
    with server.durable() as url:
        with console.status(f"recording the history of {size.tenants:,} tenants"):
            recorded = prepare(url, size, observed)
        bench = Bench(url, size, repeat, Meter(server.postmaster(url)), console)
        if explained:
            click.echo(explain(server.database(url, MEASURED), observed))
        comparisons = [bench.no_drift(observed)]
        if drift:
            comparisons.append(bench.drift(observed, drift))
        if backfill:
            comparisons.append(bench.backfill(observed))
    console.print(
        table(
            comparisons,
            size.tenants,
            f"{size.tenants:,} tenants, {size.packages} packages each, {recorded:,} events; "
            f"medians of {repeat}, seed {size.seed}",
        )
    )
    ratio = comparisons[0].ratio
    if expect is not None and ratio < expect:
        click.echo(f"The ratio without drift is {ratio:.1f}; at least {expect:g} was expected.", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
