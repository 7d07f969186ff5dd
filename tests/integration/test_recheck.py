"""Which drift counts at once, which is rechecked, and when a run gives up."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from reconciler.core import recheck
from reconciler.core.model import Mode
from reconciler.core.plan import EmptyList
from reconciler.db import apply, runs
from reconciler.deadline import DeadlineExceeded
from reconciler.sources.cluster import MAX_LIST_RESTARTS
from tests.support.api_state import tenant
from tests.support.fake_api import FakeApi
from tests.support.faults import Fault, first_pages, gone, later_pages, lists, remaining, same_token, then
from tests.support.system import System

if TYPE_CHECKING:
    from pathlib import Path

    import psycopg

pytestmark = pytest.mark.usefixtures("lost_log")
"""What two lists prove alone."""

HOUR = timedelta(hours=1)


@pytest.mark.parametrize(("recorded", "looks"), [(-HOUR / 6, 2), (-3 * HOUR, 1)], ids=["later", "earlier"])
def test_drift_older_than_the_ledgers_event_is_rechecked(system: System, recorded: timedelta, looks: int) -> None:
    """The portal changes the resource first: a resource older than the ledger's last event may be a stale one."""
    system.api.create(tenant("acme", ["mail", "search"]), at=system.now - 4 * HOUR)
    system.api.patch("acme", {"spec": {"packages": ["search"]}}, at=system.now - 2 * HOUR)
    system.record("acme", -4 * HOUR, search=-4 * HOUR, mail=recorded)

    outcome = system.run()

    assert [(finding.reason, finding.subject) for finding in outcome.findings] == [("skill_disable_unrecorded", "mail")]
    assert 1 + len(system.slept) == looks


def test_a_package_that_left_a_set_is_rechecked(system: System) -> None:
    """A removal from a set moves no time: the portal's row may still be on its way."""
    system.api.set_lists = True
    system.api.create(tenant("acme", ["mail", "search"]), at=system.now - 2 * HOUR)
    system.record("acme", -2 * HOUR, search=-2 * HOUR, mail=-2 * HOUR)
    system.api.patch("acme", {"spec": {"packages": ["search"]}})

    assert [finding.subject for finding in system.run().findings] == ["mail"]
    assert len(system.slept) == 1


def test_a_resumption_by_removing_the_field_is_rechecked(system: System) -> None:
    """Taking a field away moves no time either."""
    system.api.create(tenant("acme", suspend=True), at=system.now - 2 * HOUR)
    system.record("acme", -2 * HOUR)
    system.ledger.execute(
        "INSERT INTO tenant_suspension_events (tenant_name, zitadel_org_id, event_kind, occurred_at) "
        "VALUES ('acme', '2871', 'suspended', %s)",
        [system.now - 2 * HOUR],
    )
    system.api.patch("acme", {"spec": {"suspend": None}})

    assert [finding.reason for finding in system.run().findings] == ["resumption_unrecorded"]
    assert len(system.slept) == 1


@pytest.mark.parametrize(("legacy", "looks"), [(True, 2), (False, 1)], ids=["before 1.25", "since 1.25"])
def test_all_drift_on_an_old_server_is_rechecked(
    system: System,
    legacy: bool,  # noqa: FBT001 - of the table above
    looks: int,
) -> None:
    system.api.legacy_times = legacy
    system.api.create(tenant("acme", ["search"]), at=system.now - 2 * HOUR)
    system.api.patch("acme", {"spec": {"packages": ["mail", "search"]}}, at=system.now - HOUR)
    system.record("acme", -2 * HOUR, search=-2 * HOUR)

    assert [finding.subject for finding in system.run().findings] == ["mail"]
    assert 1 + len(system.slept) == looks


def test_a_controller_that_keeps_writing_another_field_delays_nothing(system: System) -> None:
    """Its writes move the generation and every time but that of the packages: the tenant is never quiet."""
    writes = iter(range(100))

    def rewrite() -> None:
        system.api.patch("acme", {"spec": {"displayName": f"Acme {next(writes)}"}}, manager="branding")

    system.api.create(tenant("acme", ["search"]), at=system.now - 2 * HOUR)
    system.api.patch("acme", {"spec": {"packages": ["mail", "search"]}}, at=system.now - HOUR)
    system.record("acme", -2 * HOUR, search=-2 * HOUR)
    rewrite()
    system.on_sleep = rewrite

    (finding,) = system.run().findings

    assert (finding.subject, finding.action) == ("mail", "append")
    assert finding.moment
    assert finding.moment.evidence == "field_manager"
    assert finding.moment.occurred_at == (system.now - HOUR).replace(microsecond=0)


# who never is the same at both looks


