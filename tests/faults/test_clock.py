"""Clocks that differ, and the days on which calendars go wrong: every correction keeps its place in time.

Each line of the table names a fault and how a run ends that it strikes: `pytest --collect-only -q` prints it.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from reconciler.core.model import Action
from reconciler.core.reasons import Reason
from tests.simulation.portal import SETTLE
from tests.support import faults as f
from tests.support.api_state import tenant
from tests.support.fake_api import SOURCE_UID
from tests.support.struck_runs import (
    BORN,
    CORRECTIONS,
    ORG,
    START,
    TRUE_BOOKS,
    VERIFIED,
    End,
    Faults,
    Scenario,
    shown,
    without,
)

if TYPE_CHECKING:
    from collections.abc import Callable


pytestmark = pytest.mark.usefixtures("lost_log")
"""What two lists prove alone."""


NORMAL, ONE = End.NORMAL, End.ONE
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
ENABLE = Reason.SKILL_ENABLE_UNRECORDED
APART = {"ahead": 10 * MINUTE, "behind": -10 * MINUTE}

FAULTS = Faults()


def warned(scenario: Scenario) -> list[float]:
    """Return by how many seconds the clocks were said to be apart."""
    return [line["seconds"] for line in scenario.logged if line["event"] == "clocks.differ"]


# clocks ten minutes apart

for name, ahead in APART.items():

    @FAULTS.case(f"the API server's clock ten minutes {name}", NORMAL)
    def _apart(scenario: Scenario, ahead: timedelta = ahead) -> None:
        """What happened long ago is dated as before, and people are notified."""
        scenario.clock.ahead = ahead
        outcome = scenario.run()
        assert warned(scenario) == [600]
        scenario.is_true(outcome)

    @FAULTS.case(f"a change just now, the API server's clock ten minutes {name}", NORMAL)
    def _apart_just_now(scenario: Scenario, ahead: timedelta = ahead) -> None:
        """It is not quiet by the clock that dated it; and its evidence is kept inside the interval."""
        scenario.clock.ahead = ahead
        scenario.api.patch("finn", {"spec": {"packages": ["mail", "voice"]}}, at=scenario.clock.server() - 5 * SECOND)
        outcome = scenario.run()
        assert outcome.failure is None
        assert set(scenario.corrections()) == {*CORRECTIONS, ("finn", ENABLE, "voice")}
        occurred_at, not_before, not_after, evidence = scenario.correction("finn", ENABLE, "voice")
        assert evidence == "field_manager"
        assert not_before == VERIFIED
        assert occurred_at == not_after == min(START, START - 5 * SECOND + ahead)
        assert without(scenario.books(), "finn") == without(TRUE_BOOKS, "finn")
        (rechecked,) = (line for line in scenario.logged if line["event"] == "recheck.waiting")
        assert rechecked["tenants"] == 2
        scenario.stays()

    @FAULTS.case(f"quiet since a while, the API server's clock ten minutes {name}", NORMAL)
    def _apart_and_quiet(scenario: Scenario, ahead: timedelta = ahead) -> None:
        """Quiet is judged by the clock that dated the change."""
        scenario.clock.ahead = ahead
        scenario.api.patch(
            "finn", {"spec": {"packages": ["mail", "voice"]}}, at=scenario.clock.server() - SETTLE - 5 * SECOND
        )
        assert scenario.run().failure is None
        (rechecked,) = (line for line in scenario.logged if line["event"] == "recheck.waiting")
        assert rechecked["tenants"] == 1, "dana alone, who is absent"
        assert ("finn", ENABLE, "voice") in scenario.corrections()
        scenario.stays()

    @FAULTS.case(f"a tenant made just now, the API server's clock ten minutes {name}", NORMAL)
    def _made_just_now(scenario: Scenario, ahead: timedelta = ahead) -> None:
        """It is no tenant of the future: it is billed from now on, and stays true."""
        scenario.clock.ahead = ahead
        scenario.api.create(tenant("gina", ["mail"], org=ORG))
        outcome = scenario.run()
        assert outcome.failure is None
        assert {finding.action for finding in shown(outcome, "gina")} == {Action.INSERT, Action.APPEND}
        ((created_at,),) = scenario.write("SELECT created_at FROM tenant_billing_lifecycle WHERE tenant_name = 'gina'")
        assert START + min(ahead, timedelta()) <= created_at <= START + abs(ahead)
        assert without(scenario.books(), "gina") == TRUE_BOOKS
        scenario.stays()
        scenario.clock.advance(3600)
        scenario.stays()

    @FAULTS.case(f"a deletion just now, the API server's clock ten minutes {name}", NORMAL)
    def _deleted_just_now(scenario: Scenario, ahead: timedelta = ahead) -> None:
        scenario.clock.ahead = ahead
        scenario.api.patch("finn", {"metadata": {"finalizers": ["pieced.ch/cleanup"]}}, at=BORN["finn"] + MINUTE)
        scenario.api.delete("finn")
        assert scenario.run().failure is None
        occurred_at, *_, evidence = scenario.correction("finn", Reason.DELETION_UNRECORDED)
        assert (occurred_at, evidence) == (min(START, START + ahead), "deletion")
        assert scenario.correction("finn", Reason.SKILL_OPEN_AFTER_DELETION, "mail")[0] == occurred_at
        scenario.stays()


@FAULTS.case("clocks four seconds apart", NORMAL)
def _nearly(scenario: Scenario) -> None:
    """That is nothing to tell people of."""
    scenario.clock.ahead = 4 * SECOND
    scenario.is_true(scenario.run())
    assert warned(scenario) == []


for name, effect in (("no Date header", f.date(None)), ("an unparsable Date header", f.date("half past nine"))):

    @FAULTS.case(name, NORMAL)
    def _no_date(scenario: Scenario, effect: f.Effect = effect) -> None:
        """Nobody knows the other clock: nothing counts as quiet."""
        scenario.strike(effect, f.anything, times=None)
        outcome = scenario.run()
        (rechecked,) = (line for line in scenario.logged if line["event"] == "recheck.waiting")
        assert rechecked["tenants"] == 5
        scenario.is_true(outcome)


@FAULTS.case("an event of the portal's from a clock ten minutes ahead", ONE)
def _portal_ahead(scenario: Scenario) -> None:
    """It is left alone until that time has come, and others are not."""
    scenario.skill_row("acme", "voice", "disabled", START + 10 * MINUTE)
    outcome = scenario.run()
    scenario.spared(outcome, "acme", Reason.EVENT_TIME_INVALID, Action.REPORT, scenario.books())
    scenario.clock.advance(600)
    assert scenario.run().failure is None
    # evidence of a time before what it corrects proves nothing
    occurred_at, not_before, not_after, evidence = scenario.correction("acme", ENABLE, "voice")
    assert not_before == START + 10 * MINUTE
    assert not_before <= occurred_at <= not_after
    assert evidence == "none"
    scenario.stays()


@FAULTS.case("the database's clock set back an hour", NORMAL)
def _set_back(scenario: Scenario) -> None:
    """What was verified lies in the future then: nothing is dated there, and no interval is turned round."""
    scenario.is_true(scenario.run())
    scenario.clock.turn(START - timedelta(hours=1))
    scenario.api.patch("finn", {"spec": {"packages": ["mail", "voice"]}}, at=scenario.clock.server() - 5 * MINUTE)
    assert scenario.run().failure is None
    occurred_at, not_before, not_after, _ = scenario.correction("finn", ENABLE, "voice")
    assert not_before <= occurred_at <= not_after <= scenario.clock.now
    scenario.stays()


# calendars


class Calendar:
    """Two tenants and one change, at an instant where a calendar turns."""

    def __init__(self, scenario: Scenario, changed_at: datetime) -> None:
        self.scenario = scenario
        self.changed_at = changed_at
        for table in ("tenant_billing_lifecycle", "tenant_skill_events", "reconciler.runs", "reconciler.source"):
            scenario.write(f"DELETE FROM {table}")  # noqa: S608 - of the tables above
        scenario.api.reset()
        born = changed_at - timedelta(days=40)
        scenario.clock.turn(born)
        scenario.api.create(tenant("acme", ["mail"], org=ORG), at=born)
        assert scenario.run().failure is None
        scenario.clock.turn(changed_at - timedelta(days=3))
        assert scenario.run().failure is None
        scenario.api.patch("acme", {"spec": {"packages": ["mail", "voice"]}}, at=changed_at)
        scenario.clock.turn(changed_at + timedelta(days=2))

    def invoice(self, start: date, end: date, status: str = "open") -> None:
        """Let finance close a month."""
        self.scenario.write(
            "INSERT INTO invoices (invoice_number, zitadel_org_id, period_start, period_end, due_at, subtotal_chf, "
            "vat_rate, vat_amount_chf, total_chf, status, billing_snapshot, payment_method) "
            "VALUES (%s, %s, %s, %s, %s, 0, 8.1, 0, 0, %s, '{}', 'invoice')",
            *(f"{start}", ORG, start, end, end, status),
        )

    def corrected(self) -> tuple[Any, ...]:
        """Make the run, and return when the change was dated and whether that month is closed."""
        assert self.scenario.run().failure is None
        (found,) = self.scenario.write(
            "SELECT occurred_at, evidence, closed_period FROM reconciler.corrections WHERE subject = 'voice'"
        )
        self.scenario.stays()
        return found


DECEMBER = (date(2027, 12, 1), date(2027, 12, 31))
FEBRUARY = (date(2028, 2, 1), date(2028, 2, 29))

for name, changed_at, month, closed in (
    (
        "year's end: the last second of a closed December",
        datetime(2027, 12, 31, 23, 59, 59, tzinfo=UTC),
        DECEMBER,
        True,
    ),
    ("year's end: the first second after a closed December", datetime(2028, 1, 1, tzinfo=UTC), DECEMBER, False),
    ("a leap day: the last second of a closed February", datetime(2028, 2, 29, 23, 59, 59, tzinfo=UTC), FEBRUARY, True),
    ("a leap day: its first second", datetime(2028, 2, 29, tzinfo=UTC), FEBRUARY, True),
    ("a leap day: the first second of March", datetime(2028, 3, 1, tzinfo=UTC), FEBRUARY, False),
    (
        "a day on which Bern sets its clocks forward",
        datetime(2027, 3, 28, 1, tzinfo=UTC),
        (date(2027, 3, 1), date(2027, 3, 31)),
        True,
    ),
    (
        "a month that ended in Bern, not in UTC",
        datetime(2027, 10, 31, 23, 30, tzinfo=UTC),
        (date(2027, 10, 1), date(2027, 10, 31)),
        True,
    ),
):

    @FAULTS.case(name, NORMAL)
    def _calendar(
        scenario: Scenario,
        changed_at: datetime = changed_at,
        month: tuple[date, date] = month,
        closed: bool = closed,  # noqa: FBT001 - of the table above
    ) -> None:
        calendar = Calendar(scenario, changed_at)
        calendar.invoice(*month)
        assert calendar.corrected() == (changed_at, "field_manager", closed)


@FAULTS.case("a leap day on which a tenant was made", NORMAL)
def _made_on_a_leap_day(scenario: Scenario) -> None:
    leap_day = datetime(2028, 2, 29, 12, tzinfo=UTC)
    scenario.clock.turn(leap_day + timedelta(days=366))
    scenario.api.create(tenant("gina", ["mail"], org=ORG), at=leap_day)
    assert scenario.run().failure is None
    assert ("gina", ORG, leap_day, None) in scenario.books().lifecycles
    assert ("gina", ORG, "mail", "enabled", leap_day) in scenario.books().skills
    scenario.stays()


@FAULTS.case("an offset of Bern's in the times of a tenant", NORMAL)
def _offset(scenario: Scenario) -> None:
    """Kubernetes writes UTC; what is written otherwise is the same instant."""
    scenario.mangle("cara", lambda cara: cara["status"].update(suspendedAt="2026-02-22T13:00:05+01:00"))
    scenario.is_true(scenario.run())


@FAULTS.case("another time zone of the database", NORMAL)
def _zone(scenario: Scenario) -> None:
    name = scenario.write("SELECT current_database()")[0][0]
    scenario.write(f"ALTER DATABASE {name} SET timezone = 'Pacific/Kiritimati'")
    try:
        scenario.is_true(scenario.run())
    finally:
        scenario.write(f"ALTER DATABASE {name} RESET timezone")
    assert scenario.write("SELECT identity FROM reconciler.source") == [(SOURCE_UID,)]


@pytest.mark.parametrize("story", FAULTS)
def test_fault(scenario: Scenario, story: Callable[[Scenario], None]) -> None:
    """A run that this strikes ends as the table says."""
    story(scenario)
