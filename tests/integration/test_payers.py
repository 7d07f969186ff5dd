"""A person decided who pays for which days: what runs and bills make of that."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from reconciler.core.reasons import Reason
from reconciler.db.connection import connect, transaction
from reconciler.db.usage import statement
from tests.support.api_state import ORG_LABEL, tenant

if TYPE_CHECKING:
    from reconciler.core.billing import Line
    from tests.support.system import System

YEAR = datetime.now(UTC).year - 1
DAY = timedelta(days=1)
A, B, C = "2871", "4711", "4712"


def may(day: int, hour: int = 0) -> datetime:
    return datetime(YEAR, 5, day, hour, tzinfo=UTC)


@pytest.fixture
def acme(system: System) -> System:
    """A tenant of A that has mail since 1 May, and a price for all."""
    system.api.create(tenant("acme", ["mail"], suspend=False, org=A), at=may(1))
    system.ledger.execute("INSERT INTO tenant_billing_lifecycle VALUES ('acme', %s, %s)", [A, may(1)])
    record(system, "mail", "enabled", may(1), A)
    system.ledger.execute(
        "INSERT INTO skill_pricing (skill_id, daily_price_chf) VALUES ('mail', 0.125), ('wiki', 0.125)"
    )
    system.ledger.execute("UPDATE platform_pricing SET tenant_monthly_fee_chf = 49")
    return system


def record(system: System, skill: str, kind: str, at: datetime, org: str) -> None:
    """Write an event as the portal does."""
    system.ledger.execute(
        "INSERT INTO tenant_skill_events (tenant_name, zitadel_org_id, skill_id, event_kind, occurred_at) "
        "VALUES ('acme', %s, %s, %s, %s)",
        [org, skill, kind, at],
    )


def decide(system: System, org: str, first: date | None = None, until: date | None = None) -> None:
    """Write that an organisation pays from a day on, else from 15 May on, up to the day before another."""
    system.ledger.execute(
        "INSERT INTO reconciler.payers SELECT 'cluster', 'acme', count(*), %s, %s, coalesce(%s::date, 'infinity') "
        "FROM reconciler.payers",
        [org, first or may(15).date(), until],
    )


def label(system: System, org: str | None) -> None:
    system.api.patch("acme", {"metadata": {"labels": {ORG_LABEL: org}}})


def lines(system: System, org: str | None = None) -> list[Line]:
    """Return what is billed for May."""
    with closing(connect(system.url)) as connection, transaction(connection) as cursor:
        return [*statement(cursor, date(YEAR, 5, 1), date(YEAR, 6, 1), org).lines]


def owed(system: System) -> Decimal:
    """Return what everybody owes since the beginning."""
    with closing(connect(system.url)) as connection, transaction(connection) as cursor:
        return statement(cursor, date(YEAR, 1, 1), (system.now + DAY).date()).total_chf


def found(system: System) -> list[tuple[Reason, str | None, str | None]]:
    """Return what a run finds."""
    outcome = system.run()
    assert outcome.failure is None
    return [(finding.reason, finding.recorded, finding.observed) for finding in outcome.findings]


def test_a_customer_who_moves_stays_one_tenant(acme: System) -> None:
    """A pays for 14 days, B for 17; the events stay as they are, and nothing is reported in ten runs."""
    decide(acme, B)
    label(acme, B)
    record(acme, "wiki", "enabled", may(10), A)
    record(acme, "wiki", "disabled", may(20), B)
    before = acme.ledger.execute("SELECT * FROM tenant_skill_events ORDER BY id").fetchall()

    assert [found(acme) for _ in range(10)] == [[]] * 10
    assert [(line.org, line.item, line.days, str(line.amount_chf)) for line in lines(acme)] == [
        (A, None, 14, "22.13"),
        (A, "mail", 14, "1.75"),
        (A, "wiki", 5, "0.63"),
        (B, None, 17, "26.87"),
        (B, "mail", 17, "2.13"),
        (B, "wiki", 5, "0.63"),
    ]
    assert lines(acme, B) == lines(acme)[3:]
    assert acme.ledger.execute("SELECT * FROM tenant_skill_events ORDER BY id").fetchall() == before


@pytest.mark.parametrize(
    ("from_day", "until_day", "labelled", "expected"),
    [
        pytest.param(-9, None, B, [], id="B pays, and is labelled - nothing"),
        pytest.param(-9, None, A, [(Reason.ORG_MOVED, B, A)], id="B pays, A is labelled - moved"),
        pytest.param(-9, None, C, [(Reason.ORG_MOVED, B, C)], id="B pays, C is labelled - moved"),
        pytest.param(0, 1, B, [], id="B pays today alone - nothing"),
        pytest.param(1, None, A, [], id="B pays from tomorrow on, A is labelled - nothing"),
        pytest.param(1, None, B, [(Reason.ORG_MOVED, A, B)], id="B pays from tomorrow on, and is labelled - moved"),
        pytest.param(-9, 0, A, [], id="B paid until yesterday, A is labelled - nothing"),
        pytest.param(-9, 0, B, [(Reason.ORG_MOVED, A, B)], id="B paid until yesterday, and is labelled - moved"),
        pytest.param(-9, None, None, [(Reason.ORG_UNLABELLED, A, None)], id="B pays, nobody is labelled - unlabelled"),
    ],
)
def test_the_label_is_compared_with_todays_payer(
    acme: System,
    from_day: int,
    until_day: int | None,
    labelled: str | None,
    expected: list[tuple[Reason, str | None, str | None]],
) -> None:
    today = acme.now.date()
    decide(acme, B, today + from_day * DAY, None if until_day is None else today + until_day * DAY)
    label(acme, labelled)
    assert [found(acme) for _ in range(2)] == [expected] * 2


def test_a_row_without_an_organisation_is_resolved_all_the_same(acme: System) -> None:
    acme.ledger.execute("UPDATE tenant_billing_lifecycle SET zitadel_org_id = 'unknown'")
    decide(acme, A, may(1).date())
    assert [found(acme) for _ in range(2)] == [[(Reason.ORG_RESOLVED, "unknown", A)], []]
    assert {line.org for line in lines(acme)} == {A}


NEVER = [(Reason.HISTORY_CONTRADICTS, "its organisation never paid")]


@pytest.mark.parametrize(
    ("first", "until", "org", "expected"),
    [
        pytest.param(may(15), may(17), B, [], id="who pays for days of the lifetime - nothing"),
        pytest.param(may(15), may(17), C, NEVER, id="who pays for nothing - reported"),
        pytest.param(may(1) - 9 * DAY, may(1), B, NEVER, id="who paid before the lifetime - reported"),
        pytest.param(may(1) - 9 * DAY, may(2), B, [], id="who paid up to its first day - nothing"),
    ],
)
def test_an_event_of_whoever_paid_is_no_contradiction(
    acme: System, first: datetime, until: datetime, org: str, expected: list[tuple[Reason, str]]
) -> None:
    decide(acme, B, first.date(), until.date())
    record(acme, "wiki", "enabled", may(10), A)
    record(acme, "wiki", "disabled", may(20), org)
    assert [(reason, observed) for reason, _, observed in found(acme)] == expected


def test_who_pays_after_the_lifetime_never_paid_for_it(acme: System) -> None:
    acme.api.delete("acme", at=may(21))
    acme.ledger.execute("UPDATE tenant_billing_lifecycle SET deleted_at = %s", [may(21)])
    record(acme, "mail", "disabled", may(21), B)
    decide(acme, B, may(21).date())
    assert [(reason, observed) for reason, _, observed in found(acme)] == NEVER
    decide(acme, B, may(20).date())
    assert found(acme) == []


def test_an_impact_is_rounded_for_each_payer(acme: System) -> None:
    """Of May, 1 day of A's and 17 of B's are billed before it, 1 and 2 after it: 2.26, where one line would be 2.25."""
    acme.ledger.execute("UPDATE tenant_billing_lifecycle SET created_at = %s", [may(14)])
    acme.ledger.execute("UPDATE tenant_skill_events SET occurred_at = %s", [may(14)])
    acme.ledger.execute("UPDATE platform_pricing SET tenant_monthly_fee_chf = 0")
    decide(acme, B)
    acme.api.delete("acme", at=may(17))
    acme.api.create(tenant("acme", ["mail"], suspend=False, org=B, finalizers=["f"]), at=may(14))
    acme.api.delete("acme", at=may(17))
    before = owed(acme)
    outcome = acme.run()
    assert owed(acme) == Decimal("0.38")
    assert outcome.impact_chf == owed(acme) - before
