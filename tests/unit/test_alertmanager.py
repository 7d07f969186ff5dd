"""One alert for each class of drift: told once, renewed by each pass, and over when a pass no longer finds it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
import urllib3
from hypothesis import given
from hypothesis import strategies as st

from reconciler.alerts import Undelivered, alertmanager
from reconciler.alerts.alertmanager import LONGEST_LIST, PERIODS, Alertmanager
from reconciler.alerts.http import WrongAddress
from reconciler.core.errors import Failure, Refusal
from reconciler.core.model import Action, Evidence, Finding, Mode, Moment, Outcome, Result
from reconciler.core.reasons import RUNBOOK, Reason
from tests.support.receivers import Receiver, hang, status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.receivers import Answer

NOW = datetime(2026, 5, 12, 7, 31, 44, tzinfo=UTC)
OBSERVED_AT = NOW - timedelta(seconds=70)
PERIOD = 300.0
END = NOW + PERIODS * timedelta(seconds=PERIOD)
RUN = UUID("a6d2cbb5-c10e-406c-8f04-01f7b57d2fe7")


def finding(reason: Reason, action: Action = Action.REPORT, tenant: str = "acme", **fields: Any) -> Finding:
    return Finding(reason=reason, tenant=tenant, org="2871", action=action, **fields)


def outcome(*findings: Finding, result: Result = Result.DRIFT, **fields: Any) -> Outcome:
    return Outcome(
        run_id=RUN,
        mode=fields.pop("mode", Mode.RUN),
        result=result,
        observed_at=OBSERVED_AT,
        findings=findings,
        **fields,
    )


MOVED = finding(Reason.ORG_MOVED, recorded="2871", observed="2872")
ENABLED = finding(
    Reason.SKILL_ENABLE_UNRECORDED,
    Action.APPEND,
    subject="bexio",
    moment=Moment(NOW, NOW - timedelta(days=1), NOW, Evidence.FIELD_MANAGER),
    impact_chf=Decimal("12.40"),
    impact_range=(Decimal("3.00"), Decimal("14.00")),
)
CLEAN = outcome(result=Result.CLEAN)
FAILED = outcome(result=Result.FAILED, failure=Failure("The ledger is away.", "Bring it back."))
BLOCKED = outcome(MOVED, ENABLED, result=Result.BLOCKED, failure=Refusal("Far too much drift.", "Look at it first."))


def labels(alertname: str, severity: str = "warning", **more: str) -> dict[str, str]:
    return {"alertname": alertname, "severity": severity, "job": "reconciler", **more}


MOVED_LABELS = labels("BillingDriftReported", reason="org_moved")
ENABLED_LABELS = labels("BillingDriftCorrected", reason="skill_enable_unrecorded")
BLOCKED_LABELS = labels("ReconcilerBlocked", "critical")
FAILED_LABELS = labels("ReconcilerFailed", "critical")


def active(labels: dict[str, str], **fields: Any) -> dict[str, Any]:
    """Return an alert as Alertmanager shows it: it began an hour ago, and was last sent five minutes ago."""
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


def holding(*alerts: dict[str, Any]) -> Answer:
    """Answer as an Alertmanager that has these."""
    listed = json.dumps(alerts).encode()
    return lambda exchange: status(200, listed if exchange.request.method == "GET" else b"")(exchange)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        receiver.otherwise = holding()
        yield receiver


def tell(receiver: Receiver, outcome: Outcome, **fields: Any) -> list[dict[str, Any]]:
    """Tell an Alertmanager of a pass, and return the alerts that it was sent."""
    Alertmanager([receiver.url], period=PERIOD, now=lambda: NOW, **fields).tell(outcome)
    return sent(receiver)


def sent(receiver: Receiver) -> list[dict[str, Any]]:
    return [alert for request in receiver.requests if request.method == "POST" for alert in request.json]


def when(text: str) -> datetime:
    return datetime.fromisoformat(text)


# --- what there is -----------------------------------------------------------------------------------------------


def test_there_is_one_alert_for_each_class_of_drift(receiver: Receiver) -> None:
    told = tell(receiver, outcome(MOVED, ENABLED, finding(Reason.ORG_MOVED, tenant="beta")))
    assert [alert["labels"] for alert in told] == [ENABLED_LABELS, MOVED_LABELS]


def test_what_is_deferred_or_accepted_is_no_alert(receiver: Receiver) -> None:
    accepted = finding(Reason.ORG_MOVED, accepted_until=NOW)
    assert tell(receiver, outcome(accepted, finding(Reason.DELETION_UNRECORDED, Action.DEFER))) == []


def test_an_alert_lasts_from_the_observation_until_three_periods_from_now(receiver: Receiver) -> None:
    (alert,) = tell(receiver, outcome(MOVED))
    assert (when(alert["startsAt"]), when(alert["endsAt"])) == (OBSERVED_AT, END)


def test_an_alert_begins_now_at_the_latest(receiver: Receiver) -> None:
    """The database's clock may be ahead, or never have been asked."""
    ahead = Outcome(run_id=RUN, mode=Mode.RUN, result=Result.DRIFT, observed_at=END, findings=(MOVED,))
    never = Outcome(run_id=RUN, mode=Mode.RUN, result=Result.FAILED, failure=Failure("away"))
    tell(receiver, ahead)
    assert [when(alert["startsAt"]) for alert in tell(receiver, never)] == [NOW, NOW]


