"""A closed month stays closed: what a closing keeps, what changes it, and what the next one holds."""

from __future__ import annotations

import csv
import json
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from io import StringIO
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from psycopg import sql

from reconciler.core.closing import PriceUncertain
from reconciler.core.reasons import Reason
from reconciler.db import closing as closings
from reconciler.db.apply import Author
from reconciler.db.certificate import NotVerified, read_certificate
from reconciler.db.connection import brief_transaction, snapshot
from reconciler.db.decisions import DecisionDenied
from reconciler.db.lifetimes import record_lifetime
from reconciler.db.payers import record_payer
from reconciler.db.put_right import record, retract
from reconciler.db.usage import statement
from tests.support.api_state import tenant
from tests.support.command import Ran, invoke

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from reconciler.core.billing import LineChange
    from reconciler.core.closing import Closing
    from reconciler.core.model import Finding
    from tests.conftest import Psql
    from tests.support.system import System

MAY, JUNE = date(2026, 5, 1), date(2026, 6, 1)
APRIL = datetime(2026, 4, 1, tzinfo=UTC)
AUTHOR = Author("finance", "the invoices of May")
SETTLE = timedelta(minutes=1)
A, B = "2871", "4711"
ROOT = Path(__file__).parents[2]


def may(day: float) -> datetime:
    return datetime(2026, 5, 1, tzinfo=UTC) + timedelta(days=day - 1)


class Ledger:
    """Acme of A, since 1 April 2026 and without a skill now: the fee is 49.00 a month, mail 1.20 a day."""

    def __init__(self, system: System, name: str = "acme", org: str = A) -> None:
        self.system = system
        self.execute = system.ledger.execute
        self.execute("UPDATE platform_pricing SET tenant_monthly_fee_chf = 49, updated_at = %s", [APRIL])
        self.price("mail", "1.20", APRIL)
        self.create(name, org)

    def create(self, name: str, org: str) -> None:
        self.system.api.create(tenant(name, org=org, suspend=False), at=APRIL)
        self.execute("INSERT INTO tenant_billing_lifecycle VALUES (%s, %s, %s)", [name, org, APRIL])

    def price(self, skill: str, chf: str, at: datetime) -> None:
        self.execute(
            "INSERT INTO skill_pricing VALUES (%(skill)s, %(chf)s, %(at)s, %(at)s) ON CONFLICT (skill_id) "
            "DO UPDATE SET daily_price_chf = %(chf)s, updated_at = %(at)s",
            {"skill": skill, "chf": chf, "at": at},
        )

    def raise_fee(self, chf: str, at: datetime) -> None:
        self.execute("UPDATE platform_pricing SET tenant_monthly_fee_chf = %s, updated_at = %s", [chf, at])

    def was_on(self, since: float, until: float, skill: str = "mail", name: str = "acme", org: str = A) -> list[int]:
        """Write the portal's rows of a skill that was on."""
        return [
            self.execute(
                "INSERT INTO tenant_skill_events (tenant_name, zitadel_org_id, skill_id, event_kind, occurred_at) "
                "VALUES (%s, %s, %s, %s, %s) RETURNING id",
                [name, org, skill, kind, may(day)],
            ).fetchall()[0][0]
            for kind, day in (("enabled", since), ("disabled", until))
        ]

    def invoice(self, org: str, chf: str, lines: Mapping[str, str], number: str | None = None) -> None:
        self.execute(
            "INSERT INTO invoices (invoice_number, zitadel_org_id, period_start, period_end, due_at, subtotal_chf, "
            "vat_rate, vat_amount_chf, total_chf, billing_snapshot, payment_method) "
            "VALUES (%s, %s, '2026-05-01', '2026-05-31', '2026-07-01', %s, 8.10, 0, 0, '{}', 'invoice')",
            [number or f"2026-{org}", org, chf],
        )
        for kind, amount in lines.items():
            self.execute(
                "INSERT INTO invoice_lines (invoice_id, kind, description, unit_price_chf, amount_chf) "
                "SELECT id, %s, '', %s, %s FROM invoices WHERE zitadel_org_id = %s",
                [kind, amount, amount, org],
            )

    def close(self, org: str | None = None, month: date = MAY, **options: Any) -> Closing:
        with brief_transaction(self.system.url) as cursor:
            return closings.close(cursor, month, org=org, author=AUTHOR, settle=SETTLE, **options)

    def due(self, **only: str) -> list[LineChange]:
        with snapshot(self.system.url) as cursor:
            return [*closings.due(cursor, MAY, **only).lines]

    def held(self, number: int) -> list[LineChange]:
        with snapshot(self.system.url) as cursor:
            return [*closings.closed(cursor, MAY, number).lines]

    def billed(
        self, first: date = MAY, until: date = JUNE, org: str | None = None
    ) -> list[tuple[str, str | None, str]]:
        with snapshot(self.system.url) as cursor:
            return [(line.org, line.item, str(line.amount_chf)) for line in statement(cursor, first, until, org).lines]

    def reported(self) -> list[Finding]:
        """Return what a run finds of closed months; it must succeed, and find nothing else."""
        outcome = self.system.run()
        assert outcome.failure is None
        assert {finding.reason for finding in outcome.findings} <= {Reason.CLOSED_MONTH_CHANGED}
        return list(outcome.findings)


