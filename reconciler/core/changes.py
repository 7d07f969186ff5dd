"""What the change log says: the versions of a tenant become its changes, each with when it can have happened.

Pure. Versions are compared one with the next; of a version with a deletionTimestamp only the deletion counts:

    a version, and the one before it       change                 its own time, if it has one
    -------------------------------------  ---------------------  ---------------------------------------------
    the first of its uid                   created, and what is   creationTimestamp
                                           on or suspended then
    a package more, or less                enabled, disabled      when the owner of spec.packages wrote
    suspended, or no longer                suspended, resumed     when the owner of spec.suspend wrote, or
                                                                  status.suspendedAt where the status decides
    deleted, or a deletionTimestamp        deleted                deletionTimestamp

A change lies not before the version before it, nor before the last list that does not show it; and not after its own
time, else not after the next version that moved a time, else not after the list. A list that lacks what the log then
does not show as added was not whole: it says nothing of what is on in that version. A time that lies before its
interval is another write's: then the order of the versions stands. Where versions in between were not shown, as the
generation tells, the owner of a field may have written again since: then its time is no more than a bound.
"""

from __future__ import annotations

import enum
from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple

from reconciler.core.history import is_as_created
from reconciler.core.model import FIRST, Observed, VersionKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime, timedelta

    from reconciler.core.history import Remembered
    from reconciler.core.model import Version


class Kind(enum.StrEnum):
    """What happened to a tenant. The kinds of events are those of the ledger."""

    CREATED = "created"
    ENABLED = "enabled"
    DISABLED = "disabled"
    SUSPENDED = "suspended"
    RESUMED = "resumed"
    DELETED = "deleted"

    @property
    def is_of_lifetime(self) -> bool:
        """True if the ledger keeps it in a lifecycle row, not as an event."""
        return self in {Kind.CREATED, Kind.DELETED}

    @property
    def is_of_skill(self) -> bool:
        """True if it is about a skill."""
        return self in {Kind.ENABLED, Kind.DISABLED}


class Change(NamedTuple):
    """One change of a tenant, as the log showed it."""

    uid: str
    tenant: str
    resource_version: str
    """Of the version that shows it; its place in the log."""
    kind: Kind
    skill: str | None
    org: str | None
    not_before: datetime
    not_after: datetime
    at: datetime | None
    """Its own time."""
    created_at: datetime
    """Of its tenant."""
    event_id: int | None = None
    """The event that a run has appended for it."""
    is_latest: bool = False
    """Its own time is only the latest at which it can have happened: two lists showed it, and no version of its own."""

    @property
    def order(self) -> tuple[int, int, str]:
        """Its place among the changes of its tenant."""
        return int(self.resource_version), [*Kind].index(self.kind), self.skill or ""

    @property
    def earliest(self) -> datetime:
        """When it can have happened at the earliest."""
        return self.not_before if self.at is None or self.is_latest else self.at


class Seen(NamedTuple):
    """An earlier list: its resourceVersion, and when the run began that read it."""

    resource_version: int
    at: datetime


class State(NamedTuple):
    """What is billed of a tenant."""

    packages: frozenset[str]
    suspended: bool


NOTHING = State(frozenset(), suspended=False)
"""Before its creation."""


def changes(
    before: Remembered | None,
    versions: Sequence[Version],
    lists: Sequence[Seen],
    listed_at: datetime,
    tolerance: timedelta,
) -> Iterator[Change]:
    """Yield what happened to one tenant, in its order.

    `before` is the tenant as it stood where the log begins; None if there was none. `lists` are earlier lists in their
    order, and `listed_at` is when the list was read that the log was read up to. A time that misses its interval by no
    more than `tolerance` counts. A version that cannot be read says nothing.
    """
    if before and before.deleting_at:
        return
    first = before is None
    state = State(frozenset(before.packages), before.suspended) if before else NOTHING
    latest = before.created_at if before else None
    generation = before.generation if before else 0
    readable = [version for version in versions if not version.observed.problem and version.observed.resource_version]
    for (kind, now), later in zip(readable, _later_times(readable), strict=True):
        if now.created_at is None or now.resource_version is None:
            continue
        seen = bisect_left(lists, (int(now.resource_version),))
        bounds = [now.created_at, *([latest] if latest else []), *([lists[seen - 1].at] if seen else [])]
        upper = max(listed_at if later is None else min(later, listed_at), *bounds)
        moved = now.generation - generation if now.generation and generation is not None else 1
        made = shown = _Maker(now, max(bounds), upper, tolerance, is_next=moved <= 1)
        if first:
            born = _Maker(now, now.created_at, now.created_at, tolerance)
            yield born.change(Kind.CREATED, None, now.created_at)
            if is_as_created(now):
                # so it is still
                made = born
            elif kind is not VersionKind.ADDED:
                # it was there already: a list that lacks it was not whole, and says nothing of what was on then
                made = shown._replace(not_before=now.created_at)
        is_deleted = kind is VersionKind.DELETED or now.deleting_at is not None
        if first or not is_deleted:
            yield from made.difference(state, now)
        if is_deleted:
            yield shown.change(Kind.DELETED, None, now.deleting_at)
            return
        first, state, generation = False, State(frozenset(now.packages), now.suspended), now.generation
        latest = max(latest or now.created_at, _latest(now))


