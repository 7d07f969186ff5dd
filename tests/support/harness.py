"""One way to change a cluster, whether it is the double or a real API server: the same test runs on both."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, Self
from urllib.parse import urlencode

import yaml
from kubernetes import client, config

from tests.support.api_state import AlreadyThere, NotThere

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from tests.support.api_state import Object
    from tests.support.fake_api import FakeApi

CRD: Final = Path(__file__).parent / "crd.yaml"
TENANTS: Final = "/apis/pieced.ch/v1alpha1/piecedtenants"
PATIENCE: Final = 30.0
"""Seconds that a real server gets for anything."""

_MERGE_PATCH: Final = "application/merge-patch+json"
_APPLY_PATCH: Final = "application/apply-patch+yaml"
_VALUES_MOVE_TIMES_SINCE: Final = 25


class Cluster(Protocol):
    """PiecedTenants of cluster scope, and the means to change them and to look at them."""

    kubeconfig: Path
    moves_times: bool
    """Whether a manager's time in managedFields moves when only a value changes; servers before 1.25 do not."""

    def create(self, tenant: Object, /, *, manager: str = "portal") -> Object:
        """Create it, and return it with the server's fields."""

    def patch(self, name: str, changes: Mapping[str, Any], /, *, manager: str = "portal") -> Object:
        """Apply a JSON merge patch to everything but the status."""

    def set_status(self, name: str, status: Mapping[str, Any] | None, /, *, manager: str = "operator") -> Object:
        """Apply a JSON merge patch to the status."""

    def delete(self, name: str, /) -> None:
        """Ask for its deletion."""

    def finalize(self, name: str, /, *, manager: str = "operator") -> None:
        """Take its finalizers away."""

    def get(self, name: str, /) -> Object | None:
        """It as it is now, or None."""

    def names(self) -> list[str]:
        """The names of all, in the order of a list."""

    def reset(self) -> None:
        """Take everything away, stuck finalizers or not."""

    def source_uid(self) -> str:
        """The uid of the namespace kube-system."""

    def tick(self) -> None:
        """Let the server's clock go on to another second, so that the next write has another time than the last."""

    def fetch(self, path: str = TENANTS, /, **query: Any) -> Answer:
        """GET a path as the kubeconfig's user; `continue_` stands for `continue`."""


@dataclass(frozen=True)
class Answer:
    """What came back over the wire."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Object:
        """The body, decoded."""
        decoded: Object = json.loads(self.body)
        return decoded


class Connection:
    """HTTP as a kubeconfig's user, by the official client's reading of it."""

    def __init__(self, kubeconfig: Path) -> None:
        self._client = config.new_client_from_config(str(kubeconfig))  # type: ignore[no-untyped-call]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of its connections."""
        self._client.close()

    def send(
        self, method: str, path: str, body: Object | None = None, content_type: str = "application/json", **query: Any
    ) -> Answer:
        """One request, without retries or redirects."""
        settings: client.Configuration = self._client.configuration
        parameters = urlencode({name.rstrip("_"): value for name, value in query.items()})
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = content_type
        if credentials := settings.get_api_key_with_prefix("BearerToken", alias="authorization"):
            headers["Authorization"] = credentials
        response = self._client.rest_client.pool_manager.request(
            method,
            f"{settings.host}{path}" + (f"?{parameters}" if parameters else ""),
            body=None if body is None else json.dumps(body),
            headers=headers,
            timeout=PATIENCE,
            retries=False,
            redirect=False,
        )
        return Answer(response.status, {name.lower(): value for name, value in response.headers.items()}, response.data)


