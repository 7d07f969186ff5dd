"""What is billed: UTC days and CHF. Pure, and exact to the rappen.

Skills and the monthly fee follow one rule: an item is billed on a day if it was on at any moment of that day at which
the tenant lived.

    item             is on                                      and costs
    ---------------  -----------------------------------------  -----------------------------------
    a skill          from `enabled` to the next `disabled`      its daily price, where there is one
    the monthly fee  always, but from `suspended` to `resumed`  the fee x days / days of that month

All intervals are half-open: what is turned off at midnight does not bill the day that begins then, what is on for no
time bills nothing, and nothing counts from `as_of` on. Suspension does not touch skills. A day counts once: where two
lives share it, it is the earlier one's, so that a tenant that comes back changes nothing that is owed already.

There is one rounding. A line is what one item of one tenant costs one organisation in one calendar month; it is rounded
to 0.01 CHF, half away from zero. Totals are sums of lines. The query `usage` says the same in SQL.
"""

from __future__ import annotations

from bisect import bisect_right
from calendar import monthrange
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from reconciler.core.model import FIRST, LAST, UNKNOWN_ORG, Event, Finding, Table
from reconciler.core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

FEE = None
"""The item that is the monthly fee; every other is a skill id."""
RAPPEN = Decimal("0.01")
NOTHING = Decimal("0.00")

_INSTANT = timedelta(microseconds=1)
"""The resolution of PostgreSQL's time, and of Python's."""
_RUNNING = Event(0, "resumed", FIRST)
_REMEMBERED = 2**14
"""Results that are kept: thousands of tenants were created on the same few hundred days."""
_OF_ONE_TENANT = 2**6
"""Results that are kept: most items of a tenant are on for as long as the others."""
_ON = {"enabled", "resumed"}

_began_at = attrgetter("began_at")
_occurred_at = attrgetter("occurred_at")

Run = tuple[int, int]
"""Days in a row: the ordinals of the first and of the last one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What things cost, before VAT.

    Attributes:
        monthly_fee_chf: of a tenant, for a whole calendar month.
        daily_chf: by skill id; a skill that is not there is not billable.
    """

    monthly_fee_chf: Decimal = NOTHING
    daily_chf: Mapping[str, Decimal] = field(default_factory=dict)

    def price(self, item: str | None) -> Decimal | None:
        """Return the price of an item: the fee's for a month, a skill's for a day."""
        return self.monthly_fee_chf if item is FEE else self.daily_chf.get(item)


class Lifetime(NamedTuple):
    """A tenant from its creation to its deletion; still alive where `ended_at` is None."""

    org: str
    began_at: datetime
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """All that the ledger holds of one tenant.

    Attributes:
        lives: by their beginning. Earlier ones are those of a tenant that was deleted and created anew.
        skills: every event of each skill, the latest last; of two at the same instant, the higher id last.
        suspensions: every event of the tenant, in that order too.
    """

    lifetimes: tuple[Lifetime, ...] = ()
    skills: Mapping[str, tuple[Event, ...]] = field(default_factory=dict)
    suspensions: tuple[Event, ...] = ()

    @property
    def items(self) -> dict[str | None, tuple[Event, ...]]:
        """The events of everything that can be billed."""
        return dict([(FEE, self.suspensions), *self.skills.items()])


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What one item of one tenant costs one organisation in one calendar month.

    Attributes:
        org: who pays; `unknown` where the tenant's row says so.
        tenant: its name.
        item: the skill id, or None: the monthly fee.
        month: its first day.
        days: UTC days of the period in that month on which the item was billable.
        price_chf: the daily price, or the fee for the whole month; None where the skill has none.
        amount_chf: price and days, rounded to 0.01; 0.00 where there is no price.
    """

    org: str
    tenant: str
    item: str | None
    month: date
    days: int
    price_chf: Decimal | None
    amount_chf: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What was used in a period.

    Attributes:
        first: its first UTC day.
        until: the day after its last one.
        as_of: nothing that happens from then on counts.
        lines: in the order of `in_order`.
    """

    first: date
    until: date
    as_of: datetime
    lines: tuple[Line, ...]

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
    """Return what one tenant is billed for a period, in the order of `in_order`.

    Args:
        tenant: its name.
        history: all of it, also from before the period.
        prices: what things cost.
        first: the first UTC day of the period.
        until: the day after its last one.
        as_of: nothing that happens from then on counts.
    """
    begins, ends = _midnight(first), min(_midnight(until), as_of)
    made = [
        Line(
            org=org,
            tenant=tenant,
            item=item,
            month=month,
            days=days,
            price_chf=prices.price(item),
            amount_chf=_amount(item, prices.price(item), days, _length(month)),
        )
        for item, events in history.items.items()
        for org, runs in _runs(_states(item, events), history.lifetimes, begins, ends).items()
        for month, days in _months(runs).items()
    ]
    return tuple(sorted(made, key=in_order))


