"""The double behaves as a real API server does, and each of its faults does on the wire what it says."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import select
import socket
import time
import uuid
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import pytest
import urllib3

from tests.support import faults
from tests.support.api_state import AlreadyThere, ApiState, NotThere, planted, tenant
from tests.support.fake_api import SOURCE_UID, TOKEN, FakeApi
from tests.support.faults import Fault
from tests.support.fixtures import on_a_real_server
from tests.support.harness import PATIENCE, TENANTS, Cluster, Connection, FakeCluster, RealCluster, is_established

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.api_state import Object
    from tests.support.faults import Effect, Request


# on both: what is there and how it is listed


def test_pages_show_one_moment_whatever_changes_between_them(cluster: Cluster) -> None:
    """The pages of a list agree with its first page; a new list shows what changed meanwhile."""
    for name in ("b", "d", "a", "c", "e"):
        cluster.create(tenant(name))

    first = cluster.fetch(limit=2).json()
    cluster.delete("c")
    cluster.patch("d", {"spec": {"packages": ["changed"]}})
    cluster.create(tenant("cc"))
    second = cluster.fetch(limit=2, continue_=first["metadata"]["continue"]).json()
    third = cluster.fetch(limit=2, continue_=second["metadata"]["continue"]).json()

    assert [_names(page) for page in (first, second, third)] == [["a", "b"], ["c", "d"], ["e"]]
    assert second["items"][1]["spec"]["packages"] == []
    assert len({page["metadata"]["resourceVersion"] for page in (first, second, third)}) == 1
    assert [page["metadata"].get("remainingItemCount") for page in (first, second, third)] == [3, 1, None]
    assert not third["metadata"].get("continue")
    anew = cluster.fetch().json()
    assert _names(anew) == ["a", "b", "cc", "d", "e"] == cluster.names()
    assert int(anew["metadata"]["resourceVersion"]) > int(first["metadata"]["resourceVersion"])


def test_a_list_is_of_the_kind_and_version_that_discovery_names(cluster: Cluster) -> None:
    cluster.create(tenant("acme"))
    group = cluster.fetch("/apis/pieced.ch").json()
    resources = cluster.fetch("/apis/pieced.ch/v1alpha1").json()
    listed = cluster.fetch().json()

    assert group["preferredVersion"] == {"groupVersion": "pieced.ch/v1alpha1", "version": "v1alpha1"}
    assert [(one["name"], one["kind"], one["namespaced"]) for one in resources["resources"]] == [
        ("piecedtenants", "PiecedTenant", False),
        ("piecedtenants/status", "PiecedTenant", False),
    ]
    assert (listed["kind"], listed["apiVersion"]) == ("PiecedTenantList", "pieced.ch/v1alpha1")
    assert (listed["items"][0]["kind"], listed["items"][0]["apiVersion"]) == ("PiecedTenant", "pieced.ch/v1alpha1")


def test_names_are_listed_in_the_order_of_their_bytes(cluster: Cluster) -> None:
    for name in ("a1", "a-b", "a.b", "a", "b", "10", "9"):
        cluster.create(tenant(name))

    assert cluster.names() == ["10", "9", "a", "a-b", "a.b", "a1", "b"]


def test_an_empty_cluster_lists_no_items(cluster: Cluster) -> None:
    listed = cluster.fetch(limit=5).json()

    assert listed["items"] == []
    assert not listed["metadata"].get("continue")
    assert "remainingItemCount" not in listed["metadata"]


@pytest.mark.parametrize(
    ("query", "status"),
    [({"limit": "x"}, 400), ({"continue_": "garbage"}, 400), ({"resourceVersion": "999999999"}, 504)],
)
def test_a_list_that_cannot_be_is_a_status(cluster: Cluster, query: dict[str, str], status: int) -> None:
    answer = cluster.fetch(**query)

    assert (answer.status, answer.json()["kind"], answer.json()["code"]) == (status, "Status", status)


def test_a_token_can_be_used_again_with_another_limit(cluster: Cluster) -> None:
    for name in "abcd":
        cluster.create(tenant(name))
    first = cluster.fetch(limit=1).json()

    assert _names(cluster.fetch(limit=9, continue_=first["metadata"]["continue"]).json()) == ["b", "c", "d"]
    assert _names(cluster.fetch(limit=1, continue_=first["metadata"]["continue"]).json()) == ["b"]


def test_one_tenant_is_got_by_its_name(cluster: Cluster) -> None:
    created = cluster.create(tenant("acme", ["web-search"]))

    assert cluster.fetch(f"{TENANTS}/acme").json() == created == cluster.get("acme")


def test_a_tenant_that_is_not_there_is_a_status_of_404(cluster: Cluster) -> None:
    answer = cluster.fetch(f"{TENANTS}/acme")

    assert answer.status == 404
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": 'piecedtenants.pieced.ch "acme" not found',
        "reason": "NotFound",
        "details": {"name": "acme", "group": "pieced.ch", "kind": "piecedtenants"},
        "code": 404,
    }
    assert cluster.get("acme") is None


@pytest.mark.parametrize(
    "path",
    ["/apis/nobody.ch", "/apis/pieced.ch/v9", "/apis/pieced.ch/v1alpha1/namespaces/default/piecedtenants"],
)
def test_what_is_not_served_is_a_plain_404(cluster: Cluster, path: str) -> None:
    answer = cluster.fetch(path)

    assert (answer.status, answer.body) == (404, b"404 page not found\n")
    assert answer.headers["content-type"].startswith("text/plain")


def test_the_date_header_is_the_time_of_the_server(cluster: Cluster) -> None:
    created = cluster.create(tenant("acme"))
    date = parsedate_to_datetime(cluster.fetch().headers["date"])

    assert timedelta() <= date - datetime.fromisoformat(created["metadata"]["creationTimestamp"]) < timedelta(seconds=5)


def test_the_cluster_is_known_by_the_uid_of_kube_system(cluster: Cluster) -> None:
    assert str(uuid.UUID(cluster.source_uid())) == cluster.source_uid()
    assert cluster.fetch("/api/v1/namespaces/kube-system").json()["metadata"]["uid"] == cluster.source_uid()


def test_a_watch_shows_every_version_since_its_own(cluster: Cluster) -> None:
    """A deletion carries what the tenant was last, under the resourceVersion of the deletion."""
    cluster.create(tenant("before"))
    since = cluster.fetch().json()["metadata"]["resourceVersion"]
    created = cluster.create(tenant("acme", ["a"]))
    changed = cluster.patch("acme", {"spec": {"packages": []}})
    cluster.delete("acme")
    deleted = cluster.fetch().json()["metadata"]["resourceVersion"]
    answer = cluster.fetch(watch="true", resourceVersion=since, timeoutSeconds=1)
    lines = [json.loads(line) for line in answer.body.splitlines()]
    versions = [line for line in lines if line["type"] != "BOOKMARK"]

    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    last = {**changed, "metadata": {**changed["metadata"], "resourceVersion": deleted}}
    assert versions == [
        {"type": "ADDED", "object": created},
        {"type": "MODIFIED", "object": changed},
        {"type": "DELETED", "object": last},
    ]


def test_a_watch_from_a_forgotten_version_is_an_error_within_200(cluster: Cluster) -> None:
    answer = cluster.fetch(watch="true", resourceVersion="1", timeoutSeconds=1)
    (line,) = (json.loads(line) for line in answer.body.splitlines())

    assert (answer.status, line["type"]) == (200, "ERROR")
    assert (line["object"]["kind"], line["object"]["code"], line["object"]["reason"]) == ("Status", 410, "Expired")
    assert line["object"]["message"].startswith("too old resource version: 1 (")


# on both: what a write does


def test_a_created_tenant_has_the_fields_of_the_server(cluster: Cluster) -> None:
    """The uid, generation, time and ownership are the server's; a status sent along is dropped."""
    sent = tenant("acme", ["web-search"], org="2871") | {"status": {"suspendedAt": "2026-01-01T00:00:00Z"}}
    metadata = cluster.create(sent)["metadata"]

    assert cluster.fetch(f"{TENANTS}/acme").json().get("status") is None
    assert metadata["generation"] == 1
    assert metadata["labels"] == {"pieced.ch/zitadel-org-id": "2871"}
    assert str(uuid.UUID(metadata["uid"])) == metadata["uid"]
    assert _owner(metadata, "f:spec", "f:packages") == ("portal", metadata["creationTimestamp"])
    assert metadata["creationTimestamp"].endswith("Z")
    assert datetime.fromisoformat(metadata["creationTimestamp"]).microsecond == 0


