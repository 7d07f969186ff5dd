"""Closing a month: which prices it keeps, what of it is accepted, and what has changed since. Pure.

A month's first closing keeps its prices and its VAT rate, for every organisation and all later reckoning of that month.
Prices are not kept for every day of the past, so one of which the ledger does not prove that it held from the month's
first day on is not taken without a person's word:

    the price                                                 is
    --------------------------------------------------------  ------------------------------------------------------
    was set or changed after the month had begun              refused
    is lacking, and the last month closed before holds it     refused
    of the fee or the VAT rate, whose row was changed then    refused, unless the other one of the row is given and this
                                                              one is as in the last month closed before; with the fee,
                                                              the VAT rate is taken also if none was closed before
    is given, for any closing                                 what was given, or today's where no amount was
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal  # noqa: TC003 - msgspec reads it
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from reconciler.core.billing import FEE, NOTHING, LineChange, in_order
from reconciler.core.certificate import Cause
from reconciler.core.errors import Refusal
from reconciler.core.model import Finding
from reconciler.core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from datetime import date, datetime

    from reconciler.core.certificate import Certificate, Doubt

FEE_NAME, VAT_NAME = "fee", "vat"
"""What the monthly fee and the VAT rate are called among the prices."""
SKILL = "skill:"
"""Before the name of a skill that could be taken for another price."""
MAX_LINES = 5
"""Lines that a report names."""
MAX_CAUSES = 5
"""Numbers and rows that are named behind a line."""
NOT_INCLUDED = "setup fees, AI usage and messages"
"""What is invoiced and no line has."""


class PriceUncertain(Refusal):
    """It is not known that a price held for the whole month."""


@dataclass(frozen=True, slots=True)
class KeptPrices:
    """The prices that a month keeps, in CHF before VAT, and its VAT rate in percent."""

    fee: Decimal
    vat: Decimal
    skills: dict[str, Decimal]


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceList:
    """Today's prices, each with when it was set or changed last; None where the ledger has no such row."""

    fee: tuple[Decimal, datetime] | None
    vat: tuple[Decimal, datetime] | None
    skills: Mapping[str, tuple[Decimal, datetime]]


class Accepted(NamedTuple):
    """What is not proven of a month, and somebody accepted when it was closed."""

    tenant: str
    cause: str
    detail: str = ""
    """The report, or why it is not proven and from when until when in the month."""


class Invoice(NamedTuple):
    """An invoice over days of the month."""

    number: str
    chf: Decimal
    """What it has for the monthly fee and skills, before VAT; all of it where it has no lines."""
    vat_rate: Decimal
    is_of_month: bool = True
    """False: it is of other days, too, so that nobody knows what it has of the month."""


