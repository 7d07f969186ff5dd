"""The ledger for other programs: record what happened, read what is recorded, without SQL of one's own.

Every function takes a connection and works in that connection's transaction: it never commits and never rolls back, so
that a portal can record several things, and rows of its own, together or not at all. What is idempotent is so for two
connections at once too. Nothing is kept in the session, and whether statements are prepared is the connection's own
setting: a transaction-pooling PgBouncer may stand between.

Times, given or returned, are aware datetimes in UTC; money is `Decimal`, in CHF before VAT. An organisation that is
empty is recorded, and looked for, as `unknown`.

Raises:
    InvalidArgument: an argument cannot stand in the ledger. Nothing was written, and the caller's transaction goes on.
    NotRecorded: the row that the call is about is not there. The transaction goes on as well.
    psycopg.Error: whatever psycopg raises passes through as it is: a lost connection, a transaction that had failed
        before, a serialization failure where the caller chose a stricter isolation level, a table that is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import psycopg
from psycopg.adapt import Loader
from psycopg.pq import Format
from psycopg.rows import class_row, tuple_row

from reconciler.core.errors import Failure
from reconciler.core.model import FIRST, LAST, UNKNOWN_ORG, Lifecycle
from reconciler.db.queries import query

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import EllipsisType

    from psycopg.abc import Buffer
    from psycopg.rows import BaseRowFactory

    Connection = psycopg.Connection[Any]

T = TypeVar("T")


class InvalidArgument(Failure, ValueError):  # noqa: N818 - named as every Failure is
    """An argument cannot stand in the ledger."""


class NotRecorded(Failure, LookupError):  # noqa: N818 - likewise
    """The row that a call is about is not in the ledger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SkillEvent:
    """A row of tenant_skill_events."""

    id: int
    tenant: str
    org: str
    skill: str
    kind: Literal["enabled", "disabled"]
    occurred_at: datetime

    @property
    def enabled(self) -> bool:
        """Whether the skill is on from then."""
        return self.kind == "enabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspensionEvent:
    """A row of tenant_suspension_events."""

    id: int
    tenant: str
    org: str
    kind: Literal["suspended", "resumed"]
    occurred_at: datetime

    @property
    def suspended(self) -> bool:
        """Whether the tenant is suspended from then."""
        return self.kind == "suspended"


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
    """A row of skill_pricing: that it exists makes the skill billable."""

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


# tenants


def record_creation(connection: Connection, tenant: str, org: str | None, created_at: datetime) -> bool:
    """Record that a tenant was created, and is billed from then on.

    A tenant that is recorded already stays as it is, also where it is recorded as deleted: what is said of it now is
    then not written, and it is for the reconciler to report what differs.

    Args:
        connection: in whose transaction it is written.
        tenant: the name of the custom resource.
        org: the organisation that pays; None or empty: unknown.
        created_at: its creationTimestamp, in UTC.

    Returns:
        Whether it was written.

    Raises:
        InvalidArgument: the name is empty or no text, or the time is naive or not in UTC.
    """
    return bool(
        _rows(
            connection,
            tuple_row,
            "record_creation",
            tenant=_id("tenant", tenant),
            org=_org(org),
            created_at=_moment("created_at", created_at),
        )
    )


def record_deletion(connection: Connection, tenant: str, deleted_at: datetime | None = None) -> bool:
    """Record that a tenant was deleted, and is billed until then.

    It is recorded once: of a tenant that is recorded as deleted, the first time stays. Skills that are on are
    recorded as disabled with `record_skills`, at the same time.

    Args:
        connection: in whose transaction it is written.
        tenant: the name of the custom resource.
        deleted_at: when, in UTC; None: when the transaction began, by the database's clock.

    Returns:
        Whether it was written: False if the tenant was recorded as deleted before.

    Raises:
        NotRecorded: the ledger does not know the tenant.
        InvalidArgument: the time lies before the tenant's creation, or is naive or not in UTC; or the name is empty.
    """
    at = None if deleted_at is None else _moment("deleted_at", deleted_at)
    found = _rows(connection, tuple_row, "record_deletion", tenant=_id("tenant", tenant), deleted_at=at)
    if not found:
        raise NotRecorded(
            f"The ledger has no tenant {tenant}: its creation was never recorded.",
            "Record its creation first, or leave both to the reconciler.",
        )
    ((stamped, created_at),) = found
    if at and at < created_at:
        raise InvalidArgument(
            f"deleted_at, {at}, lies before {created_at}, when {tenant} was created: it would never have been billed.",
            "Nothing was written. Give the time of its deletion.",
        )
    return bool(stamped)


