"""Arguments that the ledger cannot hold."""

from __future__ import annotations

from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4
from zoneinfo import ZoneInfo

import psycopg
import pytest
from psycopg import sql
from psycopg.pq import TransactionStatus

from reconciler import ledger as ledger_api
from reconciler.core.errors import Failure
from reconciler.core.model import FIRST, LAST, Lifecycle
from reconciler.ledger import InvalidArgument
from tests.support import citus
from tests.support.ledger_calls import ALL_TIME, BORN, Connection, record_acme
from tests.support.ledger_rows import all_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IDS: dict[str, Callable[[Connection, Any], object]] = {
    "record_creation": lambda c, id_: ledger_api.record_creation(c, id_, "2871", BORN),
    "record_deletion": ledger_api.record_deletion,
    "lifecycle": ledger_api.lifecycle,
    "record_skills tenant": lambda c, id_: ledger_api.record_skills(c, id_, "2871", enabled=["mail"]),
    "record_skills nothing": lambda c, id_: ledger_api.record_skills(c, id_, "2871"),
    "record_skills enabled": lambda c, id_: ledger_api.record_skills(c, "acme", "2871", enabled=[id_]),
    "record_skills disabled": lambda c, id_: ledger_api.record_skills(c, "acme", "2871", disabled=["mail", id_]),
    "record_suspension": lambda c, id_: ledger_api.record_suspension(c, id_, "2871"),
    "record_resumption": lambda c, id_: ledger_api.record_resumption(c, id_, "2871"),
    "skill_state_at": lambda c, id_: ledger_api.skill_state_at(c, id_, BORN),
    "suspension_state_at": lambda c, id_: ledger_api.suspension_state_at(c, id_, BORN),
    "skill_price": ledger_api.skill_price,
    "set_skill_price": lambda c, id_: ledger_api.set_skill_price(c, id_, Decimal(1)),
    "remove_skill_price": ledger_api.remove_skill_price,
    "org_billing": ledger_api.org_billing,
    "change_org_billing": lambda c, id_: ledger_api.change_org_billing(c, id_, pay_by_invoice=True),
}
ORGS: dict[str, Callable[[Connection, Any], object]] = {
    "record_creation": lambda c, org: ledger_api.record_creation(c, "acme", org, BORN),
    "lifecycles": ledger_api.lifecycles,
    "record_skills": lambda c, org: ledger_api.record_skills(c, "acme", org, enabled=["mail"]),
    "record_suspension": lambda c, org: ledger_api.record_suspension(c, "acme", org),
    "skill_events": lambda c, org: ledger_api.skill_events(c, *ALL_TIME, org=org),
    "suspension_events": lambda c, org: ledger_api.suspension_events(c, *ALL_TIME, org=org),
    "stripe_customer_id": lambda c, org: ledger_api.change_org_billing(c, "2871", stripe_customer_id=org),
}
"""Those that accept an empty value, or None."""

BAD_IDS: list[Any] = ["a\0b", "\ud800", 2871, b"acme", ["acme"]]


@pytest.fixture(scope="module")
def ledger_url(postgres_url: str, template: str) -> Iterator[str]:
    """A ledger with acme for all tests of this file: what is rejected leaves it as it is."""
    name = f"arguments_{uuid4().hex}"
    url = urlsplit(postgres_url)._replace(path=f"/{name}").geturl()
    citus.on_every_node(postgres_url, "CREATE DATABASE {} TEMPLATE {}", name, template)
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        record_acme(connection)
    yield url
    citus.on_every_node(postgres_url, "DROP DATABASE {} WITH (FORCE)", name)


@contextmanager
def unchanged(url: str) -> Iterator[None]:
    """Expect that nothing is written."""
    before = all_rows(url)
    yield
    assert all_rows(url) == before


@contextmanager
def rejected(ledger: Connection, says: str | None = None) -> Iterator[None]:
    """Expect InvalidArgument with a remedy, after which the transaction goes on."""
    with ledger.transaction():
        with pytest.raises(InvalidArgument, match=says) as raised:
            yield
        assert ledger.info.transaction_status == TransactionStatus.INTRANS
    assert isinstance(raised.value, Failure)
    assert isinstance(raised.value, ValueError)
    assert raised.value.remedy


@pytest.mark.parametrize("value", ["", None, *BAD_IDS], ids=ascii)
def test_an_invalid_id_is_rejected(ledger: Connection, ledger_url: str, value: Any) -> None:
    with unchanged(ledger_url):
        for call in IDS.values():
            with rejected(ledger):
                call(ledger, value)


