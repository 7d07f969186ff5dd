"""Which drift counts at once, which is rechecked, and when a run gives up."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from reconciler.core import recheck
from reconciler.db import apply, runs
from reconciler.deadline import DeadlineExceeded
from reconciler.sources.cluster import MAX_LIST_RESTARTS
from tests.support.double import ApiDouble
from tests.support.faults import Fault, first_pages, gone, later_pages, lists, remaining, same_token, then
from tests.support.scene import World
from tests.support.world import tenant

if TYPE_CHECKING:
    from pathlib import Path

    import psycopg

HOUR = timedelta(hours=1)


@pytest.mark.parametrize(("recorded", "looks"), [(-HOUR / 6, 2), (-3 * HOUR, 1)], ids=["later", "earlier"])
def test_drift_older_than_the_ledgers_event_is_rechecked(world: World, recorded: timedelta, looks: int) -> None:
    """The portal changes the resource first: a resource older than the ledger's last event may be a stale one."""
    world.api.create(tenant("acme", ["search"]), at=world.now - 2 * HOUR)
    world.record("acme", -4 * HOUR, search=-4 * HOUR, mail=recorded)

    outcome = world.run()

    assert [(finding.reason, finding.subject) for finding in outcome.findings] == [("skill_disable_unrecorded", "mail")]
    assert 1 + len(world.slept) == looks


def test_a_package_that_left_a_set_is_rechecked(world: World) -> None:
    """A removal from a set moves no time: the portal's row may still be on its way."""
    world.api.set_lists = True
    world.api.create(tenant("acme", ["mail", "search"]), at=world.now - 2 * HOUR)
    world.record("acme", -2 * HOUR, search=-2 * HOUR, mail=-2 * HOUR)
    world.api.patch("acme", {"spec": {"packages": ["search"]}})

    assert [finding.subject for finding in world.run().findings] == ["mail"]
    assert len(world.slept) == 1


def test_a_resumption_by_removing_the_field_is_rechecked(world: World) -> None:
    """Taking a field away moves no time either."""
    world.api.create(tenant("acme", suspend=True), at=world.now - 2 * HOUR)
    world.record("acme", -2 * HOUR)
    world.ledger.execute(
        "INSERT INTO tenant_suspension_events (tenant_name, zitadel_org_id, event_kind, occurred_at) "
        "VALUES ('acme', '2871', 'suspended', %s)",
        [world.now - 2 * HOUR],
    )
    world.api.patch("acme", {"spec": {"suspend": None}})

    assert [finding.reason for finding in world.run().findings] == ["resumption_unrecorded"]
    assert len(world.slept) == 1


@pytest.mark.parametrize(("legacy", "looks"), [(True, 2), (False, 1)], ids=["before 1.25", "since 1.25"])
def test_all_drift_on_an_old_server_is_rechecked(
    world: World,
    legacy: bool,  # noqa: FBT001 - of the table above
    looks: int,
) -> None:
    world.api.legacy_times = legacy
    world.api.create(tenant("acme", ["search"]), at=world.now - 2 * HOUR)
    world.api.patch("acme", {"spec": {"packages": ["mail", "search"]}}, at=world.now - HOUR)
    world.record("acme", -2 * HOUR, search=-2 * HOUR)

    assert [finding.subject for finding in world.run().findings] == ["mail"]
    assert 1 + len(world.slept) == looks


@pytest.mark.parametrize(("doubtful", "asked", "looks"), [(5, 5, 1), (6, 0, 2)], ids=["few", "many"])
def test_few_tenants_are_rechecked_by_name_many_by_a_list(
    world: World, monkeypatch: pytest.MonkeyPatch, doubtful: int, asked: int, looks: int
) -> None:
    """However large the cluster is, a few tenants that are not quiet cost a few requests, and no second list."""
    monkeypatch.setattr(recheck, "MIN_RELISTED", 1)
    monkeypatch.setattr(recheck, "REQUEST_COST", 4)
    names = [f"tenant-{number:02}" for number in range(20)]
    for number, name in enumerate(names):
        late = number < doubtful
        world.api.create(tenant(name, ["mail"]), at=world.now - (HOUR / 120 if late else 2 * HOUR))
        world.record(name, -2 * HOUR, **({} if late else {"mail": -2 * HOUR}))

    def late_rows() -> None:
        for name in names[:doubtful]:
            world.record_skill(name, "mail", -HOUR / 120)

    world.on_sleep = late_rows
    findings = world.run().findings

    assert [(finding.tenant, finding.action) for finding in findings] == [(name, "defer") for name in names[:doubtful]]
    assert len(world.api.gets) == asked
    assert sum("continue" not in request.query for request in world.api.lists) == looks


@pytest.mark.parametrize(("absent", "looks"), [(1, 1), (2, 2)])
def test_absent_namespaced_tenants_are_rechecked_in_one_list(
    ledger: psycopg.Connection[Any], ledger_url: str, tmp_path: Path, absent: int, looks: int
) -> None:
    """To find one of them, the API server reads all tenants."""
    with ApiDouble(namespaced=True) as api:
        world = World(api, ledger, ledger_url, str(api.kubeconfig(tmp_path / "kubeconfig")))
        api.create(tenant("acme", namespace="a"), at=world.now - 2 * HOUR)
        world.record("acme", -2 * HOUR)
        for number in range(absent):
            world.record(f"gone-{number}", -2 * HOUR)

        findings = world.run().findings

        assert [finding.reason for finding in findings] == ["deletion_unrecorded"] * absent
        asked = [request for request in api.lists if "continue" not in request.query]
        assert len([request for request in asked if "fieldSelector" not in request.query]) == looks


def test_a_deadline_that_ends_while_rows_are_written_leaves_none(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time is looked at once more before the commit."""
    world.api.create(tenant("acme", ["search"]), at=world.now - 2 * HOUR)

    def apply_too_late(*given: Any) -> None:
        apply.apply(*given)
        object.__setattr__(world.deadline, "ends", 0.0)

    monkeypatch.setattr(runs, "apply", apply_too_late)
    outcome = world.run()

    assert isinstance(outcome.failure, DeadlineExceeded)
    assert world.ledger.execute("SELECT count(*) FROM tenant_billing_lifecycle").fetchone() == (0,)


def test_a_list_that_keeps_expiring_is_given_up_after_three_restarts(world: World) -> None:
    world.api.create(tenant("acme"))
    world.api.faults.append(Fault(gone(), when=lists, times=None))

    assert "expired 4 times" in str(world.run().failure)
    assert len(world.api.lists) == 1 + MAX_LIST_RESTARTS


def test_a_continue_token_that_comes_twice_ends_the_list(world: World) -> None:
    """Where no count of what remains tells of it either."""
    for number in range(7):
        world.api.create(tenant(f"tenant-{number}"))
    world.api.faults.append(Fault(remaining(None), when=first_pages))
    world.api.faults.append(Fault(then(same_token(), remaining(None)), when=later_pages, times=None))

    assert "two pages have the same continue token" in str(world.run().failure)
