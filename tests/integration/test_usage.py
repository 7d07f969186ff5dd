"""What is billed, from a real ledger: compared with the rules in Python, and as people and programs read it."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from reconciler.core.billing import FEE, NOTHING, History, Lifetime, Line, Payer, Prices, Statement, in_order, lines
from reconciler.core.model import FIRST, LAST, Event
from reconciler.core.reasons import Reason
from reconciler.db.certificate import MAX_NAMES
from reconciler.db.connection import connect, transaction
from reconciler.db.usage import NotAPrice, as_of, histories, prices, statement
from reconciler.views.usage import COLUMNS, MAX_ROWS, document, printed, summary, table_of_values
from tests.support.command import Ran, invoke
from tests.support.pages import PAGES, fenced, names, table
from tests.unit import test_billing
from tests.unit.test_billing import (
    JUNE,
    MAY,
    ORGS,
    WORKED,
    any_prices,
    corrected,
    correction,
    may,
    on,
    periods,
    valued,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

Connection = psycopg.Connection[Any]

WITHIN = settings(max_examples=60)
ODD: Final = {FIRST: ("-infinity", "0044-03-15 00:00:00+00 BC"), LAST: ("infinity", "294276-12-31 23:59:59+00")}
"""Times of PostgreSQL that become the first or the last one in Python."""


def _text(at: datetime | None, number: int = 0) -> str | None:
    return None if at is None else ODD[at][number % 2] if at in ODD else at.isoformat()


def write_histories(cursor: psycopg.Cursor[Any], of: Mapping[str, History], at: Prices, *, current: int = -1) -> None:
    """Replace the ledger by these histories; `current` chooses the lifetime that a tenant's row holds."""
    cursor.execute(
        "TRUNCATE tenant_billing_lifecycle, tenant_skill_events, tenant_suspension_events, skill_pricing, "
        "reconciler.closed_lives, reconciler.payers"
    )
    cursor.execute("UPDATE platform_pricing SET tenant_monthly_fee_chf = %s", [at.monthly_fee_chf])
    for skill, price in at.daily_chf.items():
        cursor.execute("INSERT INTO skill_pricing VALUES (%s, %s)", [skill, price])
    for tenant, history in of.items():
        for number, lifetime in enumerate(history.lifetimes):
            row: list[str | None] = [
                tenant,
                lifetime.org,
                _text(lifetime.began_at, number),
                _text(lifetime.ended_at, number),
            ]
            if number == current % len(history.lifetimes):
                cursor.execute("INSERT INTO tenant_billing_lifecycle VALUES (%s, %s, %s, %s)", row)
            else:
                cursor.execute(
                    "INSERT INTO reconciler.closed_lives VALUES "
                    "(%s, %s, %s, coalesce(%s, 'infinity')::timestamptz, now(), 'me', 'again') ON CONFLICT DO NOTHING",
                    row,
                )
        for number, payer in enumerate(history.lifetimes[0].payers if history.lifetimes else ()):
            write_payer(cursor, tenant, number, payer)
        for item, events in history.items.items():
            for event in sorted(events):
                append_event(cursor, tenant, item, event)


def write_payer(cursor: psycopg.Cursor[Any], tenant: str, number: int, payer: Payer) -> None:
    """Write a decision about who pays."""
    is_open = payer.last == date.max.toordinal()
    until = "infinity" if is_open else date.fromordinal(payer.last + 1).isoformat()
    cursor.execute(
        "INSERT INTO reconciler.payers VALUES ('', %s, %s, %s, %s, %s)",
        [tenant, number, payer.org, date.fromordinal(payer.first), until],
    )


def append_event(cursor: psycopg.Cursor[Any], tenant: str, skill: str | None, event: Event) -> None:
    """Write an event with the next id."""
    at = _text(event.occurred_at, event.id)
    if skill is None:
        cursor.execute(
            "INSERT INTO tenant_suspension_events (tenant_name, zitadel_org_id, event_kind, occurred_at) "
            "VALUES (%s, '1', %s, %s)",
            [tenant, event.kind, at],
        )
    else:
        cursor.execute(
            "INSERT INTO tenant_skill_events (tenant_name, zitadel_org_id, skill_id, event_kind, occurred_at) "
            "VALUES (%s, '1', %s, %s, %s)",
            [tenant, skill, event.kind, at],
        )


def usage(
    cursor: psycopg.Cursor[Any], first: date, until: date, org: str | None = None, tenant: str | None = None
) -> list[Line]:
    """Return the lines that the query gives for the ledger."""
    return list(statement(cursor, first, until, org, tenant).lines)


