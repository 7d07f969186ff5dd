"""One alert for each reason: sent once to people, renewed by each run, ended when a run no longer finds it."""

from __future__ import annotations

import json
import shutil
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.alerts import Undelivered, alertmanager
from reconciler.alerts.addresses import WrongAddress
from reconciler.alerts.alertmanager import MAX_DESCRIBED, PERIODS, Alertmanager
from reconciler.core.errors import Failure, Refusal
from reconciler.core.model import Action, Evidence, Finding, Mode, Moment, Outcome, Owed, Result
from reconciler.core.reasons import RUNBOOK, Reason
from tests.support.programs import eventually, free_address, get, running
from tests.support.receivers import Receiver, hang, status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.receivers import Answer

NOW = datetime(2026, 5, 12, 7, 31, 44, tzinfo=UTC)
OBSERVED_AT = NOW - timedelta(seconds=70)
PERIOD = 300.0
END = NOW + PERIODS * timedelta(seconds=PERIOD)
RUN = UUID("a6d2cbb5-c10e-406c-8f04-01f7b57d2fe7")


def make_finding(reason: Reason, action: Action = Action.REPORT, tenant: str = "acme", **fields: Any) -> Finding:
    return Finding(reason=reason, tenant=tenant, org="2871", action=action, **fields)


def make_outcome(*findings: Finding, result: Result = Result.DRIFT, **fields: Any) -> Outcome:
    return Outcome(
        run_id=RUN,
        mode=fields.pop("mode", Mode.RUN),
        result=result,
        observed_at=OBSERVED_AT,
        findings=findings,
        **fields,
    )


MOVED = make_finding(Reason.ORG_MOVED, recorded="2871", observed="2872")
ENABLED = make_finding(
    Reason.SKILL_ENABLE_UNRECORDED,
    Action.APPEND,
    subject="bexio",
    moment=Moment(NOW, NOW - timedelta(days=1), NOW, Evidence.FIELD_MANAGER),
    impact_chf=Decimal("12.40"),
    impact_range=(Decimal("3.00"), Decimal("14.00")),
)
CLEAN = make_outcome(result=Result.CLEAN)
FAILED = make_outcome(result=Result.FAILED, failure=Failure("The ledger is away.", "Bring it back."))
BLOCKED = make_outcome(
    MOVED, ENABLED, result=Result.BLOCKED, failure=Refusal("Far too much drift.", "Look at it first.")
)


def make_labels(alertname: str, severity: str = "warning", **more: str) -> dict[str, str]:
    return {"alertname": alertname, "severity": severity, "job": "reconciler", **more}


MOVED_LABELS = make_labels("BillingDriftReported", reason="org_moved")
ENABLED_LABELS = make_labels("BillingDriftCorrected", reason="skill_enable_unrecorded")
BLOCKED_LABELS = make_labels("ReconcilerBlocked", "critical")
FAILED_LABELS = make_labels("ReconcilerFailed", "critical")


def make_active(labels: dict[str, str], **fields: Any) -> dict[str, Any]:
    """Return an alert as Alertmanager lists it: it began an hour ago and was last sent five minutes ago."""
    return {
        "labels": labels,
        "annotations": {"summary": "as it was"},
        "startsAt": "2026-05-12T06:30:00.000Z",
        "updatedAt": "2026-05-12T07:26:00.500Z",
        "endsAt": "2026-05-12T07:41:00.000Z",
        "fingerprint": "0123456789abcdef",
        "receivers": [{"name": "people"}],
        "status": {"state": "active", "inhibitedBy": [], "silencedBy": []},
        **fields,
    }


def answer_with(*alerts: dict[str, Any]) -> Answer:
    """Answer as an Alertmanager that has these active alerts."""
    listed = json.dumps(alerts).encode()
    return lambda exchange: status(200, listed if exchange.request.method == "GET" else b"")(exchange)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        receiver.otherwise = answer_with()
        yield receiver


def notify(receiver: Receiver, outcome: Outcome, **fields: Any) -> list[dict[str, Any]]:
    """Notify an Alertmanager of a run and return the alerts that it received."""
    Alertmanager([receiver.url], period=PERIOD, now=lambda: NOW, **fields).notify(outcome)
    return sent(receiver)


def sent(receiver: Receiver) -> list[dict[str, Any]]:
    return [alert for request in receiver.requests if request.method == "POST" for alert in request.json]


