"""The migration: creates what the ledger and the reconciler's own schema lack, and says what it created.

A statement of the numbered files runs only if what it makes is missing. So an object that is there is never locked,
let alone changed: CREATE INDEX IF NOT EXISTS, for one, waits for a lock against inserts before it looks whether there
is anything to do. An index on a table that was there before is built concurrently, for the same reason.
"""

from __future__ import annotations

import re
import threading
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
import stamina
from psycopg import conninfo

from reconciler.core.errors import Failure
from reconciler.db.connection import connect, transaction, translated
from reconciler.db.queries import folder, schema_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BUILD_LIMIT = 300.0
"""Seconds that one index may take, and that another session's build is waited for."""


class MigrationDenied(Failure):
    """The role may not create something that is missing."""


class MigrationConflict(Failure):
    """Something in the database stands in the way of what is missing."""


class MigrationBusy(Failure):
    """Another session is building an index."""


class MigrationHeldUp(Failure):
    """An index was not built in time."""


@dataclass(frozen=True, slots=True)
class _Step:
    """One statement of the numbered files, with the comments on what it makes."""

    makes: str
    """In the words of the report, which the catalog query speaks too."""
    table: str | None
    """The table that an index is on."""
    sql: str

    @property
    def index(self) -> str:
        return self.makes.removeprefix("index ")


class _IndexState(NamedTuple):
    oid: int | None
    valid: bool | None
    building: bool


_MAKES = re.compile(
    r"""
    CREATE\ (?P<kind>SCHEMA|TABLE)\ IF\ NOT\ EXISTS\ (?P<name>[\w.]+)
    | CREATE\ OR\ REPLACE\ VIEW\ (?P<view>[\w.]+)\ AS
    | CREATE\ (?:UNIQUE\ )?INDEX\ (?:CONCURRENTLY\ )?IF\ NOT\ EXISTS\ (?P<index>\w+)\s+
      ON\ (?P<table>(?P<schema>\w+)\.\w+)
    | INSERT\ INTO\ (?P<into>[\w.]+)\ \(id\)\ VALUES\ \((?P<id>\d+)\)
    """,
    re.VERBOSE,
)


def migrate(connection: psycopg.Connection[Any]) -> list[str]:
    """Create what is missing; any number of times, from any number of places at once.

    Everything but the indexes on tables that were there before lands in one transaction.

    Args:
        connection: an idle connection in autocommit mode, since a concurrent build cannot run inside a transaction.
            It is left at READ COMMITTED.

    Returns:
        What was created, in the order of the files: "schema reconciler", "table public.invoices",
        "index public.reconciler_skill_state", "row public.platform_pricing 1". Empty if nothing was missing.

    Raises:
        MigrationDenied: the role may not create what is missing.
        MigrationConflict: a table lacks a column, rows break a unique index, or a name is taken by something else.
        MigrationBusy: another session was still building an index after `BUILD_LIMIT` seconds.
        MigrationHeldUp: an index was not built within `BUILD_LIMIT` seconds.
        Failure: what `reconciler.db.connection.translated` makes of any other error.
    """
    # A snapshot taken at the start of the transaction would not show what the one before it, waited for, created.
    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    steps = _steps()
    report = {}
    left: list[_Step] = []
    for attempt in stamina.retry_context(on=_raced, attempts=5, timeout=60.0):
        with attempt:
            made, left = _create_missing(connection, steps)
            report = {step: step.makes for step in made}
    if left:
        with _sole_builder(connection):
            report |= {step: words for step in left if (words := _build(connection, step))}
    return [report[step] for step in steps if step in report]


def _create_missing(connection: psycopg.Connection[Any], steps: Sequence[_Step]) -> tuple[list[_Step], list[_Step]]:
    """Create what is missing in one transaction, save the indexes on tables that were there before.

    Returns:
        What was created, and those indexes.
    """
    made: list[_Step] = []
    left: list[_Step] = []
    with transaction(connection) as cursor:
        cursor.execute(_query("lock"))
        there = _existing(cursor)
        for step in steps:
            if step.makes in there:
                continue
            if f"table {step.table}" in there:
                left.append(step)
                continue
            with _explained(cursor.connection, step):
                # the table is this transaction's own, nobody can be inserting into it
                cursor.execute(step.sql.replace(" CONCURRENTLY", "").encode())
            if step.makes not in _existing(cursor):
                raise _name_taken(step)
            made.append(step)
    return made, left


