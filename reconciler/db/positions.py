"""What is remembered from run to run: every tenant as it stood at the position, and the gaps in what is known of it.

While a list is compared with the ledger, it is compared with what is remembered too; then the change log says of which
tenants it proves what happened since. What is new is kept on disk until the run's own row is written: both are in one
transaction, or neither is in the ledger.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

import structlog

from reconciler.core.changes import Change, Kind
from reconciler.core.history import (
    ANY_TENANT,
    UNREADABLE,
    Gap,
    Position,
    Remembered,
    Unproven,
    incomplete,
    is_as_remembered,
    is_older,
    is_restored,
    known_since,
    restored,
    unproven,
)
from reconciler.core.model import ChangeLog, HistoryRead, LogRead, Observed, Version, VersionKind
from reconciler.core.pairing import Rules
from reconciler.db.candidates import Renewed, as_observed
from reconciler.db.changes import Settlement, Told, keep_changes, postponed, settle_changes
from reconciler.db.copied import array_literal, escape
from reconciler.db.queries import query
from reconciler.db.spool import CopySpool

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from datetime import datetime
    from uuid import UUID

    from reconciler.core.compare import Comparison
    from reconciler.core.dating import Dating
    from reconciler.core.model import Listing
    from reconciler.db.connection import Cursor
    from reconciler.db.runs import Start

ROWS_BATCH = 2_000
"""Tenants that are in memory at a time."""

_log = structlog.get_logger(__name__)


class Sightings:
    """What a list shows of what happened since the list before. A context manager that removes it at its end.

    Attributes:
        renewed: the tenants that the list shows under another uid.
        read: what the run says of it.
    """

    def __init__(self) -> None:
        """Begin with nothing: a file has no history."""
        self._stack = ExitStack()
        self._new: _New | None = None
        self._told: Told | None = None
        self.renewed = Renewed()
        self.read = HistoryRead()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def expect(self, started: Start, listing: Listing, *, accept: bool) -> None:
        """Begin with a list of a cluster and the change log up to it; `accept` takes a restored cluster."""
        position = Position(listing.resource_version, started.observed_at)
        # a later change is not on the list
        listed_at = started.observed_at + timedelta(seconds=listing.read_at - started.read_at)
        tenants = self._stack.enter_context(CopySpool("What the tenants changed"))
        gaps = self._stack.enter_context(CopySpool("What is not proven"))
        before = started.last or listing
        self._new = _New(listing.source, before.source, started.position, position, listed_at, accept, tenants, gaps)
        self._new.is_restored = accept and is_older(listing.resource_version, before.resource_version)
        self._new.names = sorted(listing.changed.names) if listing.changed else None
        if listing.log and listing.source == before.source and not self._new.is_restored:
            self._new.log = listing.log

    def look(self, cursor: Cursor) -> None:
        """Compare the staged list with what is remembered, and keep what is new.

        Raises:
            RestoredSource: it is a list of a copy of the cluster, and that is not accepted.
        """
        if (new := self._new) is None:
            return
        kept = cursor.execute(query("kept_changes"), {"source": new.source} | new.began_with).fetchall()
        new.kept = [Change(*row)._replace(kind=Kind(row[3])) for row in kept]
        for change in new.kept:
            new.kept_of.setdefault(change.uid, []).append(change)
        was_known = new.is_restored
        self._look_at_all(cursor, new)
        if new.is_restored and not was_known:
            # one of them shows that the cluster was restored: of the others it may have undone something, too
            self._look_at_all(cursor, new)
        if new.accept:
            # the run that first saw them may have come before anybody could accept it
            earlier = cursor.execute(query("restored_before"), {"source": new.remembered})
            new.continuing.extend(uid for (uid,) in earlier)
        self.renewed = Renewed(new.remembered, tuple(new.following), tuple(new.continuing))

    def read_log(self) -> None:
        """Wait for the change log, and say of which tenants it proves what happened.

        Raises:
            RestoredSource: the list lacks a tenant whose deletion the log does not show, and that is not accepted.
        """
        if (new := self._new) is None:
            return
        log = ChangeLog(LogRead.LOST) if new.is_restored else new.log()
        told = new.tell(log)
        gaps = len(new.gap_uids - new.proven)
        seconds = round((new.position.at - new.last.known_at).total_seconds()) if new.last else None
        self.read = HistoryRead(log.read, seconds, changes=len(log.versions), gaps=gaps)
        self._told = told

    @property
    def unproven(self) -> frozenset[str]:
        """The tenants of which only a later log can prove what happened up to this list."""
        return frozenset(self._new.pending) if self._new else frozenset()

    def decides(self, first: Comparison) -> bool:
        """True if the change log, as it was told in this run or an earlier one, can decide what a comparison found."""
        return bool(self._told and (self._told.kept or self._told.shown or any(first.findings.values())))

    def settle(self, cursor: Cursor, first: Comparison, dating: Dating, settle: timedelta) -> Settlement:
        """Return what the change log decides of what a comparison found."""
        if self._new is None or self._told is None:
            return Settlement()
        rules = Rules(dating.observed_at, settle, dating.tolerance, dating.fallback)
        settlement = settle_changes(cursor, self._told, first, rules)
        if self._new.is_overtaken(cursor):
            # the versions were compared with younger tenants, which shows changes that never were
            return postponed(first)
        waiting = sum(not each.action.writes for each in settlement.findings if each.shown_by)
        self.read = self.read._replace(waiting=waiting)
        return settlement

    def unread(self, cursor: Cursor) -> frozenset[str]:
        """Return the tenants of which something counts as unread, as another run has moved the position meanwhile.

        What that run left in doubt, this one need not have compared.
        """
        if self._new is None or self._told is None or not self._new.is_overtaken(cursor):
            return frozenset()
        shown = {version.observed.name for version in self._told.log.versions}
        left = (name for (name,) in cursor.execute(query("left_in_doubt")))
        return frozenset(shown.union((name for name, _ in self._new.differing.values()), left))

    @staticmethod
    def _look_at_all(cursor: Cursor, new: _New) -> None:
        """Look at the tenants that the list shows otherwise."""
        new.restart()
        known = {"source": new.remembered, "is_restored": new.is_restored, "names": new.names} | new.began_with
        with cursor.connection.cursor("sightings") as stream:
            stream.itersize = ROWS_BATCH
            for row in stream.execute(query("sightings"), known):
                new.look_at(*_sides(row))

    def keep(self, cursor: Cursor, unwritten: Collection[str], run_id: UUID) -> None:
        """Remember it, under the lock of all runs and in the transaction of the run's row, which has pinned the source.

        `unwritten` are the tenants that are otherwise in the ledger than the list showed them.
        It counts as unread if another run has moved the position meanwhile, and where a run that was stopped has not
        pinned its source.
        """
        if (new := self._new) is None or self._told is None:
            return
        moved = {"source": new.source, **new.moved(self._told.log)}
        if not cursor.execute(query("move_position"), moved | new.began_with).rowcount:
            _log.info("history.unread", meaning="another run has moved the position, or the source is not pinned")
            return
        known = {"source": new.source, "remembered": new.remembered, "at": new.position.at}
        if new.tenants:
            cursor.execute(query("sighted_table"))
            _copy(cursor, query("copy_sighted"), new.tenants)
            cursor.execute(query("know_created"), {"created": [*new.created]})
            cursor.execute(query("know_ended"), {"ended": json.dumps(self._told.ending)})
            cursor.execute(query("remember_tenants"), known)
            cursor.execute(query("forget_vanished"), known)
        marked = {"unwritten": [*unwritten], "names": new.names}
        cursor.execute(query("mark_unwritten"), known | new.began_with | marked)
        if new.continuing:
            cursor.execute(query("continue_tenants"), {"source": new.source, "continuing": new.continuing})
        if new.gaps:
            cursor.execute(query("gaps_table"))
            _copy(cursor, query("copy_gaps"), new.gaps)
            cursor.execute(query("drop_proven"), {"proven": [*new.proven]})
            cursor.execute(query("keep_gaps"), known)
        keep_changes(cursor, self._told, run_id)


@dataclass(slots=True)
class _New:
    """What one list shows that is not remembered, on disk."""

    source: str
    remembered: str
    """The source of the list before."""
    last: Position | None
    position: Position
    listed_at: datetime
    accept: bool
    tenants: CopySpool
    gaps: CopySpool
    names: list[str] | None = None
    """The tenants that were listed; None: all of them."""
    log: Callable[[], ChangeLog] = field(default=lambda: ChangeLog(LogRead.LOST))
    """Waits for the change log since the last list."""
    kept: list[Change] = field(default_factory=list)
    """The changes that earlier runs have kept."""
    kept_of: dict[str, list[Change]] = field(default_factory=dict)
    """The same, by the uid of their tenant."""
    undone: list[Change] = field(default_factory=list)
    """Those of them that the list of a restored cluster does not show."""
    differing: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    """The tenants that the list shows otherwise, by uid: the name, and the version; none if the list lacks it."""
    gap_uids: set[str] = field(default_factory=set)
    """Those of them with a gap, unless the log proves what happened in it."""
    proven: set[str] = field(default_factory=set)
    """Those of them that have none for that."""
    steps: dict[str, Version] = field(default_factory=dict)
    """How the list shows those of which changes are kept: all that is known of them where the log is lost."""
    blind: set[str] = field(default_factory=set)
    """Those of them that could not be read where the log begins, or by now."""
    pending: set[str] = field(default_factory=set)
    """The names of those of which a later log will show it."""
    created: set[str] = field(default_factory=set)
    """The uids whose creation the log showed."""
    is_restored: bool = False
    """True if the list is of a restored cluster, and a person accepted it."""
    following: list[str] = field(default_factory=list)
    forerunners: dict[str, str] = field(default_factory=dict)
    """The uid that their names had before."""
    continuing: list[str] = field(default_factory=list)

    @property
    def began_with(self) -> dict[str, object]:
        """The position that the run began with, as parameters."""
        return {"last_position": self.last and self.last.resource_version, "last_at": self.last and self.last.at}

    def is_overtaken(self, cursor: Cursor) -> bool:
        """True if another run has moved the position. What was read before is of the list that this one began at."""
        return cursor.execute(query("position_moved"), self.began_with).fetchone() == (True,)

    def restart(self) -> None:
        """Forget what was seen of the list."""
        self.tenants.restart()
        self.gaps.restart()
        self.following.clear()
        self.continuing.clear()
        self.differing.clear()
        self.gap_uids.clear()
        self.blind.clear()
        self.steps.clear()
        self.undone.clear()

    def tell(self, log: ChangeLog) -> Told:
        """Take in the change log: which tenants it proves, and which a later one will.

        Raises:
            RestoredSource: the list lacks a tenant whose deletion the log does not show, and that is not accepted.
        """
        last_at = self.last.known_at if self.last else self.listed_at
        told = Told(self.source, last_at, self.listed_at, log, self.kept)
        if log.read is LogRead.LOST or not self.last:
            if self.last:
                from_at = self.last.doubted_from(self.last.at, is_restored=self.is_restored)
                self.keep_gap(Gap(ANY_TENANT, from_at, self.listed_at, Unproven.LOG_LOST), "")
            told.unproven |= {name for uid, (name, _) in self.differing.items() if uid in self.gap_uids}
            # what waits must not be written alone, where the list shows that it was undone
            told.shown = {} if self.is_restored else {uid: [version] for uid, version in self.steps.items()}
            told.drop(self.undone)
            return told
        for uid, versions in told.shown.items():
            if versions[0].kind is VersionKind.ADDED:
                self.created.add(uid)
        seen = {uid: each for uid, each in self.differing.items() if uid not in self.blind}
        whole = {uid for uid, (_, version) in seen.items() if _is_whole(told.shown.get(uid, []), version)}
        lacking = [name for uid, (name, version) in seen.items() if version is None and uid not in whole]
        if log.read is LogRead.REACHED and lacking and not self.accept:
            raise incomplete(sorted(lacking))
        unreadable = {
            uid: version.observed.name
            for uid, versions in told.shown.items()
            for version in versions
            if version.observed.problem
        }
        for uid in unreadable.keys() - self.gap_uids:
            self.keep_gap(Gap(unreadable[uid], last_at, self.listed_at, Unproven.UNREADABLE), uid)
        self.gap_uids |= unreadable.keys()
        whole -= unreadable.keys()
        self.proven = self.gap_uids & whole
        open_names = {name for uid, (name, _) in self.differing.items() if uid not in whole}
        if log.read is LogRead.PARTLY:
            self.pending = {name for uid, (name, _) in seen.items() if uid not in whole}
            self.proven |= self.gap_uids - unreadable.keys() - self.blind
        told.unproven |= open_names.union(unreadable.values())
        told.pending = frozenset(self.pending)
        self._remember(told)
        return told

    def moved(self, log: ChangeLog) -> dict[str, object]:
        """Return where the position is from now on, as parameters."""
        at = self.position.at
        if log.read is LogRead.PARTLY and self.last:
            return {"position": log.position, "at": None, "whole_at": None if self.pending else at}
        return {"position": self.position.resource_version, "at": at, "whole_at": at}

    def _remember(self, told: Told) -> None:
        """Remember the tenants as they stood where the log ends: where it did not reach the list, as it showed them."""
        if told.log.read is LogRead.PARTLY:
            self.tenants.restart()
        for uid, versions in told.shown.items():
            is_gone = versions[-1].kind is VersionKind.DELETED
            readable = [version.observed for version in versions if not version.observed.problem]
            came_and_went = is_gone and uid in self.created and uid not in self.differing
            is_needed = told.log.read is LogRead.PARTLY or came_and_went
            if readable and is_needed:
                since = readable[0].created_at if uid in self.created else None
                self._keep_tenant(readable[-1], since or self.listed_at, self.forerunners.get(uid))
            if is_needed and (is_gone or versions[-1].observed.problem):
                self._keep_state("vanished" if is_gone else "unreadable", uid)

    def look_at(
        self,
        now: Observed | None,
        before: Remembered | None,
        heir: str | None,
        forerunner: Remembered | None,
    ) -> None:
        """Keep what is new of one tenant.

        `heir` is the uid that has the name of a tenant that is gone, and `forerunner` the tenant that had the name of a
        new one.
        """
        if before is None:
            if now and now.uid:
                self._meet(now, forerunner)
            return
        why = unproven(before, now, heir=heir)
        self.differing[before.uid] = before.name, now and (now.resource_version or "")
        if heir == UNREADABLE or not before.is_current:
            self.blind.add(before.uid)
        if now and not now.problem:
            if is_restored(before, now, self.last):
                if not self.accept:
                    raise restored(before, now, self.last)
                self.is_restored = True
            self._keep_tenant(now, before.since)
            if now.uid in self.kept_of:
                self.steps[before.uid] = Version(VersionKind.MODIFIED, now)
        else:
            self._miss(before, is_unreadable=bool(now) or heir == UNREADABLE)
        if self.is_restored and now and not before.deleting_at:
            why = Unproven.RESTORED
        undone = self._undo(before.uid, now)
        if why is None or self.last is None:
            return
        manager = now.last_modified_by if now and why is Unproven.CHANGED_OFTEN else None
        from_at = min([before.unwritten_since or self.last.known_at, *(change.not_before for change in undone)])
        from_at = self.last.doubted_from(from_at, is_restored=self.is_restored)
        self.gap_uids.add(before.uid)
        self.keep_gap(Gap(before.name, from_at, self.listed_at, why, manager), before.uid)

    def _undo(self, uid: str, now: Observed | None) -> list[Change]:
        """Return the kept changes of a tenant that a restored cluster undid: its versions are given once more."""
        if not self.is_restored:
            return []
        shown = now and now.resource_version
        undone = [one for one in self.kept_of.get(uid, ()) if not shown or is_older(shown, one.resource_version)]
        self.undone += undone
        return undone

    def _miss(self, before: Remembered, *, is_unreadable: bool) -> None:
        """Keep that the list lacks a tenant, or shows it and it cannot be read."""
        self._keep_state("unreadable" if is_unreadable else "vanished", before.uid)
        if before.uid in self.kept_of and not is_unreadable:
            gone = Observed(
                name=before.name,
                uid=before.uid,
                org=before.org,
                created_at=before.created_at,
                resource_version=self.position.resource_version,
            )
            self.steps[before.uid] = Version(VersionKind.DELETED, gone)

    def _meet(self, now: Observed, forerunner: Remembered | None) -> None:
        """Keep a tenant that no list has shown before."""
        assert now.uid  # noqa: S101 - one without is not met
        if self.last:
            self.differing[now.uid] = now.name, now.resource_version
        if forerunner:
            self.following.append(now.uid)
            self.forerunners[now.uid] = forerunner.uid
            if self.accept and is_as_remembered(forerunner, now):
                self.continuing.append(now.uid)
        self._keep_tenant(now, known_since(now, self.listed_at), forerunner and forerunner.uid)

    def _keep_tenant(self, now: Observed, since: datetime, follows: str | None = None) -> None:
        fields = (
            "seen",
            now.uid,
            now.name,
            now.resource_version or "",
            _text(now.generation),
            now.org,
            array_literal(now.packages),
            _flag(now.suspended),
            _flag(now.suspend_is_set),
            _time(now.created_at),
            _time(now.deleting_at),
            _time(since),
            follows,
        )
        self.tenants.write(_line(fields))

    def _keep_state(self, state: str, uid: str) -> None:
        self.tenants.write(_line((state, uid, *[None] * 11)))

    def keep_gap(self, gap: Gap, uid: str) -> None:
        fields = (uid, gap.tenant, _time(gap.from_at), _time(gap.until_at), gap.why, gap.manager)
        self.gaps.write(_line(fields))


def _is_whole(versions: Sequence[Version], version: str | None) -> bool:
    """True if the log showed the version that the list shows, or the deletion of what the list lacks."""
    if not versions:
        return False
    kind, shown = versions[-1]
    if version is None:
        return kind is VersionKind.DELETED
    return kind is not VersionKind.DELETED and shown.resource_version == version


def _copy(cursor: Cursor, statement: bytes, spool: CopySpool) -> None:
    with cursor.copy(statement) as copy:
        for block in spool.blocks():
            copy.write(block)


def _sides(row: tuple[Any, ...]) -> tuple[Observed | None, Remembered | None, str | None, Remembered | None]:
    """Return both sides of a tenant from a row of `sightings`, the heir and the forerunner."""
    columns, detail, heir, before, forerunner = row[:7], row[7], row[8], row[9:23], row[23:]
    return as_observed(columns, detail), _remembered(before), heir, _remembered(forerunner)


def _remembered(columns: tuple[Any, ...]) -> Remembered | None:
    if columns[0] is None:
        return None
    found = Remembered(*columns)
    return found._replace(packages=tuple(found.packages))


def _line(fields: Iterable[str | None]) -> bytes:
    return "\t".join(map(escape, fields)).encode() + b"\n"


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)


def _flag(value: bool) -> str:  # noqa: FBT001 - it is what is written
    return "t" if value else "f"


def _time(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()
