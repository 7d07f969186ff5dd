"""What a ledger on Citus needs besides: limits on its workers, no run through one of them, no result that is lost."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from psycopg import sql

from reconciler.core.errors import Failure
from reconciler.db.queries import query

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import psycopg
    from psycopg.errors import Diagnostic

_connections = WeakSet["psycopg.Connection[Any]"]()
"""Those that lead to Citus, as their transactions have found."""

_RESULT_MISSING = "CIINF"
"""Citus's SQLSTATE of the warning after which it goes on as if there were no rows."""


class ThroughWorker(Failure):
    """The connection leads to a worker of a Citus cluster."""


class TimesAmbiguous(Failure):
    """Citus would pass on times in words that a worker may read as other times."""


class ResultMissing(Failure):
    """Citus took a part of a query that it had not run for one without rows."""


def limit_workers(cursor: psycopg.Cursor[Any], limits: Mapping[str, str]) -> None:
    """Have these settings hold on every worker, too, until the transaction ends.

    Citus passes on what is SET, a statement at a time, and not what a function sets.

    Raises:
        ThroughWorker: the connection is not the coordinator's.
    """
    ((is_worker, *_),) = cursor.execute(query("citus")).fetchall()
    if is_worker:
        raise ThroughWorker(
            "DATABASE_URL leads to a worker of a Citus cluster: it has only a part of the ledger, and neither the lock "
            "of all runs nor the ids of new events.",
            "Nothing was observed or written. Name the coordinator in DATABASE_URL.",
        )
    _connections.add(cursor.connection)
    for name, value in limits.items():
        set_local(cursor, name, value)


def is_on_citus(cursor: psycopg.Cursor[Any]) -> bool:
    """True if a transaction of the cursor's connection has found that it leads to Citus."""
    return cursor.connection in _connections


def query_for(cursor: psycopg.Cursor[Any], name: str) -> bytes:
    """Return the query of that name, as this server takes it."""
    return query(name, on_citus=is_on_citus(cursor))


def copy_near(cursor: psycopg.Cursor[Any]) -> None:
    """On Citus, copy the events that the planned rows are about, for the queries of `near`."""
    if is_on_citus(cursor):
        # several statements, which cannot be prepared
        cursor.execute(query("copy_near"), prepare=False)


def commit_in_two_phases(cursor: psycopg.Cursor[Any]) -> None:
    """On Citus, have what this transaction is about to write kept on all nodes or on none."""
    if is_on_citus(cursor):
        cursor.execute(query("two_phases"))


def near(cursor: psycopg.Cursor[Any], name: str) -> bytes:
    """Return a query about the planned rows, on Citus over the copies that `copy_near` has made.

    Citus does not look up rows of its shards for each row of a table that lies on the coordinator.
    """
    text = query(name)
    if is_on_citus(cursor):
        for table in (b"skill_events", b"suspension_events"):
            text = text.replace(b"public.tenant_" + table, b"pg_temp.near_" + table)
    return text


def set_local(cursor: psycopg.Cursor[Any], name: str, value: str) -> None:
    """Change a setting until the transaction ends, on Citus also on the workers."""
    cursor.execute(sql.SQL("SET LOCAL {} = {}").format(sql.Identifier(name), sql.Literal(value)))


def refuse_ambiguous_times(connection: psycopg.Connection[Any]) -> None:
    """Refuse a session of another program in which the 11th of December may be the 12th of November on a worker.

    Citus passes a time on as text in the session's DateStyle, and a worker reads it in its own.

    Raises:
        TimesAmbiguous: it is Citus, and the DateStyle is not ISO.
    """
    style = connection.info.parameter_status("DateStyle") or ""
    if not style.startswith("ISO") and connection.execute(query("is_citus")).fetchone():
        raise TimesAmbiguous(
            f"The session's DateStyle is {style}: Citus passes times on in it, and a worker may read other times.",
            "Nothing was read or written. Let the session use DateStyle ISO, PostgreSQL's default.",
        )


@contextmanager
def whole_results(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Raise at the end of the block if Citus has lost a result on the way: it only warns, and reads no rows instead.

    Raises:
        ResultMissing: a query had the wrong rows.
    """
    missing: list[str | None] = []

    def note(said: Diagnostic) -> None:
        if said.sqlstate == _RESULT_MISSING:
            missing.append(said.message_primary)

    connection.add_notice_handler(note)
    try:
        yield
    finally:
        connection.remove_notice_handler(note)
    if missing:
        raise ResultMissing(
            f"Citus lost a part of what a query reads, and went on without it: {missing[0]}",
            "Nothing was written, and nothing is shown that could be wrong. Repeat it; if it comes again, this version "
            "of Citus plans that query in a way that the reconciler does not know: report it with the version.",
        )