def _build(connection: psycopg.Connection[Any], step: _Step) -> str | None:
    """Build an index without blocking writes to its table.

    Returns:
        What was done, for the report; None if another session finished the index meanwhile.
    """
    create = re.sub(r"INDEX (?:CONCURRENTLY )?", "INDEX CONCURRENTLY ", step.sql, count=1).encode()
    drop = f"DROP INDEX CONCURRENTLY IF EXISTS {step.index}".encode()
    rebuilt = False
    for attempt in stamina.retry_context(
        on=_passing, attempts=None, timeout=BUILD_LIMIT, wait_initial=0.1, wait_max=2.0
    ):
        with attempt, translated():
            if _settled(connection, step).valid:
                return None
            if _settled(connection, step).oid is not None:
                # not REINDEX: if that dies as well, it leaves a second index that nobody looks for
                rebuilt = True
                _run(connection, step, drop)
            try:
                _run(connection, step, create)
            except psycopg.errors.UniqueViolation as error:
                # even an invalid unique index refuses new rows
                _run(connection, step, drop)
                raise MigrationConflict(
                    f"Rows of {step.table} break the unique index {step.index}: {error.diag.message_detail}",
                    "Settle the duplicate rows with the portal's owner, then run `reconciler migrate` again.",
                ) from error
            if not _settled(connection, step).valid:
                raise _name_taken(step)
    return f"{step.makes} (rebuilt: an earlier build had died)" if rebuilt else step.makes


def _settled(connection: psycopg.Connection[Any], step: _Step) -> _IndexState:
    """Return the state of an index that nobody is building.

    Looks twice, for a build may end between the moment at which the catalog is read and the one at which the locks
    are: an index that is invalid before and after nobody was building is one that a dead build left.

    Raises:
        MigrationBusy: somebody is building on its table.
    """
    first, second = _index_state(connection, step), _index_state(connection, step)
    if first.building or first != second:
        raise MigrationBusy(
            f"Another session is building an index on {step.table}.",
            "Wait until it is done (pg_stat_progress_create_index shows it), then run `reconciler migrate` again.",
        )
    return second


def _index_state(connection: psycopg.Connection[Any], step: _Step) -> _IndexState:
    row = connection.execute(_query("index_state"), {"index": step.index, "table": step.table}).fetchone()
    return _IndexState(*row) if row else _IndexState(None, None, building=False)


def _run(connection: psycopg.Connection[Any], step: _Step, statement: bytes) -> None:
    """Run a statement outside a transaction, for `BUILD_LIMIT` seconds at most.

    It is cancelled from here: a timeout set on the session would, behind a transaction pooler, be somebody else's.
    """
    ended = threading.Event()

    def cancel() -> None:
        # again and again, for a request to cancel can get lost
        while not ended.wait(BUILD_LIMIT):
            with suppress(psycopg.Error):
                connection.cancel_safe()

    watch = threading.Thread(target=cancel, daemon=True)
    watch.start()
    try:
        with _explained(connection, step):
            connection.execute(statement)
    except psycopg.errors.QueryCanceled as error:
        raise MigrationHeldUp(
            f"The {step.makes} was not built in time; it waits for every older transaction to end.",
            "End transactions that stay open (pg_stat_activity: xact_start), then run `reconciler migrate` again. "
            "Writes to the table go on meanwhile.",
        ) from error
    finally:
        ended.set()
        watch.join()


