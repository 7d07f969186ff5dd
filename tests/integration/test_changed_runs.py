"""Runs that read only what has changed since a list of all tenants, and when that is not enough."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from reconciler import __version__
from reconciler.core.certificate import Cause
from reconciler.core.model import Compared, Mode, Result
from reconciler.core.plan import Limits, build_plan
from reconciler.core.reasons import Reason
from reconciler.core.recheck import MIN_RELISTED
from reconciler.db import runs
from reconciler.db.certificate import read_certificate, read_unverified, read_verification
from reconciler.db.connection import snapshot
from reconciler.sources.cluster import Cluster
from reconciler.views.findings import summary
from tests.simulation.history_world import Backup
from tests.support.api_state import ORG_LABEL
from tests.support.faults import Fault, cut_close, lists, remaining, watches

if TYPE_CHECKING:
    from collections.abc import Callable

    from reconciler.core.model import Outcome
    from tests.support.world import World

QUARTER = timedelta(minutes=15)
ALL, CHANGED = Compared


@pytest.fixture
def known(world: World) -> World:
    """Two tenants, recorded in time, that a run has listed at 09:00."""
    for name in ("other", "acme"):
        world.name = name
        world.at("0:0:0").create("wiki")
        world.born("0:0:0")
        world.row("enabled", "0:0:0", "wiki")
    assert run(world, "9:0:0").compared is ALL
    return world


def run(world: World, at: str, **options: object) -> Outcome:
    outcome = world.run(at, full_every=QUARTER, **options)
    if outcome.failure and not options:
        raise outcome.failure
    return outcome


def pages(world: World) -> list[dict[str, str]]:
    return [dict(request.query) for request in world.api.lists]


# what it reads and finds


def test_a_run_reads_only_what_has_changed(known: World) -> None:
    known.api.requests.clear()
    known.at("9:0:30").packages("wiki", "mail")
    known.row("enabled", "9:0:30")

    outcome = run(known, "9:1:0")

    assert (outcome.compared, outcome.names, outcome.result) == (CHANGED, frozenset({"acme"}), Result.CLEAN)
    assert (pages(known), known.api.gets) == ([{"limit": "1"}], [])
    assert (outcome.tenants_observed, outcome.tenants_recorded) == (2, 2)


def test_a_lost_row_is_appended_by_what_changed(known: World) -> None:
    known.at("9:0:30").packages("wiki", "mail")
    assert run(known, "9:1:0").history.waiting == 1
    outcome = run(known, "9:2:0")
    assert (outcome.compared, known.events()) == (CHANGED, [("enabled", "09:00:30")])


def test_a_tenant_that_came_and_went_is_recorded(known: World) -> None:
    known.name = "brief"
    known.at("9:0:10").create("mail")
    known.at("9:0:20").delete()
    assert [run(known, f"9:{minute}:0").compared for minute in (1, 2, 3)] == [CHANGED] * 3
    # no time tells of its deletion: it ends as early as it can have
    assert known.lifetime() == ("09:00:10", "09:00:11")
    assert known.events() == [("enabled", "09:00:10"), ("disabled", "09:00:11")]


def test_a_recreated_tenant_is_reported(known: World) -> None:
    known.at("9:0:10").delete()
    known.at("9:0:20").create("wiki")
    outcome = run(known, "9:1:0")
    assert outcome.compared is CHANGED
    assert Reason.TENANT_RECREATED in {finding.reason for finding in outcome.findings}


def test_an_unreadable_version_is_reported_until_it_can_be_read(known: World) -> None:
    known.at("9:0:30").api.patch("acme", {"spec": {"packages": "mail"}})
    broken = run(known, "9:1:0")
    still = run(known, "9:2:0")
    known.at("9:2:30").packages("wiki")
    mended = run(known, "9:3:0")
    assert [each.compared for each in (broken, still, mended)] == [CHANGED] * 3
    assert [[str(one.reason) for one in each.findings] for each in (broken, still, mended)] == [
        ["tenant_unreadable"],
        ["tenant_unreadable"],
        [],
    ]


def test_a_row_that_no_change_explains_is_found(known: World) -> None:
    known.row("enabled", "9:0:30")
    outcome = run(known, "9:1:0")
    assert (outcome.compared, outcome.names) == (CHANGED, frozenset({"acme"}))
    assert [finding.reason for finding in outcome.findings] == [Reason.SKILL_DISABLE_UNRECORDED]


@pytest.mark.parametrize("full_every", [pytest.param(QUARTER, id="changed"), pytest.param(timedelta(), id="all")])
def test_a_row_that_came_during_a_run_is_found(
    known: World, monkeypatch: pytest.MonkeyPatch, full_every: timedelta
) -> None:
    """It comes after that run has read which tenants have new rows, and compared them."""

    def meanwhile(*given: Any) -> object:
        if not known.events():
            known.row("enabled", "9:1:0")
        return build_plan(*given)

    monkeypatch.setattr("reconciler.run.build_plan", meanwhile)
    assert known.run("9:1:0", full_every=full_every).result == Result.CLEAN
    outcome = run(known, "9:2:30")
    assert (outcome.compared, outcome.names) == (CHANGED, frozenset({"acme"}))
    assert [finding.reason for finding in outcome.findings] == [Reason.SKILL_DISABLE_UNRECORDED]


@pytest.mark.parametrize("name", ["a/b", "a%2Fb", "A b", "a,b=c", "..", ".", ""])
def test_a_name_that_no_tenant_can_have_stops_none(known: World, name: str) -> None:
    known.name = name
    known.row("enabled", "8:0:0")
    outcomes = [run(known, at) for at in ("9:0:30", "9:1:0", "9:20:0")]
    assert [outcome.compared for outcome in outcomes] == [CHANGED, CHANGED, ALL]
    found = [[(one.tenant, one.reason) for one in outcome.findings] for outcome in outcomes]
    assert found == [[(name, Reason.EVENTS_WITHOUT_TENANT)]] * 3


def test_a_report_stays_open_while_it_is_true(known: World) -> None:
    reports = "SELECT tenant_name, reason FROM reconciler.reports"
    known.at("9:0:30").api.patch("acme", {"metadata": {"labels": {ORG_LABEL: "9"}}})
    for minute in (1, 2):
        assert run(known, f"9:{minute}:0").compared is CHANGED
        assert known.ledger.execute(reports).fetchall() == [("acme", "org_moved")]
    known.at("9:2:30").api.patch("acme", {"metadata": {"labels": {ORG_LABEL: "2871"}}})
    assert run(known, "9:3:0").compared is CHANGED
    assert known.ledger.execute(reports).fetchall() == []


def test_a_report_of_a_tenant_that_was_not_compared_stays(known: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run may have opened it after this one had begun."""
    really = runs.look_back

    def look_back(*given: Any) -> runs.Start:
        started = really(*given)
        known.ledger.execute("INSERT INTO reconciler.reports (tenant_name, reason) VALUES ('other', 'org_moved')")
        return started

    monkeypatch.setattr(runs, "look_back", look_back)
    assert run(known, "9:1:0").compared is CHANGED
    assert known.ledger.execute("SELECT tenant_name FROM reconciler.reports").fetchall() == [("other",)]


