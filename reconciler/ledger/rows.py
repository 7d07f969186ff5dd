"""Run one query of `sql/queries/ledger.sql` in the caller's transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import psycopg

from reconciler.core.errors import Failure
from reconciler.db.connection import bound_times
from reconciler.db.queries import query

if TYPE_CHECKING:
    from psycopg.rows import BaseRowFactory

    Connection = psycopg.Connection[Any]

T = TypeVar("T")


class NotRecorded(Failure, LookupError):  # noqa: N818 - named like every Failure
    """The row that a call is about is not in the ledger."""


def fetch_rows(connection: Connection, factory: BaseRowFactory[T], name: str, /, **parameters: Any) -> list[T]:
    """Run a query and return its rows, regardless of the connection's own cursors, row factories and loaders."""
    with psycopg.Cursor(connection, row_factory=factory) as cursor:
        bound_times(cursor)
        # binary: text depends on DateStyle, and the caller may load numerics as floats
        cursor.execute(query(name), parameters, binary=True)
        return cursor.fetchall()
