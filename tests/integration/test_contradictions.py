"""What the recorded events contradict, and what the portal's late rows disprove, found by whole runs."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from reconciler import run
from reconciler.core.model import Action, Mode, Result, Table
from reconciler.core.reasons import Reason
from reconciler.db.connection import connect, transaction
from reconciler.db.contradictions import REACH
from reconciler.db.status import read_status
from reconciler.db.usage import statement
from reconciler.views.findings import document
from tests.support.api_state import tenant

if TYPE_CHECKING:
    from uuid import UUID

    from reconciler.core.model import Finding, Outcome
    from tests.support.system import System

YEAR = datetime.now(UTC).year - 1
DAY = timedelta(days=1)
SETTLE = timedelta(seconds=60)
STATES = {"resumed": "running"}


def may(day: int, hour: int = 0) -> datetime:
    return datetime(YEAR, 5, day, hour, tzinfo=UTC)


def record(system: System, skill: str | None, kind: str, at: datetime, *, name: str = "acme", org: str = "2871") -> int:
    """Write an event as the portal does; return its id."""
    if skill is None:
        columns, values = "suspension_events (tenant_name, zitadel_org_id", [name, org, kind, at]
    else:
        columns, values = "skill_events (tenant_name, zitadel_org_id, skill_id", [name, org, skill, kind, at]
    ((id_,),) = system.ledger.execute(
        f"INSERT INTO tenant_{columns}, event_kind, occurred_at) "  # noqa: S608 - of two
        f"VALUES ({', '.join(['%s'] * len(values))}) RETURNING id".encode(),
        values,
    ).fetchall()
    number: int = id_
    return number


def guess(system: System, skill: str | None, kind: str, at: datetime, interval: tuple[datetime, datetime]) -> int:
    """Write an event as a run does that dates it by policy; return its id."""
    id_ = record(system, skill, kind, at)
    table = Table.SUSPENSION_EVENTS if skill is None else Table.SKILL_EVENTS
    reasons = {"enabled": "skill_enable_unrecorded", "disabled": "skill_disable_unrecorded"}
    values = [reasons.get(kind, "suspension_unrecorded"), skill, STATES.get(kind, kind), at, *interval, table, id_]
    system.ledger.execute(
        "INSERT INTO reconciler.corrections (run_id, reason, tenant_name, zitadel_org_id, subject, action, observed, "
        "occurred_at, not_before, not_after, evidence, event_table, event_id) "
        "VALUES (%s, %s, 'acme', '2871', %s, 'append', %s, %s, %s, %s, 'none', %s, %s)",
        [_earlier_run(system), *values],
    )
    return id_


def _earlier_run(system: System) -> UUID:
    ((id_,),) = system.ledger.execute(
        "INSERT INTO reconciler.runs (id, started_at, mode, outcome, version) "
        "VALUES (gen_random_uuid(), %s, 'run', 'corrected', '1') RETURNING id",
        [may(11)],
    ).fetchall()
    number: UUID = id_
    return number


@pytest.fixture
def acme(system: System) -> System:
    """A tenant that lives since 1 May, with prices; the cluster shows it with the skill mail."""
    system.api.create(tenant("acme", ["mail"], suspend=False), at=may(1))
    system.ledger.execute("INSERT INTO tenant_billing_lifecycle VALUES ('acme', '2871', %s)", [may(1)])
    system.ledger.execute("INSERT INTO skill_pricing (skill_id, daily_price_chf) VALUES ('mail', 1.20)")
    system.ledger.execute("UPDATE platform_pricing SET tenant_monthly_fee_chf = 31")
    return system


def billed_days(system: System, item: str | None = "mail") -> int:
    """Return the days of an item that are billed in May."""
    with closing(connect(system.url)) as db, transaction(db) as cursor:
        lines = statement(cursor, date(YEAR, 5, 1), date(YEAR, 6, 1)).lines
        return sum(line.days for line in lines if line.item == item)


def events(system: System, skill: str | None = "mail") -> list[tuple[str, int, int]]:
    """Return what the ledger has of a key, in the order of ids: kind, month, day."""
    if skill is None:
        rows = system.ledger.execute("SELECT event_kind, occurred_at FROM tenant_suspension_events ORDER BY id")
    else:
        rows = system.ledger.execute(
            "SELECT event_kind, occurred_at FROM tenant_skill_events WHERE skill_id = %s ORDER BY id", [skill]
        )
    times = [(kind, at.astimezone(UTC)) for kind, at in rows]
    return [(kind, at.month, at.day) for kind, at in times]


def of_reason(outcome: Outcome, reason: Reason) -> list[Finding]:
    return [finding for finding in outcome.findings if finding.reason is reason]


def superseded(outcome: Outcome) -> list[Finding]:
    assert outcome.failure is None
    return of_reason(outcome, Reason.CORRECTION_SUPERSEDED)


def contradicts(outcome: Outcome) -> list[Finding]:
    assert outcome.failure is None
    return of_reason(outcome, Reason.HISTORY_CONTRADICTS)


def corrections(system: System) -> list[tuple[Any, ...]]:
    return system.ledger.execute(
        "SELECT id, reason, event_id, supersedes_event_id, taken_back_at IS NOT NULL, taken_back_by "
        "FROM reconciler.corrections ORDER BY id"
    ).fetchall()


# --- a better moment ---------------------------------------------------------------------------------------------


def test_the_portals_late_row_moves_a_guess_back_in_time(acme: System) -> None:
    """Mail is on since 3 May, the row is lost and guessed at 10 May; then it comes: 29 days, not 22 or 8."""
    guessed = guess(acme, "mail", "enabled", may(10), (may(1), may(10)))
    assert billed_days(acme) == 22
    record(acme, "mail", "enabled", may(3))
    outcome = acme.run()
    (finding,) = superseded(outcome)
    assert (finding.action, finding.recorded, finding.observed) == (Action.APPEND, "enabled", "enabled")
    assert finding.moment
    assert finding.moment[:3] == (may(10), may(10), may(10))
    assert events(acme) == [("enabled", 5, 10), ("enabled", 5, 3), ("enabled", 5, 10)]
    assert billed_days(acme) == 29
    (first, own) = corrections(acme)
    assert own[1:4] == ("correction_superseded", guessed + 2, guessed)
    assert first[4:] == (True, own[0])
    assert own[4:] == (False, None)
    assert contradicts(outcome) == []


def test_a_guess_that_was_too_early_bills_until_the_true_moment(acme: System) -> None:
    acme.api.patch("acme", {"spec": {"packages": []}})
    record(acme, "mail", "enabled", may(1))
    guess(acme, "mail", "disabled", may(5), (may(1), may(25)))
    record(acme, "mail", "disabled", may(20))
    assert billed_days(acme) == 4
    (finding,) = superseded(acme.run())
    assert events(acme)[-1] == ("enabled", 5, 5)
    assert billed_days(acme) == 19
    assert (finding.recorded, finding.observed) == ("disabled", "enabled")
    assert finding.impact_chf == 15 * Decimal("1.20")
    assert finding.impact_range is None


def test_a_suspension_is_taken_back_too(acme: System) -> None:
    acme.api.patch("acme", {"spec": {"packages": [], "suspend": True}})
    guess(acme, None, "suspended", may(5), (may(1), may(25)))
    record(acme, None, "suspended", may(20))
    outcome = acme.run()
    (finding,) = superseded(outcome)
    assert finding.table is Table.SUSPENSION_EVENTS
    assert (finding.recorded, finding.observed) == ("suspended", "running")
    assert events(acme, None) == [("suspended", 5, 5), ("suspended", 5, 20), ("resumed", 5, 5)]
    assert billed_days(acme, None) == 19
    assert finding.impact_chf == Decimal(15)
    assert '"suspension_events_inserted":1' in "".join(document(outcome)).replace(" ", "").replace("\n", "")


@pytest.mark.parametrize("rows", [[3, 4], [4, 3], [3, 3]])
def test_two_late_rows_take_a_guess_back_once(acme: System, rows: list[int]) -> None:
    guess(acme, "mail", "enabled", may(10), (may(1), may(10)))
    for day in rows:
        record(acme, "mail", "enabled", may(day))
    assert len(superseded(acme.run())) == 1
    assert billed_days(acme) == 29
    assert len(events(acme)) == 4


def test_two_guesses_of_one_key_are_taken_back_together(acme: System) -> None:
    """Off guessed at 5 May, on again at 20 May; the portal's rows say 8 and 15 May."""
    record(acme, "mail", "enabled", may(1))
    guess(acme, "mail", "disabled", may(5), (may(1), may(10)))
    guess(acme, "mail", "enabled", may(20), (may(10), may(20)))
    record(acme, "mail", "disabled", may(8))
    record(acme, "mail", "enabled", may(15))
    assert len(superseded(acme.run())) == 2
    assert events(acme)[-2:] == [("enabled", 5, 5), ("enabled", 5, 20)]
    assert billed_days(acme) == 7 + 17


