"""Closings and decisions where names, prices, invoices and rights are odd."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from reconciler.core.closing import PriceUncertain, changed_months
from reconciler.core.decisions import NotPutRight
from reconciler.core.errors import Failure
from reconciler.core.reasons import Reason
from reconciler.db import closing as closings
from reconciler.db.certificate import NotVerified
from reconciler.db.connection import brief_transaction
from reconciler.db.lifetimes import record_lifetime
from reconciler.db.payers import record_payer
from reconciler.db.usage import NotAPrice
from tests.integration.test_closing import (
    APRIL,
    AUTHOR,
    MAY,
    SETTLE,
    A,
    B,
    Ledger,
    closed,
    command,
    ledger_of_may,
    may,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from tests.conftest import Psql
    from tests.support.command import Ran

__all__ = ["closed", "command", "ledger_of_may"]


def invoice(ledger: Ledger, number: str, since: str, until: str, chf: str) -> None:
    ledger.execute(
        "INSERT INTO invoices (invoice_number, zitadel_org_id, period_start, period_end, due_at, subtotal_chf, "
        "vat_rate, vat_amount_chf, total_chf, billing_snapshot, payment_method) "
        "VALUES (%s, %s, %s, %s, '2026-07-31', %s, 8.10, 0, 0, '{}', 'invoice')",
        [number, A, since, until, chf],
    )


def alive(ledger: Ledger, since: datetime) -> None:
    with brief_transaction(ledger.system.url) as cursor:
        record_lifetime(cursor, "acme", "alive", since=since, until=None, org=None, author=AUTHOR)


# --- what is not proven ------------------------------------------------------------------------------------------


def test_one_accepted_report_does_not_accept_another_one(ledger_of_may: Ledger) -> None:
    """People accepted that the label moved; that the history contradicts itself, nobody accepted."""
    ledger_of_may.was_on(1, 21)
    ledger_of_may.system.api.patch("acme", {"metadata": {"labels": {"pieced.ch/zitadel-org-id": B}}})
    ledger_of_may.system.run()
    assert [each.detail for each in ledger_of_may.close(accepted=["acme"]).accepted] == ["org_moved"]
    ledger_of_may.was_on(-60, -59)
    ledger_of_may.was_on(25, 31)
    assert Reason.HISTORY_CONTRADICTS in {each.reason for each in ledger_of_may.system.run().findings}
    with pytest.raises(NotVerified, match="history_contradicts"):
        ledger_of_may.close()


def test_a_tenant_that_was_closed_for_an_organisation_concerns_it(closed: Ledger) -> None:
    """By its row it was always B's: 73.00 are to be credited to A, and nobody knows whether that is right."""
    closed.create("other", A)
    closed.reported()
    closed.execute("UPDATE tenant_billing_lifecycle SET zitadel_org_id = %s WHERE tenant_name = 'acme'", [B])
    closed.system.api.patch("acme", {"metadata": {"labels": {"pieced.ch/zitadel-org-id": B}}})
    closed.system.run()
    closed.execute(
        "INSERT INTO reconciler.gaps SELECT identity, 'acme', '2026-05-20Z', '2026-05-21Z', 'changed_often' "
        "FROM reconciler.source"
    )
    with pytest.raises(NotVerified, match="acme changed_often"):
        closed.close(org=A)


def test_an_organisation_that_closings_alone_know_can_be_closed(closed: Ledger) -> None:
    """By its row the tenant was always B's."""
    closed.execute("UPDATE tenant_billing_lifecycle SET zitadel_org_id = %s", [B])
    closed.system.api.patch("acme", {"metadata": {"labels": {"pieced.ch/zitadel-org-id": B}}})
    closed.system.run()
    assert closed.close(org=A).total_chf == Decimal("-73.00")


# --- odd names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("priced", [False, True])
def test_a_skill_without_a_name_is_no_monthly_fee(
    ledger_of_may: Ledger,
    priced: bool,  # noqa: FBT001 - both
) -> None:
    """One row of the portal's with an empty skill: 20 days were 20 fees, and nobody could close the month."""
    if priced:
        ledger_of_may.price("", "1.00", APRIL)
    ledger_of_may.was_on(1, 21, "")
    ledger_of_may.reported()
    assert ledger_of_may.billed() == [(A, None, "49.00"), (A, "", "20.00" if priced else "0.00")]
    done = ledger_of_may.close()
    assert (done.total_chf, done.lines) == (Decimal("69.00" if priced else "49.00"), 2)
    assert len(ledger_of_may.held(1)) == 2
    assert ledger_of_may.due() == []


def test_a_skill_called_fee_is_not_the_monthly_fee(ledger_of_may: Ledger) -> None:
    ledger_of_may.price("fee", "2.00", may(10))
    ledger_of_may.reported()
    with pytest.raises(PriceUncertain, match=r"skill:fee is 2\.00000 today"):
        ledger_of_may.close(prices={"fee": Decimal("1.00")})
    kept = ledger_of_may.close(prices={"skill:fee": Decimal("1.00")}).prices
    assert (kept.fee, kept.skills["fee"]) == (Decimal("49.00"), Decimal("1.00"))