def whole_histories(
    cursor: psycopg.Cursor[Any], names: Sequence[str], items: AbstractSet[tuple[str, str | None]] = frozenset()
) -> dict[str, History]:
    """Return what `histories` reads, by tenant."""
    found = {}
    for name, lifetimes, its in histories(cursor, names, items):
        skills = {item: tuple(events) for item, events in its}
        suspensions = skills.pop(FEE, ())
        found[name] = History(
            lifetimes=lifetimes, skills={str(item): events for item, events in skills.items()}, suspensions=suspensions
        )
    return found


def lines_by_rules(cursor: psycopg.Cursor[Any], tenants: Sequence[str], first: date, until: date) -> list[Line]:
    """Return the lines that the rules in Python give for the ledger."""
    at, now = prices(cursor), as_of(cursor)
    read = whole_histories(cursor, tenants)
    made = [line for name in tenants for line in lines(name, read[name], at, first=first, until=until, as_of=now)]
    return sorted(made, key=in_order)


# --- one query, and the rules in Python --------------------------------------------------------------------------

TENANTS = ("acme", "beta", "çà")


@WITHIN
@given(
    of=st.fixed_dictionaries(dict.fromkeys(TENANTS, test_billing.histories())),
    at=any_prices,
    period=periods,
    current=st.integers(-3, -1),
)
def test_the_query_says_what_the_rules_say(
    ledger: Connection, of: dict[str, History], at: Prices, period: Sequence[date], current: int
) -> None:
    """To the rappen, on any history; and of an organisation or a tenant alone, the same lines."""
    first, until = period
    with transaction(ledger) as cursor:
        write_histories(cursor, of, at, current=current)
        found = usage(cursor, first, until)
        assert found == lines_by_rules(cursor, TENANTS, first, until)
        for org in ORGS:
            assert usage(cursor, first, until, org) == [line for line in found if line.org == org]
        for tenant in TENANTS:
            assert usage(cursor, first, until, None, tenant) == [line for line in found if line.tenant == tenant]
            assert usage(cursor, first, until, "1", tenant) == [
                line for line in found if (line.org, line.tenant) == ("1", tenant)
            ]


@WITHIN
@given(
    hours=st.lists(st.integers(-100, 30), max_size=4, unique=True),
    skill=st.lists(st.tuples(st.sampled_from(["enabled", "disabled"]), st.integers(-100, 30)), max_size=4),
)
def test_nothing_counts_from_now_on(ledger: Connection, hours: list[int], skill: list[tuple[str, int]]) -> None:
    """Lives and events around now, in months that are not over."""
    with transaction(ledger) as cursor:
        now = as_of(cursor)
        at = [now + timedelta(hours=hour) for hour in sorted(hours)]
        lifetimes = tuple(
            Lifetime(org="1", began_at=began, ended_at=ended) for began, ended in zip(at, [*at[1:], None], strict=False)
        )
        happened = [(kind, now + timedelta(hours=hour)) for kind, hour in skill]
        of = {"acme": History(lifetimes=lifetimes, skills={"files": test_billing.events(*happened)})}
        write_histories(cursor, of, test_billing.PRICES)
        period = (now - timedelta(days=40)).date(), (now + timedelta(days=40)).date()
        found = usage(cursor, *period)
        assert found == lines_by_rules(cursor, ["acme"], *period)
        drawn = lines("acme", of["acme"], test_billing.PRICES, first=period[0], until=period[1], as_of=now)
        assert found == list(drawn)


@pytest.mark.parametrize(
    ("lifetimes", "current", "days"),
    [
        ([("2", may(3), may(5)), ("1", may(3), None)], 1, [("1", 27), ("2", 2)]),
        ([("2", may(3), may(5)), ("1", may(4), may(9))], 0, [("1", 4), ("2", 2)]),
    ],
    ids=["they began at once", "the current one began first"],
)
def test_lifetimes_written_by_hand_are_ordered_by_their_beginning(
    ledger: Connection, lifetimes: list[tuple[str, datetime, datetime]], current: int, days: list[tuple[str, int]]
) -> None:
    """Of two that began at once, the one that is over comes first."""
    of = History(lifetimes=tuple(Lifetime(org=org, began_at=began, ended_at=ended) for org, began, ended in lifetimes))
    with transaction(ledger) as cursor:
        write_histories(cursor, {"acme": of}, test_billing.PRICES, current=current)
        assert [(line.org, line.days) for line in usage(cursor, MAY, JUNE)] == days
        assert whole_histories(cursor, ["acme"])["acme"].lifetimes == of.lifetimes


