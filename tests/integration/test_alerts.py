"""What each sink is notified of: every correction once, an open report once a day, clean runs never."""

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
from reconciler.alerts import Alerts, Undelivered, unseen
from reconciler.alerts.log import MAX_LINES, Log
from reconciler.core.errors import Failure, Unforeseen
from reconciler.core.model import LAST, Action, Finding, Mode, Outcome, Report, Result, Total
from reconciler.core.reasons import Reason
from tests.support.api_state import tenant
from tests.support.faults import Fault, anything, status

if TYPE_CHECKING:
    from structlog.typing import EventDict

    from tests.support.system import System

HOUR = timedelta(hours=1)


def of_this_thread(_logger: object, _method: str, line: EventDict) -> EventDict:
    """Drop the log lines of a request that an earlier test left behind and that still retries."""
    if threading.current_thread() is not threading.main_thread():
        raise structlog.DropEvent
    return line


@dataclass
class FakeSink:
    """A sink that keeps what it is notified of, fails or hangs."""

    name: str = "receiver"
    deduplicates: bool = False
    fails: Exception | None = None
    hangs: float = 0.0
    outcomes: list[Outcome] = field(default_factory=list)
    started: list[UUID] = field(default_factory=list)

    def notify(self, outcome: Outcome) -> None:
        time.sleep(self.hangs)
        if self.fails:
            raise self.fails
        self.outcomes.append(outcome)

    def begin(self, run_id: UUID) -> None:
        time.sleep(self.hangs)
        if self.fails:
            raise self.fails
        self.started.append(run_id)

    @property
    def messages(self) -> list[list[tuple[str, str]]]:
        """Return tenant and reason of the findings in each message."""
        return [[(finding.tenant, finding.reason) for finding in outcome.findings] for outcome in self.outcomes]


def make_finding(action: Action, reason: Reason = Reason.ORG_UNLABELLED, tenant: str = "acme") -> Finding:
    return Finding(reason=reason, tenant=tenant, org="2871", action=action)


def make_outcome(*findings: Finding, result: Result = Result.DRIFT, failure: Failure | None = None) -> Outcome:
    return Outcome(run_id=uuid4(), mode=Mode.RUN, result=result, findings=findings, failure=failure)


CORRECTED = make_finding(Action.APPEND, Reason.SKILL_ENABLE_UNRECORDED)
REPORTED = make_finding(Action.REPORT)
SEEN = frozenset({Report("acme", "org_unlabelled")})


def test_corrections_and_new_reports_are_unseen() -> None:
    outcome = make_outcome(CORRECTED, REPORTED)
    assert unseen(outcome, "receiver") == outcome


def test_a_clean_run_has_nothing_unseen() -> None:
    assert unseen(make_outcome(result=Result.CLEAN), "receiver") is None


def test_deferred_and_accepted_findings_are_never_unseen() -> None:
    accepted = REPORTED._replace(accepted_until=LAST)
    assert unseen(make_outcome(make_finding(Action.DEFER), accepted), "receiver") is None


def test_a_report_is_seen_only_by_the_sink_that_was_notified() -> None:
    outcome = replace(make_outcome(CORRECTED, REPORTED), notified={"receiver": SEEN})
    assert unseen(outcome, "receiver") == replace(outcome, findings=(CORRECTED,))
    assert unseen(outcome, "another") == outcome


def test_a_stopped_run_is_unseen_until_the_sink_was_notified() -> None:
    stopped = make_outcome(CORRECTED, result=Result.BLOCKED, failure=Failure("too much"))
    assert unseen(stopped, "receiver") == replace(stopped, findings=())
    assert unseen(replace(stopped, notified={"receiver": frozenset({Report("", "blocked")})}), "receiver") is None


def test_a_sink_that_deduplicates_gets_every_outcome_whole() -> None:
    sink = FakeSink(deduplicates=True)
    clean = replace(
        make_outcome(make_finding(Action.DEFER), REPORTED, result=Result.CLEAN), notified={"receiver": SEEN}
    )
    assert Alerts(sinks=(sink,)).notify(clean) == {"receiver": ()}
    assert sink.outcomes == [clean]


