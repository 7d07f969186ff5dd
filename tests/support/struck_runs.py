"""Passes over a small world that is known by heart, and what must be true of one that something has struck.

Six tenants. The portal has lost a row of five of them, so that every kind of correction has something to write; the
sixth is true. Time runs only where a test or the run itself lets it.
"""

from __future__ import annotations

import enum
import os
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
import stamina
from psycopg import sql
from structlog.testing import capture_logs

from reconciler.alerts import Alerts
from reconciler.alerts.notify import Messenger
from reconciler.cli.assemble import make_alerts
from reconciler.cli.options import AlertSettings
from reconciler.core.model import Action, FallbackDating, Mode, Outcome, Result
from reconciler.core.plan import Limits
from reconciler.core.reasons import Reason
from reconciler.db import apply
from reconciler.deadline import Deadline
from reconciler.job import Job, RunOptions
from reconciler.logs import without_foreign_text
from reconciler.run import reconcile
from reconciler.sources.api_client import Api, CustomResource
from reconciler.sources.cluster import Cluster
from tests.simulation.boundaries import Boundaries, Looks
from tests.simulation.portal import CLOCK, SETTLE, Clock
from tests.support import canaries
from tests.support.api_state import ORG_LABEL, tenant
from tests.support.fake_api import SOURCE_UID, FakeApi
from tests.support.faults import Fault, lists
from tests.support.ledger_rows import BillingRows, billing_rows_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from _pytest.mark.structures import ParameterSet
    from structlog.typing import EventDict

    from reconciler.core.model import Finding
    from tests.support.faults import Effect, When

START: Final = datetime(2026, 3, 1, 9, tzinfo=UTC)
"""When a run begins, unless a test says otherwise."""
ORG: Final = "2871"
VERIFIED: Final = datetime(2026, 2, 15, tzinfo=UTC)
"""Up to when the last run found everything true: it began a settle later."""
SLACK: Final = 12
"""Seconds that a busy machine may take to notice that the deadline is over: less than any limit of a single wait."""


def on(day: int, hour: int = 0, minute: int = 0, second: int = 0) -> datetime:
    """Return an instant of February 2026."""
    return datetime(2026, 2, day, hour, minute, second, tzinfo=UTC)


BORN: Final = {
    "acme": on(1, 10),
    "beta": on(2, 10),
    "cara": on(3, 10),
    "dana": on(4, 10),
    "emil": on(25, 10),
    "finn": on(5, 10),
}
RECORDED: Final = ("acme", "beta", "cara", "dana", "finn")
SKILLS: Final = {"acme": ["mail"], "beta": ["mail", "wiki"], "cara": ["mail"], "dana": ["mail"], "finn": ["mail"]}

CORRECTIONS: Final = {
    ("acme", "skill_enable_unrecorded", "voice"),
    ("beta", "skill_disable_unrecorded", "wiki"),
    ("cara", "suspension_unrecorded", None),
    ("dana", "deletion_unrecorded", None),
    ("dana", "skill_open_after_deletion", "mail"),
    ("emil", "tenant_unrecorded", None),
    ("emil", "skill_enable_unrecorded", "mail"),
}
"""What one clean run corrects: tenant, reason, skill."""

RECORDED_BOOKS: Final = BillingRows(
    [(name, ORG, BORN[name], None) for name in RECORDED],
    sorted((name, ORG, skill, "enabled", BORN[name]) for name, skills in SKILLS.items() for skill in skills),
    [],
)
TRUE_BOOKS: Final = BillingRows(
    [(name, ORG, born, VERIFIED if name == "dana" else None) for name, born in BORN.items()],
    sorted(
        [
            *RECORDED_BOOKS.skills,
            ("acme", ORG, "voice", "enabled", on(20, 10)),
            ("beta", ORG, "wiki", "disabled", on(21, 11)),
            ("dana", ORG, "mail", "disabled", VERIFIED),
            ("emil", ORG, "mail", "enabled", BORN["emil"]),
        ]
    ),
    [("cara", ORG, "suspended", on(22, 12, 0, 5))],
)
"""The rows after one clean run. Nobody knows when dana went: what stops costing is dated as early as possible."""


