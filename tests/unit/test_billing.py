"""What is billed, worked out by hand and held to a slower way of saying it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import pairwise
from operator import attrgetter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.billing import FEE, History, Lifetime, Line, Payer, Prices, condensed, cost_of, days_of, lines
from reconciler.core.impact import needed_histories, with_impact
from reconciler.core.model import FIRST, LAST, Action, Event, Evidence, Finding, Moment, Table
from reconciler.core.reasons import CORRECTING, Reason
from tests.unit.test_compare import ACTION

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MAY, JUNE = date(2026, 5, 1), date(2026, 6, 1)
LATER = datetime(2026, 9, 1, tzinfo=UTC)
"""When all of a test's history is past."""
PRICES = Prices(monthly_fee_chf=Decimal("49.00"), daily_chf={"search": Decimal("0.33333"), "files": Decimal("0.12500")})


def may(day: int, hour: int = 0, minute: int = 0, second: int = 0) -> datetime:
    return datetime(2026, 5, day, hour, minute, second, tzinfo=UTC)


def events(*written: tuple[str, datetime]) -> tuple[Event, ...]:
    """Return events in the order in which they were written, which is that of their ids."""
    numbered = [Event(number, kind, at) for number, (kind, at) in enumerate(written, start=1)]
    return tuple(sorted(numbered, key=lambda event: (event.occurred_at, event.id)))


def on(*stretches: tuple[datetime, datetime]) -> tuple[Event, ...]:
    """Return the events of a skill that was on from the one to the other."""
    return events(*((kind, at) for both in stretches for kind, at in zip(("enabled", "disabled"), both, strict=True)))


def history(
    *lifetimes: tuple[datetime, datetime | None] | Lifetime,
    suspensions: tuple[Event, ...] = (),
    **skills: tuple[Event, ...],
) -> History:
    made = [
        lifetime if isinstance(lifetime, Lifetime) else Lifetime(org="2871", began_at=lifetime[0], ended_at=lifetime[1])
        for lifetime in lifetimes
    ]
    return History(lifetimes=tuple(made), skills=skills, suspensions=suspensions)


def billed(
    of: History,
    prices: Prices = PRICES,
    *,
    first: date = MAY,
    until: date = JUNE,
    as_of: datetime = LATER,
) -> tuple[Line, ...]:
    return lines("acme", of, prices, first=first, until=until, as_of=as_of)


def days(of: History, item: str | None, as_of: datetime = LATER) -> int:
    """Return on how many days of May something was billable."""
    return sum(line.days for line in billed(of, as_of=as_of) if line.item == item)


def total(of: Iterable[Line]) -> Decimal:
    return sum((line.amount_chf for line in of), Decimal("0.00"))


# --- a month worked by hand --------------------------------------------------------------------------------------

WORKED = history(
    (may(10, 8, 15), may(28, 17, 30)),
    search=on((may(12, 9), may(12, 9, 30)), (may(12, 16), may(12, 16, 5)), (may(26, 14), may(30))),
    files=on((may(14, 9), may(18, 10))),
    books=on((may(20, 22), may(22))),
    suspensions=events(("suspended", may(15, 12)), ("resumed", may(18, 6))),
)


def test_a_month_worked_by_hand() -> None:
    """Every rule has its part in it.

    The fee: the 10th to the 28th are 19 days, less the 16th and the 17th; 49.00 x 17 / 31 = 26.8709…
    search: the 12th once, and the 26th to the 28th, when the tenant ended; 4 x 0.33333 = 1.33332.
    files: the 14th to the 18th, through the suspension; 5 x 0.125 = 0.625, and half goes up.
    books: the 20th and the 21st, not the 22nd, at whose midnight it was turned off; it has no price.
    """
    assert [(line.item, line.days, line.price_chf, line.amount_chf) for line in billed(WORKED)] == [
        (FEE, 17, Decimal("49.00"), Decimal("26.87")),
        ("books", 2, None, Decimal("0.00")),
        ("files", 5, Decimal("0.12500"), Decimal("0.63")),
        ("search", 4, Decimal("0.33333"), Decimal("1.33")),
    ]
    assert {(line.org, line.tenant, line.month) for line in billed(WORKED)} == {("2871", "acme", MAY)}
    assert total(billed(WORKED)) == Decimal("28.83")


# --- rule by rule ------------------------------------------------------------------------------------------------