def lifecycle(connection: Connection, tenant: str) -> Lifecycle | None:
    """Read who pays for a tenant, and from when until when.

    Args:
        connection: in whose transaction it is read.
        tenant: the name of the custom resource.

    Returns:
        Its row, with `deleted_at` None while it lives; None if the ledger does not know it.

    Raises:
        InvalidArgument: the name is empty or no text.
    """
    found = _rows(connection, class_row(Lifecycle), "read_lifecycle", tenant=_id("tenant", tenant))
    return found[0] if found else None


def lifecycles(connection: Connection, org: str | None) -> dict[str, Lifecycle]:
    """Read the tenants that an organisation pays or paid for, deleted ones too.

    Args:
        connection: in whose transaction they are read.
        org: the organisation; None or empty: unknown.

    Returns:
        Their rows by name, in the order of the names' code points.

    Raises:
        InvalidArgument: the organisation is no text that PostgreSQL can hold.
    """
    found = _rows(connection, tuple_row, "read_lifecycles", org=_org(org))
    return {name: Lifecycle(org=payer, created_at=born, deleted_at=gone) for name, payer, born, gone in found}


# skills and suspension


def record_skills(
    connection: Connection,
    tenant: str,
    org: str | None,
    *,
    enabled: Iterable[str] = (),
    disabled: Iterable[str] = (),
    occurred_at: datetime | None = None,
) -> list[SkillEvent]:
    """Record that skills were turned on and off, all of them at one time and in one statement.

    Events are only ever appended: what is recorded twice stands there twice, which changes no state. A time after the
    database's clock is written too, but the reconciler reports it and leaves that skill alone.

    Args:
        connection: in whose transaction they are written.
        tenant: the name of the custom resource.
        org: the organisation that pays; None or empty: unknown.
        enabled: the ids of the skills that were turned on.
        disabled: the ids of those that were turned off.
        occurred_at: when, in UTC; None: when the transaction began, by the database's clock.

    Returns:
        The events, one for each skill, in the order of the skills and of their own ids. Empty where no skill is
        named: then nothing is written.

    Raises:
        InvalidArgument: an id is empty or no text, a skill is named on both sides, or the time is naive or not in UTC.
    """
    on, off = _ids("enabled", enabled), _ids("disabled", disabled)
    if both := sorted(on & off):
        raise InvalidArgument(
            f"{', '.join(both)}: a skill cannot be turned on and off at one time.",
            "Nothing was written. Name each skill once.",
        )
    return _rows(
        connection,
        class_row(SkillEvent),
        "record_skill_events",
        tenant=_id("tenant", tenant),
        org=_org(org),
        enabled=sorted(on),
        disabled=sorted(off),
        occurred_at=None if occurred_at is None else _moment("occurred_at", occurred_at),
    )


def record_suspension(
    connection: Connection, tenant: str, org: str | None, occurred_at: datetime | None = None
) -> SuspensionEvent:
    """Record that a tenant was suspended.

    Args:
        connection: in whose transaction it is written.
        tenant: the name of the custom resource.
        org: the organisation that pays; None or empty: unknown.
        occurred_at: when, in UTC; None: when the transaction began, by the database's clock.

    Returns:
        The event.

    Raises:
        InvalidArgument: the name is empty or no text, or the time is naive or not in UTC.
    """
    return _suspension_event(connection, tenant, org, "suspended", occurred_at)


