"""What one tenant cannot be written for parks that tenant alone; what hits all of them fails the run."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from reconciler.core.plan import Limits
from reconciler.core.reasons import Reason
from tests.support.api_state import tenant
from tests.support.struck_runs import CORRECTIONS, SLACK, TRUE_BOOKS, End, Faults, Scenario, on, spares

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.ledger_rows import BillingRows

FAULTS = Faults()
PARKED = Reason.TENANT_PARKED
INTERFERING = "DROP FUNCTION sim.interfere() CASCADE"


def interferes(table: str, body: str, when: str = "BEFORE INSERT", of: str = "NEW") -> Callable[[Scenario], object]:
    """Return what puts a trigger on a table that does this to each row."""

    def arrange(scenario: Scenario) -> None:
        scenario.write(
            f"CREATE FUNCTION sim.interfere() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN {of}; END $$"
        )
        scenario.write(f"CREATE TRIGGER interfere {when} ON {table} FOR EACH ROW EXECUTE FUNCTION sim.interfere()")

    return arrange


def of(tenant: str, body: str) -> str:
    """Return PL/pgSQL that does this for one tenant alone."""
    return f"IF NEW.tenant_name = '{tenant}' THEN {body} END IF;"


def freed(statement: str = INTERFERING) -> Callable[[Scenario], None]:
    """Return what removes the cause, and asserts that the next run writes what is due."""

    def then(scenario: Scenario) -> None:
        scenario.write(statement)
        outcome = scenario.run()
        assert outcome.failure is None
        assert not [finding for finding in outcome.findings if finding.reason is PARKED]
        scenario.holds_the_truth()

    return then


def says(*parts: str) -> Callable[[Scenario], None]:
    """Return what asserts that the open report says why."""

    def then(scenario: Scenario) -> None:
        ((cause,),) = scenario.write("SELECT observed FROM reconciler.reports WHERE reason = %s", PARKED)
        assert [part for part in parts if part not in cause] == [], cause

    return then


def both(*steps: Callable[[Scenario], None]) -> Callable[[Scenario], None]:
    """Return all of these, one after the other."""

    def then(scenario: Scenario) -> None:
        for step in steps:
            step(scenario)

    return then


SKILLS, SUSPENSIONS = "public.tenant_skill_events", "public.tenant_suspension_events"
LIFECYCLES, PROOFS = "public.tenant_billing_lifecycle", "reconciler.corrections"

for name, table, whose, body, cause in (
    ("a trigger that refuses a skill event", SKILLS, "acme", "RAISE EXCEPTION 'not acme';", "not acme"),
    ("a trigger that drops a skill event", SKILLS, "acme", "RETURN NULL;", "does not show it"),
    (
        "a trigger that moves a skill event's time",
        SKILLS,
        "acme",
        "NEW.occurred_at = NEW.occurred_at + interval '1 second';",
        "another occurred_at",
    ),
    ("a trigger that turns an event round", SKILLS, "acme", "NEW.event_kind = 'disabled';", "another event_kind"),
    (
        "a trigger that bills another organisation",
        SKILLS,
        "acme",
        "NEW.zitadel_org_id = '1';",
        "another zitadel_org_id",
    ),
    ("a trigger that moves an event to another skill", SKILLS, "acme", "NEW.skill_id = 'fax';", "another key"),
    ("a trigger that takes an event's id", SKILLS, "acme", "NEW.id = 99999;", "does not show it"),
    ("a trigger that drops a suspension event", SUSPENSIONS, "cara", "RETURN NULL;", "does not show it"),
    (
        "a trigger that moves a suspension's time",
        SUSPENSIONS,
        "cara",
        "NEW.occurred_at = now();",
        "another occurred_at",
    ),
    ("a trigger that drops a lifecycle row", LIFECYCLES, "emil", "RETURN NULL;", "does not show it"),
    ("a trigger that moves a creation", LIFECYCLES, "emil", "NEW.created_at = now();", "another created_at"),
    ("a trigger that drops a proof", PROOFS, "beta", "RETURN NULL;", "did not keep the proof"),
    ("a trigger that divides by zero", SKILLS, "beta", "NEW.id = 1 / 0;", "division by zero"),
    ("a trigger that misses a table", SKILLS, "beta", "PERFORM FROM nowhere;", "nowhere"),
):
    FAULTS.add(name, interferes(table, of(whose, body)), spares(whose, PARKED), then=both(says(cause), freed()))

for name, body, cause in (
    ("a trigger that drops a stamp", "RETURN OLD;", "another deleted_at"),
    ("a trigger that moves a stamp", "NEW.deleted_at = now();", "another deleted_at"),
    ("a trigger that refuses a stamp", "RAISE EXCEPTION 'ask Rita';", "ask Rita"),
):
    FAULTS.add(
        name,
        interferes(LIFECYCLES, of("dana", body), "BEFORE UPDATE"),
        spares("dana", PARKED),
        then=both(says(cause), freed()),
    )

FAULTS.add(
    "a row that an event's trigger deletes again",
    interferes(SKILLS, of("acme", "DELETE FROM public.tenant_skill_events WHERE id = NEW.id;"), "AFTER INSERT"),
    spares("acme", PARKED),
    then=both(says("does not show it"), freed()),
)
FAULTS.add(
    "a trigger that writes a later event of the same key",
    interferes(
        SKILLS,
        "IF pg_trigger_depth() = 1 AND NEW.tenant_name = 'acme' THEN INSERT INTO public.tenant_skill_events "
        "(tenant_name, zitadel_org_id, skill_id, event_kind, occurred_at) "
        "VALUES ('acme', NEW.zitadel_org_id, NEW.skill_id, 'disabled', NEW.occurred_at); END IF;",
        "AFTER INSERT",
    ),
    spares("acme", PARKED),
    then=both(says("a later row of the same key"), freed()),
)
FAULTS.add(
    "a check on the table that one row violates",
    lambda scenario: scenario.write(f"ALTER TABLE {SKILLS} ADD CONSTRAINT quiet CHECK (skill_id <> 'voice') NOT VALID"),
    spares("acme", PARKED),
    then=both(says("quiet"), freed(f"ALTER TABLE {SKILLS} DROP CONSTRAINT quiet")),
)


def expensive(scenario: Scenario) -> None:
    """Owe so much for one tenant that no column holds it."""
    scenario.write("UPDATE platform_pricing SET tenant_monthly_fee_chf = 99999999")
    scenario.api.create(tenant("gold", []), at=on(1) - timedelta(days=200))


def cheap(scenario: Scenario) -> None:
    """Take the price back, which the next test would have too."""
    scenario.write("UPDATE platform_pricing SET tenant_monthly_fee_chf = 0")


FAULTS.add(
    "an impact beyond its column",
    expensive,
    spares("gold", PARKED),
    then=both(says("numeric field overflow"), cheap),
)

# what a trigger does only at the end of the transaction


def at_the_end(body: str) -> Callable[[Scenario], object]:
    """Return what puts a deferred constraint trigger on skill events that does this for acme."""

    def arrange(scenario: Scenario) -> None:
        scenario.write(
            "CREATE FUNCTION sim.interfere() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN {of('acme', body)} RETURN NULL; END $$"
        )
        scenario.write(
            f"CREATE CONSTRAINT TRIGGER interfere AFTER INSERT ON {SKILLS} DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION sim.interfere()"
        )

    return arrange


for name, body, cause in (
    ("a deferred trigger that refuses an event", "RAISE EXCEPTION 'not acme';", "not acme"),
    (
        "a deferred trigger that moves an event's time",
        "UPDATE public.tenant_skill_events SET occurred_at = now() WHERE id = NEW.id;",
        "another occurred_at",
    ),
):
    FAULTS.add(name, at_the_end(body), spares("acme", PARKED), then=both(says(cause), freed()))

# errors whose SQLSTATE or words are those of something else

for name, body, cause in (
    ("a trigger that cannot reach another server", "RAISE EXCEPTION 'no route' USING ERRCODE = '08001';", "no route"),
    ("a trigger that cannot write a file", "RAISE EXCEPTION 'no file' USING ERRCODE = '58030';", "no file"),
    ("a trigger with an internal error", "RAISE EXCEPTION 'inside' USING ERRCODE = 'XX000';", "inside"),
    (
        "a trigger that collides in a table of its own",
        "CREATE TEMPORARY TABLE audit (id int PRIMARY KEY); INSERT INTO audit VALUES (1), (1);",
        "audit_pkey",
    ),
):
    FAULTS.add(name, interferes(SKILLS, of("acme", body)), spares("acme", PARKED), then=both(says(cause), freed()))

# a row that is more than what was meant

for name, whose, when, body, cause in (
    ("a trigger that closes a new row", "emil", "BEFORE INSERT", "NEW.deleted_at = now();", "another deleted_at"),
    ("a trigger that moves a start", "dana", "BEFORE UPDATE", "NEW.created_at = now();", "another created_at"),
    (
        "a trigger that changes the payer",
        "dana",
        "BEFORE UPDATE",
        "NEW.zitadel_org_id = '6';",
        "another zitadel_org_id",
    ),
):
    FAULTS.add(
        name, interferes(LIFECYCLES, of(whose, body), when), spares(whose, PARKED), then=both(says(cause), freed())
    )
FAULTS.add(
    "a trigger that rewrites a proof",
    interferes(PROOFS, of("acme", "NEW.occurred_at = '2026-01-01Z';")),
    spares("acme", PARKED),
    then=both(says("did not keep the proof"), freed()),
)


@FAULTS.case("a refusal with another number in each run: one alert", End.ONE)
def _varying(scenario: Scenario) -> None:
    interferes(SKILLS, of("acme", "RAISE EXCEPTION 'row %% is refused', NEW.id;"))(scenario)
    scenario.run()
    scenario.write("""UPDATE reconciler.reports SET told = '{"somebody": "2026-03-01"}'""")
    scenario.run()
    assert scenario.write("SELECT told ? 'somebody' FROM reconciler.reports WHERE reason = %s", PARKED) == [(True,)]
    freed()(scenario)


@FAULTS.case("a few of a large backfill that cannot be written", End.NORMAL)
def _backfill(scenario: Scenario) -> None:
    """The limit counts what is listed: there is no open row yet."""
    for table in ("tenant_billing_lifecycle", "tenant_skill_events"):
        scenario.write(f"DELETE FROM {table}")  # noqa: S608 - of the tables above
    for number in range(35):
        scenario.api.create(tenant(f"t{number:02}", []), at=on(1))
    refused = "IF NEW.tenant_name IN ('t01', 't11', 't21', 't31') THEN RAISE EXCEPTION 'no'; END IF;"
    interferes(LIFECYCLES, refused)(scenario)
    outcome = scenario.run()
    assert outcome.failure is None
    assert {f.tenant for f in outcome.findings if f.reason is PARKED} == {"t01", "t11", "t21", "t31"}
    assert scenario.write("SELECT count(*) FROM tenant_billing_lifecycle") == [(36,)]
    scenario.write(INTERFERING)


@FAULTS.case("parking that takes longer than the run may", End.FAILED)
def _out_of_time(scenario: Scenario) -> None:
    interferes(SKILLS, of("acme", "PERFORM pg_sleep(0.4); RAISE EXCEPTION 'slow';"))(scenario)
    scenario.settles_at_once()
    before = scenario.state()
    scenario.deadline = 1.0
    outcome = scenario.run()
    scenario.write(INTERFERING)
    assert scenario.took < 1.0 + SLACK
    scenario.has_failed(outcome, before)


# what hits all of them

for name, arrange, message in (
    ("a trigger that refuses every skill event", interferes(SKILLS, "RAISE EXCEPTION 'closed';"), "closed"),
    ("a trigger that drops every skill event", interferes(SKILLS, "RETURN NULL;"), "does not show it"),
    ("a trigger that moves every skill event", interferes(SKILLS, "NEW.occurred_at = now();"), "another occurred_at"),
    ("a trigger that drops every proof", interferes(PROOFS, "RETURN NULL;"), "did not keep the proof"),
):

    @FAULTS.case(name, End.FAILED)
    def _everybody(scenario: Scenario, arrange: Callable[[Scenario], object] = arrange, message: str = message) -> None:
        scenario.limits = Limits(count=2, percent=0, allow_mass=frozenset(Reason))
        arrange(scenario)
        before = scenario.state()
        scenario.has_failed(scenario.run(), before, message)
        freed()(scenario)


for name, table, in_use in (
    ("skill", SKILLS, "(100, 'finn', '2871', 'mail', 'enabled', '2026-02-05T10:00:00Z')"),
    ("suspension", SUSPENSIONS, "(100, 'finn', '2871', 'resumed', '2026-02-05T10:00:00Z')"),
):

    @FAULTS.case(f"a sequence of {name} events below the ids in use", End.FAILED)
    def _sequence_behind(scenario: Scenario, table: str = table, in_use: str = in_use) -> None:
        """As after a restore without its sequences, or a switch to a logical replica."""
        scenario.write(f"INSERT INTO {table} VALUES {in_use}")  # noqa: S608 - of the rows above
        scenario.write(f"SELECT setval('{table}_id_seq', 100, false)")
        before = scenario.state()
        outcome = scenario.run()
        scenario.has_failed(outcome, before, f"{table}, 100, is in use")
        assert outcome.failure
        assert "setval" in outcome.failure.remedy
        scenario.write(f"SELECT setval('{table}_id_seq', 101)")
        assert scenario.run().failure is None
        assert set(scenario.corrections()) == CORRECTIONS


@FAULTS.case("a sequence below the ids in use, in a gap", End.NORMAL)
def _sequence_in_a_gap(scenario: Scenario) -> None:
    """Time orders the events, whatever their ids are."""
    scenario.write("UPDATE tenant_skill_events SET id = id + 1000000")
    scenario.write("SELECT setval('tenant_skill_events_id_seq', 1)")
    scenario.is_true(scenario.run())


# what was undone by hand

for name, statement in (
    ("an event taken out", "DELETE FROM tenant_skill_events WHERE tenant_name = 'acme' AND skill_id = 'voice'"),
    ("a suspension taken out", "DELETE FROM tenant_suspension_events WHERE tenant_name = 'cara'"),
    ("a stamp set back", "UPDATE tenant_billing_lifecycle SET deleted_at = NULL WHERE tenant_name = 'dana'"),
    ("a lifecycle row taken out", "DELETE FROM tenant_billing_lifecycle WHERE tenant_name = 'emil'"),
):

    @FAULTS.case(f"a correction undone by hand: {name}", End.NORMAL)
    def _undone(scenario: Scenario, statement: str = statement) -> None:
        """It is found again, and the one before says that it was taken back."""
        scenario.is_true(scenario.run())
        for _ in range(2):
            scenario.write(statement)
            assert scenario.run().failure is None
            assert latest(scenario.books()) == latest(TRUE_BOOKS)
        taken = scenario.write("SELECT id FROM reconciler.corrections WHERE taken_back_at IS NOT NULL")
        assert len(taken) == 2
        scenario.stays()


def latest(books: BillingRows) -> tuple[Any, ...]:
    """Return what holds now, whenever it began."""
    return (
        [(name, org, created, deleted is not None) for name, org, created, deleted in books.lifecycles],
        {row[:4] for row in books.skills},
        {row[:3] for row in books.suspensions},
    )


@pytest.mark.parametrize("story", FAULTS)
def test_fault(scenario: Scenario, story: Callable[[Scenario], None]) -> None:
    story(scenario)