class FakeCluster:
    """The double."""

    def __init__(self, api: FakeApi, directory: Path) -> None:
        self.api = api
        self.kubeconfig = api.kubeconfig(directory / "kubeconfig")
        self.moves_times = not api.legacy_times
        self._ahead = timedelta()
        api.clock = lambda: datetime.now(UTC) + self._ahead

    def create(self, tenant: Object, /, *, manager: str = "portal") -> Object:
        return self.api.create(tenant, manager=manager)

    def patch(self, name: str, changes: Mapping[str, Any], /, *, manager: str = "portal") -> Object:
        return self.api.patch(name, changes, manager=manager)

    def set_status(self, name: str, status: Mapping[str, Any] | None, /, *, manager: str = "operator") -> Object:
        return self.api.set_status(name, status, manager=manager)

    def delete(self, name: str, /) -> None:
        self.api.delete(name)

    def finalize(self, name: str, /, *, manager: str = "operator") -> None:
        self.api.finalize(name, manager=manager)

    def get(self, name: str, /) -> Object | None:
        return self.api.get(name)

    def names(self) -> list[str]:
        return self.api.names()

    def reset(self) -> None:
        self.api.reset()

    def source_uid(self) -> str:
        return self.api.source_uid or ""

    def tick(self) -> None:
        self._ahead += timedelta(seconds=1)

    def fetch(self, path: str = TENANTS, /, **query: Any) -> Answer:
        with Connection(self.kubeconfig) as connection:
            return connection.send("GET", path, **query)


