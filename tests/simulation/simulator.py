"""A world in one process, driven by one seed: tenants live and change, the reconciler runs now and then, faults strike.

Three kinds of disturbance, after Sieve (Sun et al., OSDI 2022): the run dies between any two steps; what it reads is
stale; what it needed to see was never shown.
"""

from __future__ import annotations

import random
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import stamina
from psycopg import sql

from reconciler.core.model import Mode
from reconciler.core.plan import Limits
from reconciler.db import connection as database
from reconciler.deadline import Deadline
from reconciler.job import Job, RunOptions
from reconciler.run import reconcile
from reconciler.sources.api_client import Api, CustomResource
from reconciler.sources.cluster import Cluster
from tests.simulation import invariants
from tests.simulation.boundaries import Boundaries, Died, Looks
from tests.simulation.invariants import Ledger
from tests.simulation.logs import STYLES, drawn_style, treat_log
from tests.simulation.portal import CLOCK, SETTLE, Clock, Portal
from tests.support import faults
from tests.support.fake_api import FakeApi
from tests.support.faults import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pytest

    from reconciler.core.history import Position
    from reconciler.core.model import Outcome, StartLog


class Unhurried(Job):
    """A run that reads the change log only when it waits for it, so that a seed always tells the same story."""

    def start_log(self, position: Position | None) -> StartLog | None:
        """Return what reads it."""
        since = position and position.resource_version
        return partial(partial, self.source.read_log, since) if since else None


PASSES = 8
UNLIMITED = Limits(count=1000)
TIGHT = Limits(count=1, percent=0)

HTTP_FAULTS: dict[str, Callable[[random.Random], Fault]] = {
    "503 once": lambda _: Fault(faults.status(503), when=faults.anything),
    "503 indefinitely": lambda _: Fault(faults.status(503), when=faults.anything, times=None),
    "401": lambda _: Fault(faults.status(401), when=faults.anything),
    "403": lambda _: Fault(faults.status(403), when=faults.anything),
    "404 of the list": lambda _: Fault(faults.status(404), when=faults.lists),
    "410": lambda _: Fault(faults.gone("inconsistent-token"), when=faults.later_pages),
    "empty list": lambda _: Fault(faults.items([]), when=faults.lists),
    "no items": lambda _: Fault(faults.no_items(), when=faults.lists),
    "page missing": lambda _: Fault(faults.skip_page(), when=faults.first_pages),
    "other version": lambda _: Fault(faults.metadata(resourceVersion="1"), when=faults.later_pages),
    "name twice": lambda _: Fault(faults.name_twice(), when=faults.lists),
    "cut": lambda r: Fault(faults.cut_length(r.random()), when=faults.anything),
    "cut chunks": lambda r: Fault(faults.cut_chunked(r.random()), when=faults.anything),
    "html": lambda _: Fault(faults.html(), when=faults.anything),
    "reset": lambda _: Fault(faults.reset(), when=faults.anything),
    "stale list": lambda _: Fault(faults.metadata(resourceVersion="7"), when=faults.lists, times=None),
    "other cluster": lambda _: Fault(
        faults.edit(lambda namespace: namespace["metadata"].update(uid="other")), when=faults.path(KUBE_SYSTEM)
    ),
}
KUBE_SYSTEM = "/api/v1/namespaces/kube-system"

SQL_FAULTS = ("die", "cut", "lost commit", "second run", "lock held")


class _Lost(psycopg.OperationalError):
    """The answer to a COMMIT never came."""


