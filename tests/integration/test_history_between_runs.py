"""What happened between two runs, read from the change log: small worlds of one day, and what is right in them."""

from __future__ import annotations

from datetime import date, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from reconciler.core.model import LogRead, Mode
from reconciler.core.plan import Limits
from reconciler.core.reasons import Reason
from reconciler.db import apply, runs
from reconciler.db.certificate import read_certificate
from reconciler.db.connection import snapshot
from tests.support.api_state import ORG_LABEL, tenant
from tests.support.faults import Fault, Request, edit, lists

if TYPE_CHECKING:
    from collections.abc import Callable

    from reconciler.core.plan import Plan
    from reconciler.db.connection import Cursor
    from tests.support.api_state import Object
    from tests.support.world import World


@pytest.fixture
def known(world: World) -> World:
    """A tenant that was created at midnight, recorded in time, and found true at 09:00."""
    world.create("wiki")
    world.born("0:0:0")
    world.row("enabled", "0:0:0", "wiki")
    world.run("9:0:0")
    return world


def toggle(world: World, *times: str) -> None:
    """Turn mail on, off, on and so forth."""
    for number, at in enumerate(times):
        world.at(at).packages("wiki", *([] if number % 2 else ["mail"]))


def test_a_toggle_of_which_both_rows_were_lost_is_billed(known: World) -> None:
    toggle(known, "9:10:00", "9:20:00")
    outcome = known.run("9:30:00")
    assert outcome.history.log is LogRead.REACHED
    assert known.events() == [("enabled", "09:10:00"), ("disabled", "09:20:00")]
    assert known.run("9:40:00").result == "clean"


def test_what_turns_it_off_again_is_waited_for(known: World) -> None:
    known.at("9:10:0").packages("wiki", "mail")
    known.at("9:20:0").packages()
    # an empty list says nothing of when it became empty: that may have been just now
    outcome = known.run("9:30:00")
    assert (outcome.result, known.events()) == ("clean", [])
    known.run("9:35:00")
    assert known.events() == [("enabled", "09:10:00"), ("disabled", "09:10:00.000001")]


def test_a_change_waits_for_its_row_and_no_run_waits(known: World) -> None:
    toggle(known, "10:00:00")
    first = known.run("10:00:05")
    assert (first.result, first.history.waiting, known.slept, known.events()) == ("clean", 1, [], [])
    known.at("10:00:50").row("enabled", "10:00:50")
    second = known.run("10:01:30")
    assert (second.result, second.history.waiting) == ("clean", 0)
    assert known.events() == [("enabled", "10:00:50")]


def test_a_change_whose_row_never_comes_is_appended(known: World) -> None:
    toggle(known, "10:00:00")
    known.run("10:00:05")
    known.run("10:01:02")
    assert known.events() == [("enabled", "10:00:00")]
    assert known.run("10:05:00").result == "clean"


def test_a_blocked_run_forgets_nothing_beside_what_it_could_not_write(known: World) -> None:
    known.at("9:10:0").packages("wiki", "mail")
    known.row("enabled", "9:10:0.4")
    known.at("9:10:50").packages()
    known.run("9:11:0")
    known.run("9:35:0", limits=Limits(count=0, percent=0))
    known.run("9:40:0")
    assert known.events() == [("enabled", "09:10:00.4"), ("disabled", "09:10:00.400001")]
    assert known.run("9:45:0").result == "clean"


def test_without_a_log_a_later_write_dates_no_change(known: World) -> None:
    known.at("9:10:0").packages("wiki", "mail")
    known.row("enabled", "9:10:0")
    known.run("9:10:30")
    known.at("9:20:0").packages("wiki")
    known.at("9:40:0").api.patch("acme", {"metadata": {"labels": {ORG_LABEL: "2872"}}})
    known.api.forget()
    known.run("9:50:0")
    (last,) = known.ledger.execute(
        "SELECT not_before, not_after, occurred_at FROM reconciler.corrections WHERE subject = 'mail'"
    ).fetchall()
    assert last[0] <= known.time("9:20:0") <= last[1] == last[2]


def test_pairs_are_made_anew_in_every_run(known: World) -> None:
    toggle(known, "9:00:13", "9:00:38", "9:01:02")
    known.row("enabled", "9:00:40")
    known.run("9:01:18")
    known.row("disabled", "9:01:22.6")
    known.row("enabled", "9:01:22.6")
    known.run("9:03:00")
    known.run("9:08:00")
    assert len(known.events()) == 3