def test_a_name_is_taken_once(cluster: Cluster) -> None:
    cluster.create(tenant("acme"))

    with pytest.raises(AlreadyThere):
        cluster.create(tenant("acme"))


def test_generation_rises_with_the_spec_alone(cluster: Cluster) -> None:
    cluster.create(tenant("acme", ["a"]))
    spec = cluster.patch("acme", {"spec": {"packages": ["a", "b"]}})
    label = cluster.patch("acme", {"metadata": {"labels": {"pieced.ch/zitadel-org-id": "9"}}})
    status = cluster.set_status("acme", {"suspendedAt": "2026-01-01T00:00:00Z"})

    assert [changed["metadata"]["generation"] for changed in (spec, label, status)] == [2, 2, 2]
    assert status["spec"]["packages"] == ["a", "b"]
    assert status["status"] == {"suspendedAt": "2026-01-01T00:00:00Z"}
    versions = [int(changed["metadata"]["resourceVersion"]) for changed in (spec, label, status)]
    assert versions == sorted(set(versions))


def test_a_patch_that_changes_nothing_leaves_everything(cluster: Cluster) -> None:
    created = cluster.create(tenant("acme", ["a"]))
    cluster.tick()

    assert cluster.patch("acme", {"spec": {"packages": ["a"]}}, manager="somebody") == created


def test_who_writes_a_field_owns_it_from_then(cluster: Cluster) -> None:
    """Another manager's write takes the field over and dates it; the rest stays as it was."""
    created = cluster.create(tenant("acme", ["a"], suspend=False))["metadata"]
    cluster.tick()
    changed = cluster.patch("acme", {"spec": {"packages": ["a", "b"]}}, manager="kubectl-edit")["metadata"]

    manager, written_at = _owner(changed, "f:spec", "f:packages")
    assert manager == "kubectl-edit"
    assert written_at > created["creationTimestamp"]
    assert _owner(changed, "f:spec", "f:suspend") == ("portal", created["creationTimestamp"])