decisions = st.lists(
    st.tuples(st.sampled_from(["2", "3", "4"]), test_billing.days_of_payers, st.none() | st.integers(0, 20)), max_size=6
)


@WITHIN
@given(decided=decisions, numbers=st.permutations(range(6)), since=test_billing.near)
def test_the_latest_decision_about_a_day_says_who_pays(
    ledger: Connection,
    decided: list[tuple[str, int, int | None]],
    numbers: list[int],
    since: datetime,
) -> None:
    """However they overlap, and in whatever order they were written."""
    first, until = date(2026, 1, 1), date(2026, 4, 1)
    rows = {
        number: Payer(org, begin, date.max.toordinal() if more is None else begin + more)
        for number, (org, begin, more) in zip(numbers, decided, strict=False)
    }
    expected: dict[tuple[str, date], int] = {}
    for ordinal in range(max(since.date(), first).toordinal(), until.toordinal()):
        its = [row.org for _, row in sorted(rows.items()) if row.first <= ordinal <= row.last]
        key = (["1", *its][-1], date.fromordinal(ordinal).replace(day=1))
        expected[key] = expected.get(key, 0) + 1
    of = History(lifetimes=(Lifetime(org="1", began_at=since),))
    with transaction(ledger) as cursor:
        write_histories(cursor, {"acme": of, "beta": of}, test_billing.PRICES)
        for number, row in rows.items():
            write_payer(cursor, "acme", number, row)
        found = usage(cursor, first, until)
        assert {(line.org, line.month): line.days for line in found if line.tenant == "acme"} == expected
        assert {line.org for line in found if line.tenant == "beta"} == {"1"}
        assert found == lines_by_rules(cursor, ["acme", "beta"], first, until)
        for org in "1234":
            assert usage(cursor, first, until, org) == [line for line in found if line.org == org]


@pytest.mark.parametrize(
    ("first", "until"),
    [("2026-05-15", "2026-05-15"), ("0001-01-01 BC", "2026-05-15"), ("2026-05-15", "10000-01-01")],
)
def test_days_that_a_program_cannot_hold_are_no_payers(ledger: Connection, first: str, until: str) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        ledger.execute("INSERT INTO reconciler.payers VALUES ('', 'acme', 1, '2', %s, %s)", [first, until])


def test_a_period_may_be_as_long_as_there_are_days(ledger: Connection) -> None:
    with transaction(ledger) as cursor:
        write_histories(cursor, {"acme": WORKED}, test_billing.PRICES)
        assert usage(cursor, date.min, date.max) == usage(cursor, MAY, JUNE)


def test_an_empty_ledger_bills_nothing(ledger: Connection) -> None:
    with transaction(ledger) as cursor:
        assert usage(cursor, MAY, JUNE) == []


def test_nan_is_not_a_price(ledger: Connection) -> None:
    with transaction(ledger) as cursor:
        write_histories(cursor, {"acme": WORKED}, test_billing.PRICES)
        cursor.execute("UPDATE skill_pricing SET daily_price_chf = 'NaN' WHERE skill_id = 'files'")
        cursor.execute("UPDATE platform_pricing SET tenant_monthly_fee_chf = 'NaN'")
        with capture_logs() as logged:
            daily = {"files": NOTHING, "search": Decimal("0.33333")}
            assert prices(cursor) == Prices(monthly_fee_chf=NOTHING, daily_chf=daily)
        assert [line["price"] for line in logged] == ["The monthly fee", "The daily price of files"]
        with pytest.raises(NotAPrice, match="The monthly fee is NaN"):
            usage(cursor, MAY, JUNE)
        cursor.execute("UPDATE platform_pricing SET tenant_monthly_fee_chf = 0")
        with pytest.raises(NotAPrice, match="The daily price of files is NaN"):
            usage(cursor, MAY, JUNE)


def test_a_platform_without_prices_has_no_fee(ledger: Connection) -> None:
    with transaction(ledger) as cursor:
        write_histories(cursor, {"acme": WORKED}, test_billing.PRICES)
        cursor.execute("DELETE FROM platform_pricing")
        assert prices(cursor).monthly_fee_chf == NOTHING
        assert total(usage(cursor, MAY, JUNE)) == Decimal("1.96")


def total(of: Sequence[Line]) -> Decimal:
    return sum((line.amount_chf for line in of), NOTHING)


# --- histories ---------------------------------------------------------------------------------------------------