def test_a_hanging_sink_does_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "NOTIFY_SECONDS", 1)
    sinks = (FakeSink("slow", hangs=60), FakeSink("quick"))
    began = time.monotonic()
    with capture_logs([of_this_thread]) as logged:
        notified = Alerts(sinks=sinks).notify(make_outcome(REPORTED))
    assert time.monotonic() - began < 30
    assert notified == {"quick": (Report("acme", "org_unlabelled"),)}
    assert [(line["event"], line["sink"], line["error"]) for line in logged] == [
        ("alert.undelivered", "slow", "no answer within 1 s")
    ]


def test_a_failing_sink_is_logged_and_counted_and_stops_no_other() -> None:
    counted: list[str] = []
    sinks = (FakeSink("gone", fails=Undelivered("nobody answers")), FakeSink("there"))
    with capture_logs([of_this_thread]) as logged:
        notified = Alerts(sinks=sinks, undelivered=counted.append).notify(make_outcome(REPORTED))
    assert set(notified) == {"there"}
    assert counted == ["gone"]
    assert [(line["event"], line["error"]) for line in logged] == [("alert.undelivered", "nobody answers")]


def test_a_crashing_sink_changes_nothing_else() -> None:
    sinks = (FakeSink("broken", fails=ZeroDivisionError()), FakeSink("there"))
    with capture_logs([of_this_thread]) as logged:
        assert set(Alerts(sinks=sinks).notify(make_outcome(REPORTED))) == {"there"}
    assert [line["event"] for line in logged] == ["alert.crashed"]


@pytest.mark.parametrize("broken", [FakeSink(fails=Undelivered("gone")), FakeSink(hangs=3)], ids=["fails", "hangs"])
def test_a_run_begins_even_if_the_heartbeat_is_broken(
    system: System, monkeypatch: pytest.MonkeyPatch, broken: FakeSink
) -> None:
    monkeypatch.setattr(alerts, "BEGIN_SECONDS", 0.2)
    monkeypatch.setattr(alerts, "NOTIFY_SECONDS", 0.2)
    system.alerts = Alerts(heartbeat=broken)
    system.api.create(tenant("acme"), at=system.now - 2 * HOUR)
    assert system.run().result is Result.CORRECTED