def record_resumption(
    connection: Connection, tenant: str, org: str | None, occurred_at: datetime | None = None
) -> SuspensionEvent:
    """Record that a suspended tenant runs again.

    Args:
        connection: in whose transaction it is written.
        tenant: the name of the custom resource.
        org: the organisation that pays; None or empty: unknown.
        occurred_at: when, in UTC; None: when the transaction began, by the database's clock.

    Returns:
        The event.

    Raises:
        InvalidArgument: the name is empty or no text, or the time is naive or not in UTC.
    """
    return _suspension_event(connection, tenant, org, "resumed", occurred_at)


def skill_state_at(connection: Connection, tenant: str, instant: datetime) -> dict[str, SkillEvent]:
    """Read which skills of a tenant were on at an instant.

    Args:
        connection: in whose transaction they are read.
        tenant: the name of the custom resource.
        instant: in UTC; an event at that very instant counts.

    Returns:
        The latest event of each skill by its id: the greatest `occurred_at` up to the instant, and of two at the same
        time the higher id. A skill that is not there had no event yet, and was off.

    Raises:
        InvalidArgument: the name is empty or no text, or the instant is naive or not in UTC.
    """
    events = _rows(
        connection,
        class_row(SkillEvent),
        "read_skill_state",
        tenant=_id("tenant", tenant),
        instant=_utc("instant", instant),
    )
    return {event.skill: event for event in events}


def suspension_state_at(connection: Connection, tenant: str, instant: datetime) -> SuspensionEvent | None:
    """Read whether a tenant was suspended at an instant.

    Args:
        connection: in whose transaction it is read.
        tenant: the name of the custom resource.
        instant: in UTC; an event at that very instant counts.

    Returns:
        The latest event, chosen as in `skill_state_at`; None: there was none yet, and the tenant was running.

    Raises:
        InvalidArgument: the name is empty or no text, or the instant is naive or not in UTC.
    """
    found = _rows(
        connection,
        class_row(SuspensionEvent),
        "read_suspension_state",
        tenant=_id("tenant", tenant),
        instant=_utc("instant", instant),
    )
    return found[0] if found else None


def skill_events(
    connection: Connection,
    since: datetime,
    until: datetime,
    *,
    tenant: str | None = None,
    org: str | None = None,
) -> list[SkillEvent]:
    """Read the skill events of a tenant, of an organisation, or of a tenant while that organisation paid.

    Args:
        connection: in whose transaction they are read.
        since: the beginning, in UTC; an event at that very instant counts.
        until: the end, in UTC; an event at that very instant does not count.
        tenant: the name of the custom resource; None: all that the organisation pays for.
        org: the organisation that the events carry; None: any. Empty: unknown.

    Returns:
        The events by `occurred_at`, and among those of the same time by id.

    Raises:
        InvalidArgument: neither a tenant nor an organisation is given, a time is naive or not in UTC, or the end lies
            before the beginning.
    """
    return _rows(connection, class_row(SkillEvent), "read_skill_events", **_period(since, until), **_whose(tenant, org))


def suspension_events(
    connection: Connection,
    since: datetime,
    until: datetime,
    *,
    tenant: str | None = None,
    org: str | None = None,
) -> list[SuspensionEvent]:
    """Read the suspension events of a tenant, of an organisation, or of a tenant while that organisation paid.

    Args:
        connection: in whose transaction they are read.
        since: the beginning, in UTC; an event at that very instant counts.
        until: the end, in UTC; an event at that very instant does not count.
        tenant: the name of the custom resource; None: all that the organisation pays for.
        org: the organisation that the events carry; None: any. Empty: unknown.

    Returns:
        The events by `occurred_at`, and among those of the same time by id.

    Raises:
        InvalidArgument: neither a tenant nor an organisation is given, a time is naive or not in UTC, or the end lies
            before the beginning.
    """
    return _rows(
        connection, class_row(SuspensionEvent), "read_suspension_events", **_period(since, until), **_whose(tenant, org)
    )