def test_a_second_run_writes_nothing(acme: System) -> None:
    guess(acme, "mail", "enabled", may(10), (may(1), may(10)))
    record(acme, "mail", "enabled", may(3))
    acme.run()
    written = events(acme), corrections(acme)
    for _ in range(2):
        outcome = acme.run()
        assert (outcome.result, outcome.findings) == (Result.CLEAN, ())
    look_at_all(acme)
    assert acme.run().result is Result.CLEAN
    assert (events(acme), corrections(acme)) == written


@pytest.mark.parametrize(
    ("kind", "at"),
    [
        pytest.param("enabled", may(11), id="after the interval"),
        pytest.param("enabled", may(1), id="before the interval"),
        pytest.param("disabled", may(5), id="another kind"),
    ],
)
def test_another_late_row_leaves_a_guess_alone(acme: System, kind: str, at: datetime) -> None:
    guess(acme, "mail", "enabled", may(10), (may(2), may(10)))
    record(acme, "mail", kind, at)
    assert superseded(acme.run()) == []
    assert len(events(acme)) == 2


def test_a_row_from_before_the_guess_leaves_it_alone(acme: System) -> None:
    record(acme, "mail", "enabled", may(3))
    guess(acme, "mail", "enabled", may(10), (may(1), may(10)))
    assert superseded(acme.run()) == []


