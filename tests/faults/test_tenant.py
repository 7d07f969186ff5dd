"""What is wrong with one tenant stays with that tenant, and what its resource cannot prove is not claimed.

Each line of the table names a fault and how a run ends that it strikes: `pytest --collect-only -q` prints it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from reconciler.core.model import Action, FallbackDating
from reconciler.core.reasons import Reason
from tests.support import faults as f
from tests.support.api_state import ORG_LABEL, tenant
from tests.support.fake_api import FakeApi
from tests.support.struck_runs import (
    BORN,
    CORRECTIONS,
    ORG,
    RECORDED_BOOKS,
    START,
    TRUE_BOOKS,
    VERIFIED,
    End,
    Faults,
    Scenario,
    corrects_everything,
    fails,
    on,
    only,
    shown,
    spares,
    staged,
    without,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("lost_log")
"""What two lists prove alone."""


FAILED, NORMAL, ONE = End.FAILED, End.NORMAL, End.ONE
UNREADABLE = Reason.TENANT_UNREADABLE
MINUTE = timedelta(minutes=1)

FAULTS = Faults()


# malformed tenants


def put(value: Any, *path: str) -> Callable[[dict[str, Any]], None]:
    """Return what puts a value somewhere into a resource."""

    def change(resource: dict[str, Any]) -> None:
        *parents, last = path
        for name in parents:
            resource = resource.setdefault(name, {})
        resource[last] = value

    return change


def drop(*path: str) -> Callable[[dict[str, Any]], None]:
    """Return what takes something out of a resource."""

    def change(resource: dict[str, Any]) -> None:
        *parents, last = path
        for name in parents:
            resource = resource[name]
        del resource[last]

    return change


def mangled(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Scenario], None]:
    """Return what changes a resource as no API server would."""
    return lambda scenario: scenario.mangle(name, change)


def first_item(change: Callable[[dict[str, Any]], object]) -> Callable[[Scenario], None]:
    """Return what changes the first item of a list on its way."""

    def edit(page: dict[str, Any]) -> None:
        change(page["items"][0])

    return lambda scenario: scenario.strike(f.edit(edit))


MALFORMED: dict[str, Callable[[dict[str, Any]], None]] = {
    "packages a string": put("mail", "spec", "packages"),
    "packages a number": put(7, "spec", "packages"),
    "packages an object": put({"mail": True}, "spec", "packages"),
    "packages with a number in it": put(["mail", 7], "spec", "packages"),
    "packages with a null in it": put(["mail", None], "spec", "packages"),
    "packages with a list in it": put([["mail"]], "spec", "packages"),
    "packages with an empty id": put(["mail", ""], "spec", "packages"),
    "packages with a NUL in an id": put(["mail", "a\0b"], "spec", "packages"),
    "packages with an endless id": put(["m" * 5000], "spec", "packages"),
    "suspend a string": put("true", "spec", "suspend"),
    "suspend a number": put(1, "spec", "suspend"),
    "spec a list": put([], "spec"),
    "spec a string": put("mail", "spec"),
    "status a string": put("ready", "status"),
    "suspendedAt unparsable": put("yesterday", "status", "suspendedAt"),
    "suspendedAt without a time zone": put("2026-02-20T10:00:00", "status", "suspendedAt"),
    "suspendedAt a number": put(1771581600, "status", "suspendedAt"),
    "suspendedAt before Kubernetes": put("1970-01-01T01:00:00Z", "status", "suspendedAt"),
    "suspendedAt in no year of UTC": put("9999-12-31T23:59:59-12:00", "status", "suspendedAt"),
    "creationTimestamp missing": drop("metadata", "creationTimestamp"),
    "creationTimestamp null": put(None, "metadata", "creationTimestamp"),
    "creationTimestamp unparsable": put("2026-02-30T10:00:00Z", "metadata", "creationTimestamp"),
    "creationTimestamp the zero time": put("0001-01-01T00:00:00Z", "metadata", "creationTimestamp"),
    "creationTimestamp the epoch": put("1970-01-01T01:00:00+01:00", "metadata", "creationTimestamp"),
    "creationTimestamp before Kubernetes": put("2014-06-05T23:59:59Z", "metadata", "creationTimestamp"),
    "creationTimestamp in the future": put("2027-02-20T10:00:00Z", "metadata", "creationTimestamp"),
    "deletionTimestamp unparsable": put("soon", "metadata", "deletionTimestamp"),
    "deletionTimestamp before Kubernetes": put("1970-01-01T00:00:01Z", "metadata", "deletionTimestamp"),
    "deletionTimestamp in the future": put("2027-02-20T10:00:00Z", "metadata", "deletionTimestamp"),
    "generation a string": put("2", "metadata", "generation"),
    "generation beyond 64 bits": put(2**70, "metadata", "generation"),
    "labels a list": put([ORG_LABEL], "metadata", "labels"),
    "label a number": put(2871, "metadata", "labels", ORG_LABEL),
    "label an object": put({}, "metadata", "labels", ORG_LABEL),
    "label with a NUL": put("28\0", "metadata", "labels", ORG_LABEL),
    "label endless": put("2" * 5000, "metadata", "labels", ORG_LABEL),
    "uid a number": put(7, "metadata", "uid"),
    "uid missing": drop("metadata", "uid"),
    "uid null": put(None, "metadata", "uid"),
    "uid empty": put("", "metadata", "uid"),
}
for fault, change in MALFORMED.items():
    FAULTS.add(f"malformed tenant: {fault}", mangled("acme", change), spares("acme", UNREADABLE))

for fault, change in {
    "suspendedAt the zero time": put("0001-01-01T00:00:00Z", "status", "suspendedAt"),
    "suspendedAt the zero time, in another zone": put("0001-01-01T00:34:08+00:34", "status", "suspendedAt"),
    "suspendedAt the epoch": put("1970-01-01T00:00:00.000Z", "status", "suspendedAt"),
    "suspendedAt null": put(None, "status", "suspendedAt"),
    "deletionTimestamp the zero time": put("0001-01-01T00:00:00Z", "metadata", "deletionTimestamp"),
    "deletionTimestamp the epoch": put("1970-01-01T00:00:00Z", "metadata", "deletionTimestamp"),
}.items():
    FAULTS.add(fault, mangled("acme", change), corrects_everything())

NAMELESS: dict[str, Any] = {
    "a tenant without a name": drop("metadata", "name"),
    "a tenant whose name is a number": put(7, "metadata", "name"),
    "a tenant whose name is empty": put("", "metadata", "name"),
    "a tenant whose name has a NUL": put("ac\0me", "metadata", "name"),
    "a tenant without metadata": drop("metadata"),
    "a tenant whose metadata is a list": put([], "metadata"),
}
for fault, change in NAMELESS.items():
    FAULTS.add(fault, first_item(change), fails("has no readable name"))
FAULTS.add(
    "a tenant that is null",
    lambda scenario: scenario.strike(f.edit(lambda p: p["items"].__setitem__(0, None))),
    fails(),
)
FAULTS.add(
    "a tenant that is a text",
    lambda scenario: scenario.strike(f.edit(lambda p: p["items"].__setitem__(0, "a"))),
    fails(),
)
# no JSON: an API server never sends it, and where it ends nobody can tell
FAULTS.add(
    "a tenant with half a surrogate pair",
    lambda scenario: scenario.mangle("acme", put(["a\ud800"], "spec", "packages")),
    fails("cannot be trusted"),
)


@FAULTS.case("a duplicate package", NORMAL)
def _duplicate_package(scenario: Scenario) -> None:
    scenario.mangle("acme", put(["voice", "mail", "voice"], "spec", "packages"))
    scenario.is_true(scenario.run())


@FAULTS.case("packages null", NORMAL)
def _packages_null(scenario: Scenario) -> None:
    """Nothing is on: that is a state like any other."""
    scenario.mangle("acme", put(None, "spec", "packages"))
    assert scenario.run().failure is None
    assert [row[2:4] for row in only(scenario.books(), "acme").skills] == [("mail", "disabled"), ("mail", "enabled")]
    scenario.stays()


@FAULTS.case("malformed all at once", ONE)
def _all_malformed(scenario: Scenario) -> None:
    """None of them is absent for it."""
    for name in ("acme", "beta", "cara", "emil", "finn"):
        scenario.mangle(name, put("mail", "spec", "packages"))
    outcome = scenario.run()
    assert outcome.failure is None
    assert {finding.tenant for finding in outcome.findings if finding.reason == UNREADABLE} == {
        *("acme", "beta", "cara", "emil", "finn")
    }
    assert {correction[0] for correction in scenario.corrections()} == {"dana"}
    assert without(scenario.books(), "dana") == without(RECORDED_BOOKS, "dana")


@pytest.mark.parametrize("second", [pytest.param("beta", id="one name in two namespaces - this tenant only")])
def test_ambiguous(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: str) -> None:
    with FakeApi(namespaced=True) as api, staged(url, api, tmp_path, monkeypatch) as scenario:
        api.create(tenant("acme", ["calendar"], org=ORG, namespace=second), at=on(1, 11))
        scenario.spared(scenario.run(), "acme", UNREADABLE, Action.REPORT)


# what moves while it is looked at


def toggled_just_now(scenario: Scenario) -> None:
    """Let acme be changed half a minute ago, with its row still on its way."""
    scenario.api.patch("acme", {"spec": {"packages": ["mail", "voice"]}}, at=START - MINUTE / 2)
    scenario.mangle("acme", lambda acme: acme["metadata"]["managedFields"][0].update(time="2026-03-01T08:59:30Z"))


def meanwhile(act: Callable[[Scenario], object]) -> Callable[[Scenario], None]:
    """Return what lets acme be young, and something happen to it between the two looks."""

    def arrange(scenario: Scenario) -> None:
        toggled_just_now(scenario)
        scenario.asleep = lambda: act(scenario)

    return arrange


def remade(scenario: Scenario) -> None:
    scenario.api.delete("acme")
    scenario.api.create(tenant("acme", ["mail", "voice"], org=ORG))


def mangled_meanwhile(scenario: Scenario) -> None:
    scenario.mangle("acme", put("mail", "spec", "packages"))


ENABLE = Reason.SKILL_ENABLE_UNRECORDED
FAULTS.add(
    "the CR changes between list and second look",
    meanwhile(lambda scenario: scenario.api.patch("acme", {"spec": {"packages": ["mail"]}})),
    spares("acme", ENABLE, action=Action.DEFER),
)


@FAULTS.case("same name with a new uid between the looks", ONE)
def _remade_meanwhile(scenario: Scenario) -> None:
    """What the first look found is of a tenant that is gone, and what the second found is new."""
    meanwhile(remade)(scenario)
    outcome = scenario.run()
    assert {(finding.reason, finding.action) for finding in shown(outcome, "acme")} == {
        (ENABLE, Action.DEFER),
        (Reason.TENANT_RECREATED, Action.DEFER),
    }
    assert only(scenario.books(), "acme") == only(RECORDED_BOOKS, "acme")
    assert without(scenario.books(), "acme") == without(TRUE_BOOKS, "acme")


@FAULTS.case("the CR is suspended between list and second look", ONE)
def _suspended_meanwhile(scenario: Scenario) -> None:
    """What is billed of it has changed: no drift of it counts."""
    meanwhile(lambda it: it.api.patch("acme", {"spec": {"suspend": True}}))(scenario)
    outcome = scenario.run()
    assert {(finding.reason, finding.action) for finding in shown(outcome, "acme")} == {
        (ENABLE, Action.DEFER),
        (Reason.SUSPENSION_UNRECORDED, Action.DEFER),
    }
    assert only(scenario.books(), "acme") == only(RECORDED_BOOKS, "acme")
    assert without(scenario.books(), "acme") == without(TRUE_BOOKS, "acme")


@FAULTS.case("another field of the spec is rewritten between list and second look", NORMAL)
def _rewritten_meanwhile(scenario: Scenario) -> None:
    """It moves the generation, and nothing that is billed."""
    meanwhile(lambda it: it.api.patch("acme", {"spec": {"displayName": "Acme"}}, manager="branding"))(scenario)
    assert scenario.run().failure is None
    assert set(scenario.corrections()) == CORRECTIONS
    at = START - MINUTE / 2
    assert scenario.correction("acme", ENABLE, "voice") == (at, VERIFIED, at, "field_manager")
    assert without(scenario.books(), "acme") == without(TRUE_BOOKS, "acme")
    scenario.stays()


@FAULTS.case("the CR changes there and back between list and second look", NORMAL)
def _there_and_back(scenario: Scenario) -> None:
    """What is written had happened by the first look, so the rows of the two later changes may still follow it."""
    changes: list[tuple[str, datetime]] = []

    def there_and_back(scenario: Scenario) -> None:
        for kind, packages in (("disabled", ["mail"]), ("enabled", ["mail", "voice"])):
            scenario.api.patch("acme", {"spec": {"packages": packages}})
            changes.append((kind, scenario.clock.now))
            scenario.clock.advance(5)

    meanwhile(there_and_back)(scenario)
    assert scenario.run().failure is None
    assert set(scenario.corrections()) == CORRECTIONS
    at, not_before, not_after, evidence = scenario.correction("acme", ENABLE, "voice")
    assert (not_before, evidence) == (VERIFIED, "none")
    assert at == not_after < changes[0][1]
    for kind, changed in changes:
        scenario.skill_row("acme", "voice", kind, changed)
    scenario.stays()


@FAULTS.case("the CR is deleted between list and second look", ONE)
def _deleted_meanwhile(scenario: Scenario) -> None:
    """Its absence was seen once."""
    meanwhile(lambda scenario: scenario.api.delete("acme"))(scenario)
    outcome = scenario.run()
    assert {finding.action for finding in shown(outcome, "acme")} == {Action.DEFER}
    assert without(scenario.books(), "acme") == without(TRUE_BOOKS, "acme")
    assert only(scenario.books(), "acme") == only(RECORDED_BOOKS, "acme")
    # and the next run sees it twice
    assert scenario.run().failure is None
    assert only(scenario.books(), "acme").lifecycles[0][3] is not None


@FAULTS.case("the CR becomes malformed between list and second look", ONE)
def _malformed_meanwhile(scenario: Scenario) -> None:
    meanwhile(mangled_meanwhile)(scenario)
    outcome = scenario.run()
    assert not [finding for finding in shown(outcome, "acme") if finding.action.writes]
    assert UNREADABLE in {finding.reason for finding in shown(outcome, "acme")}
    assert only(scenario.books(), "acme") == only(RECORDED_BOOKS, "acme")
    assert without(scenario.books(), "acme") == without(TRUE_BOOKS, "acme")


@FAULTS.case("the CR stays as it is between list and second look", NORMAL)
def _young_and_still(scenario: Scenario) -> None:
    toggled_just_now(scenario)
    outcome = scenario.run()
    assert outcome.failure is None
    assert set(scenario.corrections()) == CORRECTIONS
    at = START - MINUTE / 2
    assert scenario.correction("acme", ENABLE, "voice") == (at, VERIFIED, at, "field_manager")


@FAULTS.case("absent once and back", ONE)
def _back(scenario: Scenario) -> None:
    scenario.asleep = lambda: scenario.api.create(tenant("dana", ["mail"], org=ORG))
    outcome = scenario.run()
    assert {(finding.reason, finding.action) for finding in shown(outcome, "dana")} == {
        (Reason.DELETION_UNRECORDED, Action.DEFER),
        (Reason.SKILL_OPEN_AFTER_DELETION, Action.DEFER),
        (Reason.TENANT_RECREATED, Action.DEFER),
    }
    assert only(scenario.books(), "dana") == only(RECORDED_BOOKS, "dana")
    assert without(scenario.books(), "dana") == without(TRUE_BOOKS, "dana")
    scenario.stays()


@FAULTS.case("absent once and back, malformed", ONE)
def _back_malformed(scenario: Scenario) -> None:
    def back() -> None:
        scenario.api.create(tenant("dana", "mail", org=ORG))

    scenario.asleep = back
    outcome = scenario.run()
    assert not [finding for finding in shown(outcome, "dana") if finding.action.writes]
    assert only(scenario.books(), "dana") == only(RECORDED_BOOKS, "dana")
    assert without(scenario.books(), "dana") == without(TRUE_BOOKS, "dana")


@FAULTS.case("same name with a new uid, recorded as deleted", ONE)
def _recreated(scenario: Scenario) -> None:
    """A name that lives again is reported: its closed lifetime must not be billed on."""
    scenario.write("UPDATE tenant_billing_lifecycle SET deleted_at = %s WHERE tenant_name = 'dana'", on(16))
    scenario.skill_row("dana", "mail", "disabled", on(16))
    scenario.api.create(tenant("dana", ["mail"], org=ORG), at=on(18))
    outcome = scenario.run()
    assert outcome.failure is None
    assert {(finding.reason, finding.action) for finding in shown(outcome, "dana")} == {
        (Reason.TENANT_RECREATED, Action.REPORT)
    }
    assert without(scenario.books(), "dana") == without(TRUE_BOOKS, "dana")
    assert only(scenario.books(), "dana").lifecycles == [("dana", ORG, BORN["dana"], on(16))]


@FAULTS.case("deletion stuck on a finalizer", NORMAL)
def _stuck(scenario: Scenario) -> None:
    """It is dated by when it was asked for, once, however long it lingers."""
    scenario.api.patch("acme", {"metadata": {"finalizers": ["pieced.ch/cleanup"]}}, at=on(20, 12))
    scenario.api.delete("acme", at=on(26, 8))
    assert scenario.run().failure is None
    stuck = scenario.books()
    assert only(stuck, "acme").lifecycles == [("acme", ORG, BORN["acme"], on(26, 8))]
    assert only(stuck, "acme").skills[0] == ("acme", ORG, "mail", "disabled", on(26, 8))
    assert scenario.correction("acme", Reason.DELETION_UNRECORDED) == (on(26, 8), on(26, 8), on(26, 8), "deletion")
    scenario.stays()
    scenario.clock.advance(86400)
    scenario.stays()
    scenario.api.finalize("acme")
    scenario.stays()
    assert scenario.books() == stuck


# what managedFields cannot prove

UNPROVED = (START, VERIFIED, START, "none")


def unproved(fault: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Enter a fault of acme's managedFields: the added skill is still recorded, without claiming to know when."""

    @FAULTS.case(fault, NORMAL)
    def story(scenario: Scenario) -> None:
        scenario.mangle("acme", change)
        outcome = scenario.run()
        assert outcome.failure is None
        assert set(scenario.corrections()) == CORRECTIONS
        assert without(scenario.books(), "acme") == without(TRUE_BOOKS, "acme")
        assert scenario.correction("acme", ENABLE, "voice") == UNPROVED
        assert "recheck.waiting" in {line["event"] for line in scenario.logged}
        scenario.stays()


