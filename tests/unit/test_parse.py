from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from reconciler.core.errors import SourceFault
from reconciler.core.model import Observed
from reconciler.sources import documents
from reconciler.sources.parse import read
from tests.support.comparison import NASTY

LABEL = "pieced.ch/zitadel-org-id"
CREATED = "2026-05-01T08:00:00Z"
BORN = datetime(2026, 5, 1, 8, tzinfo=UTC)
HOUR = timedelta(hours=1)

Object = dict[str, Any]


def resource(*, spec: Any = None, status: Any = None, **metadata: Any) -> Object:
    """Return a custom resource with these fields beside its name and its creation."""
    body: Object = {"metadata": {"name": "acme", "creationTimestamp": CREATED} | metadata}
    body |= {"spec": spec} if spec is not None else {}
    return body | ({"status": status} if status is not None else {})


def as_json(item: Any) -> Raw:
    return Raw(json.dumps(item).encode())


def as_yaml(item: Any) -> Any:
    return yaml.load(yaml.safe_dump(item), documents._Loader)  # noqa: S506, SLF001 - what a file is read with


def observed(item: Any, *, reliable_times: bool = True) -> Observed:
    """Read an item as an API server sends it; a file with it must give the same."""
    read_from_json = read(as_json(item), org_label=LABEL, position=1, reliable_times=reliable_times)
    assert read(item, org_label=LABEL, position=1, reliable_times=reliable_times) == read_from_json
    return read_from_json


def problem(item: Any) -> str:
    """Return why an item is unreadable; only its identity is then known."""
    said = observed(item)
    assert said.problem
    assert said == Observed(name="acme", namespace=said.namespace, uid=said.uid, problem=said.problem)
    return said.problem


def test_every_field_of_a_tenant_is_read() -> None:
    item = resource(
        namespace="shop",
        uid="u1",
        resourceVersion="4711",
        labels={LABEL: "2871", "app": "x"},
        generation=3,
        deletionTimestamp="2026-06-01T08:00:00+02:00",
        managedFields=[],
        spec={"packages": ["b", "a", "b"], "suspend": False, "displayName": "Acme"},
        status={"suspendedAt": "2026-05-02T08:00:00Z", "phase": "Ready"},
    )
    assert observed(item) == Observed(
        name="acme",
        namespace="shop",
        uid="u1",
        org="2871",
        created_at=BORN,
        deleting_at=datetime(2026, 6, 1, 6, tzinfo=UTC),
        generation=3,
        packages=("a", "b"),
        suspended=False,
        suspended_at=datetime(2026, 5, 2, 8, tzinfo=UTC),
        suspend_is_set=True,
        resource_version="4711",
    )


@pytest.mark.parametrize(
    "item",
    [
        resource(),
        resource(spec={}, status={}),
        resource(spec={"packages": None, "suspend": None}, status={"suspendedAt": None}),
        resource(spec={"packages": []}),
        resource(labels=None, deletionTimestamp=None, generation=None, managedFields=None, namespace=None, uid=None),
        resource(labels={}, managedFields=[], namespace="", uid="", resourceVersion=""),
        resource(resourceVersion=None),
        resource(labels={LABEL: None}),
        resource(labels={LABEL: ""}),
        resource(labels={LABEL: "unknown"}),
        resource(labels={"app": "x", "bad": 5}),
        {**resource(), "spec": None, "status": None},
    ],
)
def test_missing_null_and_empty_fields_are_read_alike(item: Object) -> None:
    assert observed(item) == Observed(name="acme", created_at=BORN)


@pytest.mark.parametrize(
    ("spec", "status", "suspended"),
    [
        ({"suspend": True}, None, True),
        ({"suspend": False}, None, False),
        ({"suspend": True}, {"suspendedAt": None}, True),
        ({"suspend": False}, {"suspendedAt": CREATED}, False),
        ({"suspend": None}, {"suspendedAt": CREATED}, True),
        ({}, {"suspendedAt": CREATED}, True),
        ({}, {}, False),
        (None, None, False),
    ],
)
def test_spec_decides_whether_a_tenant_is_suspended_before_status(spec: Any, status: Any, *, suspended: bool) -> None:
    assert observed(resource(spec=spec, status=status)).suspended is suspended