def test_a_second_value_moves_its_time_since_1_25(cluster: Cluster) -> None:
    """Before 1.25 the time says when the set of owned fields last changed: older than the last write."""
    created = cluster.create(tenant("acme", ["a"]))["metadata"]
    cluster.tick()
    changed = cluster.patch("acme", {"spec": {"packages": []}})["metadata"]

    manager, written_at = _owner(changed, "f:spec", "f:packages")
    assert manager == "portal"
    assert (written_at > created["creationTimestamp"]) is cluster.moves_times


def test_a_field_taken_away_moves_no_time(cluster: Cluster) -> None:
    created = cluster.create(tenant("acme", ["a"], suspend=True))["metadata"]
    cluster.tick()
    changed = cluster.patch("acme", {"spec": {"suspend": None}})["metadata"]

    assert changed["generation"] == 2
    assert _owner(changed, "f:spec", "f:packages") == ("portal", created["creationTimestamp"])
    with pytest.raises(LookupError):
        _owner(changed, "f:spec", "f:suspend")


def test_a_write_to_the_status_is_another_managers_entry(cluster: Cluster) -> None:
    created = cluster.create(tenant("acme"))["metadata"]
    cluster.tick()
    changed = cluster.set_status("acme", {"suspendedAt": "2026-01-01T00:00:00Z"})["metadata"]

    manager, written_at = _owner(changed, "f:status", "f:suspendedAt")
    assert manager == "operator"
    assert written_at > created["creationTimestamp"]
    entry = next(entry for entry in changed["managedFields"] if entry["manager"] == "operator")
    assert entry.get("subresource") in ({"status"} if cluster.moves_times else {None, "status"})


def test_a_tenant_without_finalizers_is_gone_at_once(cluster: Cluster) -> None:
    cluster.create(tenant("acme"))
    cluster.delete("acme")

    assert cluster.fetch(f"{TENANTS}/acme").status == 404
    with pytest.raises(NotThere):
        cluster.delete("acme")


def test_a_tenant_with_finalizers_lingers(cluster: Cluster) -> None:
    """It keeps its place in the list, with a deletionTimestamp and one generation more, until it is finalized."""
    cluster.create(tenant("acme", finalizers=["pieced.ch/cleanup"]))
    cluster.delete("acme")
    lingering = cluster.get("acme")

    assert lingering is not None
    assert lingering["metadata"]["deletionTimestamp"] >= lingering["metadata"]["creationTimestamp"]
    assert lingering["metadata"]["generation"] == 2
    cluster.delete("acme")
    assert cluster.get("acme") == lingering
    assert cluster.names() == ["acme"]
    cluster.finalize("acme")
    assert cluster.get("acme") is None


def test_a_recreated_tenant_is_another_one(cluster: Cluster) -> None:
    first = cluster.create(tenant("acme", ["a"]))["metadata"]
    cluster.patch("acme", {"spec": {"packages": []}})
    cluster.delete("acme")
    second = cluster.create(tenant("acme", ["a"]))["metadata"]

    assert second["uid"] != first["uid"]
    assert second["generation"] == 1


@pytest.mark.parametrize("packages", ["web-search", {"web-search": True}, ["a\0b"], [""], [1, None], 7, [["nested"]]])
def test_a_malformed_tenant_can_be_stored(cluster: Cluster, packages: Any) -> None:
    cluster.create(tenant("acme", packages, suspend="yes"))
    cluster.set_status("acme", {"suspendedAt": "yesterday"})
    stored = cluster.fetch().json()["items"][0]

    assert stored["spec"]["packages"] == packages
    assert (stored["spec"]["suspend"], stored["status"]["suspendedAt"]) == ("yes", "yesterday")


def test_a_reset_leaves_nothing_that_lingers(cluster: Cluster) -> None:
    cluster.create(tenant("acme", finalizers=["pieced.ch/cleanup"]))
    cluster.delete("acme")
    cluster.create(tenant("other"))
    cluster.reset()

    assert cluster.names() == []


@on_a_real_server
def test_the_double_tracks_fields_exactly_as_the_real_server(real_cluster: RealCluster, tmp_path: Path) -> None:
    """The same writes leave the same managedFields and generation on both, their times at the same steps."""
    with FakeApi(legacy_times=not real_cluster.moves_times) as api:
        assert _history(FakeCluster(api, tmp_path)) == _history(real_cluster)


@on_a_real_server
def test_a_service_account_may_do_what_its_role_says(real_cluster: RealCluster, tmp_path: Path) -> None:
    account = {"name": "observer", "namespace": "default"}
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "tests-observer"}}
    kubeconfig = real_cluster.act_as(
        [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account},
            {
                **role,
                "kind": "ClusterRole",
                "rules": [{"apiGroups": ["pieced.ch"], "resources": ["piecedtenants"], "verbs": ["list"]}],
            },
            {
                **role,
                "kind": "ClusterRoleBinding",
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "tests-observer"},
                "subjects": [{"kind": "ServiceAccount", **account}],
            },
        ],
        name="observer",
        namespace="default",
        directory=tmp_path,
    )
    with Connection(kubeconfig) as connection:
        allowed = connection.send("GET", TENANTS)
        refused = connection.send("GET", f"{TENANTS}/acme")

    assert (allowed.status, refused.status) == (200, 403)
    assert refused.json()["reason"] == "Forbidden"


# the double alone


