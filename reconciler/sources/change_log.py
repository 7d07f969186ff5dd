"""Reads the change log of the tenants: every version of every one since an earlier list, as the API server tells it.

A watch from the position of the earlier list sends one version a line. It is read up to the later list and no further,
and what cannot be trusted ends it: what came before that counts. Where nothing can be read the log is lost, which costs
the proof of what happened in between, and never the run.
"""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlencode

import msgspec
import stamina
import structlog
from msgspec import Raw, Struct

from reconciler.core.errors import SourceFault
from reconciler.core.model import ChangeLog, LogRead, Version, VersionKind
from reconciler.deadline import Deadline, DeadlineExceeded
from reconciler.sources.api_client import (
    MAX_ATTEMPTS,
    TRANSIENT,
    ClusterDenied,
    ClusterForbidden,
    ClusterUnreachable,
    Gone,
    NotFound,
    Transient,
    backoff,
    malformed,
    one_line,
)
from reconciler.sources.documents import refuse_doubled_keys
from reconciler.sources.kubeconfig import NoAccess
from reconciler.sources.parse import UnreadableItem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from reconciler.core.model import Observed
    from reconciler.sources.api_client import CustomResource, ServedKind

    _Read = Callable[[ServedKind, Raw], Observed]

WATCH_SECONDS = 4
"""After these the API server ends the log. About halfway it says how far it has come."""
MAX_SECONDS = 10.0
"""In all, with every attempt."""
MAX_VERSIONS = 20_000
MAX_BYTES = 64 * 2**20

_COMPARABLE = re.compile(r"[1-9][0-9]{0,19}")
"""A resourceVersion that says what is before and after it: 0 stands for whatever a cache holds."""

_log = structlog.get_logger(__name__)


class _Line(Struct):
    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]
    object: Raw


class _Metadata(Struct, rename="camel"):
    resource_version: str = ""


class _Head(Struct, rename="camel"):
    """What a tenant, a bookmark and a Status say of themselves."""

    kind: str
    api_version: str
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)
    code: int = 0
    message: str = ""


_LINES = msgspec.json.Decoder(_Line)
_HEADS = msgspec.json.Decoder(_Head)


def read_log(resource: CustomResource, read: _Read, position: str, until: str) -> ChangeLog:
    """Return the versions between the resourceVersions of two lists; `read` reads each of them.

    Raises:
        DeadlineExceeded: the time of the whole run is over.
        ClusterDenied: 401.
    """
    begin, end = _number(position), _number(until)
    if begin and begin == end:
        return ChangeLog(LogRead.REACHED, until)
    if not begin or not end or end < begin:
        return _unread(LogRead.LOST, None, f"Nothing lies between {position[:100]!r} and {until[:100]!r}.")
    reading = _Reading(resource=resource, kind=resource.discover(), read=read, end=end, shown=[(begin, None)])
    within = Deadline.after(min(MAX_SECONDS, resource.api.deadline.left()))
    try:
        if within.bound(lambda: reading.reaches_end(within)):
            return ChangeLog(LogRead.REACHED, until, reading.versions)
        ended, problem = LogRead.PARTLY, f"The API server ended the log before the resourceVersion {until}."
    except DeadlineExceeded:
        resource.api.deadline.left()
        ended, problem = LogRead.PARTLY, f"The log was not read within {MAX_SECONDS:g} s."
    except ClusterForbidden:
        what = f"watch {resource.plural}.{resource.group}"
        ended, problem = LogRead.LOST, f"The role may not {what} (403): apply the ClusterRole from cronjob.yaml."
    except ClusterDenied:
        raise
    except Gone:
        ended, problem = LogRead.LOST, f"The API server has forgotten what followed on {position} (410)."
    except (ClusterUnreachable, NoAccess) as error:
        ended, problem = LogRead.PARTLY, str(error)
    except SourceFault as error:
        # where nothing was read, the next run would read nothing again
        ended, problem = LogRead.PARTLY if reading.has_begun else LogRead.LOST, str(error)
    return _unread(ended, reading, problem)