@pytest.mark.parametrize("value", BAD_IDS, ids=ascii)
def test_an_invalid_organisation_is_rejected(ledger: Connection, ledger_url: str, value: Any) -> None:
    with unchanged(ledger_url):
        for call in ORGS.values():
            with rejected(ledger):
                call(ledger, value)


def test_an_empty_customer_id_is_rejected(ledger: Connection, ledger_url: str) -> None:
    with unchanged(ledger_url), rejected(ledger, "stripe_customer_id is empty"):
        ledger_api.change_org_billing(ledger, "2871", stripe_customer_id="")


UNUSUAL_TEXTS = ["a'; DROP TABLE invoices; --", "%s %(org)s", "\\", "tab\tline\n", "Ünïcödé 😀", "null", "{}", '"']


@pytest.mark.parametrize("text", UNUSUAL_TEXTS)
def test_any_other_text_comes_back_unchanged(ledger: Connection, text: str) -> None:
    ledger_api.record_creation(ledger, text, text, BORN)
    (event,) = ledger_api.record_skills(ledger, text, text, enabled=[text], occurred_at=BORN)
    assert (event.tenant, event.org, event.skill) == (text, text, text)
    assert ledger_api.lifecycles(ledger, text) == {text: Lifecycle(org=text, created_at=BORN)}
    assert ledger_api.skill_state_at(ledger, text, BORN) == {text: event}
    assert ledger_api.change_org_billing(ledger, text, stripe_customer_id=text).stripe_customer_id == text


MOMENTS: dict[str, Callable[[Connection, Any], object]] = {
    "record_creation": lambda c, at: ledger_api.record_creation(c, "acme", "2871", at),
    "record_deletion": lambda c, at: ledger_api.record_deletion(c, "acme", at),
    "record_skills": lambda c, at: ledger_api.record_skills(c, "acme", "2871", enabled=["mail"], occurred_at=at),
    "record_skills nothing": lambda c, at: ledger_api.record_skills(c, "acme", "2871", occurred_at=at),
    "record_suspension": lambda c, at: ledger_api.record_suspension(c, "acme", "2871", at),
    "record_resumption": lambda c, at: ledger_api.record_resumption(c, "acme", "2871", at),
}
INSTANT_READERS: dict[str, Callable[[Connection, Any], object]] = {
    "skill_state_at": lambda c, at: ledger_api.skill_state_at(c, "acme", at),
    "suspension_state_at": lambda c, at: ledger_api.suspension_state_at(c, "acme", at),
    "skill_events since": lambda c, at: ledger_api.skill_events(c, at, ALL_TIME[1], tenant="acme"),
    "suspension_events until": lambda c, at: ledger_api.suspension_events(c, ALL_TIME[0], at, tenant="acme"),
}


@pytest.mark.parametrize(
    ("instant", "says"),
    [
        (BORN.replace(tzinfo=None), "a datetime with a time zone"),
        (BORN.date(), "a datetime with a time zone"),
        ("2026-05-04T09:30:00Z", "a datetime with a time zone"),
        (BORN.timestamp(), "a datetime with a time zone"),
        (BORN.astimezone(timezone(timedelta(hours=2))), "are in UTC"),
        (BORN.astimezone(ZoneInfo("Europe/Zurich")), "are in UTC"),
        (datetime(2026, 1, 4, 9, 30, tzinfo=ZoneInfo("Europe/London")), "are in UTC"),
    ],
    ids=repr,
)
def test_a_time_that_is_not_in_utc_is_rejected(ledger: Connection, ledger_url: str, instant: Any, says: str) -> None:
    """London's in winter too, or it would be accepted until summer."""
    with unchanged(ledger_url):
        for call in (MOMENTS | INSTANT_READERS).values():
            with rejected(ledger, says):
                call(ledger, instant)


@pytest.mark.parametrize("zone", [UTC, ZoneInfo("UTC"), ZoneInfo("Etc/UTC"), timezone(timedelta(0), "UTC")], ids=repr)
def test_every_spelling_of_utc_is_accepted(ledger: Connection, zone: Any) -> None:
    name = repr(zone)
    assert ledger_api.record_creation(ledger, name, "2871", BORN.astimezone(zone))
    assert ledger_api.lifecycle(ledger, name) == Lifecycle(org="2871", created_at=BORN)


@pytest.mark.parametrize("instant", [*ALL_TIME, FIRST, LAST])
def test_a_placeholder_time_bounds_a_period_but_is_not_a_moment(
    ledger: Connection, ledger_url: str, instant: datetime
) -> None:
    with unchanged(ledger_url):
        for call in MOMENTS.values():
            with rejected(ledger, "nothing can have happened then"):
                call(ledger, instant)
    for call in INSTANT_READERS.values():
        call(ledger, instant)