@pytest.mark.parametrize(
    "text",
    ["2026-05-01T08:00:00Z", "2026-05-01T10:00:00+02:00", "2026-05-01T08:00:00.000000Z", "2026-05-01T02:30:00-05:30"],
)
def test_times_are_converted_to_utc(text: str) -> None:
    created_at = observed(resource(creationTimestamp=text)).created_at
    assert created_at == BORN
    assert created_at.tzinfo is UTC


EMPTY_TIMES = (
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00.000000000Z",
    "0001-01-01T00:00:00-05:00",
    "0001-01-01T00:34:08+00:34",
    "1970-01-01T00:00:00Z",
    "1970-01-01T00:00:00.000Z",
    "1970-01-01T01:00:00+01:00",
    "1969-12-31T19:00:00-05:00",
)
"""How programs write that they have no time."""
TOO_EARLY = ("1970-01-01T00:00:01Z", "1969-12-31T23:59:59Z", "0002-01-01T00:00:00Z", "2014-06-05T23:59:59Z")


@pytest.mark.parametrize("time", EMPTY_TIMES)
@pytest.mark.parametrize("suspend", [None, False, True])
def test_an_empty_time_does_not_suspend(time: str, suspend: bool | None) -> None:  # noqa: FBT001 - of the table above
    said = observed(resource(spec={"suspend": suspend}, status={"suspendedAt": time}))
    assert (said.problem, said.suspended, said.suspended_at) == (None, suspend is True, None)


@pytest.mark.parametrize("time", EMPTY_TIMES)
def test_an_empty_deletion_is_not_one(time: str) -> None:
    assert observed(resource(deletionTimestamp=time)).deleting_at is None


@pytest.mark.parametrize("time", EMPTY_TIMES)
def test_an_empty_creation_makes_the_tenant_unreadable(time: str) -> None:
    assert "metadata.creationTimestamp" in problem(resource(creationTimestamp=time))


@pytest.mark.parametrize("field", ["creationTimestamp", "deletionTimestamp"])
@pytest.mark.parametrize("time", TOO_EARLY)
def test_a_time_before_kubernetes_makes_the_tenant_unreadable(field: str, time: str) -> None:
    assert f"metadata.{field}" in problem(resource(**{field: time}))


def test_a_tenant_from_the_day_of_kubernetes_is_readable() -> None:
    assert observed(resource(creationTimestamp="2014-06-06T02:00:00+02:00")).created_at == datetime(
        2014, 6, 6, tzinfo=UTC
    )


@pytest.mark.parametrize("time", TOO_EARLY)
def test_a_suspension_before_kubernetes_is_unreadable_where_it_decides(time: str) -> None:
    assert "status.suspendedAt" in problem(resource(status={"suspendedAt": time}))
    assert observed(resource(spec={"suspend": False}, status={"suspendedAt": time})).suspended is False


WRONG_TIMES: tuple[Any, ...] = (
    "",
    "yesterday",
    "2026-05-01",
    "2026-05-01T08:00:00",
    "2026-13-01T08:00:00Z",
    "2026-05-01T08:00:60Z",
    "0000-01-01T00:00:00Z",
    "12026-05-01T08:00:00Z",
    5,
    1.5,
    True,
    [],
    {},
)
NOT_OBJECTS: tuple[Any, ...] = (5, 1.5, True, "text", [], [{}])
WRONG: dict[str, tuple[Any, ...]] = {
    "metadata.creationTimestamp": (*WRONG_TIMES, None),
    "metadata.deletionTimestamp": WRONG_TIMES,
    "metadata.generation": ("1", 1.5, True, [], {}, 2**63, -(2**70)),
    "metadata.labels": NOT_OBJECTS,
    f"metadata.labels[{LABEL}]": (5, 1.5, True, ["a"], {"a": 1}, 0, 0.0, False, [], {}, "a\0b", "x" * 254),
    "metadata.uid": (5, True, [], "a\0b"),
    "metadata.namespace": (5, True, [], "a\0b"),
    "spec": NOT_OBJECTS,
    "spec.packages": (5, 1.5, True, "text", "", {}, {"a": 1}),
    "spec.packages[]": (5, None, True, [], ["a"], {"id": "a"}, "", "a\0b", "x" * 254),
    "spec.suspend": (0, 1, "true", "", [], {}, "False"),
    "status": NOT_OBJECTS,
    "status.suspendedAt": WRONG_TIMES,
}
"""Values whose shape is not the field's."""