@dataclass
class Simulation:
    """One seed's world."""

    seed: int
    url: str
    api: FakeApi
    kubeconfig: Path
    monkeypatch: pytest.MonkeyPatch
    minutes: int = 0
    """So many runs, one a minute, of which one in a quarter of an hour lists all; 0: runs at any time."""

    def __post_init__(self) -> None:
        """Set the clock and open the doors."""
        self.random = random.Random(self.seed)  # noqa: S311 - a replayable world, not a secret
        with psycopg.connect(self.url, autocommit=True) as ledger:
            ledger.execute(CLOCK)
        self.clock = Clock(self._open(self.url))
        self.clock.ahead = timedelta(seconds=self.random.choice([0, 0, 0, 2.5, -2.5, 600, -600]))
        self.clock.advance(0)
        self.api.clock = self.clock.server
        self.api.page_limit = self.random.choice([1, 3, None])
        self.portal = Portal(self.api, self.clock, self.random, loss=self.random.choice([0.0, 0.2, 0.5, 1.0]))
        # a stream of its own: a world is the same whatever its log shows
        self.log_random = random.Random(f"log {self.seed}")  # noqa: S311 - a replayable world
        self.log_style = drawn_style(self.log_random, ("none", *STYLES))
        lists = random.Random(f"lists {self.seed}")  # noqa: S311 - a replayable world
        self.full_every = timedelta(hours=lists.choice([0, 1, 24]))
        self.log: list[str] = [f"the log is {self.log_style}, all are listed every {self.full_every}"]
        self._others: list[tuple[Outcome | None, Looks]] = []
        self._held: psycopg.Connection[Any] | None = None

    def play(self) -> None:
        """Let the world go on, with runs and faults in it; then let it come to rest."""
        try:
            for _ in range(self.minutes or PASSES):
                self._live_a_minute() if self.minutes else self._live()
                # of minutes most are quiet
                faults = [*[None] * (20 if self.minutes else 2), "http", "sql", "sql", "portal", "tight", "killed"]
                fault = self.random.choice(faults)
                self._killed() if fault == "killed" else self._pass(fault)
            self._come_to_rest()
        finally:
            self.clock.ledger.close()

    def _live_a_minute(self) -> None:
        ends = self.clock.now + timedelta(minutes=1)
        self.full_every = timedelta(minutes=15)
        while self.random.random() < 0.5:
            self.clock.advance(self.random.random() * 20)
            self.portal.act()
            self.api.pass_by(self.log_random.randrange(3))
        self.clock.advance(max(0.0, (ends - self.clock.now).total_seconds()))

    def _live(self) -> None:
        for _ in range(self.random.randrange(12)):
            self.clock.advance(self.random.choice([0.3, 5, 45, 90, 600]) * self.random.random())
            self.portal.act()
            self.api.pass_by(self.log_random.randrange(3))
        self.clock.advance(self.random.choice([0, 3, 61, 300]))

    def _come_to_rest(self) -> None:
        self.portal.settle_down()
        self.log_style = "none" if self.log_style == "none" else "whole"
        for _ in range(2):
            # what moved no time on the resource may have happened just before the list
            self.clock.advance(1000)
            self._pass(None)
        outcome, _ = self._pass(None)
        assert outcome, "the last run but one died"
        before = self._read()
        invariants.stable(self.portal, before, outcome)
        outcome, _ = self._pass(None)
        assert outcome, "the last run died"
        assert self._read().billed() == before.billed(), "I7: a ledger at rest was written to"

    def _pass(self, fault: str | None) -> tuple[Outcome | None, Looks]:
        """Make one run, and check every invariant after it."""
        before = self._read()
        limits = TIGHT if fault == "tight" else UNLIMITED
        boundaries = Boundaries()
        treat_log(self.api, self.log_style, self.log_random)
        boundaries.at = self._disturbance(fault, boundaries)
        outcome, looks = self._reconcile(self.url, boundaries, limits)
        self.api.faults.clear()
        if self._held:
            self._held.close()
            self._held = None
        after = self._read()
        ended = f"{outcome.result}, compared {outcome.compared}" if outcome else "died"
        self._note(f"{fault} -> {ended} {(outcome and outcome.failure) or ''}")
        invariants.accounted_for(after, self.portal)
        invariants.append_only(before, after)
        if outcome and not self._others:
            invariants.fail_closed(outcome, before, after, self.portal)
        for one, its_looks in [(outcome, looks), *self._others]:
            written = invariants.corrections_of(one, before, after)
            invariants.proved_absent(written, its_looks)
            invariants.justified(written, its_looks, self.portal)
            invariants.shown_by_the_log(written, self.portal, its_looks)
            invariants.within_the_interval(written, after, self.portal, its_looks)
        invariants.has_an_end(outcome, before, after)
        return outcome, looks

    def _killed(self) -> None:
        """Kill a run anywhere, then make a clean one: the ledger is what one clean run alone would have made it."""
        began = self.clock.now
        self.clock.ledger.close()
        with _twin_of(self.url) as twin:
            self.clock.ledger = self._open(self.url)
            self.clock.hold = True
            strikes_at = self.random.randrange(1, 60)
            boundaries = Boundaries()

            def die(where: str) -> None:
                if len(boundaries.passed) == strikes_at:
                    self._note(f"killed {where} at {strikes_at}")
                    raise Died

            boundaries.at = die
            self.api.lag = 0
            self._reconcile(self.url, boundaries, UNLIMITED)
            self.clock.turn(began)
            self._reconcile(self.url, Boundaries(off=True), UNLIMITED)
            ours = self._read()
            home, self.clock.ledger = self.clock.ledger, self._open(twin)
            self.clock.turn(began)
            self._reconcile(twin, Boundaries(off=True), UNLIMITED)
            theirs = self._read()
            self.clock.ledger.close()
            self.clock.ledger = home
        self.clock.hold = False
        differ = {name: (set(rows) ^ set(theirs.content()[name])) for name, rows in ours.content().items()}
        assert ours.content() == theirs.content(), (
            f"{differ} I7: killed and run again, the ledger is not that of one clean run"
        )

    def _open(self, url: str) -> psycopg.Connection[Any]:
        return psycopg.connect(url, autocommit=True, options="-c timezone=UTC")

    def _read(self) -> Ledger:
        return Ledger.read(self.clock.ledger)

    def _note(self, what: str) -> None:
        self.log.append(f"{self.clock.now:%H:%M:%S} {what}")

    def _reconcile(self, url: str, boundaries: Boundaries, limits: Limits) -> tuple[Outcome | None, Looks]:
        deadline = Deadline.after(600)
        api = Api(kubeconfig=str(self.kubeconfig), context=None, deadline=deadline)
        source = Cluster(
            resource=CustomResource(api=api, group="pieced.ch", plural="piecedtenants"),
            org_label="pieced.ch/zitadel-org-id",
            page_size=3,
        )
        looks = Looks(source, boundaries, self.clock)
        options = RunOptions(mode=Mode.RUN, settle=SETTLE, limits=limits, full_every=self.full_every)
        attempt = Unhurried(
            database_url=url, source=looks, options=options, deadline=deadline, sleep=self.clock.advance
        )
        with boundaries.installed(self.monkeypatch):
            try:
                return reconcile(attempt), looks
            except Died:
                return None, looks

    def _disturbance(self, fault: str | None, boundaries: Boundaries) -> Callable[[str], None]:
        """Return what happens at the boundaries of one run."""
        self._others = []
        if fault == "http":
            name = self.random.choice(sorted(HTTP_FAULTS))
            self._note(name)
            self.api.faults.append(HTTP_FAULTS[name](self.random))
        sql_fault = self.random.choice(SQL_FAULTS) if fault == "sql" else None
        strikes_at = self.random.randrange(1, 45)

        def disturb(where: str) -> None:
            if any(call in where for call in ("list", "get", "identity", "log")):
                self.clock.advance(self.random.random() * 1.2)
                if fault == "portal" and self.random.random() < 0.5:
                    self.portal.act()
            if sql_fault is None or len(boundaries.passed) < strikes_at:
                return
            self._strike(sql_fault, where, boundaries)

        return disturb

    def _strike(self, fault: str, where: str, boundaries: Boundaries) -> None:
        if fault == "lost commit":
            if where == "after commit":
                boundaries.off = True
                self._note(f"lost commit at {len(boundaries.passed)}")
                raise _Lost("the connection was lost")
            return
        boundaries.off = True
        self._note(f"{fault} {where} at {len(boundaries.passed)}")
        if fault == "die":
            raise Died
        if fault == "cut":
            self.clock.ledger.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'reconciler'"
            )
        elif fault == "second run":
            self._others.append(self._reconcile(self.url, Boundaries(off=True), UNLIMITED))
        elif fault == "lock held":
            self._held = psycopg.connect(self.url)
            self._held.execute("SELECT pg_advisory_xact_lock(7234897103)")


