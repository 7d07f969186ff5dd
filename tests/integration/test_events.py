"""Kubernetes Events: what each says, how many there are, and what happens if the API server refuses them."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid4

import pytest
import stamina
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.alerts import Undelivered, events
from reconciler.alerts.events import MAX_EVENTS, MAX_NOTE_BYTES, Events
from reconciler.core.errors import Refusal
from reconciler.core.model import Action, Evidence, Finding, Mode, Moment, Observed, Outcome, Result
from reconciler.core.reasons import RUNBOOK, Reason
from reconciler.deadline import Deadline
from reconciler.sources.api_client import Api, CustomResource
from tests.support import faults as f
from tests.support.api_state import tenant
from tests.support.fake_api import FakeApi
from tests.support.faults import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.faults import Request

NOW: Final = datetime(2026, 3, 1, 10, 30, 0, 250, tzinfo=timezone(timedelta(hours=1)))
RUN: Final = UUID("5f7cbe4a-0d0e-4c53-9f0a-0f1e4d3c2b1a")
ACTIONS: Final = {Reason.TENANT_UNRECORDED: Action.INSERT, Reason.DELETION_UNRECORDED: Action.STAMP} | {
    Reason.ORG_RESOLVED: Action.UPDATE
}
PATH: Final = "/apis/events.k8s.io/v1/namespaces/default/events"
NASTY: Final = "\x1b[31m\n\x00é𝄞"


def on(day: int, hour: int = 0, minute: int = 0, second: int = 0) -> datetime:
    """Return an instant of February 2026."""
    return datetime(2026, 2, day, hour, minute, second, tzinfo=UTC)


def make_finding(reason: Reason = Reason.SKILL_ENABLE_UNRECORDED, name: str = "acme", **more: Any) -> Finding:
    """Return a finding with the action of its reason."""
    action = ACTIONS.get(reason, Action.APPEND) if reason.corrects else Action.REPORT
    return Finding(**{"reason": reason, "tenant": name, "org": "2871", "action": action} | more)


def make_outcome(*findings: Finding, run_id: UUID = RUN, **observed: Observed) -> Outcome:
    """Return the outcome of a run with these findings."""
    return Outcome(run_id=run_id, mode=Mode.RUN, result=Result.CORRECTED, findings=findings, observed=observed)


@dataclass
class Rig:
    """A sink and the API server double that it posts to."""

    api: FakeApi
    sink: Events

    @property
    def posts(self) -> list[Request]:
        """Return the requests to create an Event."""
        return [request for request in self.api.requests if request.method == "POST"]

    def notify(self, outcome: Outcome) -> list[dict[str, Any]]:
        """Notify the sink and return the Events that the API server holds."""
        self.sink.notify(outcome)
        return self.api.events

    def notify_in_vain(self, outcome: Outcome, expected: str) -> str:
        """Notify the sink, which fails with the expected text, and return its whole message."""
        with pytest.raises(Undelivered) as undelivered:
            self.sink.notify(outcome)
        assert expected in str(undelivered.value)
        return str(undelivered.value)


def make_sink(kubeconfig: Path | str, deadline: Deadline | None = None) -> Events:
    """Return a sink whose reporting instance is reconciler-1."""
    api = Api(kubeconfig=str(kubeconfig), context=None, deadline=deadline or Deadline.after(60))
    resource = CustomResource(api=api, group="pieced.ch", plural="piecedtenants")
    return Events(resource=resource, instance="reconciler-1", now=lambda: NOW)


@pytest.fixture
def rig(api: FakeApi, tmp_path: Path) -> Iterator[Rig]:
    """Return a sink on the double that tries requests three times without waiting in between."""
    with stamina.set_testing(True, attempts=3):
        yield Rig(api, make_sink(api.kubeconfig(tmp_path / "kubeconfig")))


def creates_event(request: Request) -> bool:
    """Return whether a request would create an Event."""
    return request.method == "POST"


def refuse(message: str, **details: str) -> f.Effect:
    """Answer 403 with these details."""
    body = json.loads(f.status_body(403, message)) | {"details": details}
    return f.status(403, body=json.dumps(body).encode())


# --- what an Event says ------------------------------------------------------------------------------------------


def test_a_correction_is_an_event_on_the_tenant(rig: Rig) -> None:
    """Who, what, when and why are in the fields that Kubernetes has for them."""
    (event,) = rig.notify(make_outcome(make_finding(subject="voice"), acme=Observed(name="acme", uid="uid-1")))

    metadata, note = event.pop("metadata"), event.pop("note")
    assert metadata["namespace"] == "default"
    assert note.startswith("voice ")
    assert event == {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "type": "Warning",
        "reason": "skill_enable_unrecorded",
        "action": "append",
        "eventTime": "2026-03-01T09:30:00.000250Z",
        "reportingController": "pieced.ch/reconciler",
        "reportingInstance": "reconciler-1",
        "regarding": {
            "apiVersion": "pieced.ch/v1alpha1",
            "kind": "PiecedTenant",
            "name": "acme",
            "uid": "uid-1",
        },
    }


def test_the_event_is_in_the_namespace_of_its_tenant(rig: Rig) -> None:
    (event,) = rig.notify(make_outcome(make_finding(), acme=Observed(name="acme", namespace="shop", uid="uid-1")))

    assert (event["metadata"]["namespace"], event["regarding"]["namespace"]) == ("shop", "shop")


def test_the_event_of_an_absent_tenant_has_its_name_only(rig: Rig) -> None:
    (event,) = rig.notify(make_outcome(make_finding(Reason.DELETION_UNRECORDED)))

    assert event["metadata"]["namespace"] == "default"
    assert event["regarding"] == {"apiVersion": "pieced.ch/v1alpha1", "kind": "PiecedTenant", "name": "acme"}


def test_an_older_server_stores_cluster_scoped_events_in_kube_system(tmp_path: Path) -> None:
    with FakeApi(legacy_times=True) as api:
        make_sink(api.kubeconfig(tmp_path / "kubeconfig")).notify(
            make_outcome(make_finding(), acme=Observed(name="acme", uid="uid-1"))
        )

        (event,) = api.events
        assert event["metadata"]["namespace"] == "kube-system"
        assert "namespace" not in event["regarding"]


def test_a_correction_shows_states_time_evidence_and_impact(rig: Rig) -> None:
    moment = Moment(on(20, 10), on(3, 8, 30), on(20, 10), Evidence.FIELD_MANAGER)
    finding = make_finding(subject="voice", recorded="disabled", observed="enabled", moment=moment, closed_period=True)
    (event,) = rig.notify(
        make_outcome(finding._replace(impact_chf=Decimal("1.20"), impact_range=(Decimal("1.20"), Decimal("3.60"))))
    )

    assert event["note"] == (
        "voice disabled → enabled, dated 2026-02-20 10:00:00 UTC (evidence field_manager, between 2026-02-03 08:30:00 "
        "and 2026-02-20 10:00:00), CHF 1.20 (between 1.20 and 3.60) not invoiced, "
        "in a month that is closed or invoiced already. " + RUNBOOK[Reason.SKILL_ENABLE_UNRECORDED].meaning
    )


@pytest.mark.parametrize(
    ("evidence", "first", "says"),
    [
        (Evidence.NONE, 15, "(no evidence, between 2026-02-15 00:00:00 and 2026-02-20 00:00:00)"),
        (Evidence.DELETION, 20, "(evidence deletion)"),
    ],
)
def test_a_time_says_how_certain_it_is(rig: Rig, evidence: Evidence, first: int, says: str) -> None:
    moment = Moment(on(20), on(first), on(20), evidence)
    (event,) = rig.notify(
        make_outcome(make_finding(Reason.DELETION_UNRECORDED, moment=moment, recorded="open", observed="gone"))
    )

    assert event["note"].startswith(f"open → gone, dated 2026-02-20 00:00:00 UTC {says}. ")


@pytest.mark.parametrize("reason", Reason)
def test_every_event_has_the_meaning_and_a_report_its_remedy(rig: Rig, reason: Reason) -> None:
    """Commands contain the tenant's name, so that they can be copied."""
    (event,) = rig.notify(make_outcome(make_finding(reason, recorded="one", observed="two")))

    assert event["reason"] == reason
    assert event["note"].startswith(f"one → two. {RUNBOOK[reason].meaning}")
    remedy = RUNBOOK[reason].remedy.replace("TENANT", "acme")
    assert event["note"].endswith(remedy) == (not reason.corrects)


