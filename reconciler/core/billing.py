"""What is billed: UTC days and CHF. Pure, and exact to the rappen.

Skills and the monthly fee follow one rule: an item is billed on a day if, at any moment of that day, it was on and the
tenant existed.

    item             is on                                      and costs
    ---------------  -----------------------------------------  -----------------------------------
    a skill          from `enabled` to the next `disabled`      its daily price, where there is one
    the monthly fee  always, but from `suspended` to `resumed`  the fee x days / days of that month

All intervals are half-open: an item that is turned off at midnight does not bill the day that begins then, one that is
on and off at the same instant bills nothing, and nothing counts from `as_of` on. Suspension does not affect skills. A
day counts once: if two lifetimes share it, it belongs to the earlier one, so that a tenant that is recreated changes
nothing that is owed already.

A day is owed by the organisation of its lifetime, or by another where a person decided so: a payer divides days, and
changes neither lifetimes nor events, whatever organisation those carry.

There is one rounding. A line is what one item of one tenant costs one organisation in one calendar month; it is rounded
to 0.01 CHF, half away from zero. Totals are sums of lines. A month that is closed has the prices that were kept then,
every other one today's. The query `usage` computes the same in SQL.
"""

from __future__ import annotations

from bisect import bisect_left
from calendar import monthrange
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from reconciler.core.model import FIRST, LAST, UNKNOWN_ORG, Event

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

FEE = None
"""The item that stands for the monthly fee; every other item is a skill id."""
RAPPEN = Decimal("0.01")
NOTHING = Decimal("0.00")

_INSTANT = timedelta(microseconds=1)
"""The resolution of PostgreSQL's time, and of Python's."""
_RUNNING = Event(0, "resumed", FIRST)
_CACHE_SIZE = 2**14
"""Cached results: thousands of tenants were created on the same few hundred days."""
_CACHED_ITEMS = 2**6
"""Cached results: most items of a tenant are on for as long as the others."""
_CACHED_RANGES = 2**3
"""Ranges of days that a cached result is about, at the most: more of them are rarely alike, and would fill memory."""
_ON = {"enabled", "resumed"}

DayRange = tuple[int, int]
"""Consecutive days: the ordinals of the first and of the last one."""
Days = dict[str, tuple[DayRange, ...]]
"""The days on which an item was billable, by organisation, in their order; adjoining days are one range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What things cost, before VAT."""

    monthly_fee_chf: Decimal = NOTHING
    daily_chf: Mapping[str, Decimal] = field(default_factory=dict)
    """By skill id; a skill without an entry is not billable."""
    kept: Mapping[date, Prices] = field(default_factory=dict)
    """Those of the months that are closed, by their first day."""

    def price(self, item: str | None) -> Decimal | None:
        """Return the price of an item: the fee's for a month, a skill's for a day."""
        return self.monthly_fee_chf if item is FEE else self.daily_chf.get(item)

    def of(self, month: date) -> Prices:
        """Return the prices that a month has."""
        return self.kept.get(month, self)

    def is_billable(self, item: str | None) -> bool:
        """True if an item costs something in any month."""
        return bool(self.price(item)) or any(each.price(item) for each in self.kept.values())


class Payer(NamedTuple):
    """Who pays for some days of a tenant, whatever the organisation of its lifetime: a person decided that."""

    org: str
    first: int
    """The ordinal of the first UTC day."""
    last: int
    """The ordinal of the last one."""


class Lifetime(NamedTuple):
    """A tenant from its creation to its deletion; `ended_at` is None while it exists."""

    org: str
    began_at: datetime
    ended_at: datetime | None = None
    payers: tuple[Payer, ...] = ()
    """Of its tenant, in the order of their days, each day once."""

    def shares(self, first: int, last: int) -> Iterator[tuple[str, int, int]]:
        """Yield who pays for consecutive days, each with the first and the last one."""
        for payer in self.payers:
            for org, until in ((self.org, payer.first - 1), (payer.org, payer.last)):
                if first <= min(until, last):
                    yield org, first, min(until, last)
                    first = until + 1
        if first <= last:
            yield self.org, first, last


def with_payer(payers: Iterable[Payer], new: Payer) -> tuple[Payer, ...]:
    """Return who pays for which days after one more decision: of several about a day the latest counts."""
    parts = (
        part
        for payer in payers
        for part in (
            payer._replace(last=min(payer.last, new.first - 1)),
            payer._replace(first=max(payer.first, new.last + 1)),
        )
        if part.first <= part.last
    )
    return tuple(sorted([*parts, new], key=attrgetter("first")))


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Everything that the ledger holds about one tenant, each by time; of events at one instant, the higher id last."""

    lifetimes: tuple[Lifetime, ...] = ()
    skills: Mapping[str, tuple[Event, ...]] = field(default_factory=dict)
    suspensions: tuple[Event, ...] = ()

    def with_events(self, appended: Mapping[str | None, Iterable[Event]]) -> History:
        """Return it with more events, of these items."""
        items = self.items
        for item, events in appended.items():
            items[item] = tuple(
                sorted((*items.get(item, ()), *events), key=lambda event: (event.occurred_at, event.id))
            )
        suspensions = items.pop(FEE)
        skills = {item: events for item, events in items.items() if item is not None}
        return replace(self, skills=skills, suspensions=suspensions)

    @property
    def items(self) -> dict[str | None, tuple[Event, ...]]:
        """The events of everything that can be billed."""
        return dict([(FEE, self.suspensions), *self.skills.items()])


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What one item of one tenant costs one organisation in one calendar month."""

    org: str
    tenant: str
    item: str | None
    """The skill id, or `FEE`."""
    month: date
    """Its first day."""
    days: int
    """UTC days of the period in that month on which the item was billable."""
    price_chf: Decimal | None
    """The daily price, or the fee for the whole month; None if the skill has none."""
    amount_chf: Decimal
    """Rounded to 0.01; 0.00 if there is no price."""


