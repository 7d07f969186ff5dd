"""A run over a cluster, whole: the backfill of two hundred tenants, then every row of the truth table, one lost write
at a time. On the double, and on the API server that TEST_KUBECONFIG names.
"""  # noqa: D205 - one sentence

from __future__ import annotations

import json
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import sleep
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest

from reconciler import __version__
from reconciler.core.model import FallbackDating, Mode, Outcome, Result
from reconciler.db.connection import connect
from reconciler.deadline import Deadline
from reconciler.job import Job, RunOptions
from reconciler.run import reconcile
from reconciler.sources.api_client import Api, CustomResource
from reconciler.sources.cluster import Cluster as Source
from reconciler.views.findings import counts
from tests.support import population as lifetimes
from tests.support.api_state import ORG_LABEL, tenant
from tests.support.ledger_rows import PUBLIC, BillingRows, all_rows, billing_rows
from tests.support.population import FINALIZER, UNKNOWN, backfilled, objects, population, settle, time, written_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.harness import Cluster

pytestmark = pytest.mark.usefixtures("lost_log")
"""What two lists prove alone."""

SETTLE: Final = timedelta(seconds=60)
NOTHING: Final = {
    "lifecycle_inserted": 0,
    "events_inserted": 0,
    "suspension_events_inserted": 0,
    "deletions_stamped": 0,
    "orgs_resolved": 0,
}
FAR: Final = datetime(2999, 1, 1, tzinfo=UTC)

# the run's own fixtures


INSTANT = timedelta(microseconds=1)


@dataclass
class Scene:
    """A cluster and its ledger."""

    cluster: Cluster
    url: str
    slept: list[float] = field(default_factory=list)
    slept_at: datetime | None = None
    on_sleep: Callable[[], object] | None = None
    outcomes: list[Outcome] = field(default_factory=list)

    def run(self, *, mode: Mode = Mode.RUN, uncertain: FallbackDating = FallbackDating.CUSTOMER) -> Outcome:
        """Run once, in which waiting takes no time."""
        deadline = Deadline.after(600)
        api = Api(kubeconfig=str(self.cluster.kubeconfig), context=None, deadline=deadline)
        source = Source(
            resource=CustomResource(api=api, group="pieced.ch", plural="piecedtenants"),
            org_label=ORG_LABEL,
            page_size=50,
        )
        options = RunOptions(mode=mode, settle=SETTLE, fallback=uncertain)
        self.slept.clear()
        outcome = reconcile(
            Job(database_url=self.url, source=source, options=options, deadline=deadline, sleep=self.sleep)
        )
        assert outcome.failure is None, outcome.failure
        self.outcomes.append(outcome)
        return outcome

    def sleep(self, seconds: float) -> None:
        """Note that it would wait, and when by the ledger's clock."""
        self.slept.append(seconds)
        ((self.slept_at,),) = self.write("SELECT clock_timestamp()")
        if self.on_sleep:
            self.on_sleep()

    def write(self, statement: str, *values: Any) -> list[Any]:
        """Change the ledger as the portal does, or ask it something."""
        with closing(connect(self.url)) as ledger:
            cursor = ledger.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def portal_skill(self, name: str, skill: str, kind: str, at: datetime | str | None = None, org: str = "1") -> None:
        """Let the portal's own insert succeed."""
        self.write(
            "INSERT INTO tenant_skill_events (tenant_name, zitadel_org_id, skill_id, event_kind, occurred_at) "
            "VALUES (%s, %s, %s, %s, coalesce(%s::timestamptz, now()))",
            *(name, org, skill, kind, at),
        )

    def portal_suspension(self, name: str, kind: str, at: datetime | str | None = None, org: str = "1") -> None:
        """Let the portal's own insert succeed."""
        self.write(
            "INSERT INTO tenant_suspension_events (tenant_name, zitadel_org_id, event_kind, occurred_at) "
            "VALUES (%s, %s, %s, coalesce(%s::timestamptz, now()))",
            *(name, org, kind, at),
        )

    def an_hour_passes(self) -> None:
        """Put what was verified an hour back, so that what happens next happens well after it."""
        self.write(
            "UPDATE reconciler.runs SET started_at = s, observed_at = s FROM (SELECT now() - '1 h'::interval) o(s)"
        )

    def verified_at(self) -> datetime:
        """Up to when the last good run has proved what it saw: rows may take settle to come."""
        ((at,),) = self.write("SELECT max(observed_at) FROM reconciler.runs WHERE outcome NOT IN ('failed', 'blocked')")
        assert isinstance(at, datetime)
        return (at - SETTLE).astimezone(UTC)

    def latest(self, name: str, skill: str | None = None) -> tuple[int, datetime] | None:
        """The latest event of a key: its id and time."""
        where, values = ("", []) if skill is None else ("AND skill_id = %s", [skill])
        table = "tenant_suspension_events" if skill is None else "tenant_skill_events"
        rows = self.write(
            f"SELECT id, occurred_at FROM {table} WHERE tenant_name = %s {where} "  # noqa: S608 - of two tables
            "ORDER BY occurred_at DESC, id DESC LIMIT 1",
            *(name, *values),
        )
        return (rows[0][0], rows[0][1].astimezone(UTC)) if rows else None

    def created_at(self, name: str) -> datetime:
        """When the tenant's resource was created."""
        shown = self.cluster.get(name)
        assert shown
        created: datetime = time(shown["metadata"]["creationTimestamp"])
        return created

    def deleting_at(self, name: str) -> datetime:
        """When its deletion was asked for."""
        shown = self.cluster.get(name)
        assert shown
        deleting: datetime = time(shown["metadata"]["deletionTimestamp"])
        return deleting


@pytest.fixture
def scene(cluster: Cluster, ledger_url: str) -> Scene:
    """A cluster without tenants and an empty ledger."""
    return Scene(cluster, ledger_url)


# two hundred tenants