def test_a_guess_that_stands_for_one_more_change_stays(acme: System) -> None:
    """On from 3 to 6 May by late rows, and on again when a run looked at 10 May: the last change was lost."""
    guess(acme, "mail", "enabled", may(10), (may(1), may(10)))
    record(acme, "mail", "enabled", may(3))
    record(acme, "mail", "disabled", may(6))
    assert superseded(acme.run()) == []
    assert billed_days(acme) == 3 + 22


def test_what_was_taken_back_by_hand_is_left_alone(acme: System) -> None:
    guessed = guess(acme, "mail", "enabled", may(10), (may(1), may(10)))
    acme.ledger.execute("DELETE FROM tenant_skill_events WHERE id = %s", [guessed])
    record(acme, "mail", "enabled", may(3))
    assert superseded(acme.run()) == []
    acme.ledger.execute("UPDATE reconciler.corrections SET taken_back_at = now()")
    look_at_all(acme)
    assert superseded(acme.run()) == []
    assert events(acme) == [("enabled", 5, 3)]


def test_a_key_that_is_written_to_waits_for_the_next_run(acme: System) -> None:
    """The cluster shows mail off: the run appends that first."""
    acme.api.patch("acme", {"spec": {"packages": []}})
    guess(acme, "mail", "enabled", may(10), (may(1), may(10)))
    record(acme, "mail", "enabled", may(3))
    first = acme.run()
    assert [finding.action for finding in superseded(first)] == [Action.DEFER]
    assert of_reason(first, Reason.SKILL_DISABLE_UNRECORDED)
    (finding,) = superseded(acme.run())
    assert finding.action is Action.APPEND
    assert superseded(acme.run()) == []


def test_a_row_that_comes_while_the_run_writes_defers_it(acme: System, monkeypatch: pytest.MonkeyPatch) -> None:
    guess(acme, "mail", "enabled", may(10), (may(1), may(10)))
    record(acme, "mail", "enabled", may(3))

    unpatched = run._add_impact  # noqa: SLF001

    def with_one_more_row(*arguments: Any) -> Any:
        record(acme, "mail", "enabled", may(2))
        return unpatched(*arguments)

    monkeypatch.setattr(run, "_add_impact", with_one_more_row)
    assert [finding.action for finding in superseded(acme.run())] == [Action.DEFER]
    assert len(events(acme)) == 3
    monkeypatch.undo()
    assert [finding.action for finding in superseded(acme.run())] == [Action.APPEND]