# --- prices ------------------------------------------------------------------------------------------------------


def test_the_vat_rate_alone_does_not_accept_a_raised_fee(ledger_of_may: Ledger) -> None:
    """No month was closed before, so nobody has looked at the fee."""
    ledger_of_may.reported()
    ledger_of_may.raise_fee("59.00", may(32))
    with pytest.raises(PriceUncertain):
        ledger_of_may.close(prices={"vat": Decimal("8.10")})


def test_a_vat_rate_that_is_no_number_is_refused(ledger_of_may: Ledger) -> None:
    ledger_of_may.reported()
    ledger_of_may.execute("UPDATE platform_pricing SET vat_rate_chli = 'NaN'")
    with pytest.raises(NotAPrice):
        ledger_of_may.close()


def test_a_price_that_is_no_number_stops_no_closed_month(closed: Ledger) -> None:
    closed.execute("INSERT INTO skill_pricing VALUES ('wiki', 'NaN')")
    closed.was_on(25, 28)
    assert closed.reported()
    assert [str(line.difference_chf) for line in closed.due()] == ["3.60"]
    assert closed.close().total_chf == Decimal("3.60")


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("--accept-price", "vat=810"), id="a VAT rate of 810 percent - refused"),
        pytest.param(("--accept-price", "vat=8.123"), id="a VAT rate that no invoice can have - refused"),
        pytest.param(("--accept-price", "fee=49.005"), id="a fee that is no amount in rappen - refused"),
        pytest.param(("--accept-price", "mial=1.20"), id="a skill that nobody knows - refused"),
        pytest.param(("--org", "2817"), id="an organisation that nobody knows - refused"),
        pytest.param(("--accept-price", "mail=1.00", "--accept-price", "mail=2.00"), id="two prices - refused"),
    ],
)
def test_a_misspelt_word_closes_nothing(
    ledger_of_may: Ledger, command: Callable[..., Ran], words: tuple[str, ...]
) -> None:
    ledger_of_may.reported()
    assert command("close", "2026-05", "--note", "invoices", *words).code in {3, 64}


def test_a_closing_keeps_the_vat_rate_that_it_had(closed: Ledger, command: Callable[..., Ran]) -> None:
    shown = [command("usage", "--month", "2026-05", "--closing", "1", "--output", "csv").out]
    assert closed.close(prices={"vat": Decimal("7.70")}).number == 2
    shown.append(command("usage", "--month", "2026-05", "--closing", "1", "--output", "csv").out)
    assert shown[0] == shown[1]
    second = json.loads(command("usage", "--month", "2026-05", "--closing", "2", "--output", "json").out)
    assert second["vat_rate"] == "7.70"


@pytest.mark.parametrize(
    ("period", "rate", "said"),
    [
        pytest.param(("2026-05-01", "2026-05-31"), "7.70", "7.70 %", id="the month - its own"),
        pytest.param(("2026-05-10", "2026-05-20"), "7.70", "7.70 %", id="a part of it - its own"),
        pytest.param(("2026-05-10", "2026-06-20"), "8.10", "8.10 %, 2026-05 7.70 %", id="with another month - both"),
        pytest.param(("2026-06-01", "2026-06-30"), "8.10", "8.10 %", id="another month - today's"),
    ],
)
def test_usage_names_the_vat_rates_of_its_months(
    closed: Ledger, command: Callable[..., Ran], period: tuple[str, str], rate: str, said: str
) -> None:
    closed.close(prices={"vat": Decimal("7.70")})
    words = ("usage", "--from", period[0], "--to", period[1])
    assert f"VAT ({said})," in command(*words).out
    assert json.loads(command(*words, "--output", "json").out)["vat_rate"] == rate


def test_a_later_closing_says_that_prices_have_changed(closed: Ledger, command: Callable[..., Ran]) -> None:
    """It may be of another organisation: what is closed already costs something else from then on."""
    said = "From now on 2026-05 has these prices: the monthly fee, CHF 59.00"
    words = ("close", "2026-05", "--note", "fee")
    closed.create("beta", B)
    closed.reported()
    assert said in command(*words, "--org", B, "--accept-price", "fee=59.00").out
    assert "From now on" not in command(*words).out


# --- invoices ----------------------------------------------------------------------------------------------------


def test_what_was_adjusted_is_not_adjusted_again(closed: Ledger) -> None:
    """3.60 of May was billed with June; then 1.20 come, and 4.80 are shown."""
    closed.invoice(A, "73.00", {"tenant_monthly": "49.00", "skill_usage": "24.00"})
    closed.was_on(25, 28)
    assert closed.close().totals[0].not_invoiced == Decimal("3.60")
    invoice(closed, "june", "2026-06-01", "2026-06-30", "52.60")
    closed.execute(
        "INSERT INTO invoice_lines (invoice_id, kind, description, unit_price_chf, amount_chf) "
        "SELECT id, 'adjustment', 'May', 3.60, 3.60 FROM invoices WHERE invoice_number = 'june'"
    )
    closed.was_on(29, 30)
    assert closed.close().totals[0].not_invoiced == Decimal("1.20")