class LineChange(NamedTuple):
    """What becomes of a line: by a decision, or by what was written since its month was closed."""

    org: str
    tenant: str
    item: str | None
    """The skill id, or `FEE`."""
    month: date
    """Its first day."""
    days_before: int
    days_after: int
    price_chf: Decimal | None
    chf_before: Decimal
    chf_after: Decimal
    causes: tuple[str, ...] = ()
    """The numbers and rows behind it, as people call them, where its month was closed before."""

    @property
    def difference_chf(self) -> Decimal:
        """What the organisation owes in addition; negative: what is owed to it."""
        return self.chf_after - self.chf_before


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What was used from the UTC day `first` to the day before `until`; nothing counts from `as_of` on."""

    first: date
    until: date
    as_of: datetime
    lines: Iterable[Line]
    """In the order of `in_order`. There may be millions: they are read anew each time that they are asked for."""
    vat_rate: Decimal = NOTHING
    """Today's, in percent; no amount includes it."""
    kept_vat_rates: Mapping[date, Decimal] = field(default_factory=dict)
    """Those of the months that are closed, by their first day."""
    closed: Mapping[date, int] = field(default_factory=dict)
    """How many closings the months have that are shown as they were closed, by their first day."""
    closed_for: Mapping[date, tuple[str, ...]] = field(default_factory=dict)
    """For which organisations alone; without an entry for everybody."""
    changes: Iterable[LineChange] = ()
    """What no closing of those months has taken in yet, in the same order."""

    def vat_rate_of(self, month: date) -> Decimal:
        """Return the VAT rate of a month, in percent."""
        return self.kept_vat_rates.get(month, self.vat_rate)

    @property
    def last(self) -> date:
        """Its last UTC day."""
        return self.until - timedelta(days=1)

    @property
    def total_chf(self) -> Decimal:
        """What all of it costs, before VAT."""
        return _total(self.lines)

    @property
    def unknown_chf(self) -> Decimal:
        """The part that nobody can be invoiced for, since the organisation is unknown."""
        return _total(line for line in self.lines if line.org == UNKNOWN_ORG)


def lines(
    tenant: str, history: History, prices: Prices, *, first: date, until: date, as_of: datetime
) -> tuple[Line, ...]:
    """Return what one tenant is billed from the UTC day `first` to the day before `until`, in the order of `in_order`.

    The history is the whole one, also before the period; nothing counts from `as_of` on.
    """
    begins, ends = (datetime.combine(day, time(), UTC) for day in (first, until))
    made = (
        Line(
            org=org,
            tenant=tenant,
            item=item,
            month=month,
            days=days,
            price_chf=prices.of(month).price(item),
            amount_chf=_amount(item, prices.of(month).price(item), days, _length(month)),
        )
        for item, events in history.items.items()
        for org, ranges in _billable_days(_states(item, events), history.lifetimes, begins, min(ends, as_of)).items()
        for month, days in _months(ranges).items()
    )
    return tuple(sorted(made, key=in_order))


def following(month: date) -> date:
    """Return the first day of the month after it."""
    return (month + timedelta(days=31)).replace(day=1)


def in_order(line: Line | LineChange) -> tuple[bool, str, str, bool, str, date]:
    """Return what lines are sorted by: organisation (unknown last), tenant, item (the fee first), month."""
    return line.org == UNKNOWN_ORG, line.org, line.tenant, line.item is not FEE, line.item or "", line.month


def days_of(item: str | None, events: tuple[Event, ...], lifetimes: tuple[Lifetime, ...], as_of: datetime) -> Days:
    """Return all days until `as_of` on which an item was billable."""
    return _billable_days(_states(item, events), lifetimes, FIRST, as_of)


def cost_of(item: str | None, prices: Prices, days: Days) -> Decimal:
    """Return what an item costs for these days, in CHF: the sum of its lines."""
    cost, price = NOTHING, prices.price(item) or NOTHING
    for each in days.values():
        cost += (_owed if len(each) <= _CACHED_RANGES else _owed.__wrapped__)(item, price, each)
        for month, kept in prices.kept.items():
            if (then := kept.price(item) or NOTHING) != price:
                length = _length(month)
                its = sum(last - first + 1 for first, last in within(each, month.toordinal(), length))
                cost += _amount(item, then, its, length) - _amount(item, price, its, length)
    return cost