def test_an_alert_says_how_many_whom_when_how_much_and_what_to_do(receiver: Receiver) -> None:
    advice = RUNBOOK[Reason.SKILL_ENABLE_UNRECORDED]
    (alert,) = tell(receiver, outcome(ENABLED))
    assert alert["annotations"]["summary"] == "skill_enable_unrecorded: 1 corrected, on 1 tenant"
    assert alert["annotations"]["description"].splitlines() == [
        "1 corrected, on 1 tenant; CHF 12.40 (between 3.00 and 14.00) not invoiced.",
        advice.meaning,
        "- acme (org 2871), bexio, at 2026-05-12 07:31:44 UTC, CHF 12.40 (between 3.00 and 14.00) not invoiced",
        f"To do: {advice.remedy}",
        f"Run {RUN}.",
    ]


def test_an_alert_names_some_and_counts_the_rest(receiver: Receiver) -> None:
    many = [finding(Reason.ORG_MOVED, tenant="x" * 250 + str(number)) for number in range(1000)]
    (alert,) = tell(receiver, outcome(*many))
    description = alert["annotations"]["description"]
    assert description.startswith("1000 to look at, on 1000 tenants.")
    assert description.count("\n- ") == LONGEST_LIST + 1
    assert f"\n- and {1000 - LONGEST_LIST} more\n" in description
    assert len(description) < 5000


def test_what_could_steer_a_display_is_made_visible(receiver: Receiver) -> None:
    (alert,) = tell(receiver, outcome(finding(Reason.ORG_MOVED, tenant="a\n\x1b[2J\u202e", subject="\ud83d")))
    assert r"- a\n\x1b[2J\u202e (org 2871), \ud83d" in alert["annotations"]["description"]


@pytest.mark.parametrize(("stopped", "expected"), [(BLOCKED, BLOCKED_LABELS), (FAILED, FAILED_LABELS)])
def test_a_pass_that_was_stopped_is_one_critical_alert(
    receiver: Receiver, stopped: Outcome, expected: dict[str, str]
) -> None:
    """What it would have done is none."""
    (alert,) = tell(receiver, stopped)
    assert alert["labels"] == expected
    assert stopped.failure is not None
    assert str(stopped.failure) in alert["annotations"]["summary"]
    for said in (str(stopped.failure), stopped.failure.remedy, *RUNBOOK[stopped.result], str(RUN)):
        assert said in alert["annotations"]["description"]


def test_of_a_plan_nothing_is_sent(receiver: Receiver) -> None:
    assert tell(receiver, outcome(MOVED, mode=Mode.PLAN)) == []
    assert receiver.requests == []


