"""The objects of a cluster that exists only in a test, and what an API server does to them on every write."""

from __future__ import annotations

import base64
import copy
import itertools
import json
import threading
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Object = dict[str, Any]
"""A Kubernetes object as JSON has it."""

ORG_LABEL: Final = "pieced.ch/zitadel-org-id"

_BRANCH: Final = "\0branch"
"""Stands for the value of a field that has fields of its own."""


class ApiState:
    """What etcd holds, and the write side of an API server.

    Every write takes one resource version, moves `generation` if it changed the spec, and keeps `managedFields` as a
    server does for operation Update. Lists are cut from snapshots, so that the pages of one list agree with each other
    whatever is written between them. The change log has every write since the beginning.

    `legacy_times` makes it a server between 1.19 and 1.24: a manager's time moves only if the set of fields that it
    owns changes, not when it gives one of them another value; and writes to status are not kept apart as a
    subresource. Without it, every write that changes or adds a field moves the time, as servers do since 1.25.

    `clock` tells what time it is there; a test may put another one in its place.

    `set_lists` declares spec.packages a `listType=set`: each of its members is then a field of its own.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], datetime] | None = None,
        namespaced: bool = False,
        set_lists: bool = False,
        legacy_times: bool = False,
        api_version: str = "pieced.ch/v1alpha1",
        kind: str = "PiecedTenant",
    ) -> None:
        self.clock: Callable[[], datetime] = clock or (lambda: datetime.now(UTC))
        self.namespaced = namespaced
        self.set_lists = set_lists
        self.legacy_times = legacy_times
        self.api_version = api_version
        self.kind = kind
        self.lock = threading.RLock()
        self.resource_version = 1000
        self._objects: dict[str, Object] = {}
        self._encoded: dict[str, bytes] = {}
        self._current: ObjectList | None = None
        self._kept: dict[int, ObjectList] = {}
        self._changes: list[Change] = []
        self._forgotten = self.resource_version

    # what is there

    def get(self, name: str, *, namespace: str = "") -> Object | None:
        """A copy of the object as it is now, or None."""
        with self.lock:
            return copy.deepcopy(self._objects.get(self._key(name, namespace)))

    def names(self) -> list[str]:
        """The keys of all objects in the order of a list: `name`, or `namespace/name`."""
        with self.lock:
            return list(self.snapshot().keys)

    def encoded(self, name: str, *, namespace: str = "") -> bytes | None:
        """The object as it goes over the wire, or None."""
        with self.lock:
            return self._encode(self._key(name, namespace))

    # what is written

    def create(self, tenant: Object, *, manager: str = "portal", at: datetime | None = None) -> Object:
        """Create it as POST does: the server's fields are the server's, the status is dropped."""
        with self.lock:
            sent = copy.deepcopy(tenant)
            metadata = sent.setdefault("metadata", {})
            key = self._key(metadata["name"], metadata.get("namespace", ""))
            if key in self._objects:
                raise AlreadyThere(key)
            created = {
                "apiVersion": self.api_version,
                "kind": self.kind,
                **{part: value for part, value in sent.items() if part not in {"apiVersion", "kind", "metadata"}},
            }
            seen_by_fields = created if self.legacy_times else _without(created, "status")
            created = _without(created, "status")
            time = _stamp(at or self.clock())
            created["metadata"] = {
                **{
                    field: value
                    for field in ("name", "namespace", "labels", "annotations", "finalizers")
                    if (value := metadata.get(field)) not in (None, "", [], {})
                },
                "uid": str(uuid.uuid4()),
                "generation": 1,
                "creationTimestamp": time,
            }
            fields = self._fields(seen_by_fields | {"metadata": created["metadata"]})
            created["metadata"]["managedFields"] = (
                [self._entry(_Writer(manager), frozenset(fields), time)] if fields else []
            )
            return copy.deepcopy(self._store(key, created))

    def patch(
        self,
        name: str,
        changes: Mapping[str, Any],
        *,
        namespace: str = "",
        manager: str = "portal",
        at: datetime | None = None,
    ) -> Object:
        """Apply a JSON merge patch to spec, labels, annotations or finalizers; what it says of status is ignored."""
        return self._update(name, namespace, _without(changes, "status"), _Writer(manager), at)

    def set_status(
        self,
        name: str,
        status: Mapping[str, Any] | None,
        *,
        namespace: str = "",
        manager: str = "operator",
        at: datetime | None = None,
    ) -> Object:
        """Apply a JSON merge patch to the status subresource; None takes the whole status away."""
        writer = _Writer(manager, "" if self.legacy_times else "status")
        return self._update(name, namespace, {"status": status}, writer, at)

    def delete(self, name: str, *, namespace: str = "", at: datetime | None = None) -> None:
        """Ask for its deletion: gone at once, or lingering while it has finalizers."""
        with self.lock:
            key = self._key(name, namespace)
            tenant = self._known(key)
            metadata = tenant["metadata"]
            if not metadata.get("finalizers"):
                self._remove(key)
            elif "deletionTimestamp" not in metadata:
                metadata = metadata | {
                    "deletionTimestamp": _stamp(at or self.clock()),
                    "deletionGracePeriodSeconds": 0,
                    "generation": metadata["generation"] + 1,
                }
                self._store(key, tenant | {"metadata": metadata})

    def finalize(
        self, name: str, *, namespace: str = "", manager: str = "operator", at: datetime | None = None
    ) -> None:
        """Take its finalizers away; if its deletion was asked for, it is gone."""
        with self.lock:
            key = self._key(name, namespace)
            if "deletionTimestamp" in self._known(key)["metadata"]:
                self._remove(key)
            else:
                self.patch(name, {"metadata": {"finalizers": None}}, namespace=namespace, manager=manager, at=at)

    def plant(self, *tenants: Object) -> None:
        """Store objects exactly as they are given, whatever a real server would say to them.

        Only their resource version is the world's. For metadata that no server would write, and for large
        lists: an object costs no more than its encoding.
        """
        with self.lock:
            for tenant in tenants:
                metadata = tenant["metadata"]
                self._store(self._key(metadata["name"], metadata.get("namespace", "")), tenant)

    def reset(self) -> None:
        """Forget every object. Resource versions go on."""
        with self.lock:
            for key in list(self._objects):
                self._remove(key)

    # lists

    def snapshot(self) -> ObjectList:
        """The objects as they are now."""
        with self.lock:
            if self._current is None:
                keys = tuple(sorted(self._objects, key=str.encode))
                self._current = ObjectList(self.resource_version, keys, tuple(self._bytes(key) for key in keys))
            return self._current

    def snapshot_at(self, version: int) -> ObjectList | None:
        """The objects as they were at a version that a page was cut from; None if it was compacted."""
        with self.lock:
            return self._kept.get(version)

    def keep(self, snapshot: ObjectList) -> None:
        """Remember it for the pages still to come."""
        with self.lock:
            self._kept[snapshot.resource_version] = snapshot

    def compact(self) -> None:
        """Forget the past: every continue token given out before the last write has expired."""
        with self.lock:
            self._kept.clear()

    # the change log

    def changes(self, lag: int = 0) -> list[Change]:
        """Every change that is remembered, but for so many of the newest, in their order."""
        with self.lock:
            return self._changes[: max(0, len(self._changes) - lag)]

    def is_forgotten(self, version: int) -> bool:
        """Whether what followed on a resource version is remembered no more."""
        with self.lock:
            return version < self._forgotten

    def forget(self, before: int | None = None) -> None:
        """Forget the changes up to a resource version; without one all, as a server does that is restarted."""
        with self.lock:
            # what is forgotten is never remembered again
            self._forgotten = self.resource_version if before is None else max(before, self._forgotten)
            kept = [] if before is None else self._changes
            self._changes = [change for change in kept if change.resource_version > self._forgotten]

    def pass_by(self, writes: int = 1) -> None:
        """Let other objects than these be written so often: the resource version goes on."""
        with self.lock:
            self.resource_version += writes
            self._current = None

    # the machinery of a write

    def _key(self, name: str, namespace: str) -> str:
        return f"{namespace or 'default'}/{name}" if self.namespaced else name

    def _known(self, key: str) -> Object:
        try:
            return self._objects[key]
        except KeyError:
            raise NotThere(key) from None

    def _update(
        self, name: str, namespace: str, changes: Mapping[str, Any], writer: _Writer, at: datetime | None
    ) -> Object:
        with self.lock:
            key = self._key(name, namespace)
            old = self._known(key)
            new = _merged(old, changes)
            if new == old:
                return copy.deepcopy(old)
            metadata = dict(new["metadata"])
            if _without(new, "status", "metadata") != _without(old, "status", "metadata"):
                metadata["generation"] = old["metadata"]["generation"] + 1
            metadata["managedFields"] = self._owned_after(old, new, writer, _stamp(at or self.clock()))
            return copy.deepcopy(self._store(key, new | {"metadata": metadata}))

    def _store(self, key: str, tenant: Object) -> Object:
        self.resource_version += 1
        stored = tenant | {"metadata": tenant["metadata"] | {"resourceVersion": str(self.resource_version)}}
        self._changes.append(Change("MODIFIED" if key in self._objects else "ADDED", self.resource_version, stored))
        self._objects[key] = stored
        self._encoded.pop(key, None)
        self._current = None
        return stored

    def _remove(self, key: str) -> None:
        self.resource_version += 1
        removed = self._objects.pop(key)
        metadata = removed["metadata"] | {"resourceVersion": str(self.resource_version)}
        self._changes.append(Change("DELETED", self.resource_version, removed | {"metadata": metadata}))
        self._encoded.pop(key, None)
        self._current = None

    def _encode(self, key: str) -> bytes | None:
        return self._bytes(key) if key in self._objects else None

    def _bytes(self, key: str) -> bytes:
        if key not in self._encoded:
            self._encoded[key] = _json(self._objects[key])
        return self._encoded[key]

    # who owns which field

    def _owned_after(self, old: Object, new: Object, writer: _Writer, time: str) -> list[Object]:
        before, after = self._fields(old), self._fields(new)
        removed = before.keys() - after.keys()
        taken = {path for path, value in after.items() if path not in before or before[path] != value}
        owned = {_writer_of(entry): entry for entry in old["metadata"].get("managedFields", [])}
        entries = []
        for other, entry in owned.items():
            paths = _paths(entry["fieldsV1"])
            left = paths - removed - taken
            if other == writer and taken:
                left |= taken
                moved = left != paths if self.legacy_times else True
                entries.append(self._entry(writer, frozenset(left), time if moved else entry["time"]))
            elif left:
                entries.append(self._entry(other, frozenset(left), entry["time"]))
        if taken and writer not in owned:
            entries.append(self._entry(writer, frozenset(taken), time))
        return sorted(entries, key=lambda entry: (entry["operation"], entry["time"], entry["manager"]))

    def _entry(self, writer: _Writer, paths: frozenset[_Path], time: str) -> Object:
        entry = {
            "manager": writer.manager,
            "operation": writer.operation,
            "apiVersion": self.api_version,
            "time": time,
            "fieldsType": "FieldsV1",
            "fieldsV1": _tree(paths),
        }
        return entry | {"subresource": writer.subresource} if writer.subresource else entry

    def _fields(self, tenant: Object) -> dict[_Path, Any]:
        """Every field of an object with its value, as far as an API server tracks who wrote it."""
        metadata = tenant["metadata"]
        tracked = {name: metadata[name] for name in ("labels", "annotations", "finalizers") if name in metadata}
        body = {name: value for name, value in tenant.items() if name not in {"apiVersion", "kind", "metadata"}}
        found: dict[_Path, Any] = {}

        def walk(path: _Path, value: Any) -> None:
            is_set = path == ("f:metadata", "f:finalizers") or (
                self.set_lists and path == ("f:spec", "f:packages") and isinstance(value, list)
            )
            if isinstance(value, dict):
                found[path] = _BRANCH
                for name, inner in value.items():
                    walk((*path, f"f:{name}"), inner)
            elif is_set:
                found[path] = _BRANCH
                found.update({(*path, f"v:{json.dumps(member)}"): _BRANCH for member in value})
            else:
                found[path] = value

        for name, value in tracked.items():
            walk(("f:metadata", f"f:{name}"), value)
        for name, value in body.items():
            walk((f"f:{name}",), value)
        return found


class ObjectList(NamedTuple):
    """All objects at one resource version, encoded, in the order of a list."""

    resource_version: int
    keys: tuple[str, ...]
    encoded: tuple[bytes, ...]


class Change(NamedTuple):
    """One write of an object: what it was after it, or of a deletion, what it was last."""

    type: str
    resource_version: int
    object: Object

    def encoded(self) -> bytes:
        """The object as it goes over the wire."""
        return _json(self.object)


class AlreadyThere(Exception):  # noqa: N818 - it is the answer to a request
    """An object of this name exists."""


class NotThere(Exception):  # noqa: N818 - it is the answer to a request
    """No object of this name exists."""


def tenant(
    name: str,
    packages: Any = (),
    *,
    org: str | None = "2871",
    suspend: Any = None,
    finalizers: Iterable[str] = (),
    namespace: str = "",
    **spec: Any,
) -> Object:
    """A PiecedTenant as the portal would send it. Give `packages` another shape to make it malformed."""
    metadata: Object = {"name": name}
    if namespace:
        metadata["namespace"] = namespace
    if org is not None:
        metadata["labels"] = {ORG_LABEL: org}
    if finalizers := list(finalizers):
        metadata["finalizers"] = finalizers
    body: Object = {"displayName": name.title(), "packages": list(packages) if _listed(packages) else packages, **spec}
    if suspend is not None:
        body["suspend"] = suspend
    return {"apiVersion": "pieced.ch/v1alpha1", "kind": "PiecedTenant", "metadata": metadata, "spec": body}


def planted(
    index: int, packages: Iterable[str] = ("web-search",), *, created_at: str = "2026-01-01T00:00:00Z"
) -> Object:
    """One of many tenants, complete with what a server adds: for `ApiState.plant`, where lists must be long."""
    made = tenant(f"tenant-{index:06}", packages)
    made["metadata"] |= {
        "uid": str(uuid.UUID(int=index)),
        "generation": 1,
        "creationTimestamp": created_at,
        "managedFields": [
            {
                "manager": "portal",
                "operation": "Update",
                "apiVersion": "pieced.ch/v1alpha1",
                "time": created_at,
                "fieldsType": "FieldsV1",
                "fieldsV1": {"f:spec": {".": {}, "f:displayName": {}, "f:packages": {}}},
            }
        ],
    }
    return made


def token(version: int, key: str) -> str:
    """The continue token for what follows `key` in the list at a version; -1 is whatever the list is by then."""
    text = json.dumps({"v": "meta.k8s.io/v1", "rv": version, "start": f"{key}\0"}, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def untoken(given: str) -> tuple[int, str]:
    """The version and the first key that a continue token stands for.

    Raises:
        ValueError: nobody here gave out this token.
    """
    try:
        text = base64.urlsafe_b64decode(given + "=" * (-len(given) % 4))
        decoded = json.loads(text)
        return int(decoded["rv"]), str(decoded["start"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"continue key is not valid: {error}") from None


_Path = tuple[str, ...]


class _Writer(NamedTuple):
    """Whose entry in managedFields it is."""

    manager: str
    subresource: str = ""
    operation: str = "Update"


def _writer_of(entry: Object) -> _Writer:
    return _Writer(entry["manager"], entry.get("subresource", ""), entry["operation"])


def _stamp(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _json(value: Object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _without(mapping: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name not in names}


def _listed(value: Any) -> bool:
    return isinstance(value, (list, tuple, set, frozenset))


def _merged(old: Any, changes: Any) -> Any:
    """RFC 7386, and a server's habit of dropping metadata maps and lists that have become empty."""
    if not isinstance(changes, Mapping):
        return copy.deepcopy(changes)
    merged = dict(old) if isinstance(old, dict) else {}
    for name, value in changes.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merged(merged.get(name), value)
            if name in {"labels", "annotations", "finalizers"} and not merged[name]:
                del merged[name]
    return merged


def _tree(paths: Iterable[_Path]) -> Object:
    """The set of paths as FieldsV1 writes it: a dot where a field with fields of its own is owned itself."""
    root: Object = {}
    owned = set(paths)
    for path in sorted(owned):
        node = root
        for depth, step in enumerate(path, start=1):
            node = node.setdefault(step, {})
            if path[:depth] in owned and depth < len(path):
                node["."] = {}
    return root


def _paths(tree: Object) -> set[_Path]:
    """The set of paths that a FieldsV1 stands for."""

    def walk(path: _Path, node: Object) -> Iterable[_Path]:
        if not node or "." in node:
            yield path
        yield from itertools.chain.from_iterable(
            walk((*path, step), inner) for step, inner in node.items() if step != "."
        )

    return {path for path in walk((), tree) if path}