def test_a_row_stays_with_the_change_that_it_is_closest_to(known: World) -> None:
    toggle(known, "10:00:00", "10:00:20", "10:00:40")
    known.row("enabled", "10:00:41")
    known.run("10:02:00")
    assert known.events() == [("enabled", "10:00:00"), ("disabled", "10:00:20"), ("enabled", "10:00:41")]


def test_a_row_after_the_end_explains_nothing(world: World) -> None:
    world.at("8:0:0").create(finalizers=["pieced.ch/cleanup"])
    world.born("8:0:0")
    world.run("9:0:0")
    world.at("9:00:04").packages("mail")
    world.at("9:00:07").delete()
    world.stamp("9:00:17")
    world.row("enabled", "9:00:34")
    world.run("9:02:00")
    assert world.events()[0] == ("enabled", "09:00:04")


def test_the_changes_of_a_lifetime_wait_for_its_end(known: World) -> None:
    toggle(known, "9:10:00.8")
    known.row("enabled", "9:10:12")
    known.at("9:10:02.8").delete()
    known.api.create(tenant("other"))
    known.run("9:10:50")
    known.run("9:30:00")
    began, ended = known.lifetime()
    assert (began, ended) == ("00:00:00", "09:10:00")
    assert known.events()[0] == ("enabled", "09:09:59.999999")


def test_a_deletion_is_dated_after_the_last_list_that_showed_the_tenant(known: World) -> None:
    known.api.bookmarks = False
    known.api.create(tenant("other"))
    for minute in (10, 20, 30):
        known.run(f"9:{minute}:0")
    known.at("9:33:0").delete()
    known.run("9:40:0")
    known.run("9:45:0")
    assert known.lifetime()[1] == "09:30:00"


def test_rows_in_the_other_order_bill_the_day(known: World) -> None:
    toggle(known, "9:10:00.1", "9:10:00.2")
    known.row("disabled", "9:10:01.6")
    known.row("enabled", "9:10:02.8")
    known.run("9:20:00")
    known.run("9:25:00")
    events = known.events()
    assert events[-1][0] == "disabled"
    on, off = next(pair for pair in pairwise(events) if pair[0][0] == "enabled")
    assert off[0] == "disabled"
    assert on[1] < off[1]


def test_a_stamp_lies_a_second_after_the_beginning(world: World) -> None:
    world.api.create(tenant("other"))
    world.run("8:0:0")
    world.at("9:0:0").create()
    world.at("9:0:3").delete()
    world.born("9:0:35")
    world.run("9:5:0")
    world.run("9:10:0")
    assert world.lifetime() == ("09:00:35", "09:00:36")


def test_what_was_before_the_first_list_is_left_alone(world: World) -> None:
    world.at("9:0:0").create("mail")
    world.born("9:0:0")
    world.clock.at(world.time("9:0:32"), lambda: world.row("enabled", "9:0:32"))
    world.run("9:0:13")
    world.run("9:5:0")
    assert world.events() == [("enabled", "09:00:32")]


def test_a_tenant_that_went_before_its_row_was_there_is_recorded(world: World) -> None:
    world.api.create(tenant("other"))
    world.run("8:0:0")
    world.at("9:0:0").create("mail")
    world.clock.at(world.time("9:0:34"), world.delete)
    world.run("9:0:22")
    world.run("9:5:0")
    world.run("9:7:0")
    assert world.column("SELECT count(*) FROM tenant_billing_lifecycle WHERE tenant_name = 'acme'") == [1]
    assert world.events()[0] == ("enabled", "09:00:00")
    assert world.run("9:10:0").result == "clean"


def test_a_tenant_that_came_and_went_is_recorded_whole(known: World) -> None:
    known.api.create(tenant("other"))
    known.name = "brief"
    known.at("9:10:0").create()
    known.at("9:20:0").packages("mail")
    known.at("9:30:0").delete()
    known.run("9:40:0")
    known.run("9:45:0")
    rows = known.column("SELECT deleted_at IS NOT NULL FROM tenant_billing_lifecycle WHERE tenant_name = 'brief'")
    assert rows == [True]
    # the last that is known of it is from 09:20; it may have gone right after that
    assert known.events() == [("enabled", "09:19:59.999999"), ("disabled", "09:20:00")]