def test_a_plan_reads_what_a_run_would_read(known: World) -> None:
    known.at("9:0:30").packages("wiki", "mail")
    assert run(known, "9:1:0", mode=Mode.PLAN).compared is CHANGED


def test_who_is_due_and_changes_meanwhile_is_left_to_a_list(known: World) -> None:
    known.row("enabled", "9:0:30")
    known.api.on_request = lambda request: known.packages("mail") if request.path.endswith("/acme") else None
    assert run(known, "9:1:0").compared is ALL


def test_it_says_that_only_what_had_changed_was_compared(known: World) -> None:
    known.at("9:0:30").packages("wiki", "mail")
    known.row("enabled", "9:0:30")
    assert summary(run(known, "9:1:0")) == (
        "Nothing to write: what had changed is in the ledger. 2 tenants observed, 2 recorded as open, and 1 compared: "
        "what had changed."
    )


# when it is not enough


def test_without_the_option_every_run_lists_all(known: World) -> None:
    assert known.run("9:1:0").compared is ALL


def test_all_are_listed_a_quarter_of_an_hour_later(known: World) -> None:
    times = [f"9:{minute}:{second}" for minute, second in ((5, 0), (14, 20), (15, 0), (16, 0))]
    assert [run(known, at).compared for at in times] == [CHANGED, CHANGED, ALL, CHANGED]


def forget(world: World) -> None:
    world.api.pass_by()
    world.api.forget()


def lose_bookmarks(world: World) -> None:
    world.api.bookmarks = False
    world.api.pass_by()


def cut_the_log(world: World) -> None:
    world.at("9:0:30").packages("wiki", "mail")
    world.api.faults.append(Fault(cut_close(), when=watches, times=None))


def forbid_the_log(world: World) -> None:
    world.api.pass_by()
    world.api.watch_allowed = False