def test_a_set_owns_its_members_and_a_removal_moves_no_time() -> None:
    clock = _Clock()
    world = ApiState(clock=clock, set_lists=True)
    world.create(tenant("acme", ["a", "b"]))
    clock.now += timedelta(seconds=5)
    removed = world.patch("acme", {"spec": {"packages": ["a"]}})["metadata"]["managedFields"][0]
    clock.now += timedelta(seconds=5)
    added = world.patch("acme", {"spec": {"packages": ["a", "c"]}})["metadata"]["managedFields"][0]

    assert removed["fieldsV1"]["f:spec"]["f:packages"] == {".": {}, 'v:"a"': {}}
    assert removed["time"] == "2026-05-01T12:00:00Z"
    assert added["fieldsV1"]["f:spec"]["f:packages"] == {".": {}, 'v:"a"': {}, 'v:"c"': {}}
    assert added["time"] == "2026-05-01T12:00:10Z"


def test_times_are_whole_seconds_of_the_clock_that_was_given() -> None:
    clock = _Clock(datetime(2026, 5, 1, 12, 0, 0, 987654, UTC))
    with FakeApi(clock=clock) as api:
        metadata = api.create(tenant("acme"))["metadata"]
        later = api.create(tenant("later"), at=datetime(2026, 5, 2, tzinfo=UTC))["metadata"]

        assert metadata["creationTimestamp"] == metadata["managedFields"][0]["time"] == "2026-05-01T12:00:00Z"
        assert later["creationTimestamp"] == later["managedFields"][0]["time"] == "2026-05-02T00:00:00Z"
        assert _get(api).headers["Date"] == "Fri, 01 May 2026 12:00:00 GMT"


def test_namespaced_tenants_are_listed_by_namespace_and_name() -> None:
    with FakeApi(namespaced=True) as api:
        for namespace, name in (("team-b", "a"), ("team", "z"), ("team", "a")):
            api.create(tenant(name, namespace=namespace))
        listed = _get(api, limit=2).json()
        in_one = _get(api, "/apis/pieced.ch/v1alpha1/namespaces/team/piecedtenants", limit=1).json()
        one = _get(api, "/apis/pieced.ch/v1alpha1/namespaces/team-b/piecedtenants/a").json()

        assert [item["metadata"]["namespace"] for item in listed["items"]] == ["team-b", "team"]
        assert (_names(in_one), in_one["metadata"]["remainingItemCount"]) == (["a"], 1)
        assert one["metadata"]["namespace"] == "team-b"
        assert _get(api, f"{TENANTS}/a").status == 404
        assert [known["namespaced"] for known in _get(api, "/apis/pieced.ch/v1alpha1").json()["resources"]] == [
            True
        ] * 2


def test_without_the_crd_the_group_is_not_found(api: FakeApi) -> None:
    api.installed = False

    assert [_get(api, path).status for path in ("/apis/pieced.ch", "/apis/pieced.ch/v1alpha1", TENANTS)] == [404] * 3
    assert "pieced.ch" not in [group["name"] for group in _get(api, "/apis").json()["groups"]]


def test_the_preferred_version_is_the_first_one_served() -> None:
    with FakeApi(versions=["v1", "v1alpha1"]) as api:
        api.create(tenant("acme"))

        assert _get(api, "/apis/pieced.ch").json()["preferredVersion"]["version"] == "v1"
        assert _get(api, TENANTS).json()["items"][0]["apiVersion"] == "pieced.ch/v1alpha1"
        assert _get(api, api.list_path).json()["items"][0]["apiVersion"] == "pieced.ch/v1"


def test_another_cluster_has_another_uid(api: FakeApi) -> None:
    path = "/api/v1/namespaces/kube-system"
    uids = [_get(api, path).json()["metadata"]["uid"]]
    api.source_uid = "another"
    uids.append(_get(api, path).json()["metadata"]["uid"])
    api.source_uid = None

    assert uids == [SOURCE_UID, "another"]
    assert _get(api, path).status == 404


def test_a_compacted_token_has_expired_and_the_one_offered_instead_is_inconsistent(api: FakeApi) -> None:
    for name in "abc":
        api.create(tenant(name))
    first = _get(api, limit=1).json()
    api.delete("b")
    api.compact()
    expired = _get(api, limit=1, **{"continue": first["metadata"]["continue"]})
    rest = _get(api, limit=1, **{"continue": expired.json()["metadata"]["continue"]}).json()

    assert (expired.status, expired.json()["reason"]) == (410, "Expired")
    assert _names(rest) == ["c"]
    assert rest["metadata"]["resourceVersion"] != first["metadata"]["resourceVersion"]


def test_a_watch_ends_with_a_bookmark_at_the_version_it_has_reached(api: FakeApi) -> None:
    for name in "abc":
        api.create(tenant(name))
    api.pass_by(5)

    assert _watched(api, 1000) == [("ADDED", "1001"), ("ADDED", "1002"), ("ADDED", "1003"), ("BOOKMARK", "1008")]
    api.lag = 1
    assert _watched(api, 1001) == [("ADDED", "1002"), ("BOOKMARK", "1002")]
    api.bookmarks = False
    assert _watched(api, 1001) == [("ADDED", "1002")]
    assert _get(api, watch="true", resourceVersion=1003).json()["message"].startswith("Timeout: Too large")


def test_what_a_restart_forgets_is_gone(api: FakeApi) -> None:
    for name in "abc":
        api.create(tenant(name))
    api.forget(before=1002)

    assert _watched(api, 1002) == [("ADDED", "1003"), ("BOOKMARK", "1003")]
    assert _watched(api, 1001) == [("ERROR", None)]
    api.forget()
    api.forget(before=1002)
    assert _watched(api, 1003) == [("BOOKMARK", "1003")]
    assert _watched(api, 1002) == [("ERROR", None)]
    api.gone_as_status = True
    assert _get(api, watch="true", resourceVersion=1002).status == 410


