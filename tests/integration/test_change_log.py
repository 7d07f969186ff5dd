"""The change log is read up to the list: every version, or as many as can be trusted, or none and a word why."""

from __future__ import annotations

import json
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pytest
import stamina
from structlog.testing import capture_logs

from reconciler.core.model import ChangeLog, LogRead, Observed, VersionKind
from reconciler.deadline import Deadline, DeadlineExceeded
from reconciler.sources import change_log
from reconciler.sources.api_client import Api, ClusterDenied, CustomResource
from reconciler.sources.cluster import Cluster
from tests.support import faults as f
from tests.support.api_state import ORG_LABEL, planted, tenant
from tests.support.fake_api import FakeApi
from tests.support.faults import Fault
from tests.support.struck_runs import SLACK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.harness import Cluster as Harness

REACHED, PARTLY, LOST = LogRead.REACHED, LogRead.PARTLY, LogRead.LOST
ADDED, MODIFIED, DELETED = VersionKind
ALWAYS: Final = None


@pytest.fixture(autouse=True)
def _at_once() -> Iterator[None]:
    with stamina.set_testing(testing=True, attempts=3):
        yield


def reader(kubeconfig: Path, deadline: float = 60, page_size: int = 500) -> Cluster:
    api = Api(kubeconfig=str(kubeconfig), context=None, deadline=Deadline.after(deadline))
    resource = CustomResource(api=api, group="pieced.ch", plural="piecedtenants")
    return Cluster(resource=resource, org_label=ORG_LABEL, page_size=page_size)


class World:
    """The double, with a tenant that came before the position; then a, b and c were written, one version each."""

    def __init__(self, api: FakeApi, folder: Path) -> None:
        self.api = api
        self.deadline = 60.0
        self.kubeconfig = api.kubeconfig(folder / "kubeconfig")
        api.create(tenant("before"))
        self.position = api.resource_version
        for name in "abc":
            api.create(tenant(name, ["mail"]))
        api.pass_by()
        self.until = api.resource_version

    def strike(self, effect: f.Effect, times: int | None = ALWAYS) -> None:
        self.api.faults.append(Fault(effect, when=f.watches, times=times))

    def read(self) -> ChangeLog:
        return reader(self.kubeconfig, self.deadline).read_log(str(self.position), str(self.until))


@pytest.fixture
def world(api: FakeApi, tmp_path: Path) -> World:
    return World(api, tmp_path)


def names(log: ChangeLog) -> str:
    """Return the names of its versions; each has one letter."""
    return "".join(version.observed.name for version in log.versions)


def shown(log: ChangeLog) -> list[tuple[VersionKind, str, tuple[str, ...]]]:
    return [(kind, observed.name, observed.packages) for kind, observed in log.versions]


# on both: what a log shows


def version_of(cluster: Harness) -> str:
    return str(cluster.fetch().json()["metadata"]["resourceVersion"])


def read(cluster: Harness, position: str) -> ChangeLog:
    return reader(cluster.kubeconfig).read_log(position, version_of(cluster))


def test_what_was_undone_between_two_lists_is_shown(cluster: Harness) -> None:
    cluster.create(tenant("acme", ["mail"]))
    position = version_of(cluster)
    for packages in (["mail", "voice"], ["mail"], [], ["mail"]):
        cluster.patch("acme", {"spec": {"packages": packages}})

    log = read(cluster, position)

    assert log.read is REACHED
    assert shown(log) == [
        (MODIFIED, "acme", ("mail", "voice")),
        (MODIFIED, "acme", ("mail",)),
        (MODIFIED, "acme", ()),
        (MODIFIED, "acme", ("mail",)),
    ]
    assert [version.observed.generation for version in log.versions] == [2, 3, 4, 5]


class Begun(list[Observed]):
    """A spool in memory, and the logs that were begun: up to where, and how many tenants had been read by then."""

    def __init__(self) -> None:
        self.logs: list[tuple[str, int]] = []

    def add(self, tenant: Observed, /) -> None:
        self.append(tenant)

    def restart(self) -> None:
        self.clear()

    def start_log(self, until: str) -> Callable[[], ChangeLog]:
        self.logs.append((until, len(self)))
        return partial(ChangeLog, LogRead.PARTLY, until)