def test_the_first_run_is_the_backfill_the_second_writes_nothing(scene: Scene) -> None:
    members = population()
    settle(scene.cluster, members)
    sleep(1)  # the shortest lifetimes last that long
    expected = backfilled(members, objects(scene.cluster), dated=scene.cluster.moves_times)

    first = scene.run()
    after_the_first = all_rows(scene.url, PUBLIC)
    corrections = all_rows(scene.url)["reconciler.corrections"]

    assert billing_rows(scene.url) == expected
    assert counts(first) == {
        "lifecycle_inserted": 200,
        "events_inserted": len(expected.skills),
        "suspension_events_inserted": len(expected.suspensions),
        "deletions_stamped": 8,
        "orgs_resolved": 0,
    }
    assert (first.result, first.tenants_observed, first.tenants_recorded) == (Result.CORRECTED, 210, 0)
    assert _reports(first) == {(member.name, member.report) for member in members if member.report}
    assert not [finding for finding in first.findings if finding.action == "defer"]

    second = scene.run()

    assert all_rows(scene.url, PUBLIC) == after_the_first
    assert all_rows(scene.url)["reconciler.corrections"] == corrections
    assert counts(second) == NOTHING
    assert (second.result, second.tenants_observed, second.tenants_recorded) == (Result.DRIFT, 210, 192)
    assert _reports(second) == _reports(first)
    assert len(second.findings) == len(_reports(second))
    assert _runs_of(scene) == [_run_row(first, scene), _run_row(second, scene)]


def test_every_row_of_the_backfill_has_its_correction(scene: Scene) -> None:
    settle(scene.cluster, population())
    sleep(1)  # the shortest lifetimes last that long
    outcome = scene.run()

    assert scene.write("SELECT DISTINCT run_id FROM reconciler.corrections") == [(outcome.run_id,)]
    for table, kind, subject in (
        ("tenant_skill_events", "e.event_kind", "e.skill_id"),
        ("tenant_suspension_events", "e.event_kind", "NULL"),
    ):
        unexplained = scene.write(
            f"SELECT e.*, c.* FROM {table} e FULL JOIN (SELECT * FROM reconciler.corrections "  # noqa: S608 - of two
            f"WHERE event_table = %s) c ON c.event_id = e.id AND c.tenant_name = e.tenant_name "
            f"AND c.zitadel_org_id = e.zitadel_org_id AND c.observed = {kind} AND c.occurred_at = e.occurred_at "
            f"AND c.subject IS NOT DISTINCT FROM {subject} AND c.action = 'append' "
            f"AND (c.supersedes_event_id IS NULL) = ({kind} <> 'disabled') "
            "WHERE e.id IS NULL OR c.id IS NULL",
            table,
        )
        assert unexplained == []
    assert scene.write(
        "SELECT count(*), count(*) FILTER (WHERE NOT not_before <= occurred_at OR NOT occurred_at <= not_after), "
        "count(*) FILTER (WHERE closed_period) FROM reconciler.corrections"
    ) == [(len(_corrections(outcome)), 0, 0)]
    inserted = scene.write(
        "SELECT c.tenant_name FROM reconciler.corrections c JOIN tenant_billing_lifecycle l USING (tenant_name) "
        "WHERE c.reason = 'tenant_unrecorded' AND c.occurred_at = l.created_at AND c.event_id IS NULL "
        "AND c.zitadel_org_id = l.zitadel_org_id AND c.event_table = 'tenant_billing_lifecycle'"
    )
    assert len(inserted) == 200


def test_a_plan_of_the_backfill_shows_what_the_run_writes(scene: Scene) -> None:
    settle(scene.cluster, population())
    sleep(1)  # the shortest lifetimes last that long
    before = all_rows(scene.url)

    plan = scene.run(mode=Mode.PLAN)

    assert all_rows(scene.url) == before
    assert plan.result is Result.DRIFT
    run = scene.run()
    assert counts(plan) == counts(run)
    assert [_essence(finding) for finding in plan.findings] == [_essence(finding) for finding in run.findings]


def test_unreadable_tenants_do_not_stop_the_others(scene: Scene) -> None:
    members = [member for member in population() if member.readable]
    assert len(members) == 200
    settle(scene.cluster, members)
    sleep(1)  # the shortest lifetimes last that long
    scene.run()
    scene.an_hour_passes()
    live = [member for member in members if not member.deleting and member.org != UNKNOWN and member.skills]
    broken, lost = live[:10], live[10:13]
    for number, member in enumerate(broken):
        # with lost writes of its own, which nobody can tell any more
        scene.cluster.patch(
            member.name, {"spec": {"packages": [["added"], 7][number % 2] if number else "added", "suspend": 1}}
        )
    for member in lost:
        scene.cluster.patch(member.name, {"spec": {"packages": [*member.skills, "added"]}})
    before = billing_rows(scene.url)

    outcome = scene.run()

    added = billing_rows(scene.url).beyond(before)
    assert [row[:4] for row in added.skills] == sorted((one.name, one.org, "added", "enabled") for one in lost)
    assert (added.lifecycles, added.suspensions) == ([], [])
    unlabelled = {(member.name, member.report) for member in members if member.report}
    assert _reports(outcome) == unlabelled | {(member.name, "tenant_unreadable") for member in broken}
    assert (outcome.tenants_observed, outcome.tenants_recorded) == (200, 192)
    assert _runs_of(scene)[-1] == _run_row(outcome, scene)

    assert counts(scene.run()) == NOTHING
    for member in broken:
        healed = scene.cluster.patch(member.name, {"spec": {"packages": sorted(member.skills), "suspend": None}})
        if member.suspended in {lifetimes.Suspended.SINCE_CREATION, lifetimes.Suspended.SINCE_WRITE}:
            healed = scene.cluster.patch(member.name, {"spec": {"suspend": True}})
        assert healed
    assert counts(scene.run()) == NOTHING
    assert _reports(scene.outcomes[-1]) == unlabelled


# the truth table


class Wrote(NamedTuple):
    """A correction that a run must make."""

    reason: str
    tenant: str
    subject: str | None
    action: str
    recorded: str
    observed: str
    evidence: str
    at: datetime | None
    """None: the end of the interval."""
    not_before: datetime
    org: str = "1"
    supersedes: int | None = None


class Said(NamedTuple):
    """A report that a run must make."""

    reason: str
    tenant: str
    subject: str | None = None


