"""What is charged and how: the prices in CHF before VAT, and how each organisation is billed.

The tables are platform_pricing, skill_pricing and org_billing_config.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row, tuple_row

from reconciler.ledger.calls import NotRecorded, fetch_rows, valid_amount, valid_flag, valid_id

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal
    from types import EllipsisType

    from reconciler.db.connection import Connection

_NUMERIC = {
    "tenant_monthly_fee_chf": (10, 2),
    "tenant_setup_fee_chf": (10, 2),
    "threema_message_chf": (10, 5),
    "vat_rate_chli": (5, 2),
    "daily_price_chf": (10, 5),
}
"""The precision and the scale of each column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformPrices:
    """The one row of platform_pricing."""

    tenant_monthly_fee_chf: Decimal
    """CHF for a tenant and month."""
    tenant_setup_fee_chf: Decimal
    """CHF for a new tenant, once."""
    threema_message_chf: Decimal
    """CHF for a message."""
    vat_rate_chli: Decimal
    """VAT in Switzerland and Liechtenstein, in percent."""
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SkillPrice:
    """A row of skill_pricing. A skill is billable if it has one."""

    skill: str
    daily_price_chf: Decimal
    """CHF for a UTC day."""
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class OrgBilling:
    """An organisation's row in org_billing_config."""

    org: str
    pay_by_invoice: bool
    stripe_customer_id: str | None
    auto_invoice_enabled: bool
    auto_reminders_enabled: bool
    created_at: datetime
    updated_at: datetime


def platform_prices(connection: Connection) -> PlatformPrices:
    """Read the platform's prices and the VAT rate.

    Raises:
        NotRecorded: the row that the migration creates is missing.
    """
    return _only_row(fetch_rows(connection, class_row(PlatformPrices), "read_platform_prices"))


def change_platform_prices(
    connection: Connection,
    *,
    tenant_monthly_fee_chf: Decimal | EllipsisType = ...,
    tenant_setup_fee_chf: Decimal | EllipsisType = ...,
    threema_message_chf: Decimal | EllipsisType = ...,
    vat_rate_chli: Decimal | EllipsisType = ...,
) -> PlatformPrices:
    """Change the given prices of the platform, and return all of them; the default, `...`, leaves a price as it is.

    The units are those of `PlatformPrices`. `tenant_monthly_fee_chf` and `tenant_setup_fee_chf` have up to 8 digits and
    2 decimals, `threema_message_chf` up to 5 digits and 5 decimals, `vat_rate_chli` up to 3 digits and 2 decimals.
    `updated_at` becomes now, unless no price is given: then this is `platform_prices`.
    """
    given = {
        "tenant_monthly_fee_chf": tenant_monthly_fee_chf,
        "tenant_setup_fee_chf": tenant_setup_fee_chf,
        "threema_message_chf": threema_message_chf,
        "vat_rate_chli": vat_rate_chli,
    }
    prices = {n: None if value is ... else valid_amount(n, value, *_NUMERIC[n]) for n, value in given.items()}
    if all(price is None for price in prices.values()):
        return platform_prices(connection)
    return _only_row(fetch_rows(connection, class_row(PlatformPrices), "change_platform_prices", **prices))


def _only_row(found: list[PlatformPrices]) -> PlatformPrices:
    if not found:
        raise NotRecorded(
            "The ledger has no platform prices: the row with id 1 is missing.",
            "Run `reconciler migrate`, which creates it with all prices 0; then set them.",
        )
    return found[0]


def skill_prices(connection: Connection) -> list[SkillPrice]:
    """Read the price of every billable skill, in the order of the ids' code points."""
    return fetch_rows(connection, class_row(SkillPrice), "read_skill_prices", skill=None)


def skill_price(connection: Connection, skill: str) -> SkillPrice | None:
    """Read the price of a skill; None if it is not billable."""
    found = fetch_rows(connection, class_row(SkillPrice), "read_skill_prices", skill=valid_id("skill", skill))
    return found[0] if found else None


def set_skill_price(connection: Connection, skill: str, daily_price_chf: Decimal) -> bool:
    """Make a skill billable, or change its price; return False if the price was the same.

    `daily_price_chf` is for a UTC day, with up to 5 digits and 5 decimals. The same price again changes nothing, not
    even `updated_at`.
    """
    price = valid_amount("daily_price_chf", daily_price_chf, *_NUMERIC["daily_price_chf"])
    skill = valid_id("skill", skill)
    return bool(fetch_rows(connection, tuple_row, "set_skill_price", skill=skill, daily_price_chf=price))


def remove_skill_price(connection: Connection, skill: str) -> bool:
    """Stop billing a skill, including past days that are not invoiced yet; return False if it had no price."""
    return bool(fetch_rows(connection, tuple_row, "remove_skill_price", skill=valid_id("skill", skill)))


def org_billing(connection: Connection, org: str) -> OrgBilling:
    """Read how an organisation is billed. One without settings gets the defaults, which are written.

    Raises:
        InvalidArgument: also if the organisation is empty or None: an unknown one has no settings.
    """
    (settings,) = fetch_rows(connection, class_row(OrgBilling), "read_org_billing", org=valid_id("org", org))
    return settings


def change_org_billing(
    connection: Connection,
    org: str,
    *,
    pay_by_invoice: bool | EllipsisType = ...,
    stripe_customer_id: str | EllipsisType | None = ...,
    auto_invoice_enabled: bool | EllipsisType = ...,
    auto_reminders_enabled: bool | EllipsisType = ...,
) -> OrgBilling:
    """Change the given settings of an organisation, and return all of them; the default, `...`, leaves one as it is.

    With `pay_by_invoice` it pays by invoice, not by card; with `auto_invoice_enabled` invoices are sent automatically,
    with `auto_reminders_enabled` reminders. A `stripe_customer_id` of None removes the id. An organisation without
    settings gets the defaults first. `updated_at` becomes now, unless no setting is given: then this is `org_billing`.

    Raises:
        InvalidArgument: also if a flag is neither True nor False, or the organisation is empty or None.
    """
    flags = {
        "pay_by_invoice": pay_by_invoice,
        "auto_invoice_enabled": auto_invoice_enabled,
        "auto_reminders_enabled": auto_reminders_enabled,
    }
    changes = {name: None if value is ... else valid_flag(name, value) for name, value in flags.items()}
    customer = stripe_customer_id
    stripe = {
        "sets_stripe_customer": customer is not ...,
        "stripe_customer_id": None if customer is None or customer is ... else valid_id("stripe_customer_id", customer),
    }
    settings = org_billing(connection, org)
    if customer is ... and all(value is None for value in changes.values()):
        return settings
    (settings,) = fetch_rows(connection, class_row(OrgBilling), "change_org_billing", org=org, **changes, **stripe)
    return settings