def when(text: str) -> datetime:
    return datetime.fromisoformat(text)


# --- alerts of a run ---------------------------------------------------------------------------------------------


def test_each_reason_gets_one_alert(receiver: Receiver) -> None:
    alerts = notify(receiver, make_outcome(MOVED, ENABLED, make_finding(Reason.ORG_MOVED, tenant="beta")))
    assert [alert["labels"] for alert in alerts] == [ENABLED_LABELS, MOVED_LABELS]


def test_deferred_and_accepted_findings_get_no_alert(receiver: Receiver) -> None:
    accepted = make_finding(Reason.ORG_MOVED, accepted_until=NOW)
    assert notify(receiver, make_outcome(accepted, make_finding(Reason.DELETION_UNRECORDED, Action.DEFER))) == []


def test_an_alert_lasts_until_three_periods_from_now(receiver: Receiver) -> None:
    (alert,) = notify(receiver, make_outcome(MOVED))
    assert (when(alert["startsAt"]), when(alert["endsAt"])) == (OBSERVED_AT, END)


def test_an_alert_never_starts_in_the_future(receiver: Receiver) -> None:
    """The database's clock may be ahead, or may never have been read."""
    ahead = Outcome(run_id=RUN, mode=Mode.RUN, result=Result.DRIFT, observed_at=END, findings=(MOVED,))
    never = Outcome(run_id=RUN, mode=Mode.RUN, result=Result.FAILED, failure=Failure("away"))
    notify(receiver, ahead)
    assert [when(alert["startsAt"]) for alert in notify(receiver, never)] == [NOW, NOW]


def test_an_alert_has_count_tenants_times_impact_and_remedy(receiver: Receiver) -> None:
    advice = RUNBOOK[Reason.SKILL_ENABLE_UNRECORDED]
    (alert,) = notify(receiver, make_outcome(ENABLED))
    assert alert["annotations"]["summary"] == "skill_enable_unrecorded: 1 corrected, on 1 tenant"
    assert alert["annotations"]["description"].splitlines() == [
        "1 corrected, on 1 tenant; CHF 12.40 (between 3.00 and 14.00) not invoiced.",
        advice.meaning,
        "- acme (org 2871), bexio, at 2026-05-12 07:31:44 UTC, CHF 12.40 (between 3.00 and 14.00) not invoiced",
        f"To do: {advice.remedy}",
        f"Run {RUN}.",
    ]


def test_an_alert_describes_some_findings_and_counts_the_rest(receiver: Receiver) -> None:
    many = [make_finding(Reason.ORG_MOVED, tenant="x" * 250 + str(number)) for number in range(1000)]
    (alert,) = notify(receiver, make_outcome(*many))
    description = alert["annotations"]["description"]
    assert description.startswith("1000 to look at, on 1000 tenants.")
    assert description.count("\n- ") == MAX_DESCRIBED + 1
    assert f"\n- and {1000 - MAX_DESCRIBED} more\n" in description
    assert len(description) < 5000


def test_an_alert_counts_what_an_earlier_run_owes_of_its_reason(receiver: Receiver) -> None:
    """Also where this run was stopped: then what is owed has alerts of its own."""
    disabled = ENABLED._replace(reason=Reason.SKILL_DISABLE_UNRECORDED)
    earlier = Owed(UUID(int=7), frozenset({"alertmanager"}), (ENABLED, disabled, disabled._replace(tenant="beta")))
    stopped, *corrected = notify(receiver, replace(FAILED, owed=(earlier,)))
    assert stopped["labels"]["severity"] == "critical"
    counted = {alert["labels"]["reason"]: alert["annotations"]["description"].splitlines()[-2] for alert in corrected}
    by_whom = f"of the earlier run {earlier.run_id}, of which nobody was notified."
    assert counted == {
        "skill_enable_unrecorded": f"1 of these is {by_whom}",
        "skill_disable_unrecorded": f"2 of these are {by_whom}",
    }


def test_control_characters_are_made_visible(receiver: Receiver) -> None:
    (alert,) = notify(
        receiver, make_outcome(make_finding(Reason.ORG_MOVED, tenant="a\n\x1b[2J\u202e", subject="\ud83d"))
    )
    assert r"- a\n\x1b[2J\u202e (org 2871), \ud83d" in alert["annotations"]["description"]


