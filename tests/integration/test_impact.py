"""The impact of corrections, from the run to the ledger, the totals and the output."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from reconciler import ledger as record
from reconciler import run
from reconciler.core import impact
from reconciler.core.model import Action, Mode
from reconciler.core.reasons import Reason
from reconciler.db import apply, runs
from reconciler.db.connection import connect, transaction
from reconciler.db.usage import histories, statement
from reconciler.views.findings import document, summary
from tests.support.api_state import tenant

if TYPE_CHECKING:
    from tests.support.system import System

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@pytest.fixture
def priced(system: System) -> System:
    """Everything costs; the portal has lost a row of each kind."""
    record.change_platform_prices(system.ledger, tenant_monthly_fee_chf=Decimal("49.00"))
    record.set_skill_price(system.ledger, "mail", Decimal("1.20"))
    record.set_skill_price(system.ledger, "wiki", Decimal("0.35"))
    system.api.create(tenant("added", ["mail", "wiki"]), at=system.now - 40 * DAY)
    system.record("added", -40 * DAY, mail=-40 * DAY)
    system.api.create(tenant("removed", ["mail"]), at=system.now - 40 * DAY)
    system.record("removed", -40 * DAY, mail=-40 * DAY, wiki=-40 * DAY)
    system.api.create(tenant("paused", suspend=True), at=system.now - 40 * DAY)
    system.record("paused", -40 * DAY)
    system.record("gone", -40 * DAY, mail=-40 * DAY)
    system.api.create(tenant("unknown", ["wiki"], org=None), at=system.now - 40 * DAY)
    return system


def owed(system: System) -> Decimal:
    """Return what everybody owes since the beginning, by the ledger."""
    with closing(connect(system.url)) as connection, transaction(connection) as cursor:
        begins, ends = (system.now - 60 * DAY).date(), (system.now + DAY).date()
        return statement(cursor, begins, ends).total_chf


def test_a_run_that_cannot_write_shows_what_its_corrections_were_worth(priced: System) -> None:
    priced.ledger.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$; "
        "CREATE TRIGGER refuse BEFORE INSERT ON tenant_skill_events FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    outcome = priced.run()
    assert outcome.failure
    assert all(finding.impact_chf is not None for finding in outcome.findings if finding.action.writes)


def test_the_impacts_of_a_run_are_usage_after_less_usage_before(priced: System) -> None:
    before = owed(priced)
    outcome = priced.run()
    assert {finding.reason for finding in outcome.findings if finding.action.writes} == {
        Reason.SKILL_ENABLE_UNRECORDED,
        Reason.SKILL_DISABLE_UNRECORDED,
        Reason.SUSPENSION_UNRECORDED,
        Reason.DELETION_UNRECORDED,
        Reason.SKILL_OPEN_AFTER_DELETION,
        Reason.TENANT_UNRECORDED,
    }
    assert outcome.impact_chf == owed(priced) - before


@pytest.mark.parametrize("recorded", [True, False])
def test_what_a_tenant_being_deleted_used_is_billed(system: System, *, recorded: bool) -> None:
    """Its packages were never recorded: on since the creation, by the generation, and off with the deletion."""
    record.set_skill_price(system.ledger, "mail", Decimal("1.20"))
    record.set_skill_price(system.ledger, "wiki", Decimal("0.35"))
    began, ended = ((system.now - days * DAY).replace(hour=0, minute=0, second=0, microsecond=0) for days in (40, 30))
    system.api.create(tenant("ending", ["mail", "wiki"], finalizers=["f"]), at=began)
    system.api.delete("ending", at=ended)
    if recorded:
        system.record("ending", began - system.now)

    outcome = system.run()

    assert outcome.impact_chf == owed(system) == Decimal("15.50")
    assert [(f.subject, f.observed, f.impact_chf) for f in outcome.findings if f.subject] == [
        ("mail", "enabled", Decimal("12.00")),
        ("wiki", "enabled", Decimal("3.50")),
        ("mail", "disabled", Decimal("0.00")),
        ("wiki", "disabled", Decimal("0.00")),
    ]
    events = system.ledger.execute(
        "SELECT e.skill_id, e.event_kind, e.occurred_at, s.event_kind FROM tenant_skill_events e "
        "JOIN reconciler.corrections c ON c.event_id = e.id LEFT JOIN tenant_skill_events s "
        "ON s.id = c.supersedes_event_id AND s.skill_id = e.skill_id ORDER BY e.skill_id, e.occurred_at"
    ).fetchall()
    assert events == [
        (skill, *event)
        for skill in ("mail", "wiki")
        for event in (("enabled", began, None), ("disabled", ended, "enabled"))
    ]
    assert system.run().findings == ()


def test_only_needed_histories_are_read_in_batches(priced: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many tenants are corrected, a few at once; of a skill's event that skill; of a mere report nothing."""
    whole = priced.run(Mode.PLAN)
    asked: list[Any] = []

    def counted(cursor: Any, *needed: Any) -> Any:
        asked.append(needed)
        return histories(cursor, *needed)

    priced.api.create(tenant("broken", packages="mail"), at=priced.now - 40 * DAY)
    monkeypatch.setattr(impact, "TENANTS_BATCH", 2)
    monkeypatch.setattr(run, "histories", counted)
    in_parts = priced.run(Mode.PLAN)

    assert asked == [
        (set(), {("added", "wiki")}),
        ({"gone"}, {("paused", None)}),
        ({"unknown"}, {("removed", "wiki")}),
    ]
    corrected = [f for f in in_parts.findings if f.tenant != "broken"]
    assert [(f.tenant, f.reason, f.impact_chf) for f in corrected] == [
        (f.tenant, f.reason, f.impact_chf) for f in whole.findings
    ]


