"""What a run costs, beside the obvious way and beside the floor: whole processes, on one machine.

Three ways look at the same tenants over HTTP and at the same ledger, in turn, several times over; medians are shown.

- the obvious way: `tests.bench.obvious`, three queries for each tenant, as a script would make them;
- the floor: `tests.bench.floor`, which fetches the pages and throws them away, and runs the bare DISTINCT ON;
- the run: the program's own command, `reconciler run`;
- from the log: the same with `--full-every`, after 100 tenants have changed.

Times, CPU and peak memory are those of the process, from its start to its exit. The ledger's part is what comes after
the last page has arrived; of a run it is read from its log.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import click
from rich.console import Console
from rich.table import Table

from reconciler.db.connection import connect
from reconciler.db.migrate import migrate
from reconciler.views.terminal import WIDTH_OF_A_FILE
from tests.bench import metered, pages, server, workload
from tests.bench.real import RealPages

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from reconciler.core.model import Observed

FEW = 100
"""Tenants of the run that is little more than its own start."""
START = "import kubernetes, psycopg"

OBVIOUS, FLOOR, PASS, IMPORTS = "three queries a tenant", "the floor", "the run", "its imports"
CHANGED, INSERTS = "from the log", "the bare inserts"


BARE_INSERTS = """
CREATE TABLE public.bare (LIKE {table} INCLUDING ALL EXCLUDING GENERATED);
INSERT INTO public.bare OVERRIDING SYSTEM VALUE SELECT * FROM {table};
DROP TABLE public.bare
"""
"""The same rows once more, with the same indexes."""
WRITTEN = ("public.tenant_billing_lifecycle", "public.tenant_skill_events", "public.tenant_suspension_events",
           "reconciler.corrections")  # fmt: skip


class Cost(NamedTuple):
    """What one way took and did, once; or the medians of several times."""

    wall: float
    ledger: float
    """Seconds of it after the last page had arrived."""
    cpu: float
    server: float
    """CPU seconds of PostgreSQL."""
    peak: float
    """Bytes."""
    api: float
    """CPU seconds of the API server, where it is a real one."""
    read: float
    """Rows that came back from the ledger, where it is known."""
    written: float
    walls: tuple[float, float] = (0.0, 0.0)
    """The shortest of several times, and the longest."""

    @classmethod
    def median(cls, costs: Sequence[Cost]) -> Cost:
        """Return the median of each figure."""
        figures = zip(*(cost[:-1] for cost in costs), strict=True)
        walls = [cost.wall for cost in costs]
        return cls(*map(statistics.median, figures))._replace(walls=(min(walls), max(walls)))


class Shown:
    """Pages of our own server: what it shows is what it is told to."""

    is_real: ClassVar[bool] = False
    idle = 0.0
    """CPU seconds that the API server uses in each second by itself."""
    asking = 0.0
    """Those that it uses to say how many it has used."""

    def __init__(self, folder: Path, page_size: int) -> None:
        self._folder, self._page_size, self._version = folder, page_size, 0

    @contextmanager
    def showing(self, observed: Sequence[Observed]) -> Iterator[Path]:
        """Show these tenants, and yield the path of a kubeconfig."""
        self._version += 1
        pages.prepare(self._folder, observed, limit=self._page_size, version=self._version)
        with pages.served(self._folder) as kubeconfig:
            yield kubeconfig

    @contextmanager
    def changing(self, changed: Sequence[Observed]) -> Iterator[Path]:
        """Show that these tenants have changed, and yield the path of a kubeconfig."""
        self._version += max(1, len(changed))
        pages.change(self._folder, changed, version=self._version)
        with pages.served(self._folder) as kubeconfig:
            yield kubeconfig

    def admitted(self, observed: Sequence[Observed]) -> Sequence[Observed]:
        """Return these tenants: they are shown as they are."""
        return observed

    def cpu_seconds(self) -> float:
        """Return 0: nothing is learned from what our own server uses."""
        return 0.0


class Bench:
    """A PostgreSQL, a cluster, and the ways to look at the two."""

    def __init__(self, url: str, cluster: Shown | RealPages, page_size: int, console: Console) -> None:
        self._url, self._cluster, self._page_size, self._console = url, cluster, page_size, console
        self._postmaster = server.postmaster(url)

    def create(self, name: str, observed: Sequence[Observed] = (), *, events: int = 0) -> int:
        """Create a ledger that says what is observed, each skill by so many events; return how many there are."""
        with self._console.status(f"recording {name}: the history of {len(observed):,} tenants"):
            with closing(connect(self._url)) as maintenance:
                maintenance.execute(f'CREATE DATABASE "{name}"')
            url = server.database(self._url, name)
            with closing(connect(url)) as ledger:
                migrate(ledger)
            just_now = self._cluster.is_real
            return workload.load(url, observed, events=events, just_now=just_now) if observed else 0

    def admitted(self, observed: Sequence[Observed]) -> Sequence[Observed]:
        """Have the cluster show these tenants, and return them as it does."""
        return self._cluster.admitted(observed)

    def drop(self, name: str) -> None:
        """Drop a ledger."""
        with closing(connect(self._url)) as maintenance:
            maintenance.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def measured(
        self, what: str, ledger: str, shown: Sequence[Sequence[Observed]], ways: Sequence[str]
    ) -> dict[str, Cost]:
        """Take each way in turn, once for each state of the cluster that is shown."""
        costs: dict[str, list[Cost]] = {way: [] for way in ways}
        with self._console.status("") as status:
            for number, observed in enumerate(shown, start=1):
                with self._cluster.showing(observed) as kubeconfig:
                    for way in ways:
                        status.update(f"{what}, {way}: {number} of {len(shown)}")
                        costs[way].append(self._taken(way, ledger, kubeconfig))
                found = {some[-1].written for way, some in costs.items() if way in {OBVIOUS, PASS}}
                assert len(found) == 1, f"the ways disagree: {found}"
        return {way: Cost.median(some) for way, some in costs.items()}

    def changed(self, ledger: str, observed: Sequence[Observed], repeat: int) -> dict[str, Cost]:
        """A run that lists all, and after that runs that read what has changed."""
        costs: dict[str, list[Cost]] = {PASS: [], CHANGED: []}
        url, current = server.database(self._url, ledger), list(observed)
        with self._console.status("") as status:
            with self._cluster.showing(observed) as kubeconfig:
                for number in range(1, repeat + 1):
                    status.update(f"{FEW_CHANGED}, {PASS}: {number} of {repeat}")
                    costs[PASS].append(self._taken(PASS, ledger, kubeconfig))
            # an idle API server may remember no more than 100 versions, which is less than these are: it learns by them
            ways = [*([PASS] if self._cluster.is_real else []), *[CHANGED] * repeat]
            for number, way in enumerate(ways, start=1):
                status.update(f"{FEW_CHANGED}, {way}: {number} of {len(ways)}")
                current[:FEW] = workload.toggled(url, current, FEW, at=datetime.now(UTC))
                with self._cluster.changing(current[:FEW]) as kubeconfig:
                    cost = self._taken(way, ledger, kubeconfig)
                if way == CHANGED:
                    costs[way].append(cost)
        return {way: Cost.median(some) for way, some in costs.items()}

    def filled(self, observed: Sequence[Observed], repeat: int) -> dict[str, Cost]:
        """The backfill: both ways must fill an empty ledger with as many rows, each time again."""
        costs: dict[str, list[Cost]] = {OBVIOUS: [], PASS: []}
        bare: list[Cost] = []
        with self._cluster.showing(observed) as kubeconfig, self._console.status("") as status:
            for number in range(1, repeat + 1):
                for way, some in costs.items():
                    status.update(f"backfill, {way}: {number} of {repeat}")
                    self.create("filled")
                    some.append(self._taken(way, "filled", kubeconfig, fill=True))
                    if way == PASS:
                        bare.append(self._inserted("filled"))
                    self.drop("filled")
                assert costs[OBVIOUS][-1].written == costs[PASS][-1].written, "the ways disagree"
        costs[INSERTS] = bare
        return {way: Cost.median(some) for way, some in costs.items()}

    def _inserted(self, name: str) -> Cost:
        """Insert what a backfill has written once more into tables like those, and nothing else."""
        with closing(connect(server.database(self._url, name))) as ledger:
            before, began = server.cpu_seconds(self._postmaster), time.perf_counter()
            with ledger.transaction():
                for table in WRITTEN:
                    ledger.execute(BARE_INSERTS.format(table=table).encode())
            wall = time.perf_counter() - began
        time.sleep(server.AFTERMATH)
        return Cost(wall, wall, 0, server.cpu_seconds(self._postmaster) - before, 0, 0, 0, 0)

    def _taken(self, way: str, name: str, kubeconfig: Path, *, fill: bool = False) -> Cost:
        run = ["-m", "reconciler", *_OPTIONS, "--kubeconfig", kubeconfig, "--page-size", self._page_size]
        arguments: dict[str, list[object]] = {
            OBVIOUS: ["-m", "tests.bench.obvious", kubeconfig, *(["fill"] if fill else [])],
            FLOOR: ["-m", "tests.bench.floor", kubeconfig, self._page_size],
            IMPORTS: ["-c", START],
            PASS: run,
            CHANGED: [*run, "--full-every", "1h"],
        }
        before, api = server.cpu_seconds(self._postmaster), self._cluster.cpu_seconds()
        done = metered.run([sys.executable, *arguments[way]], {"DATABASE_URL": server.database(self._url, name)})
        time.sleep(server.AFTERMATH)
        used, api = server.cpu_seconds(self._postmaster) - before, self._cluster.cpu_seconds() - api
        said: dict[str, Any] = (
            _logged(done.log) if way in {PASS, CHANGED} else json.loads("".join(done.output[-1:]) or "{}")
        )
        written = said["findings"] if way == OBVIOUS else said.get("written", 0)
        ledger = said.get("ledger", 0)
        compared = said.get("compared", "all")
        assert (way == CHANGED) == (compared != "all"), "\n".join([f"{way} compared {compared}:", *done.log])
        api = max(0.0, api - self._cluster.asking - self._cluster.idle * (done.use.wall + server.AFTERMATH))
        return Cost(done.use.wall, ledger, done.use.cpu, used, done.use.peak, api, said.get("read", 0), written)


_OPTIONS = ("run", "--limit-percent", "100", "--no-events", "--deadline", "1h", "--settle", "0s")
"""Only the log is notified, the safety limits allow everything, and no run waits for the portal."""


def _logged(log: Sequence[str]) -> dict[str, Any]:
    """Return what a run logged of itself: the seconds after its last page, the rows written, and what it compared."""
    lines = {line["event"]: line for line in map(json.loads, log)}
    written = ("lifecycle_inserted", "events_inserted", "suspension_events_inserted")
    return {
        "ledger": lines["run.ended"]["seconds"] - lines["tenants.observed"]["seconds"],
        "written": sum(lines["run.ended"][count] for count in written),
        "compared": lines["tenants.observed"]["compared"],
    }


class Target(NamedTuple):
    """What is to be reached, and what was."""

    claim: str
    measured: float
    limit: float
    unit: str
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether it is reached."""
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


