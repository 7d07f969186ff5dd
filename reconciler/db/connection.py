"""Connect to the ledger: with timeouts, in a way that a transaction pooler allows, and without showing the password."""

from __future__ import annotations

from contextlib import closing, contextmanager
from select import POLLIN, poll
from typing import TYPE_CHECKING, Any, Self

import psycopg
from psycopg import postgres
from psycopg.adapt import AdaptersMap, Loader
from psycopg.pq import Format, TransactionStatus
from psycopg.rows import tuple_row
from psycopg.types.datetime import DateLoader, register_default_adapters
from psycopg.types.numeric import NumericLoader

from reconciler.core.errors import Failure
from reconciler.core.model import FIRST, LAST
from reconciler.db.address import parse_address, secrets, shown
from reconciler.db.citus import limit_workers, set_local, whole_results
from reconciler.db.failures import (
    LedgerDenied,
    LedgerFault,
    LedgerMisencoded,
    LedgerMisnamed,
    LedgerUnreachable,
    misencoded,
    refused,
    translated,
)
from reconciler.db.queries import query
from reconciler.db.schema import raise_unless_current

__all__ = [
    "Connection",
    "Cursor",
    "IsolationTooStrict",
    "Ledger",
    "LedgerDenied",
    "LedgerFault",
    "LedgerMisencoded",
    "LedgerMisnamed",
    "LedgerUnreachable",
    "bound_times",
    "brief_transaction",
    "connect",
    "server_cursor",
    "shared_transaction",
    "snapshot",
    "transaction",
    "translated",
]

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import date, datetime

    from psycopg.abc import AdaptContext, Buffer

Connection = psycopg.Connection[Any]
Cursor = psycopg.Cursor[Any]

CONNECT_TIMEOUT = 10
LOCK_TIMEOUT = 15
STATEMENT_TIMEOUT = 120
IDLE_TIMEOUT = 60
"""Seconds."""
ON_WORKERS = {"datestyle": "ISO, YMD", "intervalstyle": "postgres", "jit": "off", "timezone": "UTC", "work_mem": "64MB"}
"""What else of the query `limits` a worker of a Citus cluster needs."""


def connect(url: str) -> Connection:
    """Connect to the ledger, in autocommit mode and without prepared statements. Text is exchanged in UTF-8.

    Raises:
        LedgerMisnamed: the string cannot be parsed.
        LedgerUnreachable: the server did not answer within `CONNECT_TIMEOUT` seconds, or refused the connection.
        LedgerMisencoded: the database has an encoding that PostgreSQL cannot convert into UTF-8.
    """
    given = parse_address(url)
    limits = {"connect_timeout": CONNECT_TIMEOUT, "keepalives_idle": 30, "tcp_user_timeout": 60_000}
    # the encoding beats the role's, PGCLIENTENCODING and a service file's, and a transaction pooler passes it on
    settings = {"application_name": "reconciler", **limits, **given, "client_encoding": "UTF8"}
    try:
        connection = psycopg.connect("", autocommit=True, prepare_threshold=None, **settings)
    except psycopg.Error as error:
        raise refused(error, shown(given), secrets(given)) from None
    bound_times(connection)
    # the role's default may be stricter, and then a snapshot taken while waiting for the lock would be stale
    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    return connection


_PSYCOPGS_OWN = AdaptersMap(types=postgres.types)
register_default_adapters(_PSYCOPGS_OWN)
"""psycopg's loaders of times, whatever the program that we are part of has put in their place."""


def bound_times(context: AdaptContext) -> None:
    """Load every timestamptz of a connection or cursor as an aware datetime between FIRST and LAST, and dates alike.

    A datetime cannot hold PostgreSQL's infinities and its years before 1 and after 9999: psycopg raises on them.
    Binary results are in UTC, text results in the session's time zone, which `transaction` sets to UTC.
    """
    context.adapters.register_loader("timestamptz", _BoundedTime)
    context.adapters.register_loader("timestamptz", _BoundedBinaryTime)
    context.adapters.register_loader("date", _BoundedDate)


def server_cursor(cursor: Cursor, name: str) -> psycopg.ServerCursor[Any]:
    """Return a cursor on the server, whose rows are read while they are taken, with the loaders of this one."""
    stream = psycopg.ServerCursor(cursor.connection, name, row_factory=tuple_row)
    _own_loaders(stream)
    return stream


def _own_loaders(context: AdaptContext) -> None:
    """Load times within their bounds and amounts as Decimal, whatever the connection's own loaders do."""
    bound_times(context)
    context.adapters.register_loader("numeric", NumericLoader)


class _BoundedTime(Loader):
    """Load a time with psycopg's own loader, or as FIRST or LAST if a datetime cannot hold it."""

    format = Format.TEXT

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        loader = _PSYCOPGS_OWN.get_loader(oid, self.format)
        assert loader  # noqa: S101 - psycopg has one for each of its formats
        # a binary time needs no session to be read; without one, psycopg returns it in UTC
        self._load = loader(oid, context if self.format == Format.TEXT else None).load

    def load(self, data: Buffer) -> datetime:
        try:
            at: datetime = self._load(data)
        except psycopg.DataError:
            if self.format == Format.TEXT:
                is_ancient = bytes(data).endswith((b"-infinity", b"BC"))
            else:
                # microseconds since 2000, signed
                is_ancient = bytes(data) >= b"\x80"
            return FIRST if is_ancient else LAST
        return min(max(at, FIRST), LAST)


