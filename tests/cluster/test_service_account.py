"""With the rights that cronjob.yaml and sql/roles.sql give, a run does all it has to; with one fewer, it says so."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml

from reconciler.core.model import LogRead
from reconciler.db.connection import connect
from reconciler.deadline import Deadline
from reconciler.sources.api_client import Api, CustomResource
from reconciler.sources.cluster import Cluster
from tests.support.api_state import ORG_LABEL, tenant
from tests.support.fixtures import on_a_real_server
from tests.support.harness import TENANTS, Connection
from tests.support.ledger_rows import PUBLIC, all_rows, billing_rows, untouched
from tests.support.population import FINALIZER

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.api_state import Object
    from tests.support.harness import RealCluster

ACCOUNT: Final = "reconciler"
NAMESPACE: Final = "pieced-billing"
CORRECTIONS: Final = {
    "tenant_unrecorded",
    "deletion_unrecorded",
    "skill_enable_unrecorded",
    "skill_disable_unrecorded",
    "skill_open_after_deletion",
    "suspension_unrecorded",
    "resumption_unrecorded",
    "org_resolved",
}


def _manifests() -> list[Object]:
    """The namespace that cronjob.yaml asks for first, and its ServiceAccount, ClusterRole and ClusterRoleBinding."""
    text = (Path(__file__).parents[2] / "cronjob.yaml").read_text()
    documents = [one for one in yaml.safe_load_all(text) if one["kind"] != "CronJob"]
    assert [one["kind"] for one in documents] == ["ServiceAccount", "ClusterRole", "ClusterRoleBinding"]
    return [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}, *documents]


def _without(group: str, resource: str, verb: str) -> list[Object]:
    """The same with one permission taken away."""
    manifests = copy.deepcopy(_manifests())
    (role,) = (one for one in manifests if one["kind"] == "ClusterRole")
    (rule,) = (one for one in role["rules"] if group in one["apiGroups"] and resource in one["resources"])
    rule["verbs"].remove(verb)
    role["rules"] = [one for one in role["rules"] if one["verbs"]]
    return manifests


def _run(url: str, kubeconfig: Path) -> subprocess.CompletedProcess[str]:
    """Run the installed command in an environment that has nothing else in it."""
    return subprocess.run(
        [sys.executable, "-m", "reconciler", "run", "--settle", "0s", "--output", "json", "--kubeconfig", kubeconfig],
        env={"DATABASE_URL": url, "PATH": os.environ["PATH"], "HOME": str(kubeconfig.parent)},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


def _act(cluster: RealCluster, manifests: list[Object], directory: Path, ready: dict[str, int]) -> Path:
    """Become the ServiceAccount, once the server has taken note of what it may do."""
    kubeconfig = cluster.act_as(manifests, name=ACCOUNT, namespace=NAMESPACE, directory=directory)
    until = time.monotonic() + 20
    with Connection(kubeconfig) as connection:
        while any(connection.send("GET", path).status != status for path, status in ready.items()):
            assert time.monotonic() < until, {path: connection.send("GET", path).status for path in ready}
            time.sleep(0.05)
    return kubeconfig


NAMESPACE_PATH: Final = "/api/v1/namespaces/kube-system"
ONE_PATH: Final = f"{TENANTS}/nobody"
WATCH_PATH: Final = f"{TENANTS}?watch=true&resourceVersion=1&timeoutSeconds=1"
ALL: Final = {NAMESPACE_PATH: 200, TENANTS: 200, ONE_PATH: 404, WATCH_PATH: 200}


def _before(cluster: RealCluster) -> None:
    """What there is before the first run."""
    for name in ("acme", "paused"):
        cluster.create(tenant(name, ["mail", "threema"], org="1", suspend=name == "paused"))
    cluster.create(tenant("lingering", ["mail"], org="1", finalizers=[FINALIZER]))
    cluster.create(tenant("gone", ["mail"], org="1"))
    cluster.create(tenant("nameless", org=None))


def _lost(cluster: RealCluster) -> None:
    """One lost write of every kind."""
    cluster.create(tenant("newcomer", ["mail"], org="1"))
    cluster.patch("acme", {"spec": {"packages": ["mail", "voice"], "suspend": True}})
    cluster.patch("paused", {"spec": {"suspend": False}})
    cluster.patch("nameless", {"metadata": {"labels": {ORG_LABEL: "7"}}})
    cluster.delete("lingering")
    cluster.delete("gone")


def _allowed(cluster: RealCluster, kubeconfig: Path) -> set[tuple[str, str, str, str]]:
    """Return group, resource, verb and name of all that the API server lets this user do; paths have no group."""
    said = cluster.rules_of(kubeconfig, NAMESPACE)
    assert said["incomplete"] is False
    paths = {
        ("", path, verb, "*")
        for rule in said["nonResourceRules"]
        for path in rule["nonResourceURLs"]
        for verb in rule["verbs"]
    }
    return paths | {
        (group, resource, verb, name)
        for rule in said["resourceRules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", ["*"])
    }


@on_a_real_server
def test_the_server_allows_the_account_what_a_run_asks_alone(real_cluster: RealCluster, tmp_path: Path) -> None:
    """Beside what it allows every account, and in a namespace that is the job's own."""
    kubeconfig = _act(real_cluster, _manifests(), tmp_path, ALL)
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "nobody", "namespace": NAMESPACE}}
    nobody = real_cluster.act_as([account], name="nobody", namespace=NAMESPACE, directory=tmp_path)

    assert _allowed(real_cluster, kubeconfig) - _allowed(real_cluster, nobody) == {
        ("pieced.ch", "piecedtenants", "list", "*"),
        ("pieced.ch", "piecedtenants", "get", "*"),
        ("pieced.ch", "piecedtenants", "watch", "*"),
        ("", "namespaces", "get", "kube-system"),
        ("events.k8s.io", "events", "create", "*"),
    }