def test_a_log_is_begun_with_the_first_page_of_its_list(cluster: Harness) -> None:
    for name in "abc":
        cluster.create(tenant(name))
    begun = Begun()

    listing = reader(cluster.kubeconfig, page_size=1).observe(begun, begun.start_log)

    assert ([one.name for one in begun], begun.logs) == ([*"abc"], [(listing.resource_version, 0)])
    assert listing.log
    assert listing.log().position == listing.resource_version


def test_a_list_that_begins_anew_has_the_later_log(world: World) -> None:
    def gone_after_a_write(reply: f.Reply, request: f.Request) -> f.Reply:
        world.api.create(tenant("d"))
        return f.gone()(reply, request)

    world.api.faults.append(Fault(gone_after_a_write, when=f.later_pages, times=1))
    begun = Begun()

    listing = reader(world.kubeconfig, page_size=1).observe(begun, begun.start_log)

    assert [until for until, _ in begun.logs] == [str(world.until), listing.resource_version]
    assert listing.log
    assert listing.log().position == listing.resource_version


def test_a_tenant_that_came_and_went_is_shown(cluster: Harness) -> None:
    position = version_of(cluster)
    cluster.create(tenant("brief", ["mail"]))
    cluster.delete("brief")

    log = read(cluster, position)

    assert (log.read, shown(log)) == (REACHED, [(ADDED, "brief", ("mail",)), (DELETED, "brief", ("mail",))])
    created, deleted = (version.observed for version in log.versions)
    assert created.uid == deleted.uid
    assert int(created.resource_version or 0) < int(deleted.resource_version or 0) <= int(log.position or 0)


def test_a_recreated_tenant_is_shown_under_both_uids(cluster: Harness) -> None:
    cluster.create(tenant("acme", ["mail"]))
    position = version_of(cluster)
    cluster.delete("acme")
    cluster.create(tenant("acme", ["voice"]))

    log = read(cluster, position)

    assert shown(log) == [(DELETED, "acme", ("mail",)), (ADDED, "acme", ("voice",))]
    assert len({version.observed.uid for version in log.versions}) == 2


def test_a_tenant_with_finalizers_is_shown_as_it_lingers(cluster: Harness) -> None:
    cluster.create(tenant("acme", finalizers=["pieced.ch/cleanup"]))
    position = version_of(cluster)
    cluster.delete("acme")
    cluster.finalize("acme")

    log = read(cluster, position)

    assert [(kind, observed.deleting_at is not None) for kind, observed in log.versions] == [
        (MODIFIED, True),
        (DELETED, True),
    ]


def test_versions_after_the_list_are_left_to_the_next_run(cluster: Harness) -> None:
    position = version_of(cluster)
    cluster.create(tenant("acme"))
    until = version_of(cluster)
    cluster.create(tenant("later"))

    log = reader(cluster.kubeconfig).read_log(position, until)

    assert (log.read, log.position) == (REACHED, until)
    assert [version.observed.name for version in log.versions] == ["acme"]


def test_what_the_server_never_remembered_is_lost(cluster: Harness) -> None:
    cluster.create(tenant("acme"))

    log = read(cluster, "1")

    assert log[:3] == (LOST, None, ())
    assert "forgotten" in str(log.problem)


# the double alone: how a reading ends


def event(kind: str, number: int, name: str = "d", /, **changes: Any) -> bytes:
    """Return a line of the log."""
    item = planted(0) | changes
    metadata = item["metadata"] | {"name": name, "resourceVersion": str(number)}
    return json.dumps({"type": kind, "object": item | {"metadata": metadata}}).encode()


def second(put: bytes) -> f.Effect:
    """Return what puts another line in the place of b's."""
    return f.line(1, put)