def hide_the_number(world: World) -> None:
    world.api.faults.append(Fault(remaining(None), when=lists))


def restore_rows(world: World) -> None:
    world.ledger.execute("DELETE FROM public.tenant_skill_events WHERE tenant_name = 'acme'")


def upgrade(world: World) -> None:
    world.ledger.execute("UPDATE reconciler.runs SET version = '0.0.1'")


def block(world: World) -> None:
    world.api.delete("other")
    world.run("9:0:20", limits=Limits(count=0, percent=0), full_every=QUARTER)
    assert run(world, "9:0:40", limits=Limits(count=0, percent=0)).result == "clean"
    assert run(world, "9:2:0", limits=Limits(count=0, percent=0)).result == "blocked"


def overlap(world: World) -> None:
    run(world, "9:0:30")
    world.ledger.execute("UPDATE reconciler.runs SET finished_at = '2026-05-10 09:00:40Z'")


def turn_the_clock_back(world: World) -> None:
    run(world, "9:0:30")
    world.ledger.execute("UPDATE reconciler.runs SET started_at = '2026-05-11Z' WHERE compared = 'changed'")


def close_all(world: World) -> None:
    world.ledger.execute("UPDATE reconciler.runs SET tenants_recorded = 0")


def report_many(world: World) -> None:
    world.ledger.execute(
        "INSERT INTO reconciler.reports (tenant_name, reason) SELECT 'gone-' || n, 'events_without_tenant' "
        "FROM generate_series(1, %s) n",
        [MIN_RELISTED + 1],
    )


@pytest.mark.parametrize(
    "happens",
    [
        pytest.param(forget, id="the log is forgotten"),
        pytest.param(lose_bookmarks, id="no bookmark comes"),
        pytest.param(cut_the_log, id="the log is cut"),
        pytest.param(forbid_the_log, id="the role may not watch"),
        pytest.param(hide_the_number, id="nobody says how many there are"),
        pytest.param(restore_rows, id="events are gone from the ledger"),
        pytest.param(upgrade, id="another version listed them"),
        pytest.param(block, id="a limit stopped the last run"),
        pytest.param(overlap, id="the last two runs overlapped"),
        pytest.param(turn_the_clock_back, id="the last run began in the future"),
        pytest.param(close_all, id="no tenant was open"),
        pytest.param(report_many, id="one list costs less than single requests"),
    ],
)
def test_all_are_listed_where_only_that_can_tell(known: World, happens: Callable[[World], None]) -> None:
    happens(known)
    assert run(known, "9:3:0").compared is ALL


def test_an_accepted_source_is_listed_whole(known: World) -> None:
    assert run(known, "9:1:0", accept_source=True).compared is ALL


def test_the_last_tenants_may_go(known: World) -> None:
    """How many rows are open is known of the last list of all, and by now the portal has closed them."""
    for name in ("other", "acme"):
        known.name = name
        known.at("9:0:10").delete()
        known.row("disabled", "9:0:10", "wiki")
    known.stamp("9:0:10")
    outcome = run(known, "9:3:0")
    assert (outcome.compared, outcome.result) == (ALL, Result.CLEAN)


def test_another_cluster_is_refused_as_by_a_list(known: World) -> None:
    known.api.source_uid = "another"
    refused = run(known, "9:1:0", limits=Limits())
    assert "The ledger belongs to the source" in str(refused.failure)


# what it proves


def proof(world: World) -> tuple[str, str]:
    """Return up to when all is proven, and up to when what has changed."""
    with snapshot(world.url) as cursor:
        found = read_verification(cursor, settle=world.settle)
    assert found.verified_until
    assert found.changes_until
    return f"{found.verified_until:%H:%M}", f"{found.changes_until:%H:%M}"


def test_only_a_list_of_all_moves_the_proof(known: World) -> None:
    assert proof(known) == ("08:59", "08:59")
    assert run(known, "9:5:0").verified_until is None
    assert proof(known) == ("08:59", "09:04")
    run(known, "9:20:0")
    assert proof(known) == ("09:19", "09:19")


def test_a_row_changed_by_hand_is_found_by_the_next_list(known: World) -> None:
    known.ledger.execute("UPDATE public.tenant_billing_lifecycle SET zitadel_org_id = '9' WHERE tenant_name = 'acme'")
    assert run(known, "9:5:0").result == "clean"
    assert run(known, "9:20:0").result == "drift"