def test_the_next_run_reads_on_from_what_was_shown(known: World) -> None:
    known.api.bookmarks = False
    toggle(known, "9:10:00", "9:20:00")
    known.api.lag = 1
    first = known.run("9:30:00")
    assert first.history.log is LogRead.PARTLY
    known.api.lag = 0
    known.run("9:40:00")
    assert known.events() == [("enabled", "09:10:00"), ("disabled", "09:20:00")]
    assert known.column("SELECT tenant_name FROM reconciler.gaps") == []


def test_a_removed_suspension_lies_between_the_lists(known: World) -> None:
    known.at("9:10:0").suspend()
    known.row("suspended", "9:10:0")
    known.run("9:15:0")
    known.at("9:20:0").unset_suspend()
    known.run("9:25:0")
    known.run("9:30:0")
    assert known.events(None)[-1][0] == "resumed"
    assert "09:15:00" <= known.events(None)[-1][1] < "09:25:01"


def test_a_lost_log_is_a_gap_of_the_time_between_two_lists(known: World) -> None:
    known.run("9:55:0")
    toggle(known, "9:56:00", "9:57:00")
    known.api.forget()
    outcome = known.run("10:00:0")
    assert outcome.history.log is LogRead.LOST
    gaps = known.ledger.execute("SELECT tenant_name, from_at, until_at FROM reconciler.gaps ORDER BY 1").fetchall()
    assert [(name, from_at) for name, from_at, _ in gaps] == [
        ("*", known.time("9:55:0")),
        ("acme", known.time("9:55:0")),
    ]


def test_a_lost_row_in_a_closed_lifetime_is_appended_and_closed(known: World) -> None:
    known.api.create(tenant("other"))
    toggle(known, "9:10:00")
    known.at("9:12:0").delete()
    known.stamp("9:12:0")
    known.run("9:15:0")
    assert known.events() == [("enabled", "09:10:00"), ("disabled", "09:12:00")]
    assert known.column("SELECT count(*) FROM reconciler.reports WHERE reason = 'tenant_recreated'") == [0]


def test_a_row_without_a_change_is_opposed_at_its_instant(known: World) -> None:
    known.run("9:10:0")
    known.at("9:20:0").row("enabled", "9:20:00")
    known.run("9:30:0")
    assert known.events() == [("enabled", "09:20:00"), ("disabled", "09:20:00")]
    assert known.slept == []


def test_a_pair_is_kept_while_a_change_of_its_key_waits(known: World) -> None:
    known.at("9:10:0").packages("wiki", "mail")
    known.row("enabled", "9:10:05")
    known.at("9:20:0").packages()
    kept = "SELECT kind FROM reconciler.changes WHERE skill = 'mail' ORDER BY kind"
    known.run("9:30:0")
    assert known.column(kept) == ["disabled", "enabled"]
    known.run("9:35:0")
    known.run("9:40:0")
    assert known.column(kept) == []


def test_a_row_of_time_that_is_not_proven_is_opposed_by_policy(known: World) -> None:
    toggle(known, "9:06:00", "9:07:00")
    known.api.forget()
    known.run("9:10:0")
    known.row("enabled", "9:06:30")
    known.run("9:20:0")
    known.run("9:25:0")
    assert known.column("SELECT evidence FROM reconciler.corrections") == ["none"]


def test_both_lifetimes_of_a_recreated_tenant_are_found(known: World) -> None:
    known.at("9:10:0").delete()
    known.at("9:20:0").create("mail")
    known.run("9:30:0")
    known.run("9:35:0")
    began, ended = known.lifetime()
    assert (began, ended) == ("00:00:00", "09:00:00")
    known.run("9:40:0")
    assert known.column("SELECT reason FROM reconciler.reports") == ["tenant_recreated"]


def test_nothing_is_written_twice_where_the_log_is_read_again(known: World) -> None:
    toggle(known, "9:10:00", "9:20:00")
    known.run("9:30:0")
    known.ledger.execute("UPDATE reconciler.source SET position = '1001', position_at = %s", [known.time("9:0:0")])
    known.ledger.execute("DELETE FROM reconciler.changes")
    known.run("9:35:0")
    assert len(known.events()) == 2