def on_at_the_end(before: Remembered | None, versions: Iterable[Version]) -> tuple[str, ...] | None:
    """Return the packages of a tenant when its deletion was asked for; None if it was not, or they are not known."""
    packages = before.packages if before and before.is_current else None
    if before and before.deleting_at:
        return packages
    for kind, now in versions:
        if kind is VersionKind.DELETED or now.deleting_at:
            return packages
        packages = None if now.problem else now.packages
    return None


def by_two_lists(change: Change) -> Change:
    """Return a change that no version of its own shows: its owner may have written something else since."""
    return change if change.kind.is_of_lifetime else change._replace(is_latest=True)


def first_changes(
    known: Remembered, kept: Iterable[Change], seen_at: datetime, tolerance: timedelta
) -> Iterator[Change]:
    """Yield the creation of a remembered tenant and what was on or suspended then, where the ledger has none of it.

    `kept` are its later changes, and `seen_at` is when a list showed it.
    """
    later = {(change.kind.is_of_lifetime, change.skill) for change in kept}
    until = known.created_at if known.generation == 1 else max(seen_at, known.created_at)
    observed = Observed(
        name=known.name,
        uid=known.uid,
        org=known.org,
        created_at=known.created_at,
        suspended=known.suspended,
        packages=known.packages,
        resource_version=known.resource_version,
    )
    made = _Maker(observed, known.created_at, known.created_at, tolerance)
    yield made.change(Kind.CREATED, None, known.created_at)
    for change in made._replace(not_after=until).difference(NOTHING, observed):
        if (False, change.skill) not in later:
            yield change


class _Maker(NamedTuple):
    """Makes the changes that one version shows."""

    now: Observed
    not_before: datetime
    not_after: datetime
    tolerance: timedelta
    is_next: bool = True
    """True if no other change of the spec lies between this version and the one before."""

    def change(self, kind: Kind, skill: str | None, at: datetime | None) -> Change:
        """Return a change of this version; `at` is its own time, which counts if the interval does not exclude it."""
        now, start, end, tolerance, _ = self
        uid, version, created_at = now.uid or "", now.resource_version or "", now.created_at or start
        if at is not None and start - tolerance <= at <= end + tolerance:
            at = end = min(max(at, start), end)
        else:
            at = None
        return Change(uid, now.name, version, kind, skill, now.org, start, end, at, created_at)

    def difference(self, before: State, now: Observed) -> Iterator[Change]:
        """Yield the events between two states."""
        exact = self.not_before if self.not_before == self.not_after else None
        packages = frozenset(now.packages)
        for skill in sorted(packages ^ before.packages):
            kind = Kind.ENABLED if skill in packages else Kind.DISABLED
            yield self._event(kind, skill, exact or now.packages_written_at)
        if now.suspended != before.suspended:
            kind = Kind.SUSPENDED if now.suspended else Kind.RESUMED
            status = None if now.suspend_is_set else now.suspended_at
            yield self._event(kind, None, exact or now.suspend_written_at or status)

    def _event(self, kind: Kind, skill: str | None, at: datetime | None) -> Change:
        change = self.change(kind, skill, at)
        return change if self.is_next or at == self.not_before else change._replace(at=None)


def _latest(now: Observed) -> datetime:
    """Return a time that the version is not older than."""
    times = now.last_modified_at, now.deleting_at, now.created_at
    return max((time for time in times if time), default=FIRST)


def _later_times(versions: Sequence[Version]) -> Iterator[datetime | None]:
    """Yield for each version the first time of a later one that moved; one that moved none says nothing."""
    found: list[datetime | None] = []
    later: list[datetime] = []
    for _, now in reversed(versions):
        latest = _latest(now)
        while later and later[-1] <= latest:
            later.pop()
        found.append(later[-1] if later else None)
        later.append(latest)
    return reversed(found)
