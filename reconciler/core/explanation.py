"""One tenant's story: every event, which ones were corrections, and what proves their moments."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from heapq import merge
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from reconciler.core.model import Action, Evidence, Table
from reconciler.core.reasons import HISTORY_UNPROVEN, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from decimal import Decimal
    from uuid import UUID

    from reconciler.core.billing import Payer
    from reconciler.core.certificate import OpenGap
    from reconciler.core.closing import ClosedShare
    from reconciler.core.status import Exemption, OpenReport


class RecordedLifetime(NamedTuple):
    """A lifetime of the tenant. The last three fields are set on one that was closed when the next one began."""

    org: str
    created_at: datetime
    deleted_at: datetime | None
    reopened_at: datetime | None
    reopened_by: str | None
    note: str | None


class Entry(NamedTuple):
    """Something that happened, as the ledger records it."""

    event_table: str
    id: int | None
    """The event's; None where the lifecycle row says it."""
    org: str
    skill: str | None
    kind: str
    """created, deleted, enabled, disabled, suspended or resumed."""
    at: datetime
    correction: int | None = None
    """The number of the correction that wrote it, from 1; None: the portal wrote it."""

    @property
    def target(self) -> str | None:
        """Its name for `reconciler retract`; None for the lifecycle row, which cannot be taken back."""
        return None if self.id is None else f"{'suspension' if self.skill is None else 'skill'}:{self.id}"


class Correction(NamedTuple):
    """One row of `reconciler.corrections`, with the time of its run."""

    id: int
    reason: str
    org: str
    subject: str | None
    action: str
    recorded: str | None
    observed: str
    occurred_at: datetime | None
    not_before: datetime | None
    not_after: datetime | None
    evidence: str | None
    event_table: str
    event_id: int | None
    supersedes_event_id: int | None
    life_began_at: datetime | None
    closed_period: bool
    impact_chf: Decimal | None
    impact_min_chf: Decimal | None
    impact_max_chf: Decimal | None
    run_id: UUID | None
    """None: a person wrote it."""
    run_at: datetime
    """When the run that found it began, or the person decided."""
    taken_back_at: datetime | None = None
    """When a run wrote it again because the ledger no longer showed it, or took it back."""
    taken_back_by: int | None = None
    """The `id` of the correction that took it back: what it wrote stands, and that one changes what it means."""
    resource_version: str | None = None
    """The version that showed the change in the change log; None: no version did."""
    ledger_number: int | None = None
    """Its `number`, by which it is taken back: all rows of a decision have the same."""
    by: str | None = None
    """Who decided it; None: it belongs to no decision."""
    role: str | None = None
    note: str | None = None
    difference: str | None = None
    """What the ledger shows in its place now; None: it shows the row as it was written."""

    @property
    def is_taken_back(self) -> bool:
        """True if an unknown hand undid it, whether or not a run has noticed."""
        return self.taken_back_by is None and (self.taken_back_at is not None or self.difference is not None)

    @property
    def is_of_payer(self) -> bool:
        """True if it says who pays."""
        return self.event_table == "payers"

    @property
    def opposes_a_row(self) -> bool:
        """True if it answers a row of the portal's of which the change log shows no change."""
        is_of_log = self.evidence == Evidence.CHANGE_LOG and self.resource_version is None
        return is_of_log and self.reason != Reason.SKILL_OPEN_AFTER_DELETION

    @property
    def at(self) -> datetime:
        """Its moment, or the time of its run if it has none."""
        return self.occurred_at or self.run_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """All that is known about one tenant, by time."""

    tenant: str
    as_of: datetime
    """When it was read, by the database's clock: nothing is known of what comes after."""
    verified_at: datetime | None = None
    """When the last run over the cluster began that found the tenant true."""
    known_since: datetime | None = None
    """From when runs know what happened to it, but for the gaps; None if none has seen it in a cluster."""
    lifetimes: tuple[RecordedLifetime, ...] = ()
    payers: tuple[Payer, ...] = ()
    """Who pays for which days, where a person decided that: by the days."""
    entries: Iterable[Entry] = ()
    """Everything that happened. There may be millions: they are read anew each time that they are asked for."""
    corrections: tuple[Correction, ...] = ()
    gaps: tuple[OpenGap, ...] = ()
    """Time of which nobody knows what happened."""
    reports: tuple[OpenReport, ...] = ()
    exceptions: tuple[Exemption, ...] = ()
    closings: tuple[ClosedShare, ...] = ()
    """What the closed months hold of it, the latest last."""

    def accepts(self, gap: OpenGap) -> bool:
        """Return whether people accept a gap: they decided so after it ended."""
        return any(
            each.reason == HISTORY_UNPROVEN and not each.expired and each.created_at >= gap.until_at
            for each in self.exceptions
        )


@dataclass(frozen=True, slots=True)
class Period:
    """The part of a story that is shown: from one instant to another, both included."""

    start: datetime
    end: datetime

    @classmethod
    def of(cls, month: date) -> Period:
        """Return the UTC month that a day lies in."""
        start = datetime(month.year, month.month, 1, tzinfo=UTC)
        following = (start + timedelta(days=31)).replace(day=1)
        return cls(start, following - timedelta.resolution)

    def contains(self, at: datetime) -> bool:
        """True if an instant lies in it."""
        return self.start <= at <= self.end

    def touches(self, gap: OpenGap) -> bool:
        """Return whether a part of a gap lies in it."""
        return gap.from_at <= self.end and gap.until_at > self.start


_LIFECYCLE_KINDS: Mapping[str, str] = {Action.INSERT: "created", Action.STAMP: "deleted"}


def join_corrections(
    lifetimes: Sequence[RecordedLifetime], events: Iterable[Entry], corrections: Sequence[Correction]
) -> Iterator[Entry]:
    """Yield everything that happened by time, each with the number of the correction that wrote it.

    The events must be in the order of their times.
    """
    numbers: dict[tuple[object, ...], int] = {}
    for number, correction in enumerate(corrections, 1):
        if correction.event_id is not None:
            numbers[correction.event_table, correction.event_id] = number
        elif correction.action in _LIFECYCLE_KINDS and correction.taken_back_at is None:
            numbers[_LIFECYCLE_KINDS[correction.action], correction.life_began_at] = number
    # a person moves an end or a beginning to where the time begins, or ends
    decided = {
        at: number
        for number, correction in enumerate(corrections, 1)
        if correction.event_table == Table.LIFECYCLE and correction.evidence == Evidence.DECIDED
        for at in (correction.occurred_at, correction.not_after)
    }
    of_row = []
    for lifetime in lifetimes:
        for rank, kind, at in ((0, "created", lifetime.created_at), (2, "deleted", lifetime.deleted_at)):
            if at:
                written_by = numbers.get((kind, lifetime.created_at)) or decided.get(at)
                of_row.append((at, rank, Entry(Table.LIFECYCLE, None, lifetime.org, None, kind, at, written_by)))
    of_row.sort(key=_by_time)
    ranked = ((each.at, 1, each._replace(correction=numbers.get((each.event_table, each.id)))) for each in events)
    # at the same instant a tenant is created first and deleted last; events keep their own order
    return (entry for *_, entry in merge(ranked, of_row, key=_by_time))


_by_time = itemgetter(0, 1)
