"""The impact of a correction: the usage with it less the usage without it, in CHF before VAT. Pure.

It also says whether the correction changes the bill of a day that was billed: in a month that is closed, or that is
invoiced, for the organisation that pays for the day with the correction or without it.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import chain, groupby, islice
from operator import add, attrgetter
from typing import TYPE_CHECKING

from reconciler.core.billing import FEE, NOTHING, Lifetime, condensed, cost_of, days_of, within
from reconciler.core.model import Action, Event, Table
from reconciler.core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from decimal import Decimal

    from reconciler.core.billing import Days, Prices
    from reconciler.core.model import Finding
    from reconciler.core.plan import Plan

    Items = Iterable[tuple[str | None, Iterable[Event]]]
    """Everything of one tenant that can be billed, each item once with its events."""
    ReadHistories = Callable[[set[str], set[tuple[str, str | None]]], Iterable[tuple[str, tuple[Lifetime, ...], Items]]]
    """Reads the whole histories of some tenants, and of others that of one item each, one tenant after another."""
    ReadBilled = Callable[[set[str]], Mapping[str, Sequence[tuple[int, int]]]]
    """Reads which days were billed to these organisations: the ordinal of the first day, and how many days."""

TENANTS_BATCH = 500
"""Tenants whose histories are asked for at once."""
_CACHED_ITEMS = 2**6
"""Results that are kept: most items of a tenant are on for as long as the others."""

_occurred_at = attrgetter("occurred_at")


def add_impact(
    plan: Plan, prices: Prices, as_of: datetime, read_histories: ReadHistories, read_billed: ReadBilled
) -> Plan:
    """Return the plan with what each of its corrections is worth; usage is counted up to `as_of`."""
    findings: list[Finding] = []
    by_tenant = ((name, tuple(found)) for name, found in groupby(plan.findings, attrgetter("tenant")))
    while batch := dict(islice(by_tenant, TENANTS_BATCH)):
        corrections = [finding for found in batch.values() for finding in found if is_priced(finding)]
        read_billed({finding.org for finding in corrections})  # at once, not tenant by tenant
        for name, lifetimes, items in read_histories(*needed_histories(corrections)):
            batch[name] = with_impact(batch[name], lifetimes, items, prices, as_of, read_billed)
        findings += chain.from_iterable(batch.values())
    return replace(plan, findings=tuple(findings))


def is_priced(finding: Finding) -> bool:
    """True if it has an impact: a correction, or a start of billing that a person may move."""
    return finding.action.writes or (finding.reason is Reason.CREATION_MISRECORDED and finding.action is Action.REPORT)


def needed_histories(corrections: Sequence[Finding]) -> tuple[set[str], set[tuple[str, str | None]]]:
    """Return the tenants whose whole history `with_impact` needs, and the others with the one item that it needs.

    A lifecycle row decides over every item of its tenant, an event over its own.
    """
    of_row = {Table.LIFECYCLE, None}
    whole = {finding.tenant for finding in corrections if finding.reason.table in of_row}
    return whole, {(finding.tenant, finding.subject) for finding in corrections if finding.tenant not in whole}


def with_impact(  # noqa: PLR0917 - all that an impact follows from
    findings: Sequence[Finding],
    lifetimes: tuple[Lifetime, ...],
    items: Items,
    prices: Prices,
    as_of: datetime,
    read_billed: ReadBilled = lambda _: {},
) -> tuple[Finding, ...]:
    """Return the findings of one tenant, each correction among them with its impact.

    The corrections are made one after another, so that their impacts add up to what all of them together change.
    `impact_range` is the impact at the ends of the correction's interval while the others stay; None where that is the
    same. An event that closes a skill has none of its own: it moves with the deletion that it follows.

    Items are taken one by one, and of their events only those that count are kept: neither need fit into memory.
    """
    changes = list(_changes(findings, lifetimes, as_of))
    of_row = [change for change in changes if not change.kind]
    of_item: dict[str | None, list[_Change]] = {FEE: []}
    for change in changes:
        if change.kind:
            of_item.setdefault(change.finding.subject, []).append(change)
    orgs = {each.org for each in lifetimes} | {payer.org for each in lifetimes for payer in each.payers}
    billed = read_billed(orgs.union(finding.org for finding in findings))
    may_be_billed = any(billed.values())
    cuts: list[datetime] = []
    for item, events in items:
        cuts = cuts or _cuts(changes, lifetimes, as_of)
        its = of_item.pop(item, [])
        if may_be_billed or prices.is_billable(item):
            _make(_in_order(of_row, its), item, prices, tuple(condensed(events, cuts)), as_of)
    for item, its in of_item.items():
        if may_be_billed or prices.is_billable(item):
            _make(_in_order(of_row, its), item, prices, (), as_of)
    priced = list(findings)
    for change in changes:
        priced[change.number] = change.priced(billed if may_be_billed else {})
    return tuple(priced)


@dataclass(slots=True)
class _Change:
    """A correction while what it is worth is added up."""

    number: int
    """Its place among the findings."""
    finding: Finding
    kind: str | None
    """Of the event that it appends; None if it changes the lifecycle row."""
    instants: Sequence[datetime]
    """When it happened, and the ends of its interval where they are others."""
    lifetimes: tuple[tuple[Lifetime, ...], ...]
    """Before it, and of a changed row after it, for each instant."""
    worth: Sequence[Decimal] = ()
    """For each instant."""
    days: list[tuple[Days, Days]] = field(default_factory=list)
    """Of each item: those on which it is billed without the correction, and with it."""

    def add(self, item: str | None, prices: Prices, without: Days, with_it: Sequence[Days]) -> None:
        """Add what it is worth in one item."""
        self.days.append((without, with_it[0]))
        cost = cost_of(item, prices, without)
        worth = [cost_of(item, prices, days) - cost for days in with_it]
        self.worth = list(map(add, self.worth, worth)) if self.worth else worth

    def priced(self, billed: Mapping[str, Sequence[tuple[int, int]]]) -> Finding:
        """Return the finding with its impact, and whether it changes the bill of a day that was billed."""
        impact, *others = self.worth or [NOTHING]
        between = (min(self.worth), max(self.worth)) if others else (impact, impact)
        priced = self.finding.with_impact(impact, between if between[0] < between[1] else None)
        if not billed:
            return priced
        is_closed = priced.action.writes and any(
            within(before.get(org, ()), *period) != within(after.get(org, ()), *period)
            for before, after in self.days
            for org in before.keys() | after.keys()
            for period in billed.get(org, ())
        )
        return priced._replace(closed_period=True) if is_closed else priced


def _in_order(of_row: list[_Change], of_item: list[_Change]) -> list[_Change]:
    """Return the corrections that concern an item in their order."""
    return sorted(of_row + of_item, key=attrgetter("number")) if of_row and of_item else of_row or of_item


def _cuts(changes: Iterable[_Change], lifetimes: tuple[Lifetime, ...], as_of: datetime) -> list[datetime]:
    """Return the instants between which nothing but events changes what is billed."""
    ends = {at for each in lifetimes for at in (each.began_at, each.ended_at) if at}
    return sorted(ends.union([as_of], *(change.instants for change in changes)))


def _changes(findings: Sequence[Finding], lifetimes: tuple[Lifetime, ...], as_of: datetime) -> Iterator[_Change]:
    """Yield the corrections, one after another, with the lifetimes that each of them finds."""
    for number, finding in enumerate(findings):
        if not is_priced(finding):
            continue
        moment, kind = finding.moment, finding.event_kind
        instants = [moment.occurred_at if moment else as_of]
        if moment and finding.reason is not Reason.SKILL_OPEN_AFTER_DELETION:
            instants += [end for end in moment[1:3] if end != moment.occurred_at]
        if kind:
            yield _Change(number, finding, kind, instants, (lifetimes,))
        else:
            after = [_change_row(lifetimes, finding, at) for at in instants]
            yield _Change(number, finding, None, instants, (lifetimes, *after))
            lifetimes = after[0] if finding.action.writes else lifetimes


def _make(
    changes: Iterable[_Change], item: str | None, prices: Prices, events: tuple[Event, ...], as_of: datetime
) -> None:
    """Make the corrections that concern an item, one after another, and add what each is worth in it."""
    for change in changes:
        if not (change.kind or events or item is FEE):
            continue  # a skill without events costs nothing, whenever the tenant lived
        before, *after = change.lifetimes
        without = days_of(item, events, before, as_of)
        if change.kind:
            corrected = [_append(events, change.kind, at) for at in change.instants]
            change.add(item, prices, without, [days_of(item, each, before, as_of) for each in corrected])
            events = corrected[0]
        else:
            change.add(item, prices, without, [days_of(item, events, each, as_of) for each in after])


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
            payers = lifetimes[-1].payers if lifetimes else ()
            inserted = Lifetime(org=finding.org, began_at=at, payers=payers)
            return tuple(sorted((*lifetimes, inserted), key=attrgetter("began_at")))
        case Reason.CREATION_MISRECORDED:
            return tuple(each._replace(began_at=at) if each.ended_at is None else each for each in lifetimes)
        case Reason.DELETION_UNRECORDED:
            return tuple(each._replace(ended_at=at) if each.ended_at is None else each for each in lifetimes)
        case _:
            return tuple(each._replace(org=finding.org) if each.ended_at is None else each for each in lifetimes)