Expected = list[Wrote | Said]
_CASES: list[Any] = []


def _case(sentence: str) -> Callable[[Callable[[Scene], Expected]], Callable[[Scene], Expected]]:
    """Enter a lost write, and what follows from it, into the parameters of the test below."""

    def entered(lost: Callable[[Scene], Expected]) -> Callable[[Scene], Expected]:
        _CASES.append(pytest.param(lost, id=sentence))
        return lost

    return entered


def _enabled(scene: Scene, name: str, skill: str, org: str = "1") -> Wrote:
    """A package that was added and whose row was lost: dated by who wrote it, else as late as possible."""
    return _changed(scene, "skill_enable_unrecorded", name, skill, org, "packages", late=True)


def _disabled(scene: Scene, name: str, skill: str, org: str = "1") -> Wrote:
    return _changed(scene, "skill_disable_unrecorded", name, skill, org, "packages", late=False)


def _changed(
    scene: Scene, reason: str, name: str, subject: str | None, org: str, written: str | None, *, late: bool
) -> Wrote:
    recorded, observed = {
        "skill_enable_unrecorded": ("disabled", "enabled"),
        "skill_disable_unrecorded": ("enabled", "disabled"),
        "suspension_unrecorded": ("running", "suspended"),
        "resumption_unrecorded": ("suspended", "running"),
    }[reason]
    latest = scene.latest(name, subject)
    times = [_lifecycle_created_at(scene, name), scene.verified_at(), *([latest[1]] if latest else [])]
    not_before = max(times)
    at: datetime | None = None if late else not_before
    evidence = "none"
    if written and scene.cluster.moves_times:
        shown = scene.cluster.get(name)
        assert shown
        # in the second of the event that it follows a write may be that event's own, and proves nothing
        if not (latest and written_at(shown, written) == latest[1].replace(microsecond=0)):
            evidence, at = "field_manager", max(written_at(shown, written), not_before)
    if at and latest:
        at = max(at, latest[1] + INSTANT)
    superseded = latest[0] if latest else None
    return Wrote(reason, name, subject, "append", recorded, observed, evidence, at, not_before, org, superseded)


def _lifecycle_created_at(scene: Scene, name: str) -> datetime:
    ((created_at,),) = scene.write("SELECT created_at FROM tenant_billing_lifecycle WHERE tenant_name = %s", name)
    assert isinstance(created_at, datetime)
    return created_at.astimezone(UTC)


def _closed(scene: Scene, name: str, skill: str, at: datetime, evidence: str = "deletion", org: str = "1") -> Wrote:
    """A skill that a deletion has ended."""
    latest = scene.latest(name, skill)
    assert latest
    return Wrote(
        *("skill_open_after_deletion", name, skill, "append", "enabled", "disabled"),
        *(evidence, max(at, latest[1] + INSTANT), at, org, latest[0]),
    )


def _closed_at_once(name: str, skill: str, at: datetime, org: str = "1") -> Wrote:
    """A skill that the same run turns on, and that a deletion has ended."""
    return Wrote(*("skill_open_after_deletion", name, skill, "append", "enabled", "disabled", "deletion", at, at, org))


def _inserted(scene: Scene, name: str, org: str = "1") -> Wrote:
    at = scene.created_at(name)
    return Wrote("tenant_unrecorded", name, None, "insert", "absent", "open", "creation", at, at, org)


def _from_the_start(scene: Scene, name: str, skill: str, org: str = "1") -> Wrote:
    at = scene.created_at(name)
    return Wrote("skill_enable_unrecorded", name, skill, "append", "disabled", "enabled", "creation", at, at, org)


def _ended(
    scene: Scene, name: str, at: datetime, evidence: str = "deletion", skills: tuple[str, ...] = ()
) -> list[Wrote]:
    """A deletion, and its skills: a lifetime lasts a second at least, and its end must not lie after now."""
    sleep(1)
    row = scene.write("SELECT created_at FROM tenant_billing_lifecycle WHERE tenant_name = %s", name)
    end = max(at, (row[0][0] if row else scene.created_at(name)) + timedelta(seconds=1))
    stamped = Wrote("deletion_unrecorded", name, None, "stamp", "open", "deleted", evidence, end, at, "1")
    return [stamped, *(_closed(scene, name, skill, at, evidence)._replace(at=end) for skill in skills)]


# lifecycle


@_case("a recorded tenant that did not change is true")
def _unchanged(_: Scene) -> Expected:
    return []


@_case("a live tenant without a lifecycle row is inserted at its creation with its packages and its suspension")
def _unrecorded(scene: Scene) -> Expected:
    scene.cluster.create(tenant("newcomer", ["mail", "voice", "mail"], org="1", suspend=True))
    lifetimes.suspension_seen(scene.cluster, "newcomer")
    created_at, shown = scene.created_at("newcomer"), scene.cluster.get("newcomer")
    assert shown
    seen_at = time(shown["status"]["suspendedAt"])
    return [
        _inserted(scene, "newcomer"),
        *(_from_the_start(scene, "newcomer", skill) for skill in ("mail", "voice")),
        Wrote(
            *("suspension_unrecorded", "newcomer", None, "append", "running", "suspended"),
            *("suspended_at", seen_at, created_at),
        ),
    ]


@_case("a live tenant of which the portal recorded the packages alone is inserted and keeps its events")
def _row_lost(scene: Scene) -> Expected:
    scene.cluster.create(tenant("newcomer", ["mail"], org="1"))
    scene.portal_skill("newcomer", "mail", "enabled")
    return [_inserted(scene, "newcomer")]


@_case("an unlabelled tenant without a lifecycle row is inserted under the organisation unknown and reported")
def _unrecorded_and_unlabelled(scene: Scene) -> Expected:
    scene.cluster.create(tenant("newcomer", ["mail"], org=None))
    return [
        _inserted(scene, "newcomer", UNKNOWN),
        _from_the_start(scene, "newcomer", "mail", UNKNOWN),
        Said("org_unlabelled", "newcomer"),
    ]