class Measured(NamedTuple):
    """Everything that was measured over so many tenants, by case and way."""

    tenants: int
    events: int
    costs: dict[str, dict[str, Cost]]


NO_DRIFT, DEEP, BACKFILL, SMALL = "no drift", "deep history", "backfill", "few"
FEW_CHANGED = f"{FEW} have changed"


def over(
    bench: Bench, size: workload.Size, *, repeat: int, drift: float, history: int, backfill: bool, obvious: bool
) -> Measured:
    """Measure every case over so many tenants."""
    observed, aside = bench.admitted(workload.tenants(size)), [OBVIOUS] * obvious
    costs: dict[str, dict[str, Cost]] = {}
    recorded = bench.create("true", observed, events=size.events)
    costs[NO_DRIFT] = bench.measured(NO_DRIFT, "true", [observed] * repeat, [*aside, FLOOR, PASS])
    moved = [observed]
    if drift:
        for number in range(repeat):
            moved.append(workload.moved_on(moved[-1], percent=drift, seed=size.seed + number))
        case = f"{drift:g} % drift"
        costs[case] = bench.measured(case, "true", moved[1:], [*aside, PASS])
    costs[FEW_CHANGED] = bench.changed("true", moved[-1], repeat)
    bench.drop("true")
    if history > 1:
        bench.create("deep", observed, events=size.events * history)
        costs[DEEP] = bench.measured(DEEP, "deep", [observed] * repeat, [FLOOR, PASS])
        bench.drop("deep")
    if backfill:
        costs[BACKFILL] = bench.filled(observed, repeat)
    return Measured(size.tenants, recorded, costs)