@contextmanager
def _sole_builder(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Keep other migrations from building meanwhile.

    The lock is a transaction's, on a connection of its own: a session's lock would get lost behind a transaction
    pooler, and the build itself cannot run inside a transaction. A transaction that idles at READ COMMITTED keeps no
    snapshot, so the build does not wait for it. One that asks again and again is caught with a snapshot one day, and
    then waited for until it ends: hence a new transaction for each time that the lock is asked for.
    """
    url = conninfo.make_conninfo(connection.info.dsn, password=connection.info.password or None)
    with connect(url) as guard, ExitStack() as held:
        guard.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        for attempt in stamina.retry_context(
            on=_passing, attempts=None, timeout=BUILD_LIMIT, wait_initial=0.1, wait_max=2.0
        ):
            with attempt, ExitStack() as asking:
                cursor = asking.enter_context(transaction(guard))
                if cursor.execute(_query("try_build_lock")).fetchone() != (True,):
                    raise MigrationBusy(
                        "Another migration is building indexes on this ledger.",
                        "Wait until it is done, then run `reconciler migrate` again.",
                    )
                # it idles for as long as the build takes, which is bounded itself
                cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
                held.push(asking.pop_all())
        yield


@contextmanager
def _explained(connection: psycopg.Connection[Any], step: _Step) -> Iterator[None]:
    """Say what of the migration failed and why, where there is something to do about it."""
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise MigrationDenied(
            f"The role {connection.info.user} may not create the {step.makes}: {error.diag.message_primary}",
            "Run `reconciler migrate` once as the owner of the ledger's tables, who may also create in the database.",
        ) from error
    except (
        psycopg.errors.UndefinedColumn,
        psycopg.errors.UndefinedTable,
        psycopg.errors.WrongObjectType,
        psycopg.errors.InvalidForeignKey,
    ) as error:
        raise MigrationConflict(
            f"The {step.makes} does not fit what is there: {error.diag.message_primary}",
            "Is DATABASE_URL the portal's database? A table that is there is never altered: compare it with "
            "sql/schema/001_ledger.sql.",
        ) from error


def _name_taken(step: _Step) -> MigrationConflict:
    return MigrationConflict(
        f"The {step.makes} could not be created: something else has that name.",
        "Look what it is (\\d in psql), and rename it.",
    )


def _existing(cursor: psycopg.Cursor[Any]) -> set[str]:
    there = {words for (words,) in cursor.execute(_query("existing"))}
    if "table public.platform_pricing" in there:
        there |= {words for (words,) in cursor.execute(_query("existing_row"))}
    return there


def _passing(error: Exception) -> bool:
    """Whether trying again may help: somebody else was in the way."""
    return isinstance(error, MigrationBusy) or isinstance(
        error.__cause__, (psycopg.errors.DeadlockDetected, psycopg.errors.LockNotAvailable)
    )


def _raced(error: Exception) -> bool:
    """Whether the portal may have been creating the same object, which IF NOT EXISTS does not save from."""
    return _passing(error) or isinstance(
        error.__cause__,
        (
            psycopg.errors.UniqueViolation,
            psycopg.errors.DuplicateTable,
            psycopg.errors.DuplicateObject,
            psycopg.errors.DuplicateSchema,
        ),
    )


@cache
def _steps() -> tuple[_Step, ...]:
    text = "\n".join(file.read_text(encoding="utf-8") for file in schema_files())
    return tuple(map(_step, re.split(r"^(?=CREATE |INSERT )", text, flags=re.MULTILINE)[1:]))


def _step(sql: str) -> _Step:
    match = _MAKES.match(sql)
    if match is None:
        raise ValueError(f"a migration cannot tell what this creates: {sql.splitlines()[0]}")
    if match["kind"]:
        return _Step(f"{match['kind'].lower()} {match['name']}", None, sql)
    if match["view"]:
        return _Step(f"view {match['view']}", None, sql)
    if match["index"]:
        return _Step(f"index {match['schema']}.{match['index']}", match["table"], sql)
    return _Step(f"row {match['into']} {match['id']}", None, sql)


@cache
def _query(name: str) -> bytes:
    text = (folder() / "queries" / "migrate.sql").read_text(encoding="utf-8")
    _, *parts = re.split(r"^-- name: (\w+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))[name].encode()