def test_a_history_is_read_as_it_was_written(ledger: Connection) -> None:
    """Lives by their beginning, events by their time and then their ids; of a tenant unheard of there is none."""
    again = replace(
        WORKED,
        lifetimes=(*WORKED.lifetimes, Lifetime(org="2", began_at=may(29))),
        skills={"files": test_billing.events(("enabled", may(3)), ("disabled", may(2)), ("disabled", may(3)))},
    )
    with transaction(ledger) as cursor:
        write_histories(cursor, {"acme": again, "beta": WORKED}, test_billing.PRICES)
        read = whole_histories(cursor, ["acme", "nobody"])
    assert read.keys() == {"acme", "nobody"}
    assert read["nobody"] == History()
    assert read["acme"].lifetimes == again.lifetimes
    assert [(event.kind, event.occurred_at) for event in read["acme"].skills["files"]] == [
        ("disabled", may(2)),
        ("enabled", may(3)),
        ("disabled", may(3)),
    ]
    assert [event.kind for event in read["acme"].suspensions] == ["suspended", "resumed"]


def test_only_the_named_item_of_a_tenant_is_read(ledger: Connection) -> None:
    both = replace(WORKED, skills={**WORKED.skills, "books": test_billing.events(("enabled", may(11)))})
    with transaction(ledger) as cursor:
        write_histories(cursor, {"acme": both, "beta": both, "gamma": both}, test_billing.PRICES)
        whole = whole_histories(cursor, ["acme", "beta", "gamma"])
        read = whole_histories(cursor, ["acme"], {("beta", "books"), ("gamma", None), ("nobody", "books")})
    assert read.keys() == {"acme", "beta", "gamma", "nobody"}
    assert read["acme"] == whole["acme"]
    assert read["beta"] == replace(whole["beta"], skills={"books": whole["beta"].skills["books"]})
    assert read["gamma"] == replace(whole["gamma"], skills={})
    assert read["nobody"] == History()


def test_times_beyond_pythons_come_as_the_ends_of_its_own(ledger: Connection) -> None:
    of = History(
        lifetimes=(Lifetime(org="1", began_at=FIRST, ended_at=LAST),),
        skills={"files": test_billing.events(("enabled", FIRST), ("disabled", LAST), ("enabled", LAST))},
    )
    with transaction(ledger) as cursor:
        write_histories(cursor, {"acme": of}, test_billing.PRICES)
        (read,) = whole_histories(cursor, ["acme"]).values()
    assert read.lifetimes == of.lifetimes
    assert [event.occurred_at for event in read.skills["files"]] == [FIRST, LAST, LAST]


CORRECTIONS = [
    (Reason.SKILL_ENABLE_UNRECORDED, "books", may(25, 12)),
    (Reason.SKILL_DISABLE_UNRECORDED, "search", may(27, 12)),
    (Reason.SUSPENSION_UNRECORDED, None, may(20)),
    (Reason.ORG_RESOLVED, None, may(10)),
    (Reason.DELETION_UNRECORDED, None, may(26, 12)),
    (Reason.SKILL_OPEN_AFTER_DELETION, "books", may(26, 12)),
]


def test_impacts_are_what_the_query_says_less_what_it_said(ledger: Connection) -> None:
    """Each correction is written to the ledger in turn, and the usage read before and after it."""
    open_ = replace(WORKED, lifetimes=(Lifetime(org="unknown", began_at=may(10, 8, 15)),))
    at = replace(test_billing.PRICES, daily_chf={**test_billing.PRICES.daily_chf, "books": Decimal("1.11111")})
    made = [correction(reason, moment, subject=skill, org="7") for reason, skill, moment in CORRECTIONS]
    with transaction(ledger) as cursor:
        write_histories(cursor, {"acme": open_}, at)
        (read,) = whole_histories(cursor, ["acme"]).values()
        now = as_of(cursor)
        everything = date(2026, 1, 1), (now + timedelta(days=1)).date()
        for priced in valued(made, read, prices(cursor), now):
            before = total(usage(cursor, *everything))
            if priced.reason is Reason.DELETION_UNRECORDED:
                cursor.execute("UPDATE tenant_billing_lifecycle SET deleted_at = %s", [may(26, 12)])
            elif priced.reason is Reason.ORG_RESOLVED:
                cursor.execute("UPDATE tenant_billing_lifecycle SET zitadel_org_id = '7'")
            else:
                assert priced.moment
                append_event(
                    cursor,
                    "acme",
                    priced.subject,
                    Event(0, test_billing.APPENDED[priced.reason], priced.moment.occurred_at),
                )
            assert total(usage(cursor, *everything)) - before == priced.impact_chf, priced
            read = corrected(read, priced)
        assert usage(cursor, *everything) == list(
            lines("acme", read, at, first=everything[0], until=everything[1], as_of=now)
        )