def test_an_unreadable_version_leaves_its_tenant_alone_unproven(known: World) -> None:
    known.at("9:10:0").api.patch("acme", {"spec": {"packages": [7]}})
    known.at("9:11:0").packages()
    known.run("9:30:0")
    assert known.column("SELECT tenant_name FROM reconciler.gaps") == ["acme"]


def test_rows_that_the_log_showed_are_counted_apart(known: World) -> None:
    toggle(known, "9:10:00", "9:20:00", "9:30:00")
    known.run("9:40:00")
    totals = known.run("9:50:00").totals
    assert totals[Reason.SKILL_ENABLE_UNRECORDED].from_log == 2
    assert totals[Reason.SKILL_DISABLE_UNRECORDED].from_log == 1


def test_a_list_that_lacks_a_tenant_that_was_not_deleted_is_refused(known: World) -> None:
    known.api.create(tenant("other"))
    known.api.faults.append(Fault(edit(lambda body: body["items"].pop(0)), when=lists, times=None))
    refused = known.run("9:10:0", accept_source=False)
    assert "no deletion" in str(refused.failure)
    known.api.faults.clear()
    assert known.run("9:15:0").history.gaps == 0


def test_a_creation_that_the_log_showed_is_known(known: World) -> None:
    known.name = "young"
    known.at("9:10:0").create()
    known.packages("mail")
    known.run("9:20:0")
    since = known.column("SELECT since FROM reconciler.tenants WHERE tenant_name = 'young'")
    assert since == [known.time("9:10:0")]


def test_a_run_that_would_correct_too_many_keeps_what_it_read(known: World) -> None:
    toggle(known, "9:10:00")
    known.run("9:20:0", limits=Limits(count=0, percent=0))
    assert known.column("SELECT kind FROM reconciler.changes") == ["enabled"]
    known.run("9:25:0")
    assert known.events() == [("enabled", "09:10:00")]


def test_a_plan_keeps_nothing_of_the_log(known: World) -> None:
    toggle(known, "9:10:00")
    known.run("9:20:0", mode=Mode.PLAN)
    assert known.column("SELECT kind FROM reconciler.changes") == []
    assert known.column("SELECT position_at FROM reconciler.source") == [known.time("9:0:0")]


def test_a_correction_taken_out_by_hand_is_written_again(known: World) -> None:
    toggle(known, "9:10:00", "9:20:00", "9:20:30")
    known.run("9:20:40")
    known.run("9:21:10")
    known.ledger.execute("DELETE FROM tenant_skill_events WHERE event_kind = 'disabled'")
    known.run("9:22:00")
    assert known.events() == [("enabled", "09:10:00"), ("disabled", "09:20:00"), ("enabled", "09:20:30")]


def test_two_runs_at_once_append_once(known: World, monkeypatch: pytest.MonkeyPatch) -> None:
    toggle(known, "9:10:00", "9:20:00")
    really = apply.drop_stale
    others: list[object] = []

    def late(cursor: Cursor, plan: Plan) -> Plan:
        if not others:
            others.append(None)
            others.append(known.run("9:30:0").result)
        return really(cursor, plan)

    monkeypatch.setattr(runs, "drop_stale", late)
    known.run("9:30:0")
    assert known.events() == [("enabled", "09:10:00"), ("disabled", "09:20:00")]
    assert known.run("9:40:0").result == "clean"


def test_the_organisation_is_that_of_its_version(known: World) -> None:
    known.at("9:10:0").packages("wiki", "mail")
    known.at("9:20:0").api.patch("acme", {"metadata": {"labels": {ORG_LABEL: "2872"}}})
    known.run("9:30:0")
    assert known.column("SELECT zitadel_org_id FROM tenant_skill_events WHERE skill_id = 'mail'") == ["2871"]


def test_a_stamp_leaves_the_organisation_of_its_row(known: World) -> None:
    known.api.create(tenant("other"))
    known.at("9:10:0").api.patch("acme", {"metadata": {"labels": {ORG_LABEL: "2872"}}})
    known.run("9:12:0")
    known.at("9:20:0").delete()
    known.run("9:30:0")
    known.run("9:35:0")
    assert known.lifetime()[1] == "09:12:00"
    assert known.column("SELECT reason FROM reconciler.reports") == []