def test_planted_tenants_are_stored_as_they_are(api: FakeApi) -> None:
    api.plant({"metadata": {"name": "odd", "creationTimestamp": 7, "managedFields": "none"}})

    item = _get(api).json()["items"][0]
    assert (item["metadata"]["creationTimestamp"], item["metadata"]["managedFields"]) == (7, "none")
    assert item["metadata"]["resourceVersion"] == str(api.resource_version)


def test_a_long_list_is_compressed_for_who_asks(api: FakeApi) -> None:
    api.plant(*(planted(index) for index in range(1000)))
    plain = _get(api)
    packed = _get(api, headers={"Accept-Encoding": "gzip"}, decode_content=False)

    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.data) == plain.data


def test_events_are_accepted_where_they_belong(api: FakeApi) -> None:
    path = "/apis/events.k8s.io/v1/namespaces/{}/events"
    event = {"metadata": {"generateName": "reconciler-"}, "regarding": {"kind": "PiecedTenant", "name": "acme"}}
    statuses = [_send(api, "POST", path.format(space), event).status for space in ("default", "elsewhere")]

    assert statuses == [201, 422]
    assert [posted["regarding"]["name"] for posted in api.events] == ["acme"]
    assert len(_get(api, path.format("default")).json()["items"]) == 1


def test_who_does_not_say_who_they_are_is_refused(api: FakeApi) -> None:
    assert _get(api, headers={"Authorization": "Bearer other"}).status == 401
    assert _get(api, headers={}, bearer=False).status == 403


def test_requests_are_remembered(api: FakeApi) -> None:
    _get(api, limit=5, headers={"User-Agent": "reconciler/0.1"})
    _get(api, f"{TENANTS}/acme")

    assert [(seen.path, seen.query) for seen in api.lists] == [(TENANTS, {"limit": "5"})]
    assert api.lists[0].user_agent == "reconciler/0.1"
    assert api.lists[0].headers["authorization"] == f"Bearer {TOKEN}"
    assert [(seen.path, seen.answered) for seen in api.gets] == [(f"{TENANTS}/acme", 404)]


def test_the_world_can_change_between_two_requests(api: FakeApi) -> None:
    def change(request: Request) -> None:
        if len(api.requests) == 2:
            api.create(tenant(f"seen-by-{request.verb}"))

    api.on_request = change

    assert [_names(_get(api).json()) for _ in range(2)] == [[], ["seen-by-list"]]


def test_one_connection_serves_many_requests(api: FakeApi) -> None:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", api.port, timeout=PATIENCE)) as connection:
        for _ in range(3):
            connection.request("GET", TENANTS, headers={"Authorization": f"Bearer {TOKEN}"})
            answer = connection.getresponse()
            assert (answer.status, answer.version) == (200, 11)
            answer.read()
            assert connection.sock is not None


def test_an_error_in_a_hook_fails_the_test(tmp_path: Path) -> None:
    def fail(_: Request) -> None:
        raise ZeroDivisionError

    def ask() -> None:
        with FakeApi() as api:
            api.kubeconfig(tmp_path / "kubeconfig")
            api.on_request = fail
            with contextlib.suppress(urllib3.exceptions.HTTPError):
                _get(api)

    with pytest.raises(ZeroDivisionError):
        ask()


# the faults: when they strike


def test_faults_strike_in_turn_and_then_no_more(api: FakeApi) -> None:
    api.faults += [Fault(faults.status(503)), Fault(faults.status(500), times=2)]

    assert [_get(api).status for _ in range(4)] == [503, 500, 500, 200]


def test_a_fault_can_begin_later_and_then_stay(api: FakeApi) -> None:
    api.faults.append(Fault(faults.status(500), skip=2, times=None))

    assert [_get(api).status for _ in range(5)] == [200, 200, 500, 500, 500]


def test_a_fault_strikes_what_it_is_meant_for(api: FakeApi) -> None:
    api.create(tenant("acme"))
    api.create(tenant("other"))
    api.faults += [
        Fault(faults.status(500), when=faults.gets),
        Fault(faults.status(503), when=faults.later_pages),
        Fault(faults.status(403), when=faults.path("/version")),
    ]
    first = _get(api, limit=1)

    assert first.status == 200
    assert _get(api, limit=1, **{"continue": first.json()["metadata"]["continue"]}).status == 503
    assert (_get(api, f"{TENANTS}/acme").status, _get(api, "/version").status) == (500, 403)


# the faults: another answer


@pytest.mark.parametrize("code", [400, 401, 403, 404, 429, 500, 503, 504])
def test_a_status_comes_with_a_body_of_its_kind(api: FakeApi, code: int) -> None:
    answer = _struck(api, faults.status(code, "as told"))

    assert answer.status == code == answer.json()["code"]
    assert (answer.json()["kind"], answer.json()["message"]) == ("Status", "as told")
    assert answer.headers["Date"]


def test_too_many_requests_say_when_to_come_again(api: FakeApi) -> None:
    answer = _struck(api, faults.too_many_requests("7200"))

    assert (answer.status, answer.headers["Retry-After"]) == (429, "7200")
    assert "Retry-After" not in _struck(api, faults.too_many_requests(None)).headers


