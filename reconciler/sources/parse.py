"""Reads a custom resource as an `Observed`, or as one that says why it cannot be read."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from reconciler.core.errors import SourceFault
from reconciler.core.model import FIRST_KUBERNETES, UNKNOWN_ORG, Observed

MAX_ID_LENGTH = 253
"""Characters. Longer ids are not valid Kubernetes names, and PostgreSQL could not index them."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""Where Unix time begins. On a resource it is an empty time, as is Go's zero time, which lies in the year 1."""

BEFORE_TRACKING = "ancient-changes"
"""The manager that the API server gives fields written before it tracked them: it has no time for them."""


class UnreadableItem(SourceFault):
    """An item of a list has no readable name."""


_Shape = TypeVar("_Shape", bound=msgspec.Struct)
Time = Annotated[datetime, Meta(tz=True)]
Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID_LENGTH)]
IdOrEmpty = Annotated[str, Meta(max_length=MAX_ID_LENGTH)]


class _Identity(Struct):
    name: str
    namespace: Any = None
    uid: Any = None


class _Named(Struct):
    metadata: _Identity


class _FieldSet(Struct):
    packages: dict[str, Any] | None = msgspec.field(name="f:packages", default=None)
    suspend: dict[str, Any] | None = msgspec.field(name="f:suspend", default=None)


class _Fields(Struct):
    spec: _FieldSet | None = msgspec.field(name="f:spec", default=None)


class _Write(Struct, rename="camel"):
    manager: str | None = None
    subresource: str | None = None
    time: Time | None = None
    fields: _Fields | None = msgspec.field(name="fieldsV1", default=None)


class _Metadata(Struct, rename="camel"):
    name: Id
    creation_timestamp: Time
    namespace: IdOrEmpty | None = None
    uid: IdOrEmpty | None = None
    resource_version: IdOrEmpty | None = None
    labels: dict[str, Any] | None = None
    deletion_timestamp: Time | None = None
    generation: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    managed_fields: list[_Write] | None = None


class _Spec(Struct):
    packages: list[Id] | None = None
    suspend: bool | None = None


class _Status(Struct, rename="camel"):
    suspended_at: Time | None = None


class _Tenant(Struct):
    metadata: _Metadata
    spec: _Spec | None = None
    status: _Status | None = None


class _MetadataWithoutOwners(_Metadata):
    managed_fields: Any = None


class _TenantWithoutOwners(_Tenant):
    """A resource whose managedFields have another shape: they are ignored, and the rest is read."""

    metadata: _MetadataWithoutOwners


_NOTHING = _Spec()


def read(item: Raw | dict[str, Any], *, org_label: str, position: int, reliable_times: bool = True) -> Observed:
    """Read one item of a list: raw JSON, or what a YAML parser returned.

    `position` is its number in the list, from 1; without `reliable_times`, those in managedFields prove nothing.

    Raises:
        UnreadableItem: it has no name, so it might be any tenant.
    """
    try:
        try:
            tenant = _decoded(item, _Tenant)
        except msgspec.ValidationError:
            tenant, reliable_times = _decoded(item, _TenantWithoutOwners), False
        return _observed(tenant, org_label, reliable_times=reliable_times)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        problem = str(error)
    try:
        identity = _decoded(item, _Named).metadata
        _check_id("metadata.name", identity.name)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UnreadableItem(
            f"Item {position} of the list has no readable name ({_one_line(str(error))}), so it might be any tenant.",
            "Check the source: the API server never sends such an item.",
        ) from None
    return Observed(
        name=identity.name,
        namespace=_id_or_none(identity.namespace) or "",
        uid=_id_or_none(identity.uid),
        problem=_one_line(problem),
    )


def _decoded(item: Raw | dict[str, Any], shape: type[_Shape]) -> _Shape:
    return msgspec.json.decode(item, type=shape) if isinstance(item, Raw) else msgspec.convert(item, shape)


