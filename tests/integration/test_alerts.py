"""Who is told of what: of every drift once, of what stays once a day, of what is known and clean never."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest
import structlog
from structlog.testing import capture_logs

from reconciler import alerts
from reconciler.alerts import Alerts, Undelivered, news
from reconciler.alerts.log import MOST, Log
from reconciler.core.errors import Failure
from reconciler.core.model import LAST, Action, Finding, Mode, Outcome, Report, Result, Total
from reconciler.core.reasons import Reason
from tests.support.faults import Fault, anything, status
from tests.support.world import tenant

if TYPE_CHECKING:
    from structlog.typing import EventDict

    from tests.support.scene import World

HOUR = timedelta(hours=1)


def of_this_thread(_logger: object, _method: str, line: EventDict) -> EventDict:
    """Drop what a request logs that an earlier test has left behind, and that retries still."""
    if threading.current_thread() is not threading.main_thread():
        raise structlog.DropEvent
    return line


@dataclass
class Receiver:
    """A sink that keeps what it is told, or does something else instead."""

    name: str = "receiver"
    deduplicates: bool = False
    fails: Exception | None = None
    hangs: float = 0.0
    told: list[Outcome] = field(default_factory=list)
    begun: list[UUID] = field(default_factory=list)

    def tell(self, outcome: Outcome) -> None:
        time.sleep(self.hangs)
        if self.fails:
            raise self.fails
        self.told.append(outcome)

    def begin(self, run_id: UUID) -> None:
        time.sleep(self.hangs)
        if self.fails:
            raise self.fails
        self.begun.append(run_id)

    @property
    def heard(self) -> list[list[tuple[str, str]]]:
        """Tenant and reason of what each message was about."""
        return [[(finding.tenant, finding.reason) for finding in outcome.findings] for outcome in self.told]


def finding(action: Action, reason: Reason = Reason.ORG_UNLABELLED, tenant: str = "acme") -> Finding:
    return Finding(reason=reason, tenant=tenant, org="2871", action=action)


def outcome(*findings: Finding, result: Result = Result.DRIFT, failure: Failure | None = None) -> Outcome:
    return Outcome(run_id=uuid4(), mode=Mode.RUN, result=result, findings=findings, failure=failure)


CORRECTED = finding(Action.APPEND, Reason.SKILL_ENABLE_UNRECORDED)
REPORTED = finding(Action.REPORT)
KNOWN = frozenset({Report("acme", "org_unlabelled")})


def test_a_correction_is_news_and_so_is_a_report() -> None:
    told = outcome(CORRECTED, REPORTED)
    assert news(told, "receiver") == told


def test_a_clean_pass_is_no_news() -> None:
    assert news(outcome(result=Result.CLEAN), "receiver") is None


def test_what_is_deferred_or_accepted_is_no_news() -> None:
    accepted = REPORTED._replace(accepted_until=LAST)
    assert news(outcome(finding(Action.DEFER), accepted), "receiver") is None


def test_a_report_that_was_told_is_no_news_to_whom_it_was_told() -> None:
    told = replace(outcome(CORRECTED, REPORTED), told={"receiver": KNOWN})
    assert news(told, "receiver") == replace(told, findings=(CORRECTED,))
    assert news(told, "another") == told


def test_a_pass_that_was_stopped_is_news_until_it_was_told() -> None:
    stopped = outcome(CORRECTED, result=Result.BLOCKED, failure=Failure("too much"))
    assert news(stopped, "receiver") == replace(stopped, findings=())
    assert news(replace(stopped, told={"receiver": frozenset({Report("", "blocked")})}), "receiver") is None


def test_who_remembers_is_given_every_outcome_whole() -> None:
    receiver = Receiver(deduplicates=True)
    clean = replace(outcome(finding(Action.DEFER), REPORTED, result=Result.CLEAN), told={"receiver": KNOWN})
    assert Alerts(sinks=(receiver,)).tell(clean) == {}
    assert receiver.told == [clean]


def test_a_sink_that_hangs_is_left_behind_and_the_others_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "TELLING", 1)
    receivers = (Receiver("slow", hangs=60), Receiver("quick"))
    began = time.monotonic()
    with capture_logs([of_this_thread]) as logged:
        told = Alerts(sinks=receivers).tell(outcome(REPORTED))
    assert time.monotonic() - began < 30
    assert told == {"quick": (Report("acme", "org_unlabelled"),)}
    assert [(line["event"], line["sink"], line["error"]) for line in logged] == [
        ("alert.undelivered", "slow", "no answer within 1 s")
    ]


def test_a_sink_that_fails_is_logged_and_counted_and_the_others_are_told() -> None:
    counted: list[str] = []
    receivers = (Receiver("gone", fails=Undelivered("nobody answers")), Receiver("there"))
    with capture_logs([of_this_thread]) as logged:
        told = Alerts(sinks=receivers, undelivered=counted.append).tell(outcome(REPORTED))
    assert set(told) == {"there"}
    assert counted == ["gone"]
    assert [(line["event"], line["error"]) for line in logged] == [("alert.undelivered", "nobody answers")]


def test_a_sink_that_crashes_changes_nothing_else() -> None:
    receivers = (Receiver("broken", fails=ZeroDivisionError()), Receiver("there"))
    with capture_logs([of_this_thread]) as logged:
        assert set(Alerts(sinks=receivers).tell(outcome(REPORTED))) == {"there"}
    assert [line["event"] for line in logged] == ["alert.crashed"]


@pytest.mark.parametrize("broken", [Receiver(fails=Undelivered("gone")), Receiver(hangs=3)], ids=["fails", "hangs"])
def test_a_pass_begins_though_nobody_can_be_told_of_it(
    world: World, monkeypatch: pytest.MonkeyPatch, broken: Receiver
) -> None:
    monkeypatch.setattr(alerts, "BEGINNING", 0.2)
    monkeypatch.setattr(alerts, "TELLING", 0.2)
    world.alerts = Alerts(heartbeat=broken)
    world.api.create(tenant("acme"), at=world.now - 2 * HOUR)
    assert world.run().result is Result.CORRECTED


def test_who_is_told_of_the_beginning_is_told_of_the_end_of_the_same_pass(world: World) -> None:
    heart = Receiver(deduplicates=True)
    world.alerts = Alerts(heartbeat=heart)
    ended = world.run()
    assert heart.begun == [ended.run_id] == [told.run_id for told in heart.told]


@pytest.fixture
def receiver(world: World) -> Receiver:
    """Who is told of a cluster with one tenant that has no label: a report in every pass."""
    world.api.create(tenant("acme", org=None), at=world.now - 2 * HOUR)
    receiver = Receiver()
    world.alerts = Alerts(sinks=(receiver,))
    return receiver


UNLABELLED = ("acme", "org_unlabelled")


def test_a_report_that_stays_is_told_once(world: World, receiver: Receiver) -> None:
    for _ in range(3):
        world.run()
    assert receiver.heard == [[("acme", "tenant_unrecorded"), UNLABELLED]]


def test_a_report_that_stays_is_told_again_after_a_day(world: World, receiver: Receiver) -> None:
    world.run()
    world.ledger.execute(
        "UPDATE reconciler.reports SET told = jsonb_build_object('receiver', now() - interval '24 hours 1 second')"
    )
    world.run()
    world.run()
    assert receiver.heard[1:] == [[UNLABELLED]]


def test_a_report_that_changes_is_told_again(world: World, receiver: Receiver) -> None:
    world.run()
    world.run()
    world.ledger.execute("UPDATE tenant_billing_lifecycle SET zitadel_org_id = 'another'")
    world.run()
    assert receiver.heard[1:] == [[UNLABELLED]]


def test_a_report_that_comes_back_is_told_again(world: World, receiver: Receiver) -> None:
    world.run()
    world.api.patch("acme", {"metadata": {"labels": {"pieced.ch/zitadel-org-id": "2871"}}}, at=world.now - HOUR)
    world.run()
    world.api.patch("acme", {"metadata": {"labels": None}}, at=world.now - HOUR)
    world.run()
    assert receiver.heard[1:] == [[("acme", "org_resolved")], [UNLABELLED]]


def test_a_report_is_kept_while_its_tenant_cannot_be_judged(world: World, receiver: Receiver) -> None:
    """A tenant that moves between the looks is deferred: when it is seen again, its report is no news."""
    world.run()
    world.api.patch("acme", {"spec": {"packages": ["mail"]}})
    world.on_sleep = lambda: world.api.patch("acme", {"spec": {"packages": ["mail", "search"]}})
    assert {finding.action for finding in world.run().findings} == {Action.DEFER}
    world.on_sleep = None
    world.run()
    assert [reason for message in receiver.heard[1:] for _, reason in message] == [Reason.SKILL_ENABLE_UNRECORDED] * 2


def test_a_report_that_is_accepted_is_shown_and_not_told_and_the_pass_is_clean(
    world: World, receiver: Receiver
) -> None:
    world.run()
    world.ledger.execute(
        "INSERT INTO reconciler.exceptions VALUES ('acme', 'org_unlabelled', 'a test', 'me', now(), now() + '1 day')"
    )
    world.ledger.execute("UPDATE reconciler.reports SET told = '{}'")
    ended = world.run()
    assert ended.result is Result.CLEAN
    assert [(f.reason, f.action, f.is_drift) for f in ended.findings] == [(Reason.ORG_UNLABELLED, Action.REPORT, False)]
    assert len(receiver.told) == 1


def test_an_exception_that_has_expired_accepts_nothing(world: World, receiver: Receiver) -> None:
    world.ledger.execute(
        "INSERT INTO reconciler.exceptions VALUES ('acme', 'org_unlabelled', 'a test', 'me', now(), now())"
    )
    world.run()
    assert UNLABELLED in receiver.heard[0]


def test_a_report_that_could_not_be_delivered_is_told_by_the_next_pass(world: World, receiver: Receiver) -> None:
    receiver.fails = Undelivered("gone for a while")
    world.run()
    receiver.fails = None
    world.run()
    world.run()
    assert receiver.heard == [[UNLABELLED]]


def test_each_sink_is_remembered_alone(world: World, receiver: Receiver) -> None:
    """One that is down for good does not make the others repeat themselves."""
    world.alerts = Alerts(sinks=(receiver, Receiver("down", fails=Undelivered("for good"))))
    for _ in range(3):
        world.run()
    assert len(receiver.told) == 1


def test_passes_that_keep_failing_are_told_of_once_until_one_succeeds(world: World, receiver: Receiver) -> None:
    world.run()
    for _ in range(2):
        broken = Fault(status(403), when=anything, times=None)
        world.api.faults.append(broken)
        assert [world.run().result, world.run().result] == [Result.FAILED, Result.FAILED]
        world.api.faults.remove(broken)
        assert world.run().failure is None
    assert [told.failure is not None for told in receiver.told] == [False, True, True]


def test_a_failure_of_another_kind_is_told_too(world: World, receiver: Receiver) -> None:
    world.api.faults.append(Fault(status(403), when=anything, times=1))
    world.run()
    world.api.faults.append(Fault(status(404), when=anything, times=1))
    world.run()
    assert len(receiver.told) == 2


def test_a_pass_that_fails_says_nothing_of_the_reports_before(world: World, receiver: Receiver) -> None:
    world.run()
    world.api.faults.append(Fault(status(403), when=anything, times=1))
    world.run()
    world.run()
    assert [told.failure is not None for told in receiver.told] == [False, True]


def test_of_a_plan_nobody_is_told(world: World, receiver: Receiver) -> None:
    assert world.run(Mode.PLAN).findings
    assert receiver.told == []


def test_what_cannot_be_remembered_changes_no_outcome(world: World, receiver: Receiver) -> None:
    """The database goes away while people are told."""
    world.ledger.execute("CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END'")
    world.ledger.execute(
        "CREATE TRIGGER no BEFORE UPDATE OF told ON reconciler.reports FOR EACH ROW EXECUTE FUNCTION fail()"
    )
    with capture_logs([of_this_thread]) as logged:
        assert world.run().result is Result.CORRECTED
    assert "alerts.forgotten" in [line["event"] for line in logged]
    assert len(receiver.told) == 1


def test_what_was_ever_corrected_is_counted_over_passes(world: World) -> None:
    world.api.create(tenant("acme", ["mail"]), at=world.now - 2 * HOUR)
    first = world.run()
    world.api.create(tenant("beta", ["mail"]), at=world.now - 2 * HOUR)
    second = world.run()
    none = Decimal("0.00")
    assert first.totals[Reason.TENANT_UNRECORDED] == Total(1, none, none)
    assert second.totals[Reason.TENANT_UNRECORDED] == Total(2, none, none)
    assert second.totals == world.run().totals


def test_a_pass_over_the_cluster_says_up_to_when_the_ledger_is_proved(world: World) -> None:
    ended = world.run()
    assert ended.observed_at is not None
    assert ended.verified_until == ended.observed_at - timedelta(seconds=60)


def test_the_resources_that_findings_are_about_go_along(world: World) -> None:
    world.api.create(tenant("acme"), at=world.now - 2 * HOUR)
    ended = world.run()
    assert ended.observed["acme"].uid == world.api.get("acme")["metadata"]["uid"]  # type: ignore[index]


def test_the_log_has_a_line_a_finding_up_to_a_bound_and_then_their_number() -> None:
    findings = [finding(Action.REPORT, tenant=f"tenant-{number}") for number in range(MOST + 7)]
    with capture_logs([of_this_thread]) as logged:
        Log().tell(outcome(*findings))
    assert [line["event"] for line in logged] == ["drift.reported"] * MOST + ["drift.more"]
    assert logged[-1]["findings"] == 7


def test_the_log_is_silent_for_clean_and_deferred() -> None:
    with capture_logs([of_this_thread]) as logged:
        Log().tell(outcome(finding(Action.DEFER), result=Result.CLEAN))
    assert logged == []