@pytest.mark.parametrize(("stopped", "expected"), [(BLOCKED, BLOCKED_LABELS), (FAILED, FAILED_LABELS)])
def test_a_stopped_run_is_one_critical_alert(receiver: Receiver, stopped: Outcome, expected: dict[str, str]) -> None:
    """What it would have done is not an alert."""
    (alert,) = notify(receiver, stopped)
    assert alert["labels"] == expected
    assert stopped.failure is not None
    assert str(stopped.failure) in alert["annotations"]["summary"]
    for said in (str(stopped.failure), stopped.failure.remedy, *RUNBOOK[stopped.result], str(RUN)):
        assert said in alert["annotations"]["description"]


def test_nothing_is_sent_for_a_plan(receiver: Receiver) -> None:
    assert notify(receiver, make_outcome(MOVED, mode=Mode.PLAN)) == []
    assert receiver.requests == []


_findings = st.builds(
    make_finding,
    st.sampled_from(Reason),
    st.sampled_from(Action),
    st.text(),
    subject=st.none() | st.text(),
    recorded=st.none() | st.text(),
    observed=st.none() | st.text(),
    impact_chf=st.none() | st.decimals(-1000, 1000, places=2),
    accepted_until=st.sampled_from([None, NOW]),
)


@given(st.lists(_findings))
def test_labels_do_not_depend_on_count_tenants_or_impact(findings: list[Finding]) -> None:
    """So a reason keeps one alert from run to run, and no two alerts of a run are the same."""
    alerts = Alertmanager([], period=PERIOD, now=lambda: NOW)._alerts(make_outcome(*findings), NOW)  # noqa: SLF001 - what is sent
    assert sorted((a.labels.pop("alertname"), a.labels.pop("reason")) for a in alerts) == sorted(
        {
            ("BillingDriftReported" if f.action is Action.REPORT else "BillingDriftCorrected", f.reason)
            for f in findings
            if f.is_drift
        }
    )
    assert all(alert.labels == {"severity": "warning", "job": "reconciler"} for alert in alerts)


# --- alerts that are over ----------------------------------------------------------------------------------------


def test_a_clean_run_lists_once_and_sends_nothing(receiver: Receiver) -> None:
    notify(receiver, CLEAN)
    (request,) = receiver.requests
    assert (request.method, request.path) == ("GET", "/api/v2/alerts")
    assert ("filter", 'job="reconciler"') in request.query


@pytest.mark.parametrize("gone", [MOVED_LABELS, BLOCKED_LABELS, FAILED_LABELS])
def test_an_alert_that_is_over_is_ended_with_its_labels(receiver: Receiver, gone: dict[str, str]) -> None:
    receiver.otherwise = answer_with(make_active(gone))
    (alert,) = notify(receiver, CLEAN)
    assert alert["labels"] == gone
    assert alert["annotations"] == {"summary": "as it was"}
    assert when(alert["startsAt"]) == when("2026-05-12T06:30:00.000Z")
    assert when(alert["startsAt"]) < when(alert["endsAt"]) <= NOW


def test_an_alert_ends_in_the_past_of_the_alertmanagers_clock(receiver: Receiver) -> None:
    """Our clock may be ahead, and Alertmanager ignores an end that is ahead of its own."""
    receiver.otherwise = answer_with(make_active(MOVED_LABELS))
    (alert,) = notify(receiver, CLEAN)
    assert when(alert["endsAt"]) == when("2026-05-12T07:26:00.500Z")


def test_no_alert_ends_before_it_starts(receiver: Receiver) -> None:
    """Alertmanager would refuse it together with all others."""
    receiver.otherwise = answer_with(make_active(MOVED_LABELS, startsAt="2026-05-12T07:31:00.000Z"))
    (alert,) = notify(receiver, CLEAN)
    assert when(alert["endsAt"]) == when(alert["startsAt"])


def test_an_alert_that_is_still_found_is_not_ended(receiver: Receiver) -> None:
    receiver.otherwise = answer_with(make_active(MOVED_LABELS), make_active(BLOCKED_LABELS))
    alerts = notify(receiver, make_outcome(MOVED))
    assert [(alert["labels"], when(alert["endsAt"]) > NOW) for alert in alerts] == [
        (MOVED_LABELS, True),
        (BLOCKED_LABELS, False),
    ]


