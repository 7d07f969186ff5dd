"""Events are there where `kubectl describe` looks for them: on the double, and on a real API server."""

from __future__ import annotations

import copy
import time
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import pytest
import yaml

from reconciler.alerts import Undelivered
from reconciler.alerts.events import MAX_EVENTS, Events
from reconciler.core.model import Action, Evidence, Finding, Mode, Moment, Observed, Outcome, Result
from reconciler.core.reasons import Reason
from reconciler.deadline import Deadline
from reconciler.sources.api_client import Api, CustomResource
from tests.support.api_state import tenant
from tests.support.fixtures import on_a_real_server
from tests.support.harness import CRD, PATIENCE, Connection

if TYPE_CHECKING:
    from tests.support.api_state import Object
    from tests.support.harness import Cluster, RealCluster

NOW: Final = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
SHOP: Final = "kube-public"
"""A namespace that every cluster has, and that holds nothing else."""


def found(reason: Reason, name: str, **more: Any) -> Finding:
    """Return a finding that was corrected."""
    moment = Moment(NOW, NOW, NOW, Evidence.DELETION)
    facts = {"org": "2871", "action": Action.APPEND, "recorded": "disabled", "observed": "enabled", "moment": moment}
    return Finding(**{"reason": reason, "tenant": name} | facts | more)


def outcome(*findings: Finding, **observed: Observed) -> Outcome:
    """Return the outcome of a run that found this."""
    return Outcome(run_id=uuid4(), mode=Mode.RUN, result=Result.CORRECTED, findings=findings, observed=observed)


def sink(cluster: Cluster, group: str = "pieced.ch") -> Events:
    """Return a sink on this cluster."""
    api = Api(kubeconfig=str(cluster.kubeconfig), context=None, deadline=Deadline.after(PATIENCE))
    resource = CustomResource(api=api, group=group, plural="piecedtenants")
    return Events(resource=resource, instance="reconciler-1", now=lambda: NOW)


def seen(shown: Object) -> Observed:
    """Return a resource as a run observes it, as far as it matters here."""
    metadata = shown["metadata"]
    return Observed(name=metadata["name"], namespace=metadata.get("namespace", ""), uid=metadata["uid"])


def described(cluster: Cluster, shown: Object) -> list[tuple[str, str]]:
    """Return reason and message of the Events that `kubectl describe` shows of a resource, by its own selector.

    It looks in all namespaces for what is in none, and there for an Event whose object is in none, too (searchEvents in
    https://github.com/kubernetes/kubectl/blob/master/pkg/describe/describe.go).
    """
    metadata = shown["metadata"]
    selector = {
        "involvedObject.name": metadata["name"],
        "involvedObject.namespace": metadata.get("namespace", ""),
        "involvedObject.kind": shown["kind"],
        "involvedObject.uid": metadata["uid"],
    }
    return selected(cluster, selector, metadata.get("namespace"))


def selected(cluster: Cluster, selector: dict[str, str], namespace: str | None = None) -> list[tuple[str, str]]:
    """Return reason and message of the Events that a field selector finds."""
    within = f"/namespaces/{namespace}" if namespace else ""
    fields = ",".join(f"{name}={value}" for name, value in selector.items())
    answer = cluster.fetch(f"/api/v1{within}/events", fieldSelector=fields)
    assert answer.status == 200, answer.body
    return [(item["reason"], item["message"]) for item in answer.json()["items"]]


def test_describing_a_tenant_shows_what_was_found_of_it_alone(cluster: Cluster) -> None:
    """Not what was found of another, nor of an earlier tenant of the same name."""
    acme, beta = (cluster.create(tenant(name)) for name in ("acme", "beta"))
    earlier = Observed(name="acme", uid=str(uuid4()))

    sink(cluster).notify(outcome(found(Reason.DELETION_UNRECORDED, "acme"), acme=earlier))
    sink(cluster).notify(
        outcome(
            found(Reason.SKILL_ENABLE_UNRECORDED, "acme", subject="voice"),
            found(Reason.TENANT_RECREATED, "beta", action=Action.REPORT, moment=None),
            acme=seen(acme),
            beta=seen(beta),
        )
    )

    ((reason, message),) = described(cluster, acme)
    assert reason == "skill_enable_unrecorded"
    assert message.startswith("voice disabled → enabled, dated 2026-03-01 09:30:00 UTC (evidence deletion). The skill ")
    assert [reason for reason, _ in described(cluster, beta)] == ["tenant_recreated"]