def test_gone_can_offer_an_inconsistent_token(api: FakeApi) -> None:
    answers = [_struck(api, faults.gone()), _struck(api, faults.gone("inconsistent"))]

    assert [(answer.status, answer.json()["reason"]) for answer in answers] == [(410, "Expired")] * 2
    assert [answer.json()["metadata"].get("continue") for answer in answers] == [None, "inconsistent"]


@pytest.mark.parametrize(
    ("effect", "status", "content_type", "body"),
    [
        (faults.html(), 200, "text/html; charset=utf-8", b"<!doctype html>"),
        (faults.html(502), 502, "text/html; charset=utf-8", b"<!doctype html>"),
        (faults.text(), 200, "text/plain; charset=utf-8", b"ok"),
        (faults.empty(), 200, "application/json", b""),
        (faults.body(b"{"), 200, "application/json", b"{"),
        (faults.content_type("text/html"), 200, "text/html", b'{"apiVersion"'),
        (faults.content_type(None), 200, None, b'{"apiVersion"'),
        (faults.redirect("/login"), 302, "text/html", b""),
    ],
)
def test_an_answer_can_be_something_else(
    api: FakeApi, effect: Effect, status: int, content_type: str | None, body: bytes
) -> None:
    answer = _struck(api, effect)

    assert (answer.status, answer.headers.get("Content-Type")) == (status, content_type)
    assert answer.data.startswith(body)
    assert bool(answer.data) == bool(body)


def test_a_redirect_says_where_to(api: FakeApi) -> None:
    assert _struck(api, faults.redirect("https://login.example/")).headers["Location"] == "https://login.example/"


def test_a_status_can_come_under_200(api: FakeApi) -> None:
    answer = _struck(api, faults.status_with_200())

    assert (answer.status, answer.json()["kind"], answer.json()["code"]) == (200, "Status", 500)


def test_the_date_can_be_another_or_missing(api: FakeApi) -> None:
    assert _struck(api, faults.date("yesterday")).headers["Date"] == "yesterday"
    assert "Date" not in _struck(api, faults.date(None)).headers


# the faults: a list that lies


def test_a_list_can_have_other_items(api: FakeApi) -> None:
    api.create(tenant("acme"))

    assert "items" not in _struck(api, faults.no_items()).json()
    wrong: tuple[Any, ...] = (None, {}, "x")
    assert [_struck(api, faults.items(value)).json()["items"] for value in wrong] == list(wrong)
    assert "metadata" not in _struck(api, faults.no_metadata()).json()
    assert _struck(api, faults.kind("PodList", "v1")).json() | {"items": [], "metadata": {}} == {
        "kind": "PodList",
        "apiVersion": "v1",
        "items": [],
        "metadata": {},
    }
    assert "kind" not in _struck(api, faults.kind(None)).json()
    assert _names(_struck(api, faults.edit(lambda listed: listed["items"].clear())).json()) == []


def test_a_list_can_have_an_item_twice(api: FakeApi) -> None:
    api.create(tenant("acme"))
    by_name = [item["metadata"] for item in _struck(api, faults.name_twice()).json()["items"]]
    by_uid = [item["metadata"] for item in _struck(api, faults.uid_twice()).json()["items"]]

    assert (by_name[0]["name"], by_name[0]["uid"] != by_name[1]["uid"]) == (by_name[1]["name"], True)
    assert (by_uid[0]["uid"], by_uid[0]["name"] != by_uid[1]["name"]) == (by_uid[1]["uid"], True)


def test_pages_can_contradict_each_other(api: FakeApi) -> None:
    for name in "abcdef":
        api.create(tenant(name))
    version = str(api.resource_version)

    assert [page["resourceVersion"] for page in _metadata_of_pages(api)] == [version] * 3
    api.faults.append(Fault(faults.metadata(resourceVersion="1"), when=faults.later_pages))
    assert [page["resourceVersion"] for page in _metadata_of_pages(api)] == [version, "1", version]
    api.faults.append(Fault(faults.remaining(0)))
    assert [page.get("remainingItemCount") for page in _metadata_of_pages(api)] == [0, 2, None]
    api.faults.append(Fault(faults.remaining(None)))
    assert [page.get("remainingItemCount") for page in _metadata_of_pages(api)] == [None, 2, None]
    api.faults.append(Fault(faults.metadata(remainingItemCount=3, continue_=""), skip=2))
    assert [page.get("remainingItemCount") for page in _metadata_of_pages(api)] == [4, 2, 3]


def test_a_page_can_be_skipped(api: FakeApi) -> None:
    for name in "abcdef":
        api.create(tenant(name))
    api.faults.append(Fault(faults.skip_page()))

    assert [_names(page) for page in _pages(api)] == [["a", "b"], ["e", "f"]]


def test_a_token_can_lead_in_a_circle(api: FakeApi) -> None:
    for name in "abcdef":
        api.create(tenant(name))
    api.faults.append(Fault(faults.same_token(), when=faults.later_pages, times=None))
    first = _get(api, limit=2).json()["metadata"]["continue"]
    second = _get(api, limit=2, **{"continue": first}).json()["metadata"]["continue"]

    assert second == first


def test_a_last_page_can_promise_more(api: FakeApi) -> None:
    listed = _struck(api, faults.no_items_but_token()).json()

    assert (listed["items"], listed["metadata"]["continue"]) == ([], "more")


# the faults: an answer that does not arrive whole


