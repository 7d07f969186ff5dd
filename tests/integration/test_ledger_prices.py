"""The prices of the platform and of skills."""

from __future__ import annotations

from decimal import Decimal

import pytest

from reconciler import ledger as ledger_api
from reconciler.ledger import NotRecorded
from tests.support.ledger_calls import CALLS, Connection, call_concurrently, call_overlapping, record_acme, row_version

NEW_PRICES = {
    "tenant_monthly_fee_chf": Decimal("49.90"),
    "tenant_setup_fee_chf": Decimal("99999999.99"),
    "threema_message_chf": Decimal("0.00001"),
    "vat_rate_chli": Decimal("8.1"),
}


@pytest.mark.parametrize("name", NEW_PRICES)
def test_only_the_given_platform_price_changes(ledger: Connection, name: str) -> None:
    before = ledger_api.platform_prices(ledger)
    with ledger.transaction():
        after = ledger_api.change_platform_prices(ledger, **{name: NEW_PRICES[name]})
        ((now,),) = ledger.execute("SELECT now()").fetchall()
    assert after == ledger_api.platform_prices(ledger)
    changed = {field for field in NEW_PRICES if getattr(after, field) != getattr(before, field)}
    assert changed == {name} - {"vat_rate_chli"}
    assert getattr(after, name) == NEW_PRICES[name]
    assert after.updated_at == now


def test_a_change_of_no_platform_price_writes_nothing(ledger: Connection) -> None:
    before, version = ledger_api.platform_prices(ledger), row_version(ledger, "platform_pricing")
    assert ledger_api.change_platform_prices(ledger) == before
    assert row_version(ledger, "platform_pricing") == version


def test_concurrent_changes_keep_each_others_platform_price(ledger: Connection, ledger_url: str) -> None:
    call_overlapping(
        ledger,
        ledger_url,
        lambda one: ledger_api.change_platform_prices(one, tenant_monthly_fee_chf=Decimal(49)),
        lambda two: ledger_api.change_platform_prices(two, tenant_setup_fee_chf=Decimal(99)),
    )
    after = ledger_api.platform_prices(ledger)
    assert (after.tenant_monthly_fee_chf, after.tenant_setup_fee_chf) == (Decimal(49), Decimal(99))


@pytest.mark.parametrize("name", ["platform_prices", "change_platform_prices"])
def test_missing_platform_prices_raise(ledger: Connection, name: str) -> None:
    ledger.execute("DELETE FROM platform_pricing")
    with pytest.raises(NotRecorded, match="no platform prices"):
        CALLS[name](ledger)


def test_the_same_skill_price_is_not_written_again(ledger: Connection) -> None:
    assert ledger_api.set_skill_price(ledger, "mail", Decimal("0.60"))
    version = row_version(ledger, "skill_pricing")
    assert not ledger_api.set_skill_price(ledger, "mail", Decimal("0.600"))
    assert row_version(ledger, "skill_pricing") == version


def test_a_new_skill_price_changes_updated_at_but_not_created_at(ledger: Connection) -> None:
    ledger_api.set_skill_price(ledger, "mail", Decimal("0.60"))
    first = ledger_api.skill_price(ledger, "mail")
    assert first
    assert first.created_at == first.updated_at
    assert ledger_api.set_skill_price(ledger, "mail", Decimal("0.61"))
    changed = ledger_api.skill_price(ledger, "mail")
    assert changed
    assert (changed.created_at, changed.daily_price_chf) == (first.created_at, Decimal("0.61"))
    assert changed.updated_at > first.updated_at


def test_one_of_two_concurrent_equal_skill_prices_is_written(ledger: Connection, ledger_url: str) -> None:
    call = CALLS["set_skill_price"]
    assert call_overlapping(ledger, ledger_url, call, call) == (True, False)
    assert (
        sum(map(bool, call_concurrently(ledger_url, lambda c: ledger_api.set_skill_price(c, "wiki", Decimal(1))))) == 1
    )


def test_a_skill_price_can_be_removed_once(ledger: Connection) -> None:
    ledger_api.set_skill_price(ledger, "mail", Decimal("0.60"))
    assert ledger_api.remove_skill_price(ledger, "mail")
    assert not ledger_api.remove_skill_price(ledger, "mail")
    assert ledger_api.skill_price(ledger, "mail") is None


def test_one_of_two_concurrent_removals_finds_the_price(ledger: Connection, ledger_url: str) -> None:
    record_acme(ledger)
    call = CALLS["remove_skill_price"]
    assert call_overlapping(ledger, ledger_url, call, call) == (True, False)


def test_skill_prices_are_ordered_by_id(ledger: Connection) -> None:
    assert ledger_api.skill_prices(ledger) == []
    for skill in ["b", "Z", "a"]:
        ledger_api.set_skill_price(ledger, skill, Decimal(0))
    assert [price.skill for price in ledger_api.skill_prices(ledger)] == ["Z", "a", "b"]