LIVED = (may(1), None)


@pytest.mark.parametrize(
    ("skill", "expected"),
    [
        pytest.param(on((may(3, 9), may(3, 9, 0, 1))), 1, id="a second bills its day"),
        pytest.param(on((may(3, 9), may(3, 10)), (may(3, 11), may(3, 12))), 1, id="a day counts once"),
        pytest.param(on((may(3, 23, 59, 59), may(4, 0, 0, 1))), 2, id="a second on either side of midnight"),
        pytest.param(on((may(3), may(4))), 1, id="off at midnight does not bill the day that begins"),
        pytest.param(on((may(3), may(3))), 0, id="on for no time bills nothing"),
        pytest.param(
            events(("disabled", may(3)), ("enabled", may(3))), 29, id="of one instant, the higher id is later"
        ),
        pytest.param(events(("disabled", may(3)), ("disabled", may(5))), 0, id="off, and off again"),
        pytest.param(events(("enabled", may(3)), ("enabled", may(5)), ("disabled", may(6))), 3, id="on, and on again"),
        pytest.param(events(("enabled", may(30))), 2, id="on for good"),
        pytest.param(events(("enabled", LAST)), 0, id="on in the last of all times"),
        pytest.param(events(("enabled", FIRST), ("disabled", may(3))), 2, id="on since the first of all times"),
        pytest.param((), 0, id="never on"),
    ],
)
def test_days_of_a_skill(skill: tuple[Event, ...], expected: int) -> None:
    assert days(history(LIVED, search=skill), "search") == expected


@pytest.mark.parametrize(
    ("suspensions", "expected"),
    [
        pytest.param((), 31, id="a tenant without events runs"),
        pytest.param(events(("suspended", may(15, 12)), ("resumed", may(18, 6))), 29, id="only whole days are free"),
        pytest.param(events(("suspended", may(15)), ("resumed", may(18))), 28, id="from midnight to midnight"),
        pytest.param(events(("suspended", may(15)), ("resumed", may(15))), 31, id="for no time"),
        pytest.param(events(("suspended", may(15, 0, 0, 1)), ("resumed", may(16))), 31, id="the day began running"),
        pytest.param(events(("resumed", may(15))), 31, id="resumed, and was running"),
        pytest.param(events(("suspended", FIRST)), 0, id="suspended before it began"),
        pytest.param(events(("suspended", may(15))), 14, id="suspended for good"),
        pytest.param(events(("suspended", LAST)), 31, id="suspended in the last of all times"),
    ],
)
def test_days_of_the_fee(suspensions: tuple[Event, ...], expected: int) -> None:
    assert days(history(LIVED, suspensions=suspensions), FEE) == expected


def test_a_suspension_does_not_touch_skills() -> None:
    suspended = events(("suspended", may(1)))
    assert days(history(LIVED, search=on((may(3), may(9))), suspensions=suspended), "search") == 6


def test_a_tenant_that_was_created_suspended_and_stayed_so_owes_no_fee() -> None:
    """Of the day of its creation it was suspended all the while that it existed."""
    suspended = events(("suspended", may(10, 8)))
    assert days(history((may(10, 8), None), suspensions=suspended), FEE) == 0


@pytest.mark.parametrize(
    ("lifetime", "expected"),
    [
        ((may(10, 8), may(12, 8)), 3),
        ((may(10, 8), may(12)), 2),
        ((may(10, 8), may(10, 9)), 1),
        ((may(10, 8), may(10, 8)), 0),
        ((may(10, 8), may(9, 8)), 0),
        ((FIRST, None), 31),
        ((may(10), LAST), 22),
        ((LAST, None), 0),
    ],
)
def test_nothing_is_billed_outside_a_life(lifetime: tuple[datetime, datetime | None], expected: int) -> None:
    of = history(lifetime, search=events(("enabled", FIRST)))
    assert days(of, "search") == days(of, FEE) == expected


def test_events_without_a_life_bill_nothing() -> None:
    assert billed(history(search=events(("enabled", may(1))))) == ()


@pytest.mark.parametrize(
    ("as_of", "expected"),
    [(may(3, 9), 0), (may(3, 9, 0, 1), 1), (may(4), 1), (may(4, 0, 0, 1), 2), (may(9), 3), (FIRST, 0)],
)
def test_nothing_counts_from_as_of_on(as_of: datetime, expected: int) -> None:
    """The day of as_of counts if the skill was on at a moment of it before."""
    assert days(history(LIVED, search=on((may(3, 9), may(5, 9)))), "search", as_of=as_of) == expected