def test_what_a_correction_took_back_was_undone_by_no_unknown_hand(acme: System) -> None:
    guess(acme, "mail", "enabled", may(10), (may(1), may(10)))
    record(acme, "mail", "enabled", may(3))
    acme.run()
    with transaction(acme.ledger) as cursor:
        assert read_status(cursor, settle=SETTLE).taken_back_count == 0
    acme.ledger.execute(
        "UPDATE tenant_skill_events SET event_kind = 'disabled' WHERE id = (SELECT max(id) FROM tenant_skill_events)"
    )
    with transaction(acme.ledger) as cursor:
        (undone,) = read_status(cursor, settle=SETTLE).taken_back
    assert (undone.reason, undone.difference) == (
        "correction_superseded",
        "its event was changed: event_kind is disabled, not enabled",
    )


def test_a_tenant_that_is_gone_is_corrected_too(acme: System) -> None:
    acme.api.delete("acme")
    acme.ledger.execute("UPDATE tenant_billing_lifecycle SET deleted_at = %s", [may(28)])
    guess(acme, "mail", "enabled", may(10), (may(1), may(10)))
    record(acme, "mail", "enabled", may(3))
    record(acme, "mail", "disabled", may(28))
    acme.api.create(tenant("other"), at=may(1))
    acme.ledger.execute("INSERT INTO tenant_billing_lifecycle VALUES ('other', '2871', %s)", [may(1)])
    assert len(superseded(acme.run(Mode.PLAN))) == 1
    assert len(events(acme)) == 3
    (finding,) = superseded(acme.run())
    assert finding.action is Action.APPEND
    assert billed_days(acme) == 25


def test_it_counts_for_the_limits(acme: System) -> None:
    for number in range(4):
        name = f"t{number}"
        acme.api.create(tenant(name, ["mail"], suspend=False), at=may(1))
        acme.ledger.execute("INSERT INTO tenant_billing_lifecycle VALUES (%s, '2871', %s)", [name, may(1)])
        guessed = guess(acme, "mail", "enabled", may(10), (may(1), may(10)))
        acme.ledger.execute("UPDATE tenant_skill_events SET tenant_name = %s WHERE id = %s", [name, guessed])
        acme.ledger.execute("UPDATE reconciler.corrections SET tenant_name = %s WHERE event_id = %s", [name, guessed])
        record(acme, "mail", "enabled", may(3), name=name)
    record(acme, "mail", "enabled", may(1))
    outcome = acme.run()
    assert outcome.result is Result.BLOCKED
    assert "correction_superseded on 4 tenants" in str(outcome.failure)


# --- contradictions ----------------------------------------------------------------------------------------------


def look_at_all(system: System) -> None:
    """Let the next run look at all events: the last one did so more than a day ago."""
    system.ledger.execute("UPDATE reconciler.source SET events_checked_at = now() - interval '25 hours'")


@pytest.fixture
def known(acme: System) -> System:
    """The same after two runs; its history is known since 15 May, but for 20 to 22 May."""
    record(acme, "mail", "enabled", may(2))
    assert acme.run().result is Result.CLEAN
    acme.ledger.execute("UPDATE reconciler.tenants SET since = %s", [may(15)])
    acme.ledger.execute(
        "INSERT INTO reconciler.gaps SELECT identity, 'acme', %s, %s, 'changed_often' FROM reconciler.source",
        [may(20), may(22)],
    )
    assert acme.run().result is Result.CLEAN
    return acme