@pytest.fixture
def ledger_of_may(system: System) -> Ledger:
    return Ledger(system)


@pytest.fixture
def command(system: System, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    return lambda *words: invoke(monkeypatch, capsys, *words, environment={"DATABASE_URL": system.url})


@pytest.fixture
def closed(ledger_of_may: Ledger) -> Ledger:
    """May is closed, with 20 days of mail: 49.00 and 24.00."""
    ledger_of_may.was_on(1, 21)
    assert ledger_of_may.reported() == []
    assert ledger_of_may.close().total_chf == Decimal("73.00")
    return ledger_of_may


def said(changes: list[LineChange]) -> list[tuple[str, str | None, int, str]]:
    """Return the organisation, the item, the difference in days and that in CHF of each line."""
    return [(each.org, each.item, each.days_after - each.days_before, str(each.difference_chf)) for each in changes]


# --- what a closing holds ----------------------------------------------------------------------------------------


def test_a_first_closing_holds_every_line(closed: Ledger) -> None:
    assert said(closed.held(1)) == [(A, None, 31, "49.00"), (A, "mail", 20, "24.00")]


def test_the_next_closing_holds_the_difference_at_kept_prices(closed: Ledger) -> None:
    """Three late days come, and mail costs 2.00 since June."""
    closed.price("mail", "2.00", may(35))
    closed.was_on(25, 28)
    assert said(closed.due()) == [(A, "mail", 3, "3.60")]
    done = closed.close()
    assert (done.number, done.total_chf, done.lines) == (2, Decimal("3.60"), 1)
    assert said(closed.held(2)) == [(A, "mail", 3, "3.60")]
    assert closed.due() == []


def test_to_close_again_without_a_change_writes_nothing(closed: Ledger) -> None:
    done = closed.close()
    assert (done.adds, done.written) == (False, False)
    assert closed.execute("SELECT count(*) FROM reconciler.closings").fetchall() == [(1,)]


def test_a_dry_run_writes_nothing(ledger_of_may: Ledger) -> None:
    ledger_of_may.reported()
    done = ledger_of_may.close(dry_run=True)
    assert (done.adds, done.written, done.total_chf) == (True, False, Decimal("49.00"))
    assert ledger_of_may.execute("SELECT count(*) FROM reconciler.closings").fetchall() == [(0,)]


def test_a_fraction_of_a_rappen_is_owed_once(ledger_of_may: Ledger) -> None:
    """One day of 0.33333 is 0.33, two are 0.67: the adjustment is 0.34."""
    ledger_of_may.price("wiki", "0.33333", APRIL)
    ledger_of_may.was_on(3, 3.5, "wiki")
    ledger_of_may.reported()
    ledger_of_may.close()
    ledger_of_may.was_on(9, 9.5, "wiki")
    assert said(ledger_of_may.due()) == [(A, "wiki", 1, "0.34")]


def test_a_line_that_is_gone_is_credited(closed: Ledger) -> None:
    (row, *_) = closed.execute("SELECT min(id) FROM tenant_skill_events").fetchall()
    with brief_transaction(closed.system.url) as cursor:
        retract(cursor, f"skill:{row[0]}", author=AUTHOR)
    assert said(closed.due()) == [(A, "mail", -20, "-24.00")]
    closed.close()
    assert closed.billed() == [(A, None, "49.00")]


def test_a_month_that_no_run_has_proved_is_refused(ledger_of_may: Ledger) -> None:
    with pytest.raises(NotVerified):
        ledger_of_may.close()
    ledger_of_may.reported()
    with pytest.raises(NotVerified, match="verified only up to"):
        ledger_of_may.close(month=ledger_of_may.system.now.date().replace(day=1))


# --- for whom ----------------------------------------------------------------------------------------------------


def test_only_what_was_closed_can_have_changed(closed: Ledger) -> None:
    """B is closed with everybody; of an organisation alone, only that one is."""
    closed.execute("DELETE FROM reconciler.closed_lines; DELETE FROM reconciler.closings")
    closed.create("beta", B)
    closed.reported()
    closed.close(org=A)
    closed.was_on(3, 5, name="beta", org=B)
    assert closed.reported() == []
    assert said(closed.due()) == [(B, None, 31, "49.00"), (B, "mail", 2, "2.40")]
    closed.was_on(25, 26)
    assert [(each.tenant, each.subject) for each in closed.reported()] == [("acme", "2026-05")]
    assert closed.close().total_chf == Decimal("52.60")
    closed.was_on(9, 10, name="beta", org=B)
    assert [(each.tenant, each.subject) for each in closed.reported()] == [("beta", "2026-05")]


def test_a_month_is_closed_for_who_appears_later(closed: Ledger) -> None:
    closed.create("beta", B)
    (report,) = closed.reported()
    assert (report.tenant, report.subject, report.impact_chf) == ("beta", "2026-05", Decimal("49.00"))


def test_a_payer_moves_lines_across_a_closed_month(closed: Ledger) -> None:
    """The sum is 0.00, and every line has changed; no event has."""
    assert closed.reported() == []
    with brief_transaction(closed.system.url) as cursor:
        done = record_payer(cursor, "acme", B, since=MAY, until=None, author=AUTHOR)
    closed.system.api.patch("acme", {"metadata": {"labels": {"pieced.ch/zitadel-org-id": B}}})
    (report,) = (each for each in closed.system.run().findings if each.reason is Reason.CLOSED_MONTH_CHANGED)
    assert (report.impact_chf, f"; by {done.number}" in (report.observed or "")) == (Decimal("0.00"), True)
    assert said(closed.due()) == [
        (A, None, -31, "-49.00"),
        (A, "mail", -20, "-24.00"),
        (B, None, 31, "49.00"),
        (B, "mail", 20, "24.00"),
    ]


# --- prices ------------------------------------------------------------------------------------------------------


def test_a_fee_that_was_raised_before_closing_needs_a_word(ledger_of_may: Ledger) -> None:
    ledger_of_may.reported()
    ledger_of_may.raise_fee("59.00", may(32))
    with pytest.raises(PriceUncertain, match=r"fee is 59.00 today, in a row that was changed at 2026-06-01"):
        ledger_of_may.close()
    assert ledger_of_may.close(prices={"fee": Decimal("49.00")}).total_chf == Decimal("49.00")
    assert ledger_of_may.billed() == [(A, None, "49.00")]


def test_a_price_that_was_removed_needs_a_word(ledger_of_may: Ledger) -> None:
    """April is closed with the price of mail; the row is gone since 20 May."""
    ledger_of_may.was_on(1, 21)
    ledger_of_may.reported()
    ledger_of_may.close(month=date(2026, 4, 1))
    ledger_of_may.execute("DELETE FROM skill_pricing")
    with pytest.raises(PriceUncertain, match=r"mail was 1.20000 in the last closed month, and has no price today"):
        ledger_of_may.close()
    assert ledger_of_may.close(prices={"mail": Decimal("1.20")}).total_chf == Decimal("73.00")


def test_a_skill_that_was_on_without_a_price_is_named(ledger_of_may: Ledger) -> None:
    ledger_of_may.was_on(1, 21, "wiki")
    ledger_of_may.reported()
    done = ledger_of_may.close()
    assert (done.unpriced, done.total_chf) == (("wiki",), Decimal("49.00"))
    later = ledger_of_may.close(prices={"wiki": Decimal("0.50")})
    assert (later.number, later.total_chf) == (2, Decimal("10.00"))


@pytest.mark.parametrize(
    ("changed", "given", "refused"),
    [
        pytest.param("nothing", {}, False, id="nothing - kept"),
        pytest.param("fee", {}, True, id="fee after the month began - refused"),
        pytest.param("fee", {"fee": None}, False, id="fee, today's accepted - kept"),
        pytest.param("fee", {"vat": Decimal("8.10")}, True, id="fee, the VAT rate given - refused"),
        pytest.param("fee", {"mail": None}, True, id="fee, another price given - refused"),
        pytest.param("mail", {}, True, id="skill changed after the month began - refused"),
        pytest.param("mail", {"mail": None}, False, id="skill, today's accepted - kept"),
        pytest.param("new", {}, True, id="skill priced after the month began - refused"),
        pytest.param("no row", {"fee": Decimal(49)}, True, id="no row of prices, fee given - VAT refused"),
        pytest.param("no row", {"fee": Decimal(49), "vat": Decimal("8.1")}, False, id="no row, both given - kept"),
    ],
)
def test_a_price_that_may_not_have_held_is_refused(
    ledger_of_may: Ledger,
    changed: str,
    given: dict[str, Decimal | None],
    refused: bool,  # noqa: FBT001 - of the table above
) -> None:
    match changed:
        case "fee":
            ledger_of_may.raise_fee("59.00", may(2))
        case "mail" | "new":
            ledger_of_may.price(changed, "2.00", may(2))
        case "no row":
            ledger_of_may.execute("DELETE FROM platform_pricing")
        case _:
            pass
    ledger_of_may.reported()
    if refused:
        with pytest.raises(PriceUncertain):
            ledger_of_may.close(prices=given)
    else:
        assert ledger_of_may.close(prices=given).written


def test_later_reckoning_has_the_kept_prices(closed: Ledger) -> None:
    """Of a part of the month, and of the months around it, too."""
    closed.price("mail", "2.00", may(35))
    closed.raise_fee("99.00", may(35))
    assert closed.billed(MAY, date(2026, 5, 11)) == [(A, None, "15.81"), (A, "mail", "12.00")]
    assert closed.billed(date(2026, 4, 1), JUNE) == [(A, None, "99.00"), (A, None, "49.00"), (A, "mail", "24.00")]
    with brief_transaction(closed.system.url) as cursor:
        done = record(cursor, "acme", "mail", "enabled", since=may(25), until=may(35), author=AUTHOR, dry_run=True)
    assert [str(line.difference_chf) for line in done.changes] == ["8.40", "6.00"]


# --- what is not proven ------------------------------------------------------------------------------------------


def test_a_gap_is_accepted_up_to_the_end_of_the_month(ledger_of_may: Ledger) -> None:
    ledger_of_may.reported()
    ledger_of_may.execute(
        "INSERT INTO reconciler.gaps SELECT identity, 'acme', '2026-05-20Z', '2026-06-10Z', 'changed_often' "
        "FROM reconciler.source"
    )
    with pytest.raises(NotVerified, match=r"acme changed_often"):
        ledger_of_may.close()
    assert [each.tenant for each in ledger_of_may.close(accepted=["acme"]).accepted] == ["acme"]
    ledger_of_may.was_on(3, 5)
    assert (done := ledger_of_may.close()).written
    assert done.accepted == ()
    for first, until, is_proven in ((MAY, JUNE, True), (JUNE, date(2026, 7, 1), False), (MAY, date(2026, 6, 2), False)):
        with snapshot(ledger_of_may.system.url) as cursor:
            assert read_certificate(cursor, first, until, settle=SETTLE).is_proven is is_proven


def test_a_cause_is_accepted_for_all_that_it_refuses(ledger_of_may: Ledger) -> None:
    ledger_of_may.create("beta", B)
    ledger_of_may.reported()
    ledger_of_may.execute("UPDATE reconciler.tenants SET since = '2026-06-01Z'")
    with pytest.raises(NotVerified, match=r"known_since.*acme.*beta"):
        ledger_of_may.close()
    done = ledger_of_may.close(accepted=["known_since"])
    assert [(each.tenant, each.cause) for each in done.accepted] == [("acme", "known_since"), ("beta", "known_since")]


def test_that_a_month_is_not_over_cannot_be_accepted(ledger_of_may: Ledger) -> None:
    with pytest.raises(NotVerified):
        ledger_of_may.close(accepted=["unverified", "acme"])


# --- what runs report --------------------------------------------------------------------------------------------


def test_a_late_row_is_reported_until_it_is_taken_in(closed: Ledger) -> None:
    ids = closed.was_on(25, 28)
    (report,) = closed.reported()
    assert (report.tenant, report.org, report.subject, report.recorded) == ("acme", A, "2026-05", "24.00 CHF")
    assert report.observed == (
        f"27.60 CHF (+3.60): mail of {A}, 20 to 23 days, 24.00 to 27.60 CHF; by skill:{ids[0]}, skill:{ids[1]}"
    )
    assert closed.reported() == [report]
    closed.close()
    assert closed.reported() == []


def test_a_row_from_before_the_month_changes_it_too(closed: Ledger) -> None:
    """A skill that was on since 28 April is on all of May."""
    closed.price("wiki", "1.00", APRIL)
    closed.close(prices={"wiki": None})
    closed.was_on(-2, 32, "wiki")
    assert [each.impact_chf for each in closed.reported()] == [Decimal("31.00")]


def test_a_changed_month_stays_proven_and_can_be_closed(closed: Ledger) -> None:
    closed.was_on(25, 28)
    closed.reported()
    with snapshot(closed.system.url) as cursor:
        assert read_certificate(cursor, MAY, JUNE, settle=SETTLE).is_proven
    assert closed.execute("SELECT unverified FROM reconciler.runs ORDER BY started_at DESC LIMIT 1").fetchall() == [
        ([],)
    ]
    assert closed.close().number == 2


def test_a_lifetime_that_moves_changes_closed_months(closed: Ledger) -> None:
    with brief_transaction(closed.system.url) as cursor:
        record_lifetime(
            cursor, "acme", "gone", since=may(11), until=may(21), org=None, author=AUTHOR, lookup=None, dry_run=False
        )
    (report,) = (each for each in closed.system.run().findings if each.reason is Reason.CLOSED_MONTH_CHANGED)
    assert report.impact_chf == Decimal("33.19") + Decimal("12.00") - Decimal("73.00")


def test_a_change_without_a_new_row_is_found_within_a_day(closed: Ledger) -> None:
    """Somebody removes rows by hand: no id shows it."""
    assert closed.reported() == []
    closed.execute("DELETE FROM tenant_skill_events")
    assert closed.reported() == []
    closed.execute(
        "UPDATE reconciler.source "
        "SET closed_months_checked = jsonb_build_object('2026-05-01', now() - '25 h'::interval)"
    )
    assert [each.impact_chf for each in closed.reported()] == [Decimal("-24.00")]


def test_a_price_changes_no_closed_month(closed: Ledger) -> None:
    closed.raise_fee("99.00", may(40))
    closed.execute("DELETE FROM skill_pricing")
    closed.execute("UPDATE reconciler.source SET closed_months_checked = '{}'")
    assert closed.reported() == []
    assert closed.billed() == [(A, None, "49.00"), (A, "mail", "24.00")]


# --- invoices ----------------------------------------------------------------------------------------------------


def test_an_invoice_that_was_sent_before_shows_what_to_adjust(ledger_of_may: Ledger) -> None:
    ledger_of_may.invoice(A, "150.00", {"tenant_monthly": "49.00", "tenant_setup": "99.00", "skill_usage": "2.00"})
    ledger_of_may.was_on(1, 21)
    ledger_of_may.reported()
    (total,) = ledger_of_may.close().totals
    assert ([one.number for one in total.invoices], total.not_invoiced) == ([f"2026-{A}"], Decimal("22.00"))


def test_an_invoice_of_a_month_without_lines_is_shown(ledger_of_may: Ledger) -> None:
    ledger_of_may.invoice(B, "49.00", {})
    ledger_of_may.reported()
    totals = {each.org: each.not_invoiced for each in ledger_of_may.close().totals}
    assert totals == {A: None, B: Decimal("-49.00")}


# --- reading -----------------------------------------------------------------------------------------------------


def test_usage_shows_a_closed_month_as_it_was_closed(closed: Ledger, command: Callable[..., Ran]) -> None:
    ids = closed.was_on(25, 28)
    assert closed.billed() == [(A, None, "49.00"), (A, "mail", "24.00")]
    shown = command("usage", "--month", "2026-05")
    assert (
        "2026-05 is shown as it was closed, in 1 closing.\n"
        "CHF +3.60 in 1 line of 2026-05 is not taken in yet: `reconciler usage --month 2026-05 --changes` shows it.\n"
        "VAT (8.10 %), setup fees, AI usage and messages are not included. Days are UTC days.\n"
    ) in shown.out
    changes = command("usage", "--month", "2026-05", "--changes")
    assert f"skill:{ids[0]}, skill:{ids[1]}" in changes.out
    assert "CHF +3.60 before VAT in 1 line of the next closing of 2026-05: the customers owe it." in changes.out


def test_what_customers_owe_and_are_owed_is_told_apart(closed: Ledger, command: Callable[..., Ran]) -> None:
    with brief_transaction(closed.system.url) as cursor:
        record_payer(cursor, "acme", B, since=MAY, until=JUNE, author=AUTHOR)
    said = "CHF +0.00 before VAT in 4 lines of the next closing of 2026-05: customers owe 73.00, and are owed 73.00."
    assert said in command("usage", "--month", "2026-05", "--changes").out


def test_each_format_tells_vat_time_zone_and_what_is_missing(closed: Ledger, command: Callable[..., Ran]) -> None:
    closed.invoice(A, "73.00", {})
    ids = closed.was_on(25, 28)
    month = ("usage", "--month", "2026-05")
    (row,) = csv.DictReader(StringIO(command(*month, "--changes", "--output", "csv").out))
    assert row == {
        "org": A,
        "tenant": "acme",
        "item": "mail",
        "month": "2026-05-01",
        "days_before": "20",
        "days_after": "23",
        "price_chf": "1.20000",
        "chf_before": "24.00",
        "chf_after": "27.60",
        "difference_chf": "3.60",
        "vat_rate": "8.10",
        "causes": f"skill:{ids[0]} skill:{ids[1]}",
        "invoices": f"2026-{A}",
        "time_zone": "UTC",
        "not_included": "setup fees, AI usage and messages",
    }
    for words in ((*month,), (*month, "--changes"), (*month, "--closing", "1")):
        shown = json.loads(command(*words, "--output", "json").out)
        assert (shown["vat_rate"], shown["time_zone"]) == ("8.10", "UTC")
        assert shown["not_included"] == "setup fees, AI usage and messages"
        first = next(csv.DictReader(StringIO(command(*words, "--output", "csv").out)))
        assert (first["vat_rate"], first["time_zone"]) == ("8.10", "UTC")


@pytest.mark.usefixtures("closed")
def test_a_closing_that_is_not_there_is_refused(command: Callable[..., Ran]) -> None:
    shown = command("usage", "--month", "2026-05", "--closing", "2")
    assert (shown.code, "2026-05 has no closing 2: the last one is 1" in shown.err) == (3, True)


def test_the_command_closes_and_says_so(ledger_of_may: Ledger, command: Callable[..., Ran]) -> None:
    ledger_of_may.reported()
    words = ("close", "2026-05", "--note", "invoices", "--by", "finance")
    dry = command(*words, "--dry-run")
    assert "Nothing is written: this is a dry run. It would close 2026-05, number 1, for everybody" in dry.out
    done = command(*words, "--output", "json")
    assert (done.code, json.loads(done.out)["total_chf"]) == (0, "49.00")
    again = command(*words)
    assert "2026-05 is closed for everybody, and nothing has changed since: nothing was written." in again.out


# --- corrections in closed months --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("org", "moved", "is_closed"),
    [
        pytest.param(None, False, True, id="closed for everybody - closed"),
        pytest.param(A, False, True, id="closed for who paid - closed"),
        pytest.param(B, False, False, id="closed for another - not"),
        pytest.param(A, True, False, id="closed for the label, another had paid - not"),
        pytest.param(B, True, True, id="closed for who had paid, not for the label - closed"),
    ],
)
def test_a_correction_is_closed_if_a_day_of_its_payer_is(
    ledger_of_may: Ledger,
    org: str | None,
    moved: bool,  # noqa: FBT001 - of the table above
    is_closed: bool,  # noqa: FBT001
) -> None:
    """The portal has lost that mail was turned on, in April: it changes May, in which it does not lie."""
    if moved:
        ledger_of_may.execute(
            "INSERT INTO reconciler.payers VALUES ('', 'acme', 1, %s, '2026-05-01', '2026-06-01')", [B]
        )
    ledger_of_may.execute(
        "INSERT INTO reconciler.closings (source, month, number, org, by, note, run_id, prices, accepted, total_chf, "
        "corrections_seen, skill_events_seen, suspension_events_seen) "
        "VALUES ('', '2026-05-01', 1, %s, '', '', gen_random_uuid(), %s, '[]', 0, 0, 0, 0)",
        [org, '{"fee": "49.00", "vat": "8.10", "skills": {"mail": "1.00"}}'],
    )
    ledger_of_may.price("mail", "9.00", may(40))
    ledger_of_may.system.api.patch("acme", {"spec": {"packages": ["mail"]}}, at=may(-2))
    (found,) = (each for each in ledger_of_may.system.run().findings if each.action.writes)
    assert (found.subject, found.closed_period) == ("mail", is_closed)
    days = (ledger_of_may.system.now.date() - may(-2).date()).days + 1
    assert found.impact_chf == Decimal(31) + (days - 31) * Decimal(9)