def in_order(line: Line) -> tuple[bool, str, str, bool, str, date]:
    """Return what lines are sorted by: organisation (unknown last), tenant, item (the fee first), month."""
    return line.org == UNKNOWN_ORG, line.org, line.tenant, line.item is not FEE, line.item or "", line.month


def valued(findings: Sequence[Finding], history: History, prices: Prices, as_of: datetime) -> tuple[Finding, ...]:
    """Return the findings of one tenant, each correction among them with what it is worth.

    `impact_chf` is the usage with the correction less the usage without it, from the first life on and up to `as_of`.
    The corrections are made one after another, so that their impacts add up to what all of them together change.
    `impact_range` is what a correction is worth at the ends of its interval while the others stay; None where that is
    the same. An event that closes a skill has none of its own: it moves with the deletion that it follows.

    Args:
        findings: in the order in which they are to take effect.
        history: what the ledger holds without them, as far as they are `concerned` with it.
        prices: at which they are valued.
        as_of: the observation.
    """
    account = _Account(lifetimes=history.lifetimes, events=history.items, prices=prices, as_of=as_of)
    return tuple(account.correct(finding) if finding.action.writes else finding for finding in findings)


def concerned(corrections: Sequence[Finding]) -> tuple[set[str], set[tuple[str, str | None]]]:
    """Return of whom `valued` needs the whole history, and of which other tenants one item each.

    A lifecycle row decides over every item of its tenant, an event over its own.
    """
    whole = {finding.tenant for finding in corrections if finding.reason.table is Table.LIFECYCLE}
    return whole, {(finding.tenant, finding.subject) for finding in corrections if finding.tenant not in whole}


@dataclass(slots=True, kw_only=True)
class _Account:
    """One tenant's history while it is being corrected."""

    lifetimes: tuple[Lifetime, ...]
    events: dict[str | None, tuple[Event, ...]]
    prices: Prices
    as_of: datetime

    def correct(self, finding: Finding) -> Finding:
        """Make a correction, and return it with its worth."""
        item, moment = finding.subject, finding.moment
        kind = finding.reason.event_kind
        if kind and not self.prices.price(item):
            return finding.worth(NOTHING)
        instants = [moment.occurred_at if moment else self.as_of]
        if moment and finding.reason is not Reason.SKILL_OPEN_AFTER_DELETION:
            instants += [end for end in moment[1:3] if end != moment.occurred_at]
        if kind:
            its = self.events.get(item, ())
            followed = [_followed(its, kind, at) for at in instants]
            without, *costs = [self._cost(item, events, self.lifetimes) for events in (its, *followed)]
            self.events[item] = followed[0]
        else:
            lifetimes = [_lived(self.lifetimes, finding, at) for at in instants]
            without, *costs = [self._costs(each) for each in (self.lifetimes, *lifetimes)]
            self.lifetimes = lifetimes[0]
        between = min(costs) - without, max(costs) - without
        return finding.worth(costs[0] - without, between if between[0] < between[1] else None)

    def _costs(self, lifetimes: tuple[Lifetime, ...]) -> Decimal:
        """Return what all items have ever cost."""
        return sum((self._cost(item, events, lifetimes) for item, events in self.events.items()), NOTHING)

    def _cost(self, item: str | None, events: tuple[Event, ...], lifetimes: tuple[Lifetime, ...]) -> Decimal:
        """Return what an item has ever cost: the sum of its lines."""
        cost = NOTHING
        if price := self.prices.price(item):
            for runs in _runs(_states(item, events), lifetimes, FIRST, self.as_of).values():
                cost += _owed(item, price, runs)
        return cost