def _with(field: str, value: Any) -> Object:
    """Return a resource whose field has this value."""
    part, _, name = field.partition(".")
    if name.startswith("labels["):
        return resource(labels={LABEL: value})
    if part == "metadata":
        return resource(**{name: value})
    if name == "packages[]":
        return resource(spec={"packages": ["a", value]})
    return resource(**{part: {name: value} if name else value})


MALFORMED = [(field, value) for field, values in WRONG.items() for value in values]


@pytest.mark.parametrize(("field", "value"), MALFORMED, ids=[f"{field}={value!r:.20}" for field, value in MALFORMED])
def test_a_field_of_the_wrong_shape_makes_the_tenant_unreadable(field: str, value: Any) -> None:
    said = problem(_with(field, value))
    assert field.removesuffix("[]") in said
    assert "\n" not in said
    assert "\0" not in said
    assert len(said) <= 500
    assert said.encode()


@pytest.mark.parametrize("field", ["creationTimestamp", "deletionTimestamp"])
@pytest.mark.parametrize("time", ["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00"])
def test_a_time_outside_utcs_years_makes_the_tenant_unreadable(field: str, time: str) -> None:
    assert f"metadata.{field}" in problem(resource(**{field: time}))


def test_the_identity_of_an_unreadable_tenant_is_kept() -> None:
    item = resource(namespace="shop", uid="u1", labels={LABEL: "2871"}, spec={"packages": "a"})
    assert observed(item) == Observed(
        name="acme", namespace="shop", uid="u1", problem="Expected array | null, got str - at spec.packages"
    )


def test_ids_as_long_as_a_kubernetes_name_are_read() -> None:
    assert observed(resource(name="x" * 253, spec={"packages": ["y" * 253]})).packages == ("y" * 253,)


INVALID_NAMES: tuple[Any, ...] = (None, "", 5, True, [], {}, "a\0b", "\ud800", "x" * 254)


@pytest.mark.parametrize(
    "item",
    [
        {},
        {"metadata": None},
        {"metadata": {}},
        {"metadata": []},
        {"spec": {"packages": ["a"]}},
        *(resource(name=name) for name in INVALID_NAMES),
    ],
)
def test_an_item_without_a_name_might_be_any_tenant(item: Object) -> None:
    for form in (as_json(item), item):
        with pytest.raises(SourceFault, match="Item 3 of the list has no readable name") as fault:
            read(form, org_label=LABEL, position=3)
        assert isinstance(fault.value, SourceFault)
        assert fault.value.remedy
        assert fault.value.exit_code == 1


@pytest.mark.parametrize("body", [b"", b"null", b"5", b"[]", b'"acme"', b"{", b'{"metadata":{"name":"\xff"}}'])
def test_an_item_that_is_not_an_object_might_be_any_tenant(body: bytes) -> None:
    with pytest.raises(SourceFault, match="Item 1 of the list has no readable name"):
        read(Raw(body), org_label=LABEL, position=1)


def test_an_item_nested_too_deeply_is_a_fault_of_the_source() -> None:
    body = json.dumps(resource(spec={"packages": ["a"]})).encode()
    deep = body.replace(b'"packages"', b'"other": ' + 100_000 * b"[" + 100_000 * b"]" + b', "packages"')
    with pytest.raises(SourceFault):
        read(Raw(deep), org_label=LABEL, position=1)


# What the API server records of who wrote what (https://kubernetes.io/docs/reference/using-api/server-side-apply/).

ALL: Object = {"f:spec": {"f:packages": {}, "f:suspend": {}}}
PACKAGES: Object = {"f:spec": {"f:packages": {}}}
SUSPEND: Object = {"f:spec": {"f:suspend": {}}}
DISPLAY: Object = {"f:spec": {"f:displayName": {}}}


def clock(hours: int) -> str:
    return f"{BORN + hours * HOUR:%Y-%m-%dT%H:%M:%SZ}"


