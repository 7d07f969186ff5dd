"""How an organisation is billed."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler import ledger as ledger_api
from reconciler.ledger import OrgBilling
from tests.support.ledger_calls import CALLS, Connection, call_concurrently, call_overlapping, row_version


def test_the_first_read_of_settings_writes_the_defaults_once(ledger: Connection) -> None:
    first = ledger_api.org_billing(ledger, "2871")
    assert first == OrgBilling(
        org="2871",
        pay_by_invoice=False,
        stripe_customer_id=None,
        auto_invoice_enabled=True,
        auto_reminders_enabled=True,
        created_at=first.created_at,
        updated_at=first.created_at,
    )
    version = row_version(ledger, "org_billing_config")
    assert ledger_api.org_billing(ledger, "2871") == first
    assert row_version(ledger, "org_billing_config") == version


def test_two_concurrent_first_reads_get_the_same_settings(ledger: Connection, ledger_url: str) -> None:
    """The second begins before the row of the first is visible."""
    call = CALLS["org_billing"]
    first, then = call_overlapping(ledger, ledger_url, call, call)
    assert first == then == ledger_api.org_billing(ledger, "2871")


def test_a_first_read_returns_what_a_concurrent_change_set(ledger: Connection, ledger_url: str) -> None:
    _, read = call_overlapping(ledger, ledger_url, CALLS["change_org_billing"], CALLS["org_billing"])
    assert read == ledger_api.org_billing(ledger, "2871")
    assert ledger_api.org_billing(ledger, "2871").pay_by_invoice


def test_many_concurrent_first_reads_get_the_same_settings(ledger_url: str) -> None:
    assert len(set(call_concurrently(ledger_url, CALLS["org_billing"]))) == 1


TWO_VALUES: dict[str, tuple[Any, Any]] = {
    "pay_by_invoice": (True, False),
    "stripe_customer_id": ("cus_1", "cus_2"),
    "auto_invoice_enabled": (False, True),
    "auto_reminders_enabled": (False, True),
}
"""Two values of each setting."""


@pytest.mark.parametrize("name", TWO_VALUES)
@pytest.mark.parametrize("exists", [False, True])
def test_only_the_given_setting_changes(ledger: Connection, name: str, *, exists: bool) -> None:
    """Also if the change creates the row."""
    before = ledger_api.org_billing(ledger, "2871" if exists else "2872")
    for value in TWO_VALUES[name]:
        after = ledger_api.change_org_billing(ledger, "2871", **{name: value})
        assert after == ledger_api.org_billing(ledger, "2871")
        assert after.updated_at > after.created_at
        for field in TWO_VALUES:
            assert getattr(after, field) == (value if field == name else getattr(before, field))


def test_a_stripe_customer_is_removed_only_by_none(ledger: Connection) -> None:
    ledger_api.change_org_billing(ledger, "2871", stripe_customer_id="cus_1")
    assert ledger_api.change_org_billing(ledger, "2871", pay_by_invoice=True).stripe_customer_id == "cus_1"
    assert ledger_api.change_org_billing(ledger, "2871", stripe_customer_id=None).stripe_customer_id is None


def test_a_change_of_no_setting_writes_nothing(ledger: Connection) -> None:
    before = ledger_api.org_billing(ledger, "2871")
    version = row_version(ledger, "org_billing_config")
    assert ledger_api.change_org_billing(ledger, "2871") == before
    assert row_version(ledger, "org_billing_config") == version


def test_concurrent_changes_keep_each_others_setting(ledger: Connection, ledger_url: str) -> None:
    """Also if neither found a row."""
    call_overlapping(
        ledger,
        ledger_url,
        lambda one: ledger_api.change_org_billing(one, "2871", pay_by_invoice=True),
        lambda two: ledger_api.change_org_billing(two, "2871", stripe_customer_id="cus_1"),
    )
    after = ledger_api.org_billing(ledger, "2871")
    assert (after.pay_by_invoice, after.stripe_customer_id) == (True, "cus_1")
