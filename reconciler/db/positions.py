"""What is remembered from run to run: every tenant as the last list showed it, and the gaps in what is known of it.

While a list is compared with the ledger, it is compared with what is remembered too. What is new is kept on disk until
the run's own row is written: both are in one transaction, or neither is in the ledger.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

import structlog

from reconciler.core.history import (
    ANY_TENANT,
    UNREADABLE,
    Gap,
    Position,
    Remembered,
    Unproven,
    is_as_remembered,
    is_older,
    is_restored,
    known_since,
    restored,
    unproven,
)
from reconciler.core.model import HistoryRead, LogRead
from reconciler.db.candidates import Renewed, as_observed
from reconciler.db.copied import array_literal, escape
from reconciler.db.queries import query
from reconciler.db.spool import CopySpool

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from datetime import datetime

    from reconciler.core.model import Listing, Observed
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
        self.renewed = Renewed()
        self.read = HistoryRead()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def expect(self, started: Start, listing: Listing, *, accept: bool) -> None:
        """Begin with a list of a cluster; `accept` takes one that was restored."""
        position = Position(listing.resource_version, started.observed_at)
        # a later change is not on the list
        listed_at = started.observed_at + timedelta(seconds=listing.read_at - started.read_at)
        tenants = self._stack.enter_context(CopySpool("What the tenants changed"))
        gaps = self._stack.enter_context(CopySpool("What is not proven"))
        before = started.last or listing
        self._new = _New(listing.source, before.source, started.position, position, listed_at, accept, tenants, gaps)
        self._new.is_restored = accept and is_older(listing.resource_version, before.resource_version)

    def look(self, cursor: Cursor) -> None:
        """Compare the staged list with what is remembered, and keep what is new.

        Raises:
            RestoredSource: it is a list of a copy of the cluster, and that is not accepted.
        """
        if (new := self._new) is None:
            return
        was_known, last = new.is_restored, new.last
        number = self._look_at_all(cursor, new)
        if new.is_restored and not was_known:
            # one of them shows that the cluster was restored: of the others it may have undone something, too
            number = self._look_at_all(cursor, new)
        if new.accept:
            # the run that first saw them may have come before anybody could accept it
            earlier = cursor.execute(query("restored_before"), {"source": new.remembered})
            new.continuing.extend(uid for (uid,) in earlier)
        if last:
            new.keep_gap(Gap(ANY_TENANT, last.at, new.listed_at, Unproven.LOG_LOST))
        seconds = round((new.position.at - last.at).total_seconds()) if last else None
        self.read = HistoryRead(LogRead.LOST, seconds=seconds, gaps=number)
        self.renewed = Renewed(new.remembered, tuple(new.following), tuple(new.continuing))

    @staticmethod
    def _look_at_all(cursor: Cursor, new: _New) -> int:
        """Look at the tenants that the list shows otherwise, and return how many have a new gap."""
        new.restart()
        known = {"source": new.remembered, "is_restored": new.is_restored} | new.began_with
        with cursor.connection.cursor("sightings") as stream:
            stream.itersize = ROWS_BATCH
            return sum(new.look_at(*_sides(row)) for row in stream.execute(query("sightings"), known))

    def keep(self, cursor: Cursor, unwritten: Collection[str]) -> None:
        """Remember it, under the lock of all runs and in the transaction of the run's row, which has pinned the source.

        `unwritten` are the tenants that are otherwise in the ledger than the list showed them.
        It counts as unread if another run has moved the position meanwhile, and where a run that was stopped has not
        pinned its source.
        """
        if self._new is None:
            return
        new = self._new
        moved = {"source": new.source, "position": new.position.resource_version, "at": new.position.at}
        if not cursor.execute(query("move_position"), moved | new.began_with).rowcount:
            _log.info("history.unread", meaning="another run has moved the position, or the source is not pinned")
            return
        known = {"source": new.source, "remembered": new.remembered, "at": new.position.at}
        if new.tenants:
            cursor.execute(query("sighted_table"))
            _copy(cursor, query("copy_sighted"), new.tenants)
            cursor.execute(query("remember_tenants"), known)
            cursor.execute(query("forget_vanished"), known)
        cursor.execute(query("mark_unwritten"), known | new.began_with | {"unwritten": [*unwritten]})
        if new.continuing:
            cursor.execute(query("continue_tenants"), {"source": new.source, "continuing": new.continuing})
        if new.gaps:
            cursor.execute(query("gaps_table"))
            _copy(cursor, query("copy_gaps"), new.gaps)
            cursor.execute(query("keep_gaps"), known)


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
    is_restored: bool = False
    """True if the list is of a restored cluster, and a person accepted it."""
    following: list[str] = field(default_factory=list)
    continuing: list[str] = field(default_factory=list)

    @property
    def began_with(self) -> dict[str, object]:
        """The position that the run began with, as parameters."""
        return {"last_position": self.last and self.last.resource_version, "last_at": self.last and self.last.at}

    def restart(self) -> None:
        """Forget what was seen of the list."""
        self.tenants.restart()
        self.gaps.restart()
        self.following.clear()
        self.continuing.clear()

    def look_at(
        self,
        now: Observed | None,
        before: Remembered | None,
        heir: str | None,
        forerunner: Remembered | None,
    ) -> bool:
        """Keep what is new of one tenant; return whether it has a new gap.

        `heir` is the uid that has the name of a tenant that is gone, and `forerunner` the tenant that had the name of a
        new one.
        """
        if before is None:
            if now is None or now.uid is None:
                return False
            if forerunner:
                self.following.append(now.uid)
                if self.accept and is_as_remembered(forerunner, now):
                    self.continuing.append(now.uid)
            self._keep_tenant(now, known_since(now, self.listed_at), forerunner and forerunner.uid)
            return False
        why = unproven(before, now, heir=heir)
        if now and not now.problem:
            if is_restored(before, now, self.last):
                if not self.accept:
                    raise restored(before, now, self.last)
                self.is_restored = True
            self._keep_tenant(now, before.since)
        else:
            self._keep_state("unreadable" if now or heir == UNREADABLE else "vanished", before.uid)
        if self.is_restored and now and not before.deleting_at:
            why = Unproven.RESTORED
        if why is None or self.last is None:
            return False
        manager = now.last_modified_by if now and why is Unproven.CHANGED_OFTEN else None
        self.keep_gap(Gap(before.name, before.unwritten_since or self.last.at, self.listed_at, why, manager))
        return True

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

    def keep_gap(self, gap: Gap) -> None:
        fields = (gap.tenant, _time(gap.from_at), _time(gap.until_at), gap.why, gap.manager)
        self.gaps.write(_line(fields))


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