def test_a_remedy_names_the_command_for_this_tenant(rig: Rig) -> None:
    (event,) = rig.notify(make_outcome(make_finding(Reason.TENANT_RECREATED, "beta")))

    assert "`reconciler reopen beta`" in event["note"]


def test_a_stopped_run_gets_one_event_on_the_resource_definition(rig: Rig) -> None:
    """Nothing was written, so its findings get no Event."""
    stopped = replace(
        make_outcome(make_finding()), result=Result.BLOCKED, failure=Refusal("The list is empty.", "Look.")
    )
    (event,) = rig.notify(stopped)

    assert (event["reason"], event["action"], event["note"]) == ("blocked", "report", "The list is empty. Look.")
    assert event["metadata"]["namespace"] == "default"
    assert event["regarding"] == {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "name": "piecedtenants.pieced.ch",
    }


def test_the_reason_for_a_stop_fits_on_one_line(rig: Rig) -> None:
    failure = Refusal("It said:\n\x1b[31m" + "é" * MAX_NOTE_BYTES, "Look.")
    (event,) = rig.notify(replace(make_outcome(), result=Result.FAILED, failure=failure))

    assert event["note"].startswith("It said:\\n\\x1b[31mé")
    assert event["note"].endswith("é…")
    assert MAX_NOTE_BYTES - 2 < len(event["note"].encode()) <= MAX_NOTE_BYTES