# --- what people and programs get --------------------------------------------------------------------------------


def make_line(org: str, tenant: str, item: str | None, amount: str, price: str | None = "0.12500") -> Line:
    return Line(
        org=org,
        tenant=tenant,
        item=item,
        month=MAY,
        days=5,
        price_chf=None if price is None else Decimal(price),
        amount_chf=Decimal(amount),
    )


def make_statement(*of: Line, at: datetime = test_billing.LATER) -> Statement:
    return Statement(first=MAY, until=JUNE, as_of=at, lines=of, vat_rate=Decimal("8.10"))


NOT_INCLUDED = "VAT (8.10 %), setup fees, AI usage and messages are not included. Days are UTC days."
LEFT_OUT = ["8.10", "UTC", "setup fees, AI usage and messages"]
SOME = make_statement(
    make_line("1", "acme", FEE, "26.87", "49.00"),
    make_line("1", "acme", "files", "0.63"),
    make_line("1", "beta", "books", "0.00", None),
    make_line("2", "cara", "files", "0.63"),
    make_line("unknown", "dana", "files", "0.50"),
)


def test_the_table_has_subtotals_and_lists_the_unknown_organisation_apart() -> None:
    *made, _, said, left_out = printed(SOME).splitlines()
    assert made == [
        "ORGANISATION  TENANT  ITEM         MONTH    DAYS    PRICE    CHF",
        "1             acme    monthly fee  2026-05     5    49.00  26.87",
        "                      files        2026-05     5  0.12500   0.63",
        "              beta    books        2026-05     5        -   0.00",
        "1                                                          27.50",
        "",
        "2             cara    files        2026-05     5  0.12500   0.63",
        "2                                                           0.63",
        "",
        "unknown       dana    files        2026-05     5  0.12500   0.50",
        "unknown                                                     0.50",
    ]
    assert said == (
        "2026-05-01 to 2026-05-31: CHF 28.63 before VAT, 4 tenants, 2 organisations. "
        "CHF 0.50 of it cannot be invoiced: the organisation is unknown."
    )
    assert left_out == NOT_INCLUDED


def test_an_open_period_says_up_to_when_it_is_counted() -> None:
    assert summary(make_statement(make_line("1", "acme", "files", "0.63"), at=may(20, 9, 30))) == (
        "2026-05-01 to 2026-05-31: CHF 0.63 before VAT, 1 tenant, 1 organisation. "
        "The period is not over: it is counted up to 2026-05-20 09:30:00 UTC."
    )


def test_a_long_table_is_cut_and_the_rest_counted() -> None:
    many = make_statement(*(make_line("1", f"t{number:05}", "files", "0.01") for number in range(MAX_ROWS + 7)))
    *_, subtotal, more, _, said, _ = printed(many).splitlines()
    assert subtotal.split() == ["1", "10.07"]
    assert more == "… and 7 more; --output csv shows all"
    assert "CHF 10.07 before VAT, 1007 tenants" in said


def test_what_could_steer_a_terminal_is_shown_as_text() -> None:
    assert "\x1b" not in printed(make_statement(make_line("1\x1b[31m", "acme\n", "[bold]\x1b]0;", "0.63")))
    assert "[bold]" in printed(make_statement(make_line("1", "acme", "[bold]", "0.63")))


def test_the_csv_has_a_row_for_each_line() -> None:
    rows = list(csv.reader(io.StringIO("".join(table_of_values(SOME)))))
    assert rows[0] == [*COLUMNS, "vat_rate", "time_zone", "not_included"]
    assert rows[1:3] == [
        ["1", "acme", "", "2026-05-01", "5", "49.00", "26.87", *LEFT_OUT],
        ["1", "acme", "files", "2026-05-01", "5", "0.12500", "0.63", *LEFT_OUT],
    ]
    assert rows[3][5:7] == ["", "0.00"]
    assert len(rows) == 1 + len([*SOME.lines])


@pytest.mark.parametrize("text", ['a"b', "a,b", "a\nb", "a;b", " a"])
def test_the_csv_can_hold_any_text(text: str) -> None:
    made = "".join(table_of_values(make_statement(make_line("1", text, text, "0.63"))))
    (_, row) = csv.reader(io.StringIO(made))
    assert row[1:3] == [text, text]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1"])
def test_no_cell_of_the_csv_is_a_formula(text: str) -> None:
    made = "".join(table_of_values(make_statement(make_line("1", text, text, "0.63"))))
    (_, row) = csv.reader(io.StringIO(made))
    assert row[1:3] == [f"'{text}"] * 2