def test_a_decision_about_a_closed_month_is_marked(closed: Ledger) -> None:
    with brief_transaction(closed.system.url) as cursor:
        done = record(cursor, "acme", "mail", "disabled", since=may(3), until=may(5), author=AUTHOR)
        other = record_payer(cursor, "acme", B, since=date(2026, 6, 1), until=None, author=AUTHOR)
        moved = record_payer(cursor, "acme", B, since=date(2026, 5, 31), until=JUNE, author=AUTHOR)
    assert (done.billed, other.billed, moved.billed) == ((MAY,), (), (MAY,))
    marked = closed.execute("SELECT number, bool_and(closed_period) FROM reconciler.corrections GROUP BY 1 ORDER BY 1")
    assert marked.fetchall() == [(done.number, True), (other.number, False), (moved.number, True)]


# --- the page ----------------------------------------------------------------------------------------------------


def test_the_page_tells_a_month_as_it_is(system: System, command: Callable[..., Ran]) -> None:
    """From the last run to the invoice, and from a late row to the adjustment."""
    hotel = Ledger(system, name="hotel-seeblick", org="287100000000000006")
    hotel.price("nextcloud-files", "0.12500", APRIL)
    hotel.was_on(1, 21, "nextcloud-files", name="hotel-seeblick", org="287100000000000006")
    hotel.reported()
    said = ("--by", "finance", "--note")
    told = [command("close", "2026-05", *said, "the invoices of May")]
    hotel.invoice("287100000000000006", "51.50", {"tenant_monthly": "49.00", "skill_usage": "2.50"}, "2026-17")
    hotel.was_on(25, 28, "nextcloud-files", name="hotel-seeblick", org="287100000000000006")
    hotel.reported()
    told += [
        command("usage", "--month", "2026-05", "--changes"),
        command("close", "2026-05", *said, "late rows"),
        command("usage", "--month", "2026-05"),
    ]
    page = re.sub(r"skill:[0-9]+", "skill:ID", (ROOT / "docs" / "billing.md").read_text())
    for ran in told:
        assert ran.code == 0
        shown = re.sub(r" +", " ", re.sub(r"skill:[0-9]+", "skill:ID", ran.out.strip()))
        assert shown in re.sub(r" +", " ", page), ran.out