# --- lifetimes and organisations -------------------------------------------------------------------------------------


def twice(first: str, second: str) -> History:
    """Return a tenant that was deleted at noon of the 28th of May and recreated two hours later."""
    return history(
        Lifetime(org=first, began_at=may(10), ended_at=may(28, 12)),
        Lifetime(org=second, began_at=may(28, 14)),
        search=events(("enabled", may(20))),
        files=on((may(28, 15), may(30))),
    )


def test_a_day_of_two_lifetimes_counts_once_in_one_line() -> None:
    assert {line.item: (line.org, line.days) for line in billed(twice("1", "1"))} == {
        FEE: ("1", 22),
        "search": ("1", 12),
        "files": ("1", 2),
    }


def test_a_shared_day_belongs_to_the_earlier_lifetime() -> None:
    """What was turned on in the second lifetime alone is the second lifetime's."""
    assert {(line.item, line.org): line.days for line in billed(twice("1", "2"))} == {
        (FEE, "1"): 19,
        (FEE, "2"): 3,
        ("search", "1"): 9,
        ("search", "2"): 3,
        ("files", "2"): 2,
    }


def test_a_later_life_changes_nothing_that_an_earlier_one_owes() -> None:
    both = twice("1", "2")
    alone = replace(both, lifetimes=both.lifetimes[:1])
    assert [line for line in billed(both) if line.org == "1"] == list(billed(alone))


def paid(*shares: tuple[str, date, date]) -> tuple[Payer, ...]:
    """Return who pays from the first to the last of some days."""
    return tuple(Payer(org, first.toordinal(), last.toordinal()) for org, first, last in shares)


@pytest.mark.parametrize(
    ("payers", "expected"),
    [
        pytest.param((), {"1": 31}, id="nobody decided - the organisation of the lifetime"),
        pytest.param(paid(("2", date(2026, 5, 15), date.max)), {"1": 14, "2": 17}, id="from a day on - from that day"),
        pytest.param(paid(("2", date.min, date(2026, 5, 14))), {"2": 14, "1": 17}, id="up to a day - that day too"),
        pytest.param(paid(("2", date(2026, 5, 15), date(2026, 5, 15))), {"1": 30, "2": 1}, id="one day - one day"),
        pytest.param(
            paid(("2", date(2026, 5, 3), date(2026, 5, 9)), ("3", date(2026, 5, 10), date(2026, 5, 11))),
            {"1": 22, "2": 7, "3": 2},
            id="one after another - each its own",
        ),
        pytest.param(paid(("2", date(2026, 6, 1), date.max)), {"1": 31}, id="later days - nothing yet"),
        pytest.param(paid(("1", date(2026, 5, 15), date.max)), {"1": 31}, id="the organisation itself - one line"),
    ],
)
def test_a_day_is_owed_by_its_payer(payers: tuple[Payer, ...], expected: dict[str, int]) -> None:
    of = history(Lifetime(org="1", began_at=may(1), payers=payers))
    assert {line.org: line.days for line in billed(of)} == expected


def test_a_payer_changes_who_owes_a_shared_day_alone() -> None:
    """The day stays with the earlier lifetime, and is billed once."""
    of = twice("1", "2")
    payers = paid(("3", date(2026, 5, 28), date(2026, 5, 28)))
    divided = replace(of, lifetimes=tuple(each._replace(payers=payers) for each in of.lifetimes))
    assert [(line.org, line.item, line.days) for line in billed(divided)] == [
        *(("1", FEE, 18), ("1", "search", 8)),
        *(("2", FEE, 3), ("2", "files", 1), ("2", "search", 3)),
        *(("3", FEE, 1), ("3", "files", 1), ("3", "search", 1)),
    ]


def test_lines_are_in_order_and_the_unknown_organisation_is_last() -> None:
    of = history(
        Lifetime(org="unknown", began_at=may(1), ended_at=may(3)),
        Lifetime(org="zürich", began_at=may(3), ended_at=may(5)),
        Lifetime(org="1", began_at=may(5)),
        search=events(("enabled", may(1))),
        files=events(("enabled", may(1))),
    )
    made = billed(of, until=date(2026, 7, 1))
    assert [(line.org, line.item, line.month.month) for line in made] == [
        *(("1", item, month) for item in (FEE, "files", "search") for month in (5, 6)),
        *((org, item, 5) for org in ("zürich", "unknown") for item in (FEE, "files", "search")),
    ]


