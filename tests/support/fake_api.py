"""An API server of our own for tests: it serves an `ApiState` over HTTP, and fails as arranged."""

from __future__ import annotations

import copy
import dataclasses
import gzip
import http.server
import json
import re
import socket
import threading
import uuid
from bisect import bisect_left
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import parse_qsl, urlsplit

from tests.support.api_state import ApiState, token, untoken
from tests.support.faults import JSON, Fault, Reply, Request, Wire, send_chunked, status_body

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from tests.support.api_state import Object, ObjectList

TOKEN: Final = "kanarie-token"  # noqa: S105 - it opens a server on loopback, and tests look for it in every output
SOURCE_UID: Final = "5f0f9d3c-0000-4000-8000-6b7562652d73"
"""The uid of kube-system unless a test moves to another cluster."""

_COMPRESSED_FROM: Final = 128 * 1024
_EVENTS: Final = "events.k8s.io/v1"
_LONGEST_NOTE: Final = 1024
_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_EVENTS_PATH: Final = re.compile(r"/apis/events\.k8s\.io/v1/namespaces/(?P<namespace>[^/]+)/events")


class FakeApi(ApiState):
    """kube-apiserver as far as the reconciler uses it, on a port of its own.

        with FakeApi() as api:
            api.create(tenant("acme", ["web-search"]))
            api.faults.append(Fault(status(503), times=2))
            …
            assert [request.path for request in api.requests] == […]

    Attributes:
        installed: whether the CRD is. Without it the group is not found, as on a cluster that never had it.
        source_uid: the uid of the namespace kube-system; None: there is no such namespace.
        faults: searched in order for every request; the first that is due strikes.
        on_request: called before each answer is made, so that a test can change the world between two requests.
        requests: every request so far.
        events: every Event posted so far.
        page_limit: the most items on a page, whatever the client asks for; None: as many as it asks for.
        watch_allowed: whether RBAC lets the client watch.
        bookmarks: whether a watch ends with a bookmark; those of the servers of `legacy_times` do not.
        lag: how many of the newest changes a watch does not show yet.
        gone_as_status: whether a watch from a forgotten version is answered 410, not 200 with an error in it.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], datetime] | None = None,
        namespaced: bool = False,
        set_lists: bool = False,
        legacy_times: bool = False,
        group: str = "pieced.ch",
        plural: str = "piecedtenants",
        versions: Sequence[str] = ("v1alpha1",),
        kind: str = "PiecedTenant",
    ) -> None:
        super().__init__(
            clock=clock,
            namespaced=namespaced,
            set_lists=set_lists,
            legacy_times=legacy_times,
            api_version=f"{group}/{versions[0]}",
            kind=kind,
        )
        self.group = group
        self.plural = plural
        self.versions = tuple(versions)
        self.installed = True
        self.source_uid: str | None = SOURCE_UID
        self.faults: list[Fault] = []
        self.on_request: Callable[[Request], None] | None = None
        self.requests: list[Request] = []
        self.events: list[Object] = []
        self.page_limit: int | None = None
        self.watch_allowed = True
        self.bookmarks = not legacy_times
        self.lag = 0
        self.gone_as_status = False
        self.errors: list[BaseException] = []
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    # its life

    def __enter__(self) -> Self:
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        if error is None and self.errors:
            raise self.errors[0]

    def stop(self) -> None:
        """Close every connection and answer no more; what it holds can still be read."""
        if self._server is not None and self._thread is not None:
            self._server.stop()
            self._thread.join()
            self._server = None

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        if self._server is None:
            raise RuntimeError("The server is not running: use it in a with statement.")
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Its address, for the server field of a kubeconfig."""
        return f"http://127.0.0.1:{self.port}"

    def kubeconfig(self, path: Path, *, bearer: str = TOKEN) -> Path:
        """Write a kubeconfig for it, and return its path. JSON is YAML."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "double",
            "contexts": [{"name": "double", "context": {"cluster": "double", "user": "tests"}}],
            "clusters": [{"name": "double", "cluster": {"server": self.url}}],
            "users": [{"name": "tests", "user": {"token": bearer}}],
        }
        path.write_text(json.dumps(config, indent=2))
        return path

    @property
    def list_path(self) -> str:
        """The path of the list of all tenants."""
        return f"/apis/{self.api_version}/{self.plural}"

    @property
    def lists(self) -> list[Request]:
        """The requests for a page of the list."""
        return [request for request in self.requests if request.verb == "list"]

    @property
    def watches(self) -> list[Request]:
        """The requests for the change log."""
        return [request for request in self.requests if request.verb == "watch"]

    @property
    def gets(self) -> list[Request]:
        """The requests for one tenant."""
        return [request for request in self.requests if request.verb == "get"]

    # an answer

    def request(self, method: str, target: str, headers: Mapping[str, str], data: bytes = b"") -> tuple[Request, Reply]:
        """Take note of a request, and make its answer."""
        parts = urlsplit(target)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        request = Request(
            method=method,
            path=parts.path,
            verb=self._verb(method, parts.path, query),
            query=query,
            headers=headers,
            body=data,
            ask=lambda other: self._answer(method, parts.path, other, headers, data),
        )
        with self.lock:
            self.requests.append(request)
        if self.on_request is not None:
            self.on_request(request)
        reply = self._answer(method, parts.path, query, headers, data)
        with self.lock:
            due = [fault for fault in list(self.faults) if fault.due(request)]
            if due:
                due[0].struck += 1
        return request, due[0].effect(reply, request) if due else reply

    def _answer(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], data: bytes
    ) -> Reply:
        credentials = headers.get("authorization")
        if credentials is None:
            return self._status(403, f'forbidden: User "system:anonymous" cannot {method.lower()} path "{path}"')
        if credentials != f"Bearer {TOKEN}":
            return self._status(401, "Unauthorized")
        with self.lock:
            if method == "GET":
                return self._read(path, query)
            if method == "POST" and (posted := _EVENTS_PATH.fullmatch(path)):
                return self._post_event(posted["namespace"], json.loads(data))
        return self._status(405, "the server does not allow this method on the requested resource")

    def _read(self, path: str, query: Mapping[str, str]) -> Reply:
        if asked := _EVENTS_PATH.fullmatch(path):
            return self._event_list(asked["namespace"])
        if path == "/api/v1/events":
            return self._core_events(query.get("fieldSelector", ""))
        match path.strip("/").split("/"):
            case ("apis", self.group, version, *rest) if self.installed and version in self.versions:
                return self._resource(version, rest, query)
        known = self._discovery().get(path.rstrip("/"))
        return self._not_found() if known is None else self._json(200, known)

    def _verb(self, method: str, path: str, query: Mapping[str, str]) -> str:
        match path.strip("/").split("/"):
            case ("apis", self.group, _, self.plural) if method == "GET" and "watch" in query:
                return "watch"
            case ("apis", self.group, _, self.plural) | ("apis", self.group, _, "namespaces", _, self.plural):
                return "list" if method == "GET" else ""
            case ("apis", self.group, _, self.plural, _) | ("apis", self.group, _, "namespaces", _, self.plural, _):
                return "get" if method == "GET" else ""
        return ""

    def _resource(self, version: str, rest: Sequence[str], query: Mapping[str, str]) -> Reply:
        match rest:
            case ():
                return self._json(200, self._resource_list(version))
            case (self.plural,):
                return (self._watch if "watch" in query else self._list)(version, query)
            case (self.plural, name) if not self.namespaced:
                return self._get(name, "")
            case ("namespaces", namespace, self.plural) if self.namespaced:
                return self._list(version, query, namespace)
            case ("namespaces", namespace, self.plural, name) if self.namespaced:
                return self._get(name, namespace)
        return self._not_found()

    def _get(self, name: str, namespace: str) -> Reply:
        found = self.encoded(name, namespace=namespace)
        if found is not None:
            return self._reply(200, found + b"\n")
        details = {"name": name, "group": self.group, "kind": self.plural}
        return self._status(404, f'{self.plural}.{self.group} "{name}" not found', details=details)

    def _list(self, version: str, query: Mapping[str, str], namespace: str | None = None) -> Reply:
        try:
            limit = int(query.get("limit") or 0)
        except ValueError as error:
            return self._status(400, str(error))
        wanted = query.get("resourceVersion", "")
        if wanted.isdigit() and int(wanted) > self.resource_version:
            return self._status(504, f"Timeout: Too large resource version: {wanted}, current: {self.resource_version}")
        if wanted == "0":
            limit = 0  # the watch cache knows no pages
        snapshot, start = self.snapshot(), ""
        if name := query.get("fieldSelector", "").removeprefix("metadata.name="):
            # without a namespace a key is the name
            chosen = [at for at, key in enumerate(snapshot.keys) if key.rpartition("/")[2] == name]
            snapshot = snapshot._replace(
                keys=tuple(snapshot.keys[at] for at in chosen), encoded=tuple(snapshot.encoded[at] for at in chosen)
            )
        if query.get("continue"):
            try:
                at, start = untoken(query["continue"])
            except ValueError as error:
                return self._status(400, f"invalid continue token: {error}")
            kept = snapshot if at in {-1, snapshot.resource_version} else self.snapshot_at(at)
            if kept is None:
                return self._expired(start)
            snapshot = kept
        return self._page(version, snapshot, start, min(limit, self.page_limit or limit) or None, namespace)

    def _page(self, version: str, snapshot: ObjectList, start: str, limit: int | None, namespace: str | None) -> Reply:
        # "0" follows "/" in ASCII, so that what lies between is the namespace
        first, end = ("", None) if namespace is None else (f"{namespace}/", f"{namespace}0")
        low = bisect_left(snapshot.keys, max(start, first))
        high = len(snapshot.keys) if end is None else bisect_left(snapshot.keys, end)
        stop = high if limit is None else min(low + limit, high)
        metadata: Object = {"resourceVersion": str(snapshot.resource_version), "continue": ""}
        if stop < high:
            self.keep(snapshot)
            metadata["continue"] = token(snapshot.resource_version, snapshot.keys[stop - 1])
            metadata["remainingItemCount"] = high - stop
        items = self._as_of(version, b",".join(snapshot.encoded[low:stop]))
        head = json.dumps({"apiVersion": f"{self.group}/{version}", "kind": f"{self.kind}List", "metadata": metadata})
        return self._reply(200, head[:-1].encode() + b',"items":[' + items + b"]}\n")

    def _as_of(self, version: str, encoded: bytes) -> bytes:
        """Objects as one of the served versions shows them."""
        return encoded.replace(f'"{self.api_version}"'.encode(), f'"{self.group}/{version}"'.encode())

    def _watch(self, version: str, query: Mapping[str, str]) -> Reply:
        """The change log after the version that is asked for, at once: nothing more is waited for."""
        asked, shown = int(query["resourceVersion"]), self.changes(self.lag)
        latest = self.resource_version if not self.lag else shown[-1].resource_version if shown else asked
        if not self.watch_allowed:
            what = f'cannot watch resource "{self.plural}" in API group "{self.group}" at the cluster scope'
            return self._status(403, f'{self.plural}.{self.group} is forbidden: User "tests" {what}')
        if self.is_forgotten(asked):
            gone = status_body(410, f"too old resource version: {asked} ({latest})")
            return self._reply(410, gone) if self.gone_as_status else self._events([_event("ERROR", gone)])
        if asked > latest:
            return self._status(504, f"Timeout: Too large resource version: {asked}, current: {latest}")
        lines = [_event(one.type, one.encoded()) for one in shown if one.resource_version > asked]
        if self.bookmarks:
            metadata = {"resourceVersion": str(latest)}
            told = {"apiVersion": self.api_version, "kind": self.kind, "metadata": metadata}
            lines.append(_event("BOOKMARK", json.dumps(told, separators=(",", ":")).encode()))
        return self._events([self._as_of(version, line) for line in lines])

    def _events(self, lines: Sequence[bytes]) -> Reply:
        return dataclasses.replace(self._reply(200, b"".join(lines)), send=send_chunked)

    def _expired(self, start: str) -> Reply:
        inconsistent = {"continue": token(-1, start.removesuffix("\0"))}
        message = (
            "The provided continue parameter is too old to display a consistent list result. You can start a new list "
            "without the continue parameter, or use the continue token in this response to retrieve the remainder of "
            "the results. Continuing with the provided token results in an inconsistent list."
        )
        return self._reply(410, status_body(410, message, **inconsistent))

    def _post_event(self, namespace: str, event: Object) -> Reply:
        stored = copy.deepcopy(event)
        metadata = stored.setdefault("metadata", {})
        name = metadata.setdefault("name", f"{metadata.get('generateName', '')}{len(self.events):05}")
        details = {"name": name, "group": "events.k8s.io", "kind": "events"}
        metadata |= {"namespace": namespace, "uid": str(uuid.uuid4())}
        if problem := self._event_problem(stored):
            return self._status(422, problem, details=details)
        if any(
            (known["metadata"]["namespace"], known["metadata"]["name"]) == (namespace, name) for known in self.events
        ):
            return self._status(409, f'events.events.k8s.io "{name}" already exists', details=details)
        self.events.append(stored)
        return self._json(201, stored)

    def _event_problem(self, event: Object) -> str | None:
        """What validation has against an Event, if anything."""
        name, namespace = event["metadata"]["name"], event["metadata"]["namespace"]
        # https://github.com/kubernetes/kubernetes/pull/100125
        clusterwide = {"kube-system"} if self.legacy_times else {"default", "kube-system"}
        if not event.get("regarding", {}).get("namespace") and namespace not in clusterwide:
            return 'involvedObject.namespace: Invalid value: "": does not match event.namespace'
        if len(event.get("note", "").encode()) > _LONGEST_NOTE:
            return f'message: Invalid value: "": can have at most {_LONGEST_NOTE} characters'
        if not _SUBDOMAIN.fullmatch(name):
            return f"metadata.name: Invalid value: {name!r}: a lowercase RFC 1123 subdomain must consist of …"
        return None

    def _event_list(self, namespace: str) -> Reply:
        items = [event for event in self.events if event["metadata"]["namespace"] == namespace]
        return self._json(200, {"kind": "EventList", "apiVersion": _EVENTS, "metadata": {}, "items": items})

    def _core_events(self, selector: str) -> Reply:
        """The Events of all namespaces in their older form, as `kubectl describe` looks for them."""
        items = [
            {
                "metadata": event["metadata"],
                "involvedObject": event["regarding"],
                "reason": event["reason"],
                "message": event["note"],
            }
            for event in self.events
        ]
        for term in filter(None, selector.split(",")):
            key, _, value = term.removeprefix("involvedObject.").partition("=")
            items = [item for item in items if item["involvedObject"].get(key, "") == value]
        return self._json(200, {"kind": "EventList", "apiVersion": "v1", "metadata": {}, "items": items})

    # discovery

    def _discovery(self) -> dict[str, Object]:
        events = _group("events.k8s.io", ["v1"])
        groups = [events, *([_group(self.group, self.versions)] if self.installed else [])]
        minor = "20" if self.legacy_times else "33"
        answers: dict[str, Object] = {
            "/version": {"major": "1", "minor": minor, "gitVersion": f"v1.{minor}.0", "platform": "linux/amd64"},
            "/api": {"kind": "APIVersions", "versions": ["v1"]},
            "/api/v1": _resources("v1", [{"name": "namespaces", "namespaced": False, "kind": "Namespace"}]),
            "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups},
            "/apis/events.k8s.io": {"kind": "APIGroup", "apiVersion": "v1", **events},
            "/apis/events.k8s.io/v1": _resources(_EVENTS, [{"name": "events", "namespaced": True, "kind": "Event"}]),
        }
        if self.installed:
            answers[f"/apis/{self.group}"] = {"kind": "APIGroup", "apiVersion": "v1", **groups[-1]}
        if self.source_uid is not None:
            answers["/api/v1/namespaces/kube-system"] = {
                "kind": "Namespace",
                "apiVersion": "v1",
                "metadata": {"name": "kube-system", "uid": self.source_uid, "resourceVersion": "8"},
                "spec": {"finalizers": ["kubernetes"]},
                "status": {"phase": "Active"},
            }
        return answers

    def _resource_list(self, version: str) -> Object:
        served = {"namespaced": self.namespaced, "kind": self.kind}
        verbs = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"]
        return _resources(
            f"{self.group}/{version}",
            [
                {"name": self.plural, "singularName": self.kind.lower(), **served, "verbs": verbs},
                {"name": f"{self.plural}/status", "singularName": "", **served, "verbs": ["get", "patch", "update"]},
            ],
        )

    # bodies

    def _reply(self, status: int, body: bytes, content_type: str = JSON) -> Reply:
        date = format_datetime(self.clock().astimezone(UTC), usegmt=True)
        headers = {"Cache-Control": "no-cache, private", "Content-Type": content_type, "Date": date}
        return Reply(status=status, body=body, headers=headers)

    def _json(self, status: int, body: Object) -> Reply:
        return self._reply(status, json.dumps(body).encode())

    def _status(self, code: int, message: str, **more: Any) -> Reply:
        return self._json(code, json.loads(status_body(code, message)) | more)

    def _not_found(self) -> Reply:
        return self._reply(404, b"404 page not found\n", "text/plain; charset=utf-8")


def _event(kind: str, encoded: bytes) -> bytes:
    """A line of the change log."""
    return b'{"type":"%s","object":%s}\n' % (kind.encode(), encoded)


def _group(name: str, versions: Sequence[str]) -> Object:
    known = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": known, "preferredVersion": known[0]}


def _resources(group_version: str, resources: Sequence[Object]) -> Object:
    listed = [{"singularName": "", "verbs": ["create", "get", "list"], **resource} for resource in resources]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": listed}


class _Server(http.server.ThreadingHTTPServer):
    """One thread a connection; all of them end, and are waited for, when it stops."""

    daemon_threads = False
    request_queue_size = 64

    def __init__(self, double: FakeApi) -> None:
        self.double = double
        self.stopping = threading.Event()
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away: the handler has kept what was a fault of ours."""

    def stop(self) -> None:
        self.stopping.set()
        self.shutdown()
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    """Reads requests; the double answers them."""

    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle_one_request(self) -> None:
        """One request, unless the client hung up."""
        try:
            super().handle_one_request()
        except OSError:
            self.close_connection = True
        except Exception as error:  # noqa: BLE001 - a fault of the double, or of a test's hook: the test must fail
            self.server.double.errors.append(error)
            self.close_connection = True

    def do_GET(self) -> None:
        """Answer it."""
        length = int(self.headers.get("content-length") or 0)
        headers = {name.lower(): value for name, value in self.headers.items()}
        data = self.rfile.read(length) if length else b""
        request, reply = self.server.double.request(self.command, self.path, headers, data)
        if "gzip" in headers.get("accept-encoding", "") and len(reply.body) >= _COMPRESSED_FROM:
            compressed = Reply(status=reply.status, body=gzip.compress(reply.body, 1), headers=reply.headers)
            reply = compressed.with_headers(Content_Encoding="gzip")
        wire = Wire(self.connection, self.server.stopping, request)
        request.answered = reply.status
        if reply.send is None:
            wire.write(reply.head() + reply.body)
        else:
            reply.send(wire, reply)
        self.close_connection = self.close_connection or not wire.keep

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - the names are the base class's

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
        """Nothing: a test's output is the test's."""