def write(fields: Any, hours: int | None, **fields_of_the_entry: Any) -> Object:
    """Return an entry of managedFields."""
    time = {} if hours is None else {"time": clock(hours)}
    return {
        "manager": "portal",
        "operation": "Update",
        "apiVersion": "pieced.ch/v1alpha1",
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
        **time,
        **fields_of_the_entry,
    }


APPLIED: Object = {"manager": "gitops", "operation": "Apply"}
STATUS: Object = {"manager": "operator", "subresource": "status"}

EVIDENCE: dict[str, tuple[Any, int | None, int | None, int | None]] = {
    "the owner of both fields wrote them": ([write(ALL, 5)], 5, 5, 5),
    "an applied field counts as a written one": ([write(ALL, 5, **APPLIED)], 5, 5, 5),
    "each field has its owner": ([write(PACKAGES, 5), write(SUSPEND, 7, manager="kubectl")], 5, 7, 7),
    "of two owners the earlier bounds the change": ([write(PACKAGES, 9), write(PACKAGES, 5, **APPLIED)], 5, None, 9),
    "the owner of another field proves nothing": ([write(DISPLAY, 5)], None, None, 5),
    "the status subresource proves nothing": ([write(ALL, 3), write(ALL, 9, **STATUS)], 3, 3, 9),
    "the status's owner does not own the spec": (
        [write(PACKAGES, 3), write({"f:status": {"f:suspendedAt": {}}}, 9, **STATUS)],
        3,
        None,
        9,
    ),
    "an owner without a time proves nothing": ([write(PACKAGES, 5), write(PACKAGES, None)], None, None, None),
    "an owner of another field without a time hides the last modification": (
        [write(PACKAGES, 5), write(DISPLAY, None)],
        5,
        None,
        None,
    ),
    "writes from before tracking have no time": (
        [write(ALL, 2, manager="before-first-apply"), write(PACKAGES, 4, manager="ancient-changes")],
        None,
        2,
        4,
    ),
    "a set's members prove nothing, since a removal moves no time": (
        [write({"f:spec": {"f:packages": {".": {}, 'v:"a"': {}}, "f:suspend": {}}}, 5)],
        None,
        5,
        5,
    ),
    "one owner of a set's member is enough to prove nothing": (
        [write(PACKAGES, 5), write({"f:spec": {"f:packages": {'v:"b"': {}}}}, 7, manager="x")],
        None,
        None,
        7,
    ),
    "a spec owned as a whole proves nothing of its fields": ([write({"f:spec": {}}, 5)], None, None, 5),
    "an entry without fields counts only as a modification": ([write(None, 5)], None, None, 5),
    "an entry of another part counts only as a modification": (
        [write({"f:metadata": {"f:labels": {}}}, 5)],
        None,
        None,
        5,
    ),
    "stripped": ([], None, None, None),
    "null": (None, None, None, None),
    "not a list": ("portal", None, None, None),
    "entries that are not objects": (["portal"], None, None, None),
    "an unreadable time": ([write(ALL, 5, time="yesterday")], None, None, None),
    "an empty time proves nothing": ([write(ALL, 5, time="0001-01-01T00:00:00Z")], None, None, None),
    "the epoch proves nothing": ([write(PACKAGES, 5), write(ALL, 7, time="1970-01-01T00:00:00Z")], None, None, None),
    "a time outside UTC's years": ([write(ALL, 5, time="9999-12-31T23:59:59-14:00")], None, None, None),
    "unreadable fields": ([write({"f:spec": {"f:packages": 5}}, 5)], None, None, None),
    "a write before the creation": ([write(ALL, -1)], -1, -1, 0),
}


@pytest.mark.parametrize(("entries", "packages", "suspend", "last_modified"), EVIDENCE.values(), ids=EVIDENCE)
def test_what_managed_fields_prove(
    entries: Any, packages: int | None, suspend: int | None, last_modified: int | None
) -> None:
    def instant(hours: int | None) -> datetime | None:
        return None if hours is None else BORN + hours * HOUR

    said = observed(resource(managedFields=entries, spec={"packages": ["a"]}))
    assert said.problem is None
    assert (said.packages_written_at, said.suspend_written_at) == (instant(packages), instant(suspend))
    assert said.last_modified_at == instant(last_modified)


