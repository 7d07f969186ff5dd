"""Kubernetes Events: what they say of each finding, how many there are, and what is said where they are not taken."""

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
from reconciler.alerts.events import LONGEST_NOTE, MOST, Events
from reconciler.core.errors import Refusal
from reconciler.core.model import Action, Evidence, Finding, Mode, Moment, Observed, Outcome, Result
from reconciler.core.reasons import RUNBOOK, Reason
from reconciler.deadline import Deadline
from reconciler.sources.api_client import Api
from reconciler.sources.cluster import Cluster
from tests.support import faults as f
from tests.support.double import ApiDouble
from tests.support.faults import Fault
from tests.support.world import ORG_LABEL, tenant

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


def found(reason: Reason = Reason.SKILL_ENABLE_UNRECORDED, name: str = "acme", **more: Any) -> Finding:
    """Return a finding: of what is corrected, as it was corrected."""
    action = ACTIONS.get(reason, Action.APPEND) if reason.corrects else Action.REPORT
    return Finding(**{"reason": reason, "tenant": name, "org": "2871", "action": action} | more)


def outcome(*findings: Finding, run_id: UUID = RUN, **observed: Observed) -> Outcome:
    """Return the outcome of a pass that found this."""
    return Outcome(run_id=run_id, mode=Mode.RUN, result=Result.CORRECTED, findings=findings, observed=observed)


@dataclass
class Stage:
    """An API server, and the sink that tells it."""

    api: ApiDouble
    sink: Events

    @property
    def posts(self) -> list[Request]:
        """The requests that would create an Event."""
        return [request for request in self.api.requests if request.method == "POST"]

    def tell(self, told: Outcome) -> list[dict[str, Any]]:
        """Tell it, and return what the API server holds."""
        self.sink.tell(told)
        return self.api.events

    def fails(self, told: Outcome, says: str) -> str:
        """Tell it in vain, and return what the sink says of that."""
        with pytest.raises(Undelivered) as undelivered:
            self.sink.tell(told)
        assert says in str(undelivered.value)
        return str(undelivered.value)


def sink(kubeconfig: Path | str, deadline: Deadline | None = None) -> Events:
    """Return a sink that reports as the pod reconciler-1."""
    api = Api(kubeconfig=str(kubeconfig), context=None, deadline=deadline or Deadline.after(60))
    cluster = Cluster(api=api, group="pieced.ch", plural="piecedtenants", org_label=ORG_LABEL)
    return Events(cluster=cluster, instance="reconciler-1", now=lambda: NOW)


@pytest.fixture
def stage(api: ApiDouble, tmp_path: Path) -> Iterator[Stage]:
    """Requests are tried three times, without waiting in between."""
    with stamina.set_testing(True, attempts=3):
        yield Stage(api, sink(api.kubeconfig(tmp_path / "kubeconfig")))


def posts(request: Request) -> bool:
    """Whether it would create an Event."""
    return request.method == "POST"


def refused(message: str, **details: str) -> f.Effect:
    """403, with what it is about."""
    body = json.loads(f.status_body(403, message)) | {"details": details}
    return f.status(403, body=json.dumps(body).encode())


# what an Event says


def test_a_correction_is_an_event_on_the_tenant(stage: Stage) -> None:
    """Who, what, when and why stand where Kubernetes has a place for them."""
    (event,) = stage.tell(outcome(found(subject="voice"), acme=Observed(name="acme", uid="uid-1")))

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


def test_the_event_of_a_tenant_in_a_namespace_is_there_too(stage: Stage) -> None:
    (event,) = stage.tell(outcome(found(), acme=Observed(name="acme", namespace="shop", uid="uid-1")))

    assert (event["metadata"]["namespace"], event["regarding"]["namespace"]) == ("shop", "shop")


def test_the_event_of_an_absent_tenant_knows_it_by_name_alone(stage: Stage) -> None:
    (event,) = stage.tell(outcome(found(Reason.DELETION_UNRECORDED)))

    assert event["metadata"]["namespace"] == "default"
    assert event["regarding"] == {"apiVersion": "pieced.ch/v1alpha1", "kind": "PiecedTenant", "name": "acme"}


