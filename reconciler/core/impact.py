"""The impact of a correction: the usage with it less the usage without it, in CHF before VAT. Pure."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby, islice
from operator import attrgetter
from typing import TYPE_CHECKING

from reconciler.core.billing import NOTHING, Lifetime, cost_of
from reconciler.core.model import Event, Table
from reconciler.core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from decimal import Decimal

    from reconciler.core.billing import History, Prices
    from reconciler.core.model import Finding
    from reconciler.core.plan import Plan

    ReadHistories = Callable[[set[str], set[tuple[str, str | None]]], Mapping[str, History]]
    """Reads the whole histories of some tenants, and of others that of one item each."""

TENANTS_BATCH = 500
"""Tenants whose histories are held in memory at a time."""
_CACHED_ITEMS = 2**6
"""Results that are kept: most items of a tenant are on for as long as the others."""

_occurred_at = attrgetter("occurred_at")


def add_impact(plan: Plan, prices: Prices, as_of: datetime, read_histories: ReadHistories) -> Plan:
    """Return the plan with what each of its corrections is worth; usage is counted up to `as_of`."""
    findings: list[Finding] = []
    by_tenant = ((name, tuple(found)) for name, found in groupby(plan.findings, attrgetter("tenant")))
    while batch := dict(islice(by_tenant, TENANTS_BATCH)):
        corrections = [finding for found in batch.values() for finding in found if finding.action.writes]
        histories = read_histories(*needed_histories(corrections))
        for name, found in batch.items():
            findings += with_impact(found, histories[name], prices, as_of) if name in histories else found
    return replace(plan, findings=tuple(findings))


def needed_histories(corrections: Sequence[Finding]) -> tuple[set[str], set[tuple[str, str | None]]]:
    """Return the tenants whose whole history `with_impact` needs, and the others with the one item that it needs.

    A lifecycle row decides over every item of its tenant, an event over its own.
    """
    whole = {finding.tenant for finding in corrections if finding.reason.table is Table.LIFECYCLE}
    return whole, {(finding.tenant, finding.subject) for finding in corrections if finding.tenant not in whole}


def with_impact(findings: Sequence[Finding], history: History, prices: Prices, as_of: datetime) -> tuple[Finding, ...]:
    """Return the findings of one tenant, each correction among them with its impact.

    The corrections are made one after another, so that their impacts add up to what all of them together change.
    `impact_range` is the impact at the ends of the correction's interval while the others stay; None where that is the
    same. An event that closes a skill has none of its own: it moves with the deletion that it follows.
    """
    account = _Account(lifetimes=history.lifetimes, events=history.items, prices=prices, as_of=as_of)
    return tuple(account.correct(finding) if finding.action.writes else finding for finding in findings)


@dataclass(slots=True, kw_only=True)
class _Account:
    """One tenant's history while it is being corrected."""

    lifetimes: tuple[Lifetime, ...]
    events: dict[str | None, tuple[Event, ...]]
    prices: Prices
    as_of: datetime

    def correct(self, finding: Finding) -> Finding:
        """Make a correction, and return it with its impact."""
        item, moment, kind = finding.subject, finding.moment, finding.reason.event_kind
        if kind and not self.prices.price(item):
            return finding.with_impact(NOTHING)
        instants = [moment.occurred_at if moment else self.as_of]
        if moment and finding.reason is not Reason.SKILL_OPEN_AFTER_DELETION:
            instants += [end for end in moment[1:3] if end != moment.occurred_at]
        if kind:
            events = self.events.get(item, ())
            corrected = [_append(events, kind, at) for at in instants]
            without, *costs = [self._cost(item, each, self.lifetimes) for each in (events, *corrected)]
            self.events[item] = corrected[0]
        else:
            lifetimes = [_change_row(self.lifetimes, finding, at) for at in instants]
            without, *costs = [self._costs(each) for each in (self.lifetimes, *lifetimes)]
            self.lifetimes = lifetimes[0]
        low, high = min(costs) - without, max(costs) - without
        return finding.with_impact(costs[0] - without, (low, high) if low < high else None)

    def _costs(self, lifetimes: tuple[Lifetime, ...]) -> Decimal:
        return sum((self._cost(item, events, lifetimes) for item, events in self.events.items()), NOTHING)

    def _cost(self, item: str | None, events: tuple[Event, ...], lifetimes: tuple[Lifetime, ...]) -> Decimal:
        price = self.prices.price(item)
        return cost_of(item, price, events, lifetimes, self.as_of) if price else NOTHING


@lru_cache(_CACHED_ITEMS)
def _append(events: tuple[Event, ...], kind: str, at: datetime) -> tuple[Event, ...]:
    """Return an item's events after a correction."""
    place = bisect_right(events, at, key=_occurred_at)
    # it has no id before it is written; then it will have the highest of its key
    return (*events[:place], Event(0, kind, at), *events[place:])


def _change_row(lifetimes: tuple[Lifetime, ...], finding: Finding, at: datetime) -> tuple[Lifetime, ...]:
    """Return the lifetimes after a correction of the lifecycle row."""
    match finding.reason:
        case Reason.TENANT_UNRECORDED:
            return tuple(sorted((*lifetimes, Lifetime(org=finding.org, began_at=at)), key=attrgetter("began_at")))
        case Reason.DELETION_UNRECORDED:
            return tuple(each._replace(ended_at=at) if each.ended_at is None else each for each in lifetimes)
        case _:
            return tuple(each._replace(org=finding.org) if each.ended_at is None else each for each in lifetimes)