# prices and settings


def platform_prices(connection: Connection) -> PlatformPrices:
    """Read the platform's prices, in CHF before VAT, and the VAT rate in percent.

    Args:
        connection: in whose transaction they are read.

    Raises:
        NotRecorded: the row that the migration puts there is missing.
    """
    return _priced(_rows(connection, class_row(PlatformPrices), "read_platform_prices"))


def change_platform_prices(
    connection: Connection,
    *,
    tenant_monthly_fee_chf: Decimal | EllipsisType = ...,
    tenant_setup_fee_chf: Decimal | EllipsisType = ...,
    threema_message_chf: Decimal | EllipsisType = ...,
    vat_rate_chli: Decimal | EllipsisType = ...,
) -> PlatformPrices:
    """Change the platform's prices that are given; `...`, the default, leaves one as it is.

    `updated_at` becomes now, unless no price is given: then nothing is written.

    Args:
        connection: in whose transaction they are written.
        tenant_monthly_fee_chf: CHF for a tenant and month, up to 8 digits and 2 decimals.
        tenant_setup_fee_chf: CHF for a new tenant, up to 8 digits and 2 decimals.
        threema_message_chf: CHF for a message, up to 5 digits and 5 decimals.
        vat_rate_chli: VAT in percent, up to 3 digits and 2 decimals.

    Returns:
        All prices as they are now.

    Raises:
        InvalidArgument: a price is no Decimal, is negative, or has more digits than its column holds.
        NotRecorded: the row that the migration puts there is missing.
    """
    prices = {
        "tenant_monthly_fee_chf": _given(_AMOUNT, "tenant_monthly_fee_chf", tenant_monthly_fee_chf),
        "tenant_setup_fee_chf": _given(_AMOUNT, "tenant_setup_fee_chf", tenant_setup_fee_chf),
        "threema_message_chf": _given(_UNIT_PRICE, "threema_message_chf", threema_message_chf),
        "vat_rate_chli": _given(_RATE, "vat_rate_chli", vat_rate_chli),
    }
    if all(price is None for price in prices.values()):
        return platform_prices(connection)
    return _priced(_rows(connection, class_row(PlatformPrices), "change_platform_prices", **prices))


def skill_prices(connection: Connection) -> list[SkillPrice]:
    """Read what every billable skill costs, in CHF a UTC day before VAT, in the order of the ids' code points.

    Args:
        connection: in whose transaction they are read.
    """
    return _rows(connection, class_row(SkillPrice), "read_skill_prices", skill=None)


def skill_price(connection: Connection, skill: str) -> SkillPrice | None:
    """Read what a skill costs, in CHF a UTC day before VAT.

    Args:
        connection: in whose transaction it is read.
        skill: its id.

    Returns:
        Its price; None: it is not billable.

    Raises:
        InvalidArgument: the id is empty or no text.
    """
    found = _rows(connection, class_row(SkillPrice), "read_skill_prices", skill=_id("skill", skill))
    return found[0] if found else None


def set_skill_price(connection: Connection, skill: str, daily_price_chf: Decimal) -> bool:
    """Make a skill billable, or change its price. The same price again changes nothing, not even `updated_at`.

    Args:
        connection: in whose transaction it is written.
        skill: its id.
        daily_price_chf: CHF for a UTC day before VAT, up to 5 digits and 5 decimals.

    Returns:
        Whether it was written.

    Raises:
        InvalidArgument: the price is no Decimal, is negative, or has more digits than its column holds; or the id is
            empty or no text.
    """
    price = _UNIT_PRICE.hold("daily_price_chf", daily_price_chf)
    return bool(_rows(connection, tuple_row, "set_skill_price", skill=_id("skill", skill), daily_price_chf=price))