# --- money -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("price", "amount"),
    [
        ("0.12500", "0.63"),
        ("0.12499", "0.62"),
        ("0.00100", "0.01"),
        ("0.00099", "0.00"),
        ("-0.12500", "-0.63"),
        ("99999.99999", "499999.99995"),
        ("0", "0.00"),
    ],
)
def test_a_line_is_rounded_once_half_away_from_zero(price: str, amount: str) -> None:
    of = history(LIVED, search=on((may(3), may(8))))
    (_, line) = billed(of, Prices(daily_chf={"search": Decimal(price)}))
    assert (line.days, line.amount_chf) == (5, Decimal(amount).quantize(Decimal("0.01"), "ROUND_HALF_UP"))
    assert line.amount_chf.as_tuple().exponent == -2


@pytest.mark.parametrize(("month", "share"), [(2, "24.50"), (4, "22.87"), (5, "22.13"), (12, "22.13")])
def test_the_fee_is_shared_over_the_days_of_its_own_month(month: int, share: str) -> None:
    """14 days of 2026's February, April, May and December."""
    first = datetime(2026, month, 1, tzinfo=UTC)
    (line,) = billed(
        history((first, first + 14 * DAY)), first=first.date(), until=date(2027, 1, 1), as_of=LATER + 365 * DAY
    )
    assert (line.days, line.amount_chf) == (14, Decimal(share))


def test_each_month_is_a_line_of_its_own() -> None:
    of = history((may(30), datetime(2026, 7, 3, tzinfo=UTC)))
    assert [(line.month, line.days, line.amount_chf) for line in billed(of, until=date(2026, 8, 1))] == [
        (MAY, 2, Decimal("3.16")),
        (JUNE, 30, Decimal("49.00")),
        (date(2026, 7, 1), 2, Decimal("3.16")),
    ]


# --- any history -------------------------------------------------------------------------------------------------

BEGIN, END = date(2026, 1, 25), date(2026, 3, 5)
"""What any history is drawn around: it has a short month in it."""
_midnights = st.dates(BEGIN - 3 * DAY, END + 3 * DAY).map(lambda day: datetime.combine(day, time(), UTC))
_near = st.sampled_from([timedelta(microseconds=-1), timedelta(0), timedelta(microseconds=1), 9 * HOUR, 15 * HOUR])
near = st.builds(lambda midnight, off: midnight + off, _midnights, _near)
"""Instants few enough apart that ties are frequent."""
LONG_AGO = datetime(2025, 6, 1, tzinfo=UTC)
instants = near | st.sampled_from([FIRST, LAST])
valuable = near | st.sampled_from([LONG_AGO, LAST])
"""Where all months are counted, two thousand years of them would take long."""
ORGS = ("1", "2", "unknown")
SKILLS = ("files", "search", "unpriced")
any_prices = st.builds(
    lambda fee, files, search: Prices(monthly_fee_chf=fee, daily_chf={"files": files, "search": search}),
    st.sampled_from([Decimal("49.00"), Decimal("0.01"), Decimal("0.00"), Decimal("99999999.99")]),
    *[st.sampled_from([*map(Decimal, ("0.33333", "0.12500", "0.00001", "0.00000", "99999.99999", "-0.00500"))])] * 2,
)


days_of_payers = st.dates(BEGIN - 3 * DAY, END + 3 * DAY).map(date.toordinal)


@st.composite
def payers(draw: st.DrawFn) -> tuple[Payer, ...]:
    """Draw who pays for some days, in their order, each day once."""
    ends = st.sampled_from([date.min.toordinal(), date.max.toordinal() + 1])
    edges = sorted(draw(st.sets(days_of_payers | ends, max_size=5)))
    drawn = [Payer(draw(st.sampled_from(ORGS)), first, until - 1) for first, until in pairwise(edges)]
    return tuple(payer for payer in drawn if draw(st.booleans()))


