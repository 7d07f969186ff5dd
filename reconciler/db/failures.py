"""What PostgreSQL refused, as a failure that says what happened, what it means and what to do.

Errors are told apart by their SQLSTATE, which no language setting of the server changes. libpq shows none of a refused
connection: there the words decide, and what they do not tell gets the general remedy.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
from psycopg import errors
from psycopg.pq import Conninfo

from reconciler.core.errors import Failure
from reconciler.db.schema import LedgerNotMigrated

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class LedgerUnreachable(Failure):
    """The database could not be connected to, or the connection was lost."""


class LedgerMisnamed(LedgerUnreachable):
    """DATABASE_URL is not a connection string."""

    exit_code = 64


class LedgerDenied(Failure):
    """The role may not do what a run needs."""


class LedgerMisencoded(Failure):
    """The database's encoding cannot hold the data."""


class LedgerFault(Failure):
    """PostgreSQL refused a statement for another reason."""


class _Cause(NamedTuple):
    failure: type[Failure]
    means: str
    remedy: str


_NOT_KEPT = "Nothing of this run was kept unless its row in reconciler.runs says so."

# the first class that fits counts: the last two are those of many others
_CAUSES: dict[tuple[type[psycopg.Error], ...], _Cause] = {
    (errors.UndefinedTable, errors.UndefinedColumn, errors.InvalidSchemaName, errors.UndefinedFunction): _Cause(
        LedgerNotMigrated,
        "The database lacks something that the reconciler needs",
        "Run `reconciler migrate` once, as a role that may create tables; is DATABASE_URL the right database?",
    ),
    (errors.InsufficientPrivilege,): _Cause(
        LedgerDenied,
        "The reconciler's role lacks a privilege on the ledger",
        "Run sql/roles.sql as the owner of the ledger's tables.",
    ),
    (errors.UntranslatableCharacter, errors.CharacterNotInRepertoire): _Cause(
        LedgerMisencoded,
        "The encoding of the ledger's database cannot hold a character",
        "Nothing of this run was written. Move the ledger into a database WITH ENCODING 'UTF8': pg_dump, then restore.",
    ),
    (errors.DiskFull,): _Cause(
        LedgerFault,
        "The database server's disk is full",
        f"{_NOT_KEPT} Make room on the server: old WAL behind a dead replication slot is a frequent cause.",
    ),
    (errors.OutOfMemory,): _Cause(
        LedgerFault,
        "The database server ran out of memory",
        f"{_NOT_KEPT} Give it more; if it is shared memory that ran out, raise max_locks_per_transaction.",
    ),
    (errors.TooManyConnections,): _Cause(
        LedgerUnreachable,
        "The database server has no connection left",
        "Run it again. Raise max_connections or the role's CONNECTION LIMIT, or put a pooler in front.",
    ),
    (errors.ConfigurationLimitExceeded,): _Cause(
        LedgerFault,
        "A limit of the database server is too low for the ledger",
        f"{_NOT_KEPT} Raise the limit that is named for the reconciler's role (ALTER ROLE … SET …).",
    ),
    (errors.ProgramLimitExceeded,): _Cause(
        LedgerFault,
        "A value is too large for the ledger",
        f"{_NOT_KEPT} Shorten it. A name that stands in an index has some 2,700 bytes at most.",
    ),
    (errors.DataCorrupted, errors.IndexCorrupted): _Cause(
        LedgerFault,
        "The database is damaged",
        f"{_NOT_KEPT} Check the server's log and its disk before anything else writes to it; REINDEX repairs an index.",
    ),
    (errors.LockNotAvailable,): _Cause(
        LedgerUnreachable,
        "The ledger did not respond in time",
        f"{_NOT_KEPT} Another session holds a lock: pg_locks and pg_stat_activity show which. Run it again.",
    ),
    (errors.QueryCanceled,): _Cause(
        LedgerUnreachable,
        "The ledger did not respond in time",
        f"{_NOT_KEPT} Run it again. If it stays slow, look for the load on the server, or give --deadline more.",
    ),
    (errors.AdminShutdown, errors.CrashShutdown, errors.CannotConnectNow): _Cause(
        LedgerUnreachable,
        "The database server ended the session, or is restarting: the connection was lost",
        f"{_NOT_KEPT} Run it again once the server is up.",
    ),
    (
        errors.IdleInTransactionSessionTimeout,
        *(getattr(errors, name) for name in ("IdleSessionTimeout", "TransactionTimeout") if hasattr(errors, name)),
    ): _Cause(
        LedgerUnreachable,
        "This program was too slow between two statements, and the connection was lost",
        f"{_NOT_KEPT} Run it again, with more CPU for this program if it happens again.",
    ),
    (errors.DeadlockDetected, errors.SerializationFailure): _Cause(
        LedgerUnreachable,
        "Another session's transaction was in the way",
        f"{_NOT_KEPT} Run it again.",
    ),
    (psycopg.OperationalError,): _Cause(
        LedgerUnreachable,
        "The ledger did not respond in time, or the connection was lost",
        f"{_NOT_KEPT} Run it again.",
    ),
    (psycopg.Error,): _Cause(
        LedgerFault,
        "PostgreSQL refused a statement",
        "Nothing of this run was written. See the server's log.",
    ),
}
_BY_FUNCTION = {
    "check_enable_rls": _Cause(
        LedgerDenied,
        "Row-level security would hide rows of the ledger, and what is hidden would be taken for absent",
        "Let the reconciler's role see every row: ALTER ROLE … BYPASSRLS, as a superuser; "
        "or take the policy off the table: ALTER TABLE … DISABLE ROW LEVEL SECURITY.",
    ),
    "ExecFindPartition": _Cause(
        LedgerFault,
        "A partitioned table of the ledger has no partition for a row",
        "Nothing of this run was written. Create the partition for that time, or a DEFAULT one: an event is dated back "
        "to when it happened.",
    ),
}
"""What only PostgreSQL's own function tells apart."""
_READ_ONLY = "The ledger is read-only"
_STANDBY = (
    "DATABASE_URL must name the primary, not a replica; of several hosts, target_session_attrs=read-write finds it."
)
_SWITCHED = (
    "This is no replica: default_transaction_read_only is on for the server, the database or the role. "
    "Some providers turn it on when the disk is full: make room, then turn it off."
)
_MISENCODED = (
    "Move the ledger into a database WITH ENCODING 'UTF8': pg_dump it, with --encoding naming what its bytes really "
    "are, and restore it there."
)