def named(**metadata: Any) -> bytes:
    """Return a line for b with other metadata; None takes a field away."""
    item = json.loads(event("ADDED", 1003))
    kept = item["object"]["metadata"] | metadata
    item["object"]["metadata"] = {name: value for name, value in kept.items() if value is not None}
    return json.dumps(item).encode()


HTML: Final = b"<!doctype html>\n<html></html>\n"

ENDS: Final = {
    # what strikes: how the reading ends, the versions, and a word of the problem
    "nothing": (f.lines(lambda lines: lines), REACHED, "abc", None),
    "a version past the list": (f.line(-1, event("ADDED", 1006)), REACHED, "abc", None),
    "a version past the list that nobody can read": (f.line(-1, event("ADDED", 1006, spec=7)), REACHED, "abc", None),
    "a bookmark past the list": (f.line(-1, event("BOOKMARK", 2000)), REACHED, "abc", None),
    "a bookmark past the list before any version": (f.line(0, event("BOOKMARK", 2000)), REACHED, "", None),
    "a line after the list that is none": (f.line(-1, event("BOOKMARK", 1005), b"{"), REACHED, "abc", None),
    "every line twice": (f.repeated(), REACHED, "abc", None),
    "a bookmark behind": (f.line(1, event("BOOKMARK", 7), event("ADDED", 1003, "b")), REACHED, "abc", None),
    "a bookmark before all": (f.line(0, event("BOOKMARK", 1), event("ADDED", 1002, "a")), REACHED, "abc", None),
    "no bookmark at the end": (f.line(-1), PARTLY, "abc", "ended the log"),
    "no line": (f.lines(lambda _: []), PARTLY, "", "ended the log"),
    "a bookmark before the list": (f.line(-1, event("BOOKMARK", 1004)), PARTLY, "abc", "ended the log"),
    "versions out of order": (second(event("ADDED", 1002)), PARTLY, "a", "1002 came after 1002"),
    "the first two lines exchanged": (f.out_of_order(), PARTLY, "b", "1002 came after 1003"),
    "a version at its bookmark": (f.line(1, event("BOOKMARK", 1003), event("ADDED", 1003)), PARTLY, "a", "came after"),
    "no JSON": (second(b"{"), PARTLY, "a", "truncated"),
    "an empty line": (second(b""), PARTLY, "a", "truncated"),
    "no UTF-8": (second(b'{"type":"ADDED","object":"\xff"}'), PARTLY, "a", "cannot be read"),
    "a deep line": (second(b"[" * 100_000), PARTLY, "a", "cannot be read"),
    "a key twice": (second(event("ADDED", 1003).replace(b'"name"', b'"uid": "x", "name"')), PARTLY, "a", "'uid'"),
    "a type twice": (second(b'{"type":"ERROR",' + event("ADDED", 1003)[1:]), PARTLY, "a", "'type'"),
    "an unknown type": (second(event("SYNCED", 1003)), PARTLY, "a", "SYNCED"),
    "another kind": (second(event("ADDED", 1003, kind="Pod")), PARTLY, "a", "Pod"),
    "another API version": (second(event("ADDED", 1003, apiVersion="pieced.ch/v2")), PARTLY, "a", "pieced.ch/v2"),
    "a version without a number": (second(named(resourceVersion="x")), PARTLY, "a", "'x'"),
    "a version with an endless number": (second(named(resourceVersion="9" * 5000)), PARTLY, "a", "999"),
    "a version whose number is one": (second(named(resourceVersion=1003)), PARTLY, "a", "resourceVersion"),
    "a version without a name": (second(named(name=None)), PARTLY, "a", "no readable name"),
    "an object that is none": (second(b'{"type":"ADDED","object":null}'), PARTLY, "a", "cannot be read"),
    "HTML": (f.html(), LOST, "", "<!doctype html>"),
    "HTML after a version": (f.lines(lambda lines: [lines[0], HTML]), PARTLY, "a", "<!doctype html>"),
    "a list": (lambda _, request: request.ask({}), LOST, "", "type"),
    "a malformed first line": (f.line(0, b"{}"), LOST, "", "type"),
    "a first version of another kind": (f.line(0, event("ADDED", 1002, kind="Pod")), LOST, "", "Pod"),
    "a first version of before": (f.line(0, event("ADDED", 1000)), LOST, "", "1000 came after 1001"),
    "410": (f.gone(), LOST, "", "forgotten"),
    "410 within the answer": (f.error_event(410), LOST, "", "forgotten"),
    "410 after a version": (f.error_event(410, after=1), LOST, "", "forgotten"),
    "403": (f.status(403), LOST, "", "may not watch piecedtenants.pieced.ch (403): apply the ClusterRole"),
    "400": (f.status(400), LOST, "", "400"),
    "404": (f.status(404), LOST, "", "404"),
    "405": (f.status(405), LOST, "", "405"),
    "302": (f.redirect("/login"), LOST, "", "302"),
    "429": (f.status(429), PARTLY, "", "429"),
    "500": (f.status(500), PARTLY, "", "500"),
    "504": (f.status(504), PARTLY, "", "504"),
    "429 within the answer": (f.error_event(429, "storage is (re)initializing"), PARTLY, "", "(re)initializing"),
    "400 within the answer": (f.error_event(400), LOST, "", "400"),
    "500 after a version": (f.error_event(500, after=1), PARTLY, "a", "500"),
    "400 after a version": (f.error_event(400, after=1), PARTLY, "a", "400"),
    "404 after a version": (f.error_event(404, after=1), PARTLY, "a", "404"),
    "401 within the answer": (f.error_event(401, after=1), PARTLY, "a", "401"),
    "an error that is none": (f.error_event(200, after=1), PARTLY, "a", "200"),
    "an error without a code": (second(b'{"type":"ERROR","object":{}}'), PARTLY, "a", "kind"),
    "a cut after a version": (f.cut_chunked(0.5), PARTLY, "a", "cut off"),
    "a cut by length": (f.cut_length(0.5), PARTLY, "a", "cut off"),
    "a cut by close": (f.cut_close(0.5), PARTLY, "a", "cannot be read"),
    "a cut in the first line": (f.cut_chunked(0.1), PARTLY, "", "cut off"),
    "a reset": (f.reset(), PARTLY, "", "could not send"),
    "a reset after a version": (f.reset(0.5), PARTLY, "a", "cut off"),
    "no answer": (f.hang_up(), PARTLY, "", "could not send"),
}