def test_an_older_server_keeps_what_is_in_no_namespace_in_kube_system(tmp_path: Path) -> None:
    with ApiDouble(legacy_times=True) as api:
        sink(api.kubeconfig(tmp_path / "kubeconfig")).tell(outcome(found(), acme=Observed(name="acme", uid="uid-1")))

        (event,) = api.events
        assert event["metadata"]["namespace"] == "kube-system"
        assert "namespace" not in event["regarding"]


def test_a_correction_tells_its_states_its_moment_its_evidence_and_its_worth(stage: Stage) -> None:
    moment = Moment(on(20, 10), on(3, 8, 30), on(20, 10), Evidence.FIELD_MANAGER)
    finding = found(subject="voice", recorded="disabled", observed="enabled", moment=moment, closed_period=True)
    (event,) = stage.tell(
        outcome(finding._replace(impact_chf=Decimal("1.20"), impact_range=(Decimal("1.20"), Decimal("3.60"))))
    )

    assert event["note"] == (
        "voice disabled → enabled, dated 2026-02-20 10:00:00 UTC (evidence field_manager, between 2026-02-03 08:30:00 "
        "and 2026-02-20 10:00:00), CHF 1.20 (between 1.20 and 3.60) not invoiced, in a month that is invoiced already. "
        + RUNBOOK[Reason.SKILL_ENABLE_UNRECORDED].meaning
    )


@pytest.mark.parametrize(
    ("evidence", "first", "says"),
    [
        (Evidence.NONE, 15, "(no evidence, between 2026-02-15 00:00:00 and 2026-02-20 00:00:00)"),
        (Evidence.DELETION, 20, "(evidence deletion)"),
    ],
)
def test_a_moment_says_how_sure_it_is(stage: Stage, evidence: Evidence, first: int, says: str) -> None:
    moment = Moment(on(20), on(first), on(20), evidence)
    (event,) = stage.tell(outcome(found(Reason.DELETION_UNRECORDED, moment=moment, recorded="open", observed="gone")))

    assert event["note"].startswith(f"open → gone, dated 2026-02-20 00:00:00 UTC {says}. ")


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_told_with_what_it_means_and_a_report_with_what_to_do(stage: Stage, reason: Reason) -> None:
    """Commands name the tenant, so that they can be copied."""
    (event,) = stage.tell(outcome(found(reason, recorded="one", observed="two")))

    assert event["reason"] == reason
    assert event["note"].startswith(f"one → two. {RUNBOOK[reason].meaning}")
    remedy = RUNBOOK[reason].remedy.replace("TENANT", "acme")
    assert event["note"].endswith(remedy) == (not reason.corrects)


def test_a_remedy_names_the_command_for_this_tenant(stage: Stage) -> None:
    (event,) = stage.tell(outcome(found(Reason.TENANT_RECREATED, "beta")))

    assert "`reconciler reopen beta`" in event["note"]


def test_a_pass_that_was_stopped_is_told_on_the_resource_definition_and_nothing_it_found_is(stage: Stage) -> None:
    """Nothing was written: whatever it found was not corrected."""
    stopped = replace(outcome(found()), result=Result.BLOCKED, failure=Refusal("The list is empty.", "Look."))
    (event,) = stage.tell(stopped)

    assert (event["reason"], event["action"], event["note"]) == ("blocked", "report", "The list is empty. Look.")
    assert event["metadata"]["namespace"] == "default"
    assert event["regarding"] == {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "name": "piecedtenants.pieced.ch",
    }


def test_what_stopped_a_pass_is_told_on_one_line_that_fits(stage: Stage) -> None:
    failure = Refusal("It said:\n\x1b[31m" + "é" * LONGEST_NOTE, "Look.")
    (event,) = stage.tell(replace(outcome(), result=Result.FAILED, failure=failure))

    assert event["note"].startswith("It said:\\n\\x1b[31mé")
    assert event["note"].endswith("é…")
    assert LONGEST_NOTE - 2 < len(event["note"].encode()) <= LONGEST_NOTE