class End(enum.StrEnum):
    """How a run ends that something has struck."""

    FAILED = "failed"
    """Exit code 1, nothing billed is written."""
    REFUSED = "refused"
    """Exit code 3, nothing billed is written."""
    ONE = "this tenant only"
    """The tenant is shown and left alone, every other is corrected."""
    NORMAL = "normal"
    """The right rows."""


class Nobody:
    """A recipient that any message reaches at once."""

    name = "nobody"
    deduplicates = True

    def notify(self, _outcome: Outcome, /) -> None:
        """Take it."""


@dataclass
class Scenario:
    """The world, its ledger, and how runs are made over it.

    Attributes:
        url: the ledger.
        api: the cluster.
        clock: the time of both.
        kubeconfig: how the cluster is reached.
        monkeypatch: the test's.
        deadline: seconds that a run has, of the machine's own time.
        attempts: how often a request is tried, without waiting in between; None: as it really is.
        limits: the safety limits.
        settle: how long the portal may take.
        uncertain: how a correction without evidence is dated.
        accept_source: whether another source may be pinned.
        page_size: tenants a page.
        asleep: what happens while the run waits for its recheck.
        notifies: whether everyone is notified; if not, one recipient is that costs nothing.
        logged: what was logged.
        took: seconds of the machine's own time that the last run took.
    """

    url: str
    api: FakeApi
    clock: Clock
    kubeconfig: Path
    monkeypatch: pytest.MonkeyPatch
    deadline: float = 600
    attempts: int | None = 3
    limits: Limits = field(default_factory=Limits)
    settle: timedelta = SETTLE
    uncertain: FallbackDating = FallbackDating.CUSTOMER
    accept_source: bool = False
    page_size: int = 2
    asleep: Callable[[], object] | None = None
    notifies: bool = True
    logged: list[EventDict] = field(default_factory=list)
    took: float = 0

    def fill(self) -> None:
        """Create what lives in the cluster."""
        for name, born in BORN.items():
            if name != "dana":
                skills = SKILLS.get(name, ["mail"])
                self.api.create(tenant(name, skills, org=ORG), at=born)
        self.api.patch("acme", {"spec": {"packages": ["mail", "voice"]}}, at=on(20, 10))
        self.api.patch("beta", {"spec": {"packages": ["mail"]}}, at=on(21, 11))
        self.api.patch("cara", {"spec": {"suspend": True}}, at=on(22, 12))
        self.api.set_status("cara", {"suspendedAt": "2026-02-22T12:00:05Z"}, at=on(22, 12, 0, 5))

    def record(self) -> None:
        """Put into the ledger what it knows."""
        with self.clock.ledger.transaction(), self.clock.ledger.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO tenant_billing_lifecycle (tenant_name, zitadel_org_id, created_at) VALUES (%s, %s, %s)",
                [row[:3] for row in RECORDED_BOOKS.lifecycles],
            )
            cursor.executemany(
                "INSERT INTO tenant_skill_events (tenant_name, zitadel_org_id, skill_id, event_kind, occurred_at) "
                "VALUES (%s, %s, %s, %s, %s)",
                RECORDED_BOOKS.skills,
            )
            cursor.execute(
                "INSERT INTO reconciler.runs (id, started_at, observed_at, mode, outcome, version, source) "
                "VALUES (gen_random_uuid(), %s, %s, 'run', 'clean', '1', %s)",
                [VERIFIED + SETTLE, VERIFIED + SETTLE, SOURCE_UID],
            )
            cursor.execute(
                "INSERT INTO reconciler.source (identity, resource_version) VALUES (%s, '900')", [SOURCE_UID]
            )

    def begin_again(self) -> None:
        """Put the ledger and the clock back to where they began; the cluster stays as it is."""
        for table in (
            *("tenant_billing_lifecycle", "tenant_skill_events", "tenant_suspension_events", "invoices"),
            *("reconciler.corrections", "reconciler.runs", "reconciler.source"),
            *("reconciler.reports", "reconciler.totals", "reconciler.tenants", "reconciler.gaps"),
        ):
            self.write(f"DELETE FROM {table}")  # noqa: S608 - of the tables above
        self.record()
        self.clock.turn(START)

    @contextmanager
    def ledger(self) -> Iterator[psycopg.Connection[Any]]:
        """Connect to the ledger as the portal does."""
        with closing(psycopg.connect(self.url, autocommit=True, application_name="portal")) as ledger:
            yield ledger

    def write(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Change the ledger as the portal does, or ask it something."""
        cursor = self.clock.ledger.execute(statement.encode(), values)
        return cursor.fetchall() if cursor.description else []

    def skill_row(self, name: str, skill: str, kind: str, at: datetime | str) -> None:
        """Let the portal's own row come."""
        self.write(
            "INSERT INTO tenant_skill_events (tenant_name, zitadel_org_id, skill_id, event_kind, occurred_at) "
            "VALUES (%s, %s, %s, %s, %s)",
            *(name, ORG, skill, kind, at),
        )

    def strike(self, effect: Effect, when: When = lists, *, skip: int = 0, times: int | None = 1) -> None:
        """Let something be wrong with the cluster's answers."""
        self.api.faults.append(Fault(effect, when=when, skip=skip, times=times))

    def mangle(self, name: str, change: Callable[[dict[str, Any]], object]) -> None:
        """Change a resource in a way that no API server would."""
        resource = self.api.get(name)
        assert resource
        change(resource)
        self.api.plant(resource)

    def attempt(self, *, url: str | None = None, boundaries: Boundaries | None = None) -> Job:
        """Return a run that has not begun."""
        alerts = self.alerts
        deadline = Deadline.after(self.deadline)
        api = Api(kubeconfig=str(self.kubeconfig), context=None, deadline=deadline)
        cluster = Cluster(
            resource=CustomResource(api=api, group="pieced.ch", plural="piecedtenants"),
            org_label=ORG_LABEL,
            page_size=self.page_size,
        )
        return Job(
            database_url=url or self.url,
            source=Looks(cluster, boundaries, self.clock) if boundaries else cluster,
            options=RunOptions(
                mode=Mode.RUN,
                settle=self.settle,
                fallback=self.uncertain,
                limits=self.limits,
                accept_source=self.accept_source,
            ),
            deadline=deadline,
            alerts=alerts,
            sleep=self._sleep,
        )

    @property
    def alerts(self) -> Alerts:
        """Everyone whom the environment names; each gets every outcome, so that nothing is remembered of them."""
        if not self.notifies:
            return Alerts(sinks=(Nobody(),))
        settings = AlertSettings(
            every=timedelta(minutes=5),
            job_name="reconciler",
            alertmanager=tuple(os.environ.get("RECONCILER_ALERTMANAGER", "").split()),
            pushgateway=os.environ.get("RECONCILER_PUSHGATEWAY"),
            events=False,
        )
        found = make_alerts(settings, None)
        for sink in found.sinks:
            if isinstance(sink, Messenger):
                sink.deduplicates = True
        return found

    def run(self, *, url: str | None = None, boundaries: Boundaries | None = None) -> Outcome:
        """Run once."""
        attempt = self.attempt(url=url, boundaries=boundaries)
        began = time.monotonic()
        with (
            capture_logs([without_foreign_text]) as logged,
            stamina.set_testing(testing=self.attempts is not None, attempts=self.attempts or 1),
        ):
            if boundaries is None:
                outcome = reconcile(attempt)
            else:
                with boundaries.installed(self.monkeypatch):
                    outcome = reconcile(attempt)
        self.took = time.monotonic() - began
        self.logged = logged
        canaries.look_at(*logged, outcome.failure, outcome.failure and outcome.failure.remedy)
        return outcome

    def _sleep(self, seconds: float) -> None:
        self.clock.advance(seconds)
        if self.asleep:
            asleep, self.asleep = self.asleep, None
            asleep()

    def books(self) -> BillingRows:
        """Return the rows that invoices are computed from."""
        return billing_rows_of(self.clock.ledger)

    def corrections(self) -> list[tuple[str, str, str | None]]:
        """Return what has been corrected: tenant, reason, skill."""
        rows = self.write("SELECT tenant_name, reason, subject FROM reconciler.corrections")
        return sorted(((name, reason, skill) for name, reason, skill in rows), key=str)

    def state(self) -> tuple[BillingRows, list[tuple[Any, ...]], list[tuple[Any, ...]]]:
        """Return all that a run which did not succeed must leave alone."""
        return (
            self.books(),
            self.write("SELECT * FROM reconciler.corrections ORDER BY id"),
            self.write("SELECT * FROM reconciler.source"),
        )

    def correction(self, name: str, reason: str, skill: str | None = None) -> tuple[Any, ...]:
        """Return a correction's occurred_at, not_before, not_after and evidence."""
        (found,) = self.write(
            "SELECT occurred_at, not_before, not_after, evidence FROM reconciler.corrections "
            "WHERE tenant_name = %s AND reason = %s AND subject IS NOT DISTINCT FROM %s",
            *(name, reason, skill),
        )
        return found

    # what must be true

    def has_failed(self, outcome: Outcome, before: Any, says: str = "", *, recorded: bool = True) -> None:
        """The run has failed, has written nothing that is billed, and has left a row that says why."""
        self._has_ended(outcome, before, Result.FAILED, 1, says, recorded=recorded)

    def was_refused(self, outcome: Outcome, before: Any, says: str = "") -> None:
        """The run was refused, has written nothing that is billed, and has left a row that says why."""
        self._has_ended(outcome, before, Result.BLOCKED, 3, says, recorded=True)

    def _has_ended(
        self, outcome: Outcome, before: Any, result: Result, exit_code: int, says: str, *, recorded: bool
    ) -> None:
        assert outcome.failure, f"it ended {outcome.result}"
        assert (outcome.result, outcome.failure.exit_code) == (result, exit_code), outcome.failure
        assert says in str(outcome.failure)
        assert outcome.failure.remedy
        assert self.state() == before
        rows = self.write("SELECT outcome, error FROM reconciler.runs WHERE id = %s", outcome.run_id)
        assert rows == ([(str(result), str(outcome.failure))] if recorded else [])

    def settles_at_once(self) -> None:
        """From now on the portal takes no time, and so there is nothing to wait for."""
        self.settle = timedelta()
        self.write("UPDATE reconciler.runs SET observed_at = %s, settle = '0'", VERIFIED)

    def is_true(self, outcome: Outcome) -> None:
        """The run has written every right row, once; and the next has nothing to write."""
        assert outcome.failure is None, outcome.failure
        assert outcome.result is Result.CORRECTED
        assert self.write("SELECT outcome FROM reconciler.runs WHERE id = %s", outcome.run_id) == [("corrected",)]
        self.holds_the_truth()

    def holds_the_truth(self, *, stays: bool = True) -> None:
        """The ledger holds every right row, once; and a run has nothing to write."""
        assert self.books() == TRUE_BOOKS
        assert sorted(self.corrections(), key=str) == sorted(CORRECTIONS, key=str)
        if stays:
            self.stays()

    def stays(self) -> None:
        """A further run has nothing to write."""
        books, corrections, _ = self.state()
        self.notifies, notifies = False, self.notifies
        again = self.run()
        self.notifies = notifies
        assert again.failure is None, again.failure
        assert self.state()[:2] == (books, corrections)

    def spared(
        self, outcome: Outcome, name: str, reason: str, action: Action, before: BillingRows = RECORDED_BOOKS
    ) -> None:
        """The tenant was shown for that reason and left as it was before; every other one was corrected."""
        assert outcome.failure is None, outcome.failure
        assert outcome.result is Result.CORRECTED
        # what cannot be written is shown beside the report that says why
        shown = [
            finding
            for finding in outcome.findings
            if finding.tenant == name and (reason != Reason.TENANT_PARKED or finding.action is Action.REPORT)
        ]
        assert {(finding.reason, finding.action) for finding in shown} == {(reason, action)}, shown
        assert sorted(self.corrections(), key=str) == sorted((c for c in CORRECTIONS if c[0] != name), key=str)
        assert only(self.books(), name) == only(before, name)
        assert without(self.books(), name) == without(TRUE_BOOKS, name)
        ((unverified,),) = self.write("SELECT unverified FROM reconciler.runs WHERE id = %s", outcome.run_id)
        assert unverified == [name]


def only(of: BillingRows, name: str) -> BillingRows:
    """Return the rows of one tenant."""
    return BillingRows(*([row for row in rows if row[0] == name] for rows in of))  # type: ignore[arg-type]


def without(of: BillingRows, name: str) -> BillingRows:
    """Return the rows of all other tenants."""
    return BillingRows(*([row for row in rows if row[0] != name] for rows in of))  # type: ignore[arg-type]


def shown(outcome: Outcome, name: str) -> list[Finding]:
    """Return what a run found of one tenant."""
    return [finding for finding in outcome.findings if finding.tenant == name]


@contextmanager
def ledger_with_clock(postgres_url: str, template: str) -> Iterator[str]:
    """Make a migrated database that has our clock; many tests may follow each other on it."""
    name = f"faults_{uuid4().hex}"
    with closing(psycopg.connect(postgres_url, autocommit=True)) as server:
        server.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*map(sql.Identifier, (name, template))))
        url = urlsplit(postgres_url)._replace(path=f"/{name}").geturl()
        with closing(psycopg.connect(url, autocommit=True)) as ledger:
            ledger.execute(CLOCK)
        yield url
        server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def staged(url: str, api: FakeApi, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scenario]:
    """Set the scenario for one test on a `world`, which it leaves as it finds it."""
    with closing(psycopg.connect(url, autocommit=True, options="-c timezone=UTC")) as ledger:
        clock = Clock(ledger, now=START)
        api.clock = clock.server
        scenario = Scenario(url, api, clock, api.kubeconfig(folder / "kubeconfig"), monkeypatch)
        scenario.begin_again()
        scenario.fill()
        # long enough to be waited for, and short enough for tests that meet it at every step
        monkeypatch.setattr(apply, "WRITE_LOCK_SECONDS", 0.2)
        yield scenario
        canaries.look_at(*scenario.write("SELECT error, source FROM reconciler.runs"))