def test_the_reporting_instance_is_cut_to_its_limit(rig: Rig) -> None:
    rig.sink = replace(rig.sink, instance="pod" * 100)
    (event,) = rig.notify(make_outcome(make_finding()))

    assert event["reportingInstance"] == ("pod" * 100)[:128]


TEXT = st.text(max_size=600) | st.sampled_from([NASTY, "x" * 3000, "é" * 600, "𝄞" * 300])
FINDINGS = st.lists(
    st.builds(
        make_finding,
        reason=st.sampled_from(Reason),
        name=TEXT,
        subject=st.none() | TEXT,
        recorded=st.none() | TEXT,
        observed=st.none() | TEXT | st.just("\ud800"),
    ),
    max_size=8,
    unique_by=lambda finding: (finding.reason, finding.tenant, finding.subject or ""),
)


@settings(max_examples=40)
@given(findings=FINDINGS)
def test_an_event_is_valid_and_plain_for_any_name(rig: Rig, findings: list[Finding]) -> None:
    """The API server accepts each Event, under its own name, with a note on one line within the limit."""
    rig.api.events.clear()
    created = rig.notify(make_outcome(*findings, run_id=uuid4()))

    assert [event["reason"] for event in created] == [finding.reason for finding in findings]
    assert len({event["metadata"]["name"] for event in created}) == len(findings)
    for event in created:
        assert event["note"].isprintable()
        assert len(event["note"].encode()) <= MAX_NOTE_BYTES


# --- how many Events there are -----------------------------------------------------------------------------------


