"""Reads whether corrections still stand: what each wrote, and what the ledger shows of that row now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reconciler.core.standing import Shown, Written, difference
from reconciler.core.status import TakenBack
from reconciler.db.queries import query

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from reconciler.db.connection import Cursor


def read_standing(cursor: Cursor, ids: Sequence[int]) -> Iterator[TakenBack]:
    """Yield these corrections, whether they stand or not, by their ids."""
    for id_, taken_back_at, written_at, *columns in cursor.execute(query("written_rows"), {"ids": ids}):
        written = Written(*columns[: len(Written._fields)])
        found = columns[len(Written._fields) :]
        shown = Shown(*found) if found[0] is not None else None
        what = (written.tenant, written.reason, written.subject, written_at)
        yield TakenBack(id_, *what, taken_back_at, difference(written, shown))
