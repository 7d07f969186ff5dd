"""cronjob.yaml as a real API server sees it: no field is unknown, and its pod may run where the least is allowed."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml

from tests.support.fixtures import on_a_real_server
from tests.support.pages import ROOT, manifests

if TYPE_CHECKING:
    from tests.support.api_state import Object
    from tests.support.harness import RealCluster

MANIFESTS: Final[list[Object]] = list(yaml.safe_load_all((ROOT / "cronjob.yaml").read_text(encoding="utf-8")))
*_, CRONJOB = MANIFESTS
NAMESPACE: Final = CRONJOB["metadata"]["namespace"]
BESIDE: Final = [
    one | {"metadata": one["metadata"] | {"namespace": NAMESPACE}}
    for one in manifests("docs/gitops.md")
    if one["kind"] in {"Job", "NetworkPolicy"}
]
"""What an overlay adds."""
RESTRICTED: Final = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {
        "name": NAMESPACE,
        # what is enforced of a pod is warned of where a CronJob has such a pod
        "labels": {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")},
    },
}
OLDEST: Final = 29
"""The manifest's own oldest minor version of Kubernetes."""


@pytest.fixture
def server(real_cluster: RealCluster) -> RealCluster:
    """A server that the manifest is for, with its namespace, where the restricted standard is enforced."""
    if real_cluster.minor < OLDEST:
        pytest.skip(f"cronjob.yaml is for Kubernetes 1.{OLDEST} and newer, and this is 1.{real_cluster.minor}")
    real_cluster.add(RESTRICTED)
    return real_cluster


def _cronjob(**pod: Any) -> Object:
    """Return the CronJob with other fields in its pod."""
    changed = copy.deepcopy(CRONJOB)
    changed["spec"]["jobTemplate"]["spec"]["template"]["spec"].update(pod)
    return changed


def _pod(**fields: Any) -> Object:
    """Return the pod that the CronJob's jobs make, with other fields."""
    template = _cronjob(**fields)["spec"]["jobTemplate"]["spec"]["template"]
    metadata = template["metadata"] | {"name": "reconciler-1", "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


@on_a_real_server
@pytest.mark.parametrize("manifest", MANIFESTS + BESIDE, ids=lambda manifest: manifest["kind"])
def test_the_server_accepts_every_object_strictly_and_warns_of_nothing(server: RealCluster, manifest: Object) -> None:
    answer = server.judge(manifest)
    assert (answer.status, answer.headers.get("warning")) == (201, None), answer.body


@on_a_real_server
def test_the_server_refuses_a_misspelt_field(server: RealCluster) -> None:
    answer = server.judge(_cronjob(enableServiceLink=False))
    assert (answer.status, "unknown field" in answer.json()["message"]) == (400, True)


@on_a_real_server
def test_the_pod_is_admitted_where_the_restricted_standard_is_enforced(server: RealCluster) -> None:
    answer = server.judge(_pod())
    assert (answer.status, answer.headers.get("warning")) == (201, None), answer.body


@on_a_real_server
def test_the_server_warns_of_a_looser_job_and_refuses_its_pod(server: RealCluster) -> None:
    loose = {"securityContext": {"runAsNonRoot": True}}
    assert "would violate PodSecurity" in server.judge(_cronjob(**loose)).headers["warning"]
    refused = server.judge(_pod(**loose))
    assert (refused.status, "seccompProfile" in refused.json()["message"]) == (403, True)
