"""What people decided, and what the change log and the rows say of the same time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from reconciler.db.apply import Author
from reconciler.db.connection import brief_transaction, snapshot
from reconciler.db.lifetimes import record_lifetime
from reconciler.db.put_right import record, retract
from reconciler.db.usage import statement
from reconciler.sources.lookup import look_up

if TYPE_CHECKING:
    from reconciler.core.decisions import PutRight
    from tests.support.world import World

AUTHOR = Author("m.keller", "the customer's log")


class Decider:
    """A person who decides about the tenant of a world."""

    def __init__(self, world: World) -> None:
        self.world = world

    def record(self, kind: str, since: str, until: str) -> PutRight:
        begins_at, ends_at = self.world.time(since), self.world.time(until)
        with brief_transaction(self.world.url) as cursor:
            return record(cursor, self.world.name, "mail", kind, since=begins_at, until=ends_at, author=AUTHOR)

    def retract(self, kind: str, at: str) -> PutRight:
        rows = "SELECT 'skill:' || id FROM tenant_skill_events WHERE (event_kind, occurred_at) = (%s, %s)"
        ((target,),) = self.world.ledger.execute(rows, [kind, self.world.time(at)]).fetchall()
        with brief_transaction(self.world.url) as cursor:
            return retract(cursor, target, author=AUTHOR, lookup=look_up(self.world.source(), self.world.name))

    def gone(self, since: str, until: str | None = None, *, said: str = "gone") -> PutRight:
        ends_at = self.world.time(until) if until else None
        given: dict[str, Any] = {"since": self.world.time(since), "until": ends_at, "org": None}
        with brief_transaction(self.world.url) as cursor:
            return record_lifetime(cursor, self.world.name, said, **given, author=AUTHOR)

    def state(self, at: str) -> str:
        rows = "SELECT event_kind FROM tenant_skill_events WHERE occurred_at <= %s ORDER BY occurred_at, id"
        *_, (kind,) = self.world.ledger.execute(rows, [self.world.time(at)])
        return str(kind)

    def reports(self) -> list[tuple[str, str]]:
        return self.world.ledger.execute("SELECT reason, recorded FROM reconciler.reports ORDER BY 1, 2").fetchall()

    def days(self, item: str | None) -> int:
        with snapshot(self.world.url) as cursor:
            first = self.world.time("0:0:0").date()
            billed = statement(cursor, first, first.replace(day=30))
        return sum(line.days for line in billed.lines if line.item == item)


@pytest.fixture
def decider(world: World) -> Decider:
    """Of a tenant that was created at midnight, recorded in time, and found true at 09:00."""
    world.create("mail")
    world.born("0:0:0")
    world.row("enabled", "0:0:0")
    world.run("9:0:0")
    return Decider(world)


def test_a_change_partly_inside_a_decision_is_dated_outside_of_it(world: World, decider: Decider) -> None:
    # an empty list says nothing of when it became empty
    world.at("9:20:0").packages()
    world.at("9:40:0")
    decider.record("enabled", "8:50:0", "9:10:0")
    world.run("9:50:0")
    world.run("9:55:0")
    assert world.events()[-1] == ("disabled", "09:10:00")
    assert world.run("10:0:0").result == "clean"


def test_a_change_partly_inside_the_end_is_dated_before(world: World, decider: Decider) -> None:
    world.at("9:20:0").packages()
    world.at("9:40:0")
    decider.record("disabled", "9:15:0", "9:35:0")
    world.run("9:50:0")
    world.run("9:55:0")
    assert world.events()[:2] == [("enabled", "00:00:00"), ("disabled", "09:00:00")]


def test_a_change_whose_row_was_taken_back_waits_no_longer(world: World, decider: Decider) -> None:
    world.at("9:10:0").packages("mail", "wiki")
    world.at("9:20:0").packages("mail")
    world.row("enabled", "9:10:0", "wiki")
    world.row("disabled", "9:20:0", "wiki")
    world.at("9:21:0")
    decider.retract("enabled", "9:10:0")
    for minute in range(30, 60, 5):
        world.run(f"9:{minute}:0")
    assert decider.days("wiki") == 0


def test_a_correction_that_was_taken_back_is_not_appended_again(world: World, decider: Decider) -> None:
    world.at("9:10:0").packages("mail", "wiki")
    world.at("9:20:0").packages("mail")
    world.row("disabled", "9:20:0", "wiki")
    world.run("9:30:0")
    assert world.events("wiki") == [("enabled", "09:10:00"), ("disabled", "09:20:00")]
    decider.retract("enabled", "9:10:0")
    for minute in range(31, 60, 5):
        world.run(f"9:{minute}:0")
    assert decider.days("wiki") == 0


def test_a_guess_that_a_late_row_disproves_leaves_what_was_decided(world: World, decider: Decider) -> None:
    world.at("9:20:0").packages()
    world.api.forget()
    world.run("9:30:0")
    assert world.events()[-1] == ("disabled", "08:59:00")
    decider.record("disabled", "8:50:0", "9:10:0")
    world.row("disabled", "9:20:0")
    found = {each.reason for each in world.run("9:40:0").findings}
    assert found == {"correction_superseded"}
    assert decider.state("9:5:0") == "disabled"
    assert [world.run(f"9:{minute}:0").result for minute in (45, 50, 55)] == ["corrected", "clean", "clean"]
    assert [decider.state(at) for at in ("8:40:0", "9:5:0", "9:15:0", "9:25:0")] == [
        "enabled",
        "disabled",
        "enabled",
        "disabled",
    ]


def test_rows_in_a_time_that_was_decided_gone_contradict_nothing(world: World, decider: Decider) -> None:
    world.at("30:0:0")
    world.row("disabled", "15:0:0", "wiki")
    world.row("resumed", "16:0:0")
    decider.gone("13:0:0", "16:0:0")
    world.run("31:0:0")
    world.run("32:0:0")
    assert decider.reports() == []


def test_a_deletion_in_a_time_that_was_decided_gone_contradicts_nothing(world: World, decider: Decider) -> None:
    world.run("30:0:0")
    world.at("34:0:0").delete()
    world.stamp("34:0:0")
    world.at("34:0:2")
    decider.gone("9:30:0")
    world.run("34:10:0")
    assert decider.reports() == []


def test_a_decision_from_before_the_recorded_end_says_nothing_after_it(world: World, decider: Decider) -> None:
    decider.gone("-1:0:0", said="alive")
    world.at("9:30:0").stamp("9:30:0")
    world.run("30:0:0")
    world.at("34:0:0").delete()
    world.run("34:10:0")
    world.run("34:20:0")
    assert decider.reports() == [("deletion_contradicted", "deleted")]


def test_a_tenant_that_outlived_its_recorded_end_is_billed_as_decided(world: World, decider: Decider) -> None:
    world.at("9:30:0").stamp("9:30:0")
    world.run("30:0:0")
    world.at("33:0:0").packages("mail", "wiki")
    world.at("58:0:0").delete()
    world.run("58:10:0")
    decider.gone("9:30:0", "58:0:0", said="alive")
    world.run("58:20:0")
    assert (decider.reports(), decider.days("mail"), decider.days("wiki")) == ([], 3, 2)