@dataclass(slots=True, kw_only=True)
class _Reading:
    """One log while it is read, in a thread that may be abandoned."""

    resource: CustomResource
    kind: ServedKind
    read: _Read
    end: int
    shown: list[tuple[int, Version | None]] = field(default_factory=list)
    """What the API server has shown, in its order: resourceVersions, each with its version, or of a bookmark."""

    @property
    def has_begun(self) -> bool:
        """True if anything was shown."""
        return len(self.shown) > 1

    @property
    def versions(self) -> tuple[Version, ...]:
        """The versions that were shown."""
        return tuple(version for _, version in self.shown if version)

    def reaches_end(self, within: Deadline) -> bool:
        """Read until a line lies at the end or after it; False if the API server ends the log before that."""
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self.shown[0][0],
            "timeoutSeconds": WATCH_SECONDS,
        }
        path = f"/apis/{self.kind.api_version}/{self.resource.plural}?{urlencode(query)}"
        try:
            for attempt in stamina.retry_context(on=self._backoff, attempts=MAX_ATTEMPTS, timeout=within.left()):
                with attempt, closing(self.resource.api.stream(path, within, MAX_BYTES)) as parts:
                    return any(self._take(line) for line in _lines(parts))
        except Transient as error:
            raise ClusterUnreachable(f"The API server could not send the change log: {error}.") from None
        except NotFound as error:
            raise malformed(f"the change log is not there (404 {error})") from None
        raise AssertionError

    def _backoff(self, error: Exception) -> bool | float:
        return not self.has_begun and backoff(error)

    def _take(self, text: bytes) -> bool:
        """Take note of a line, and say whether it lies at the end or after it."""
        line, head = _decoded(text)
        if line.type == "ERROR":
            raise _failure(head.code, f"{head.code} {one_line(head.message)}")
        number = _number(head.metadata.resource_version)
        if number is None:
            raise malformed(f"a version has the resourceVersion {head.metadata.resource_version[:100]!r}")
        if (head.kind, head.api_version) != (self.kind.name, self.kind.api_version):
            raise malformed(f"a version is of {head.kind[:100]!r} in {head.api_version[:100]!r}")
        if number <= self.end:
            self._keep(number, None if line.type == "BOOKMARK" else self._version(line, number))
        return number >= self.end

    def _version(self, line: _Line, number: int) -> Version:
        try:
            observed = self.read(self.kind, line.object)
        except UnreadableItem:
            raise malformed(f"the version {number} has no readable name") from None
        return Version(VersionKind(line.type), observed._replace(resource_version=str(number)))

    def _keep(self, number: int, version: Version | None) -> None:
        before = self.shown[-1][0]
        if number > before:
            if len(self.shown) > MAX_VERSIONS:
                raise malformed(f"the change log has more than {MAX_VERSIONS} versions")
            self.shown.append((number, version))
        elif version and (number, version) not in self.shown:
            # a bookmark may come late, and a version again: neither says anything new
            raise malformed(f"the version {number} came after {before}")


def _unread(ended: LogRead, reading: _Reading | None, problem: str) -> ChangeLog:
    """Return a log that was not read to its end, and say so."""
    _log.info(f"log.{ended}", problem=problem)
    if ended is LogRead.LOST or reading is None:
        return ChangeLog(ended, problem=problem)
    # an abandoned thread may still add to it
    shown = tuple(reading.shown)
    return ChangeLog(ended, str(shown[-1][0]), tuple(version for _, version in shown if version), problem)


def _failure(code: int, said: str) -> Exception:
    """Return what an error within the log means: what the same status would, but for who asks."""
    if code == HTTPStatus.GONE:
        return Gone(said)
    return Transient(said) if code in TRANSIENT else malformed(f"the change log ended with {said}")


def _number(version: str) -> int | None:
    return int(version) if _COMPARABLE.fullmatch(version) else None


def _lines(parts: Iterable[bytes]) -> Iterator[bytes]:
    begun = bytearray()
    for part in parts:
        first, *others = part.split(b"\n")
        begun += first
        for other in others:
            yield bytes(begun)
            begun = bytearray(other)
    if begun:
        yield bytes(begun)


def _decoded(text: bytes) -> tuple[_Line, _Head]:
    try:
        line = _LINES.decode(text)
        refuse_doubled_keys(text)
        return line, _HEADS.decode(line.object)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        start = text[:60].decode("utf-8", "replace")
        raise malformed(f"a line of the change log cannot be read ({one_line(error)}); it begins {start!r}") from None
