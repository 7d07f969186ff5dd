"""The connection to the ledger: bounded in time, fit for a transaction pooler, its password never shown."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import conninfo
from psycopg.adapt import Loader
from psycopg.pq import Conninfo, Format

from reconciler.core.errors import Failure
from reconciler.core.model import FIRST, LAST
from reconciler.db.queries import query

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from psycopg.abc import AdaptContext, Buffer

CONNECT_TIMEOUT = 10
LOCK_TIMEOUT = 15
STATEMENT_TIMEOUT = 120
IDLE_TIMEOUT = 60
"""Seconds."""


class LedgerUnreachable(Failure):
    """No connection to the database, or it was lost."""


class LedgerMisnamed(LedgerUnreachable):
    """DATABASE_URL is no connection string."""

    exit_code = 64


class LedgerNotMigrated(Failure):
    """The database lacks tables or columns that the reconciler needs."""


class LedgerDenied(Failure):
    """The role may not do what a pass needs."""


class LedgerFault(Failure):
    """PostgreSQL refused a statement for another reason."""


def connect(url: str) -> psycopg.Connection[Any]:
    """Connect to the ledger, in autocommit mode and without prepared statements.

    Raises:
        LedgerMisnamed: the string cannot be read.
        LedgerUnreachable: nobody answered within `CONNECT_TIMEOUT` seconds, or not as hoped for.
    """
    settings = _parsed(url)
    shown = {key: settings[key] for key in ("host", "hostaddr", "port", "user", "dbname") if key in settings}
    defaults: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT, "application_name": "reconciler"}
    defaults |= {"keepalives_idle": 30, "tcp_user_timeout": 60_000}
    try:
        connection = psycopg.connect("", autocommit=True, prepare_threshold=None, **(defaults | settings))
    except psycopg.Error as error:
        raise LedgerUnreachable(
            f"No connection to the ledger ({conninfo.make_conninfo('', **shown) or 'libpq defaults'}): "
            f"{_first_line(error, settings.get('password'))}",
            "Check DATABASE_URL, that the server runs, and that this machine may reach it.",
        ) from None
    bound_times(connection)
    # a snapshot taken while waiting for the lock would be stale, whatever the role's default is
    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    return connection


def bound_times(context: AdaptContext) -> None:
    """Load every timestamptz of a connection or cursor as an aware datetime between FIRST and LAST.

    PostgreSQL's infinities, and its years before 1 and after 9999, are beyond a datetime: psycopg raises on them.
    """
    context.adapters.register_loader("timestamptz", _TextTime)
    context.adapters.register_loader("timestamptz", _BinaryTime)


class _BoundedTime(Loader):
    """psycopg's own loader, but for times that a datetime cannot hold."""

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        loader = psycopg.adapters.get_loader(oid, self.format)
        assert loader  # noqa: S101 - psycopg has one for each of its formats
        self._load = loader(oid, context).load

    def load(self, data: Buffer) -> datetime:
        try:
            at: datetime = self._load(data)
        except psycopg.DataError:
            return FIRST if self._is_ancient(bytes(data)) else LAST
        return min(max(at, FIRST), LAST)

    def _is_ancient(self, data: bytes) -> bool:
        raise NotImplementedError


class _TextTime(_BoundedTime):
    format = Format.TEXT

    def _is_ancient(self, data: bytes) -> bool:
        return data == b"-infinity" or data.endswith(b"BC")


class _BinaryTime(_BoundedTime):
    format = Format.BINARY

    def _is_ancient(self, data: bytes) -> bool:
        # microseconds since 2000, signed
        return data >= b"\x80"


def _parsed(url: str) -> dict[str, Any]:
    """Return the parts of a connection string.

    Raises:
        LedgerMisnamed: it is none, or its password has characters that make it another one.
    """
    try:
        settings: dict[str, Any] = {**conninfo.conninfo_to_dict(url)}
    except psycopg.Error:
        settings = {"port": ""}
    ports = str(settings.get("port", 5432)).split(",")
    # a bare @ or / in a password ends it early, and its rest would be shown as a host or a port
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
def transaction(
    connection: psycopg.Connection[Any], seconds: float = STATEMENT_TIMEOUT
) -> Iterator[psycopg.Cursor[Any]]:
    """Open a bounded transaction: commit at the end of the block, roll back on any exception.

    Lock, statement and idle timeouts hold inside it, and its time zone is UTC.

    Args:
        connection: in autocommit mode.
        seconds: what is left of the run: no statement may take longer, nor longer than `STATEMENT_TIMEOUT`.

    Raises:
        Failure: what psycopg raised in the block, said in the ledger's words.
    """
    with translated(), connection.transaction(), connection.cursor() as cursor:
        limits = {"lock": LOCK_TIMEOUT, "statement": STATEMENT_TIMEOUT, "idle": IDLE_TIMEOUT}
        cursor.execute(
            query("limits"), {name: f"{max(1, int(min(limit, seconds) * 1000))}ms" for name, limit in limits.items()}
        )
        yield cursor


@contextmanager
def translated() -> Iterator[None]:
    """Turn psycopg's errors into failures that say what to do."""
    try:
        yield
    except (
        psycopg.errors.UndefinedTable,
        psycopg.errors.UndefinedColumn,
        psycopg.errors.InvalidSchemaName,
        psycopg.errors.UndefinedFunction,
    ) as error:
        raise LedgerNotMigrated(
            f"The database lacks what the reconciler needs: {_first_line(error)}",
            "Run `reconciler migrate` once, as a role that may create tables; is DATABASE_URL the right database?",
        ) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise LedgerDenied(
            f"The ledger denied the reconciler's role: {_first_line(error)}",
            "Grant what sql/roles.sql grants.",
        ) from error
    except psycopg.errors.ReadOnlySqlTransaction as error:
        raise LedgerFault(
            f"The ledger is read-only: {_first_line(error)}",
            "DATABASE_URL must name the primary, not a replica.",
        ) from error
    except psycopg.OperationalError as error:
        raise LedgerUnreachable(
            f"The ledger did not do what was asked in time, or the connection was lost: {_first_line(error)}",
            "Nothing of this run was kept unless its row in reconciler.runs says so. Run it again.",
        ) from error
    except psycopg.Error as error:
        raise LedgerFault(
            f"PostgreSQL refused a statement: {_first_line(error)}",
            "Nothing of this run was written. Look at the server's log.",
        ) from error


def _first_line(error: psycopg.Error, password: str | None = None) -> str:
    """Return the first line of the server's message, without what may be secret."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    # what libpq itself takes from PGPASSWORD or a service file
    defaults = [option.val or b"" for option in Conninfo.get_defaults() if option.keyword == b"password"]
    for secret in filter(None, (password, *(value.decode() for value in defaults))):
        line = line.replace(secret, "***")
    return line