def targets(measured: Sequence[Measured], small: dict[str, Cost], drift: float) -> Iterator[Target]:
    """Yield what is to be reached, as far as it was measured."""
    for tenants, _, costs in measured:
        over_so_many = f", {tenants:,} tenants"
        true, case = costs[NO_DRIFT], f"{drift:g} % drift"
        passed = true[PASS]
        if OBVIOUS in true:
            yield Target("no drift, after the pages: times faster" + over_so_many,
                         true[OBVIOUS].ledger / passed.ledger, 40, "x", at_least=True)  # fmt: skip
        if filled := costs.get(BACKFILL):
            yield Target("backfill, after the pages: times faster" + over_so_many,
                         filled[OBVIOUS].ledger / filled[PASS].ledger, 15, "x", at_least=True)  # fmt: skip
            yield Target("backfill, PostgreSQL's CPU beside that of the bare inserts" + over_so_many,
                         filled[PASS].server / filled[INSERTS].server, 3, "x")  # fmt: skip
        yield Target("whole run beside the floor" + over_so_many, passed.wall / true[FLOOR].wall, 1.1, "x")
        yield Target("the ledger's part beside the bare DISTINCT ON" + over_so_many,
                     passed.ledger / true[FLOOR].ledger, 1, "x")  # fmt: skip
        yield Target("own CPU a tenant, beyond start-up" + over_so_many,
                     (passed.cpu - small[PASS].cpu) / max(1, tenants - FEW) * 1e6, 60, "µs")  # fmt: skip
        yield Target("peak memory" + over_so_many, passed.peak / 1e6, 150, "MB")
        fresh = costs[FEW_CHANGED]
        yield Target(f"CPU of a run from the log beside one over {FEW}" + over_so_many,
                     fresh[CHANGED].cpu / small[PASS].cpu, 2, "x")  # fmt: skip
        if fresh[PASS].api:
            yield Target("API server's CPU for it beside a full list's" + over_so_many,
                         fresh[CHANGED].api / fresh[PASS].api, 0.01, "x")  # fmt: skip
        if drifted := costs.get(case):
            yield Target(f"{case} beside no drift{over_so_many}", drifted[PASS].wall / passed.wall, 1.3, "x")
        if deep := costs.get(DEEP):
            yield Target("deep history, after the pages, beside the shallow one" + over_so_many,
                         deep[PASS].ledger / passed.ledger, 2, "x")  # fmt: skip
    peaks = [costs[NO_DRIFT][PASS].peak for _, _, costs in measured]
    if len(peaks) > 1:
        yield Target("peak memory of the last size beside the one before", peaks[-1] / peaks[-2], 1.1, "x")
    yield Target(f"a run over {FEW} tenants beside `{START}`", small[PASS].wall / small[IMPORTS].wall, 1.5, "x")