@dataclass
class Restless:
    """A tenant whose package is on at every first look and off at every second: two controllers undo each other."""

    system: System

    def run(self, mode: Mode = Mode.RUN) -> list[tuple[str, str]]:
        """Run once, in which it changes, half an hour after the run before; return what was found and done."""
        self.system.api.patch("acme", {"spec": {"packages": ["mail", "search"]}}, manager="one")
        self.system.on_sleep = self._undo
        return self._found(mode)

    def settled_run(self) -> list[tuple[str, str]]:
        """Run once, in which it stays as it is."""
        self.system.on_sleep = None
        return self._found(Mode.RUN)

    def _found(self, mode: Mode) -> list[tuple[str, str]]:
        outcome = self.system.run(mode)
        assert outcome.failure is None, outcome.failure
        self.system.ledger.execute("UPDATE reconciler.runs SET observed_at = observed_at - interval '28 min'")
        return [(finding.reason, finding.action) for finding in outcome.findings]

    def _undo(self) -> None:
        self.system.api.patch("acme", {"spec": {"packages": ["search"]}}, manager="other")


DEFERRED = ("skill_enable_unrecorded", "defer")
RESTLESS = ("tenant_restless", "report")


@pytest.fixture
def flapping(system: System) -> Restless:
    """A tenant that is about to be restless."""
    system.api.create(tenant("acme", ["search"]), at=system.now - 2 * HOUR)
    system.record("acme", -2 * HOUR, search=-2 * HOUR)
    return Restless(system)


def test_a_tenant_that_changes_for_an_hour_is_reported(flapping: Restless) -> None:
    assert [flapping.run() for _ in range(4)] == [[DEFERRED], [DEFERRED], [DEFERRED, RESTLESS], [DEFERRED, RESTLESS]]
    reports = "SELECT tenant_name, reason, zitadel_org_id, observed FROM reconciler.reports"
    assert flapping.system.ledger.execute(reports).fetchall() == [("acme", "tenant_restless", "2871", "changing")]


def test_a_plan_reports_a_restless_tenant_too(flapping: Restless) -> None:
    for _ in range(2):
        flapping.run()
    assert flapping.run(Mode.PLAN) == [DEFERRED, RESTLESS]


def test_a_restless_tenants_report_is_drift_until_it_is_accepted(flapping: Restless) -> None:
    for _ in range(2):
        flapping.run()
    flapping.run()
    flapping.system.ledger.execute(
        "INSERT INTO reconciler.exceptions VALUES ('acme', 'tenant_restless', 'a test', 'me', now(), now() + '1 day')"
    )
    flapping.run()
    outcomes = "SELECT outcome FROM reconciler.runs ORDER BY started_at"
    assert flapping.system.ledger.execute(outcomes).fetchall() == [("clean",), ("clean",), ("drift",), ("clean",)]


def test_a_restless_tenant_that_settles_is_corrected_and_its_report_closed(flapping: Restless) -> None:
    for _ in range(3):
        flapping.run()
    flapping.system.api.patch("acme", {"spec": {"packages": ["mail", "search"]}})
    assert flapping.settled_run() == [("skill_enable_unrecorded", "append")]
    assert flapping.system.ledger.execute("SELECT * FROM reconciler.reports").fetchall() == []
    assert flapping.settled_run() == []


def test_a_run_that_was_stopped_or_over_a_file_is_not_counted(flapping: Restless) -> None:
    for _ in range(3):
        flapping.run()
    for change in ("outcome = 'failed'", "source = 'snapshot'", "mode = 'plan'"):
        flapping.system.ledger.execute(f"UPDATE reconciler.runs SET {change}")  # noqa: S608 - of the three above
        assert flapping.run(Mode.PLAN) == [DEFERRED]
        flapping.system.ledger.execute("UPDATE reconciler.runs SET outcome = 'clean', mode = 'run', source = 'uid'")


def test_a_run_of_the_future_hides_no_restless_tenant(flapping: Restless) -> None:
    """The database's clock was ahead then."""
    flapping.system.ledger.execute(
        "INSERT INTO reconciler.runs (id, started_at, observed_at, mode, outcome, version, source) "
        "SELECT gen_random_uuid(), at, at, 'run', 'clean', '1', 'uid' FROM (SELECT now() + '1 year'::interval) o (at)"
    )
    for _ in range(2):
        flapping.run()
    assert flapping.run() == [DEFERRED, RESTLESS]


def test_rows_that_come_late_again_and_again_make_nobody_restless(system: System) -> None:
    """The second look finds the tenant true: nothing was left to correct."""
    system.api.create(tenant("acme"), at=system.now - 2 * HOUR)
    system.record("acme", -2 * HOUR)
    for number in range(4):
        packages = [f"skill-{n}" for n in range(number + 1)]
        system.api.patch("acme", {"spec": {"packages": packages}})
        system.on_sleep = partial(system.record_skill, "acme", packages[-1], timedelta())
        assert {finding.action for finding in system.run().findings} == {"defer"}
        system.ledger.execute("UPDATE reconciler.runs SET observed_at = observed_at - interval '28 min'")