def test_a_body_can_end_before_its_length(api: FakeApi) -> None:
    answer = _raw(api, faults.cut_length())

    assert f"Content-Length: {2 * len(answer.body)}" in answer.head or f"{2 * len(answer.body) + 1}" in answer.head
    assert answer.ended == "closed"
    with pytest.raises(urllib3.exceptions.ProtocolError):
        _struck(api, faults.cut_length())


def test_a_chunked_body_can_lack_its_end(api: FakeApi) -> None:
    answer = _raw(api, faults.cut_chunked())

    assert "Transfer-Encoding: chunked" in answer.head
    assert answer.ended == "closed"
    assert not answer.body.endswith(b"0\r\n\r\n")
    with pytest.raises(urllib3.exceptions.ProtocolError):
        _struck(api, faults.cut_chunked())


def test_a_chunked_body_can_be_whole(api: FakeApi) -> None:
    api.plant(*(planted(index) for index in range(100)))

    assert _names(_struck(api, faults.chunked()).json()) == api.names()


def test_a_body_can_end_with_the_connection_only(api: FakeApi) -> None:
    """Nothing on the wire tells that it was cut: only the JSON does."""
    answer = _struck(api, faults.cut_close())

    assert answer.status == 200
    assert not {"Content-Length", "Transfer-Encoding"} & set(answer.headers)
    with pytest.raises(json.JSONDecodeError):
        answer.json()


def test_a_body_can_drip(api: FakeApi) -> None:
    answer = _raw(api, faults.drip(0.05), patience=1)

    assert answer.ended == "waiting"
    assert 1 <= len(answer.body) <= 21
    assert "Content-Length" in answer.head


def test_headers_can_drip(api: FakeApi) -> None:
    answer = _raw(api, faults.drip_headers(0.05), patience=1)

    assert answer.ended == "waiting"
    assert "HTTP/1.1 200 OK".startswith(answer.head[:15])
    assert len(answer.head) <= 21


def test_a_drip_ends_with_the_whole_answer(api: FakeApi) -> None:
    assert _struck(api, faults.drip(0.001, size=50)).json()["kind"] == "PiecedTenantList"
    assert _struck(api, faults.drip_headers(0.001, size=50)).json()["kind"] == "PiecedTenantList"
    assert _get(api).status == 200


def test_an_answer_can_be_late(api: FakeApi) -> None:
    started = time.monotonic()

    assert _struck(api, faults.delay(0.2)).status == 200
    assert time.monotonic() - started >= 0.2


@pytest.mark.parametrize("share", [None, 0.5])
def test_an_answer_can_stall_until_the_client_hangs_up(api: FakeApi, share: float | None) -> None:
    answer = _raw(api, faults.stall(share), patience=0.5, answered=share is not None)

    assert answer.ended == "waiting"
    assert bool(answer.head) == (share is not None)
    deadline = time.monotonic() + PATIENCE
    while api.requests[0].hung_up_after is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert api.requests[0].hung_up_after is not None


@pytest.mark.parametrize("share", [None, 0.5])
def test_a_connection_can_be_reset(api: FakeApi, share: float | None) -> None:
    answer = _raw(api, faults.reset(share))

    assert answer.ended == "reset"
    assert bool(answer.head) == (share is not None)


def test_a_connection_can_be_closed_without_an_answer(api: FakeApi) -> None:
    answer = _raw(api, faults.hang_up())

    assert (answer.head, answer.body, answer.ended) == ("", b"", "closed")


def test_effects_compose(api: FakeApi) -> None:
    effect = faults.then(faults.status(503), faults.content_type("text/html"), faults.chunked())
    answer = _struck(api, effect)

    assert (answer.status, answer.headers["Content-Type"], answer.headers["Transfer-Encoding"]) == (
        503,
        "text/html",
        "chunked",
    )