def test_the_json_has_chf_as_text_and_days_as_days() -> None:
    made = json.loads("".join(document(SOME)))
    assert made | {"lines": []} == {
        "first_day": "2026-05-01",
        "last_day": "2026-05-31",
        "as_of": "2026-09-01T00:00:00Z",
        "total_chf": "28.63",
        "unknown_chf": "0.50",
        "vat_rate": "8.10",
        "kept_vat_rates": {},
        "closings": {},
        "closed_for": {},
        "time_zone": "UTC",
        "not_included": "setup fees, AI usage and messages",
        "not_taken_in_chf": "0.00",
        "lines": [],
    }
    assert made["lines"][0] == {
        "org": "1",
        "tenant": "acme",
        "item": None,
        "month": "2026-05-01",
        "days": 5,
        "price_chf": "49.00",
        "amount_chf": "26.87",
    }
    assert made["lines"][2]["price_chf"] is None


def test_a_period_without_usage_says_so_and_shows_no_table() -> None:
    said = "2026-05-01 to 2026-05-31: CHF 0.00 before VAT, 0 tenants, 0 organisations."
    assert printed(make_statement()) == f"{said}\n{NOT_INCLUDED}"


# --- the docs' month --------------------------------------------------------------------------------------------


def documented_month() -> tuple[History, Prices]:
    """Return the history and the prices of the example, as its tables say."""
    lived: dict[str, datetime] = {}
    happened: dict[str | None, list[tuple[str, datetime]]] = {FEE: []}
    for when, what, skill in table("docs/billing.md", "when (UTC)"):
        at = datetime.fromisoformat(f"{when}+00:00")
        if what in {"created", "deleted"}:
            lived[what] = at
        else:
            happened.setdefault(next(iter(names(skill)), FEE), []).append((what, at))
    made = {item: test_billing.events(*some) for item, some in happened.items()}
    suspensions = made.pop(FEE)
    lifetimes = (Lifetime(org="287100000000000006", began_at=lived["created"], ended_at=lived["deleted"]),)
    of = History(lifetimes=lifetimes, skills={str(item): some for item, some in made.items()}, suspensions=suspensions)
    fee, *daily = table("docs/billing.md", "item")
    priced = {names(item)[0]: Decimal(price) for item, price, *_ in daily if price != "none"}
    return of, Prices(monthly_fee_chf=Decimal(fee[1]), daily_chf=priced)


def test_the_documented_figures_follow_the_rules() -> None:
    of, at = documented_month()
    explained = [
        (next(iter(names(item)), FEE), int(days), Decimal(amount))
        for item, _, days, amount, _ in table("docs/billing.md", "item")
    ]
    computed = lines("hotel-seeblick", of, at, first=MAY, until=JUNE, as_of=test_billing.LATER)
    assert [(line.item, line.days, line.amount_chf) for line in computed] == explained


def test_the_command_prints_the_documented_month(ledger: Connection, command: Command) -> None:
    of, at = documented_month()
    with transaction(ledger) as cursor:
        write_histories(cursor, {"hotel-seeblick": of}, at)
    assert command("--month", "2026-05").out in fenced(PAGES["docs/billing.md"])


def test_the_documented_shares_follow_the_rules(ledger: Connection) -> None:
    """Who moves to another organisation on the 15th of May."""
    shares = table("docs/billing.md", "organisation")
    payers = test_billing.paid(("B", date(2026, 5, 15), date.max))
    of = History(lifetimes=(Lifetime(org="A", began_at=may(1), payers=payers),))
    with transaction(ledger) as cursor:
        write_histories(cursor, {"acme": of}, Prices(monthly_fee_chf=Decimal("49.00")))
        found = usage(cursor, MAY, JUNE)
    assert [[line.org, str(line.days), str(line.amount_chf)] for line in found] == [row[:3] for row in shares]


# --- the command -------------------------------------------------------------------------------------------------


