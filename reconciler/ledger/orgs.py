"""How an organisation is billed: its row in org_billing_config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row

from reconciler.ledger.arguments import valid_flag, valid_id
from reconciler.ledger.rows import fetch_rows

if TYPE_CHECKING:
    from datetime import datetime
    from types import EllipsisType

    from reconciler.ledger.rows import Connection


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