_findings = st.builds(
    finding,
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
def test_no_label_depends_on_how_many_whom_or_how_much(findings: list[Finding]) -> None:
    """So a class of drift is one alert from pass to pass, and no two alerts of a pass are the same."""
    alerts = Alertmanager([], period=PERIOD, now=lambda: NOW)._alerts(outcome(*findings), NOW)  # noqa: SLF001 - what is sent
    assert sorted((a.labels.pop("alertname"), a.labels.pop("reason")) for a in alerts) == sorted(
        {
            ("BillingDriftReported" if f.action is Action.REPORT else "BillingDriftCorrected", f.reason)
            for f in findings
            if f.is_drift
        }
    )
    assert all(alert.labels == {"severity": "warning", "job": "reconciler"} for alert in alerts)


# --- what is over ------------------------------------------------------------------------------------------------


def test_a_clean_pass_with_nothing_active_asks_once_and_sends_nothing(receiver: Receiver) -> None:
    tell(receiver, CLEAN)
    (request,) = receiver.requests
    assert (request.method, request.path) == ("GET", "/api/v2/alerts")
    assert ("filter", 'job="reconciler"') in request.query


@pytest.mark.parametrize("gone", [MOVED_LABELS, BLOCKED_LABELS, FAILED_LABELS])
def test_what_is_gone_is_ended_under_the_same_labels(receiver: Receiver, gone: dict[str, str]) -> None:
    receiver.otherwise = holding(active(gone))
    (alert,) = tell(receiver, CLEAN)
    assert alert["labels"] == gone
    assert alert["annotations"] == {"summary": "as it was"}
    assert when(alert["startsAt"]) == when("2026-05-12T06:30:00.000Z")
    assert when(alert["startsAt"]) < when(alert["endsAt"]) <= NOW


def test_the_end_is_one_that_the_alertmanagers_own_clock_has_seen(receiver: Receiver) -> None:
    """Ours may be ahead, and it ignores an end that is still to come by its own."""
    receiver.otherwise = holding(active(MOVED_LABELS))
    (alert,) = tell(receiver, CLEAN)
    assert when(alert["endsAt"]) == when("2026-05-12T07:26:00.500Z")


def test_no_alert_ends_before_it_begins(receiver: Receiver) -> None:
    """Alertmanager would refuse it, and all others with it."""
    receiver.otherwise = holding(active(MOVED_LABELS, startsAt="2026-05-12T07:31:00.000Z"))
    (alert,) = tell(receiver, CLEAN)
    assert when(alert["endsAt"]) == when(alert["startsAt"])


def test_what_is_still_there_is_not_ended(receiver: Receiver) -> None:
    receiver.otherwise = holding(active(MOVED_LABELS), active(BLOCKED_LABELS))
    told = tell(receiver, outcome(MOVED))
    assert [(alert["labels"], when(alert["endsAt"]) > NOW) for alert in told] == [
        (MOVED_LABELS, True),
        (BLOCKED_LABELS, False),
    ]


@pytest.mark.parametrize("ended", [CLEAN, outcome(MOVED), FAILED, BLOCKED], ids=["clean", "drift", "failed", "blocked"])
def test_a_correction_ends_by_itself(receiver: Receiver, ended: Outcome) -> None:
    """It is over with its pass: ended by the next one, its alert might never have been sent."""
    receiver.otherwise = holding(active(ENABLED_LABELS))
    assert ENABLED_LABELS not in [alert["labels"] for alert in tell(receiver, ended)]


@pytest.mark.parametrize(
    "others",
    [
        active({"alertname": "SomethingElse", "job": "reconciler"}),
        active(MOVED_LABELS | {"job": "another"}),
        active({"job": "reconciler"}),
        active(BLOCKED_LABELS, generatorURL="http://prometheus/graph"),
    ],
)
def test_what_others_have_sent_is_left_alone(receiver: Receiver, others: dict[str, Any]) -> None:
    receiver.otherwise = holding(others)
    assert tell(receiver, CLEAN) == []


@pytest.mark.parametrize(
    ("stopped", "held", "ended"),
    [
        (FAILED, MOVED_LABELS, False),
        (FAILED, BLOCKED_LABELS, False),
        (BLOCKED, MOVED_LABELS, False),
        (BLOCKED, FAILED_LABELS, True),
    ],
)
def test_a_pass_that_was_stopped_renews_what_it_cannot_know_to_be_over(
    receiver: Receiver, stopped: Outcome, held: dict[str, str], *, ended: bool
) -> None:
    receiver.otherwise = holding(active(held))
    alert = tell(receiver, stopped)[-1]
    assert (alert["labels"], alert["annotations"]) == (held, {"summary": "as it was"})
    assert when(alert["endsAt"]) < NOW if ended else when(alert["endsAt"]) == END


def test_another_job_has_alerts_of_its_own(receiver: Receiver) -> None:
    (alert,) = tell(receiver, outcome(MOVED), job='a "b"')
    assert alert["labels"]["job"] == 'a "b"'
    assert ("filter", r'job="a \"b\""') in receiver.requests[-1].query


# --- who cannot be told ------------------------------------------------------------------------------------------


def test_each_of_several_is_told_on_its_own(receiver: Receiver) -> None:
    with Receiver() as second:
        second.otherwise = holding(active(FAILED_LABELS))
        Alertmanager([receiver.url, f"{second.url}/prefix/"], period=PERIOD, now=lambda: NOW).tell(outcome(MOVED))
        assert [alert["labels"] for alert in sent(receiver)] == [MOVED_LABELS]
        assert [alert["labels"] for alert in sent(second)] == [MOVED_LABELS, FAILED_LABELS]
        assert {request.path for request in second.requests} == {"/prefix/api/v2/alerts"}


@pytest.mark.parametrize("broken", [status(400), hang()])
def test_one_that_cannot_be_told_keeps_no_other_from_it(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, broken: Answer
) -> None:
    monkeypatch.setattr(alertmanager, "SECONDS", 1.0)
    with Receiver() as second:
        second.otherwise = broken
        both = Alertmanager([second.url, receiver.url], period=PERIOD, now=lambda: NOW)
        with pytest.raises(Undelivered) as raised:
            both.tell(outcome(MOVED))
    assert [alert["labels"] for alert in sent(receiver)] == [MOVED_LABELS]
    assert second.url in str(raised.value)
    assert receiver.url not in str(raised.value)


def test_what_there_is_is_told_even_where_what_is_over_cannot_be_found_out(receiver: Receiver) -> None:
    receiver.otherwise = lambda exchange: status(200 if exchange.request.method == "POST" else 403)(exchange)
    with pytest.raises(Undelivered, match="answered 403"):
        tell(receiver, outcome(MOVED))
    assert [alert["labels"] for alert in sent(receiver)] == [MOVED_LABELS]


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"status":"success"}', b'[{"labels":{}}]', b"\xff"])
def test_an_answer_that_is_no_list_of_alerts_is_not_taken_for_an_empty_one(receiver: Receiver, body: bytes) -> None:
    receiver.otherwise = status(200, body)
    with pytest.raises(Undelivered, match="something else than a list of alerts"):
        tell(receiver, CLEAN)


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(WrongAddress, match="The address of the Alertmanager is none"):
        Alertmanager(["http://here:9093", "there:9093"], period=PERIOD, now=lambda: NOW)