@on_a_real_server
def test_the_manifests_rights_suffice_for_every_correction(
    real_cluster: RealCluster, ledger_url: str, role_url: str, tmp_path: Path
) -> None:
    kubeconfig = _act(real_cluster, _manifests(), tmp_path, ALL)

    logged = _corrects(real_cluster, ledger_url, role_url, kubeconfig)

    assert "alert.undelivered" not in {line["event"] for line in logged}
    events = real_cluster.fetch("/api/v1/events", fieldSelector="involvedObject.name=acme").json()["items"]
    assert {event["reason"] for event in events} == {
        "tenant_unrecorded",
        "skill_enable_unrecorded",
        "skill_disable_unrecorded",
        "suspension_unrecorded",
    }


@on_a_real_server
def test_a_run_without_permission_for_events_still_corrects(
    real_cluster: RealCluster, ledger_url: str, role_url: str, tmp_path: Path
) -> None:
    kubeconfig = _act(real_cluster, _without("events.k8s.io", "events", "create"), tmp_path, ALL)

    logged = _corrects(real_cluster, ledger_url, role_url, kubeconfig)

    undelivered = [line for line in logged if line["event"] == "alert.undelivered"]
    assert {line["sink"] for line in undelivered} == {"events"}
    assert len(undelivered) >= 2
    assert all("403" in line["error"] and "ClusterRole" in line["error"] for line in undelivered)


@on_a_real_server
def test_without_permission_to_watch_the_change_log_is_lost(real_cluster: RealCluster, tmp_path: Path) -> None:
    manifests = _without("pieced.ch", "piecedtenants", "watch")
    kubeconfig = _act(real_cluster, manifests, tmp_path, ALL | {WATCH_PATH: 403})
    api = Api(kubeconfig=str(kubeconfig), context=None, deadline=Deadline.after(30))
    resource = CustomResource(api=api, group="pieced.ch", plural="piecedtenants")

    log = Cluster(resource=resource, org_label=ORG_LABEL, page_size=500).read_log("1", "2")

    assert log.read is LogRead.LOST
    assert "watch" in str(log.problem)
    assert "ClusterRole" in str(log.problem)