@_case("a tenant of a closed row that was created after its deletion is reported as recreated")
def _recreated(scene: Scene) -> Expected:
    scene.cluster.delete("acme")
    scene.run()
    # the first lifetime lasts a second at least
    scene.cluster.tick()
    scene.cluster.tick()
    scene.cluster.create(tenant("acme", ["mail"], org="1"))
    return [Said("tenant_recreated", "acme")]


@_case("a tenant of a closed row that is older than its deletion contradicts it and is reported")
def _contradicted(scene: Scene) -> Expected:
    scene.write("UPDATE tenant_billing_lifecycle SET deleted_at = now() WHERE tenant_name = 'acme'")
    return [Said("deletion_contradicted", "acme")]


@_case("a tenant that is being deleted without a lifecycle row is inserted and stamped with what it had on")
def _deleting_unrecorded(scene: Scene) -> Expected:
    scene.cluster.create(tenant("newcomer", ["mail"], org="1", suspend=True, finalizers=[FINALIZER]))
    scene.cluster.delete("newcomer")
    at = scene.deleting_at("newcomer")
    (stamped,) = _ended(scene, "newcomer", at)
    return [
        _inserted(scene, "newcomer"),
        stamped,
        _from_the_start(scene, "newcomer", "mail"),
        _closed_at_once("newcomer", "mail", at)._replace(at=stamped.at),
    ]


@_case("a package whose row was lost before the deletion is enabled by its evidence and closed by the deletion")
def _deleting_with_a_lost_enable(scene: Scene) -> Expected:
    scene.cluster.patch("lingering", {"spec": {"packages": ["mail", "voice", "calendar"]}})
    lost = _enabled(scene, "lingering", "calendar")
    sleep(1)  # a deletion comes after what was written in its second
    scene.cluster.delete("lingering")
    at = scene.deleting_at("lingering")
    (stamped, *closed) = _ended(scene, "lingering", at, skills=("mail", "voice"))
    assert stamped.at
    return [
        stamped,
        lost._replace(at=min(lost.at or stamped.at, stamped.at - INSTANT)),
        _closed_at_once("lingering", "calendar", at)._replace(at=stamped.at),
        *closed,
    ]


@_case("a package that the portal recorded as off before the deletion stays off")
def _deleting_with_a_skill_off(scene: Scene) -> Expected:
    scene.cluster.delete("lingering")
    at = scene.deleting_at("lingering")
    scene.portal_skill("lingering", "mail", "disabled")
    return [*_ended(scene, "lingering", at, skills=("voice",))]


@_case("a tenant that is being deleted is stamped with its deletionTimestamp and its skills end with it")
def _deleting(scene: Scene) -> Expected:
    scene.cluster.delete("lingering")
    at = scene.deleting_at("lingering")
    return [*_ended(scene, "lingering", at, skills=("mail", "voice"))]


@_case("an absent tenant is stamped as early as possible and its skills end with it")
def _absent(scene: Scene) -> Expected:
    scene.cluster.delete("acme")
    at = max(_lifecycle_created_at(scene, "acme"), scene.verified_at())
    return [*_ended(scene, "acme", at, "none", ("mail", "threema"))]


@_case("an absent suspended tenant is stamped no later than it was last seen and gets no event of resumption")
def _absent_and_suspended(scene: Scene) -> Expected:
    scene.cluster.delete("paused")
    at = max(_lifecycle_created_at(scene, "paused"), scene.verified_at())
    return [*_ended(scene, "paused", at, "none", ("mail",))]


@_case("an absent tenant of a closed row without open skills is true")
def _absent_and_recorded(scene: Scene) -> Expected:
    scene.cluster.delete("acme")
    scene.write("UPDATE tenant_billing_lifecycle SET deleted_at = now() WHERE tenant_name = 'acme'")
    for skill in ("mail", "threema"):
        scene.portal_skill("acme", skill, "disabled")
    return []


@_case("an absent tenant of a closed row with an open skill has the skill closed at the row's own deleted_at")
def _absent_with_an_open_skill(scene: Scene) -> Expected:
    scene.cluster.delete("acme")
    ((at,),) = scene.write(
        "UPDATE tenant_billing_lifecycle SET deleted_at = now() WHERE tenant_name = 'acme' RETURNING deleted_at"
    )
    scene.portal_skill("acme", "mail", "disabled")
    return [_closed(scene, "acme", "threema", at.astimezone(UTC))]


@_case("a tenant that is being deleted and was stamped has its open skills closed at deleted_at")
def _deleting_with_an_open_skill(scene: Scene) -> Expected:
    scene.cluster.delete("lingering")
    at = scene.deleting_at("lingering")
    scene.write("UPDATE tenant_billing_lifecycle SET deleted_at = %s WHERE tenant_name = 'lingering'", at)
    scene.portal_skill("lingering", "mail", "disabled")
    return [_closed(scene, "lingering", "voice", at)]


@_case("a skill that was enabled after the deletion is closed when it was enabled and not before")
def _enabled_after_the_deletion(scene: Scene) -> Expected:
    scene.cluster.delete("lingering")
    at = scene.deleting_at("lingering")
    scene.write("UPDATE tenant_billing_lifecycle SET deleted_at = %s WHERE tenant_name = 'lingering'", at)
    for skill in ("mail", "voice"):
        scene.portal_skill("lingering", skill, "disabled")
    scene.portal_skill("lingering", "calendar", "enabled")
    enabled = scene.latest("lingering", "calendar")
    assert enabled
    return [_closed(scene, "lingering", "calendar", enabled[1])]


@_case("an unreadable tenant without a lifecycle row is reported and not inserted")
def _unreadable_and_unrecorded(scene: Scene) -> Expected:
    scene.cluster.create(tenant("newcomer", "mail", org="1"))
    return [Said("tenant_unreadable", "newcomer")]


@_case("an unreadable tenant of an open row is reported and not taken for one without packages")
def _unreadable_and_open(scene: Scene) -> Expected:
    scene.cluster.patch("acme", {"spec": {"packages": "mail", "suspend": True}})
    return [Said("tenant_unreadable", "acme")]