@dataclass(frozen=True)
class Expectation:
    """What must hold of a run that a fault has struck.

    Attributes:
        end: how the run ends, for the name of the test.
        check: asserts it, given the scenario, the outcome, the state before the fault was arranged and the books after.
    """

    end: End
    check: Callable[[Scenario, Outcome, Any, BillingRows], None]


def fails(message: str = "") -> Expectation:
    """The run fails with exit code 1 and this in its message; nothing billed is written."""
    return Expectation(End.FAILED, lambda scenario, outcome, before, _: scenario.has_failed(outcome, before, message))


def is_refused(message: str = "") -> Expectation:
    """The run is refused with exit code 3 and this in its message; nothing billed is written."""
    return Expectation(End.REFUSED, lambda scenario, outcome, before, _: scenario.was_refused(outcome, before, message))


def corrects_everything() -> Expectation:
    """The run writes every right row, once; and the next has nothing to write."""
    return Expectation(End.NORMAL, lambda scenario, outcome, *_: scenario.is_true(outcome))


def spares(name: str, reason: str, *, action: Action = Action.REPORT) -> Expectation:
    """The run shows this tenant for this reason and leaves it alone; every other one is corrected."""
    return Expectation(
        End.ONE, lambda scenario, outcome, _, books: scenario.spared(outcome, name, reason, action, books)
    )


class Faults(list["ParameterSet"]):
    """A table of faults for pytest.mark.parametrize: what is arranged, and what must hold of the run."""

    def case(self, fault: str, end: End) -> Callable[[Callable[[Scenario], None]], Callable[[Scenario], None]]:
        """Enter a fault whose row is a function."""

        def enter(story: Callable[[Scenario], None]) -> Callable[[Scenario], None]:
            self.append(pytest.param(story, id=f"{fault} - {end}"))
            return story

        return enter

    def add(
        self,
        fault: str,
        arrange: Callable[[Scenario], object],
        must_hold: Expectation,
        *,
        then: Callable[[Scenario], object] | None = None,
    ) -> None:
        """Enter a fault, what must hold of the run, and what else must be true after it."""

        def story(scenario: Scenario) -> None:
            before = scenario.state()
            arrange(scenario)
            books = scenario.books()
            must_hold.check(scenario, scenario.run(), before, books)
            if then:
                then(scenario)
            assert must_hold.end not in {End.FAILED, End.REFUSED} or scenario.took < scenario.deadline + SLACK

        self.case(fault, must_hold.end)(story)