class Command:
    """Runs `reconciler usage` on a ledger."""

    def __init__(self, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.url, self.monkeypatch, self.capsys = url, monkeypatch, capsys

    def __call__(self, *arguments: str) -> Ran:
        return invoke(self.monkeypatch, self.capsys, "usage", *arguments, environment={"DATABASE_URL": self.url})


@pytest.fixture
def command(ledger_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(ledger_url, monkeypatch, capsys)


@pytest.fixture
def may_ledger(ledger: Connection) -> Connection:
    """A ledger with the month worked by hand, and a tenant without an organisation."""
    nobodys = History(lifetimes=(Lifetime(org="unknown", began_at=may(1)),), skills={"files": on((may(1), may(2)))})
    with transaction(ledger) as cursor:
        write_histories(cursor, {"acme": WORKED, "beta": nobodys}, test_billing.PRICES)
    return ledger


@pytest.mark.usefixtures("may_ledger")
def test_both_days_of_a_period_are_included(command: Command) -> None:
    made = command("--from", "2026-05-10", "--to", "2026-05-12", "--output", "json").document
    assert (made["first_day"], made["last_day"]) == ("2026-05-10", "2026-05-12")
    assert {line["item"]: line["days"] for line in made["lines"] if line["tenant"] == "acme"} == {None: 3, "search": 1}


@pytest.mark.usefixtures("may_ledger")
def test_a_month_is_its_days(command: Command) -> None:
    month, period = (
        command(*asked, "--output", "csv")
        for asked in (("--month", "2026-05"), ("--from", "2026-05-01", "--to", "2026-05-31"))
    )
    assert month.out == period.out
    assert month.code == 0
    assert len(month.out.splitlines()) == 1 + 4 + 2


@pytest.mark.usefixtures("may_ledger")
@pytest.mark.parametrize(
    ("asked", "tenants"),
    [
        (("--org", "2871"), {"acme"}),
        (("--org", "unknown"), {"beta"}),
        (("--tenant", "beta"), {"beta"}),
        (("--tenant", "beta", "--org", "2871"), set()),
    ],
)
def test_what_is_asked_for_alone(command: Command, asked: tuple[str, ...], tenants: set[str]) -> None:
    made = command("--month", "2026-05", *asked, "--output", "json").document
    assert {line["tenant"] for line in made["lines"]} == tenants


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ((), "--month 2026-05, or both --from"),
        (("--from", "2026-05-01"), "--month 2026-05, or both --from"),
        (("--to", "2026-05-01"), "--month 2026-05, or both --from"),
        (("--month", "2026-05", "--to", "2026-05-01"), "--month 2026-05, or both --from"),
        (("--from", "2026-05-02", "--to", "2026-05-01"), "is before"),
        (("--month", "2026-13"), "write it as 2026-05"),
        (("--month", "2026-5"), "write it as 2026-05"),
        (("--month", "May"), "write it as 2026-05"),
        (("--from", "2026-02-30", "--to", "2026-05-01"), "write it as 2026-05-01"),
        (("--from", "20260501", "--to", "2026-05-01"), "write it as 2026-05-01"),
        (("--from", "2026-05-01", "--to", "9999-12-31"), "write it as 2026-05-01"),
        (("--month", "9998-01"), "today is"),
    ],
)
def test_an_invalid_period_is_wrong_usage(command: Command, asked: tuple[str, ...], said: str) -> None:
    ran = command(*asked)
    assert (ran.code, ran.out) == (64, "")
    assert said in ran.err


@pytest.mark.usefixtures("may_ledger")
def test_the_role_of_the_runs_may_read_usage_and_histories(command: Command, role_url: str) -> None:
    as_owner = command("--month", "2026-05")
    command.url = role_url
    assert command("--month", "2026-05", "--verified").code == 3
    assert command("--month", "2026-05").out == as_owner.out
    with connect(role_url) as connection, transaction(connection) as cursor:
        assert whole_histories(cursor, ["acme"])["acme"].lifetimes == WORKED.lifetimes
        assert prices(cursor) == test_billing.PRICES


# --- verified ----------------------------------------------------------------------------------------------------

END = datetime(2026, 6, 1, tzinfo=UTC)
SETTLED = END + timedelta(seconds=60)


def record_run(
    ledger: Connection,
    at: datetime,
    *unverified: str,
    outcome: str = "clean",
    mode: str = "run",
    source: str = "cluster",
    settle: timedelta | None = None,
) -> None:
    """Insert the row of a run, and what it remembers: every tenant since its creation."""
    ledger.execute(
        "INSERT INTO reconciler.tenants (source, uid, tenant_name, resource_version, packages, suspended, "
        "suspend_is_set, created_at, since, gone_at) "
        "SELECT 'cluster', tenant_name || created_at, tenant_name, '1', '{}', false, true, created_at, created_at, "
        "deleted_at FROM (SELECT tenant_name, created_at, deleted_at FROM tenant_billing_lifecycle "
        "UNION SELECT tenant_name, created_at, deleted_at FROM reconciler.closed_lives) lived "
        "ON CONFLICT DO NOTHING"
    )
    ledger.execute(
        "INSERT INTO reconciler.runs (id, started_at, observed_at, mode, outcome, version, source, unverified, settle) "
        "VALUES (%s, %s, %s, %s, %s, '0', %s, %s, %s)",
        [uuid4(), at, at, mode, outcome, source, list(unverified), settle],
    )