def test_the_owner_of_an_empty_list_proves_nothing_about_it() -> None:
    """It shows no members, so it might be a set, and removing a member changes no time."""
    said = observed(resource(managedFields=[write(ALL, 5)], spec={"packages": []}))
    assert (said.packages_written_at, said.suspend_written_at) == (None, BORN + 5 * HOUR)


def test_a_deletion_counts_as_a_modification() -> None:
    said = observed(resource(deletionTimestamp=clock(9), managedFields=[write(ALL, 5)]))
    assert said.last_modified_at == BORN + 9 * HOUR


def test_managed_fields_of_an_old_server_prove_nothing() -> None:
    said = observed(resource(managedFields=[write(ALL, 5)], spec={"packages": ["a"]}), reliable_times=False)
    assert (said.packages_written_at, said.suspend_written_at, said.last_modified_at) == (None, None, None)
    assert said.packages == ("a",)


_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
_ids = st.one_of(_texts, st.sampled_from(NASTY), st.sampled_from(["a", "b"]))
_anything = st.recursive(
    # the JSON decoder reads a longer number as a float, and says so if it cannot
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _ids,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=5,
)
_times = st.one_of(
    st.datetimes(timezones=st.just(UTC)).map(lambda time: time.isoformat()),
    st.sampled_from([CREATED, "2026-05-01", "2026-05-01T08:00:00", "2026-05-01 08:00:00Z"]),
)


def _or_anything(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(strategy, strategy, strategy, _anything)


def _some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Object]:
    return st.fixed_dictionaries({}, optional={name: _or_anything(strategy) for name, strategy in fields.items()})


_owned: st.SearchStrategy[Object] = st.dictionaries(st.sampled_from([".", 'v:"a"']), st.just({}), max_size=1)
_entries = st.lists(
    st.builds(
        lambda entry, fields: entry | {"fieldsV1": fields},
        _some(manager=st.sampled_from(["portal", "ancient-changes"]), time=_times, subresource=st.just("status")),
        _or_anything(st.builds(lambda spec: {"f:spec": spec}, _some(**{"f:packages": _owned, "f:suspend": _owned}))),
    ),
    max_size=3,
)
_resources = st.builds(
    lambda metadata, name, body: body | {"metadata": metadata | {"name": name}},
    _some(
        creationTimestamp=_times,
        deletionTimestamp=_times,
        namespace=_ids,
        uid=_ids,
        labels=st.dictionaries(st.just(LABEL), _or_anything(_ids)),
        generation=st.integers(1, 3),
        managedFields=_entries,
    ),
    _ids.filter(bool),
    _some(
        spec=_some(packages=st.lists(_or_anything(_ids), max_size=3), suspend=st.booleans()),
        status=_some(suspendedAt=_times),
    ),
)


def _shown(item: Any) -> Observed | str:
    try:
        return read(item, org_label=LABEL, position=1)
    except SourceFault as fault:
        return str(fault)


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 2**80])
def test_a_number_beyond_64_bits_makes_the_tenant_unreadable(number: int) -> None:
    for item in (resource(spec=number), resource(spec={"packages": number}), resource(generation=number)):
        for said in (_shown(item), _shown(as_json(item))):
            assert isinstance(said, Observed)
            assert said.problem


@given(_resources)
def test_json_and_parsed_yaml_are_read_alike(item: Object) -> None:
    said = _shown(as_json(item))
    assert _shown(item) == said
    if isinstance(said, Observed) and not said.problem:
        assert said.name == item["metadata"]["name"]
        assert list(said.packages) == sorted(
            set(item.get("spec", {}).get("packages") or ()) if item.get("spec") else ()
        )
        for time in (
            said.created_at,
            said.deleting_at,
            said.suspended_at,
            said.last_modified_at,
            said.packages_written_at,
        ):
            assert time is None or time.tzinfo is UTC


@given(_resources)
def test_a_file_of_yaml_is_read_as_json_is(item: Object) -> None:
    said = _shown(as_json(item))
    if isinstance(said, Observed) and not said.problem:
        assert _shown(as_yaml(item)) == said