# --- the real one ------------------------------------------------------------------------------------------------

PROGRAM = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
GROUPED = 1.0
"""Seconds that it waits for more alerts of a group, and between two notifications."""
needs_alertmanager = pytest.mark.skipif(PROGRAM is None, reason="no Alertmanager is installed")


@contextmanager
def running(folder: Path, webhook: str) -> Iterator[str]:
    """Run Alertmanager, and yield its address."""
    assert PROGRAM is not None
    config = {
        "route": {
            "receiver": "people",
            "group_by": ["..."],
            "group_wait": f"{GROUPED:g}s",
            "group_interval": f"{GROUPED:g}s",
            "repeat_interval": "1h",
        },
        "receivers": [{"name": "people", "webhook_configs": [{"url": webhook, "send_resolved": True}]}],
    }
    (folder / "alertmanager.yml").write_text(json.dumps(config), encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    process = subprocess.Popen(
        [
            PROGRAM,
            f"--config.file={folder / 'alertmanager.yml'}",
            f"--storage.path={folder / 'data'}",
            f"--web.listen-address={address}",
            "--cluster.listen-address=",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: get(f"http://{address}/-/ready") is not None)
        yield f"http://{address}"
    finally:
        process.kill()
        process.wait()


def get(url: str) -> bytes | None:
    """Return what is there; None where nobody answers yet."""
    try:
        with urllib3.PoolManager() as pool:
            answer = pool.request("GET", url, retries=False, timeout=5)
    except urllib3.exceptions.HTTPError:
        return None
    return answer.data if answer.status == HTTPStatus.OK else None


def eventually(happened: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until something has happened, and fail where it does not in time."""
    ends = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < ends
        time.sleep(0.05)


class Real:
    """An Alertmanager, and the people that it tells."""

    def __init__(self, url: str, people: Receiver) -> None:
        self.url = url
        self.people = people

    def tell(self, outcome: Outcome, ahead: timedelta = timedelta()) -> None:
        """Tell it of a pass, by a clock that is ahead of its own."""
        now = datetime.now(UTC) + ahead
        Alertmanager([self.url], period=PERIOD, now=lambda: now).tell(replace(outcome, observed_at=now))

    @property
    def told(self) -> list[tuple[str, str]]:
        """What people were told: how each alert stood, and its name."""
        return [
            (alert["status"], alert["labels"]["alertname"])
            for request in list(self.people.requests)
            for alert in request.json["alerts"]
        ]

    @property
    def active(self) -> list[dict[str, Any]]:
        """What it holds."""
        held: list[dict[str, Any]] = json.loads(get(f"{self.url}/api/v2/alerts") or b"")
        return held


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Real]:
    with Receiver() as people, running(tmp_path, people.url) as url:
        yield Real(url, people)


@needs_alertmanager
def test_an_alert_fires_is_not_repeated_by_the_next_run_and_is_resolved_when_gone(real: Real) -> None:
    real.tell(outcome(MOVED))
    eventually(lambda: real.told)
    real.tell(outcome(MOVED, finding(Reason.ORG_MOVED, tenant="beta")))
    time.sleep(3 * GROUPED)
    assert real.told == [("firing", "BillingDriftReported")]
    real.tell(CLEAN)
    eventually(lambda: len(real.told) > 1)
    assert real.told == [("firing", "BillingDriftReported"), ("resolved", "BillingDriftReported")]
    assert real.active == []


@needs_alertmanager
def test_an_alert_is_resolved_though_our_clock_is_ahead(real: Real) -> None:
    real.tell(outcome(MOVED), ahead=timedelta(seconds=2))
    real.tell(CLEAN, ahead=timedelta(seconds=2))
    eventually(lambda: real.active == [], seconds=10)


@needs_alertmanager
def test_drift_stays_while_passes_fail_and_the_failure_is_resolved_by_the_first_that_does_not(real: Real) -> None:
    real.tell(outcome(MOVED))
    (before,) = real.active
    real.tell(FAILED)
    after = {alert["labels"]["alertname"]: alert for alert in real.active}
    assert after.keys() == {"BillingDriftReported", "ReconcilerFailed"}
    renewed = after["BillingDriftReported"]
    assert renewed["startsAt"] == before["startsAt"]
    assert when(renewed["endsAt"]) > when(before["endsAt"])
    real.tell(outcome(MOVED))
    assert [alert["labels"] for alert in real.active] == [MOVED_LABELS]
