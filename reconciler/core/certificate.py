"""Whether a period is proven: that everything that happened in it is in the ledger, and for whom it is not. Pure.

A tenant is refused for any of these, each by its own rule, and named with what would help:

    cause        the tenant
    -----------  ----------------------------------------------------------------------------------------------
    unverified   all of them: no run that succeeded began after the period's end and the settle period
    known_since  was there before its history is known, so what happened before that is not; or was never seen
    unrecorded   was seen by a run in the period, and no lifetime of the ledger is its own
    gap          has time in the period of which no run could prove what happened
    assumed      has a correction that was dated by policy, on one of several UTC days on which it may have happened
    reported     is reported, and no run has proved it since the period ended; or its history contradicts itself
    deferred     was changing in the last run, and no run has proved it since the period ended

A report that people accept, and a gap that they accept after its end (`reconciler except TENANT history_unproven`), do
not refuse it: they are named, as are the gaps under the name `*`, in which tenants of which nobody knows may have come
and gone.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from reconciler.core.dating import INSTANT
from reconciler.core.history import ANY_TENANT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import timedelta

ABOUT_THE_PAST = frozenset({"history_contradicts"})
"""The reports that an earlier proof does not answer: what they are about lay before it, unseen."""
NOT_ABOUT_PROOF = frozenset({"closed_month_changed"})
"""The reports that say nothing against what the ledger holds."""


class Cause(enum.StrEnum):
    """Why a tenant is not proven."""

    UNVERIFIED = "unverified"
    KNOWN_SINCE = "known_since"
    UNRECORDED = "unrecorded"
    GAP = "gap"
    ASSUMED = "assumed"
    REPORTED = "reported"
    DEFERRED = "deferred"


class Stay(NamedTuple):
    """A lifetime that the ledger has, or a resource that runs saw: from when to when, None while it lasts."""

    began_at: datetime
    ended_at: datetime | None
    since: datetime | None = None
    """Of a resource: from when its history is known."""
    continues: bool = False
    """Of a resource: a person took it for the same tenant as the one before it."""


class OpenGap(NamedTuple):
    """Time of which no run could prove what happened."""

    from_at: datetime
    until_at: datetime
    why: str
    manager: str | None = None
    """The field manager that wrote last, where the spec had changed more than once."""


class Reported(NamedTuple):
    """An open report."""

    reason: str
    accepted: bool


class Facts(NamedTuple):
    """What is known of one tenant that the question is about."""

    tenant: str
    lifetimes: tuple[Stay, ...] = ()
    seen: tuple[Stay, ...] = ()
    gaps: tuple[OpenGap, ...] = ()
    assumed: tuple[OpenGap, ...] = ()
    """The intervals of corrections that were dated by policy, each with its reason."""
    reports: tuple[Reported, ...] = ()
    accepted_at: datetime | None = None
    """When people accepted what is not proven of its history; None if they do not."""
    is_unverified: bool = False
    """True if the last run could not verify it."""
    verified_until: datetime | None = None
    """Up to when an earlier run proved it then; None: no recent one did."""


class Doubt(NamedTuple):
    """Why one tenant is not proven, or would not be if people had not accepted it."""

    tenant: str
    """Empty where it is about the whole ledger."""
    cause: Cause
    detail: str = ""
    """The reason of the report, or why there is a gap."""
    from_at: datetime | None = None
    until_at: datetime | None = None
    """The time of which nobody knows; without an end, as long as no run has seen it."""
    accepted: bool = False
    manager: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """Whether a period is proven, from its first instant to before `until`."""

    first: datetime
    until: datetime
    doubts: tuple[Doubt, ...] = ()
    """By tenant."""

    @property
    def refused(self) -> tuple[Doubt, ...]:
        """What stands against it."""
        return tuple(doubt for doubt in self.doubts if not doubt.accepted)

    @property
    def accepted(self) -> tuple[Doubt, ...]:
        """What people accepted, or nobody can prove: named, and no reason to refuse."""
        return tuple(doubt for doubt in self.doubts if doubt.accepted)

    @property
    def is_proven(self) -> bool:
        """True if nothing stands against it."""
        return not self.refused

    @property
    def tenants(self) -> tuple[str, ...]:
        """The tenants that are not proven, each once."""
        return tuple(dict.fromkeys(doubt.tenant for doubt in self.refused if doubt.tenant))


class Question(NamedTuple):
    """A period, and how far the start of a lifetime may lie from the creation."""

    first: datetime
    until: datetime
    settle: timedelta


def certify(question: Question, verified_until: datetime | None, facts: Iterable[Facts]) -> Certificate:
    """Return whether a period is proven; `verified_until` is up to when the last run verified the ledger as a whole."""
    doubts = []
    if verified_until is None or verified_until < question.until:
        doubts.append(Doubt("", Cause.UNVERIFIED, from_at=verified_until))
    for tenant in facts:
        for rule in RULES:
            doubts.extend(rule(question, tenant))
    return Certificate(first=question.first, until=question.until, doubts=tuple(doubts))


def known_since(question: Question, facts: Facts) -> Iterator[Doubt]:
    """A lifetime was there before the history of what runs saw of it begins."""
    for lived in facts.lifetimes:
        if _is_within(lived.began_at, lived.ended_at, question):
            begins = max(lived.began_at, question.first)
            known = [seen.since for seen in facts.seen if seen.since and _overlap(seen, lived)]
            earliest = min(known, default=None)
            if earliest is None or earliest > begins + question.settle:
                yield Doubt(facts.tenant, Cause.KNOWN_SINCE, from_at=begins, until_at=earliest)


def unrecorded(question: Question, facts: Facts) -> Iterator[Doubt]:
    """A run saw a resource for which the ledger has no lifetime: a lifetime is one resource's."""
    taken: list[Stay] = []
    for seen in sorted(facts.seen, key=lambda each: each.began_at):
        if seen.continues:
            continue
        own = [lived for lived in facts.lifetimes if lived not in taken and _overlap(seen, lived)]
        if own:
            taken.append(min(own, key=lambda lived: abs(lived.began_at - seen.began_at)))
        elif _is_within(seen.began_at, seen.ended_at, question):
            accepted = _is_accepted(facts, seen.ended_at)
            yield Doubt(facts.tenant, Cause.UNRECORDED, "", seen.began_at, seen.ended_at, accepted)