@pytest.mark.parametrize(("effect", "ended", "versions", "problem"), ENDS.values(), ids=ENDS)
def test_a_log_ends_as_the_table_says(
    world: World, effect: f.Effect, ended: LogRead, versions: str, problem: str | None
) -> None:
    world.strike(effect)

    with capture_logs() as logged:
        log = world.read()

    assert (log.read, names(log)) == (ended, versions), log.problem
    assert (problem or "") in (log.problem or "")
    if ended is PARTLY:
        assert int(log.position or 0) >= world.position + len(versions)
    else:
        assert log.position == (str(world.until) if ended is REACHED else None)
    told = [(line["event"], line["log_level"], line["problem"]) for line in logged if line["event"].startswith("log.")]
    assert told == ([] if ended is REACHED else [(f"log.{ended}", "info", log.problem)])


def test_the_position_is_the_last_that_was_shown(world: World) -> None:
    world.strike(f.line(1, event("BOOKMARK", 1004), b"{"))
    log = world.read()
    assert (log.read, names(log), log.position) == (PARTLY, "a", "1004")


@pytest.mark.parametrize(
    "effect", [f.status(503), f.reset(), f.cut_chunked(0.1), f.error_event(429)], ids=["503", "reset", "cut", "429"]
)
def test_a_log_that_has_not_begun_is_asked_for_again(world: World, effect: f.Effect) -> None:
    world.strike(effect, times=2)
    log = world.read()
    assert (log.read, names(log), len(world.api.watches)) == (REACHED, "abc", 3)