@pytest.mark.parametrize(
    "ended", [CLEAN, make_outcome(MOVED), FAILED, BLOCKED], ids=["clean", "drift", "failed", "blocked"]
)
def test_an_alert_of_a_correction_expires(receiver: Receiver, ended: Outcome) -> None:
    """If the next run ended it, it might never have been sent to people."""
    receiver.otherwise = answer_with(make_active(ENABLED_LABELS))
    assert ENABLED_LABELS not in [alert["labels"] for alert in notify(receiver, ended)]


@pytest.mark.parametrize(
    "others",
    [
        make_active({"alertname": "SomethingElse", "job": "reconciler"}),
        make_active(MOVED_LABELS | {"job": "another"}),
        make_active({"job": "reconciler"}),
        make_active(BLOCKED_LABELS, generatorURL="http://prometheus/graph"),
    ],
)
def test_alerts_of_others_are_left_alone(receiver: Receiver, others: dict[str, Any]) -> None:
    receiver.otherwise = answer_with(others)
    assert notify(receiver, CLEAN) == []


@pytest.mark.parametrize(
    ("stopped", "held", "ended"),
    [
        (FAILED, MOVED_LABELS, False),
        (FAILED, BLOCKED_LABELS, False),
        (BLOCKED, MOVED_LABELS, False),
        (BLOCKED, FAILED_LABELS, True),
    ],
)
def test_a_stopped_run_renews_alerts_it_cannot_judge(
    receiver: Receiver, stopped: Outcome, held: dict[str, str], *, ended: bool
) -> None:
    receiver.otherwise = answer_with(make_active(held))
    alert = notify(receiver, stopped)[-1]
    assert (alert["labels"], alert["annotations"]) == (held, {"summary": "as it was"})
    assert when(alert["endsAt"]) < NOW if ended else when(alert["endsAt"]) == END


def test_another_job_has_its_own_alerts(receiver: Receiver) -> None:
    (alert,) = notify(receiver, make_outcome(MOVED), job='a "b"')
    assert alert["labels"]["job"] == 'a "b"'
    assert ("filter", r'job="a \"b\""') in receiver.requests[-1].query


# --- Alertmanagers that cannot be notified -----------------------------------------------------------------------


def test_each_alertmanager_is_notified_on_its_own(receiver: Receiver) -> None:
    with Receiver() as second:
        second.otherwise = answer_with(make_active(FAILED_LABELS))
        Alertmanager([receiver.url, f"{second.url}/prefix/"], period=PERIOD, now=lambda: NOW).notify(
            make_outcome(MOVED)
        )
        assert [alert["labels"] for alert in sent(receiver)] == [MOVED_LABELS]
        assert [alert["labels"] for alert in sent(second)] == [MOVED_LABELS, FAILED_LABELS]
        assert {request.path for request in second.requests} == {"/prefix/api/v2/alerts"}


@pytest.mark.parametrize("broken", [status(400), hang()])
def test_a_broken_alertmanager_does_not_stop_the_others(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, broken: Answer
) -> None:
    monkeypatch.setattr(alertmanager, "MAX_SECONDS", 1.0)
    with Receiver() as second:
        second.otherwise = broken
        both = Alertmanager([second.url, receiver.url], period=PERIOD, now=lambda: NOW)
        with pytest.raises(Undelivered) as raised:
            both.notify(make_outcome(MOVED))
    assert [alert["labels"] for alert in sent(receiver)] == [MOVED_LABELS]
    assert second.url in str(raised.value)
    assert receiver.url not in str(raised.value)


def test_alerts_are_sent_even_if_active_ones_cannot_be_listed(receiver: Receiver) -> None:
    receiver.otherwise = lambda exchange: status(200 if exchange.request.method == "POST" else 403)(exchange)
    with pytest.raises(Undelivered, match="answered 403"):
        notify(receiver, make_outcome(MOVED))
    assert [alert["labels"] for alert in sent(receiver)] == [MOVED_LABELS]


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"status":"success"}', b'[{"labels":{}}]', b"\xff"])
def test_an_invalid_answer_does_not_count_as_an_empty_list(receiver: Receiver, body: bytes) -> None:
    receiver.otherwise = status(200, body)
    with pytest.raises(Undelivered, match="did not answer with a list of alerts"):
        notify(receiver, CLEAN)