def test_what_waits_is_not_written_alone_where_the_log_is_lost(known: World) -> None:
    known.run("23:55:0")
    toggle(known, "23:57:00")
    known.run("23:57:05")
    known.at("23:57:30").packages("wiki")
    known.api.forget()
    for at in ("24:1:10", "24:2:10", "24:4:0"):
        known.run(at)
    assert known.events() == [("enabled", "23:57:00"), ("disabled", "23:57:30")]


def test_what_a_later_log_may_undo_is_not_written_yet(known: World) -> None:
    toggle(known, "9:10:00")
    known.run("9:10:05")
    known.at("9:10:30").packages("wiki")
    known.api.pass_by()
    known.api.bookmarks, known.api.lag = False, 1
    assert known.run("9:12:00").history.log is LogRead.PARTLY
    assert known.events() == []
    known.api.lag = 0
    known.run("9:14:00")
    assert known.events() == [("enabled", "09:10:00"), ("disabled", "09:10:30")]


def test_a_log_that_ends_before_the_tenants_version_decides_nothing(known: World) -> None:
    toggle(known, "9:10:00", "9:10:30")
    known.api.bookmarks, known.api.lag = False, 1
    outcome = known.run("9:12:00")
    assert (outcome.history.log, [*outcome.unproven]) == (LogRead.PARTLY, ["acme"])
    assert known.events() == []
    known.api.lag = 0
    known.run("9:14:00")
    assert known.events() == [("enabled", "09:10:00"), ("disabled", "09:10:30")]


def test_time_in_which_a_tenant_was_unreadable_stays_unproven(known: World) -> None:
    known.at("9:10:0").api.patch("acme", {"spec": {"packages": [7]}})
    known.run("9:20:0")
    known.at("12:0:0").packages("wiki", "mail")
    known.run("12:10:0")
    assert known.column("SELECT until_at FROM reconciler.gaps WHERE tenant_name = 'acme'") > [known.time("12:9:0")]


def test_a_change_of_a_recreated_tenant_is_not_of_the_lifetime_before(world: World) -> None:
    world.api.create(tenant("other"))
    world.run("8:0:0")
    world.at("9:0:0").create()
    world.born("9:0:5")
    world.at("9:0:20").delete()
    world.stamp("9:0:21")
    world.at("9:0:40").create()
    world.run("9:2:0")
    world.at("10:10:0").packages("mail")
    world.run("10:11:30")
    world.run("10:13:30")
    assert world.events() == []
    assert world.column("SELECT kind FROM reconciler.changes WHERE kind = 'enabled'") == ["enabled"]


@pytest.mark.parametrize(
    ("stamped", "reports"),
    [
        pytest.param("9:10:0", ["deletion_contradicted"], id="on an earlier day - it is reported still"),
        pytest.param("24:1:0", [], id="on the day of its deletion - it is billed to the day"),
    ],
)
def test_a_tenant_that_outlived_its_recorded_end_stays_reported(known: World, stamped: str, reports: list[str]) -> None:
    known.at(stamped).stamp(stamped)
    known.run("30:0:0")
    assert known.column("SELECT reason FROM reconciler.reports") == ["deletion_contradicted"]
    known.at("34:0:0").delete()
    for minute in (10, 20, 30):
        known.run(f"34:{minute}:0")
    assert known.column("SELECT reason FROM reconciler.reports") == reports


def test_what_is_turned_on_days_after_the_recorded_end_waits(known: World) -> None:
    known.at("9:10:0").stamp("9:10:0")
    known.run("30:0:0")
    toggle(known, "33:0:0")
    known.run("33:10:0")
    known.run("33:20:0")
    assert known.events() == []
    known.ledger.execute("UPDATE public.tenant_billing_lifecycle SET deleted_at = NULL")
    known.run("33:30:0")
    assert known.column("SELECT occurred_at FROM tenant_skill_events WHERE skill_id = 'mail'") == [known.time("33:0:0")]


def test_of_two_tenants_that_nobody_recorded_the_first_gets_the_row(known: World) -> None:
    known.name = "twice"
    known.at("9:10:0").create("mail")
    known.at("9:20:0").delete()
    known.at("9:25:0").create()
    known.run("9:30:0")
    known.run("9:35:0")
    known.run("9:40:0")
    assert known.lifetime() == ("09:10:00", "09:10:01")
    assert known.column("SELECT reason FROM reconciler.reports WHERE tenant_name = 'twice'") == ["tenant_recreated"]