def test_a_log_that_has_begun_is_not_asked_for_again(world: World) -> None:
    world.strike(f.error_event(503, after=1))
    assert names(world.read()) == "a"
    assert len(world.api.watches) == 1


def test_credentials_that_are_not_accepted_fail_the_run(world: World) -> None:
    world.strike(f.status(401))
    with pytest.raises(ClusterDenied):
        world.read()


def test_the_watch_asks_for_bookmarks_and_an_end(world: World) -> None:
    world.read()
    (asked,) = world.api.watches
    assert asked.path == world.api.list_path
    assert asked.query == {
        "watch": "true",
        "allowWatchBookmarks": "true",
        "resourceVersion": str(world.position),
        "timeoutSeconds": "4",
    }


# which positions can be read from, and to


def test_a_list_at_the_position_needs_no_request(world: World) -> None:
    log = reader(world.kubeconfig).read_log("7", "7")
    assert log == ChangeLog(REACHED, "7")
    assert world.api.requests == []


@pytest.mark.parametrize(
    "pair", [("x", "7"), ("7", "x"), ("", ""), ("0", "7"), ("+7", "8"), ("7_0", "80"), ("8", "7"), ("9" * 99, "7")]
)
def test_positions_without_an_order_are_lost(world: World, pair: tuple[str, str]) -> None:
    log = reader(world.kubeconfig).read_log(*pair)
    assert (log.read, log.position) == (LOST, None)
    assert world.api.requests == []


# what cannot be read of one tenant


def test_an_unreadable_version_leaves_its_tenant_unproven(world: World) -> None:
    world.strike(second(event("MODIFIED", 1003, "b", spec={"packages": "none"})))
    log = world.read()
    unreadable = log.versions[1].observed
    assert (log.read, names(log)) == (REACHED, "abc")
    assert "packages" in str(unreadable.problem)
    assert (unreadable.resource_version, unreadable.uid) == ("1003", planted(0)["metadata"]["uid"])


def test_a_version_without_a_uid_is_unreadable(world: World) -> None:
    world.strike(second(named(name="b", uid=None)))
    unreadable = world.read().versions[1].observed
    assert (unreadable.problem, unreadable.resource_version) == ("metadata.uid is missing", "1003")


# limits, each of which ends the reading


STALLS: Final = {
    "dripping": (f.drip(0.05), ""),
    "dripping headers": (f.drip_headers(0.05), ""),
    "a stall": (f.stall(), ""),
    "a stall after a version": (f.stall(0.5), "a"),
}


@pytest.mark.parametrize(("effect", "versions"), STALLS.values(), ids=STALLS)
def test_a_log_is_not_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch, effect: f.Effect, versions: str
) -> None:
    monkeypatch.setattr(change_log, "MAX_SECONDS", 0.5)
    world.strike(effect)
    began = time.monotonic()
    log = world.read()
    assert (log.read, names(log), log.position) == (PARTLY, versions, str(world.position + len(versions)))
    assert "within 0.5 s" in str(log.problem)
    assert time.monotonic() - began < 0.5 + SLACK


@pytest.mark.parametrize("effect", [f.drip(0.05), f.drip_headers(0.05), f.stall()], ids=["body", "headers", "stall"])
def test_the_runs_deadline_is_the_runs(world: World, effect: f.Effect) -> None:
    world.deadline = 0.5
    world.strike(effect)
    with pytest.raises(DeadlineExceeded, match=r"0\.5 s"):
        world.read()


def test_too_many_versions_are_left_to_the_next_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change_log, "MAX_VERSIONS", 2)
    log = world.read()
    assert (log.read, names(log), log.position) == (PARTLY, "ab", "1003")
    assert "more than 2 versions" in str(log.problem)


def test_too_many_bytes_are_left_to_the_next_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.strike(f.then(f.line(1, b" " * 100_000), f.chunked()))
    monkeypatch.setattr(change_log, "MAX_BYTES", 50_000)
    log = world.read()
    assert (log.read, names(log), log.position) == (PARTLY, "a", "1002")
    assert "50000 bytes" in str(log.problem)