@_case("an unreadable tenant that is being deleted is reported and not stamped")
def _unreadable_and_deleting(scene: Scene) -> Expected:
    scene.cluster.patch("lingering", {"spec": {"packages": "mail"}})
    scene.cluster.delete("lingering")
    return [Said("tenant_unreadable", "lingering")]


@_case("an unreadable tenant of a closed row is reported and its open skills stay")
def _unreadable_and_closed(scene: Scene) -> Expected:
    scene.cluster.patch("acme", {"spec": {"packages": "mail"}})
    scene.write("UPDATE tenant_billing_lifecycle SET deleted_at = now() WHERE tenant_name = 'acme'")
    return [Said("tenant_unreadable", "acme")]


# skills


@_case("a package that was added is enabled")
def _package_added(scene: Scene) -> Expected:
    scene.cluster.patch("acme", {"spec": {"packages": ["mail", "threema", "calendar"]}})
    return [_enabled(scene, "acme", "calendar")]


@_case("a package that stands in the list twice is enabled once")
def _package_added_twice(scene: Scene) -> Expected:
    scene.cluster.patch("acme", {"spec": {"packages": ["calendar", "mail", "threema", "calendar"]}})
    return [_enabled(scene, "acme", "calendar")]


@_case("a package that was recorded as disabled and added again is enabled after that event")
def _package_added_again(scene: Scene) -> Expected:
    scene.cluster.patch("acme", {"spec": {"packages": ["mail"]}})
    scene.portal_skill("acme", "threema", "disabled")
    scene.cluster.patch("acme", {"spec": {"packages": ["mail", "threema"]}})
    return [_enabled(scene, "acme", "threema")]


@_case("packages that are on since a creation that the portal recorded are enabled at that creation")
def _packages_since_creation(scene: Scene) -> Expected:
    scene.cluster.create(tenant("newcomer", ["mail", "voice"], org="1"))
    at = scene.created_at("newcomer")
    scene.write("INSERT INTO tenant_billing_lifecycle VALUES ('newcomer', '1', %s)", at)
    return [_from_the_start(scene, "newcomer", skill) for skill in ("mail", "voice")]


@_case("a package that was removed is disabled")
def _package_removed(scene: Scene) -> Expected:
    scene.cluster.patch("acme", {"spec": {"packages": ["mail"]}})
    return [_disabled(scene, "acme", "threema")]


@_case("packages whose field was taken away are all disabled")
def _packages_taken_away(scene: Scene) -> Expected:
    scene.cluster.patch("acme", {"spec": {"packages": None}})
    return [
        _changed(scene, "skill_disable_unrecorded", "acme", skill, "1", None, late=False)
        for skill in ("mail", "threema")
    ]


@_case("a package that was exchanged for another is disabled and the other enabled")
def _package_exchanged(scene: Scene) -> Expected:
    scene.cluster.patch("acme", {"spec": {"packages": ["mail", "voice"]}})
    return [_enabled(scene, "acme", "voice"), _disabled(scene, "acme", "threema")]


@_case("an enabled event of a package that was never on is followed by a disabled one")
def _package_never_on(scene: Scene) -> Expected:
    # the portal's failed change left no trace on the resource: its owner wrote before the event, by more than the two
    # seconds that the clocks, both told in whole seconds, may seem to be apart
    sleep(2.5)
    scene.portal_skill("acme", "calendar", "enabled")
    return [_changed(scene, "skill_disable_unrecorded", "acme", "calendar", "1", None, late=False)]


# suspension


@_case("a suspension that the operator saw is dated when it saw it")
def _suspended(scene: Scene) -> Expected:
    lifetimes.suspended_by_spec(scene.cluster, "acme")
    lifetimes.suspension_seen(scene.cluster, "acme")
    return [_suspended_when_seen(scene)]


@_case("a suspension that only the status shows is dated when the operator saw it")
def _suspended_by_status(scene: Scene) -> Expected:
    lifetimes.suspension_seen(scene.cluster, "acme")
    return [_suspended_when_seen(scene)]


@_case("a suspension that nobody has seen yet is dated by who wrote it, else as early as possible")
def _suspended_by_spec(scene: Scene) -> Expected:
    lifetimes.suspended_by_spec(scene.cluster, "acme")
    return [_changed(scene, "suspension_unrecorded", "acme", None, "1", "suspend", late=False)]


@_case("a suspension whose suspendedAt is of an earlier one is not dated by it")
def _suspended_again(scene: Scene) -> Expected:
    lifetimes.resumed_by_spec(scene.cluster, "paused")
    scene.portal_suspension("paused", "resumed")
    lifetimes.suspended_by_spec(scene.cluster, "paused")
    scene.cluster.set_status("paused", {"suspendedAt": "2020-01-01T00:00:00Z"})
    return [_changed(scene, "suspension_unrecorded", "paused", None, "1", "suspend", late=False)]


@_case("a resumption is dated by who wrote it, else as late as possible")
def _resumed(scene: Scene) -> Expected:
    lifetimes.resumed_by_spec(scene.cluster, "paused")
    return [_changed(scene, "resumption_unrecorded", "paused", None, "1", "suspend", late=True)]


@_case("a resumption that only the status shows is dated as late as possible")
def _resumed_by_status(scene: Scene) -> Expected:
    lifetimes.suspension_seen(scene.cluster, "acme")
    scene.run()
    scene.an_hour_passes()
    lifetimes.resumption_seen(scene.cluster, "acme")
    return [_changed(scene, "resumption_unrecorded", "acme", None, "1", None, late=True)]


def _suspended_when_seen(scene: Scene) -> Wrote:
    shown = scene.cluster.get("acme")
    assert shown
    expected = _changed(scene, "suspension_unrecorded", "acme", None, "1", None, late=False)
    return expected._replace(evidence="suspended_at", at=max(time(shown["status"]["suspendedAt"]), expected.not_before))


# the organisation


@_case("a label on a tenant whose row's organisation is unknown resolves it and its events stay as they are")
def _org_resolved(scene: Scene) -> Expected:
    scene.cluster.create(tenant("nameless", ["mail"], org=None))
    scene.run()
    scene.an_hour_passes()
    scene.cluster.patch("nameless", {"metadata": {"labels": {ORG_LABEL: "7"}}})
    return [
        Wrote("org_resolved", "nameless", None, "update", UNKNOWN, "7", "", None, scene.verified_at(), "7"),
    ]