def _observed(tenant: _Tenant, org_label: str, *, reliable_times: bool) -> Observed:
    metadata, spec = tenant.metadata, tenant.spec or _NOTHING
    packages = spec.packages or ()
    org = _org(metadata.labels, org_label)
    # fast path: PostgreSQL can store any printable text
    texts = metadata.name, metadata.namespace or "", metadata.uid or "", metadata.resource_version or ""
    if not "".join((*texts, *packages)).isprintable():
        for name, text in zip(("name", "namespace", "uid", "resourceVersion"), texts, strict=True):
            _check_text(f"metadata.{name}", text)
        for package in packages:
            _check_text("spec.packages", package)
    created_at = _plausible("metadata.creationTimestamp", metadata.creation_timestamp)
    if created_at is None:
        raise ValueError(f"metadata.creationTimestamp: {metadata.creation_timestamp} is an empty time")
    deleting_at = _plausible("metadata.deletionTimestamp", metadata.deletion_timestamp)
    suspended_at = _set("status.suspendedAt", tenant.status.suspended_at if tenant.status else None)
    if spec.suspend is None:
        # it decides alone whether the tenant is suspended
        _plausible("status.suspendedAt", suspended_at)
    writes = _in_utc(metadata.managed_fields) if reliable_times and metadata.managed_fields else []
    owners = [write for write in writes if write.fields and write.fields.spec and not write.subresource]
    return Observed(
        name=metadata.name,
        namespace=metadata.namespace or "",
        uid=metadata.uid or None,
        # a label with the value "unknown" names no organisation
        org=None if org == UNKNOWN_ORG else org,
        created_at=created_at,
        deleting_at=deleting_at,
        generation=metadata.generation,
        packages=tuple(sorted(set(packages))),
        suspended=spec.suspend if spec.suspend is not None else suspended_at is not None,
        suspended_at=suspended_at,
        last_modified_at=_last_modified_at(writes, max(created_at, deleting_at) if deleting_at else created_at),
        # the owners of an empty list do not show whether it is atomic or a set
        packages_written_at=_written_at(owners, "packages") if packages else None,
        suspend_written_at=_written_at(owners, "suspend"),
        suspend_is_set=spec.suspend is not None,
        last_modified_by=_last_modified_by(writes),
        resource_version=metadata.resource_version or None,
    )


def _org(labels: dict[str, Any] | None, org_label: str) -> str | None:
    org = labels.get(org_label) if labels else None
    if org is None or org == "":
        return None
    if not isinstance(org, str):
        # a ValueError, like every other fault of a resource
        raise ValueError(f"metadata.labels[{org_label}] is {type(org).__name__}, not a string")  # noqa: TRY004
    _check_id(f"metadata.labels[{org_label}]", org)
    return org


def _id_or_none(value: Any) -> str | None:
    with suppress(ValueError):
        _check_id("", value if isinstance(value, str) else "")
        return str(value)
    return None


def _check_id(where: str, text: str) -> None:
    if not 0 < len(text) <= MAX_ID_LENGTH:
        raise ValueError(f"{where}: an id has {len(text)} characters, not 1 to {MAX_ID_LENGTH}")
    _check_text(where, text)


def _check_text(where: str, text: str) -> None:
    """Raise ValueError if PostgreSQL cannot store the text."""
    if "\x00" in text:
        raise ValueError(f"{where}: an id contains a NUL character")
    text.encode()  # raises on a lone surrogate, which UTF-8 cannot encode


def _utc(where: str, time: datetime) -> datetime:
    try:
        return time if time.tzinfo is UTC else time.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{where}: {time} is outside the years 1 to 9999 in UTC") from None


def _set(where: str, time: datetime | None) -> datetime | None:
    """Return the time in UTC; None if it is an empty one, which counts as not set."""
    if time is None or (time := _utc(where, time)) > EPOCH:
        return time
    return None if time.year == 1 or time == EPOCH else time


def _plausible(where: str, time: datetime | None) -> datetime | None:
    """Return the time in UTC, None if it is not set; raise ValueError if Kubernetes did not exist then."""
    found = _set(where, time)
    if found is not None and found < FIRST_KUBERNETES:
        raise ValueError(f"{where}: {found:%Y-%m-%d} lies before {FIRST_KUBERNETES:%Y-%m-%d}, and so before Kubernetes")
    return found


def _in_utc(writes: list[_Write]) -> list[_Write]:
    """Return the entries of managedFields with their times in UTC, or none if one of them is out of range."""
    try:
        for write in writes:
            write.time = _set("metadata.managedFields", write.time)
    except ValueError:
        return []
    return writes


def _last_modified_at(writes: list[_Write], newest: datetime) -> datetime | None:
    """Return the newest time on the resource; None if no writes are known, or one of them has no time."""
    for write in writes:
        if write.time is None:
            return None
        newest = max(newest, write.time)
    return newest if writes else None


def _last_modified_by(writes: list[_Write]) -> str | None:
    """Return the manager of the newest write; None if no writes are known, or none of them has a time."""
    last = None
    for write in writes:
        if write.time is not None and (last is None or last.time is None or write.time >= last.time):
            last = write
    return last.manager if last and last.manager and last.manager.isprintable() else None


def _written_at(owners: list[_Write], name: str) -> datetime | None:
    """Return when the owner of `spec.<name>` last wrote, if the field cannot have changed after that.

    Every owner has written or applied the current value, so the earliest of them is the closest bound
    (https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management). There is no bound if the list
    is a set, because removing a member changes no owner's time.
    """
    times = []
    for write in owners:
        owned = getattr(write.fields.spec, name)  # type: ignore[union-attr] # an owner has them
        if owned is None:
            continue
        if owned or write.time is None or write.manager == BEFORE_TRACKING:
            return None
        times.append(write.time)
    return min(times, default=None)


def _one_line(problem: str) -> str:
    """Return a decoder's message on one line, without its path syntax."""
    text = problem.replace("`", "").replace("$.", "").replace("\x00", "\\0")
    return " ".join(text.encode("utf-8", "replace").decode().split())[:500]
