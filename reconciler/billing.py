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

from calendar import monthrange
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING

from reconciler.model import FIRST, LAST, UNKNOWN_ORG, Event, Finding, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

FEE = None
"""The item that is the monthly fee; every other is a skill id."""
RAPPEN = Decimal("0.01")
NOTHING = Decimal("0.00")

_INSTANT = timedelta(microseconds=1)
"""The resolution of PostgreSQL's time, and of Python's."""
_REMEMBERED = 2**14
"""Results that are kept: thousands of tenants were created on the same few hundred days."""
_APPENDED = {
    Reason.SKILL_ENABLE_UNRECORDED: "enabled",
    Reason.SKILL_DISABLE_UNRECORDED: "disabled",
    Reason.SKILL_OPEN_AFTER_DELETION: "disabled",
    Reason.SUSPENSION_UNRECORDED: "suspended",
    Reason.RESUMPTION_UNRECORDED: "resumed",
}
"""The kind of the event that a correction appends to the key that is its subject."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
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

    lives: tuple[Life, ...] = ()
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
        for org, runs in _runs(item, events, history.lives, begins, ends).items()
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
        history: what the ledger holds without them.
        prices: at which they are valued.
        as_of: the observation.
    """
    account = _Account(lives=history.lives, events=history.items, prices=prices, as_of=as_of)
    return tuple(account.correct(finding) if finding.action.writes else finding for finding in findings)


@dataclass(slots=True, kw_only=True)
class _Account:
    """One tenant's history while it is being corrected, and what its items cost so far, where that was asked."""

    lives: tuple[Life, ...]
    events: dict[str | None, tuple[Event, ...]]
    prices: Prices
    as_of: datetime
    known: dict[str | None, Decimal] = field(default_factory=dict)

    def correct(self, finding: Finding) -> Finding:
        """Make a correction, and return it with its worth."""
        moment = finding.moment
        lives, events = self._after(finding, moment.occurred_at if moment else self.as_of)
        costs = self._costs(lives, events)
        worth = [self._impact(costs)]
        if moment and finding.reason is not Reason.SKILL_OPEN_AFTER_DELETION:
            ends = {moment.not_before, moment.not_after} - {moment.occurred_at}
            worth += [self._impact(self._costs(*self._after(finding, end))) for end in ends]
        self.lives, self.events, self.known = lives, self.events | events, self.known | costs
        between = min(worth), max(worth)
        return finding._replace(impact_chf=worth[0], impact_range=between if between[0] < between[1] else None)

    def _after(self, finding: Finding, at: datetime) -> tuple[tuple[Life, ...], dict[str | None, tuple[Event, ...]]]:
        """Return the lives as the correction leaves them, and the events of the items whose cost it may change."""
        kind = _APPENDED.get(finding.reason)
        if kind is None:
            return _lived(self.lives, finding, at), self.events
        # not written yet, it has no id; the greatest of its key, whatever it will be
        events = (*self.events.get(finding.subject, ()), Event(0, kind, at))
        return self.lives, {finding.subject: tuple(sorted(events, key=_occurred_at))}

    def _costs(
        self, lives: tuple[Life, ...], events: Mapping[str | None, tuple[Event, ...]]
    ) -> dict[str | None, Decimal]:
        return {item: _cost(item, its, lives, self.prices, self.as_of) for item, its in events.items()}

    def _impact(self, costs: Mapping[str | None, Decimal]) -> Decimal:
        """Return by how much the items would come to cost more."""
        new = {item: self.events.get(item, ()) for item in costs if item not in self.known}
        self.known |= self._costs(self.lives, new)
        return sum((cost - self.known[item] for item, cost in costs.items()), NOTHING)


def _lived(lives: tuple[Life, ...], finding: Finding, at: datetime) -> tuple[Life, ...]:
    """Return the lives after a correction of the lifecycle row."""
    match finding.reason:
        case Reason.TENANT_UNRECORDED:
            return tuple(sorted((*lives, Life(org=finding.org, began_at=at)), key=_began_at))
        case Reason.DELETION_UNRECORDED:
            return tuple(replace(life, ended_at=at) if life.ended_at is None else life for life in lives)
        case _:
            return tuple(replace(life, org=finding.org) if life.ended_at is None else life for life in lives)


def _cost(item: str | None, events: Iterable[Event], lives: Iterable[Life], prices: Prices, as_of: datetime) -> Decimal:
    """Return what an item has ever cost: the sum of its lines."""
    price = prices.price(item)
    if not price:
        return NOTHING
    return sum(
        (
            months * _amount(item, price, days, length)
            for runs in _runs(item, events, lives, FIRST, as_of).values()
            for days, length, months in _alike(runs)
        ),
        NOTHING,
    )


def _stretches(item: str | None, events: Iterable[Event]) -> Iterator[tuple[datetime, datetime]]:
    """Yield from when until when an item was on, in the order of time; some of them for no time."""
    since = FIRST if item is FEE else None
    for _, kind, at in events:
        if kind not in _ON:
            if since is not None:
                yield since, at
            since = None
        elif since is None:
            since = at
    if since is not None:
        yield since, LAST


def _runs(
    item: str | None, events: Iterable[Event], lives: Iterable[Life], begins: datetime, ends: datetime
) -> dict[str, tuple[Run, ...]]:
    """Return the days on which an item was billable between two instants, by organisation; no day is there twice."""
    stretches = list(_stretches(item, events))
    runs: dict[str, list[Run]] = {}
    counted = 0  # the day up to which all that is billable has been: lives and stretches come in the order of time
    for life in lives:
        born, died = max(life.began_at, begins), min(life.ended_at or ends, ends)
        for on, off in stretches:
            since, until = max(on, born), min(off, died)
            if since < until:
                first, last = max(since.toordinal(), counted + 1), (until - _INSTANT).toordinal()
                if first <= last:
                    runs.setdefault(life.org, []).append((first, last))
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


def _length(month: date) -> int:
    return monthrange(month.year, month.month)[1]


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