def test_who_appears_later_is_not_billed_what_was_invoiced(closed: Ledger) -> None:
    """May was closed for everybody before the rows of B came, and its invoice was made from them."""
    closed.create("beta", B)
    closed.invoice(B, "49.00", {"tenant_monthly": "49.00"})
    closed.reported()
    closed.was_on(1, 2, name="beta", org=B)
    assert [(each.org, each.not_invoiced) for each in closed.close().totals] == [(B, Decimal("1.20"))]
    closed.was_on(3, 4, name="beta", org=B)
    assert [(each.org, each.not_invoiced) for each in closed.close().totals] == [(B, Decimal("1.20"))]


def test_what_was_to_be_credited_is_not_credited_again(ledger_of_may: Ledger) -> None:
    """An invoice without a line: 49.00 were to be credited by the first closing; then the lines come."""
    ledger_of_may.invoice(B, "49.00", {"tenant_monthly": "49.00"})
    ledger_of_may.reported()
    totals = [{each.org: each.not_invoiced for each in ledger_of_may.close().totals}]
    ledger_of_may.create("beta", B)
    ledger_of_may.reported()
    totals.append({each.org: each.not_invoiced for each in ledger_of_may.close().totals})
    assert totals == [{A: None, B: Decimal("-49.00")}, {B: Decimal("49.00")}]


def test_an_invoice_of_other_things_alone_is_not_shown(ledger_of_may: Ledger) -> None:
    ledger_of_may.invoice(B, "99.00", {"tenant_setup": "99.00"})
    ledger_of_may.reported()
    assert [each.org for each in ledger_of_may.close().totals] == [A]


def test_an_invoice_of_a_quarter_is_shown(ledger_of_may: Ledger) -> None:
    invoice(ledger_of_may, "q2", "2026-04-01", "2026-06-30", "147.00")
    ledger_of_may.reported()
    (total,) = ledger_of_may.close().totals
    assert [one.number for one in total.invoices] == ["q2"]


def test_a_report_is_the_same_in_whatever_order_its_lines_come(closed: Ledger) -> None:
    """The organisation that it names, and its words, would change from run to run."""
    with brief_transaction(closed.system.url) as cursor:
        record_payer(cursor, "acme", B, since=MAY, until=None, author=AUTHOR)
    lines = closed.due()
    (report,) = changed_months(lines)
    assert [*changed_months(reversed(lines))] == [report]


# --- reading -----------------------------------------------------------------------------------------------------


def test_usage_says_for_whom_a_month_is_closed(ledger_of_may: Ledger, command: Callable[..., Ran]) -> None:
    ledger_of_may.create("beta", B)
    ledger_of_may.reported()
    ledger_of_may.close(org=A)
    shown = command("usage", "--month", "2026-05").out
    assert "2026-05 is shown as it was closed, in 1 closing." not in shown
    assert A in shown.split("1 organisation", 1)[-1]


def test_changes_of_a_month_never_closed_says_so(ledger_of_may: Ledger, command: Callable[..., Ran]) -> None:
    ledger_of_may.reported()
    assert "never closed" in command("usage", "--month", "2026-05", "--changes").out


def test_changes_of_a_month_that_is_not_over_says_so(ledger_of_may: Ledger, command: Callable[..., Ran]) -> None:
    now = ledger_of_may.system.now
    shown = command("usage", "--month", f"{now:%Y-%m}", "--changes")
    assert "The period is not over: it is counted up to" in shown.out
    later = command("usage", "--month", f"{now.year + 1}-{now:%m}", "--changes")
    assert (later.code, "Give a period that has begun" in later.err) == (64, True)


# --- who may -----------------------------------------------------------------------------------------------------


def test_a_policy_that_hides_rows_is_called_so(ledger_of_may: Ledger, psql: Psql) -> None:
    ledger_of_may.reported()
    name = f"decider_{uuid4().hex}"
    psql(ledger_of_may.system.url, "roles.sql", role=f"run_{uuid4().hex}", decider=name)
    ledger_of_may.execute("ALTER TABLE invoices ENABLE ROW LEVEL SECURITY")
    with brief_transaction(ledger_of_may.system.url) as cursor:
        cursor.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(name)))
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            closings.close(cursor, MAY, author=AUTHOR, settle=SETTLE)


# --- decisions ---------------------------------------------------------------------------------------------------


def test_a_lifetime_that_a_trigger_refuses_is_not_said(ledger_of_may: Ledger) -> None:
    ledger_of_may.execute(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';"
        "CREATE TRIGGER keep BEFORE UPDATE ON tenant_billing_lifecycle FOR EACH ROW EXECUTE FUNCTION keep()"
    )
    with pytest.raises(Failure):
        alive(ledger_of_may, APRIL.replace(month=3))


def test_nobody_lived_before_kubernetes_did(ledger_of_may: Ledger) -> None:
    """A year with two digits too few: 0026 for 2026 billed 1,175,951.00."""
    with pytest.raises(NotPutRight):
        alive(ledger_of_may, APRIL.replace(year=26))
