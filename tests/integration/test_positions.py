"""What is remembered from run to run, and the time of which it is not proven what happened.

Over a real PostgreSQL and the API server of the tests. Each line of a table is what happens between two runs.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest
from structlog.testing import capture_logs

from reconciler.core.history import ANY_TENANT, RestoredSource
from reconciler.core.model import HistoryRead, LogRead, Mode, Result
from reconciler.core.plan import EmptyList, Limits, TooMuchDrift
from reconciler.core.reasons import Reason
from reconciler.db.queries import query
from reconciler.deadline import Deadline
from reconciler.job import Job, RunOptions
from reconciler.run import reconcile
from reconciler.sources.file import FileSource
from reconciler.sources.listing import OtherSource, StaleList
from tests.support.api_state import ORG_LABEL, tenant
from tests.support.comparison import NASTY
from tests.support.fake_api import SOURCE_UID, FakeApi
from tests.support.faults import Fault, edit, lists, status
from tests.support.ledger_rows import all_rows, billing_rows
from tests.support.system import System

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import psycopg

    from reconciler.core.model import Outcome
    from tests.support.faults import Request

pytestmark = pytest.mark.usefixtures("lost_log")
"""What two lists prove alone."""


HOUR: Final = timedelta(hours=1)
SECOND: Final = timedelta(seconds=1)
AGO: Final = -3 * HOUR
"""When each tenant of a test was created and recorded, if nothing else is said."""


class Memory(NamedTuple):
    """What is remembered of a tenant."""

    uid: str
    resource_version: str
    since: datetime
    is_current: bool
    gone_at: datetime | None
    follows: str | None
    continues: bool


def memories(system: System, name: str = "acme") -> list[Memory]:
    """Return what is remembered of all the tenants that had a name, the oldest first."""
    found = system.ledger.execute(
        "SELECT uid, resource_version, since, is_current, gone_at, follows, continues FROM reconciler.tenants "
        "WHERE tenant_name = %s ORDER BY created_at, resource_version::bigint",
        [name],
    )
    return [Memory(*row) for row in found]


def memory(system: System, name: str = "acme") -> Memory:
    """Return what is remembered of the only tenant that had a name."""
    (found,) = memories(system, name)
    return found


class Gap(NamedTuple):
    """Time that is not proven."""

    from_at: datetime
    until_at: datetime
    why: str
    manager: str | None


def gaps(system: System, name: str = "acme") -> list[Gap]:
    """Return the gaps of a tenant, in order."""
    found = system.ledger.execute(
        "SELECT from_at, until_at, why, manager FROM reconciler.gaps WHERE tenant_name = %s ORDER BY from_at", [name]
    )
    return [Gap(*row) for row in found]


def everything(system: System) -> list[Any]:
    """Return all that is remembered: tenants, gaps, the position."""
    rows = all_rows(system.url, ("reconciler",))
    position = system.ledger.execute("SELECT identity, position, position_at FROM reconciler.source").fetchall()
    return [rows["reconciler.tenants"], rows["reconciler.gaps"], position]


def position(system: System) -> tuple[str | None, datetime | None]:
    """Return the list that the remembered tenants are of, and when its run began."""
    ((version, at),) = system.ledger.execute("SELECT position, position_at FROM reconciler.source").fetchall()
    return version, at


def began(outcome: Outcome) -> datetime:
    """Return when a run began to observe."""
    assert outcome.observed_at
    return outcome.observed_at


def put(system: System, name: str = "acme", packages: Any = (), *, at: timedelta = AGO, **fields: Any) -> str:
    """Create a tenant that is recorded as it is, and return its uid."""
    created = system.api.create(tenant(name, packages, **({"suspend": False} | fields)), at=system.now + at)
    system.record(name, at, **dict.fromkeys(packages, at))
    return str(created["metadata"]["uid"])


def ran(system: System, **options: Any) -> Outcome:
    """Run once, and return how it ended: not stopped."""
    outcome = system.run(**options)
    assert outcome.failure is None, outcome.failure
    return outcome


def patch(system: System, name: str = "acme", **spec: Any) -> None:
    """Change the spec of a tenant, an hour ago: no run waits for its row."""
    system.api.patch(name, {"spec": spec}, at=system.now - HOUR)


def found(outcome: Outcome) -> list[tuple[str, Reason]]:
    """Return what a run found: tenants and reasons, without what is left to a later run."""
    return [(finding.tenant, finding.reason) for finding in outcome.findings if finding.action != "defer"]


# the first run


def test_the_first_run_remembers_each_tenant_as_listed(system: System) -> None:
    uid = put(system, "acme", ["mail", "wiki"])
    put(system, "beta", suspend=True, org=None, finalizers=["pieced.ch/teardown"])
    system.api.delete("beta", at=system.now - HOUR)

    outcome = ran(system)

    acme, beta = ((system.api.get(name) or {})["metadata"] for name in ("acme", "beta"))
    born, asked = ((system.now + ago).replace(microsecond=0) for ago in (AGO, -HOUR))
    shown = [
        (SOURCE_UID, uid, "acme", acme["resourceVersion"], 1, "2871", ["mail", "wiki"], False, True, born, None),
        (SOURCE_UID, beta["uid"], "beta", beta["resourceVersion"], 2, None, [], True, True, born, asked),
    ]
    assert system.ledger.execute(
        "SELECT source, uid, tenant_name, resource_version, generation, org, packages, suspended, suspend_is_set, "
        "created_at, deleting_at, since, is_current, gone_at, follows, continues FROM reconciler.tenants "
        "ORDER BY tenant_name"
    ).fetchall() == [(*one, born, True, None, None, False) for one in shown]
    assert position(system) == (outcome.resource_version, outcome.observed_at)
    assert outcome.history == HistoryRead(LogRead.LOST)
    assert system.ledger.execute("SELECT count(*) FROM reconciler.gaps").fetchall() == [(0,)]


def _status(system: System) -> None:
    system.api.set_status("acme", {"phase": "Ready"}, at=system.now - HOUR)


def _changed(system: System) -> None:
    patch(system, packages=["mail"])


def _asked_to_go(system: System) -> None:
    system.api.patch("acme", {"metadata": {"finalizers": ["pieced.ch/teardown"]}}, at=system.now - HOUR)
    system.api.delete("acme", at=system.now - HOUR)


def _nothing(_: System) -> None:
    pass


@pytest.mark.parametrize(
    ("suspend", "before", "is_known"),
    [
        pytest.param(False, _nothing, True, id="as created"),
        pytest.param(True, _nothing, True, id="as created, suspended"),
        pytest.param(False, _status, True, id="its status was written"),
        pytest.param(False, _asked_to_go, True, id="it was asked to go"),
        pytest.param(False, _changed, False, id="its spec was changed"),
        pytest.param(None, _nothing, False, id="the status decides whether it is suspended"),
    ],
)
def test_a_history_is_known_since_the_creation_or_the_list(
    system: System,
    suspend: bool | None,  # noqa: FBT001 - of the table above
    before: Callable[[System], object],
    is_known: bool,  # noqa: FBT001 - of the table above
) -> None:
    put(system, suspend=suspend)
    before(system)

    outcome = ran(system)

    since = memory(system).since
    if is_known:
        assert since == (system.now + AGO).replace(microsecond=0)
    else:
        assert began(outcome) <= since < began(outcome) + 30 * SECOND


def test_a_tenant_first_seen_later_is_remembered_from_then(system: System) -> None:
    put(system, "acme")
    ran(system)
    put(system, "beta", ["mail"])
    patch(system, "beta", packages=[])
    second = ran(system)

    assert began(second) <= memory(system, "beta").since
    assert gaps(system, "beta") == []


# from one run to the next


def _labelled(system: System) -> None:
    system.api.patch("acme", {"metadata": {"labels": {"team": "a"}}}, at=system.now - HOUR)


def _all_three(system: System) -> None:
    for change in (_status, _labelled, _changed):
        change(system)


def _changed_twice(system: System) -> None:
    _changed(system)
    system.api.patch("acme", {"spec": {"packages": []}}, at=system.now - HOUR / 2, manager="kubectl-edit")


def _changed_and_asked_to_go(system: System) -> None:
    _changed(system)
    system.api.delete("acme", at=system.now - HOUR)


def _went(system: System) -> None:
    system.api.delete("acme")
    system.api.finalize("acme")


def _remade(system: System) -> None:
    _went(system)
    system.api.create(tenant("acme", suspend=False), at=system.now - HOUR)


def _remade_unreadable(system: System) -> None:
    _went(system)
    system.api.create(tenant("acme", "mail", suspend=False), at=system.now - HOUR)


def _mangled(system: System) -> None:
    patch(system, packages="mail")


def _suspend_taken_away(system: System) -> None:
    patch(system, suspend=None)


@pytest.mark.parametrize(
    ("suspend", "between", "why", "manager"),
    [
        pytest.param(False, _nothing, None, None, id="nothing - no gap"),
        pytest.param(False, _changed, None, None, id="one change of the spec - no gap"),
        pytest.param(False, _status, None, None, id="a write of the status - no gap"),
        pytest.param(False, _labelled, None, None, id="a label - no gap"),
        pytest.param(False, _all_three, None, None, id="all three - no gap"),
        pytest.param(False, lambda it: it.api.delete("acme"), None, None, id="asked to go - no gap"),
        pytest.param(None, _nothing, None, None, id="suspend is not set, nothing - no gap"),
        pytest.param(False, _changed_twice, "changed_often", "kubectl-edit", id="two changes of the spec - a gap"),
        pytest.param(
            False, _changed_and_asked_to_go, "changed_often", "portal", id="a change, then asked to go - a gap"
        ),
        pytest.param(False, _went, "vanished", None, id="gone - a gap"),
        pytest.param(False, _remade, "recreated", None, id="recreated - a gap"),
        pytest.param(False, _remade_unreadable, "recreated", None, id="recreated, and unreadable - a gap"),
        pytest.param(False, _mangled, "unreadable", None, id="unreadable - a gap"),
        pytest.param(False, _suspend_taken_away, "suspend_unset", None, id="suspend is taken away - a gap"),
        pytest.param(None, _status, "suspend_unset", None, id="suspend is not set, a write of the status - a gap"),
        pytest.param(None, _labelled, "suspend_unset", None, id="suspend is not set, a label - a gap"),
    ],
)
def test_what_happened_between_two_runs_is_proven_or_a_gap(
    system: System,
    suspend: bool | None,  # noqa: FBT001 - of the table above
    between: Callable[[System], object],
    why: str | None,
    manager: str | None,
) -> None:
    put(system, suspend=suspend, finalizers=["pieced.ch/teardown"])
    put(system, "other")
    first = ran(system)
    between(system)
    second = ran(system)

    if why is None:
        assert gaps(system) == []
    else:
        (gap,) = gaps(system)
        assert (gap.from_at, gap.why, gap.manager) == (first.observed_at, why, manager)
        assert began(second) <= gap.until_at < began(second) + 30 * SECOND
    assert gaps(system, "other") == []
    seconds = round((began(second) - began(first)).total_seconds())
    assert second.history == HistoryRead(LogRead.LOST, seconds=seconds, gaps=int(why is not None))
    assert position(system) == (second.resource_version, second.observed_at)
    (kept,) = system.ledger.execute("SELECT history FROM reconciler.runs WHERE id = %s", [second.run_id]).fetchall()
    assert kept == ({"log": "lost", "seconds": seconds, "changes": 0, "waiting": 0, "gaps": int(why is not None)},)


def _finally_remade(system: System) -> None:
    system.api.finalize("acme")
    system.api.create(tenant("acme", suspend=False), at=system.now - HOUR)


@pytest.mark.parametrize(
    "after",
    [
        pytest.param(_status, id="its status is written"),
        pytest.param(_changed_twice, id="its spec changes twice"),
        pytest.param(_mangled, id="it is unreadable"),
        pytest.param(lambda it: it.api.finalize("acme"), id="it is gone"),
        pytest.param(_finally_remade, id="it is recreated"),
    ],
)
def test_nothing_after_a_deletion_that_was_seen_is_a_gap(system: System, after: Callable[[System], object]) -> None:
    put(system, finalizers=["pieced.ch/teardown"])
    put(system, "other")
    system.api.delete("acme", at=system.now - HOUR)
    ran(system)
    after(system)
    ran(system)

    assert gaps(system) == []


def test_what_came_and_went_unseen_is_one_gap(system: System) -> None:
    put(system)
    first = ran(system)
    ran(system)
    third = ran(system)

    (gap,) = gaps(system, ANY_TENANT)
    assert (gap.from_at, gap.why, gap.manager) == (first.observed_at, "log_lost", None)
    assert began(third) <= gap.until_at


def test_gaps_of_consecutive_runs_are_one(system: System) -> None:
    put(system)
    first = ran(system)
    _changed_twice(system)
    ran(system)
    _mangled(system)
    third = ran(system)

    (gap,) = gaps(system)
    assert (gap.from_at, gap.why, gap.manager) == (first.observed_at, "unreadable", "kubectl-edit")
    assert began(third) <= gap.until_at


def test_gaps_with_a_proven_run_between_are_two(system: System) -> None:
    put(system)
    starts = []
    for change in (_changed_twice, _status, _changed_twice):
        starts.append(began(ran(system)))
        change(system)
    fourth = ran(system)

    first, second = gaps(system)
    assert (first.from_at, second.from_at) == (starts[0], starts[2])
    assert starts[1] <= first.until_at < starts[2] < began(fourth) <= second.until_at


def test_gaps_of_two_tenants_are_two(system: System) -> None:
    for name in ("acme", "beta"):
        put(system, name)
    ran(system)
    for name in ("acme", "beta"):
        patch(system, name, packages=["mail"])
        patch(system, name, packages=[])
    assert ran(system).history.gaps == 2
    assert [len(gaps(system, name)) for name in ("acme", "beta", ANY_TENANT)] == [1, 1, 1]


# what is written of it


def _versions(system: System) -> dict[str, str]:
    """Return which transaction wrote each row of a tenant."""
    return dict(system.ledger.execute("SELECT tenant_name, xmin::text FROM reconciler.tenants").fetchall())


def test_only_a_tenant_that_was_written_is_written_again(system: System) -> None:
    put(system, "acme")
    put(system, "beta")
    ran(system)
    before = _versions(system)
    patch(system, "beta", packages=["mail"])
    ran(system)

    after = _versions(system)
    assert (after["acme"] == before["acme"], after["beta"] == before["beta"]) == (True, False)


def test_a_change_is_remembered_and_its_history_stays_known(system: System) -> None:
    put(system)
    ran(system)
    before = memory(system)
    patch(system, packages=["mail"], suspend=True)
    system.api.patch("acme", {"metadata": {"labels": {ORG_LABEL: "2872"}}}, at=system.now - HOUR)
    ran(system)

    after = memory(system)
    assert after == before._replace(resource_version=after.resource_version)
    assert system.ledger.execute("SELECT generation, org, packages, suspended FROM reconciler.tenants").fetchall() == [
        (2, "2872", ["mail"], True)
    ]


def test_a_tenant_that_is_gone_is_remembered_as_it_was(system: System) -> None:
    put(system, "acme")
    put(system, "other")
    ran(system)
    before = memory(system)
    system.api.delete("acme")
    second = ran(system)
    ran(system)

    assert memory(system) == before._replace(gone_at=second.observed_at)
    assert len(gaps(system)) == 1


def test_a_recreated_tenant_follows_the_one_before(system: System) -> None:
    uid = put(system)
    ran(system)
    before = memory(system)
    _remade_now(system)
    second = ran(system)

    gone, new = memories(system)
    assert gone == before._replace(gone_at=second.observed_at)
    assert (new.follows, new.continues, new.gone_at) == (uid, False, None)


def _remade_now(system: System, *packages: str) -> None:
    system.api.delete("acme")
    system.api.create(tenant("acme", packages, suspend=False), at=system.now - HOUR)


def test_an_unreadable_tenant_is_not_taken_for_a_copy(system: System) -> None:
    """It changed while it could not be read, and not since the last list: no copy of a cluster shows that."""
    put(system)
    ran(system)
    before = memory(system)
    _mangled(system)
    ran(system)
    assert memory(system) == before._replace(is_current=False)

    (resource,) = [system.api.get("acme") or {}]
    resource["spec"]["packages"] = []
    system.api.resource_version -= 1
    system.api.plant(resource)
    third = ran(system)

    after = memory(system)
    assert after == before._replace(resource_version=resource["metadata"]["resourceVersion"])
    assert int(after.resource_version) <= int(str(third.resource_version))
    assert position(system) == (third.resource_version, third.observed_at)


def test_two_namespaces_with_one_name_are_unreadable(
    ledger: psycopg.Connection[Any], ledger_url: str, tmp_path: Path
) -> None:
    with FakeApi(namespaced=True) as api:
        system = System(api, ledger, ledger_url, str(api.kubeconfig(tmp_path / "kubeconfig")))
        put(system, namespace="a")
        ran(system)
        before = memory(system)
        api.create(tenant("acme", suspend=False, namespace="b"), at=system.now - HOUR)
        ran(system)
        ran(system)
        assert memory(system) == before._replace(is_current=False)
        (gap,) = gaps(system)
        assert gap.why == "unreadable"

        api.delete("acme", namespace="b")
        assert ran(system).findings == ()
        assert memory(system) == before
        assert gaps(system) == [gap]


def test_nasty_texts_are_remembered_as_they_are(system: System) -> None:
    packages = sorted(NASTY)
    system.api.create(tenant("acme", packages, org="2871", suspend=False), at=system.now + AGO)
    ran(system)
    before = _versions(system)
    ran(system)

    assert system.ledger.execute("SELECT packages FROM reconciler.tenants").fetchall() == [(packages,)]
    assert _versions(system) == before


def test_a_tenant_without_a_version_is_no_evidence(system: System) -> None:
    """An API server sends none such; but one tenant never stops the rest."""

    def without_version(body: dict[str, Any]) -> None:
        for item in body["items"]:
            if item["metadata"]["name"] == "acme":
                del item["metadata"]["resourceVersion"]

    system.api.faults.append(Fault(edit(without_version), when=lists, times=None))
    put(system, "acme")
    put(system, "beta")
    for _ in range(2):
        assert ran(system).result is Result.CLEAN
    assert memory(system, "beta").is_current


# which runs remember


def _crash(_: System, monkeypatch: pytest.MonkeyPatch) -> None:
    def record(*_: object) -> None:
        raise ValueError

    monkeypatch.setattr("reconciler.db.runs.record", record)


def _broken(system: System, _: pytest.MonkeyPatch) -> None:
    system.api.faults.append(Fault(status(403), when=lists))


def _of_another_cluster(system: System, _: pytest.MonkeyPatch) -> None:
    system.api.source_uid = "11111111-2222-3333-4444-555555555555"


def _stale(system: System, _: pytest.MonkeyPatch) -> None:
    system.api.resource_version = 900
    patch(system, "other", packages=["mail"])


def _empty(system: System, _: pytest.MonkeyPatch) -> None:
    system.api.reset()


@pytest.mark.parametrize(
    ("strike", "result", "failure"),
    [
        pytest.param(_crash, Result.FAILED, None, id="it crashes while it writes - failed"),
        pytest.param(_broken, Result.FAILED, None, id="it may not list - failed"),
        pytest.param(_of_another_cluster, Result.BLOCKED, OtherSource, id="another cluster - refused"),
        pytest.param(_stale, Result.BLOCKED, StaleList, id="an older list - refused"),
        pytest.param(_empty, Result.BLOCKED, EmptyList, id="an empty list - refused"),
    ],
)
def test_a_run_that_was_stopped_for_its_list_remembers_nothing(
    system: System,
    monkeypatch: pytest.MonkeyPatch,
    strike: Callable[[System, pytest.MonkeyPatch], None],
    result: Result,
    failure: type[Exception] | None,
) -> None:
    put(system, "acme")
    put(system, "other")
    ran(system)
    before = everything(system)
    _changed_twice(system)
    strike(system, monkeypatch)
    outcome = system.run()

    assert outcome.result is result
    assert failure is None or isinstance(outcome.failure, failure)
    assert everything(system) == before


def test_a_plan_remembers_nothing(system: System) -> None:
    put(system)
    before = all_rows(system.url)
    ran(system, mode=Mode.PLAN)
    assert all_rows(system.url) == before

    ran(system)
    _changed_twice(system)
    before = all_rows(system.url)
    assert ran(system, mode=Mode.PLAN).history.gaps == 1
    assert all_rows(system.url) == before


def test_a_run_that_would_correct_too_many_remembers(system: System) -> None:
    names = [f"t{number}" for number in range(5)]
    for name in names:
        put(system, name)
    first = ran(system)
    for name in names:
        patch(system, name, packages=["mail"])
    patch(system, "t0", packages=["mail", "wiki"])
    books = billing_rows(system.url)
    blocked = system.run()

    assert isinstance(blocked.failure, TooMuchDrift)
    assert billing_rows(system.url) == books
    assert position(system) == (blocked.resource_version, blocked.observed_at)
    assert [gap.from_at for gap in gaps(system, "t0")] == [first.observed_at]
    assert system.ledger.execute("SELECT DISTINCT packages FROM reconciler.tenants ORDER BY 1").fetchall() == [
        (["mail"],),
        (["mail", "wiki"],),
    ]
    assert system.ledger.execute(
        "SELECT history->'gaps' FROM reconciler.runs WHERE id = %s", [blocked.run_id]
    ).fetchall() == [(1,)]

    third = ran(system, limits=Limits(count=5))
    assert third.result is Result.CORRECTED
    assert len(gaps(system, "t0")) == 1


def test_a_blocked_run_is_recorded_though_another_one_writes(system: System) -> None:
    """That it was stopped must be known; what it has seen, the next run sees, too."""
    for number in range(5):
        put(system, f"t{number}")
    ran(system)
    before = everything(system)
    for number in range(5):
        patch(system, f"t{number}", packages=["mail"])
    with system.ledger.transaction():
        system.ledger.execute(query("lock"))
        blocked = system.run()
    assert isinstance(blocked.failure, TooMuchDrift)
    assert blocked.recorded
    assert everything(system) == before


def test_a_first_run_that_would_correct_too_many_pins_nothing(system: System) -> None:
    for number in range(5):
        system.record(f"t{number}", AGO)
    put(system)
    assert isinstance(system.run().failure, TooMuchDrift)
    assert everything(system) == [[], [], []]


def test_a_file_is_not_remembered(system: System, tmp_path: Path) -> None:
    file = tmp_path / "tenants.yaml"
    file.write_text(
        "apiVersion: pieced.ch/v1alpha1\nkind: PiecedTenant\nmetadata:\n  name: acme\n  uid: u1\n  generation: 1\n"
        '  resourceVersion: "7"\n  creationTimestamp: "2026-05-01T08:00:00Z"\nspec: {suspend: false}\n'
    )
    source = FileSource(path=str(file), group="pieced.ch", org_label=ORG_LABEL)
    for _ in range(2):
        outcome = reconcile(
            Job(database_url=system.url, source=source, options=RunOptions(), deadline=Deadline.after(60))
        )
        assert outcome.failure is None
        assert outcome.history == HistoryRead(LogRead.NONE)
        assert everything(system) == [[], [], [("snapshot", None, None)]]


# two runs at once


def test_of_two_runs_at_once_the_first_moves_the_position(system: System) -> None:
    put(system)
    ran(system)
    inner: list[Outcome] = []

    def meanwhile() -> None:
        system.on_sleep = None
        _changed_twice(system)
        inner.append(ran(system))

    # drift that the outer run waits for
    system.api.patch("acme", {"spec": {"packages": ["wiki"]}})
    system.on_sleep = meanwhile
    with capture_logs() as logged:
        ran(system)

    (first,) = inner
    assert position(system) == (first.resource_version, first.observed_at)
    assert "history.unread" in {line["event"] for line in logged}
    assert len(gaps(system)) == 1
    assert system.ledger.execute("SELECT packages FROM reconciler.tenants").fetchall() == [([],)]
    assert ran(system).history.gaps == 0


def test_a_list_older_than_another_runs_is_not_a_copy(system: System) -> None:
    """The other run listed later and was faster: what is remembered by now is younger than this list."""
    put(system)
    ran(system)
    inner: list[Outcome] = []
    listed = len(system.api.lists)

    def meanwhile(request: Request) -> None:
        # the identity is read before the list, and after its last page
        if request.path.endswith("/namespaces/kube-system") and len(system.api.lists) > listed:
            system.api.on_request = None
            _status(system)
            inner.append(ran(system))

    system.api.on_request = meanwhile
    outcome = system.run()

    assert outcome.failure is None, outcome.failure
    (first,) = inner
    assert position(system) == (first.resource_version, first.observed_at)


# a name that has another uid


@pytest.mark.parametrize(
    "later",
    [
        pytest.param(30 * SECOND, id="within settle: by the uid"),
        pytest.param(HOUR, id="an hour later: by the creation, too"),
    ],
)
def test_a_recreated_tenant_is_found_in_every_run(system: System, later: timedelta) -> None:
    put(system, "acme", ["mail"])
    ran(system)
    system.api.delete("acme")
    system.api.create(tenant("acme", ["wiki"], suspend=False), at=system.now + AGO + later)
    books = billing_rows(system.url)

    for mode in (Mode.PLAN, Mode.RUN, Mode.PLAN, Mode.RUN, Mode.RUN):
        assert found(ran(system, mode=mode)) == [("acme", Reason.TENANT_RECREATED)]
    assert billing_rows(system.url) == books

    # as reopening it does
    system.ledger.execute(
        "UPDATE tenant_billing_lifecycle SET created_at = "
        "(SELECT created_at FROM reconciler.tenants WHERE follows IS NOT NULL)"
    )
    for _ in range(2):
        assert ("acme", Reason.TENANT_RECREATED) not in found(ran(system))
    assert {row[2:4] for row in billing_rows(system.url).skills} >= {("mail", "disabled"), ("wiki", "enabled")}


def test_a_recreated_tenant_that_was_never_recorded_is_inserted(system: System) -> None:
    """Of the one before it there is no row that it could be taken for."""
    put(system, "other")
    system.api.create(tenant("acme", suspend=False), at=system.now - 40 * SECOND)
    system.on_sleep = lambda: system.api.delete("acme") if len(system.slept) == 1 else None
    ran(system)
    system.api.create(tenant("acme", suspend=False), at=system.now - 2 * HOUR)
    assert found(ran(system)) == [("acme", Reason.TENANT_UNRECORDED)]
    assert found(ran(system)) == []


# a copy of the cluster, or one that was restored


def _older(system: System) -> None:
    """The tenant is at a version that it had before; the list is younger than the last."""
    api = system.api
    after, api.resource_version = api.resource_version + 100, 900
    _status(system)
    api.resource_version = after


def _changed_without_a_write(system: System) -> None:
    """The tenant has changed since the last list, at a version that this list lies past."""
    api = system.api
    resource = api.get("acme") or {}
    after, api.resource_version = api.resource_version + 100, int(resource["metadata"]["resourceVersion"])
    _status(system)
    api.resource_version = after


COPIES: Final = [
    pytest.param(_older, id="a tenant at an older version"),
    pytest.param(_changed_without_a_write, id="a tenant that changed before the last list"),
]


def test_a_uid_that_was_gone_is_of_a_copy(system: System) -> None:
    """Only a backup has it: the cluster gives every new tenant another one."""
    for name in ("acme", "beta"):
        put(system, name)
    ran(system)
    backup = system.api.get("acme")
    system.api.delete("acme")
    ran(system)
    assert backup
    system.api.plant(backup)
    refused = system.run()
    assert isinstance(refused.failure, RestoredSource)
    assert "lacked it since" in str(refused.failure)
    ran(system, accept_source=True)
    assert [gap.why for gap in gaps(system, "acme")][-1] == "restored"
    assert memory(system).gone_at is None


def test_two_tenants_of_one_name_have_one_gap(system: System) -> None:
    """The backup shows the tenant that was gone, and no longer the one that came after it."""
    for name in ("acme", "beta"):
        put(system, name)
    ran(system)
    backup = system.api.get("acme")
    system.api.delete("acme")
    system.api.create(tenant("acme", suspend=False))
    ran(system)
    system.api.delete("acme")
    assert backup
    system.api.plant(backup)
    ran(system, accept_source=True)
    assert {gap.why for gap in gaps(system, "acme")} <= {"recreated", "restored"}


def test_a_change_that_was_deferred_and_undone_is_a_gap(system: System) -> None:
    """On at the first look, off at the second, and off ever since: nobody wrote that it was on."""
    put(system, "acme")
    put(system, "beta")
    first = ran(system)
    patch(system, "acme", packages=["mail"])
    blocked = system.run(limits=Limits(count=0, percent=0))
    assert isinstance(blocked.failure, TooMuchDrift)
    patch(system, "acme", packages=[])
    assert found(ran(system)) == []
    ((from_at, why),) = [(gap.from_at, gap.why) for gap in gaps(system, "acme")]
    assert (from_at, why) == (first.observed_at, "changed_often")
    patch(system, "acme", packages=["mail"])
    ran(system)
    assert len(gaps(system, "acme")) == 1


def test_what_a_restore_undid_is_not_proven_of_anybody(system: System) -> None:
    """A change after the last list is undone, and the tenant is as it was remembered."""
    for name in ("acme", "beta"):
        put(system, name)
    ran(system)
    system.ledger.execute("UPDATE reconciler.source SET resource_version = (resource_version::int + 1)::text")
    ran(system, accept_source=True)
    assert {gap.why for name in ("acme", "beta") for gap in gaps(system, name)} == {"restored"}


@pytest.mark.parametrize("copy", COPIES)
def test_a_list_of_a_copy_is_refused_in_every_run(system: System, copy: Callable[[System], None]) -> None:
    put(system, "acme")
    for name in ("beta", "gamma"):
        put(system, name)
    first = ran(system)
    version = memory(system).resource_version
    before = everything(system)
    copy(system)
    patch(system, "beta", packages=["mail"])
    books = billing_rows(system.url)

    for mode in (Mode.PLAN, Mode.RUN, Mode.RUN):
        outcome = system.run(mode=mode)
        assert outcome.result is Result.BLOCKED
        assert isinstance(outcome.failure, RestoredSource)
        shown = (system.api.get("acme") or {})["metadata"]["resourceVersion"]
        assert str(outcome.failure) == (
            f"The list shows acme at resourceVersion {shown}; the last run saw it at {version}, "
            f"in a list at {first.resource_version}."
        )
        assert everything(system) == before
        assert billing_rows(system.url) == books


@pytest.mark.parametrize("copy", COPIES)
def test_a_list_of_a_copy_is_accepted_once(system: System, copy: Callable[[System], None]) -> None:
    put(system)
    put(system, "other")
    first = ran(system)
    before = memory(system)
    copy(system)
    second = ran(system, accept_source=True)

    after = memory(system)
    assert after == before._replace(resource_version=after.resource_version)
    (gap,) = gaps(system)
    assert (gap.from_at, gap.why) == (first.observed_at, "restored")
    assert found(second) == []
    assert ran(system).history.gaps == 0
    assert gaps(system) == [gap]


def restored_elsewhere(system: System) -> None:
    """Restore a backup into another cluster: each tenant has another uid, and a lower version."""
    system.api.source_uid = "11111111-2222-3333-4444-555555555555"
    _restored(system)


def restored_in_place(system: System) -> None:
    """Restore a backup into the same cluster, whose versions begin again."""
    _restored(system)


def _restored(system: System) -> None:
    api = system.api
    api.reset()
    api.resource_version = 100
    api.create(tenant("same", ["mail"], suspend=False), at=system.now - HOUR)
    api.create(tenant("changed", ["mail", "wiki"], suspend=False), at=system.now - HOUR)
    api.create(tenant("suspended", ["mail"], suspend=True), at=system.now - HOUR)
    api.create(tenant("moved", ["mail"], org="2872", suspend=False), at=system.now - HOUR)


@pytest.fixture
def restorable(system: System) -> System:
    """A system that a run has seen, whose tenants can be restored."""
    for name in ("same", "changed", "suspended", "moved", "lost"):
        put(system, name, ["mail"])
    ran(system)
    return system


RESTORED: Final = pytest.mark.parametrize("restore", [restored_in_place, restored_elsewhere])
RECREATED: Final = {(name, Reason.TENANT_RECREATED) for name in ("changed", "suspended", "moved")}


@RESTORED
def test_what_is_restored_as_it_was_is_the_same_tenant(restorable: System, restore: Callable[[System], None]) -> None:
    system = restorable
    before, books = memory(system, "same"), billing_rows(system.url)
    restore(system)
    refused = system.run()
    assert refused.result is Result.BLOCKED
    accepted = ran(system, accept_source=True)

    old, new = sorted(memories(system, "same"), key=lambda one: one.continues)
    assert old == before._replace(gone_at=accepted.observed_at)
    assert (new.follows, new.continues, new.since) == (before.uid, True, before.since)
    lost = {("lost", Reason.DELETION_UNRECORDED), ("lost", Reason.SKILL_OPEN_AFTER_DELETION)}
    assert set(found(accepted)) == RECREATED | lost
    for _ in range(2):
        assert set(found(ran(system))) == RECREATED
    written = billing_rows(system.url).beyond(books)
    assert {row[0] for rows in written for row in rows} == {"lost"}
    assert [gap.why for gap in gaps(system, "same")] == ["recreated"]

    # and it is compared like any other
    patch(system, "same", packages=["mail", "wiki"])
    assert set(found(ran(system))) == RECREATED | {("same", Reason.SKILL_ENABLE_UNRECORDED)}


def test_a_restore_that_a_run_has_reported_can_be_accepted_later(restorable: System) -> None:
    """The next run of a CronJob comes before anybody can accept it."""
    system = restorable
    since = memory(system, "same").since
    restored_elsewhere(system)
    for name in ("same", "changed"):
        system.api.patch(name, {"metadata": {"annotations": {"restored": "yes"}}})
    system.ledger.execute(
        "UPDATE reconciler.source SET identity = %s, resource_version = NULL", [system.api.source_uid]
    )
    system.ledger.execute("UPDATE reconciler.tenants SET source = %s", [system.api.source_uid])
    reported = {name for name, reason in found(ran(system)) if reason is Reason.TENANT_RECREATED}
    assert reported == {"same", "changed", "suspended", "moved"}
    assert set(found(ran(system, accept_source=True))) == RECREATED
    assert set(found(ran(system))) == RECREATED
    assert [(one.continues, one.since) for one in memories(system, "same")][-1:] == [(True, since)]


@RESTORED
def test_an_accepted_run_that_is_blocked_can_be_accepted_again(
    restorable: System, restore: Callable[[System], None]
) -> None:
    system = restorable
    restore(system)
    blocked = system.run(accept_source=True, limits=Limits(count=0, percent=0))
    assert isinstance(blocked.failure, TooMuchDrift)

    for options in ({"accept_source": True}, {}):
        outcome = ran(system, **options)
        assert {one for one in found(outcome) if one[1] is Reason.TENANT_RECREATED} == RECREATED
    assert [one.continues for one in memories(system, "same")].count(True) == 1