@lru_cache(_OF_ONE_TENANT)
def _followed(events: tuple[Event, ...], kind: str, at: datetime) -> tuple[Event, ...]:
    """Return an item's events after a correction."""
    place = bisect_right(events, at, key=_occurred_at)
    # not written yet, it has no id; the greatest of its key, whatever it will be
    return (*events[:place], Event(0, kind, at), *events[place:])


def _lived(lifetimes: tuple[Lifetime, ...], finding: Finding, at: datetime) -> tuple[Lifetime, ...]:
    """Return the lives after a correction of the lifecycle row."""
    match finding.reason:
        case Reason.TENANT_UNRECORDED:
            return tuple(sorted((*lifetimes, Lifetime(org=finding.org, began_at=at)), key=_began_at))
        case Reason.DELETION_UNRECORDED:
            return tuple(
                lifetime._replace(ended_at=at) if lifetime.ended_at is None else lifetime for lifetime in lifetimes
            )
        case _:
            return tuple(
                lifetime._replace(org=finding.org) if lifetime.ended_at is None else lifetime for lifetime in lifetimes
            )


def _states(item: str | None, events: tuple[Event, ...]) -> tuple[Event, ...]:
    """Return what turned an item on and off: a tenant runs until it is first suspended."""
    return (_RUNNING, *events) if item is FEE else events


def _stretches(events: Iterable[Event]) -> Iterator[tuple[datetime, datetime]]:
    """Yield from when until when an item was on, in the order of time; some of them for no time."""
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


@lru_cache(_OF_ONE_TENANT)
def _runs(
    events: tuple[Event, ...], lifetimes: tuple[Lifetime, ...], begins: datetime, ends: datetime
) -> Mapping[str, tuple[Run, ...]]:
    """Return the days on which an item was billable between two instants, by organisation; no day is there twice."""
    stretches = list(_stretches(events))
    runs: dict[str, list[Run]] = {}
    counted = 0  # the day up to which all that is billable has been: lives and stretches come in the order of time
    for lifetime in lifetimes:
        born, died = max(lifetime.began_at, begins), min(lifetime.ended_at or ends, ends)
        for on, off in stretches:
            since, until = max(on, born), min(off, died)
            if since < until:
                first, last = max(since.toordinal(), counted + 1), (until - _INSTANT).toordinal()
                if first <= last:
                    runs.setdefault(lifetime.org, []).append((first, last))
                    counted = last
    return {org: tuple(its) for org, its in runs.items()}


def _months(runs: Iterable[Run]) -> dict[date, int]:
    """Return how many of the days lie in each calendar month, by its first day."""
    months: dict[date, int] = {}
    for first, last in runs:
        day = first
        while day <= last:
            month = date.fromordinal(day).replace(day=1)
            end = min(month.toordinal() + _length(month), last + 1)
            months[month] = months.get(month, 0) + end - day
            day = end
    return months


@lru_cache(_REMEMBERED)
def _owed(item: str | None, price: Decimal, runs: tuple[Run, ...]) -> Decimal:
    """Return what an item costs an organisation for these days: the sum of its lines."""
    return sum((months * _amount(item, price, days, length) for days, length, months in _alike(runs)), NOTHING)


@lru_cache(_REMEMBERED)
def _alike(runs: tuple[Run, ...]) -> tuple[tuple[int, int, int], ...]:
    """Return of so many of the days, in months of so many days, how many months there are: they cost the same."""
    alike = Counter((days, _length(month)) for month, days in _months(runs).items())
    return tuple((days, length, months) for (days, length), months in alike.items())


def _amount(item: str | None, price: Decimal | None, days: int, length: int) -> Decimal:
    """Return what a line costs: `days` of a month that is `length` days long."""
    return NOTHING if price is None else _rounded(price, days, length if item is FEE else 1)


@lru_cache(_REMEMBERED)
def _rounded(price: Decimal, days: int, share: int) -> Decimal:
    return (price * days / share).quantize(RAPPEN, ROUND_HALF_UP)


def _total(lines: Iterable[Line]) -> Decimal:
    return sum((line.amount_chf for line in lines), NOTHING)


def _length(month: date) -> int:
    return monthrange(month.year, month.month)[1]


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