def costs_table(measured: Measured, title: str) -> Table:
    """Return what people read of the costs."""
    made = Table(title=title, title_justify="left")
    for name in ("", "way"):
        made.add_column(name, no_wrap=True)
    names = (
        "wall s",
        "from … to",
        "after pages s",
        "CPU s",
        "server CPU s",
        "API CPU s",
        "peak MB",
        "rows read",
        "written",
        "ratio",
    )
    for name in names:
        made.add_column(name, justify="right")
    for case, ways in measured.costs.items():
        for number, (way, cost) in enumerate(ways.items()):
            made.add_row(
                "" if number else case,
                way,
                f"{cost.wall:.2f}",
                "{:.2f} … {:.2f}".format(*cost.walls),
                *(f"{took:.2f}" for took in (cost.ledger, cost.cpu, cost.server)),
                f"{cost.api:.3f}" if cost.api else "",
                f"{cost.peak / 1e6:.0f}",
                f"{cost.read:,.0f}" if cost.read else "",
                f"{cost.written:,.0f}" if way != FLOOR else "",
                f"{ways[OBVIOUS].ledger / cost.ledger:.1f}" if OBVIOUS in ways else "",
            )
    return made


def targets_table(reached: Sequence[Target]) -> Table:
    """Return what people read of the targets."""
    made = Table(title="targets", title_justify="left")
    made.add_column("", no_wrap=True)
    for name in ("measured", "target", ""):
        made.add_column(name, justify="right")
    for target in reached:
        bound = "≥" if target.at_least else "≤"
        made.add_row(
            target.claim,
            f"{target.measured:.3g} {target.unit}",
            f"{bound} {target.limit:g} {target.unit}",
            "met" if target.met else "missed",
        )
    return made