class RealCluster:
    """A real API server, which is the test's own: every PiecedTenant on it may go."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self._connection = Connection(kubeconfig)
        self.minor = int(self._connection.send("GET", "/version").json()["minor"].rstrip("+"))
        self.moves_times = self.minor >= _VALUES_MOVE_TIMES_SINCE
        self._applied: list[str] = []

    def close(self) -> None:
        """Let go of its connections."""
        self._connection.close()

    def install(self) -> None:
        """Put the CRD there, and wait until the server serves it."""
        self._apply(yaml.safe_load(CRD.read_text()))
        self._until("the CRD is served", self._is_served)

    def create(self, tenant: Object, /, *, manager: str = "portal") -> Object:
        return self._write("POST", TENANTS, tenant, fieldManager=manager)

    def patch(self, name: str, changes: Mapping[str, Any], /, *, manager: str = "portal") -> Object:
        wanted = {part: value for part, value in changes.items() if part != "status"}
        return self._write("PATCH", f"{TENANTS}/{name}", wanted, _MERGE_PATCH, fieldManager=manager)

    def set_status(self, name: str, status: Mapping[str, Any] | None, /, *, manager: str = "operator") -> Object:
        return self._write("PATCH", f"{TENANTS}/{name}/status", {"status": status}, _MERGE_PATCH, fieldManager=manager)

    def delete(self, name: str, /) -> None:
        self._write("DELETE", f"{TENANTS}/{name}")

    def finalize(self, name: str, /, *, manager: str = "operator") -> None:
        self.patch(name, {"metadata": {"finalizers": None}}, manager=manager)

    def get(self, name: str, /) -> Object | None:
        answer = self._connection.send("GET", f"{TENANTS}/{name}")
        return None if answer.status == 404 else self._checked(answer)

    def names(self) -> list[str]:
        return [item["metadata"]["name"] for item in self._write("GET", TENANTS)["items"]]

    def reset(self) -> None:
        for item in self._write("GET", TENANTS)["items"]:
            self._take_away(item)
        self._until("every tenant is gone", lambda: not self.names())
        for namespace in ("default", "kube-system"):
            self._write("DELETE", f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")
        while self._applied:
            self._connection.send("DELETE", self._applied.pop())

    def source_uid(self) -> str:
        namespace = self._write("GET", "/api/v1/namespaces/kube-system")
        return str(namespace["metadata"]["uid"])

    def tick(self) -> None:
        time.sleep(1.01 - time.time() % 1)

    def fetch(self, path: str = TENANTS, /, **query: Any) -> Answer:
        return self._connection.send("GET", path, **query)

    def add(self, manifest: Object) -> None:
        """Apply a manifest. It goes at the next reset, but for a namespace, which nothing here could empty."""
        self._apply(manifest, passing=manifest["kind"] != "Namespace")

    def judge(self, manifest: Object) -> Answer:
        """Offer a manifest to the server, which decodes it strictly, admits it and keeps nothing."""
        path, _ = _path(manifest)
        return self._connection.send("POST", path, manifest, fieldValidation="Strict", dryRun="All")

    def rules_of(self, kubeconfig: Path, namespace: str) -> Object:
        """What the server says that a kubeconfig's user may do in a namespace."""
        asked = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectRulesReview",
            "spec": {"namespace": namespace},
        }
        with Connection(kubeconfig) as connection:
            answer = connection.send("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", asked)
        status: Object = self._checked(answer)["status"]
        return status

    def act_as(self, manifests: Sequence[Object], *, name: str, namespace: str, directory: Path) -> Path:
        """Apply manifests of a ServiceAccount and its RBAC, and return a kubeconfig that is this ServiceAccount's.

        What was applied goes at the next reset, as by `add`.
        """
        for manifest in manifests:
            self.add(manifest)
        account = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
        bearer = self._write("POST", account, asked)["status"]["token"]
        kubeconfig = yaml.safe_load(self.kubeconfig.read_text())
        current = next(
            known["context"] for known in kubeconfig["contexts"] if known["name"] == kubeconfig["current-context"]
        )
        current["user"] = name
        kubeconfig["users"] = [{"name": name, "user": {"token": bearer}}]
        path = directory / f"{name}.kubeconfig"
        path.write_text(yaml.safe_dump(kubeconfig))
        return path

    def _apply(self, manifest: Object, *, passing: bool = False) -> None:
        path = "/".join(_path(manifest))
        self._write("PATCH", path, manifest, _APPLY_PATCH, fieldManager="tests", force="true")
        if passing:
            self._applied.append(path)

    def _is_served(self) -> bool:
        crd = self._write("GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/piecedtenants.pieced.ch")
        discovered = self._connection.send("GET", "/apis/pieced.ch/v1alpha1")
        return (
            is_established(crd)
            and discovered.status == 200
            and "piecedtenants" in {known["name"] for known in discovered.json()["resources"]}
            and self._connection.send("GET", TENANTS).status == 200
        )

    def _take_away(self, item: Object) -> None:
        name = item["metadata"]["name"]
        try:
            if item["metadata"].get("finalizers"):
                self.finalize(name)
            self.delete(name)
        except NotThere:
            return

    def _write(
        self, method: str, path: str, body: Object | None = None, content_type: str = "application/json", **query: str
    ) -> Object:
        return self._checked(self._connection.send(method, path, body, content_type, **query))

    def _checked(self, answer: Answer) -> Object:
        if answer.status == 404:
            raise NotThere(answer.body.decode())
        if answer.status == 409:
            raise AlreadyThere(answer.body.decode())
        if answer.status >= 300:
            raise RuntimeError(f"The API server answered {answer.status}: {answer.body.decode()}")
        return answer.json()

    def _until(self, what: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{PATIENCE:.0f} s passed, and not yet: {what}.")
            time.sleep(0.1)


def _path(manifest: Object) -> tuple[str, str]:
    """Return where objects like this one are listed, and its name there."""
    version, kind, metadata = manifest["apiVersion"], manifest["kind"], manifest["metadata"]
    root = f"/api/{version}" if version == "v1" else f"/apis/{version}"
    within = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
    plural = f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"
    return f"{root}{within}/{plural.lower()}", metadata["name"]


def is_established(crd: Object) -> bool:
    """Whether a CustomResourceDefinition, as the server shows it, has its names and can be served.

    Until the server's controllers have looked at it, its list of conditions is null.
    """
    conditions = crd.get("status", {}).get("conditions") or ()
    return any(known["type"] == "Established" and known["status"] == "True" for known in conditions)