def test_an_invalid_address_is_refused() -> None:
    with pytest.raises(WrongAddress, match="The address of the Alertmanager is not valid"):
        Alertmanager(["http://here:9093", "there:9093"], period=PERIOD, now=lambda: NOW)


# --- a real Alertmanager -----------------------------------------------------------------------------------------

PROGRAM = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
GROUP_SECONDS = 1.0
"""How long it waits for more alerts of a group, and between two notifications."""
needs_alertmanager = pytest.mark.skipif(PROGRAM is None, reason="no Alertmanager is installed")


@contextmanager
def alertmanager_in(folder: Path, webhook: str) -> Iterator[str]:
    """Run Alertmanager and yield its address."""
    assert PROGRAM is not None
    config = {
        "route": {
            "receiver": "people",
            "group_by": ["..."],
            "group_wait": f"{GROUP_SECONDS:g}s",
            "group_interval": f"{GROUP_SECONDS:g}s",
            "repeat_interval": "1h",
        },
        "receivers": [{"name": "people", "webhook_configs": [{"url": webhook, "send_resolved": True}]}],
    }
    (folder / "alertmanager.yml").write_text(json.dumps(config), encoding="utf-8")
    address = free_address()
    options = [
        f"--config.file={folder / 'alertmanager.yml'}",
        f"--storage.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
    ]
    with running(f"http://{address}/-/ready", PROGRAM, *options):
        yield f"http://{address}"


class RealAlertmanager:
    """A running Alertmanager and the receiver that stands for people."""

    def __init__(self, url: str, people: Receiver) -> None:
        self.url = url
        self.people = people

    def notify(self, outcome: Outcome, ahead: timedelta = timedelta()) -> None:
        """Notify it of a run, with a clock that is ahead of its own."""
        now = datetime.now(UTC) + ahead
        Alertmanager([self.url], period=PERIOD, now=lambda: now).notify(replace(outcome, observed_at=now))

    @property
    def sent(self) -> list[tuple[str, str]]:
        """Return what was sent to people: status and name of each alert."""
        return [
            (alert["status"], alert["labels"]["alertname"])
            for request in list(self.people.requests)
            for alert in request.json["alerts"]
        ]

    @property
    def active(self) -> list[dict[str, Any]]:
        """Return its active alerts."""
        held: list[dict[str, Any]] = json.loads(get(f"{self.url}/api/v2/alerts"))
        return held


@pytest.fixture
def real(tmp_path: Path) -> Iterator[RealAlertmanager]:
    with Receiver() as people, alertmanager_in(tmp_path, people.url) as url:
        yield RealAlertmanager(url, people)


@needs_alertmanager
def test_an_alert_fires_once_and_is_resolved_when_over(real: RealAlertmanager) -> None:
    real.notify(make_outcome(MOVED))
    eventually(lambda: real.sent)
    real.notify(make_outcome(MOVED, make_finding(Reason.ORG_MOVED, tenant="beta")))
    time.sleep(3 * GROUP_SECONDS)
    assert real.sent == [("firing", "BillingDriftReported")]
    real.notify(CLEAN)
    eventually(lambda: len(real.sent) > 1)
    assert real.sent == [("firing", "BillingDriftReported"), ("resolved", "BillingDriftReported")]
    assert real.active == []


@needs_alertmanager
def test_an_alert_is_resolved_even_if_our_clock_is_ahead(real: RealAlertmanager) -> None:
    real.notify(make_outcome(MOVED), ahead=timedelta(seconds=2))
    real.notify(CLEAN, ahead=timedelta(seconds=2))
    eventually(lambda: real.active == [], seconds=10)


@needs_alertmanager
def test_reports_stay_while_runs_fail_until_one_succeeds(real: RealAlertmanager) -> None:
    real.notify(make_outcome(MOVED))
    (before,) = real.active
    real.notify(FAILED)
    after = {alert["labels"]["alertname"]: alert for alert in real.active}
    assert after.keys() == {"BillingDriftReported", "ReconcilerFailed"}
    renewed = after["BillingDriftReported"]
    assert renewed["startsAt"] == before["startsAt"]
    assert when(renewed["endsAt"]) > when(before["endsAt"])
    real.notify(make_outcome(MOVED))
    assert [alert["labels"] for alert in real.active] == [MOVED_LABELS]