def remove_skill_price(connection: Connection, skill: str) -> bool:
    """Make a skill one that is not billed, past days that are not invoiced yet included.

    Args:
        connection: in whose transaction it is removed.
        skill: its id.

    Returns:
        Whether it had a price.

    Raises:
        InvalidArgument: the id is empty or no text.
    """
    return bool(_rows(connection, tuple_row, "remove_skill_price", skill=_id("skill", skill)))


def org_billing(connection: Connection, org: str) -> OrgBilling:
    """Read how an organisation is billed. Where it has no settings yet, it gets the defaults.

    Args:
        connection: in whose transaction they are read, or made.
        org: the organisation.

    Raises:
        InvalidArgument: the organisation is empty or no text: settings belong to somebody.
    """
    (settings,) = _rows(connection, class_row(OrgBilling), "read_org_billing", org=_id("org", org))
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
    """Change the settings of an organisation that are given; `...`, the default, leaves one as it is.

    Where it has no settings yet, it gets the defaults first. `updated_at` becomes now, unless no setting is given:
    then this is `org_billing`.

    Args:
        connection: in whose transaction they are written.
        org: the organisation.
        pay_by_invoice: whether it pays by invoice, not by card.
        stripe_customer_id: its id at Stripe; None: it has none any more.
        auto_invoice_enabled: whether invoices are sent to it without a person.
        auto_reminders_enabled: whether reminders are.

    Returns:
        All settings as they are now.

    Raises:
        InvalidArgument: a setting is of another type, or the organisation or the customer id is empty.
    """
    flags = {
        "pay_by_invoice": pay_by_invoice,
        "auto_invoice_enabled": auto_invoice_enabled,
        "auto_reminders_enabled": auto_reminders_enabled,
    }
    changes = {name: None if value is ... else _flag(name, value) for name, value in flags.items()}
    sets_stripe_customer = stripe_customer_id is not ...
    customer = None
    if stripe_customer_id is not None and stripe_customer_id is not ...:
        customer = _id("stripe_customer_id", stripe_customer_id)
    settings = org_billing(connection, org)
    if not sets_stripe_customer and all(value is None for value in changes.values()):
        return settings
    (settings,) = _rows(
        connection,
        class_row(OrgBilling),
        "change_org_billing",
        org=org,
        sets_stripe_customer=sets_stripe_customer,
        stripe_customer_id=customer,
        **changes,
    )
    return settings


# the connection


class _Instant(Loader):
    """A timestamptz in UTC, whatever the session's time zone; one that a datetime cannot hold is FIRST or LAST."""

    format = Format.BINARY

    def load(self, data: Buffer) -> datetime:
        # microseconds; the infinities are the least and the greatest of them
        since = timedelta(microseconds=max(_LEAST, min(int.from_bytes(data, "big", signed=True), _GREATEST)))
        return _EPOCH + since


_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_LEAST = (FIRST - _EPOCH) // timedelta(microseconds=1)
_GREATEST = (LAST - _EPOCH) // timedelta(microseconds=1)


def _rows(connection: Connection, factory: BaseRowFactory[T], name: str, /, **parameters: Any) -> list[T]:
    """Run a query and return its rows, whatever cursors, rows and text formats the connection is set to."""
    with psycopg.Cursor(connection, row_factory=factory) as cursor:
        cursor.adapters.register_loader("timestamptz", _Instant)
        # binary: a text depends on DateStyle, and a portal may have made its numerics floats
        cursor.execute(query(name), parameters, binary=True)
        return cursor.fetchall()


def _suspension_event(
    connection: Connection, tenant: str, org: str | None, kind: str, occurred_at: datetime | None
) -> SuspensionEvent:
    (event,) = _rows(
        connection,
        class_row(SuspensionEvent),
        "record_suspension_event",
        tenant=_id("tenant", tenant),
        org=_org(org),
        kind=kind,
        occurred_at=None if occurred_at is None else _moment("occurred_at", occurred_at),
    )
    return event


def _priced(found: list[PlatformPrices]) -> PlatformPrices:
    if not found:
        raise NotRecorded(
            "The ledger has no platform prices: the row with id 1 is missing.",
            "Run `reconciler migrate`, which puts it there with all prices 0; then set them.",
        )
    return found[0]