def test_an_unreadable_tenant_that_came_and_went_could_be_anybodys(known: World) -> None:
    odd = tenant("odd")
    known.at("9:10:0").api.create(odd | {"spec": {"packages": [7]}})
    known.at("9:20:0").api.delete("odd")
    known.run("9:30:0")
    known.run("30:0:0")
    with snapshot(known.url) as cursor:
        asked = date(2026, 5, 10), date(2026, 5, 11)
        refused = read_certificate(cursor, *asked, settle=known.settle, org="2871").refused
    assert "odd" in {doubt.tenant for doubt in refused}


def test_a_young_row_without_a_change_is_looked_at_again(known: World) -> None:
    known.row("enabled", "9:9:30")
    assert known.run("9:10:0").result == "corrected"
    assert known.slept != []


def test_of_a_log_that_is_cut_too_an_unreadable_tenant_stays_unproven(known: World) -> None:
    known.api.bookmarks = False
    known.at("9:10:0").api.patch("acme", {"spec": {"packages": [7]}})
    for at in ("9:20:0", "11:0:0"):
        known.api.pass_by()
        assert known.run(at).history.log is LogRead.PARTLY
    known.at("12:0:0").packages("wiki", "mail")
    known.api.pass_by()
    known.run("12:10:0")
    gaps = known.ledger.execute("SELECT from_at, until_at FROM reconciler.gaps WHERE tenant_name = 'acme'").fetchall()
    assert [from_at for from_at, _ in gaps] == [known.time("9:0:0")]
    assert gaps[0][1] > known.time("12:9:0")


@pytest.mark.parametrize("bookmarks", [pytest.param(True, id="reached"), pytest.param(False, id="partly")])
def test_a_change_comes_after_the_list_of_a_blocked_run(known: World, *, bookmarks: bool) -> None:
    known.api.bookmarks = bookmarks
    known.row("enabled", "9:05:0")
    known.at("9:05:0").packages("wiki", "mail")
    known.at("9:20:0").packages("wiki")
    known.row("disabled", "9:20:0")
    known.suspend()
    for at in ("9:30:0", "9:35:0"):
        known.api.pass_by()
        assert known.run(at, limits=Limits(count=0, percent=0)).result == "blocked"
    known.at("9:40:0").packages("wiki", "mail")
    known.run("9:50:0")
    assert known.events() == [("enabled", "09:05:00"), ("disabled", "09:20:00"), ("enabled", "09:40:00")]


def test_a_lifetime_that_ends_before_it_begins_has_no_events(world: World) -> None:
    # the portal takes the beginning from the resource, and the end from its own clock
    world.clock.ahead = timedelta(minutes=10)
    world.api.create(tenant("other"))
    world.run("8:0:0")
    world.at("9:0:0").create("mail")
    world.born("9:10:0")
    world.at("9:0:20").delete()
    world.stamp("9:0:20")
    for at in ("9:30:0", "9:40:0", "9:50:0"):
        world.run(at)
    assert world.events() == []


@pytest.mark.parametrize("finalizers", [[], ["pieced.ch/cleanup"]], ids=["no time of its own", "deletionTimestamp"])
def test_a_deletion_comes_after_the_rows_of_its_second(known: World, finalizers: list[str]) -> None:
    known.api.create(tenant("other"))
    known.api.patch("acme", {"metadata": {"finalizers": finalizers}})
    toggle(known, "24:0:0.2")
    known.row("enabled", "24:0:0.2")
    known.at("24:0:0.6").delete()
    known.run("24:5:0")
    known.run("24:10:0")
    assert known.events()[0] == ("enabled", "05-11 00:00:00")
    assert known.lifetime()[1] == "05-11 00:00:00"