_REFUSED: tuple[tuple[str, str], ...] = (
    (
        "password authentication failed|no password supplied|SCRAM",
        "The user or the password is wrong: check both. In a URL, characters such as @ / # must be percent-encoded.",
    ),
    ('role ".*" does not exist', "Name an existing user in DATABASE_URL, or create it: see sql/roles.sql."),
    ("is not permitted to log in", "Let the role log in: ALTER ROLE … LOGIN, then give it a password."),
    ("permission denied for database", "Let the role connect: GRANT CONNECT ON DATABASE …, as sql/roles.sql does."),
    ('database ".*" does not exist', "Name an existing database in DATABASE_URL: the portal's."),
    ('database ".*" is not currently', "Name the portal's database in DATABASE_URL: this one admits nobody."),
    (
        "pg_hba.conf",
        "The server does not admit this user from here: give sslmode=require, or add a line to its pg_hba.conf.",
    ),
    (
        "too many clients|too many connections|connection slots",
        "Wait, and run it again. Raise max_connections or the role's CONNECTION LIMIT, or put a pooler in front.",
    ),
    ("the database system is", "Wait until the server is up, then run it again."),
    (
        "session is (not )?read-only|server is (not )?in hot standby",
        "No server fits target_session_attrs: is one of the hosts in DATABASE_URL the primary, and may it write?",
    ),
    ("definition of service|service file", "Check service= in DATABASE_URL, and the file that PGSERVICEFILE names."),
    ("startup parameter", "A pooler stands between that does not pass this on: take it out of DATABASE_URL."),
    ("certificate|SSL|ssl", "Check sslmode, sslrootcert, sslcert and sslkey in DATABASE_URL."),
    ("resolve host|translate host", "Check the host in DATABASE_URL, and that this machine can resolve its name."),
)
_ANY = "Check DATABASE_URL, that the server runs, and that this machine can reach it."


