"""Connect to the ledger: with timeouts, in a way that a transaction pooler allows, and without showing the password."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import conninfo, errors, postgres
from psycopg.adapt import AdaptersMap, Loader
from psycopg.pq import Conninfo, Format
from psycopg.types.datetime import register_default_adapters

from reconciler.core.errors import Failure
from reconciler.core.model import FIRST, LAST
from reconciler.db.queries import query
from reconciler.db.schema import LedgerNotMigrated, raise_unless_current

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from psycopg.abc import AdaptContext, Buffer

Connection = psycopg.Connection[Any]
Cursor = psycopg.Cursor[Any]

CONNECT_TIMEOUT = 10
LOCK_TIMEOUT = 15
STATEMENT_TIMEOUT = 120
IDLE_TIMEOUT = 60
"""Seconds."""


class LedgerUnreachable(Failure):
    """The database could not be connected to, or the connection was lost."""


class LedgerMisnamed(LedgerUnreachable):
    """DATABASE_URL is not a connection string."""

    exit_code = 64


class LedgerDenied(Failure):
    """The role may not do what a run needs."""


class LedgerFault(Failure):
    """PostgreSQL refused a statement for another reason."""


def connect(url: str) -> Connection:
    """Connect to the ledger, in autocommit mode and without prepared statements.

    Raises:
        LedgerMisnamed: the string cannot be parsed.
        LedgerUnreachable: the server did not answer within `CONNECT_TIMEOUT` seconds, or refused the connection.
    """
    settings = _parsed(url)
    shown = {key: settings[key] for key in ("host", "hostaddr", "port", "user", "dbname") if key in settings}
    limits = {"connect_timeout": CONNECT_TIMEOUT, "keepalives_idle": 30, "tcp_user_timeout": 60_000}
    settings = {"application_name": "reconciler", **limits, **settings}
    try:
        connection = psycopg.connect("", autocommit=True, prepare_threshold=None, **settings)
    except psycopg.Error as error:
        raise LedgerUnreachable(
            f"No connection to the ledger ({conninfo.make_conninfo('', **shown) or 'libpq defaults'}): "
            f"{_first_line(error, settings.get('password'))}",
            "Check DATABASE_URL, that the server runs, and that this machine can reach it.",
        ) from None
    bound_times(connection)
    # the role's default may be stricter, and then a snapshot taken while waiting for the lock would be stale
    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    return connection


_PSYCOPGS_OWN = AdaptersMap(types=postgres.types)
register_default_adapters(_PSYCOPGS_OWN)
"""psycopg's loaders of times, whatever the program that we are part of has put in their place."""


def bound_times(context: AdaptContext) -> None:
    """Load every timestamptz of a connection or cursor as an aware datetime between FIRST and LAST.

    A datetime cannot hold PostgreSQL's infinities and its years before 1 and after 9999: psycopg raises on them.
    Binary results are in UTC, text results in the session's time zone, which `transaction` sets to UTC.
    """
    context.adapters.register_loader("timestamptz", _BoundedTime)
    context.adapters.register_loader("timestamptz", _BoundedBinaryTime)


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


def _parsed(url: str) -> dict[str, Any]:
    """Return the parts of a connection string; refuse one that unescaped characters in its password make misread."""
    try:
        settings: dict[str, Any] = {**conninfo.conninfo_to_dict(url)}
    except psycopg.Error:
        settings = {"port": ""}
    ports = str(settings.get("port", 5432)).split(",")
    # an unescaped @ or / ends the password early, and the rest of it would be shown as a host or a port
    misread = "@" in str(settings.get("host", "")) + str(settings.get("dbname", ""))
    if misread or not all(port.isdecimal() and 0 < int(port) < 2**16 for port in ports):
        # libpq's own message would quote the string, and so the password
        raise LedgerMisnamed(
            "DATABASE_URL is not a PostgreSQL connection string.",
            "Give it as postgresql://user:password@host:5432/dbname; "
            "characters such as @ / # in the password must be percent-encoded.",
        )
    return settings


@contextmanager
def transaction(connection: Connection, seconds: float = STATEMENT_TIMEOUT) -> Iterator[Cursor]:
    """Open a transaction with timeouts: commit at the end of the block, roll back on any exception.

    Lock, statement and idle timeouts apply inside it, none longer than `seconds`, its time zone is UTC, and psycopg's
    errors are `translated`. The connection must be in autocommit mode.
    """
    with translated(), connection.transaction(), connection.cursor() as cursor:
        limits = {"lock": LOCK_TIMEOUT, "statement": STATEMENT_TIMEOUT, "idle": IDLE_TIMEOUT}
        cursor.execute(
            query("limits"), {name: f"{max(1, int(min(limit, seconds) * 1000))}ms" for name, limit in limits.items()}
        )
        yield cursor


@contextmanager
def snapshot(url: str) -> Iterator[Cursor]:
    """Open a read-only transaction that sees one state of the ledger throughout, though a run may commit meanwhile."""
    with closing(connect(url)) as connection:
        connection.isolation_level, connection.read_only = psycopg.IsolationLevel.REPEATABLE_READ, True
        with transaction(connection) as cursor:
            raise_unless_current(cursor)
            yield cursor


@contextmanager
def translated() -> Iterator[None]:
    """Turn psycopg's errors into failures that say what to do; one without a failure of its own is a LedgerFault."""
    try:
        yield
    except (errors.UndefinedTable, errors.UndefinedColumn, errors.InvalidSchemaName, errors.UndefinedFunction) as error:
        raise LedgerNotMigrated(
            f"The database lacks something that the reconciler needs: {_first_line(error)}",
            "Run `reconciler migrate` once, as a role that may create tables; is DATABASE_URL the right database?",
        ) from error
    except errors.InsufficientPrivilege as error:
        raise LedgerDenied(
            f"The reconciler's role lacks a privilege on the ledger: {_first_line(error)}",
            "Run sql/roles.sql as the owner of the ledger's tables.",
        ) from error
    except errors.ReadOnlySqlTransaction as error:
        raise LedgerFault(
            f"The ledger is read-only: {_first_line(error)}",
            "DATABASE_URL must name the primary, not a replica.",
        ) from error
    except psycopg.OperationalError as error:
        raise LedgerUnreachable(
            f"The ledger did not respond in time, or the connection was lost: {_first_line(error)}",
            "Nothing of this run was kept unless its row in reconciler.runs says so. Run it again.",
        ) from error
    except psycopg.Error as error:
        raise LedgerFault(
            f"PostgreSQL refused a statement: {_first_line(error)}",
            "Nothing of this run was written. See the server's log.",
        ) from error


def _first_line(error: psycopg.Error, password: str | None = None) -> str:
    """Return the first line of the server's message, with the password masked."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    # what libpq itself takes from PGPASSWORD or a service file
    defaults = [option.val or b"" for option in Conninfo.get_defaults() if option.keyword == b"password"]
    for secret in filter(None, (password, *(value.decode(errors="surrogateescape") for value in defaults))):
        line = line.replace(secret, "***")
    return line