def test_a_vanished_tenant_that_waits_is_ended_without_a_log(known: World) -> None:
    known.name = "brief"
    known.at("9:9:50").create("mail")
    known.run("9:10:0")
    known.at("9:20:0").delete()
    known.api.forget()
    known.run("9:30:0")
    assert known.column("SELECT tenant_name FROM tenant_billing_lifecycle WHERE tenant_name = 'brief'") == []
    known.run("9:40:0")
    assert known.lifetime() == ("09:09:50", "09:10:00")
    assert known.events() == [("enabled", "09:09:50"), ("disabled", "09:10:00")]
    assert known.column("SELECT why FROM reconciler.gaps WHERE tenant_name = 'brief'") == ["vanished"]
    assert known.run("9:50:0").result == "clean"


def test_a_recreated_tenant_that_vanished_without_a_log_is_gone(known: World) -> None:
    known.api.create(tenant("other"))
    known.at("9:10:0").delete()
    known.stamp("9:10:0")
    known.at("9:20:0").create()
    known.run("9:25:0")
    known.at("9:30:0").delete()
    known.api.forget()
    known.run("9:35:0")
    found = {(each.reason, each.observed) for each in known.run("9:40:0").findings if each.tenant == "acme"}
    assert found == {(Reason.TENANT_RECREATED, "gone")}


def test_a_recorded_tenant_is_looked_for_before_it_is_ended(known: World) -> None:
    known.api.create(tenant("other"))
    toggle(known, "9:10:00")
    known.run("9:10:5")
    known.api.pass_by()
    known.api.forget()
    known.api.faults.append(Fault(edit(lambda body: body["items"].pop(0)), when=lists))
    refused = known.run("9:20:0", accept_source=False)
    assert "lacked acme, which exists" in str(refused.failure)
    known.run("9:30:0")
    assert known.lifetime() == ("00:00:00", None)
    assert known.events() == [("enabled", "09:10:00")]


def when_asked(world: World, verb: str, act: Callable[[], object]) -> None:
    """Let something happen once, before the API server answers such a request."""

    def on_request(request: Request) -> None:
        if request.verb == verb:
            world.api.on_request = None
            act()

    world.api.on_request = on_request


@pytest.mark.parametrize("verb", ["list", "watch"])
def test_a_run_that_another_one_overtakes_decides_nothing(known: World, verb: str) -> None:
    known.at("9:10:0").packages("wiki", "mail")
    known.row("enabled", "9:10:0")
    known.at("9:20:0").packages("mail")
    known.row("disabled", "9:20:0", "wiki")
    when_asked(known, verb, lambda: known.run("9:30:0"))
    known.run("9:30:0")
    assert known.events() == [("enabled", "09:10:00")]
    assert known.events("wiki") == [("enabled", "00:00:00"), ("disabled", "09:20:00")]


@pytest.mark.parametrize("verb", ["list", "watch"])
def test_what_an_overtaken_run_has_read_is_not_proven(known: World, verb: str) -> None:
    known.api.create(tenant("other"))
    known.run("9:10:0")
    toggle(known, "9:20:00", "9:20:10")
    # a list that another run read before the toggle becomes the position
    moved = "UPDATE reconciler.source SET position_at = position_at + interval '1 minute'"
    when_asked(known, verb, lambda: known.ledger.execute(moved))
    outcome = known.run("9:30:0")
    asked = "SELECT unverified FROM reconciler.runs WHERE id = %s"
    ((unverified,),) = known.ledger.execute(asked, [outcome.run_id]).fetchall()
    assert (outcome.history.log, "acme" in unverified) == (LogRead.REACHED, True)
    assert known.events() == []
    known.run("9:40:0")
    assert known.events() == [("enabled", "09:20:00"), ("disabled", "09:20:10")]


def test_what_was_written_between_two_lists_has_no_time_of_its_own(known: World) -> None:
    known.at("9:10:0").suspend()
    known.run("9:10:10")
    known.at("9:20:0").api.patch("acme", {"spec": {"suspend": False}})
    # the same manager writes once more, which moves the time of all that it owns
    known.at("9:40:0").packages("wiki", "mail")
    known.api.forget()
    known.run("9:50:0")
    known.run("9:55:0")
    assert known.events(None) == [("suspended", "09:10:00"), ("resumed", "09:40:00")]
    asked = "SELECT not_before FROM reconciler.corrections WHERE reason = 'resumption_unrecorded'"
    assert known.column(asked) == [known.time("9:10:10")]