def test_the_same_kind_twice_in_unproven_time_is_reported(known: System) -> None:
    record(known, "mail", "enabled", may(10, 9))
    outcome = known.run()
    (finding,) = contradicts(outcome)
    assert finding[:7] == (
        Reason.HISTORY_CONTRADICTS,
        "acme",
        "2871",
        Action.REPORT,
        "mail",
        f"enabled {YEAR}-05-02 00:00, enabled {YEAR}-05-10 09:00",
        "a change in between is missing",
    )
    assert finding.interval == (may(2), may(10, 9))
    # off from the first moment on: on 2 May all the same, and on 10 May again; off just before: nothing changes
    assert finding.impact_range == (-7 * Decimal("1.20"), Decimal("0.00"))
    assert finding.impact_chf is None
    assert outcome.result is Result.DRIFT
    text = "".join(document(outcome))
    assert f'"not_before": "{YEAR}-05-02T00:00:00Z"' in text


def test_it_stays_open_until_the_ledger_no_longer_shows_it(known: System) -> None:
    second = record(known, "mail", "enabled", may(10))
    for _ in range(3):
        assert len(contradicts(known.run())) == 1
    known.ledger.execute("DELETE FROM tenant_skill_events WHERE id = %s", [second])
    assert known.run().findings == ()


def test_what_people_accept_is_no_drift(known: System) -> None:
    record(known, "mail", "enabled", may(10))
    known.ledger.execute(
        "INSERT INTO reconciler.exceptions "
        "VALUES ('acme', 'history_contradicts', 'known', 'me', now(), now() + '1 day')"
    )
    outcome = known.run()
    assert outcome.result is Result.CLEAN
    assert contradicts(outcome)[0].accepted_until


def test_in_time_that_is_proven_a_row_that_stands_twice_is_none(known: System) -> None:
    record(known, "mail", "disabled", may(16))
    record(known, "mail", "disabled", may(18))
    record(known, "mail", "enabled", may(24))
    assert known.run().findings == ()


def test_a_gap_is_time_that_is_not_proven(known: System) -> None:
    record(known, "mail", "disabled", may(16))
    record(known, "mail", "disabled", may(21))
    record(known, "mail", "enabled", may(24))
    (finding,) = contradicts(known.run())
    assert finding.interval == (may(20), may(21))
    assert finding.impact_range == (Decimal("1.20"), Decimal("1.20"))


def test_a_gap_that_a_run_found_is_looked_at_by_the_next(known: System) -> None:
    record(known, "mail", "disabled", may(24))
    record(known, "mail", "disabled", may(26))
    record(known, "mail", "enabled", may(28))
    assert known.run().findings == ()
    known.ledger.execute("UPDATE reconciler.gaps SET until_at = now()")
    (finding,) = contradicts(known.run())
    assert finding.interval == (may(24), may(26))


def test_the_first_event_of_a_lifetime_cannot_turn_anything_off(known: System) -> None:
    record(known, "wiki", "disabled", may(10))
    record(known, None, "resumed", may(11))
    found = contradicts(known.run())
    assert [(one.subject, one.recorded, one.interval) for one in found] == [
        (None, f"created {YEAR}-05-01 00:00, resumed {YEAR}-05-11 00:00", (may(1), may(11))),
        ("wiki", f"created {YEAR}-05-01 00:00, disabled {YEAR}-05-10 00:00", (may(1), may(10))),
    ]
    # suspended from its creation on, but for 11 May: ten days for nothing
    assert found[0].impact_range == (Decimal("-10.00"), Decimal("0.00"))
    assert found[1].impact_range == (Decimal("0.00"), Decimal("0.00"))


def test_an_event_outside_of_every_lifetime_is_reported(known: System) -> None:
    record(known, "wiki", "enabled", may(1) - DAY)
    record(known, "wiki", "disabled", may(2))
    (finding,) = contradicts(known.run())
    assert (finding.subject, finding.observed) == ("wiki", "it lies outside of every lifetime")
    assert (finding.interval, finding.impact_range) == (None, None)


@pytest.mark.parametrize("org", ["4711", "unknown"])
def test_a_row_of_an_organisation_that_never_paid_is_reported(known: System, org: str) -> None:
    record(known, "wiki", "enabled", may(16), org=org)
    record(known, "wiki", "disabled", may(17))
    found = contradicts(known.run())
    assert [one.observed for one in found] == ["its organisation never paid"] * (org != "unknown")


