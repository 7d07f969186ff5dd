"""Reads whether corrections still stand: what each wrote, and what the ledger shows of that row now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reconciler.core.standing import Shown, Written, difference
from reconciler.core.status import TakenBack
from reconciler.db.citus import query_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from reconciler.db.connection import Cursor


def read_standing(cursor: Cursor, ids: Sequence[int]) -> Iterator[TakenBack]:
    """Yield these corrections, whether they stand or not, by their ids.

    One that another correction took back was undone by no unknown hand: it has neither a time nor a difference.
    """
    for id_, taken_back_at, written_at, *columns in cursor.execute(query_for(cursor, "written_rows"), {"ids": ids}):
        written = Written(*columns[: len(Written._fields)])
        taken_back_by, *found = columns[len(Written._fields) :]
        what = (id_, written.tenant, written.reason, written.subject, written_at)
        if taken_back_by is not None:
            yield TakenBack(*what, None, None)
            continue
        shown = Shown(*found) if found[0] is not None else None
        yield TakenBack(*what, taken_back_at, difference(written, shown))