@_case("a tenant that lost its label is reported and its new events carry the organisation unknown")
def _org_unlabelled(scene: Scene) -> Expected:
    scene.cluster.patch("acme", {"metadata": {"labels": None}, "spec": {"packages": ["mail", "threema", "calendar"]}})
    return [Said("org_unlabelled", "acme"), _enabled(scene, "acme", "calendar", UNKNOWN)]


@_case("a tenant under another organisation is reported and its new events carry the label")
def _org_moved(scene: Scene) -> Expected:
    scene.cluster.patch(
        "acme", {"metadata": {"labels": {ORG_LABEL: "2"}}, "spec": {"packages": ["mail", "threema", "calendar"]}}
    )
    return [Said("org_moved", "acme"), _enabled(scene, "acme", "calendar", "2")]


# what should not be there


@_case("skill events of a tenant that has neither resource nor row are reported")
def _events_without_tenant(scene: Scene) -> Expected:
    scene.portal_skill("ghost", "mail", "enabled")
    return [Said("events_without_tenant", "ghost")]


@_case("suspension events of a tenant that has neither resource nor row are reported")
def _suspension_without_tenant(scene: Scene) -> Expected:
    scene.portal_suspension("ghost", "resumed")
    return [Said("events_without_tenant", "ghost")]


@_case("a skill whose latest event lies after now is left alone and the tenant's others are corrected")
def _event_after_now(scene: Scene) -> Expected:
    scene.portal_skill("acme", "threema", "disabled", FAR)
    scene.cluster.patch("acme", {"spec": {"packages": ["mail", "threema", "voice"]}})
    return [Said("event_time_invalid", "acme", "threema"), _enabled(scene, "acme", "voice")]


@_case("a skill whose latest event is infinitely late is left alone")
def _event_at_infinity(scene: Scene) -> Expected:
    scene.portal_skill("acme", "calendar", "enabled", "infinity")
    return [Said("event_time_invalid", "acme", "calendar")]


@_case("a skill whose only event is infinitely early is left alone")
def _event_before_all(scene: Scene) -> Expected:
    scene.portal_skill("acme", "calendar", "enabled", "-infinity")
    return [Said("event_time_invalid", "acme", "calendar")]


@_case("a suspension whose latest event lies after now is left alone")
def _suspension_after_now(scene: Scene) -> Expected:
    scene.portal_suspension("acme", "suspended", FAR)
    return [Said("event_time_invalid", "acme")]


@_case("a skill of a deleted tenant whose latest event lies after now is left alone and the deletion is stamped")
def _deleted_with_an_event_after_now(scene: Scene) -> Expected:
    scene.portal_skill("lingering", "voice", "enabled", FAR)
    scene.cluster.delete("lingering")
    at = scene.deleting_at("lingering")
    return [
        Said("event_time_invalid", "lingering", "voice"),
        *_ended(scene, "lingering", at, skills=("mail",)),
    ]


@_case("lost writes of several tenants are corrected beside each other")
def _several(scene: Scene) -> Expected:
    lifetimes.suspended_by_spec(scene.cluster, "acme")
    lifetimes.resumed_by_spec(scene.cluster, "paused")
    scene.cluster.patch("plain", {"spec": {"packages": ["voice"]}})
    scene.portal_skill("ghost", "mail", "enabled")
    return [
        _changed(scene, "suspension_unrecorded", "acme", None, "1", "suspend", late=False),
        _changed(scene, "resumption_unrecorded", "paused", None, "1", "suspend", late=True),
        _enabled(scene, "plain", "voice"),
        Said("events_without_tenant", "ghost"),
    ]


@pytest.mark.parametrize("lost", _CASES)
def test_truth_table(scene: Scene, lost: Callable[[Scene], Expected]) -> None:
    """Exactly what was lost is written, and the run after it finds nothing new."""
    _settled(scene)
    expected = lost(scene)
    corrections = [one for one in expected if isinstance(one, Wrote)]
    reports = [one for one in expected if isinstance(one, Said)]
    before, began = billing_rows(scene.url), _database_time(scene)
    highest = _highest_ids(scene)
    already = scene.write("SELECT count(*) FROM reconciler.corrections")[0][0]

    outcome = scene.run()

    assert sorted(_essence(one) for one in outcome.findings if one.action.writes) == sorted(
        (one.reason, one.tenant, one.subject or "", one.org, one.action, one.recorded, one.observed)
        for one in corrections
    )
    assert sorted((one.reason, one.tenant, one.subject or "") for one in outcome.findings if not one.action.writes) == (
        sorted((one.reason, one.tenant, one.subject or "") for one in reports)
    )
    assert {one.action for one in outcome.findings if not one.action.writes} <= {"report"}
    _check_moments(outcome, corrections, began)
    assert billing_rows(scene.url) == _with(before, outcome)
    _check_corrections(scene, outcome, corrections, highest, already)
    result = Result.CORRECTED if corrections else Result.DRIFT if reports else Result.CLEAN
    assert outcome.result is result
    assert _runs_of(scene)[-1] == _run_row(outcome, scene)

    settled = all_rows(scene.url, PUBLIC)
    again = scene.run()

    assert all_rows(scene.url, PUBLIC) == settled
    assert counts(again) == NOTHING
    assert sorted((one.reason, one.tenant, one.subject or "") for one in again.findings) == (
        sorted((one.reason, one.tenant, one.subject or "") for one in reports)
    )
    assert again.result is (Result.DRIFT if reports else Result.CLEAN)
    ((written,),) = scene.write("SELECT count(*) FROM reconciler.corrections")
    assert written == already + len(corrections)