@click.command(context_settings={"show_default": True})
@click.option("--tenants", type=click.IntRange(FEW), multiple=True, default=[20_000], help="Live tenants; repeatable.")
@click.option("--packages", type=click.IntRange(1), default=8, help="Packages that each tenant has on.")
@click.option("--events", type=click.IntRange(1), default=5, help="Recorded events of each package of each tenant.")
@click.option("--drift", type=click.FloatRange(0, 100), default=1.0, help="Percentage of tenants changed; 0: none.")
@click.option("--history", type=click.IntRange(1), default=10, help="So many times the events; 1: not measured.")
@click.option("--backfill/--no-backfill", default=True, help="Whether to measure it; the obvious way takes its time.")
@click.option("--obvious/--no-obvious", default=True, help="Whether to measure it where no ledger is filled.")
@click.option("--repeat", type=click.IntRange(1), default=9, help="Repetitions, of which medians are shown.")
@click.option("--page-size", type=click.IntRange(1), default=500, help="Tenants on a page of the list.")
@click.option("--seed", type=int, default=1, help="What the tenants and their history are drawn from.")
@click.option("--json", "file", type=click.File("w"), help="Write every figure here too.")
def main(*, tenants: tuple[int, ...], packages: int, events: int, seed: int, file: Any, **cases: Any) -> None:
    """Measure runs over a large ledger beside the obvious way and the floor.

    The pages come from a server of our own that has them ready, or from the API server that TEST_KUBECONFIG names: then
    that is filled with tenants first, and emptied afterwards.
    """
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH_OF_A_FILE)
    measured = []
    repeat, page_size = cases["repeat"], cases.pop("page_size")
    with ExitStack() as stack:
        url = stack.enter_context(server.durable())
        kubeconfig = os.environ.get("TEST_KUBECONFIG")
        cluster: Shown | RealPages
        if kubeconfig:
            cluster = stack.enter_context(RealPages(Path(kubeconfig)))
        else:
            cluster = Shown(Path(stack.enter_context(tempfile.TemporaryDirectory())), page_size)
        bench = Bench(url, cluster, page_size, console)
        few = workload.Size(tenants=FEW, packages=packages, events=events, seed=seed)
        bench.create(SMALL, observed := bench.admitted(workload.tenants(few)), events=events)
        small = bench.measured(SMALL, SMALL, [observed] * 2 * repeat, [IMPORTS, PASS])
        for number in tenants:
            size = workload.Size(tenants=number, packages=packages, events=events, seed=seed)
            measured.append(over(bench, size, **cases))
            title = f"{number:,} tenants, {packages} packages each, {measured[-1].events:,} events; "
            console.print(costs_table(measured[-1], f"{title}medians of {repeat}, pages of {page_size}, seed {seed}"))
    reached = list(targets(measured, small, cases["drift"]))
    console.print(targets_table(reached))
    if file:
        json.dump({"measured": measured, "few": small, "targets": reached}, file, indent=1)


if __name__ == "__main__":
    main()