def _corrects(cluster: RealCluster, ledger_url: str, role_url: str, kubeconfig: Path) -> list[dict[str, Any]]:
    """Backfill, lose one write of every kind and correct them; return what the runs logged."""
    _before(cluster)
    backfill = _run(role_url, kubeconfig)
    assert backfill.returncode == 0, backfill.stderr
    _lost(cluster)
    seen = _run(role_url, kubeconfig)
    # a change waits for its row, and times are cut to the second
    time.sleep(2.5)

    corrected = _run(role_url, kubeconfig)

    assert (seen.returncode, corrected.returncode) == (0, 0), corrected.stderr
    document = json.loads(corrected.stdout)
    assert (document["outcome"], document["source"]) == ("corrected", cluster.source_uid())
    findings = json.loads(seen.stdout)["findings"] + document["findings"]
    assert {finding["reason"] for finding in findings if finding["action"] != "defer"} == CORRECTIONS
    found = billing_rows(role_url)
    assert [(name, org, deleted_at is not None) for name, org, _, deleted_at in found.lifecycles] == [
        ("acme", "1", False),
        ("gone", "1", True),
        ("lingering", "1", True),
        ("nameless", "7", False),
        ("newcomer", "1", False),
        ("paused", "1", False),
    ]
    assert sorted(row[:4] for row in found.skills) == [
        ("acme", "1", "mail", "enabled"),
        ("acme", "1", "threema", "disabled"),
        ("acme", "1", "threema", "enabled"),
        ("acme", "1", "voice", "enabled"),
        ("gone", "1", "mail", "disabled"),
        ("gone", "1", "mail", "enabled"),
        ("lingering", "1", "mail", "disabled"),
        ("lingering", "1", "mail", "enabled"),
        ("newcomer", "1", "mail", "enabled"),
        ("paused", "1", "mail", "enabled"),
        ("paused", "1", "threema", "enabled"),
    ]
    assert sorted(row[:3] for row in found.suspensions) == [
        ("acme", "1", "suspended"),
        ("paused", "1", "resumed"),
        ("paused", "1", "suspended"),
    ]
    written = all_rows(ledger_url, PUBLIC)
    clean = _run(role_url, kubeconfig)
    assert (clean.returncode, json.loads(clean.stdout)["outcome"]) == (0, "clean")
    assert all_rows(ledger_url, PUBLIC) == written
    return [json.loads(line) for line in (backfill.stderr + seen.stderr + corrected.stderr).splitlines()]


@on_a_real_server
@pytest.mark.parametrize(
    ("missing", "ready"),
    [
        pytest.param(("pieced.ch", "piecedtenants", "list"), ALL | {TENANTS: 403}, id="list of the tenants"),
        pytest.param(("pieced.ch", "piecedtenants", "get"), ALL | {ONE_PATH: 403}, id="get of a tenant"),
        pytest.param(("", "namespaces", "get"), ALL | {NAMESPACE_PATH: 403}, id="get of kube-system"),
    ],
)
def test_without_one_permission_a_run_names_the_role_and_writes_nothing(
    real_cluster: RealCluster,
    ledger_url: str,
    role_url: str,
    tmp_path: Path,
    missing: tuple[str, str, str],
    ready: dict[str, int],
) -> None:
    _fails(real_cluster, ledger_url, role_url, lambda: _act(real_cluster, _without(*missing), tmp_path, ready))


@on_a_real_server
def test_without_the_binding_a_run_names_the_role_and_writes_nothing(
    real_cluster: RealCluster, ledger_url: str, role_url: str, tmp_path: Path
) -> None:
    unbound = [one for one in _manifests() if one["kind"] != "ClusterRoleBinding"]
    _fails(real_cluster, ledger_url, role_url, lambda: _act(real_cluster, unbound, tmp_path, dict.fromkeys(ALL, 403)))


def _fails(cluster: RealCluster, ledger_url: str, role_url: str, act: Callable[[], Path]) -> None:
    kubeconfig = act()
    cluster.create(tenant("acme", ["mail"], org="1"))
    with connect(ledger_url) as ledger:
        # an absent tenant is always asked for by its name, and would be recorded as deleted
        ledger.execute("INSERT INTO tenant_billing_lifecycle VALUES ('gone', '1', now() - '1 day'::interval)")
    before = all_rows(ledger_url)

    failed = _run(role_url, kubeconfig)

    assert failed.returncode == 1
    errors = [json.loads(line) for line in failed.stderr.splitlines()]
    # without the binding it may not create Events either
    (error,) = (
        line
        for line in errors
        if line["level"] in {"error", "warning", "critical"} and line["event"] != "alert.undelivered"
    )
    assert error["event"] == "command.failed"
    assert "403" in error["error"]
    assert f'"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"' in error["error"]
    assert "ClusterRole" in error["remedy"]
    assert "Traceback" not in failed.stderr
    document = json.loads(failed.stdout)
    assert (document["outcome"], document["findings"]) == ("failed", [])
    after = all_rows(ledger_url)
    assert len(after["reconciler.runs"]) == 1
    assert untouched(after) == untouched(before)