def test_the_connection_is_closed_when_the_list_is_reached(world: World) -> None:
    def go_on(wire: f.Wire, reply: f.Reply) -> None:
        wire.write(reply.head(length=False, Connection="close") + reply.body)
        wire.wait(30)
        wire.keep = False

    world.strike(f.sent(go_on))
    began = time.monotonic()
    assert world.read().read is REACHED
    while world.api.watches[0].hung_up_after is None and time.monotonic() - began < SLACK:
        time.sleep(0.01)
    assert world.api.watches[0].hung_up_after is not None


def test_ten_thousand_versions_are_read_quickly(api: FakeApi, tmp_path: Path) -> None:
    cluster = reader(api.kubeconfig(tmp_path / "kubeconfig"))
    cluster.namespaced  # noqa: B018 - discovers the resource
    position = api.resource_version
    api.plant(*(planted(number) for number in range(10_000)))
    began = time.process_time()
    log = cluster.read_log(str(position), str(api.resource_version))
    assert (log.read, len(log.versions)) == (REACHED, 10_000)
    # the double takes its part of it
    assert time.process_time() - began < 2


# servers


def test_an_older_server_ends_without_a_bookmark(tmp_path: Path) -> None:
    with FakeApi(legacy_times=True) as api:
        log = World(api, tmp_path).read()
    assert (log.read, names(log), log.position) == (PARTLY, "abc", "1004")


def test_an_older_server_is_reached_by_its_last_version(tmp_path: Path) -> None:
    with FakeApi(legacy_times=True) as api:
        world = World(api, tmp_path)
        api.create(tenant("d"))
        assert world.read().read is REACHED


def test_a_namespaced_log_is_of_all_namespaces(tmp_path: Path) -> None:
    with FakeApi(namespaced=True) as api:
        position = api.resource_version
        for namespace in ("one", "two"):
            api.create(tenant("acme", namespace=namespace))
        log = reader(api.kubeconfig(tmp_path / "kubeconfig")).read_log(str(position), str(api.resource_version))
    assert [version.observed.namespace for version in log.versions] == ["one", "two"]


def test_a_log_is_of_the_preferred_version(tmp_path: Path) -> None:
    with FakeApi(versions=["v1", "v1alpha1"]) as api:
        assert names(World(api, tmp_path).read()) == "abc"


def _set(**attributes: Any) -> Callable[[FakeApi], None]:
    def change(api: FakeApi) -> None:
        for name, value in attributes.items():
            assert hasattr(api, name)
            setattr(api, name, value)

    return change


def _restarted(api: FakeApi) -> None:
    api.forget()


def _restarted_and_says_so(api: FakeApi) -> None:
    api.forget()
    api.gone_as_status = True


SERVERS: Final[dict[str, tuple[Callable[[FakeApi], None], LogRead, str]]] = {
    "behind the list": (_set(lag=1), PARTLY, "ab"),
    "behind the position": (_set(lag=4), PARTLY, ""),
    "restarted": (_restarted, LOST, ""),
    "restarted, and says so at once": (_restarted_and_says_so, LOST, ""),
    "remembering just enough": (lambda api: api.forget(before=1001), REACHED, "abc"),
    "remembering too little": (lambda api: api.forget(before=1002), LOST, ""),
    "without the permission": (_set(watch_allowed=False), LOST, ""),
    "without bookmarks": (_set(bookmarks=False), PARTLY, "abc"),
}


@pytest.mark.parametrize(("change", "ended", "versions"), SERVERS.values(), ids=SERVERS)
def test_a_server_tells_what_it_has(
    world: World, change: Callable[[FakeApi], None], ended: LogRead, versions: str
) -> None:
    change(world.api)
    log = world.read()
    assert (log.read, names(log)) == (ended, versions)


def test_lists_and_watches_are_told_apart(world: World) -> None:
    world.read()
    assert (len(world.api.lists), len(world.api.watches)) == (0, 1)