def refused(error: psycopg.Error, address: str, secrets: Iterable[str]) -> Failure:
    """Return what it means that a connection was refused; `address` is what may be shown of where it should lead."""
    said = _all_attempts(error, secrets)
    message = f"No connection to the ledger ({address}): {said}"
    if re.search("[Cc]onversion between .* not supported", said):
        return LedgerMisencoded(
            f"{message}: nothing can be read from a database in this encoding for certain.", _MISENCODED
        )
    remedy = next((remedy for words, remedy in _REFUSED if re.search(words, said)), _ANY)
    return LedgerUnreachable(message, remedy)


def misencoded(encoding: str) -> Failure:
    """Return what it means that a database's encoding says nothing about its bytes."""
    return LedgerMisencoded(
        f"The ledger's database has the encoding {encoding}, which does not say which characters its bytes are.",
        _MISENCODED,
    )


@contextmanager
def translated(connection: psycopg.Connection[Any] | None = None) -> Iterator[None]:
    """Turn psycopg's errors into failures that say what to do; one without a failure of its own is a LedgerFault.

    The connection on which they are raised can tell why a ledger is read-only.
    """
    try:
        yield
    except errors.ReadOnlySqlTransaction as error:
        raise LedgerFault(f"{_READ_ONLY}: {_first_line(error)}", _why_read_only(connection)) from error
    except psycopg.Error as error:
        cause = next(cause for kinds, cause in _CAUSES.items() if isinstance(error, kinds))
        # unlike the message, the name of PostgreSQL's function is in no language
        cause = _BY_FUNCTION.get(error.diag.source_function or "", cause)
        raise cause.failure(f"{cause.means}: {_first_line(error)}", cause.remedy) from error


def _why_read_only(connection: psycopg.Connection[Any] | None) -> str:
    """Return what to do about a read-only ledger: the server reports both causes to its clients."""
    if connection and not connection.closed:
        if connection.info.parameter_status("in_hot_standby") == "on":
            return _STANDBY
        if connection.info.parameter_status("default_transaction_read_only") == "on":
            return _SWITCHED
    return f"{_STANDBY} If it does: is default_transaction_read_only on?"


def _first_line(error: psycopg.Error) -> str:
    """Return the first line of the server's message, with the passwords masked."""
    return _masked(next(iter(str(error).strip().splitlines()), type(error).__name__), ())


def _all_attempts(error: psycopg.Error, secrets: Iterable[str]) -> str:
    """Return why the connection was refused: of several hosts, why by each. The passwords are masked."""
    lines = str(error).strip().splitlines()
    attempts = [line.removeprefix("- ") for line in lines if line.startswith("- host: ")]
    used = error.pgconn
    # what libpq itself took from a service file or a password file
    taken = [option.val for option in used.info if option.dispchar == b"*" and option.val] if used else []
    found = [*taken, used.password] if used else []
    said = "; ".join(attempts) or next(iter(lines), type(error).__name__)
    return _masked(said, [*secrets, *(value.decode(errors="surrogateescape") for value in found)])


def _masked(line: str, secrets: Iterable[str]) -> str:
    # what libpq itself takes from PGPASSWORD or the service that PGSERVICE names
    defaults = [option.val or b"" for option in Conninfo.get_defaults() if option.dispchar == b"*"]
    for secret in filter(None, (*secrets, *(value.decode(errors="surrogateescape") for value in defaults))):
        line = line.replace(secret, "***")
    return line
