"""What the platform and each skill cost, in CHF before VAT: platform_pricing and skill_pricing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row, tuple_row

from reconciler.ledger.arguments import NumericColumn, valid_id
from reconciler.ledger.rows import NotRecorded, fetch_rows

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal
    from types import EllipsisType

    from reconciler.ledger.rows import Connection

_FEE = NumericColumn(10, 2)
_UNIT_PRICE = NumericColumn(10, 5)
_VAT_RATE = NumericColumn(5, 2)


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


def platform_prices(connection: Connection) -> PlatformPrices:
    """Read the platform's prices, in CHF before VAT, and the VAT rate in percent.

    Args:
        connection: the read is part of its transaction.

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
    """Change the given prices of the platform; the default, `...`, leaves a price as it is.

    `updated_at` becomes now, unless no price is given: then nothing is written.

    Args:
        connection: the write is part of its transaction.
        tenant_monthly_fee_chf: CHF for a tenant and month, up to 8 digits and 2 decimals.
        tenant_setup_fee_chf: CHF for a new tenant, up to 8 digits and 2 decimals.
        threema_message_chf: CHF for a message, up to 5 digits and 5 decimals.
        vat_rate_chli: VAT in percent, up to 3 digits and 2 decimals.

    Returns:
        All prices as they are now.

    Raises:
        InvalidArgument: a price is not a Decimal, is negative, or has more digits than its column holds.
        NotRecorded: the row that the migration creates is missing.
    """
    given = {
        "tenant_monthly_fee_chf": (_FEE, tenant_monthly_fee_chf),
        "tenant_setup_fee_chf": (_FEE, tenant_setup_fee_chf),
        "threema_message_chf": (_UNIT_PRICE, threema_message_chf),
        "vat_rate_chli": (_VAT_RATE, vat_rate_chli),
    }
    prices = {name: None if value is ... else column.valid(name, value) for name, (column, value) in given.items()}
    if all(price is None for price in prices.values()):
        return platform_prices(connection)
    return _only_row(fetch_rows(connection, class_row(PlatformPrices), "change_platform_prices", **prices))


def skill_prices(connection: Connection) -> list[SkillPrice]:
    """Read the price of every billable skill, in CHF a UTC day before VAT, in the order of the ids' code points.

    Args:
        connection: the read is part of its transaction.
    """
    return fetch_rows(connection, class_row(SkillPrice), "read_skill_prices", skill=None)


def skill_price(connection: Connection, skill: str) -> SkillPrice | None:
    """Read the price of a skill, in CHF a UTC day before VAT.

    Args:
        connection: the read is part of its transaction.
        skill: its id.

    Returns:
        Its price, or None if it is not billable.

    Raises:
        InvalidArgument: the id is empty or not text.
    """
    found = fetch_rows(connection, class_row(SkillPrice), "read_skill_prices", skill=valid_id("skill", skill))
    return found[0] if found else None


def set_skill_price(connection: Connection, skill: str, daily_price_chf: Decimal) -> bool:
    """Make a skill billable, or change its price. The same price again changes nothing, not even `updated_at`.

    Args:
        connection: the write is part of its transaction.
        skill: its id.
        daily_price_chf: CHF for a UTC day before VAT, up to 5 digits and 5 decimals.

    Returns:
        True if it was written, False if the price was the same.

    Raises:
        InvalidArgument: the price is not a Decimal, is negative, or has more digits than its column holds; or the id
            is empty or not text.
    """
    price = _UNIT_PRICE.valid("daily_price_chf", daily_price_chf)
    rows = fetch_rows(connection, tuple_row, "set_skill_price", skill=valid_id("skill", skill), daily_price_chf=price)
    return bool(rows)


def remove_skill_price(connection: Connection, skill: str) -> bool:
    """Stop billing a skill, including past days that are not invoiced yet.

    Args:
        connection: the write is part of its transaction.
        skill: its id.

    Returns:
        True if it had a price.

    Raises:
        InvalidArgument: the id is empty or not text.
    """
    return bool(fetch_rows(connection, tuple_row, "remove_skill_price", skill=valid_id("skill", skill)))


def _only_row(found: list[PlatformPrices]) -> PlatformPrices:
    if not found:
        raise NotRecorded(
            "The ledger has no platform prices: the row with id 1 is missing.",
            "Run `reconciler migrate`, which creates it with all prices 0; then set them.",
        )
    return found[0]