class _BoundedBinaryTime(_BoundedTime):
    format = Format.BINARY


class _BoundedDate(DateLoader):
    """Load a date with psycopg's own loader, or as the day of FIRST or LAST if a date cannot hold it."""

    def load(self, data: Buffer) -> date:
        try:
            return super().load(data)
        except psycopg.DataError:
            return (FIRST if bytes(data).endswith((b"-infinity", b"BC")) else LAST).date()


@contextmanager
def transaction(connection: Connection, seconds: float = STATEMENT_TIMEOUT) -> Iterator[Cursor]:
    """Open a transaction with timeouts: commit at the end of the block, roll back on any exception.

    Lock, statement and idle timeouts apply inside it, none longer than `seconds`; whatever else a run relies on is set,
    see the query `limits`; and psycopg's errors are `translated`. The connection must be in autocommit mode.

    Raises:
        LedgerMisencoded: the database's encoding is none.
        ThroughWorker: the connection leads to a worker of a Citus cluster.
    """
    with translated(connection), connection.transaction(), whole_results(connection), connection.cursor() as cursor:
        _limit(cursor, seconds)
        yield cursor


def _limit(cursor: Cursor, seconds: float) -> Mapping[str, str]:
    """Set what a transaction relies on, for as long as it lasts, and return what of that was set on workers, too."""
    limits = {
        "lock_timeout": LOCK_TIMEOUT,
        "statement_timeout": STATEMENT_TIMEOUT,
        "idle_in_transaction_session_timeout": IDLE_TIMEOUT,
    }
    bounded = {name: f"{max(1, int(min(limit, seconds) * 1000))}ms" for name, limit in limits.items()}
    ((encoding, is_citus, *_),) = cursor.execute(query("limits"), bounded).fetchall()
    if encoding == "SQL_ASCII":
        raise misencoded(encoding)
    for_workers = bounded | ON_WORKERS if is_citus else {}
    if is_citus:
        limit_workers(cursor, for_workers)
    return for_workers


class IsolationTooStrict(Failure):
    """The transaction may not see what others have written since it began."""


@contextmanager
def shared_transaction(connection: Connection) -> Iterator[Cursor]:
    """Work in the transaction of another program's connection, or in one of its own if that is in autocommit mode.

    Nothing is committed that the other program began, and its transaction goes on with its own settings. On an
    exception nothing of the block stays.

    Raises:
        IsolationTooStrict: it would decide on what may have changed since.
    """
    if not connection.autocommit and connection.info.transaction_status == TransactionStatus.IDLE:
        # else the block would begin the transaction, and commit it
        psycopg.Cursor(connection).execute(query("clock"))
    with (
        connection.transaction(),
        whole_results(connection),
        psycopg.Cursor(connection, row_factory=tuple_row) as cursor,
    ):
        _own_loaders(cursor)
        ((isolation,),) = cursor.execute(query("isolation")).fetchall()
        if isolation != "read committed":
            raise IsolationTooStrict(
                f"The transaction's isolation level is {isolation}: it may not see what was written since it began.",
                "Nothing was written. Decide in a transaction at read committed, PostgreSQL's default.",
            )
        before: dict[str, str] = dict(cursor.execute(query("limits_before")).fetchall())
        for_workers = _limit(cursor, STATEMENT_TIMEOUT)
        yield cursor
        for name in for_workers:
            set_local(cursor, name, before[name])
        cursor.execute(query("set_limits"), {"names": [*before], "values": [*before.values()]})


class Ledger:
    """The way to the ledger: transactions that follow one another share a connection. Close it before a long wait."""

    def __init__(self, url: str) -> None:
        """Connect with the first transaction."""
        self._url = url
        self._connection: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection; the next transaction opens another."""
        if self._connection:
            self._connection.close()
        self._connection = None

    @contextmanager
    def transaction(self, seconds: float = STATEMENT_TIMEOUT) -> Iterator[Cursor]:
        """Open a transaction. After one that failed, or a session that the server has ended, on a new connection."""
        if self._connection and _has_ended(self._connection):
            self.close()
        self._connection = self._connection or connect(self._url)
        try:
            with transaction(self._connection, seconds) as cursor:
                yield cursor
        except BaseException:
            self.close()
            raise


def _has_ended(idle: Connection) -> bool:
    """True if nothing can be asked on an idle connection any more: all that the server says there is that it ends."""
    if idle.closed:
        return True
    heard = poll()
    heard.register(idle, POLLIN)
    return bool(heard.poll(0))


@contextmanager
def brief_transaction(url: str, seconds: float = STATEMENT_TIMEOUT) -> Iterator[Cursor]:
    """Open a transaction on a connection of its own."""
    with Ledger(url) as ledger, ledger.transaction(seconds) as cursor:
        yield cursor


@contextmanager
def snapshot(url: str) -> Iterator[Cursor]:
    """Open a read-only transaction that sees one state of the ledger throughout, though a run may commit meanwhile."""
    with closing(connect(url)) as connection:
        connection.isolation_level, connection.read_only = psycopg.IsolationLevel.REPEATABLE_READ, True
        with transaction(connection) as cursor:
            raise_unless_current(cursor)
            yield cursor