def test_what_waits_waits_for_the_stamp_of_a_vanished_tenant(known: World) -> None:
    known.api.create(tenant("other"))
    known.at("9:10:0").suspend()
    known.row("suspended", "9:10:0")
    known.run("9:15:0")
    known.at("9:20:0").unset_suspend()
    known.run("9:20:30")
    known.at("9:40:0").delete()
    known.api.forget()
    known.run("9:50:0")
    assert known.lifetime()[1] == "09:14:00"
    for at in ("9:55:0", "10:0:0"):
        known.run(at)
    assert known.events(None) == [("suspended", "09:10:00"), ("resumed", "09:13:59.999999")]


def restore(world: World, backup: Object) -> None:
    """Make the cluster what it was at that version, from which its versions go on again."""
    version = int(backup["metadata"]["resourceVersion"])
    world.api.reset()
    world.api.resource_version = version - 1
    world.api.plant(backup)
    world.api.forget()


def test_a_change_that_a_restored_cluster_undid_stops_no_later_run(known: World) -> None:
    """The cluster gives a later change of the same kind the same version."""
    backup = known.api.get("acme")
    assert backup
    toggle(known, "9:10:00")
    assert known.run("9:10:05").history.waiting == 1
    restore(known, backup)
    known.run("9:10:30", accept_source=True)
    assert known.column("SELECT from_at <= '2026-05-10 09:10:00+00' FROM reconciler.gaps WHERE tenant_name = 'acme'")
    toggle(known, "9:10:40")
    known.run("9:10:50")
    known.run("9:20:00")
    assert known.events() == [("enabled", "09:10:40")]


def test_a_change_before_a_restored_version_still_waits(known: World) -> None:
    toggle(known, "9:10:00")
    backup = known.api.get("acme")
    assert backup
    known.at("9:10:02").api.patch("acme", {"metadata": {"annotations": {"later": "yes"}}})
    assert known.run("9:10:05").history.waiting == 1
    restore(known, backup)
    known.run("9:10:30", accept_source=True)
    known.run("9:20:00")
    assert known.events() == [("enabled", "09:10:00")]


def test_what_the_portal_closed_at_the_end_is_not_closed_twice(known: World) -> None:
    toggle(known, "9:10:00")
    known.at("9:20:0").delete()
    known.stamp("9:20:00")
    known.row("disabled", "9:20:00", "mail")
    known.row("disabled", "9:20:00", "wiki")
    known.run("9:30:00")
    assert known.events() == [("enabled", "09:10:00"), ("disabled", "09:20:00")]
    assert known.events("wiki") == [("enabled", "00:00:00"), ("disabled", "09:20:00")]


@pytest.fixture
def ending(world: World) -> World:
    """A tenant with finalizers that was found true at 09:00 and whose deletion was asked for at 09:10."""
    world.create("wiki", finalizers=["pieced.ch/cleanup"])
    world.born("0:0:0")
    world.row("enabled", "0:0:0", "wiki")
    world.run("9:0:0")
    world.at("9:10:0").delete()
    return world


@pytest.mark.parametrize("looks", [["9:20:0"], ["9:10:20", "9:12:0"]], ids=["due at once", "after it waited"])
def test_what_is_turned_on_during_a_deletion_is_not_billed(ending: World, looks: list[str]) -> None:
    ending.at("9:10:10").packages("wiki", "mail")
    for at in looks:
        ending.run(at)
    ending.at("9:30:0").packages("mail")
    ending.run("9:40:0")
    assert ending.lifetime() == ("00:00:00", "09:10:00")
    assert ending.events() == []
    assert ending.events("wiki") == [("enabled", "00:00:00"), ("disabled", "09:10:00")]


def test_what_was_on_before_a_deletion_is_still_billed(world: World) -> None:
    """The run that saw it found the log lost and was stopped, so nobody has written that it was on."""
    world.create("wiki", finalizers=["pieced.ch/cleanup"])
    world.born("0:0:0")
    world.row("enabled", "0:0:0", "wiki")
    world.run("8:0:0")
    world.at("8:30:0").packages("wiki", "mail")
    world.api.forget()
    assert world.run("9:0:0", limits=Limits(count=0, percent=0)).failure
    world.at("9:10:0").delete()
    world.at("9:10:10").packages("wiki", "mail", "voice")
    world.run("9:20:0")
    assert [kind for kind, _ in world.events()] == ["enabled", "disabled"]
    assert world.events("voice") == []