@contextmanager
def _twin_of(url: str) -> Iterator[str]:
    """Copy a database that nobody is connected to."""
    parts = urlsplit(url)
    twin = f"twin_{uuid4().hex}"
    with psycopg.connect(parts._replace(path="/postgres").geturl(), autocommit=True) as server:
        name, original = sql.Identifier(twin), sql.Identifier(parts.path.removeprefix("/"))
        server.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(name, original))
        try:
            yield parts._replace(path=f"/{twin}").geturl()
        finally:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def simulate(
    seed: int, url: str, kubeconfig_folder: Path, monkeypatch: pytest.MonkeyPatch, *, minutes: int = 0
) -> Simulation:
    """Play one seed on a fresh migrated ledger, with so many runs a minute apart, or a few at any time.

    Raises:
        AssertionError: an invariant did not hold; the message has the seed and what had happened.
    """
    chance = random.Random(seed)  # noqa: S311 - a replayable world
    monkeypatch.setattr(database, "LOCK_TIMEOUT", 0.3)
    with (
        stamina.set_testing(testing=True, attempts=3),
        FakeApi(set_lists=chance.random() < 0.25, legacy_times=chance.random() < 0.2) as api,
    ):
        kubeconfig = api.kubeconfig(kubeconfig_folder / "kubeconfig")
        simulation = Simulation(seed, url, api, kubeconfig, monkeypatch, minutes=minutes)
        try:
            simulation.play()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}\n" + "\n".join(simulation.log)) from error
    return simulation