def within(ranges: Iterable[DayRange], begins: int, length: int) -> tuple[DayRange, ...]:
    """Return the part of some days that lies among so many days from the day with the ordinal `begins` on."""
    last = begins + length - 1
    return tuple((max(a, begins), min(b, last)) for a, b in ranges if a <= last and b >= begins)


def condensed(events: Iterable[Event], cuts: Sequence[datetime]) -> Iterator[Event]:
    """Yield as few of an item's events as bill the same, at most two for each UTC day and each part of a cut day.

    It stays the same wherever lifetimes begin, end or change hands and further events are added, if only at `cuts`,
    which are sorted. Between two midnights or cuts all that counts is whether the item was ever on, and how it ended:
    the first event that turns it on says the one, the last event the other.
    """
    kept: list[Event] = []
    until = FIRST
    for event in events:
        at = event.occurred_at
        if at > until or not kept:
            yield from kept
            kept = [event]
            # up to the end, so that what happens at a cut is told from what follows it
            until = datetime.combine((at - _INSTANT).date() + timedelta(days=1), time(), UTC)
            if (place := bisect_left(cuts, at)) < len(cuts):
                until = min(until, cuts[place])
        else:
            kept[kept[0].kind in _ON :] = [event]
    yield from kept


def _states(item: str | None, events: tuple[Event, ...]) -> tuple[Event, ...]:
    """Return what turned an item on and off: a tenant runs until it is first suspended."""
    return (_RUNNING, *events) if item is FEE else events


def _stretches(events: Iterable[Event]) -> Iterator[tuple[datetime, datetime]]:
    """Yield from when until when an item was on, in the order of time; a stretch may be empty."""
    since = None
    for _, kind, at in events:
        if kind not in _ON:
            if since is not None:
                yield since, at
            since = None
        elif since is None:
            since = at
    if since is not None:
        yield since, LAST


@lru_cache(_CACHED_ITEMS)
def _billable_days(
    events: tuple[Event, ...], lifetimes: tuple[Lifetime, ...], begins: datetime, ends: datetime
) -> Days:
    """Return the days on which an item was billable between two instants, by organisation; each day once."""
    stretches = list(_stretches(events))
    ranges: dict[str, list[DayRange]] = {}
    counted = 0  # the last day counted so far: lifetimes and stretches come in the order of time
    for lifetime in lifetimes:
        born, died = max(lifetime.began_at, begins), min(lifetime.ended_at or ends, ends)
        for on, off in stretches:
            since, until = max(on, born), min(off, died)
            if since < until:
                first, last = max(since.toordinal(), counted + 1), (until - _INSTANT).toordinal()
                counted = max(counted, last)
                for org, begin, end in lifetime.shares(first, last):
                    its = ranges.setdefault(org, [])
                    if its and its[-1][1] == begin - 1:
                        its[-1] = its[-1][0], end
                    else:
                        its.append((begin, end))
    return {org: tuple(each) for org, each in ranges.items()}


def _months(ranges: Iterable[DayRange]) -> dict[date, int]:
    """Return how many of these days lie in each calendar month, by its first day."""
    months: dict[date, int] = {}
    for first, last in ranges:
        day = first
        while day <= last:
            month = date.fromordinal(day).replace(day=1)
            end = min(month.toordinal() + _length(month), last + 1)
            months[month] = months.get(month, 0) + end - day
            day = end
    return months


@lru_cache(_CACHE_SIZE)
def _owed(item: str | None, price: Decimal, ranges: tuple[DayRange, ...]) -> Decimal:
    """Return what an item costs an organisation for these days: the sum of its lines."""
    by_month_length = _by_month_length if len(ranges) <= _CACHED_RANGES else _by_month_length.__wrapped__
    return sum(
        (months * _amount(item, price, days, length) for days, length, months in by_month_length(ranges)), NOTHING
    )


@lru_cache(_CACHE_SIZE)
def _by_month_length(ranges: tuple[DayRange, ...]) -> tuple[tuple[int, int, int], ...]:
    """Return (days, length of the month, number of such months): such months cost the same."""
    months_alike = Counter((days, _length(month)) for month, days in _months(ranges).items())
    return tuple((days, length, months) for (days, length), months in months_alike.items())


def _amount(item: str | None, price: Decimal | None, days: int, length: int) -> Decimal:
    """Return what a line costs: `days` of a month that is `length` days long."""
    return NOTHING if price is None else _rounded(price, days, length if item is FEE else 1)


@lru_cache(_CACHE_SIZE)
def _rounded(price: Decimal, days: int, share: int) -> Decimal:
    return (price * days / share).quantize(RAPPEN, ROUND_HALF_UP)


def _total(lines: Iterable[Line]) -> Decimal:
    return sum((line.amount_chf for line in lines), NOTHING)


def _length(month: date) -> int:
    return monthrange(month.year, month.month)[1]