def test_notifying_twice_adds_no_event(rig: Rig) -> None:
    outcome = make_outcome(make_finding(), make_finding(subject="voice"), make_finding(Reason.TENANT_UNRECORDED))
    rig.notify(outcome)
    before = list(rig.api.events)

    assert rig.notify(outcome) == before
    assert len(before) == 3


def test_the_same_finding_of_another_run_is_another_event(rig: Rig) -> None:
    rig.notify(make_outcome(make_finding()))

    assert len(rig.notify(make_outcome(make_finding(), run_id=uuid4()))) == 2


@pytest.mark.parametrize("effect", [f.hang_up(), f.reset(), f.status(503), f.too_many_requests("0"), f.cut_length()])
def test_an_event_stored_without_an_answer_is_not_duplicated(rig: Rig, effect: f.Effect) -> None:
    """The double strikes after it has stored the Event, as the worst proxy would."""
    rig.api.faults.append(Fault(effect, when=creates_event))
    (event,) = rig.notify(make_outcome(make_finding()))

    assert event["reason"] == "skill_enable_unrecorded"
    assert [request.answered for request in rig.posts][1:] == [409]


def test_a_thousand_findings_make_a_bounded_number_of_requests(rig: Rig) -> None:
    """The first hundred get an Event each; the rest get one for each reason, with a count and the first names."""
    reasons = [*Reason]
    findings = [make_finding(reasons[n % len(reasons)], f"t{n:04}", subject="voice") for n in range(1000)]
    created = rig.notify(make_outcome(*findings))

    assert len(rig.api.requests) <= MAX_EVENTS + len(Reason) + 3
    assert [event["regarding"]["name"] for event in created[:MAX_EVENTS]] == [
        finding.tenant for finding in findings[:MAX_EVENTS]
    ]
    rest = created[MAX_EVENTS:]
    assert sorted(event["reason"] for event in rest) == sorted(Reason)
    assert {event["regarding"]["name"] for event in rest} == {"piecedtenants.pieced.ch"}
    assert sum(int(event["note"].split()[0]) for event in rest) == 1000 - MAX_EVENTS
    of = {event["reason"]: event for event in rest}
    assert of["event_time_invalid"]["action"] == "report"
    more = [f.tenant for f in findings[MAX_EVENTS:] if f.reason is Reason.EVENT_TIME_INVALID]
    assert of["event_time_invalid"]["note"] == (
        f"{len(more)} more reports are shown by `reconciler status`, about {len(more)} tenants: "
        f"{', '.join(more[:5])}, …. {RUNBOOK[Reason.EVENT_TIME_INVALID].meaning}"
    )
    assert of["tenant_unrecorded"]["action"] == "insert"
    more = [f.tenant for f in findings[MAX_EVENTS:] if f.reason is Reason.TENANT_UNRECORDED]
    assert of["tenant_unrecorded"]["note"].startswith(
        f"{len(more)} more corrections are in reconciler.corrections under the run {RUN}, about {len(more)} tenants: "
        f"{more[0]}, "
    )


def test_a_hundred_findings_get_an_event_each(rig: Rig) -> None:
    created = rig.notify(make_outcome(*(make_finding(name=f"t{n:04}") for n in range(MAX_EVENTS))))

    assert {event["regarding"]["kind"] for event in created} == {"PiecedTenant"}
    assert len(created) == MAX_EVENTS


def test_the_discovery_of_the_run_is_not_repeated(rig: Rig) -> None:
    rig.sink.resource.discover()
    rig.api.requests.clear()
    rig.notify(make_outcome(make_finding()))

    assert [(request.method, request.path) for request in rig.api.requests] == [("POST", PATH)]


# --- Events that are not accepted --------------------------------------------------------------------------------