# what may stand in the ledger


@dataclass(frozen=True, slots=True)
class _Numeric:
    """A column numeric(precision, scale)."""

    precision: int
    scale: int

    def hold(self, name: str, value: object) -> Decimal:
        """Return the value as the column holds it: PostgreSQL would round it silently."""
        if not isinstance(value, Decimal):
            raise InvalidArgument(
                f"{name} is {value!r}, of type {type(value).__name__}: money is Decimal.",
                f'Nothing was written. Give Decimal("{value}"), or better what it was before it became this.',
            )
        digits = Context(prec=self.precision, traps=[Inexact, InvalidOperation])
        try:
            held = value.quantize(Decimal((0, (1,), -self.scale)), context=digits)
        except (Inexact, InvalidOperation):
            held = None
        if held is None or not held.is_finite() or held < 0:
            raise InvalidArgument(
                f"{name} is {value}: it must lie between 0 and {10 ** (self.precision - self.scale)}, "
                f"with at most {self.scale} decimals.",
                "Nothing was written. Round it as the price list does.",
            )
        return held


_AMOUNT = _Numeric(10, 2)
_UNIT_PRICE = _Numeric(10, 5)
_RATE = _Numeric(5, 2)


def _given(column: _Numeric, name: str, value: object) -> Decimal | None:
    return None if value is ... else column.hold(name, value)


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidArgument(f"{name} is {value!r}: it is True or False.", "Nothing was written. Give one of the two.")
    return value


def _id(name: str, value: object) -> str:
    if not isinstance(value, str):
        problem = f"of type {type(value).__name__}: an id is text"
    elif not value:
        problem = "empty"
    elif "\0" in value:
        problem = "text with a NUL character, which PostgreSQL cannot hold"
    elif value != value.encode(errors="replace").decode():
        problem = "text with half a surrogate pair, which UTF-8 cannot hold"
    else:
        return value
    raise InvalidArgument(f"{name} is {problem}.", "Nothing was written. Give the id as the cluster has it.")


def _ids(name: str, values: Iterable[str]) -> set[str]:
    if isinstance(values, str):
        raise InvalidArgument(
            f"{name} is one text: each of its characters would be a skill.",
            f'Nothing was written. Give a list: {name}=["{values}"].',
        )
    return {_id(name, value) for value in values}


def _org(value: str | None) -> str:
    return UNKNOWN_ORG if value is None or value == "" else _id("org", value)


def _utc(name: str, value: object) -> datetime:
    """Return an instant that is given in UTC itself: London is at +00:00 too, until summer comes."""
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise InvalidArgument(
            f"{name} is {value!r}: only a datetime with a time zone is an instant.",
            "Give an aware datetime in UTC, such as datetime.now(UTC).",
        )
    if value.utcoffset() != timedelta(0) or value.tzname() != "UTC":
        raise InvalidArgument(f"{name} is {value}: the ledger's times are UTC.", "Give it with .astimezone(UTC).")
    return value


def _moment(name: str, value: object) -> datetime:
    """Return an instant that something can have happened at."""
    instant = _utc(name, value)
    if not FIRST < instant < LAST:
        raise InvalidArgument(
            f"{name} is {instant}: a zero or an endless time is no moment.", "Give the time when it happened."
        )
    return instant


def _period(since: datetime, until: datetime) -> dict[str, datetime]:
    period = {"since": _utc("since", since), "until": _utc("until", until)}
    if until < since:
        raise InvalidArgument(f"until, {until}, lies before since, {since}.", "Give the earlier time first.")
    return period


def _whose(tenant: str | None, org: str | None) -> dict[str, str | None]:
    if tenant is None and org is None:
        raise InvalidArgument("Neither a tenant nor an organisation is given.", "Give tenant=…, org=…, or both.")
    return {
        "tenant": None if tenant is None else _id("tenant", tenant),
        "org": None if org is None else _org(org),
    }