def entries(acme: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the managedFields of a resource."""
    found: list[dict[str, Any]] = acme["metadata"]["managedFields"]
    return found


def each_entry(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], object]:
    """Return what changes every entry."""
    return lambda acme: [change(entry) for entry in entries(acme)]


def entry(manager: str, time: str | None, **spec: Any) -> dict[str, Any]:
    """Return an entry of managedFields."""
    fields = {"f:spec": {f"f:{name}": owned for name, owned in spec.items()}} if spec else {"f:metadata": {}}
    made = {"manager": manager, "operation": "Update", "apiVersion": "pieced.ch/v1alpha1", "fieldsType": "FieldsV1"}
    return {**made, "fieldsV1": fields, **({"time": time} if time else {})}


AT = "2026-02-20T10:00:00Z"
for empty in ("0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z"):
    unproved(f"managedFields with the time {empty}", each_entry(put(empty, "time")))

unproved("managedFields absent", drop("metadata", "managedFields"))
unproved("managedFields empty", put([], "metadata", "managedFields"))
unproved("managedFields null", put(None, "metadata", "managedFields"))
unproved("managedFields a string", put("stripped", "metadata", "managedFields"))
unproved("managedFields without time", each_entry(lambda one: one.pop("time")))
unproved("managedFields with an unparsable time", each_entry(lambda one: one.update(time="long ago")))
unproved(
    "managedFields with a time in no year of UTC", each_entry(lambda one: one.update(time="0001-01-01T00:00:00+14:00"))
)
unproved(
    "managedFields of before the last verified run", each_entry(lambda one: one.update(time="2026-02-10T00:00:00Z"))
)
unproved("managedFields of the future", each_entry(lambda one: one.update(time="2026-03-02T00:00:00Z")))
unproved("managedFields without the field", put([entry("portal", AT)], "metadata", "managedFields"))
unproved(
    "managedFields of ancient-changes", put([entry("ancient-changes", AT, packages={})], "metadata", "managedFields")
)


def of_twelve(*more: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    """Return what gives the resource a long history of writers, of whom only the last own the packages."""
    others = [entry(f"controller-{number}", f"2026-02-1{number % 10}T00:00:00Z") for number in range(12 - len(more))]
    return put([*others, *more], "metadata", "managedFields")


@FAULTS.case("managedFields with 12 managers", NORMAL)
def _twelve(scenario: Scenario) -> None:
    scenario.mangle("acme", of_twelve(entry("portal", AT, packages={})))
    scenario.is_true(scenario.run())


@FAULTS.case("managedFields with 12 managers, of whom two own the field", NORMAL)
def _two_owners(scenario: Scenario) -> None:
    """Each of them wrote the value that stands, so the first of them is the closer bound."""
    later = entry("kubectl", "2026-02-24T00:00:00Z", packages={})
    scenario.mangle("acme", of_twelve(later, entry("portal", AT, packages={})))
    scenario.is_true(scenario.run())


unproved(
    "managedFields with 12 managers, ancient-changes among the owners",
    of_twelve(entry("portal", AT, packages={}), entry("ancient-changes", AT, packages={})),
)
unproved(
    "a package of a set", put([entry("portal", AT, packages={".": {}, 'v:"voice"': {}})], "metadata", "managedFields")
)


@pytest.mark.parametrize("fault", [pytest.param("", id="set-list removal - normal")])
def test_removal_from_a_set(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """It moves no time: it is rechecked, and dated by policy."""
    assert not fault
    with FakeApi(set_lists=True) as api, staged(url, api, tmp_path, monkeypatch) as scenario:
        assert scenario.run().failure is None
        wiki = scenario.correction("beta", Reason.SKILL_DISABLE_UNRECORDED, "wiki")
        assert wiki == (VERIFIED, VERIFIED, START, "none")
        assert "recheck.waiting" in {line["event"] for line in scenario.logged}
        scenario.stays()


# when was it suspended?


def suspended_at(fault: str, value: Any, expected: tuple[Any, ...]) -> None:
    """Enter a status of cara's that cannot be so: what then dates her suspension."""

    @FAULTS.case(f"suspendedAt {fault}", NORMAL)
    def story(scenario: Scenario) -> None:
        scenario.mangle("cara", put(value, "status", "suspendedAt"))
        assert scenario.run().failure is None
        assert set(scenario.corrections()) == CORRECTIONS
        assert scenario.correction("cara", Reason.SUSPENSION_UNRECORDED) == expected
        scenario.stays()


WRITTEN = on(22, 12)
suspended_at("in the future", "2026-03-02T00:00:00Z", (WRITTEN, VERIFIED, WRITTEN, "field_manager"))
suspended_at("before creation", "2026-01-01T00:00:00Z", (WRITTEN, VERIFIED, WRITTEN, "field_manager"))
suspended_at("before the last verified run", "2026-02-14T00:00:00Z", (WRITTEN, VERIFIED, WRITTEN, "field_manager"))
suspended_at("null", None, (WRITTEN, VERIFIED, WRITTEN, "field_manager"))
FAULTS.add(
    "suspendedAt unparsable, of a suspended tenant",
    lambda scenario: scenario.mangle("cara", put("2026-02-22 noon", "status", "suspendedAt")),
    spares("cara", UNREADABLE),
)


@FAULTS.case("suspendedAt in the future, and nothing else", NORMAL)
def _suspended_in_the_future_alone(scenario: Scenario) -> None:
    """Without any evidence, what stops costing is dated as early as possible; or as late, where that is the policy."""
    scenario.mangle("cara", put("2027-01-01T00:00:00Z", "status", "suspendedAt"))
    scenario.mangle("cara", drop("spec", "suspend"))
    scenario.mangle("cara", put([entry("portal", AT)], "metadata", "managedFields"))
    for uncertain, at in ((FallbackDating.CUSTOMER, VERIFIED), (FallbackDating.DETECTED, START)):
        scenario.begin_again()
        scenario.uncertain = uncertain
        assert scenario.run().failure is None
        assert scenario.correction("cara", Reason.SUSPENSION_UNRECORDED) == (at, VERIFIED, START, "none")


@pytest.mark.parametrize("story", FAULTS)
def test_fault(scenario: Scenario, story: Callable[[Scenario], None]) -> None:
    """A run that this strikes ends as the table says."""
    story(scenario)