@pytest.mark.parametrize(("doubtful", "asked", "looks"), [(5, 5, 1), (6, 0, 2)], ids=["few", "many"])
def test_few_tenants_are_rechecked_by_name_many_by_a_list(
    system: System, monkeypatch: pytest.MonkeyPatch, doubtful: int, asked: int, looks: int
) -> None:
    """However large the cluster is, a few tenants that are not quiet cost a few requests, and no second list."""
    monkeypatch.setattr(recheck, "MIN_RELISTED", 1)
    monkeypatch.setattr(recheck, "REQUEST_COST", 4)
    names = [f"tenant-{number:02}" for number in range(20)]
    for number, name in enumerate(names):
        late = number < doubtful
        system.api.create(tenant(name, [] if late else ["mail"]), at=system.now - 2 * HOUR)
        system.record(name, -2 * HOUR, **({} if late else {"mail": -2 * HOUR}))
        if late:
            system.api.patch(name, {"spec": {"packages": ["mail"]}}, at=system.now - HOUR / 120)

    def late_rows() -> None:
        for name in names[:doubtful]:
            system.record_skill(name, "mail", -HOUR / 120)

    system.on_sleep = late_rows
    findings = system.run().findings

    assert [(finding.tenant, finding.action) for finding in findings] == [(name, "defer") for name in names[:doubtful]]
    assert len(system.api.gets) == asked
    assert sum("continue" not in request.query for request in system.api.lists) == looks


def test_a_second_list_that_is_refused_is_the_one_recorded(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recheck, "MIN_RELISTED", 0)
    monkeypatch.setattr(recheck, "REQUEST_COST", 4)
    system.api.create(tenant("acme"), at=system.now - 2 * HOUR)
    for name in ("acme", "gone"):
        system.record(name, -2 * HOUR)
    system.on_sleep = lambda: system.api.delete("acme")

    with capture_logs() as logged:
        outcome = system.run()

    first, second = (line["resource_version"] for line in logged if line["event"] == "tenants.observed")
    assert isinstance(outcome.failure, EmptyList)
    assert (outcome.resource_version, first != second) == (second, True)


@pytest.mark.parametrize(("absent", "looks"), [(1, 1), (2, 2)])
def test_absent_namespaced_tenants_are_rechecked_in_one_list(
    ledger: psycopg.Connection[Any], ledger_url: str, tmp_path: Path, absent: int, looks: int
) -> None:
    """To find one of them, the API server reads all tenants."""
    with FakeApi(namespaced=True) as api:
        system = System(api, ledger, ledger_url, str(api.kubeconfig(tmp_path / "kubeconfig")))
        api.create(tenant("acme", namespace="a"), at=system.now - 2 * HOUR)
        system.record("acme", -2 * HOUR)
        for number in range(absent):
            system.record(f"gone-{number}", -2 * HOUR)

        findings = system.run().findings

        assert [finding.reason for finding in findings] == ["deletion_unrecorded"] * absent
        asked = [request for request in api.lists if "continue" not in request.query]
        assert len([request for request in asked if "fieldSelector" not in request.query]) == looks


def test_a_deadline_that_ends_while_rows_are_written_leaves_none(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time is looked at once more before the commit."""
    system.api.create(tenant("acme", ["search"]), at=system.now - 2 * HOUR)

    def record_too_late(*given: Any) -> None:
        apply.record(*given)
        object.__setattr__(system.deadline, "ends", 0.0)

    monkeypatch.setattr(runs, "record", record_too_late)
    outcome = system.run()

    assert isinstance(outcome.failure, DeadlineExceeded)
    assert system.ledger.execute("SELECT count(*) FROM tenant_billing_lifecycle").fetchone() == (0,)


def test_a_list_that_keeps_expiring_is_given_up_after_three_restarts(system: System) -> None:
    system.api.create(tenant("acme"))
    system.api.faults.append(Fault(gone(), when=lists, times=None))

    assert "expired 4 times" in str(system.run().failure)
    assert len(system.api.lists) == 1 + MAX_LIST_RESTARTS


def test_a_continue_token_that_comes_twice_ends_the_list(system: System) -> None:
    """Where no count of what remains tells of it either."""
    for number in range(7):
        system.api.create(tenant(f"tenant-{number}"))
    system.api.faults.append(Fault(remaining(None), when=first_pages))
    system.api.faults.append(Fault(then(same_token(), remaining(None)), when=later_pages, times=None))

    assert "two pages have the same continue token" in str(system.run().failure)