def gap(question: Question, facts: Facts) -> Iterator[Doubt]:
    """Time of the period is not proven."""
    for one in facts.gaps:
        if _is_within(one.from_at, one.until_at, question):
            accepted = facts.tenant == ANY_TENANT or _is_accepted(facts, one.until_at)
            yield Doubt(facts.tenant, Cause.GAP, one.why, one.from_at, one.until_at, accepted, one.manager)


def assumed(question: Question, facts: Facts) -> Iterator[Doubt]:
    """Nothing proves on which of several UTC days a change happened."""
    for one in facts.assumed:
        is_of_days = one.from_at.astimezone(UTC).date() != (one.until_at - INSTANT).astimezone(UTC).date()
        if is_of_days and _is_within(one.from_at, one.until_at, question):
            accepted = _is_accepted(facts, one.until_at)
            yield Doubt(facts.tenant, Cause.ASSUMED, one.why, one.from_at, one.until_at, accepted)


def reported(question: Question, facts: Facts) -> Iterator[Doubt]:
    """It is reported, and no run has proved it since the period ended."""
    for report in facts.reports:
        is_answered = _is_proved(question, facts) and report.reason not in ABOUT_THE_PAST
        if not is_answered and report.reason not in NOT_ABOUT_PROOF:
            yield Doubt(facts.tenant, Cause.REPORTED, report.reason, facts.verified_until, None, report.accepted)


def deferred(question: Question, facts: Facts) -> Iterator[Doubt]:
    """It was changing in the last run, and no run has proved it since the period ended."""
    if facts.is_unverified and not facts.reports and not _is_proved(question, facts):
        yield Doubt(facts.tenant, Cause.DEFERRED, from_at=facts.verified_until)


RULES: tuple[Callable[[Question, Facts], Iterator[Doubt]], ...] = (
    known_since,
    unrecorded,
    gap,
    assumed,
    reported,
    deferred,
)

HELP: Mapping[Cause, str] = {
    Cause.UNVERIFIED: "start a `reconciler run` after the period's end and --settle",
    Cause.KNOWN_SINCE: "nobody can prove what happened before: check these days by hand, once, then "
    "`reconciler close MONTH --accept known_since`",
    Cause.UNRECORDED: "say when it lived with `reconciler record TENANT alive`, or accept it as a gap",
    Cause.GAP: "check what happened then, and accept it with `reconciler except TENANT history_unproven --until DAY "
    "--note WHY`",
    Cause.ASSUMED: "find out on which day it happened, bill the difference by hand, and accept it as a gap",
    Cause.REPORTED: "`reconciler status` shows the report; settle it, or accept it with `reconciler except`",
    Cause.DEFERRED: "the next run that finds it the same at both looks proves it",
}
"""What would help, by cause."""


def _is_proved(question: Question, facts: Facts) -> bool:
    """True if a run has proved the tenant since the period ended."""
    return not facts.is_unverified or (facts.verified_until is not None and facts.verified_until >= question.until)


def _is_accepted(facts: Facts, ended_at: datetime | None) -> bool:
    """True if people accepted what is not proven of its history after that had ended."""
    return facts.accepted_at is not None and ended_at is not None and facts.accepted_at >= ended_at


def _is_within(from_at: datetime, until_at: datetime | None, question: Question) -> bool:
    return from_at < question.until and (until_at is None or until_at > question.first)


def _overlap(one: Stay, other: Stay) -> bool:
    starts_in_time = other.ended_at is None or one.began_at < other.ended_at
    return starts_in_time and (one.ended_at is None or one.ended_at > other.began_at)