def test_the_server_stops_while_clients_wait() -> None:
    with FakeApi() as api:
        api.faults.append(Fault(faults.stall()))
        waiting = socket.create_connection(("127.0.0.1", api.port), timeout=PATIENCE)
        waiting.sendall(f"GET {TENANTS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
        idle = socket.create_connection(("127.0.0.1", api.port), timeout=PATIENCE)
        started = time.monotonic()
    with waiting, idle:
        assert time.monotonic() - started < PATIENCE


# the real server's definition of the resource


@pytest.mark.parametrize(
    ("crd", "established"),
    [
        ({}, False),
        ({"status": {}}, False),
        ({"status": {"conditions": None, "storedVersions": None}}, False),
        ({"status": {"conditions": [{"type": "NamesAccepted", "status": "True"}]}}, False),
        ({"status": {"conditions": [{"type": "Established", "status": "False"}]}}, False),
        ({"status": {"conditions": [{"type": "Established", "status": "True"}]}}, True),
    ],
)
def test_a_definition_is_established_when_its_conditions_say_so(crd: Object, *, established: bool) -> None:
    assert is_established(crd) is established


# the means


class _Clock:
    def __init__(self, now: datetime = datetime(2026, 5, 1, 12, tzinfo=UTC)) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


class _Raw:
    """What arrived on a socket, and how it ended: closed, reset, or waiting for more when patience was over.

    Patience counts from the first byte on, or from the request where no answer is expected.
    """

    def __init__(self, api: FakeApi, patience: float, *, answered: bool) -> None:
        received, self.ended = b"", "waiting"
        with socket.create_connection(("127.0.0.1", api.port)) as connection:
            connection.sendall(f"GET {TENANTS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
            if answered:
                select.select([connection], [], [], PATIENCE)
            for data in self._arrivals(connection, time.monotonic() + patience):
                received += data
        head, _, self.body = received.partition(b"\r\n\r\n")
        self.head = head.decode()

    def _arrivals(self, connection: socket.socket, deadline: float) -> Iterator[bytes]:
        while (left := deadline - time.monotonic()) > 0:
            connection.settimeout(left)
            try:
                data = connection.recv(65536)
            except TimeoutError:
                return
            except ConnectionResetError:
                self.ended = "reset"
                return
            if not data:
                self.ended = "closed"
                return
            yield data


def _raw(api: FakeApi, effect: Effect, *, patience: float = 5, answered: bool = True) -> _Raw:
    if not api.names():
        api.create(tenant("acme", ["web-search"]))
    api.faults.append(Fault(effect))
    return _Raw(api, patience, answered=answered)


def _struck(api: FakeApi, effect: Effect) -> urllib3.BaseHTTPResponse:
    api.faults.append(Fault(effect))
    return _get(api)


def _get(
    api: FakeApi,
    path: str | None = None,
    *,
    headers: dict[str, str] | None = None,
    bearer: bool = True,
    decode_content: bool = True,
    **query: Any,
) -> urllib3.BaseHTTPResponse:
    own = {"Authorization": f"Bearer {TOKEN}"} if bearer else {}
    with urllib3.PoolManager() as pool:
        return pool.request(
            "GET",
            api.url + (path or api.list_path),
            fields=query,
            headers={**own, **(headers or {})},
            decode_content=decode_content,
            timeout=PATIENCE,
            retries=False,
        )


def _send(api: FakeApi, method: str, path: str, body: Object) -> urllib3.BaseHTTPResponse:
    with urllib3.PoolManager() as pool:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return pool.request(method, api.url + path, json=body, headers=headers, timeout=PATIENCE, retries=False)


def _pages(api: FakeApi) -> list[Object]:
    pages = [_get(api, limit=2).json()]
    while token := pages[-1]["metadata"].get("continue"):
        pages.append(_get(api, limit=2, **{"continue": token}).json())
    return pages


def _metadata_of_pages(api: FakeApi) -> list[Object]:
    metadata = [page["metadata"] for page in _pages(api)]
    api.faults.clear()
    return metadata


def _watched(api: FakeApi, since: int) -> list[tuple[str, str | None]]:
    lines = [json.loads(line) for line in _get(api, watch="true", resourceVersion=since).data.splitlines()]
    return [(line["type"], line["object"]["metadata"].get("resourceVersion")) for line in lines]


def _names(listed: Object) -> list[str]:
    return [item["metadata"]["name"] for item in listed["items"]]


def _owner(metadata: Object, *path: str) -> tuple[str, str]:
    """The manager that owns a field, and its entry's time."""
    owners = []
    for entry in metadata["managedFields"]:
        node: Any = entry["fieldsV1"]
        for step in path:
            node = node.get(step) if node is not None else None
        if node is not None:
            owners.append((entry["manager"], entry["time"]))
    (owner,) = owners or [_missing(path)]
    return owner


def _missing(path: tuple[str, ...]) -> tuple[str, str]:
    raise LookupError(f"nobody owns {path}")


def _history(cluster: Cluster) -> list[Object]:
    """What a fixed series of writes leaves after each step, with every time told as the step that it was made in."""
    cluster.create(tenant("acme", ["a"], finalizers=["pieced.ch/cleanup"], suspend=False))
    seen = [cluster.get("acme")]
    for manager, changes in (
        ("portal", {"spec": {"packages": ["a", "b"]}}),
        ("kubectl", {"spec": {"packages": ["b"], "suspend": True}}),
        ("portal", {"metadata": {"labels": {"pieced.ch/zitadel-org-id": "9", "other": "x"}}}),
        ("portal", {"spec": {"packages": []}}),
        ("portal", {"spec": {"packages": "malformed"}}),
        ("portal", {"spec": {"settings": {"deep": {"list": [1, 2], "flag": True}}}}),
        ("kubectl", {"spec": {"settings": {"deep": {"flag": None}}, "suspend": None}}),
        ("kubectl", {"metadata": {"labels": None}}),
    ):
        cluster.tick()
        cluster.patch("acme", changes, manager=manager)
        seen.append(cluster.get("acme"))
    for status in ({"suspendedAt": "2026-01-01T00:00:00Z"}, {"suspendedAt": None, "phase": "Ready"}):
        cluster.tick()
        cluster.set_status("acme", status)
        seen.append(cluster.get("acme"))
    cluster.tick()
    cluster.delete("acme")
    seen.append(cluster.get("acme"))

    steps: dict[str, int] = {}
    states = []
    for step, found in enumerate(seen):
        assert found is not None
        metadata = found["metadata"]
        times = [metadata["creationTimestamp"], *(entry["time"] for entry in metadata["managedFields"])]
        for moment in times:
            steps.setdefault(moment, step)
        entries = [entry | {"time": steps[entry["time"]]} for entry in metadata["managedFields"]]
        states.append(
            {
                "generation": metadata["generation"],
                "fields": sorted(entries, key=lambda entry: str(entry["manager"])),
                "metadata": sorted(metadata),
                "labels": metadata.get("labels"),
                "spec": found["spec"],
                "status": found.get("status"),
            }
        )
    return states
