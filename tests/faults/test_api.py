"""Whatever the API server, or what stands before it, answers: nothing wrong is written, and the run ends in time.

Each line of the table names a fault and how a run ends that it strikes: `pytest --collect-only -q` prints it.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from reconciler.core.plan import Limits
from reconciler.sources import api_client as wire
from tests.support import faults as f
from tests.support.api_state import planted
from tests.support.fake_api import SOURCE_UID, FakeApi
from tests.support.struck_runs import (
    SLACK,
    End,
    Faults,
    Scenario,
    corrects_everything,
    fails,
    is_refused,
    staged,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FAILED, REFUSED, NORMAL, ONE = End.FAILED, End.REFUSED, End.NORMAL, End.ONE
KUBE_SYSTEM = f.path("/api/v1/namespaces/kube-system")
ABSENT = f.path("/apis/pieced.ch/v1alpha1/piecedtenants/dana")
ALWAYS = None

FAULTS = Faults()


def strike(
    effect: f.Effect, when: f.When = f.lists, *, skip: int = 0, times: int | None = 1, **how: Any
) -> Callable[[Scenario], None]:
    """Return what arranges that an effect strikes; `how` the run is made, by the attributes of `Scenario`."""

    def arrange(scenario: Scenario) -> None:
        scenario.strike(effect, when, skip=skip, times=times)
        for name, value in how.items():
            assert hasattr(scenario, name)
            setattr(scenario, name, value)

    return arrange


def last_page(request: f.Request) -> bool:
    """Whether it asks for the third of three pages."""
    return f.later_pages(request) and len(json.loads(request.ask(request.query).body)["items"]) == 1


# a list that is not whole


def repeated_on_page_2(field: str) -> Callable[[Scenario], None]:
    """Return what gives the first tenant of page 2 the name or the uid of the first of page 1."""

    def arrange(scenario: Scenario) -> None:
        acme = scenario.api.get("acme")
        assert acme
        scenario.strike(
            f.edit(lambda page: page["items"][0]["metadata"].update({field: acme["metadata"][field]})), f.later_pages
        )

    return arrange


NOTHING = f.then(f.items([]), f.metadata(continue_=None, remainingItemCount=None))

FAULTS.add("empty 200 list", strike(NOTHING), is_refused("is empty"))
FAULTS.add("a page missing", strike(f.skip_page(), f.first_pages), fails("it was not the whole list"))
FAULTS.add(
    "the last pages missing",
    strike(f.metadata(continue_=None, remainingItemCount=None), f.later_pages),
    fails("it was not the whole list"),
)
FAULTS.add("one shard of the list", strike(f.metadata(shardInfo={"selector": "x"})), fails("metadata.shardInfo"))
FAULTS.add(
    "one shard of the list, on the last page",
    strike(f.metadata(shardInfo={"selector": "x"}), last_page),
    fails("metadata.shardInfo"),
)


@pytest.mark.parametrize(
    ("effect", "when", "differences"),
    [
        pytest.param(f.remaining(9), f.first_pages, [(11, 4, 1)], id="more remaining than come - normal"),
        pytest.param(f.remaining(1), f.first_pages, [(3, 4, 1)], id="fewer remaining than come - normal"),
        pytest.param(f.remaining(4), last_page, [(5, 5, 4)], id="items remaining after the last page - normal"),
        pytest.param(f.remaining(None), f.first_pages, [], id="no estimate - normal"),
        pytest.param(f.remaining(3), f.first_pages, [], id="the right estimate - normal"),
    ],
)
def test_estimate(
    scenario: Scenario, effect: f.Effect, when: f.When, differences: list[tuple[int, int, int | None]]
) -> None:
    """Kubernetes calls remainingItemCount an estimate: where it is off, the log says so, and the list counts."""
    scenario.strike(effect, when)
    outcome = scenario.run()
    logged = [line for line in scenario.logged if line["event"] == "list.estimate_differs"]
    assert [(line["estimated"], line["received"], line["remaining"]) for line in logged] == differences
    scenario.is_true(outcome)


def twice(key: str, value: str) -> f.Effect:
    """Let a key stand twice in the body, wherever it stands in it first."""
    return lambda reply, _: dataclasses.replace(
        reply, body=reply.body.replace(f'"{key}":'.encode(), f'"{key}": {value}, "{key}":'.encode(), 1)
    )


for key, value, place in (
    ("packages", "[]", "items[0].spec"),
    ("spec", "{}", "items[0]"),
    ("name", '"other"', "items[0].metadata"),
    ("resourceVersion", '"1"', "metadata"),
    ("items", "[]", "the top level"),
    ("manager", '"other"', "items[0].metadata.managedFields[0]"),
    ("f:spec", "{}", "items[0].metadata.managedFields[0].fieldsV1"),
):
    says = f"the key '{key}' stands twice in {place}"
    FAULTS.add(f"the key {key} twice in a list", strike(twice(key, value)), fails(says))
FAULTS.add(
    "a key twice on the last page",
    strike(twice("packages", "[]"), last_page),
    fails("the key 'packages' stands twice in items[0].spec"),
)
FAULTS.add(
    "a key twice in the namespace kube-system",
    strike(twice("uid", '"other"'), KUBE_SYSTEM),
    fails("the key 'uid' stands twice in metadata"),
)


FAULTS.add(
    "resourceVersion differs between pages",
    strike(f.metadata(resourceVersion="1"), f.later_pages),
    fails("resourceVersion changed"),
)
FAULTS.add("resourceVersion empty", strike(f.metadata(resourceVersion="")), fails("resourceVersion"))
FAULTS.add("resourceVersion missing", strike(f.metadata(resourceVersion=None)), fails("resourceVersion"))
FAULTS.add("a name twice, on one page", strike(f.name_twice(), page_size=500), fails("twice"))
FAULTS.add("a uid twice, on one page", strike(f.uid_twice(), page_size=500), fails("twice"))
FAULTS.add("a name twice, on two pages", repeated_on_page_2("name"), fails("twice"))
FAULTS.add("a uid twice, on two pages", repeated_on_page_2("uid"), fails("twice"))
FAULTS.add("a cyclic token", strike(f.same_token(), f.later_pages, times=ALWAYS), fails("cannot be trusted"))
FAULTS.add("an empty page with a token", strike(f.no_items_but_token(), f.later_pages), fails("cannot be trusted"))


# 410 Gone


def compacted_before(page: f.When, times: int | None = 1) -> Callable[[Scenario], None]:
    """Return what lets a tenant change and the past be compacted before a page, as an API server would answer it."""
    left = itertools.count() if times is None else iter(range(times))

    def arrange(scenario: Scenario) -> None:
        def change(request: f.Request) -> None:
            if page(request) and next(left, None) is not None:
                scenario.api.patch("finn", {"metadata": {"annotations": {"seen": str(len(scenario.api.requests))}}})
                scenario.api.compact()

        scenario.api.on_request = change

    return arrange


def started_again(scenario: Scenario) -> None:
    """Assert that the list was read from its first page again, and no token followed that came with the 410."""
    asked = [request.query.get("continue") for request in scenario.api.lists]
    answered = [request.answered for request in scenario.api.lists]
    assert 410 in answered
    assert all(asked[number + 1] is None for number, status in enumerate(answered[:-1]) if status == 410)


def settled_by(effect: Callable[[Scenario], None]) -> Callable[[Scenario], None]:
    """The same, with a portal that needs no time: the touched tenant is quiet."""

    def arrange(scenario: Scenario) -> None:
        scenario.settle = timedelta()
        effect(scenario)

    return arrange


FAULTS.add("410 on page 2", strike(f.gone(), f.later_pages), corrects_everything(), then=started_again)
FAULTS.add("410 on the last page", strike(f.gone(), last_page), corrects_everything(), then=started_again)
FAULTS.add(
    "410 on page 2 indefinitely", strike(f.gone(), f.later_pages, times=ALWAYS), fails("expired"), then=started_again
)
FAULTS.add(
    "410 with an inconsistent continuation", compacted_before(f.later_pages), corrects_everything(), then=started_again
)
FAULTS.add("410 on the first page indefinitely", strike(f.gone(), f.first_pages, times=ALWAYS), fails("expired"))


# a body that is no list

FAULTS.add("items missing", strike(f.no_items()), fails("items"))
FAULTS.add("items null", strike(f.items(None)), fails("items"))
FAULTS.add("items an object", strike(f.items({})), fails("items"))
FAULTS.add("metadata missing", strike(f.no_metadata()), fails("metadata"))
FAULTS.add("kind Status with 200", strike(f.status_with_200()), fails("cannot be trusted"))
FAULTS.add("kind of another list", strike(f.kind("PodList")), fails("PodList"))
FAULTS.add("kind missing", strike(f.kind(None)), fails("kind"))
FAULTS.add("another API version", strike(f.kind("PiecedTenantList", "pieced.ch/v2")), fails("pieced.ch/v2"))
FAULTS.add("HTML", strike(f.html()), fails("<!doctype html>"))
FAULTS.add("HTML with 503, once", strike(f.html(503)), corrects_everything())
FAULTS.add("text", strike(f.text()), fails("'ok'"))
FAULTS.add("an empty body", strike(f.empty()), fails("cannot be trusted"))
FAULTS.add("JSON null", strike(f.body(b"null")), fails("cannot be trusted"))
FAULTS.add("no UTF-8", strike(f.body(b'{"kind":"\xff"}')), fails("cannot be trusted"))


def redirected(code: int) -> Callable[[Scenario], None]:
    """Return what sends the client to a login page that would answer it."""

    def arrange(scenario: Scenario) -> None:
        scenario.strike(f.redirect(f"{scenario.api.url}/login", code))
        scenario.strike(f.html(), f.path("/login"), times=ALWAYS)

    return arrange


def not_followed(scenario: Scenario) -> None:
    assert "/login" not in {request.path for request in scenario.api.requests}


FAULTS.add("a redirect to a login (302)", redirected(302), fails("302"), then=not_followed)
FAULTS.add("a redirect to a login (307)", redirected(307), fails("307"), then=not_followed)


# a body that does not arrive

for name, effect in (
    ("truncated by length", f.cut_length()),
    ("truncated by chunk", f.cut_chunked()),
    ("a connection reset", f.reset()),
    ("a connection reset within the body", f.reset(0.5)),
    ("a connection closed without an answer", f.hang_up()),
):
    FAULTS.add(f"{name}, once", strike(effect), corrects_everything())
    FAULTS.add(f"{name}, on the last page, once", strike(effect, last_page), corrects_everything())
    FAULTS.add(f"{name}, indefinitely", strike(effect, f.later_pages, times=ALWAYS), fails("could not answer"))
FAULTS.add("truncated by close", strike(f.cut_close()), fails("cannot be trusted"))
FAULTS.add("truncated by close to nothing", strike(f.cut_close(0.0)), fails("cannot be trusted"))
FAULTS.add("a chunked body", strike(f.chunked(), times=ALWAYS), corrects_everything())

for name, effect in (
    ("a dripping body", f.drip(0.05)),
    ("dripping headers", f.drip_headers(0.05)),
    ("a stall", f.stall()),
    ("a stall within the body", f.stall(0.5)),
):
    FAULTS.add(
        f"{name}, until the deadline",
        strike(effect, f.later_pages, times=ALWAYS, deadline=0.8),
        fails("deadline of 0.8 s"),
    )


@FAULTS.case("a stall, once", NORMAL)
def _stall_once(scenario: Scenario) -> None:
    scenario.monkeypatch.setattr(wire, "READ_TIMEOUT", 0.3)
    scenario.strike(f.stall(0.5), f.later_pages)
    scenario.is_true(scenario.run())


@FAULTS.case("a stall of the second look, until the deadline", FAILED)
def _stall_of_second_look(scenario: Scenario) -> None:
    before = scenario.state()
    strike(f.stall(), ABSENT, times=ALWAYS, deadline=0.8)(scenario)
    scenario.has_failed(scenario.run(), before, "deadline")
    assert scenario.took < scenario.deadline + SLACK


# an answer that says so

for code in (429, 500, 502, 503, 504):
    FAULTS.add(f"{code} on the last page, once", strike(f.status(code), last_page), corrects_everything())
    FAULTS.add(
        f"{code} on the last page, indefinitely", strike(f.status(code), last_page, times=ALWAYS), fails(str(code))
    )
FAULTS.add("401 in the middle", strike(f.status(401), f.later_pages), fails("did not accept the credentials"))
FAULTS.add("403", strike(f.status(403)), fails("denied"))
FAULTS.add("404", strike(f.status(404)), fails("has no resource piecedtenants.pieced.ch"))
FAULTS.add("404 in the middle", strike(f.status(404), f.later_pages), fails("has no resource"))
FAULTS.add("400", strike(f.status(400)), fails("400"))
FAULTS.add("204 without a body", strike(f.status(204, body=b"")), fails("204"))
FAULTS.add("206 with a part of the body", strike(f.status(206, body=b"{}")), fails("206"))


@pytest.mark.parametrize(
    ("asked", "cap", "waits"),
    [
        pytest.param("1", wire.MAX_RETRY_AFTER, 1.0, id="429 with Retry-After 1 - normal"),
        pytest.param("86400", 0.3, 0.3, id="429 with Retry-After 86400 - normal"),
        pytest.param("inf", 0.3, 0.3, id="429 with Retry-After inf - normal"),
        pytest.param("-5", 0.3, 0.0, id="429 with Retry-After -5 - normal"),
        pytest.param("nan", 0.3, 0.0, id="429 with Retry-After nan - normal"),
    ],
)
def test_retry_after(scenario: Scenario, asked: str, cap: float, waits: float) -> None:
    """The server is asked again when it said, or as late as the cap allows."""
    scenario.attempts = None
    scenario.monkeypatch.setattr(wire, "MAX_RETRY_AFTER", cap)
    scenario.strike(f.too_many_requests(asked), f.later_pages)

    outcome = scenario.run()

    refused, again = [request.asked_at for request in scenario.api.lists if request.query.get("continue")][:2]
    assert waits <= again - refused < waits + SLACK
    scenario.is_true(outcome)


@pytest.mark.parametrize("asked", [pytest.param("86400", id="429 with Retry-After 86400 indefinitely - failed")])
def test_retry_after_ends_by_the_deadline(scenario: Scenario, asked: str) -> None:
    """No wait that a server asks for leads beyond the deadline."""
    before = scenario.state()
    scenario.attempts, scenario.deadline = None, 0.8
    scenario.monkeypatch.setattr(wire, "MAX_RETRY_AFTER", 5.0)
    scenario.strike(f.too_many_requests(asked), f.later_pages, times=ALWAYS)

    scenario.has_failed(scenario.run(), before)

    assert scenario.took < scenario.deadline + SLACK


# another cluster, or another time


def removed(scenario: Scenario) -> None:
    """Remove the CustomResourceDefinition between two pages."""

    def change(request: f.Request) -> None:
        scenario.api.installed = scenario.api.installed and not f.later_pages(request)

    scenario.api.on_request = change


def recreated(scenario: Scenario) -> None:
    """Remove the CustomResourceDefinition, and with it every tenant, and create it anew between two pages."""

    def change(request: f.Request) -> None:
        if f.later_pages(request):
            scenario.api.reset()
            scenario.api.compact()

    scenario.api.on_request = change


def another_cluster(scenario: Scenario) -> None:
    scenario.api.source_uid = "another"


def moved_on(scenario: Scenario) -> None:
    scenario.write("UPDATE reconciler.source SET resource_version = '999999'")


OTHER = f.edit(lambda namespace: namespace["metadata"].update(uid="another"))

FAULTS.add("the CRD removed in the middle", removed, fails("has no resource"))
FAULTS.add("the CRD recreated in the middle", recreated, is_refused("is empty"))
FAULTS.add("another cluster", another_cluster, is_refused("belongs to the source"))
FAULTS.add("another cluster during the run", strike(OTHER, KUBE_SYSTEM, skip=1), is_refused("two clusters"))
FAULTS.add(
    "another cluster during the run, with --accept-source",
    strike(OTHER, KUBE_SYSTEM, skip=1, accept_source=True),
    is_refused("two clusters"),
)
FAULTS.add("no namespace kube-system", strike(f.status(404), KUBE_SYSTEM), fails("kube-system"))
FAULTS.add("kube-system without a uid", strike(f.edit(lambda n: n["metadata"].pop("uid")), KUBE_SYSTEM), fails("uid"))
FAULTS.add(
    "resourceVersion gone back",
    strike(f.metadata(resourceVersion="7"), times=ALWAYS),
    is_refused("an earlier run has"),
)


@FAULTS.case("another cluster, with --accept-source", NORMAL)
def _accepted(scenario: Scenario) -> None:
    scenario.api.source_uid = "another"
    scenario.accept_source = True
    outcome = scenario.run()
    scenario.accept_source = False
    scenario.is_true(outcome)
    assert scenario.write("SELECT identity FROM reconciler.source") == [("another",)]
    # and from now on it is the old one that is refused
    before = scenario.state()
    scenario.api.source_uid = SOURCE_UID
    scenario.was_refused(scenario.run(), before, "belongs to the source another")


@FAULTS.case("resourceVersion gone back, with --accept-source", NORMAL)
def _restored(scenario: Scenario) -> None:
    before = scenario.write("SELECT identity, resource_version FROM reconciler.source")
    scenario.write("UPDATE reconciler.source SET resource_version = '999999'")
    scenario.accept_source = True
    outcome = scenario.run()
    scenario.accept_source = False
    scenario.is_true(outcome)
    assert scenario.write("SELECT identity FROM reconciler.source") == [(before[0][0],)]
    assert scenario.write("SELECT resource_version FROM reconciler.source") == [(str(scenario.api.resource_version),)]


# the second look

FAULTS.add("503 at the recheck, once", strike(f.status(503), ABSENT), corrects_everything())
FAULTS.add("503 at the recheck, indefinitely", strike(f.status(503), ABSENT, times=ALWAYS), fails("503"))
FAULTS.add("403 at the recheck", strike(f.status(403), ABSENT), fails("denied"))
FAULTS.add("410 at the recheck", strike(f.status(410), ABSENT), fails())
FAULTS.add("HTML with 200 at the recheck", strike(f.html(), ABSENT), fails("cannot be trusted"))
FAULTS.add("HTML with 404 at the recheck", strike(f.html(404), ABSENT), fails())
FAULTS.add("kind Status with 200 at the recheck", strike(f.status_with_200(404), ABSENT), fails())


def uninstalled_meanwhile(scenario: Scenario) -> None:
    scenario.asleep = lambda: setattr(scenario.api, "installed", False)


def answered_with_another(scenario: Scenario) -> None:
    other = scenario.api.encoded("finn")
    assert other
    scenario.strike(f.status(200, body=other), ABSENT)


for name, path in (
    ("the namespace kube-system", "/api/v1/namespaces/kube-system"),
    ("the API group", "/apis/pieced.ch"),
    ("the API's resources", "/apis/pieced.ch/v1alpha1"),
    ("the server's version", "/version"),
):
    FAULTS.add(f"410 for {name}", strike(f.status(410), f.path(path), times=ALWAYS), fails())
FAULTS.add("the CRD removed before the second look", uninstalled_meanwhile, fails())
FAULTS.add("another tenant at the recheck", answered_with_another, fails())


NAMED_ALONE = "fieldSelector"


@pytest.mark.parametrize(
    "effect",
    [
        pytest.param(f.gone(), id="410 at the recheck, namespaced - failed"),
        pytest.param(f.status(404), id="404 at the recheck, namespaced - failed"),
        pytest.param(lambda _, request: request.ask({}), id="another tenant at the recheck, namespaced - failed"),
        pytest.param(f.metadata(continue_="more"), id="an empty page with a token at the recheck, namespaced - failed"),
        pytest.param(f.remaining(1), id="an empty page with items remaining at the recheck, namespaced - failed"),
        pytest.param(f.items(None), id="items null at the recheck, namespaced - failed"),
    ],
)
def test_second_look_for_a_name(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, effect: f.Effect) -> None:
    """Where nobody knows the namespace of an absent tenant it is asked for by its name alone, and no less strictly."""
    with FakeApi(namespaced=True) as api, staged(url, api, tmp_path, monkeypatch) as scenario:
        before = scenario.state()
        scenario.strike(effect, lambda request: NAMED_ALONE in request.query)
        scenario.has_failed(scenario.run(), before)
        assert NAMED_ALONE in api.requests[-1].query


def many_absent(scenario: Scenario) -> None:
    """Let so many tenants be gone that the recheck is one more list; nothing else holds it back."""
    scenario.write(
        "INSERT INTO tenant_billing_lifecycle SELECT 'gone-' || n, '2871', '2026-02-01Z' FROM generate_series(1, 30) n"
    )
    scenario.limits = Limits(count=100)


@pytest.mark.parametrize(
    ("effect", "refused"),
    [
        pytest.param(NOTHING, True, id="empty 200 list at the recheck - refused"),
        pytest.param(f.metadata(resourceVersion="950"), True, id="resourceVersion gone back at the recheck - refused"),
        pytest.param(f.no_items(), False, id="items missing at the recheck - failed"),
    ],
)
def test_second_list(scenario: Scenario, effect: f.Effect, refused: bool) -> None:  # noqa: FBT001 - of the table above
    """A second list is believed no more easily than the first."""
    many_absent(scenario)
    scenario.page_size = 500
    before = scenario.state()
    scenario.strike(effect, f.first_pages, skip=1)

    outcome = scenario.run()

    (scenario.was_refused if refused else scenario.has_failed)(outcome, before)


def left_out(scenario: Scenario) -> None:
    """Let a list lack a tenant that is there when it is asked for by its name."""
    scenario.page_size = 500

    def leave_out(listed: dict[str, Any]) -> None:
        listed["items"] = [item for item in listed["items"] if item["metadata"]["name"] != "finn"]

    scenario.strike(f.edit(leave_out))


FAULTS.add("a tenant left out of one list", left_out, fails("The list lacked finn, which exists since 2026-02-05"))


# large


@FAULTS.case("many pages, of which each fails once", NORMAL)
def _many_pages(scenario: Scenario) -> None:
    scenario.api.plant(*(planted(number, ()) for number in range(30)))
    scenario.limits = Limits(count=100)
    seen: set[str] = set()

    def first_time(request: f.Request) -> bool:
        known = request.query.get("continue", "") in seen
        seen.add(request.query.get("continue", ""))
        return f.lists(request) and not known

    scenario.strike(f.status(503), first_time, times=ALWAYS)
    outcome = scenario.run()
    assert outcome.failure is None
    assert outcome.tenants_observed == 35


@pytest.mark.parametrize("story", FAULTS)
def test_fault(scenario: Scenario, story: Callable[[Scenario], None]) -> None:
    """A run that this strikes ends as the table says."""
    story(scenario)