# --- who may -----------------------------------------------------------------------------------------------------


def test_the_role_of_the_runs_closes_nothing(ledger_of_may: Ledger, role_url: str) -> None:
    ledger_of_may.reported()
    with pytest.raises(DecisionDenied), brief_transaction(role_url) as cursor:
        closings.close(cursor, MAY, author=AUTHOR, settle=SETTLE)
    assert ledger_of_may.execute("SELECT count(*) FROM reconciler.closings").fetchall() == [(0,)]


def test_the_role_for_decisions_closes(ledger_of_may: Ledger, psql: Psql) -> None:
    ledger_of_may.reported()
    name = f"decider_{uuid4().hex}"
    psql(ledger_of_may.system.url, "roles.sql", role=f"run_{uuid4().hex}", decider=name)
    with brief_transaction(ledger_of_may.system.url) as cursor:
        cursor.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(name)))
        assert closings.close(cursor, MAY, author=AUTHOR, settle=SETTLE).written
    assert ledger_of_may.execute("SELECT by, role FROM reconciler.closings").fetchall() == [("finance", name)]


def test_a_run_waits_until_a_month_is_closed(ledger_of_may: Ledger) -> None:
    """What it writes then is in none of the closing's lines, and reported."""
    ledger_of_may.reported()
    ended: list[Finding] = []
    with brief_transaction(ledger_of_may.system.url) as cursor:
        closings.close(cursor, MAY, author=AUTHOR, settle=SETTLE)
        ledger_of_may.was_on(3, 5)
        other = Thread(target=lambda: ended.extend(ledger_of_may.system.run().findings))
        other.start()
        other.join(1)
        assert other.is_alive()
    other.join()
    ended += ledger_of_may.reported()
    assert {each.reason for each in ended} == {Reason.CLOSED_MONTH_CHANGED}