def test_a_period_that_ends_before_it_starts_is_rejected(ledger: Connection, ledger_url: str) -> None:
    with unchanged(ledger_url):
        for events in (ledger_api.skill_events, ledger_api.suspension_events):
            with rejected(ledger, "before"):
                events(ledger, BORN, BORN - timedelta(microseconds=1), tenant="acme")


def test_reading_events_needs_a_tenant_or_an_organisation(ledger: Connection, ledger_url: str) -> None:
    with unchanged(ledger_url):
        for events in (ledger_api.skill_events, ledger_api.suspension_events):
            with rejected(ledger, "Neither"):
                events(ledger, *ALL_TIME)


def test_turning_a_skill_on_and_off_at_once_is_rejected(ledger: Connection, ledger_url: str) -> None:
    with unchanged(ledger_url), rejected(ledger, "^mail: "):
        ledger_api.record_skills(ledger, "acme", "2871", enabled=["mail", "wiki"], disabled=["mail"])


def test_a_single_string_is_not_a_list_of_skills(ledger: Connection, ledger_url: str) -> None:
    with unchanged(ledger_url):
        for side in ("enabled", "disabled"):
            with rejected(ledger, side):
                ledger_api.record_skills(ledger, "acme", "2871", **{side: "mail"})  # type: ignore[arg-type]


MONEY: dict[str, tuple[str, Callable[[Connection, Any], object]]] = {
    "tenant_monthly_fee_chf": (
        "platform_pricing",
        lambda c, value: ledger_api.change_platform_prices(c, tenant_monthly_fee_chf=value),
    ),
    "tenant_setup_fee_chf": (
        "platform_pricing",
        lambda c, value: ledger_api.change_platform_prices(c, tenant_setup_fee_chf=value),
    ),
    "threema_message_chf": (
        "platform_pricing",
        lambda c, value: ledger_api.change_platform_prices(c, threema_message_chf=value),
    ),
    "vat_rate_chli": ("platform_pricing", lambda c, value: ledger_api.change_platform_prices(c, vat_rate_chli=value)),
    "daily_price_chf": ("skill_pricing", lambda c, value: ledger_api.set_skill_price(c, "mail", value)),
}
each_amount = pytest.mark.parametrize("name", MONEY)


@each_amount
def test_an_amount_keeps_every_digit_or_is_rejected(ledger: Connection, ledger_url: str, name: str) -> None:
    """Regardless of the precision of the caller's decimal context."""
    table, change = MONEY[name]
    select = sql.SQL("SELECT {} FROM {}").format(sql.Identifier(name), sql.Identifier(table))
    ((precision, scale),) = ledger.execute(
        "SELECT numeric_precision, numeric_scale FROM information_schema.columns "
        "WHERE table_name = %s AND column_name = %s",
        [table, name],
    ).fetchall()
    least = Decimal(1).scaleb(-scale)
    greatest = Decimal(10) ** (precision - scale) - least
    with localcontext(prec=2):
        for value in (least, greatest, Decimal(0), Decimal(f"{greatest}0000"), Decimal("1E+1")):
            change(ledger, value)
            assert ledger.execute(select).fetchall() == [(value,)]
        for text in (f"0.{'0' * scale}1", f"1{'0' * (precision - scale)}", f"{greatest}5"):
            with unchanged(ledger_url), rejected(ledger, name):
                change(ledger, Decimal(text))


@each_amount
@pytest.mark.parametrize("text", ["-1", "NaN", "sNaN", "Infinity", "-Infinity", "1E+999999", "1E-999999"])
def test_an_invalid_price_is_rejected(ledger: Connection, ledger_url: str, name: str, text: str) -> None:
    with unchanged(ledger_url), rejected(ledger, name):
        MONEY[name][1](ledger, Decimal(text))


@each_amount
@pytest.mark.parametrize("value", [0.6, 1, "0.60", None, True], ids=repr)
def test_money_that_is_not_a_decimal_is_rejected(ledger: Connection, ledger_url: str, name: str, value: Any) -> None:
    with unchanged(ledger_url), rejected(ledger, "money is Decimal"):
        MONEY[name][1](ledger, value)


@pytest.mark.parametrize("name", ["pay_by_invoice", "auto_invoice_enabled", "auto_reminders_enabled"])
@pytest.mark.parametrize("value", [None, 1, "false"], ids=repr)
def test_a_setting_other_than_true_or_false_is_rejected(
    ledger: Connection, ledger_url: str, name: str, value: Any
) -> None:
    """None above all: SQL would read it as a setting that is not given."""
    with unchanged(ledger_url), rejected(ledger, name):
        ledger_api.change_org_billing(ledger, "2871", **{name: value})
