"""Requests to the API server: answered completely and in time, or a failure that says what to do.

The official client authenticates and connects. The body is read here, as bytes and within the deadline: the client
itself would wait indefinitely for a body that drips, obey a Retry-After of a day, follow a redirect to a login page and
accept a page of HTML as an answer.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import cached_property
from http import HTTPStatus
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec
import stamina
import urllib3

from reconciler.core.errors import SourceFault
from reconciler.core.model import FIRST_KUBERNETES
from reconciler.sources.documents import DoubledKey, refuse_doubled_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from datetime import datetime

    from kubernetes.client import ApiClient
    from urllib3 import BaseHTTPResponse

    from reconciler.deadline import Deadline

CONNECT_TIMEOUT = 5.0
"""Seconds."""
READ_TIMEOUT = 30.0
"""Seconds without receiving a byte."""
MAX_BODY_BYTES = 256 * 2**20
MAX_ATTEMPTS = 5
MAX_RETRY_AFTER = 20.0
"""Seconds that are waited at most, whatever a Retry-After asks for."""
CHUNK_BYTES = 2**20

TRANSIENT = {429, 500, 502, 503, 504}
"""The statuses after which a request is retried."""
SUCCESS = {"GET": {200}, "POST": {200, 201, 202}}
"""The statuses of a request that succeeded."""
RELIABLE_WRITE_TIMES = (1, 25)
"""The first version that moves a managedFields time whenever a value changes
(https://github.com/kubernetes/kubernetes/pull/110058). From older servers these times prove nothing."""

_CREDENTIALS = re.compile(r"(//)[^/\s@]+(?=@)|(?<=\b[Bb]earer )[!-~]+|(?<=\b[Bb]asic )[!-~]+")
_Method = Literal["GET", "POST"]
_Shape = TypeVar("_Shape", bound=msgspec.Struct)


class ClusterUnreachable(SourceFault):
    """The API server did not answer, or not in time."""


class ClusterDenied(SourceFault):
    """The API server refused the credentials or the permission."""


class ClusterForbidden(ClusterDenied):
    """403: who asks is known, and may not do this."""


class NoSuchResource(SourceFault):
    """The cluster does not have the custom resource."""


class NotFound(Exception):  # noqa: N818 - an answer, not an error
    """404: the API server has no object of this name; it is None for an unknown path."""

    def __init__(self, message: str, name: str | None) -> None:
        super().__init__(message)
        self.name = name


class Rejected(Exception):  # noqa: N818 - an answer about one object, not an error of the server
    """4xx about the posted object or its namespace: this one is refused, others may be accepted."""


class Gone(SourceFault):
    """410: the resourceVersion of the list that the request continues has been compacted away."""


class _AlreadyExists(Exception):  # noqa: N818 - an answer, not an error
    """409: an object of that name exists."""


class Transient(Exception):  # noqa: N818 - an answer after which the request is retried
    """The API server cannot answer at the moment."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a successful request, with its complete body."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    read_at: float
    """When it was read, in seconds of `time.monotonic`."""

    @property
    def date(self) -> datetime | None:
        """The API server's clock, to the second; None if it sent none that can be right."""
        try:
            sent = parsedate_to_datetime(self.headers.get("Date", ""))
            sent = sent.astimezone(UTC) if sent.tzinfo else sent.replace(tzinfo=UTC)
        except (ValueError, TypeError, OverflowError, IndexError):
            return None
        return sent if sent >= FIRST_KUBERNETES else None

    def decoded(self, shape: type[_Shape], kind: str, *, check_keys: bool = True) -> _Shape:
        """Decode the body; raise SourceFault if it is not an object of this kind.

        Without `check_keys`, `refuse_doubled_keys` is left to the caller.
        """
        try:
            decoded = msgspec.json.decode(self.body, type=shape)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            start = self.body[:60].decode("utf-8", "replace")
            raise malformed(
                f"{self.path} answered, but not with what was requested ({one_line(error)}); it begins {start!r}"
            ) from None
        if getattr(decoded, "kind", kind) != kind:
            raise malformed(f"{self.path} answered with a {getattr(decoded, 'kind', '')[:100]!r}, not a {kind!r}")
        if check_keys:
            self.refuse_doubled_keys()
        return decoded

    def refuse_doubled_keys(self) -> None:
        """Raise SourceFault if a key stands twice in a mapping of the body: which one counts is not said."""
        try:
            refuse_doubled_keys(self.body)
        except DoubledKey as error:
            raise malformed(f"in what {self.path} answered, {one_line(error)}") from None
        except (ValueError, RecursionError) as error:
            raise malformed(f"{self.path} answered with what cannot be read ({one_line(error)})") from None


@dataclass(frozen=True, kw_only=True)
class Api:
    """An API server, and how long its answers may take.

    Every request raises DeadlineExceeded when the time is over, ClusterDenied on 401 or 403, ClusterUnreachable without
    an answer in `MAX_ATTEMPTS` attempts or without a usable configuration, and SourceFault on any other answer.
    """

    kubeconfig: str | None
    """Its path; None for the pod's service account, or outside a pod for the default kubeconfig."""
    context: str | None
    """None for the kubeconfig's current one."""
    deadline: Deadline
    in_pod: bool = False

    @cached_property
    def client(self) -> ApiClient:
        """The official client, authenticated."""
        from reconciler.sources.access import connect

        return connect(self.kubeconfig, self.context, in_pod=self.in_pod)

    @property
    def host(self) -> str:
        """The server's address."""
        return str(self.client.configuration.host)

    def get(self, path: str) -> Answer:
        """Read one path.

        Raises:
            NotFound: 404.
            Gone: 410.
        """
        return self.ask(path)()

    def ask(self, path: str) -> Callable[[], Answer]:
        """Start to read one path; return a function that waits for the answer, and raises as `get` does."""
        return self.deadline.start(lambda: self._retry("GET", path))

    def post(self, path: str, item: Mapping[str, Any]) -> None:
        """Create an object with a name of its own: if that exists already, an earlier attempt has created it.

        Raises:
            Rejected: the API server refuses this object.
            NotFound: 404: the resource does not exist.
        """
        with suppress(_AlreadyExists):
            answer = self.deadline.bound(lambda: self._retry("POST", path, item))
            answer.decoded(_Created, item["kind"])

    def stream(self, path: str, deadline: Deadline, most: int) -> Generator[bytes]:
        """Yield the body of an answer in parts as they come, at most so many bytes; nothing is retried.

        Close it to hang up. It raises as `get` does, and Transient; a part that never comes is not waited for here.
        """
        response = self._send("GET", path)
        parts = self._parts(response, deadline, most)
        if response.status in SUCCESS["GET"]:
            yield from parts
        else:
            self._check_status("GET", path, response.status, response.headers, b"".join(parts))

    def _retry(self, method: _Method, path: str, item: Mapping[str, Any] | None = None) -> Answer:
        """Send a request, up to `MAX_ATTEMPTS` times, until it is answered."""
        try:
            for attempt in stamina.retry_context(on=backoff, attempts=MAX_ATTEMPTS, timeout=self.deadline.left()):
                with attempt:
                    return self._try(method, path, item)
        except Transient as error:
            raise ClusterUnreachable(
                f"The API server at {self.host} could not answer {path} in {MAX_ATTEMPTS} attempts: {error}.",
                "Nothing was written. Check the address, that the server runs, and that this machine can reach it.",
            ) from None
        raise AssertionError

    def _try(self, method: _Method, path: str, item: Mapping[str, Any] | None) -> Answer:
        response = self._send(method, path, item)
        body = b"".join(self._parts(response, self.deadline, MAX_BODY_BYTES))
        return self._check_status(method, path, response.status, response.headers, body)

    def _send(self, method: _Method, path: str, item: Mapping[str, Any] | None = None) -> BaseHTTPResponse:
        """Send a request, and return the answer before its body is read."""
        from kubernetes.client.exceptions import ApiException

        headers = {"Accept": "application/json"} | ({"Content-Type": "application/json"} if item else {})
        request = self.client.param_serialize(
            method, path, header_params=headers, body=item, auth_settings=["BearerToken"]
        )
        try:
            answer = self.client.call_api(*request, _request_timeout=(CONNECT_TIMEOUT, READ_TIMEOUT))
        except ApiException as error:  # what the client raises when TLS fails
            raise ClusterUnreachable(
                f"No secure connection to {self.host}: {one_line(error.reason)}",
                "Check the certificate authority in the kubeconfig.",
            ) from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Transient(one_line(error)) from None
        except (ValueError, HTTPException) as error:
            # its text may quote what could not be sent
            raise ClusterUnreachable(
                f"A request for {path} cannot be sent to {self.host} ({type(error).__name__}).",
                "Check the server's address in the kubeconfig, and --group and --plural.",
            ) from None
        response: BaseHTTPResponse = answer.response
        return response

    def _parts(self, response: BaseHTTPResponse, deadline: Deadline, most: int) -> Generator[bytes]:
        """Yield the body as it comes; close the connection if it is not read to its end."""
        size = 0
        try:
            while part := response.read1(CHUNK_BYTES):
                deadline.left()
                size += len(part)
                if size > most:
                    raise malformed(f"an answer is larger than {most} bytes")
                yield part
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Transient(f"the answer was cut off: {one_line(error)}") from None
        finally:
            response.release_conn() if response.closed else response.close()

    def _check_status(self, method: _Method, path: str, status: int, headers: Mapping[str, str], body: bytes) -> Answer:
        if status in SUCCESS[method]:
            return Answer(path, headers, body, time.monotonic())
        sent = _status(body)
        message = sent.message or (HTTPStatus(status).phrase if status in set(HTTPStatus) else str(status))
        if status in TRANSIENT:
            raise Transient(f"{status} {message}", _retry_after(headers))
        name = sent.details.name if sent.details else None
        if method == "POST" and name:
            raise _AlreadyExists(message) if sent.reason == "AlreadyExists" else Rejected(f"{status} {message}")
        if status == HTTPStatus.NOT_FOUND:
            raise NotFound(message, name)
        if status == HTTPStatus.GONE:
            raise Gone(
                f"The API server at {self.host} answered {path} with 410 Gone: {message}.",
                "Nothing was written. It compacts faster than it answers, or a proxy answers in its place.",
            )
        if status == HTTPStatus.UNAUTHORIZED:
            raise ClusterDenied(
                f"The API server at {self.host} did not accept the credentials (401): {message}.",
                "Has the token or the certificate expired?",
            )
        if status == HTTPStatus.FORBIDDEN:
            raise ClusterForbidden(
                f"The API server at {self.host} denied {path} (403): {message}.",
                "Apply the ClusterRole and the ClusterRoleBinding from cronjob.yaml.",
            )
        raise malformed(f"{path} answered {status} {message}")


@dataclass(frozen=True, slots=True)
class ServedKind:
    """A custom resource as API discovery describes it."""

    name: str
    api_version: str
    namespaced: bool
    server: tuple[int, int]
    """The API server's version; zeros if it does not report one."""

    @property
    def has_reliable_times(self) -> bool:
        """True if the times in its managedFields can be relied on."""
        return self.server >= RELIABLE_WRITE_TIMES


@dataclass(slots=True, kw_only=True)
class CustomResource:
    """A custom resource on an API server, discovered when it is first needed."""

    api: Api
    group: str
    plural: str
    kind: ServedKind | None = None
    """None before `discover`."""

    def discover(self) -> ServedKind:
        """Return what API discovery says of the resource; the API server is asked only once.

        Raises:
            NoSuchResource: the cluster does not have it.
        """
        if self.kind is None:
            try:
                group = self.api.get(f"/apis/{self.group}").decoded(_Group, "APIGroup")
                api_version = f"{self.group}/{group.preferred_version.version}"
                listed = self.api.get(f"/apis/{api_version}").decoded(_ResourceList, "APIResourceList")
            except NotFound:
                raise self.not_found() from None
            found = next((resource for resource in listed.resources if resource.name == self.plural), None)
            if found is None:
                raise self.not_found()
            self.kind = ServedKind(found.kind, api_version, found.namespaced, self._server_version())
        return self.kind

    def not_found(self) -> NoSuchResource:
        """Return the failure of a cluster without this resource."""
        return NoSuchResource(
            f"The cluster at {self.api.host} has no resource {self.plural}.{self.group}; nothing was written.",
            "Is it the right cluster, and is the CustomResourceDefinition installed? "
            "Give other names with --group and --plural.",
        )

    def _server_version(self) -> tuple[int, int]:
        try:
            version = self.api.get("/version").decoded(_ServerVersion, "")
            # some providers add a suffix to the minor version, as in 25+
            return int(version.major), int("".join(filter(str.isdigit, version.minor)))
        except (NotFound, ValueError):
            return 0, 0


def malformed(what: str) -> SourceFault:
    """Return the failure of an answer that cannot be trusted."""
    return SourceFault(
        f"The API server's answer cannot be trusted: {what}.",
        "Nothing was written. Is there a proxy between this machine and the API server?",
    )


def backoff(error: Exception) -> bool | float:
    """Return the seconds to wait before another attempt, True for a growing time, or False for no other attempt."""
    if not isinstance(error, Transient):
        return False
    return True if error.retry_after is None else min(error.retry_after, MAX_RETRY_AFTER)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    try:
        return max(0.0, float(headers["Retry-After"]))
    except (KeyError, ValueError):
        return None


class _Version(msgspec.Struct):
    version: str


class _Group(msgspec.Struct, rename="camel"):
    kind: str
    preferred_version: _Version


class _Resource(msgspec.Struct):
    name: str
    kind: str
    namespaced: bool


class _ResourceList(msgspec.Struct):
    kind: str
    resources: list[_Resource]


class _ServerVersion(msgspec.Struct):
    major: str
    minor: str


class _Created(msgspec.Struct):
    kind: str


class _Details(msgspec.Struct):
    name: str | None = None


class _Status(msgspec.Struct):
    """https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/."""

    kind: str
    message: str = ""
    reason: str = ""
    details: _Details | None = None


def _status(body: bytes) -> _Status:
    try:
        sent = msgspec.json.decode(body, type=_Status)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return _Status("")
    return msgspec.structs.replace(sent, message=one_line(sent.message)) if sent.kind == "Status" else _Status("")


def one_line(message: object) -> str:
    """Return a message on one line, cut off where it is long, and without credentials."""
    return _CREDENTIALS.sub(r"\1***", " ".join(str(message).split()))[:300].rstrip(".")