def test_an_absent_tenant_is_found_by_its_name(cluster: Cluster) -> None:
    sink(cluster).notify(outcome(found(Reason.DELETION_UNRECORDED, "gone")))

    assert [reason for reason, _ in selected(cluster, {"involvedObject.name": "gone"})] == ["deletion_unrecorded"]


def test_to_tell_the_same_again_adds_no_event_to_the_cluster(cluster: Cluster) -> None:
    message = outcome(found(Reason.DELETION_UNRECORDED, "gone"))
    for _ in range(2):
        sink(cluster).notify(message)

    assert len(selected(cluster, {"involvedObject.name": "gone"})) == 1


def test_a_thousand_findings_are_few_events(cluster: Cluster) -> None:
    reasons = (Reason.SKILL_ENABLE_UNRECORDED, Reason.SKILL_DISABLE_UNRECORDED)
    findings = [found(reasons[number % 2], f"t{number:04}") for number in range(1000)]

    sink(cluster).notify(outcome(*findings))

    message = selected(cluster, {"involvedObject.kind": "PiecedTenant"})
    assert Counter(reason for reason, _ in message) == Counter(finding.reason for finding in findings[:MAX_EVENTS])
    rest = selected(cluster, {"involvedObject.name": "piecedtenants.pieced.ch"})
    assert sorted(reason for reason, _ in rest) == sorted(reasons)
    assert {message.partition(" under ")[0] for _, message in rest} == {
        "450 more corrections are in reconciler.corrections"
    }


@pytest.mark.parametrize("text", ["", "\x1b[31m\n\x00", "Ünï/…", "x" * 3000, "é" * 600, "𝄞" * 300])
def test_the_server_takes_whatever_the_ledger_or_a_tenant_may_hold(cluster: Cluster, text: str) -> None:
    report = {"action": Action.REPORT, "moment": None, "recorded": text, "observed": text}
    sink(cluster).notify(outcome(found(Reason.EVENT_TIME_INVALID, text, subject=text, **report)))

    ((_, message),) = selected(cluster, {"involvedObject.kind": "PiecedTenant"})
    assert message.isprintable()


@on_a_real_server
def test_a_missing_namespace_does_not_stop_the_other_events(real_cluster: RealCluster) -> None:
    lost = Observed(name="lost", namespace="nowhere", uid=str(uuid4()))
    message = outcome(found(Reason.ORG_MOVED, "lost"), found(Reason.DELETION_UNRECORDED, "gone"), lost=lost)

    with pytest.raises(Undelivered, match=r'refused 1 of 2 Events: 404 namespaces "nowhere" not found\.'):
        sink(real_cluster).notify(message)

    assert len(selected(real_cluster, {"involvedObject.name": "gone"})) == 1


# tenants that are in namespaces


def in_namespaces() -> Object:
    """Return the CustomResourceDefinition with another group, of which each tenant is in a namespace."""
    definition: Object = copy.deepcopy(yaml.safe_load(CRD.read_text()))
    definition["metadata"]["name"] = "piecedtenants.spaced.pieced.ch"
    definition["spec"] |= {"group": "spaced.pieced.ch", "scope": "Namespaced"}
    return definition


@on_a_real_server
def test_describing_a_tenant_in_a_namespace_shows_what_was_found_of_it(real_cluster: RealCluster) -> None:
    real_cluster.add(in_namespaces())
    group, within = "spaced.pieced.ch", f"namespaces/{SHOP}"
    resource = {"apiVersion": f"{group}/v1alpha1", "kind": "PiecedTenant", "metadata": {"name": "acme"}}
    until = time.monotonic() + PATIENCE
    with Connection(real_cluster.kubeconfig) as server:
        while (
            created := server.send("POST", f"/apis/{group}/v1alpha1/{within}/piecedtenants", resource)
        ).status != 201:
            assert time.monotonic() < until, created.body
            time.sleep(0.1)
        acme = created.json()

        sink(real_cluster, group).notify(outcome(found(Reason.ORG_MOVED, "acme"), acme=seen(acme)))

        assert [reason for reason, _ in described(real_cluster, acme)] == ["org_moved"]
        assert server.send("DELETE", f"/apis/events.k8s.io/v1/{within}/events").status == 200