def test_a_tenant_created_during_the_last_run_is_billed_from_creation(scene: Scene) -> None:
    """Kubernetes cuts creationTimestamp to the second, which may be before a run of the same second."""
    scene.run()
    scene.cluster.create(tenant("acme", ["mail"], org="1"))
    # whichever second it is by now: the run before looked later in the same one
    scene.write("UPDATE reconciler.runs SET observed_at = %s", scene.created_at("acme") + timedelta(milliseconds=400))

    scene.run()

    created_at = scene.created_at("acme")
    found = billing_rows(scene.url)
    assert found.lifecycles == [("acme", "1", created_at, None)]
    assert found.skills == [("acme", "1", "mail", "enabled", created_at)]


def test_a_tenant_that_is_reopened_and_deleted_again_is_stamped_again(scene: Scene) -> None:
    """What identifies a correction tells the second deletion of a tenant from its first."""
    _settled(scene)
    scene.cluster.delete("acme")
    scene.run()
    scene.cluster.tick()
    scene.cluster.create(tenant("acme", ["mail"], org="1"))
    sleep(1)  # it is created in this second, and reopened after that
    scene.write(
        "INSERT INTO reconciler.closed_lives (tenant_name, zitadel_org_id, created_at, deleted_at, reopened_by, note) "
        "SELECT tenant_name, zitadel_org_id, created_at, deleted_at, 'elena', 'n' FROM tenant_billing_lifecycle "
        "WHERE tenant_name = 'acme'"
    )
    scene.write(
        "UPDATE tenant_billing_lifecycle SET deleted_at = NULL, created_at = %s WHERE tenant_name = 'acme'",
        scene.created_at("acme"),
    )
    scene.run()
    scene.cluster.delete("acme")

    outcome = scene.run()

    assert [(one.reason, one.action) for one in outcome.findings] == [
        ("deletion_unrecorded", "stamp"),
        ("skill_open_after_deletion", "append"),
    ]
    assert counts(scene.run()) == NOTHING


def test_rechecked_drift_had_happened_by_the_first_look(scene: Scene) -> None:
    """The first look saw it already: by then it had happened."""
    lifetimes.settle(scene.cluster, [lifetimes.Member(sent=tenant("acme", ["mail"], org="1"))])
    scene.run()
    scene.an_hour_passes()
    sleep(1)  # a lifetime lasts that long at least
    scene.cluster.delete("acme")
    scene.cluster.create(tenant("other", org="1"))

    outcome = scene.run(uncertain=FallbackDating.DETECTED)

    assert scene.slept == [SETTLE.total_seconds()]
    assert outcome.findings[0].reason == "deletion_unrecorded"
    (not_after,) = {one.moment.not_after for one in outcome.findings if one.moment and one.tenant == "acme"}
    assert outcome.observed_at
    assert scene.slept_at
    assert outcome.observed_at <= not_after <= scene.slept_at


def test_a_controller_that_writes_another_field_delays_no_correction(scene: Scene) -> None:
    """It moves the generation between the looks, and nothing that is billed."""
    _settled(scene)
    scene.cluster.patch("acme", {"spec": {"packages": ["mail", "threema", "voice"]}})
    scene.on_sleep = lambda: scene.cluster.patch("acme", {"spec": {"displayName": "Acme"}}, manager="branding")

    outcome = scene.run()

    assert scene.slept == [SETTLE.total_seconds()]
    assert [(one.tenant, one.subject, one.action) for one in outcome.findings] == [("acme", "voice", "append")]


def test_a_tenant_that_keeps_changing_is_restless_after_an_hour(scene: Scene) -> None:
    _settled(scene)
    scene.on_sleep = lambda: scene.cluster.patch("plain", {"spec": {"suspend": False}}, manager="other")
    for _ in range(3):
        scene.write("UPDATE reconciler.runs SET observed_at = observed_at - '28 min'::interval")
        scene.cluster.patch("plain", {"spec": {"suspend": True}}, manager="one")
        scene.run()

    deferred = ("plain", "suspension_unrecorded", "defer")
    assert [[(one.tenant, one.reason, one.action) for one in ran.findings] for ran in scene.outcomes[1:]] == [
        [deferred],
        [deferred],
        [deferred, ("plain", "tenant_restless", "report")],
    ]


@pytest.mark.parametrize("uncertain", FallbackDating)
def test_without_evidence_the_setting_decides(scene: Scene, uncertain: FallbackDating) -> None:
    _settled(scene)
    scene.cluster.delete("acme")
    lifetimes.suspension_seen(scene.cluster, "plain")
    scene.run()
    scene.an_hour_passes()
    sleep(1)  # a lifetime lasts that long at least
    lifetimes.resumption_seen(scene.cluster, "plain")
    scene.cluster.delete("paused")

    outcome = scene.run(uncertain=uncertain)

    moments = {one.reason: one.moment for one in outcome.findings if one.moment}
    chosen = {reason: moment.occurred_at == moment.not_after for reason, moment in moments.items()}
    assert {moment.evidence for moment in moments.values()} == {"none"}
    assert chosen == {
        "deletion_unrecorded": uncertain is FallbackDating.DETECTED,
        "skill_open_after_deletion": uncertain is FallbackDating.DETECTED,
        "resumption_unrecorded": True,
    }


def _settled(scene: Scene) -> None:
    """Four tenants that the ledger is true to, and an hour in which nothing happens."""
    settle(
        scene.cluster,
        [
            lifetimes.Member(sent=tenant("acme", ["mail", "threema"], org="1")),
            lifetimes.Member(sent=tenant("lingering", ["mail", "voice"], org="1", finalizers=[FINALIZER])),
            lifetimes.Member(
                sent=tenant("paused", ["mail"], org="1", suspend=True), steps=(lifetimes.suspension_seen,)
            ),
            lifetimes.Member(sent=tenant("plain", org="1")),
        ],
    )
    outcome = scene.run()
    assert (outcome.result, counts(outcome)["events_inserted"]) == (Result.CORRECTED, 5)
    scene.an_hour_passes()


def _essence(finding: Any) -> tuple[Any, ...]:
    return (
        finding.reason,
        finding.tenant,
        finding.subject or "",
        finding.org,
        finding.action,
        finding.recorded,
        finding.observed,
    )


def _corrections(outcome: Outcome) -> list[Any]:
    return [finding for finding in outcome.findings if finding.action.writes]