def test_without_permission_the_sink_names_the_role_and_stops(rig: Rig) -> None:
    denial = refuse("events.events.k8s.io is forbidden", group="events.k8s.io", kind="events")
    rig.api.faults.append(Fault(denial, when=creates_event, times=None))

    message = rig.notify_in_vain(
        make_outcome(*(make_finding(name=name) for name in "abc")), "events.events.k8s.io is forbidden"
    )

    assert "Apply the ClusterRole" in message
    assert len(rig.posts) == 1


def test_a_server_without_the_api_is_asked_once(rig: Rig) -> None:
    missing = f.text("404 page not found", 404)
    rig.api.faults.append(Fault(missing, when=creates_event, times=None))

    rig.notify_in_vain(make_outcome(make_finding(), make_finding(name="beta")), "has no events.k8s.io/v1")

    assert len(rig.posts) == 1


def test_requests_to_a_stopped_server_are_retried_and_then_fail(rig: Rig) -> None:
    rig.sink.resource.discover()
    rig.api.stop()

    rig.notify_in_vain(
        make_outcome(make_finding(), make_finding(name="beta")), "could not answer /apis/events.k8s.io/v1/"
    )


def test_a_cluster_without_the_resource_gets_no_event(rig: Rig) -> None:
    rig.api.installed = False

    rig.notify_in_vain(make_outcome(make_finding()), "has no resource piecedtenants.pieced.ch")


@pytest.mark.parametrize("effect", [f.html(), f.empty(), f.text(), f.status_with_200(), f.body(b"null")])
def test_a_response_without_an_event_is_not_believed(rig: Rig, effect: f.Effect) -> None:
    rig.api.faults.append(Fault(effect, when=creates_event, times=None))

    rig.notify_in_vain(make_outcome(make_finding()), "cannot be trusted")


def test_a_redirect_is_not_followed(rig: Rig) -> None:
    rig.api.faults.append(Fault(f.redirect(rig.api.url + PATH), when=creates_event, times=None))

    rig.notify_in_vain(make_outcome(make_finding()), "answered 302")

    assert len(rig.posts) == 1


def test_one_refused_event_does_not_stop_the_others(rig: Rig) -> None:
    """For example, a namespace that is being deleted accepts no new Event."""
    answer = json.loads(f.status_body(403, "namespace shop is being terminated")) | {
        "details": {"name": "reconciler.x"}
    }
    rig.api.faults.append(Fault(f.status(403, body=json.dumps(answer).encode()), when=creates_event, skip=1))

    rig.notify_in_vain(
        make_outcome(*(make_finding(name=name) for name in "abc")), "refused 1 of 3 Events: 403 namespace shop is being"
    )

    assert len(rig.posts) == 3


def test_a_server_that_stalls_is_given_up_in_time(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "NOTIFY_SECONDS", 0.5)
    rig.api.faults.append(Fault(f.stall(), when=creates_event, times=None))

    began = time.monotonic()
    rig.notify_in_vain(
        make_outcome(make_finding(), make_finding(name="beta")), "did not accept the Events within 0.5 s"
    )

    assert time.monotonic() - began < 20


def test_events_are_created_after_the_deadline_of_the_run(rig: Rig, tmp_path: Path) -> None:
    over = make_sink(rig.api.kubeconfig(tmp_path / "again"), Deadline.after(-1))

    over.notify(make_outcome(make_finding()))

    assert len(rig.api.events) == 1


def test_no_failure_shows_the_token(rig: Rig) -> None:
    rig.api.faults.append(Fault(f.status(401, "Unauthorized"), when=creates_event, times=None))

    assert "secret-token" not in rig.notify_in_vain(make_outcome(make_finding()), "(401)")


def test_the_sink_only_creates_events(rig: Rig) -> None:
    rig.api.create(tenant("acme"))
    before = rig.api.get("acme")
    rig.notify(make_outcome(make_finding(), acme=Observed(name="acme", uid="uid-1")))

    assert {(request.method, request.path) for request in rig.api.requests if request.method != "GET"} == {
        ("POST", PATH)
    }
    assert rig.api.get("acme") == before