@st.composite
def histories(draw: st.DrawFn, at: st.SearchStrategy[datetime] = instants) -> History:
    """Draw a tenant with up to three lifetimes, which may overlap; at most the last one is open."""
    paid_by = draw(st.just(()) | payers())
    bounds = draw(st.lists(st.tuples(at, at), max_size=3))
    lifetimes = [
        Lifetime(org=draw(st.sampled_from(ORGS)), began_at=began, ended_at=ended, payers=paid_by)
        for began, ended in sorted(bounds, key=lambda both: both[0])
    ]
    is_alive: bool = draw(st.booleans())
    if lifetimes and is_alive:
        lifetimes[-1] = lifetimes[-1]._replace(ended_at=None)

    def some(*kinds: str) -> st.SearchStrategy[tuple[Event, ...]]:
        return st.lists(st.tuples(st.sampled_from(kinds), at), max_size=6).map(lambda drawn: events(*drawn))

    skills = draw(st.dictionaries(st.sampled_from(SKILLS), some("enabled", "disabled"), max_size=3))
    return History(lifetimes=tuple(lifetimes), skills=skills, suspensions=draw(some("suspended", "resumed")))


periods = st.tuples(st.dates(BEGIN, END), st.dates(BEGIN, END)).map(sorted)


def state(item: str | None, of: History, at: datetime) -> bool:
    """Whether an item is on at an instant: what its latest event by then says."""
    past = [event for event in of.items.get(item, ()) if event.occurred_at <= at]
    return past[-1].kind in {"enabled", "resumed"} if past else item is FEE


def owner(item: str | None, of: History, day: date, as_of: datetime) -> str | None:
    """Return who owes a day, found by asking at every instant of it at which anything changes."""
    midnight = datetime.combine(day, time(), UTC)
    changes = {midnight, *(event.occurred_at for event in of.items.get(item, ()))}
    changes |= {at for lifetime in of.lifetimes for at in (lifetime.began_at, lifetime.ended_at) if at}
    instants = [at for at in changes if midnight <= at < min(midnight + DAY, as_of) and state(item, of, at)]
    lifetimes = (
        lifetime
        for lifetime in of.lifetimes
        if any(lifetime.began_at <= at and (lifetime.ended_at is None or at < lifetime.ended_at) for at in instants)
    )
    if not (lifetime := next(lifetimes, None)):
        return None
    its = (payer.org for payer in lifetime.payers if payer.first <= day.toordinal() <= payer.last)
    return next(its, lifetime.org)


@given(histories(), any_prices, periods, instants)
def test_a_day_on_at_any_moment_is_billed(of: History, prices: Prices, period: Sequence[date], as_of: datetime) -> None:
    first, until = period
    expected: Counter[tuple[str | None, str, date]] = Counter()
    for item in of.items:
        for number in range((until - first).days):
            day = first + number * DAY
            if org := owner(item, of, day, as_of):
                expected[item, org, day.replace(day=1)] += 1
    made = billed(of, prices, first=first, until=until, as_of=as_of)
    assert {(line.item, line.org, line.month): line.days for line in made} == expected


@given(histories(), any_prices, periods, st.data())
def test_splitting_a_period_changes_no_days(
    of: History, prices: Prices, period: Sequence[date], data: st.DataObject
) -> None:
    first, until = period
    cuts = [first, *sorted(data.draw(st.lists(st.dates(first, until), max_size=3))), until]
    whole, parts = Counter[tuple[str, str | None, date]](), Counter[tuple[str, str | None, date]]()
    for counted, bounds in ((whole, [(first, until)]), (parts, list(pairwise(cuts)))):
        for begin, end in bounds:
            for line in billed(of, prices, first=begin, until=end):
                counted[line.org, line.item, line.month] += line.days
    assert parts == whole


@given(histories(), any_prices, periods, instants)
def test_no_item_is_billed_for_more_days_than_there_are(
    of: History, prices: Prices, period: Sequence[date], as_of: datetime
) -> None:
    first, until = period
    counted = Counter[str | None]()
    for line in billed(of, prices, first=first, until=until, as_of=as_of):
        assert line.days > 0
        counted[line.item] += line.days
    assert all(number <= (until - first).days for number in counted.values())


# --- the impact of a correction ---------------------------------------------------------------------------------