def test_a_period_verified_to_its_end_is_shown(may_ledger: Connection, command: Command) -> None:
    record_run(may_ledger, SETTLED)
    assert command("--month", "2026-05", "--verified").out == command("--month", "2026-05").out


def test_nothing_is_verified_without_a_run(command: Command) -> None:
    refused = command("--month", "2026-05", "--verified")
    assert (refused.code, refused.out) == (3, "")
    assert "verified by no run yet" in refused.complaint["error"]
    assert "reconciler run" in refused.complaint["remedy"]


def test_a_run_proves_only_what_was_settled_when_it_began(may_ledger: Connection, command: Command) -> None:
    record_run(may_ledger, SETTLED - timedelta(seconds=1), settle=timedelta(seconds=59))
    refused = command("--month", "2026-05", "--verified")
    assert refused.code == 3
    assert "ends with 2026-05-31" in refused.complaint["error"]
    assert "verified only up to 2026-05-31 23:59:59 UTC" in refused.complaint["error"]
    assert command("--month", "2026-05", "--verified", "--settle", "59s").code == 0


@pytest.mark.parametrize(
    ("settle", "late", "code"),
    [
        pytest.param(timedelta(minutes=5), timedelta(seconds=299), 3, id="a run that waits 5 min - not a second less"),
        pytest.param(timedelta(minutes=5), timedelta(seconds=300), 0, id="a run that waits 5 min - proves after that"),
        pytest.param(timedelta(), timedelta(), 0, id="a run that does not wait - proves at once"),
        pytest.param(None, timedelta(seconds=59), 3, id="a run of an earlier version - not within the default"),
        pytest.param(None, timedelta(seconds=60), 0, id="a run of an earlier version - proves after the default"),
    ],
)
@pytest.mark.parametrize("reported", [False, True])
def test_what_is_asked_later_does_not_shorten_settle(
    may_ledger: Connection, command: Command, settle: timedelta | None, late: timedelta, code: int, *, reported: bool
) -> None:
    record_run(may_ledger, END + late, settle=settle)
    if reported:
        record_run(may_ledger, END + timedelta(days=1), "acme", outcome="drift")
    assert command("--month", "2026-05", "--verified", "--settle", "0s").code == code


@pytest.mark.parametrize(
    "which",
    [
        {"outcome": "failed"},
        {"outcome": "blocked"},
        {"mode": "plan"},
        {"source": "snapshot"},
        {"at": datetime.now(UTC) + timedelta(days=365)},
    ],
)
def test_only_a_run_over_a_cluster_that_succeeded_proves_anything(
    may_ledger: Connection, command: Command, which: dict[str, Any]
) -> None:
    record_run(may_ledger, **{"at": SETTLED + timedelta(days=1)} | which)
    assert command("--month", "2026-05", "--verified").code == 3


def test_a_tenant_that_no_run_could_verify_is_named(may_ledger: Connection, command: Command) -> None:
    record_run(may_ledger, SETTLED, "acme", "nobody", outcome="drift")
    refused = command("--month", "2026-05", "--verified")
    assert refused.code == 3
    assert refused.complaint["error"] == "Not proven (deferred): acme; nobody."
    assert command("--month", "2026-05", "--verified", "--tenant", "beta").code == 0


def test_many_tenants_that_no_run_could_verify_are_counted(ledger: Connection, command: Command) -> None:
    tenants = [f"t{number}" for number in range(MAX_NAMES + 3)]
    with transaction(ledger) as cursor:
        write_histories(cursor, dict.fromkeys(tenants, WORKED), test_billing.PRICES)
    record_run(ledger, SETTLED, *tenants, outcome="drift")
    refused = command("--month", "2026-05", "--verified")
    assert refused.complaint["error"].endswith(f": {'; '.join(tenants[:MAX_NAMES])} and 3 more.")


def test_what_an_earlier_run_proved_to_the_end_stays_proved(may_ledger: Connection, command: Command) -> None:
    """The latest run saw the tenant change just then; the month before stays verified."""
    record_run(may_ledger, SETTLED)
    record_run(may_ledger, SETTLED + timedelta(days=9), "acme")
    assert command("--month", "2026-05", "--verified").code == 0


def test_an_earlier_proof_that_ends_too_early_does_not_suffice(may_ledger: Connection, command: Command) -> None:
    record_run(may_ledger, SETTLED - timedelta(days=1))
    record_run(may_ledger, SETTLED, "acme")
    assert command("--month", "2026-05", "--verified").code == 3