def test_a_tenant_whose_organisation_has_moved_has_its_own_report(known: System) -> None:
    known.api.patch("acme", {"metadata": {"labels": {"pieced.ch/zitadel-org-id": "4711"}}})
    record(known, "wiki", "enabled", may(16), org="4711")
    record(known, "wiki", "disabled", may(17), org="4711")
    for _ in range(2):
        assert Counter(finding.reason for finding in known.run().findings) == {Reason.ORG_MOVED: 1}


def test_events_without_a_lifetime_have_their_own_report(known: System) -> None:
    record(known, "mail", "disabled", may(10), name="nobody")
    assert Counter(finding.reason for finding in known.run().findings) == {Reason.EVENTS_WITHOUT_TENANT: 1}


def test_each_lifetime_of_a_name_is_looked_at_by_itself(known: System) -> None:
    """Two lifetimes before: in one everything alternates, in the other something is missing."""
    for begins, ends in ((-30, -20), (-19, -10)):
        known.ledger.execute(
            "INSERT INTO reconciler.closed_lives VALUES ('acme', '2871', %s, %s, now(), 'me', 'it came back')",
            [may(1) + begins * DAY, may(1) + ends * DAY],
        )
    record(known, "wiki", "enabled", may(1) - 30 * DAY)
    record(known, "wiki", "disabled", may(1) - 20 * DAY)
    record(known, "wiki", "enabled", may(1) - 19 * DAY)
    assert contradicts(known.run()) == []
    record(known, "chat", "enabled", may(1) - 25 * DAY)
    record(known, "chat", "disabled", may(1) - 12 * DAY)
    (finding,) = contradicts(known.run())
    assert finding.subject == "chat"
    assert finding.interval == (may(1) - 19 * DAY, may(1) - 12 * DAY)


def test_old_rows_are_looked_at_once_a_day(known: System) -> None:
    record(known, "mail", "enabled", may(10))
    known.ledger.execute(
        "UPDATE reconciler.source SET skill_events_seen = (SELECT max(id) FROM tenant_skill_events), "
        "events_near = (SELECT concat(count(*), ':', sum(id), ' 0:') FROM tenant_skill_events)"
    )
    assert known.run().findings == ()
    look_at_all(known)
    assert len(contradicts(known.run())) == 1


def test_a_row_that_is_committed_after_a_later_one_is_looked_at(known: System) -> None:
    with closing(connect(known.url)) as slow:
        slow.autocommit = False
        slow.execute(
            "INSERT INTO tenant_skill_events (tenant_name, zitadel_org_id, skill_id, event_kind, occurred_at) "
            "VALUES ('acme', '2871', 'mail', 'enabled', %s)",
            [may(10)],
        )
        record(known, "wiki", "enabled", may(16))
        record(known, "wiki", "disabled", may(17))
        assert known.run().findings == ()
        slow.commit()
    assert len(contradicts(known.run())) == 1


def test_a_plan_does_not_move_what_was_seen(known: System) -> None:
    record(known, "mail", "enabled", may(10))
    before = known.ledger.execute("SELECT skill_events_seen, events_near FROM reconciler.source").fetchall()
    assert len(contradicts(known.run(Mode.PLAN))) == 1
    assert known.ledger.execute("SELECT skill_events_seen, events_near FROM reconciler.source").fetchall() == before
    known.run()
    after = known.ledger.execute("SELECT skill_events_seen, events_near FROM reconciler.source").fetchall()
    assert after[0][0] > before[0][0]
    assert after[0][0] < REACH


@pytest.mark.parametrize("at", ["-infinity", "4714-11-24 00:00:00+00 BC", "294276-12-31 00:00:00+00", "infinity"])
def test_a_time_out_of_range_stops_no_look(known: System, at: str) -> None:
    """Whatever time a row has: of an event, and of a lifetime."""
    known.ledger.execute(
        "INSERT INTO tenant_skill_events (tenant_name, zitadel_org_id, skill_id, event_kind, occurred_at) "
        "SELECT 'acme', '2871', 'wiki', 'enabled', %s::timestamptz FROM generate_series(1, 2)",
        [at],
    )
    look_at_all(known)
    assert known.run().failure is None
    known.ledger.execute("INSERT INTO tenant_billing_lifecycle VALUES ('old', '2871', %s, %s)", [at, at])
    record(known, "mail", "enabled", may(10), name="old")
    look_at_all(known)
    assert known.run().failure is None