def test_a_plan_says_what_the_run_then_is_worth(priced: System) -> None:
    planned = priced.run(Mode.PLAN)
    done = priced.run()
    assert [(f.tenant, f.reason, f.impact_chf) for f in planned.findings] == [
        (f.tenant, f.reason, f.impact_chf) for f in done.findings
    ]


def test_every_correction_is_kept_with_its_worth(priced: System) -> None:
    outcome = priced.run()
    kept = priced.ledger.execute(
        "SELECT tenant_name, reason, impact_chf, impact_min_chf, impact_max_chf FROM reconciler.corrections ORDER BY id"
    ).fetchall()
    assert sorted(kept, key=repr) == sorted(
        (
            (f.tenant, f.reason, f.impact_chf, *(f.impact_range or (None, None)))
            for f in outcome.findings
            if f.action.writes
        ),
        key=repr,
    )
    assert any(lowest is not None for *_, lowest, _ in kept)


def test_the_totals_keep_lost_and_overcharged_apart(priced: System) -> None:
    outcome = priced.run()
    impacts = [f.impact_chf for f in outcome.findings if f.impact_chf is not None]
    assert sum(total.positive_chf for total in outcome.totals.values()) == sum(chf for chf in impacts if chf > 0)
    assert sum(total.negative_chf for total in outcome.totals.values()) == sum(chf for chf in impacts if chf < 0)


def test_a_start_recorded_late_says_what_its_days_are_worth(system: System) -> None:
    record.change_platform_prices(system.ledger, tenant_monthly_fee_chf=Decimal("49.00"))
    system.api.create(tenant("late", suspend=False), at=system.now - 40 * DAY)
    system.record("late", -20 * DAY)
    before = owed(system)
    outcome = system.run()
    (report,) = outcome.findings
    assert (report.reason, report.action) == (Reason.CREATION_MISRECORDED, Action.REPORT)
    assert outcome.impact_chf is None
    system.ledger.execute("UPDATE tenant_billing_lifecycle SET created_at = %s", [system.now - 40 * DAY])
    assert report.impact_chf == owed(system) - before > 20


def test_the_json_has_impact_as_text(priced: System) -> None:
    outcome = priced.run()
    read = json.loads("".join(document(outcome)))
    assert read["impact_chf"] == str(outcome.impact_chf)
    assert [finding["impact_chf"] for finding in read["findings"]] == [
        None if finding.impact_chf is None else str(finding.impact_chf) for finding in outcome.findings
    ]


def test_a_run_that_corrects_nothing_has_no_impact(priced: System) -> None:
    priced.run()
    again = priced.run()
    assert json.loads("".join(document(again)))["impact_chf"] == "0.00"
    assert "CHF" not in summary(again)


def test_a_tenant_of_an_unknown_organisation_is_priced_too(priced: System) -> None:
    found = {f.reason: f for f in priced.run().findings if f.tenant == "unknown"}
    assert found[Reason.TENANT_UNRECORDED].org == "unknown"
    assert found[Reason.SKILL_ENABLE_UNRECORDED].impact_chf
    assert found[Reason.ORG_UNLABELLED].impact_chf is None


def test_what_is_deferred_at_the_last_moment_is_worth_nothing_yet(
    priced: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The portal's own row arrives after the plan was priced."""

    def late(*given: Any) -> Any:
        priced.ledger.execute(
            "INSERT INTO tenant_skill_events (tenant_name, zitadel_org_id, skill_id, event_kind) "
            "VALUES ('added', '2871', 'wiki', 'enabled')"
        )
        return apply.drop_stale(*given)

    monkeypatch.setattr(runs, "drop_stale", late)
    (deferred,) = (f for f in priced.run().findings if f.tenant == "added")
    assert (deferred.action, deferred.impact_chf, deferred.impact_range) == (Action.DEFER, None, None)