APPENDED = {
    Reason.SKILL_ENABLE_UNRECORDED: "enabled",
    Reason.SKILL_DISABLE_UNRECORDED: "disabled",
    Reason.SKILL_OPEN_AFTER_DELETION: "disabled",
    Reason.SUSPENSION_UNRECORDED: "suspended",
    Reason.RESUMPTION_UNRECORDED: "resumed",
}
KINDS = {"enabled": "enabled", "disabled": "disabled", "suspended": "suspended", "running": "resumed"}
"""Of the event that gives a state, where it depends on the case."""


def correction(
    reason: Reason,
    at: datetime,
    *ends: datetime,
    org: str = "2871",
    subject: str | None = None,
    observed: str | None = None,
) -> Finding:
    """Return a correction dated so, in an interval that ends there."""
    not_before, not_after = ends or (at, at)
    moment = None if reason is Reason.ORG_RESOLVED else Moment(at, not_before, not_after, Evidence.NONE)
    return Finding(reason, "acme", org, ACTION[reason], subject, observed=observed, moment=moment)


def corrected(of: History, finding: Finding, at: datetime | None = None) -> History:
    """Return a history with a correction made, dated as it is or at another instant."""
    at = at or (finding.moment.occurred_at if finding.moment else FIRST)
    if kind := APPENDED.get(finding.reason) or KINDS.get(finding.observed or ""):
        its = sorted([*of.items.get(finding.subject, ()), Event(99, kind, at)], key=lambda event: event.occurred_at)
        if finding.subject is None:
            return replace(of, suspensions=tuple(its))
        return replace(of, skills={**of.skills, finding.subject: tuple(its)})
    lifetimes = of.lifetimes
    if finding.reason is Reason.TENANT_UNRECORDED:
        inserted = Lifetime(org=finding.org, began_at=at, payers=lifetimes[0].payers if lifetimes else ())
        lifetimes = tuple(sorted([*lifetimes, inserted], key=lambda lifetime: lifetime.began_at))
    elif finding.reason is Reason.DELETION_UNRECORDED:
        lifetimes = tuple(lifetime if lifetime.ended_at else lifetime._replace(ended_at=at) for lifetime in lifetimes)
    else:
        lifetimes = tuple(
            lifetime if lifetime.ended_at else lifetime._replace(org=finding.org) for lifetime in lifetimes
        )
    return replace(of, lifetimes=lifetimes)


def valued(findings: Sequence[Finding], of: History, prices: Prices, as_of: datetime) -> tuple[Finding, ...]:
    """Return the findings with their impact on a whole history."""
    return with_impact(findings, of.lifetimes, of.items.items(), prices, as_of)


def usage_of(of: History, prices: Prices, as_of: datetime) -> Decimal:
    """Return what a tenant was billed in all the time of these tests."""
    return total(lines("acme", of, prices, first=LONG_AGO.date(), until=LATER.date(), as_of=as_of))


@st.composite
def corrections(draw: st.DrawFn) -> list[Finding]:
    """Draw corrections of every kind, dated anywhere."""
    made = []
    for reason in draw(st.lists(st.sampled_from(list(CORRECTING)), max_size=5)):
        not_before, at, not_after = sorted(draw(st.tuples(valuable, valuable, valuable)))
        subject = draw(st.sampled_from(SKILLS)) if reason.table is Table.SKILL_EVENTS else None
        org, observed = draw(st.sampled_from(ORGS)), None
        if reason in {Reason.CORRECTION_SUPERSEDED, Reason.RECORDED, Reason.RETRACTED}:
            subject = draw(st.sampled_from([None, *SKILLS]))
            observed = draw(st.sampled_from([*KINDS][2:] if subject is None else [*KINDS][:2]))
        made.append(correction(reason, at, not_before, not_after, org=org, subject=subject, observed=observed))
    return made


@given(histories(valuable), corrections(), any_prices, near)
def test_an_impact_is_the_usage_with_the_correction_less_that_without(
    of: History, made: list[Finding], prices: Prices, as_of: datetime
) -> None:
    for finding, priced in zip(made, valued(made, of, prices, as_of), strict=True):
        before, after = of, corrected(of, finding)
        without = usage_of(before, prices, as_of)
        assert priced.impact_chf == usage_of(after, prices, as_of) - without
        if finding.moment and finding.reason is not Reason.SKILL_OPEN_AFTER_DELETION:
            either = [usage_of(corrected(before, finding, at), prices, as_of) - without for at in finding.moment[:3]]
            expected = (min(either), max(either))
            assert priced.impact_range == (expected if expected[0] < expected[1] else None)
        else:
            assert priced.impact_range is None
        assert priced._replace(impact_chf=None, impact_range=None) == finding
        of = after