def test_drift_lies_after_a_list_of_all(known: World) -> None:
    """The row was taken out after that, and before a run that did not compare its tenant."""
    run(known, "9:5:0")
    known.ledger.execute("DELETE FROM public.tenant_skill_events WHERE tenant_name = 'other'")
    assert "other" not in (run(known, "9:10:0").names or ())
    (found,) = run(known, "9:20:0").findings
    assert found.moment
    assert (found.tenant, f"{found.moment.not_before:%H:%M}") == ("other", "08:59")


def test_a_run_says_in_its_row_what_it_compared(known: World) -> None:
    run(known, "9:5:0")
    rows = known.ledger.execute("SELECT compared, version FROM reconciler.runs ORDER BY started_at").fetchall()
    assert rows == [("all", __version__), ("changed", __version__)]


def test_whoever_is_in_doubt_is_proven_up_to_a_list_of_all(known: World) -> None:
    assert run(known, "9:5:0").result == "clean"
    known.at("9:5:30").api.patch("acme", {"metadata": {"labels": {ORG_LABEL: "9"}}})
    run(known, "9:6:0")
    run(known, "9:7:0")
    with snapshot(known.url) as cursor:
        (one,) = read_unverified(cursor, settle=known.settle)
    assert one.verified_until
    assert (one.tenant, f"{one.verified_until:%H:%M}") == ("acme", "08:59")


def unverified(world: World) -> list[str]:
    with snapshot(world.url) as cursor:
        found = read_verification(cursor, settle=world.settle)
        names = [one.tenant for one in read_unverified(cursor, settle=world.settle)]
    assert found.unverified == len(names)
    return names


def test_a_run_beside_one_of_all_proves_nothing_for_it(known: World) -> None:
    """It began while that one was waiting, and compared others."""
    run(known, "9:5:0")
    ends = (
        "UPDATE reconciler.runs SET unverified = '{other}', finished_at = '2026-05-10 09:05:01Z' WHERE compared = 'all'"
    )
    known.ledger.execute(ends.encode())
    assert unverified(known) == ["other"]
    with snapshot(known.url) as cursor:
        days = date(2026, 5, 10), date(2026, 5, 11)
        found = read_certificate(cursor, *days, settle=known.settle, tenant="other")
    assert Cause.DEFERRED in {doubt.cause for doubt in found.doubts}


def test_what_an_overtaking_run_left_in_doubt_stays_so(known: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was being written while this run began, and by its row it had ended."""
    really = runs.start

    def start(*given: object) -> runs.Start:
        monkeypatch.undo()
        started = really(*given)  # type: ignore[arg-type]
        known.api.pass_by()
        known.run("9:1:0")
        known.ledger.execute(
            "UPDATE reconciler.runs SET unverified = '{other}', started_at = started_at - interval '5 s', "
            "observed_at = observed_at - interval '5 s', finished_at = finished_at - interval '4 s' "
            "WHERE started_at > '2026-05-10 09:00:30Z'"
        )
        return started

    monkeypatch.setattr(runs, "start", start)
    assert run(known, "9:1:0").compared is CHANGED
    assert unverified(known) == ["other"]
    assert run(known, "9:2:0").names == frozenset({"other"})


def test_a_tenant_that_was_deferred_is_looked_at_again(known: World) -> None:
    known.at("9:0:58").packages("wiki", "mail")
    known.row("enabled", "9:0:58")
    assert run(known, "9:1:0").names == frozenset({"acme"})
    known.ledger.execute("UPDATE reconciler.runs SET unverified = '{other}' WHERE compared = 'changed'")
    assert run(known, "9:2:0").names == frozenset({"other"})


def test_tenants_in_namespaces_are_all_listed(known: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is in two of them belongs to no tenant, and only a list of all shows that."""
    monkeypatch.setattr(Cluster, "namespaced", property(lambda _: True))
    assert run(known, "9:1:0").compared is ALL


def test_what_a_restore_undid_is_in_doubt_since_a_full_list(known: World) -> None:
    """A log can be read past the version of a backup: only a list shows that tenants are as they were before it."""
    backup = Backup.of(known.api, known.clock.now)
    known.at("9:2:0").packages("wiki", "mail")
    known.row("enabled", "9:2:0")
    assert run(known, "9:10:0").compared is CHANGED
    backup.restore(known.api)
    known.api.resource_version += 100
    assert run(known, "9:20:0", limits=Limits()).result == "blocked"
    assert run(known, "9:30:0", accept_source=True).failure is None
    gaps = known.ledger.execute(
        "SELECT tenant_name, from_at FROM reconciler.gaps WHERE tenant_name <> 'other'"
    ).fetchall()
    assert {(name, f"{at:%H:%M}") for name, at in gaps} == {("acme", "09:00"), ("*", "09:00")}