def _reports(outcome: Outcome) -> set[tuple[str, str | None]]:
    return {(finding.tenant, str(finding.reason)) for finding in outcome.findings if finding.action == "report"}


def _database_time(scene: Scene) -> datetime:
    ((at,),) = scene.write("SELECT clock_timestamp()")
    assert isinstance(at, datetime)
    return at.astimezone(UTC)


def _check_moments(outcome: Outcome, corrections: list[Wrote], began: datetime) -> None:
    """Every correction has the moment, the interval and the evidence that follow from what happened."""
    found = {(str(one.reason), one.tenant, one.subject): one for one in outcome.findings}
    for expected in corrections:
        moment = found[expected.reason, expected.tenant, expected.subject].moment
        if expected.action == "update":
            assert moment is None
            continue
        assert moment is not None
        assert moment.not_before <= moment.occurred_at <= moment.not_after
        assert (moment.evidence, moment.not_before) == (expected.evidence, expected.not_before)
        if expected.at is None:
            assert moment.occurred_at == moment.not_after
        else:
            assert moment.occurred_at == expected.at
        if expected.evidence == "none":
            # an event of a deleted tenant came before its deletion
            assert moment.not_after <= datetime.now(UTC)
            assert expected.at is not None or began <= moment.not_after
        elif expected.evidence in {"deletion", "field_manager"}:
            assert moment.not_after == moment.occurred_at


def _with(before: BillingRows, outcome: Outcome) -> BillingRows:
    """Return what the books must hold after exactly these corrections."""
    lifecycles = {row[0]: row for row in before.lifecycles}
    skills, suspensions = list(before.skills), list(before.suspensions)
    for one in _corrections(outcome):
        at = one.moment and one.moment.occurred_at
        if one.action == "insert":
            lifecycles[one.tenant] = (one.tenant, one.org, at, None)
        elif one.action == "stamp":
            lifecycles[one.tenant] = (*lifecycles[one.tenant][:3], at)
        elif one.action == "update":
            name, _, created_at, deleted_at = lifecycles[one.tenant]
            lifecycles[one.tenant] = (name, one.org, created_at, deleted_at)
        elif one.subject is None:
            suspensions.append((one.tenant, one.org, "resumed" if one.observed == "running" else "suspended", at))
        else:
            skills.append((one.tenant, one.org, one.subject, one.observed, at))
    return BillingRows(sorted(lifecycles.values(), key=lambda row: row[0]), sorted(skills), sorted(suspensions))


def _highest_ids(scene: Scene) -> dict[str, int]:
    return {
        table: scene.write(f"SELECT coalesce(max(id), 0) FROM {table}")[0][0]  # noqa: S608 - of two tables
        for table in ("tenant_skill_events", "tenant_suspension_events")
    }


def _check_corrections(
    scene: Scene, outcome: Outcome, corrections: list[Wrote], highest: dict[str, int], already: int
) -> None:
    """Each correction is kept with the event that it wrote and the one that it superseded."""
    kept = scene.write(
        "SELECT reason, tenant_name, subject, zitadel_org_id, action, recorded, observed, evidence, occurred_at, "
        "not_before, not_after, event_table, event_id, supersedes_event_id, closed_period "
        "FROM reconciler.corrections WHERE run_id = %s",
        outcome.run_id,
    )
    found = {(one.reason, one.tenant, one.subject): one for one in outcome.findings}
    expected_of = {(one.reason, one.tenant, one.subject): one for one in corrections}
    assert len(kept) == len(corrections)
    assert already >= 0
    for row in kept:
        finding, expected = found[row[:3]], expected_of[row[:3]]
        moment = finding.moment or (None, None, None, None)
        assert row[3:7] == (expected.org, expected.action, expected.recorded, expected.observed)
        assert (row[8], row[9], row[10], row[7]) == tuple(moment)
        table, event_id = row[11], row[12]
        if expected.reason == "skill_open_after_deletion" and expected.supersedes is None:
            (superseded,) = (one[12] for one in kept if one[:3] == ("skill_enable_unrecorded", *row[1:3]))
            assert row[13] == superseded
        else:
            assert row[13] == expected.supersedes
        assert row[14] is False
        if expected.action != "append":
            assert (table, event_id) == ("tenant_billing_lifecycle", None)
            continue
        assert table == ("tenant_suspension_events" if expected.subject is None else "tenant_skill_events")
        assert event_id > highest[table]
        written = scene.write(
            f"SELECT tenant_name, zitadel_org_id, event_kind, occurred_at FROM {table} WHERE id = %s",  # noqa: S608
            event_id,
        )
        kind = "resumed" if expected.observed == "running" else expected.observed
        assert written == [(expected.tenant, expected.org, kind, moment[0])]


def _runs_of(scene: Scene) -> list[dict[str, Any]]:
    columns = (
        "id, mode, outcome, version, source, tenants_observed, tenants_recorded, counts, unverified, error, "
        "finished_at >= started_at AS ended, resource_version ~ '^[0-9]+$' AS numbered"
    )
    rows = scene.write(f"SELECT {columns} FROM reconciler.runs ORDER BY finished_at")  # noqa: S608 - the columns above
    names = [column.rpartition(" ")[2] for column in columns.replace("'^[0-9]+$'", "x").split(", ")]
    return [dict(zip(names, row, strict=True)) for row in rows]


def _run_row(outcome: Outcome, scene: Scene) -> dict[str, Any]:
    """Return what the row of a run must say."""
    found: dict[str, dict[str, int]] = {}
    for (reason, action), count in Counter((str(one.reason), str(one.action)) for one in outcome.findings).items():
        found.setdefault(reason, {})[action] = count
    return {
        "id": outcome.run_id,
        "mode": "run",
        "outcome": outcome.result,
        "version": __version__,
        "source": scene.cluster.source_uid(),
        "tenants_observed": outcome.tenants_observed,
        "tenants_recorded": outcome.tenants_recorded,
        "counts": json.loads(json.dumps(found)),
        "unverified": sorted({one.tenant for one in outcome.findings if not one.action.writes}),
        "error": None,
        "ended": True,
        "numbered": True,
    }