@given(histories(valuable), corrections(), any_prices, near)
def test_impacts_add_up_to_what_all_corrections_change_together(
    of: History, made: list[Finding], prices: Prices, as_of: datetime
) -> None:
    impacts = [priced.impact_chf or Decimal(0) for priced in valued(made, of, prices, as_of)]
    without = usage_of(of, prices, as_of)
    for finding in made:
        of = corrected(of, finding)
    assert sum(impacts, Decimal("0.00")) == usage_of(of, prices, as_of) - without


@given(histories(valuable), corrections(), any_prices, near)
def test_what_no_correction_is_concerned_with_changes_no_impact(
    of: History, made: list[Finding], prices: Prices, as_of: datetime
) -> None:
    whole, items = needed_histories(made)
    needed = of if whole else replace(of, skills={s: of.skills[s] for s in of.skills if ("acme", s) in items})
    assert valued(made, needed, prices, as_of) == valued(made, of, prices, as_of)


cuts = st.lists(near | st.sampled_from([FIRST, LONG_AGO, LAST]), max_size=4).map(sorted)


@given(histories(near), cuts, st.data())
def test_condensed_events_bill_the_same_whatever_is_cut_where(
    of: History, at: list[datetime], data: st.DataObject
) -> None:
    """A lifetime may begin and end, and an event be added, at any of the cuts."""
    instants_ = st.sampled_from(at or [AS_OF])
    bounds = sorted(data.draw(st.lists(st.tuples(instants_, instants_), max_size=2)))
    lifetimes = tuple(Lifetime(org=str(n), began_at=began, ended_at=end) for n, (began, end) in enumerate(bounds))
    as_of = data.draw(instants_)
    for item, its in of.items.items():
        fewer = tuple(condensed(its, at or [AS_OF]))
        assert set(fewer) <= set(its)
        kinds = ("suspended", "resumed") if item is FEE else ("enabled", "disabled")
        added = Event(99, data.draw(st.sampled_from(kinds)), data.draw(instants_))
        for more in ([], [added]):
            whole, part = (tuple(sorted([*some, *more], key=attrgetter("occurred_at"))) for some in (its, fewer))
            assert days_of(item, part, lifetimes, as_of) == days_of(item, whole, lifetimes, as_of)


@given(histories(), st.dictionaries(st.sampled_from([MAY, JUNE]), st.integers(0, 9)))
def test_a_cost_is_the_sum_of_the_lines(of: History, kept: dict[date, int]) -> None:
    """Whatever prices the closed months keep."""
    every = {
        month: Prices(monthly_fee_chf=Decimal(chf), daily_chf={"mail": Decimal(chf) / 3}) for month, chf in kept.items()
    }
    prices = Prices(monthly_fee_chf=Decimal(49), daily_chf={"mail": Decimal("0.35")}, kept=every)
    made = lines("acme", of, prices, first=date(1, 1, 1), until=LATER.date(), as_of=LATER)
    for item, its in of.items.items():
        costs = cost_of(item, prices, days_of(item, its, of.lifetimes, LATER))
        assert costs == sum((line.amount_chf for line in made if line.item == item), Decimal(0))


def test_events_of_one_day_condense_to_two() -> None:
    toggled = events(
        *(("enabled" if n % 2 else "disabled", may(5, 1) + n * timedelta(minutes=1)) for n in range(1, 99))
    )
    assert list(condensed(toggled, [])) == [toggled[0], toggled[-1]]
    assert list(condensed(toggled, [may(5, 2)])) == [toggled[0], toggled[59], toggled[60], toggled[-1]]


OPEN = history(LIVED, search=events(("enabled", may(1))), suspensions=events(("resumed", may(1))))
AS_OF = may(20, 12)