def test_the_reporting_instance_is_no_longer_than_it_may_be(stage: Stage) -> None:
    stage.sink = replace(stage.sink, instance="pod" * 100)
    (event,) = stage.tell(outcome(found()))

    assert event["reportingInstance"] == ("pod" * 100)[:128]


TEXT = st.text(max_size=600) | st.sampled_from([NASTY, "x" * 3000, "é" * 600, "𝄞" * 300])
FINDINGS = st.lists(
    st.builds(
        found,
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
def test_whatever_a_tenant_is_called_its_event_is_valid_and_plain(stage: Stage, findings: list[Finding]) -> None:
    """The API server takes each of them, under a name of its own, with a note on one line that fits."""
    stage.api.events.clear()
    told = stage.tell(outcome(*findings, run_id=uuid4()))

    assert [event["reason"] for event in told] == [finding.reason for finding in findings]
    assert len({event["metadata"]["name"] for event in told}) == len(findings)
    for event in told:
        assert event["note"].isprintable()
        assert len(event["note"].encode()) <= LONGEST_NOTE


# how many there are


def test_to_tell_the_same_again_adds_no_event(stage: Stage) -> None:
    told = outcome(found(), found(subject="voice"), found(Reason.TENANT_UNRECORDED))
    stage.tell(told)
    before = list(stage.api.events)

    assert stage.tell(told) == before
    assert len(before) == 3


def test_the_same_finding_of_another_pass_is_another_event(stage: Stage) -> None:
    stage.tell(outcome(found()))

    assert len(stage.tell(outcome(found(), run_id=uuid4()))) == 2


@pytest.mark.parametrize("effect", [f.hang_up(), f.reset(), f.status(503), f.too_many_requests("0"), f.cut_length()])
def test_an_event_that_was_taken_without_an_answer_is_there_once(stage: Stage, effect: f.Effect) -> None:
    """The double strikes after it has stored the Event, as the worst proxy would."""
    stage.api.faults.append(Fault(effect, when=posts))
    (event,) = stage.tell(outcome(found()))

    assert event["reason"] == "skill_enable_unrecorded"
    assert [request.answered for request in stage.posts][1:] == [409]


def test_a_thousand_findings_are_a_bounded_number_of_requests(stage: Stage) -> None:
    """The first hundred are told one by one; of the rest every reason says how many, and names the first."""
    reasons = [*Reason]
    findings = [found(reasons[n % len(reasons)], f"t{n:04}", subject="voice") for n in range(1000)]
    told = stage.tell(outcome(*findings))

    assert len(stage.api.requests) <= MOST + len(Reason) + 3
    assert [event["regarding"]["name"] for event in told[:MOST]] == [finding.tenant for finding in findings[:MOST]]
    rest = told[MOST:]
    assert sorted(event["reason"] for event in rest) == sorted(Reason)
    assert {event["regarding"]["name"] for event in rest} == {"piecedtenants.pieced.ch"}
    assert sum(int(event["note"].split()[0]) for event in rest) == 1000 - MOST
    of = {event["reason"]: event for event in rest}
    assert of["event_time_invalid"]["action"] == "report"
    assert of["event_time_invalid"]["note"] == (
        "60 more reports are shown by `reconciler status`. Of 60 tenants: t0104, t0119, t0134, t0149, t0164, …. "
        + RUNBOOK[Reason.EVENT_TIME_INVALID].meaning
    )
    assert of["tenant_unrecorded"]["action"] == "insert"
    assert of["tenant_unrecorded"]["note"].startswith(
        f"60 more corrections stand in reconciler.corrections under the run {RUN}. Of 60 tenants: t0105, "
    )


def test_a_hundred_findings_are_told_one_by_one(stage: Stage) -> None:
    told = stage.tell(outcome(*(found(name=f"t{n:04}") for n in range(MOST))))

    assert {event["regarding"]["kind"] for event in told} == {"PiecedTenant"}
    assert len(told) == MOST


def test_what_the_pass_has_discovered_is_not_asked_for_again(stage: Stage) -> None:
    stage.sink.cluster.discovered()
    stage.api.requests.clear()
    stage.tell(outcome(found()))

    assert [(request.method, request.path) for request in stage.api.requests] == [("POST", PATH)]


# what becomes of those that are not taken


def test_without_the_permission_the_sink_names_the_role_and_asks_once(stage: Stage) -> None:
    denial = refused("events.events.k8s.io is forbidden", group="events.k8s.io", kind="events")
    stage.api.faults.append(Fault(denial, when=posts, times=None))

    says = stage.fails(outcome(*(found(name=name) for name in "abc")), "events.events.k8s.io is forbidden")

    assert "Apply the ClusterRole" in says
    assert len(stage.posts) == 1


def test_a_server_without_the_api_is_asked_once(stage: Stage) -> None:
    missing = f.text("404 page not found", 404)
    stage.api.faults.append(Fault(missing, when=posts, times=None))

    stage.fails(outcome(found(), found(name="beta")), "has no events.k8s.io/v1")

    assert len(stage.posts) == 1


def test_a_server_that_is_gone_is_asked_as_often_as_any_request(stage: Stage) -> None:
    stage.sink.cluster.discovered()
    stage.api.stop()

    stage.fails(outcome(found(), found(name="beta")), "could not answer /apis/events.k8s.io/v1/")


def test_a_cluster_without_the_resource_has_no_event(stage: Stage) -> None:
    stage.api.installed = False

    stage.fails(outcome(found()), "has no resource piecedtenants.pieced.ch")


@pytest.mark.parametrize("effect", [f.html(), f.empty(), f.text(), f.status_with_200(), f.body(b"null")])
def test_what_is_no_event_is_no_proof_that_one_was_created(stage: Stage, effect: f.Effect) -> None:
    stage.api.faults.append(Fault(effect, when=posts, times=None))

    stage.fails(outcome(found()), "cannot be believed")


def test_a_redirect_is_not_followed(stage: Stage) -> None:
    stage.api.faults.append(Fault(f.redirect(stage.api.url + PATH), when=posts, times=None))

    stage.fails(outcome(found()), "answered 302")

    assert len(stage.posts) == 1


def test_one_event_that_is_refused_keeps_no_other_from_being_told(stage: Stage) -> None:
    """A namespace that is being deleted, for one, takes no new Event."""
    answer = json.loads(f.status_body(403, "namespace shop is being terminated")) | {
        "details": {"name": "reconciler.x"}
    }
    stage.api.faults.append(Fault(f.status(403, body=json.dumps(answer).encode()), when=posts, skip=1))

    stage.fails(outcome(*(found(name=name) for name in "abc")), "refused 1 of 3 Events: 403 namespace shop is being")

    assert len(stage.posts) == 3


def test_a_server_that_stalls_is_left_when_the_time_is_over(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "TELLING", 0.5)
    stage.api.faults.append(Fault(f.stall(), when=posts, times=None))

    began = time.monotonic()
    stage.fails(outcome(found(), found(name="beta")), "did not take the Events within 0.5 s")

    assert time.monotonic() - began < 20


def test_a_pass_whose_time_is_over_is_told_all_the_same(stage: Stage, tmp_path: Path) -> None:
    over = sink(stage.api.kubeconfig(tmp_path / "again"), Deadline.after(-1))

    over.tell(outcome(found()))

    assert len(stage.api.events) == 1


def test_no_failure_shows_the_token(stage: Stage) -> None:
    stage.api.faults.append(Fault(f.status(401, "Unauthorized"), when=posts, times=None))

    assert "secret-token" not in stage.fails(outcome(found()), "(401)")


def test_nothing_is_asked_of_the_cluster_but_to_create_events(stage: Stage) -> None:
    stage.api.create(tenant("acme"))
    before = stage.api.get("acme")
    stage.tell(outcome(found(), acme=Observed(name="acme", uid="uid-1")))

    assert {(request.method, request.path) for request in stage.api.requests if request.method != "GET"} == {
        ("POST", PATH)
    }
    assert stage.api.get("acme") == before