@pytest.mark.parametrize(
    "where", ["reconciler.run.find_dated", "reconciler.db.runs.record", "reconciler.run.runs.start"]
)
def test_a_crashed_run_notifies_its_sinks_and_the_heartbeat(
    system: System, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def crash(*_: object) -> None:
        raise RuntimeError("quoted")

    monkeypatch.setattr(where, crash)
    receiver, heartbeat = FakeSink(), FakeSink(deduplicates=True)
    system.alerts = Alerts(sinks=(receiver,), heartbeat=heartbeat)
    system.api.create(tenant("acme"), at=system.now - 2 * HOUR)
    outcome = system.run()
    assert isinstance(outcome.failure, Unforeseen)
    assert "quoted" not in str(outcome.failure)
    assert receiver.outcomes[0].failure is heartbeat.outcomes[0].failure is outcome.failure
    assert heartbeat.started == [outcome.run_id]
    rows = system.ledger.execute("SELECT outcome, error FROM reconciler.runs").fetchall()
    assert rows == ([] if outcome.observed_at is None else [("failed", str(outcome.failure))])


def test_the_heartbeat_gets_start_and_end_of_the_same_run(system: System) -> None:
    heartbeat = FakeSink(deduplicates=True)
    system.alerts = Alerts(heartbeat=heartbeat)
    ended = system.run()
    assert heartbeat.started == [ended.run_id] == [outcome.run_id for outcome in heartbeat.outcomes]


@pytest.fixture
def sink(system: System) -> FakeSink:
    """Return a sink, on a cluster with one tenant without a label: a report in every run."""
    system.api.create(tenant("acme", org=None), at=system.now - 2 * HOUR)
    sink = FakeSink()
    system.alerts = Alerts(sinks=(sink,))
    return sink


UNLABELLED = ("acme", "org_unlabelled")


def test_an_open_report_is_sent_once(system: System, sink: FakeSink) -> None:
    for _ in range(3):
        system.run()
    assert sink.messages == [[("acme", "tenant_unrecorded"), UNLABELLED]]


def test_an_open_report_is_sent_again_after_a_day(system: System, sink: FakeSink) -> None:
    system.run()
    system.ledger.execute(
        "UPDATE reconciler.reports SET told = jsonb_build_object('receiver', now() - interval '24 hours 1 second')"
    )
    system.run()
    system.run()
    assert sink.messages[1:] == [[UNLABELLED]]


def test_a_report_that_changes_is_sent_again(system: System, sink: FakeSink) -> None:
    system.run()
    system.run()
    system.ledger.execute("UPDATE tenant_billing_lifecycle SET zitadel_org_id = 'another'")
    system.run()
    assert sink.messages[1:] == [[UNLABELLED]]


def test_a_report_that_comes_back_is_sent_again(system: System, sink: FakeSink) -> None:
    system.run()
    system.api.patch("acme", {"metadata": {"labels": {"pieced.ch/zitadel-org-id": "2871"}}}, at=system.now - HOUR)
    system.run()
    system.api.patch("acme", {"metadata": {"labels": None}}, at=system.now - HOUR)
    system.run()
    assert sink.messages[1:] == [[("acme", "org_resolved")], [UNLABELLED]]


@pytest.mark.usefixtures("lost_log")
def test_a_report_is_remembered_while_its_tenant_is_deferred(system: System, sink: FakeSink) -> None:
    """A tenant that changes before its recheck is deferred; its report has been seen when it comes back."""
    system.run()
    system.api.patch("acme", {"spec": {"packages": ["mail"]}})
    system.on_sleep = lambda: system.api.patch("acme", {"spec": {"packages": ["mail", "search"]}})
    assert {finding.action for finding in system.run().findings} == {Action.DEFER}
    system.on_sleep = None
    system.run()
    assert [reason for message in sink.messages[1:] for _, reason in message] == [Reason.SKILL_ENABLE_UNRECORDED] * 2


def test_an_accepted_report_is_listed_but_not_sent(system: System, sink: FakeSink) -> None:
    system.run()
    system.ledger.execute(
        "INSERT INTO reconciler.exceptions VALUES ('acme', 'org_unlabelled', 'a test', 'me', now(), now() + '1 day')"
    )
    system.ledger.execute("UPDATE reconciler.reports SET told = '{}'")
    ended = system.run()
    assert ended.result is Result.CLEAN
    assert [(f.reason, f.action, f.is_drift) for f in ended.findings] == [(Reason.ORG_UNLABELLED, Action.REPORT, False)]
    assert len(sink.outcomes) == 1


def test_an_expired_exception_accepts_nothing(system: System, sink: FakeSink) -> None:
    system.ledger.execute(
        "INSERT INTO reconciler.exceptions VALUES ('acme', 'org_unlabelled', 'a test', 'me', now(), now())"
    )
    system.run()
    assert UNLABELLED in sink.messages[0]


def test_an_undelivered_report_is_sent_by_the_next_run(system: System, sink: FakeSink) -> None:
    sink.fails = Undelivered("gone for a while")
    system.run()
    sink.fails = None
    system.run()
    system.run()
    assert sink.messages == [[UNLABELLED]]


def test_what_each_sink_has_seen_is_remembered_separately(system: System, sink: FakeSink) -> None:
    """A sink that is down for good does not make the others repeat themselves."""
    system.alerts = Alerts(sinks=(sink, FakeSink("down", fails=Undelivered("for good"))))
    for _ in range(3):
        system.run()
    assert len(sink.outcomes) == 1


def test_repeated_failures_are_sent_once_until_a_run_succeeds(system: System, sink: FakeSink) -> None:
    system.run()
    for _ in range(2):
        broken = Fault(status(403), when=anything, times=None)
        system.api.faults.append(broken)
        assert [system.run().result, system.run().result] == [Result.FAILED, Result.FAILED]
        system.api.faults.remove(broken)
        assert system.run().failure is None
    assert [outcome.failure is not None for outcome in sink.outcomes] == [False, True, True]


def test_a_failure_of_another_kind_is_sent_too(system: System, sink: FakeSink) -> None:
    system.api.faults.append(Fault(status(403), when=anything, times=1))
    system.run()
    system.api.faults.append(Fault(status(404), when=anything, times=1))
    system.run()
    assert len(sink.outcomes) == 2


def test_a_failed_run_does_not_forget_earlier_reports(system: System, sink: FakeSink) -> None:
    system.run()
    system.api.faults.append(Fault(status(403), when=anything, times=1))
    system.run()
    system.run()
    assert [outcome.failure is not None for outcome in sink.outcomes] == [False, True]


def test_a_plan_notifies_nobody(system: System, sink: FakeSink) -> None:
    assert system.run(Mode.PLAN).findings
    assert sink.outcomes == []


def test_failing_to_remember_a_notification_changes_no_outcome(system: System, sink: FakeSink) -> None:
    """The ledger refuses the write after the sinks were notified."""
    system.ledger.execute("CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END'")
    system.ledger.execute(
        "CREATE TRIGGER no BEFORE UPDATE OF told ON reconciler.reports FOR EACH ROW EXECUTE FUNCTION fail()"
    )
    with capture_logs([of_this_thread]) as logged:
        assert system.run().result is Result.CORRECTED
    assert "alerts.unrecorded" in [line["event"] for line in logged]
    assert len(sink.outcomes) == 1


def test_totals_count_the_corrections_of_all_runs(system: System) -> None:
    system.api.create(tenant("acme", ["mail"]), at=system.now - 2 * HOUR)
    first = system.run()
    system.api.create(tenant("beta", ["mail"]), at=system.now - 2 * HOUR)
    second = system.run()
    none = Decimal("0.00")
    assert first.totals[Reason.TENANT_UNRECORDED] == Total(1, none, none)
    assert second.totals[Reason.TENANT_UNRECORDED] == Total(2, none, none, from_log=1)
    assert second.totals == system.run().totals


def test_a_run_over_a_cluster_verifies_the_ledger_until_settle_ago(system: System) -> None:
    ended = system.run()
    assert ended.observed_at is not None
    assert ended.verified_until == ended.observed_at - timedelta(seconds=60)


def test_a_run_keeps_the_settle_that_it_used(system: System) -> None:
    system.run()
    assert system.ledger.execute("SELECT settle FROM reconciler.runs").fetchall() == [(timedelta(seconds=60),)]


def test_the_outcome_holds_the_resources_of_its_findings(system: System) -> None:
    system.api.create(tenant("acme"), at=system.now - 2 * HOUR)
    ended = system.run()
    assert ended.observed["acme"].uid == system.api.get("acme")["metadata"]["uid"]  # type: ignore[index]


def test_the_log_has_a_line_a_finding_then_counts_the_rest() -> None:
    findings = [make_finding(Action.REPORT, tenant=f"tenant-{number}") for number in range(MAX_LINES + 7)]
    with capture_logs([of_this_thread]) as logged:
        Log().notify(make_outcome(*findings))
    assert [line["event"] for line in logged] == ["drift.reported"] * MAX_LINES + ["drift.more"]
    assert logged[-1]["findings"] == 7


def test_the_log_is_silent_about_clean_runs_and_deferred_findings() -> None:
    with capture_logs([of_this_thread]) as logged:
        Log().notify(make_outcome(make_finding(Action.DEFER), result=Result.CLEAN))
    assert logged == []