@pytest.mark.parametrize(
    ("finding", "impact", "between"),
    [
        # 20 days so far, of which the change takes or gives some
        (correction(Reason.SKILL_ENABLE_UNRECORDED, may(11), subject="files"), "1.25", None),
        (
            correction(Reason.SKILL_ENABLE_UNRECORDED, may(11), may(9), may(20), subject="files"),
            "1.25",
            ("0.13", "1.50"),
        ),
        (correction(Reason.SKILL_DISABLE_UNRECORDED, may(11), subject="search"), "-3.34", None),
        (
            correction(Reason.SKILL_DISABLE_UNRECORDED, may(11), may(1), may(20, 12), subject="search"),
            "-3.34",
            ("-6.67", "0.00"),
        ),
        (correction(Reason.SKILL_ENABLE_UNRECORDED, may(11), subject="unpriced"), "0.00", None),
        (correction(Reason.SUSPENSION_UNRECORDED, may(19)), "-3.16", None),
        (correction(Reason.RESUMPTION_UNRECORDED, may(19)), "0.00", None),
        (correction(Reason.DELETION_UNRECORDED, may(19), may(18), may(20)), "-3.83", ("-5.74", "-1.92")),
        (correction(Reason.ORG_RESOLVED, may(1), org="3"), "0.00", None),
        # after the observation
        (correction(Reason.DELETION_UNRECORDED, may(21)), "0.00", None),
    ],
)
def test_what_a_correction_is_worth(finding: Finding, impact: str, between: tuple[str, str] | None) -> None:
    (priced,) = valued([finding], OPEN, PRICES, AS_OF)
    assert str(priced.impact_chf) == impact
    assert priced.impact_range == (between and tuple(map(Decimal, between)))


def test_a_resumption_is_what_the_tenant_owes_from_then_on() -> None:
    suspended = history(LIVED, suspensions=events(("suspended", may(1))))
    (priced,) = valued([correction(Reason.RESUMPTION_UNRECORDED, may(19))], suspended, PRICES, AS_OF)
    assert priced.impact_chf == Decimal("3.16")


def test_a_backfill_is_worth_all_that_it_records() -> None:
    made = [
        correction(Reason.TENANT_UNRECORDED, may(10, 8)),
        correction(Reason.SKILL_ENABLE_UNRECORDED, may(10, 8), may(10, 8), may(19), subject="search"),
        correction(Reason.SUSPENSION_UNRECORDED, may(15)),
    ]
    priced = valued(made, History(), PRICES, AS_OF)
    assert [str(finding.impact_chf) for finding in priced] == ["17.39", "3.67", "-9.49"]
    assert [finding.impact_range for finding in priced] == [None, (Decimal("0.67"), Decimal("3.67")), None]


def test_an_event_closed_with_the_deletion_has_no_impact() -> None:
    made = [
        correction(Reason.DELETION_UNRECORDED, may(11), may(9), may(20)),
        correction(Reason.SKILL_OPEN_AFTER_DELETION, may(11), may(9), may(20), subject="search"),
    ]
    stamped, closed = valued(made, OPEN, PRICES, AS_OF)
    assert (closed.impact_chf, closed.impact_range) == (Decimal("0.00"), None)
    assert stamped.impact_chf == usage_of(corrected(OPEN, made[0]), PRICES, AS_OF) - usage_of(OPEN, PRICES, AS_OF)


@pytest.mark.parametrize("action", [Action.REPORT, Action.DEFER])
def test_what_is_not_written_is_worth_nothing_and_changes_nothing(action: Action) -> None:
    enabled = correction(Reason.SKILL_ENABLE_UNRECORDED, may(11), subject="files")
    aside = enabled._replace(action=action)
    assert valued([aside, enabled], OPEN, PRICES, AS_OF) == (aside, *valued([enabled], OPEN, PRICES, AS_OF))


def test_a_life_since_the_first_of_all_times_has_its_price_too() -> None:
    of = History(lifetimes=(Lifetime(org="1", began_at=FIRST),))
    (priced,) = valued([correction(Reason.DELETION_UNRECORDED, may(20))], of, PRICES, AS_OF)
    assert priced.impact_chf == Decimal("-1.58")


def test_joining_two_lines_has_the_impact_of_their_rounding() -> None:
    """0.13 and 0.13 for a day each become 0.25 for two days."""
    of = history(
        Lifetime(org="1", began_at=may(3), ended_at=may(4)),
        Lifetime(org="unknown", began_at=may(6)),
        files=on((may(3), may(7))),
    )
    prices = replace(PRICES, monthly_fee_chf=Decimal(0))
    (priced,) = valued([correction(Reason.ORG_RESOLVED, may(6), org="1")], of, prices, LATER)
    assert priced.impact_chf == Decimal("-0.01")