class OrgTotal(NamedTuple):
    """What a closing holds for one organisation, in CHF before VAT."""

    org: str
    before: Decimal
    """What the closings before hold."""
    chf: Decimal
    invoices: tuple[Invoice, ...] = ()
    is_first: bool = True
    """True if no closing before holds anything of it, or was made when it had an invoice."""

    @property
    def after(self) -> Decimal:
        """What the month costs, with this closing."""
        return self.before + self.chf

    @property
    def not_invoiced(self) -> Decimal | None:
        """What an adjustment has to bill in addition, or to credit; None if that is not known, or nothing is invoiced.

        Of a first closing it is what the invoices do not have. Each later difference is its own adjustment: what was
        billed of the ones before is on later invoices.
        """
        if not all(one.is_of_month for one in self.invoices) or not self.invoices:
            return None
        return self.after - sum((one.chf for one in self.invoices), NOTHING) if self.is_first else self.chf


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """What closing a month once more has added, or would add."""

    month: date
    number: int
    org: str | None
    """None: everybody."""
    by: str
    note: str
    prices: KeptPrices
    accepted: tuple[Accepted, ...]
    """By this closing."""
    totals: tuple[OrgTotal, ...]
    """Of the organisations whose lines differ."""
    unpriced: tuple[str, ...]
    """Skills that were on and have no price."""
    reprices: bool
    """True if the month has these prices from it on: of the first closing, and where others were given."""
    lines: int
    written: bool
    """False: a dry run, or there was nothing to add."""
    adds: bool
    """False: nothing has changed since the last closing."""

    @property
    def total_chf(self) -> Decimal:
        """What it adds, before VAT."""
        return sum((each.chf for each in self.totals), NOTHING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """What one closing of a month holds, or what the next one would hold."""

    month: date
    number: int | None
    """None: the next one."""
    lines: Iterable[LineChange]
    """There may be millions: they are read anew each time that they are asked for."""
    vat_rate: Decimal
    invoices: Mapping[str, tuple[Invoice, ...]]
    """Those of days of the month, by organisation."""
    was_closed: bool
    """False: the month was never closed, so that this is all of it."""
    as_of: datetime
    """A month that is not over is counted up to then."""

    @property
    def difference_chf(self) -> Decimal:
        """What the customers owe in addition, before VAT; negative: what is owed to them."""
        return sum((line.difference_chf for line in self.lines), NOTHING)


class ClosedMonth(NamedTuple):
    """How a closed month stands."""

    month: date
    closings: int
    is_for_everybody: bool
    total_chf: Decimal
    vat_rate: Decimal
    closed_at: datetime
    """When it was closed last."""
    tenants_changed: int = 0
    """Tenants with an open report that the month has changed."""
    not_taken_in_chf: Decimal = NOTHING


class ClosedShare(NamedTuple):
    """What one closing holds of a tenant for one organisation."""

    month: date
    number: int
    org: str
    chf: Decimal
    closed_at: datetime


def prices_to_keep(
    begins: datetime, today: PriceList, before: KeptPrices | None, given: Mapping[str, Decimal | None]
) -> KeptPrices:
    """Return the prices of a month that is closed for the first time.

    `begins` is when the month began, `before` are those of the last month closed before it, and `given` what people
    say: None means today's price.

    Raises:
        PriceUncertain: it is not known that a price held for the whole month.
    """
    uncertain = [*_uncertain(begins, today, before, given)]
    if uncertain:
        said = "; ".join(f"{item} {what}" for item, what in uncertain)
        options = " ".join(f"--accept-price {item}" for item, _ in uncertain)
        raise PriceUncertain(
            f"It is not known which prices {begins:%Y-%m} had: {said}.",
            f"Nothing was written. Say which price held: {options} takes today's price, and `=CHF` behind it "
            f"another one, as in `--accept-price {uncertain[0][0]}=49.00`.",
        )
    skills = {skill: price for skill, (price, _) in today.skills.items()}
    return with_given(
        KeptPrices(today.fee[0] if today.fee else NOTHING, today.vat[0] if today.vat else NOTHING, skills),
        {item: price for item, price in given.items() if price is not None},
        today,
    )


def with_given(kept: KeptPrices, given: Mapping[str, Decimal | None], today: PriceList) -> KeptPrices:
    """Return the prices with those that people say: None means today's, and a skill that has none today has none."""
    skills = dict(kept.skills)
    for item, price in given.items():
        if item not in {FEE_NAME, VAT_NAME}:
            skill = item.removeprefix(SKILL)
            chosen = price if price is not None else today.skills.get(skill, (None,))[0]
            skills.pop(skill, None)
            skills |= {} if chosen is None else {skill: chosen}
    fee, vat = (
        old if item not in given else price if (price := given[item]) is not None else row[0] if row else NOTHING
        for item, old, row in ((FEE_NAME, kept.fee, today.fee), (VAT_NAME, kept.vat, today.vat))
    )
    return KeptPrices(fee, vat, skills)


def priced(skill: str) -> str:
    """Return what a skill is called among the prices: one called `fee` is `skill:fee`."""
    return f"{SKILL}{skill}" if skill in {FEE_NAME, VAT_NAME} or skill.startswith(SKILL) else skill


def _uncertain(
    begins: datetime, today: PriceList, before: KeptPrices | None, given: Mapping[str, Decimal | None]
) -> Iterator[tuple[str, str]]:
    """Yield each price that may not have held for the whole month, with what is known of it."""
    pair = {FEE_NAME: (today.fee, before and before.fee), VAT_NAME: (today.vat, before and before.vat)}
    for item, (row, kept) in pair.items():
        (other,) = pair.keys() - {item}
        if item in given:
            continue
        if row is None:
            yield item, "has no row in public.platform_pricing"
        elif row[1] > begins and not (other in given and (kept == row[0] or (kept is None and item == VAT_NAME))):
            yield item, f"is {row[0]} today, in a row that was changed at {_minute(row[1])} UTC"
    for skill, (price, since) in sorted(today.skills.items()):
        if since > begins and priced(skill) not in given:
            yield priced(skill), f"is {price} today, and was set or changed at {_minute(since)} UTC"
    for skill, price in sorted(before.skills.items() if before else ()):
        if skill not in today.skills and priced(skill) not in given:
            yield priced(skill), f"was {price} in the last closed month, and has no price today"


def accept(certificate: Certificate, names: Collection[str]) -> tuple[Certificate, tuple[Accepted, ...]]:
    """Return a month's certificate with what is accepted of it, and what of that is new.

    `names` are tenants or causes.
    """
    new: list[Accepted] = []

    def is_accepted(doubt: Doubt) -> bool:
        is_new = bool(not doubt.accepted and doubt.tenant and {doubt.tenant, doubt.cause} & {*names})
        if is_new:
            new.append(accepted(doubt, certificate.until))
        return doubt.accepted or is_new

    return replace(certificate, doubts=tuple(d._replace(accepted=is_accepted(d)) for d in certificate.doubts)), tuple(
        new
    )


def accepted(doubt: Doubt, until: datetime) -> Accepted:
    """Return a doubt about a month as it is kept: another one of the tenant is not accepted with it.

    `until` is the end of the month. What goes on after that belongs to other months.
    """
    detail = doubt.detail
    if doubt.cause in {Cause.GAP, Cause.ASSUMED, Cause.UNRECORDED} and doubt.from_at:
        ends = min(doubt.until_at or until, until)
        detail = f"{detail} {doubt.from_at:%Y-%m-%dT%H:%M:%S.%fZ} to {ends:%Y-%m-%dT%H:%M:%S.%fZ}".strip()
    return Accepted(doubt.tenant, doubt.cause, detail)


def changed_months(changes: Iterable[LineChange]) -> Iterator[Finding]:
    """Yield a report of each closed month of each tenant in which a line is not what its closings have."""
    by_month = attrgetter("tenant", "month")
    for (tenant, month), its in groupby(sorted(changes, key=lambda each: (by_month(each), in_order(each))), by_month):
        lines = [*its]
        named = [said(change) for change in lines[:MAX_LINES]]
        more = [f"{len(lines) - MAX_LINES} more lines"] if len(lines) > MAX_LINES else []
        causes = [*dict.fromkeys(cause for change in lines for cause in change.causes)]
        behind = (
            f"; by {', '.join(causes[:MAX_CAUSES])}{' and more' if len(causes) > MAX_CAUSES else ''}" if causes else ""
        )
        before, after = (sum(map(attrgetter(name), lines), NOTHING) for name in ("chf_before", "chf_after"))
        yield Finding(
            Reason.CLOSED_MONTH_CHANGED,
            tenant,
            lines[-1].org,
            Reason.CLOSED_MONTH_CHANGED.action,
            f"{month:%Y-%m}",
            f"{before} CHF",
            f"{after} CHF ({after - before:+}): {'; '.join([*named, *more])}{behind}",
            impact_chf=after - before,
        )


def said(change: LineChange) -> str:
    """Return a changed line in words."""
    item = "the monthly fee" if change.item is FEE else change.item
    days = f"{change.days_before} to {change.days_after} days"
    return f"{item} of {change.org}, {days}, {change.chf_before} to {change.chf_after} CHF"


def _minute(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M}"
