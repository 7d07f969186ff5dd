"""The migration: create what is missing of the ledger, bring the reconciler's own schema up to date, and report it.

Schema `public` is shared, and is only added to. A statement runs only if the object that it creates is missing, so an
existing object is never locked or changed. (CREATE INDEX IF NOT EXISTS, for one, waits for a lock against inserts
before it looks whether the index exists.) For the same reason, an index on a table that existed before is built
concurrently. Schema `reconciler` is ours, and is altered by the numbered steps of `reconciler.db.schema`.
"""

from __future__ import annotations

import re
import threading
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import psycopg
import stamina
from psycopg import conninfo, errors

from reconciler import __version__
from reconciler.core.errors import Failure
from reconciler.db.connection import Connection, Cursor, connect, transaction, translated
from reconciler.db.failures import LedgerDenied
from reconciler.db.queries import query
from reconciler.db.schema import FIRST_SCHEMA, STEPS, raise_if_newer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

AS_OWNER = "Run `reconciler migrate` once as the owner of the ledger's tables, who may also create in the database."
MAX_BUILD_SECONDS = 300.0
"""How long one index may take, and how long another session's build is waited for."""


class MigrationDenied(Failure):
    """The role may not create something that is missing."""


class MigrationConflict(Failure):
    """A table lacks a column, rows violate a unique index, or something else has the name."""


class MigrationBusy(Failure):
    """Another session was still building an index after `MAX_BUILD_SECONDS`."""


class MigrationHeldUp(Failure):
    """An index was not built within `MAX_BUILD_SECONDS`."""


@dataclass(frozen=True, slots=True)
class _Creation:
    """One statement that creates something, with the comments on that."""

    creates: str
    """Worded as in the report, and as the catalog query words it."""
    table: str
    """The table that an index is on; empty for what is not an index."""
    sql: str

    @property
    def index(self) -> str:
        return self.creates.removeprefix("index ")

    @property
    def comments(self) -> bytes:
        """The comments alone: those of version 0.1.0 had other words."""
        return "".join(self.sql.partition("\nCOMMENT ON ")[1:]).encode()

    @property
    def is_ours(self) -> bool:
        """True for what is in schema `reconciler`, and for that schema."""
        return self.creates.split(" ")[1].split(".")[0] == "reconciler"


class _Partition(NamedTuple):
    """A partitioned table, or a partition of it. Its names are quoted."""

    oid: int
    parent: int
    """0 at the top."""
    is_leaf: bool
    schema: str
    table: str
    has_index: bool
    """True if an index of it is a part of the index in question already."""


_CREATES = re.compile(
    r"""
    CREATE\ (?:OR\ REPLACE\ |UNIQUE\ )?(?P<kind>SCHEMA|TABLE|VIEW|INDEX)\ (?:CONCURRENTLY\ )?(?:IF\ NOT\ EXISTS\ )?
      (?P<name>[\w.]+)(?:\s+ON\ (?P<table>(?P<schema>\w+\.)\w+))?
    | INSERT\ INTO\ (?P<into>[\w.]+)\ \(id\)\ VALUES\ \((?P<id>\d+)\)
    """,
    re.VERBOSE,
)
_CHANGES = re.compile(
    r"^(?P<verb>CREATE|DROP) (?:UNIQUE )?(?P<kind>TABLE|VIEW|INDEX) (?:reconciler\.)?(?P<name>\w+)", re.MULTILINE
)
"""What a step creates and drops, all of it in schema `reconciler`."""


def migrate(connection: Connection) -> list[str]:
    """Create what is missing. It may run any number of times, and on several connections at once.

    The connection must be idle and in autocommit mode, since an index cannot be built concurrently inside a
    transaction. It is left at READ COMMITTED.

    Returns:
        What was created, in the order of the files: "schema reconciler", "table public.invoices",
        "index public.reconciler_skill_state", "row public.platform_pricing 1"; then the steps that were applied:
        "step 004_migrations". Empty if nothing was missing.

    Raises:
        LedgerTooNew: a later version has migrated this database.
        Failure: one of this module, or for any other error one of `reconciler.db.connection`.
    """
    # a snapshot from the start of the transaction would not show what the migration before it created
    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    creations = _creations()
    try:
        created, indexes, applied = _bring_up_to_date(connection, creations)
    except LedgerDenied as failure:
        raise MigrationDenied(f"The role {connection.info.user} may not migrate. {failure}", AS_OWNER) from failure
    report = {creation: creation.creates for creation in created}
    if indexes:
        with _build_lock(connection):
            report |= {creation: done for creation in indexes if (done := _build_index(connection, creation))}
    return [*(report[creation] for creation in creations if creation in report), *applied]


def _is_temporary(error: Exception) -> bool:
    """True if another session was in the way, so that trying again may help."""
    causes = (errors.DeadlockDetected, errors.LockNotAvailable)
    return isinstance(error, MigrationBusy) or isinstance(error.__cause__, causes)


def _is_race(error: Exception) -> bool:
    """True if the portal may have created the same object at the same time: IF NOT EXISTS does not prevent that."""
    causes = (errors.UniqueViolation, errors.DuplicateTable, errors.DuplicateObject, errors.DuplicateSchema)
    return _is_temporary(error) or isinstance(error.__cause__, causes)


@stamina.retry(on=_is_race, attempts=5, timeout=60.0)
def _bring_up_to_date(
    connection: Connection, creations: Sequence[_Creation]
) -> tuple[list[_Creation], list[_Creation], list[str]]:
    """Create what is missing and apply the steps that are due, in one transaction.

    Returns:
        What was created, the indexes that are still to be built because their tables existed before, and the steps
        that were applied, worded for the report.
    """
    created: list[_Creation] = []
    indexes: list[_Creation] = []
    with transaction(connection) as cursor:
        cursor.execute(query("migration_lock"))
        existing = _existing(cursor)
        has_steps = "table reconciler.migrations" in existing
        for creation in creations:
            # a step may have dropped or replaced what the first version of our own schema had
            if creation.creates in existing or (has_steps and creation.is_ours):
                if creation.is_ours and not has_steps:
                    cursor.execute(creation.comments)
                continue
            if f"table {creation.table}" in existing and not creation.is_ours:
                indexes.append(creation)
                continue
            with _worded(connection, creation.creates):
                # this transaction created the table, so no other can be inserting into it
                cursor.execute(creation.sql.replace(" CONCURRENTLY", "").encode())
            if creation.creates not in _existing(cursor):
                raise _name_taken(creation)
            created.append(creation)
        applied = _apply_steps(connection, cursor, has_steps=has_steps)
        _raise_if_dropped(creations, _existing(cursor))
    return created, indexes, applied


def _apply_steps(connection: Connection, cursor: Cursor, *, has_steps: bool) -> list[str]:
    """Apply the steps that this database has not had, in order, and return them worded for the report."""
    last = raise_if_newer(cursor) if has_steps else 0
    due = [step for step in STEPS if step.number > last]
    for step in due:
        with _worded(connection, f"step {step.name}"):
            cursor.execute(step.sql)
            cursor.execute(query("record_step"), {"number": step.number, "name": step.name, "version": __version__})
    return [f"step {step.name}" for step in due]


def _raise_if_dropped(creations: Sequence[_Creation], existing: set[str]) -> None:
    """Raise if something of our own schema is gone: to create it again would hide that its rows are lost."""
    expected = {creation.creates: None for creation in creations if creation.is_ours}
    for statement in (match for step in STEPS for match in _CHANGES.finditer(step.sql.decode())):
        words = f"{statement['kind'].lower()} reconciler.{statement['name']}"
        if statement["verb"] == "DROP":
            expected.pop(words)
        else:
            expected[words] = None
    if dropped := [words for words in expected if words not in existing]:
        raise MigrationConflict(
            f"Schema reconciler has had every step, but lacks: {', '.join(dropped)}.",
            "Somebody dropped it. Restore a table from a backup, since its rows are part of the proof; create a view "
            "or an index as sql/schema/ has it.",
        )


def _existing(cursor: Cursor) -> set[str]:
    existing = {words for (words,) in cursor.execute(query("existing_objects"))}
    if "table public.platform_pricing" in existing:
        existing |= {words for (words,) in cursor.execute(query("existing_rows"))}
    return existing


def _build_index(connection: Connection, creation: _Creation) -> str | None:
    """Build an index without blocking writes to its table; return the report's line, None if another session did it."""
    if _partitions(connection, creation):
        return _build_on_partitions(connection, creation)
    create = re.sub(r"INDEX (?:CONCURRENTLY )?", "INDEX CONCURRENTLY ", creation.sql, count=1).encode()
    drop = f"DROP INDEX CONCURRENTLY IF EXISTS {creation.index}".encode()
    rebuilt = False
    for attempt in _attempts_while_busy():
        with attempt, translated():
            exists, valid = _index_state(connection, creation)
            if valid:
                return None
            if exists:
                # not REINDEX: if it dies too, it leaves a second index behind that nobody looks for
                rebuilt = True
                _execute_bounded(connection, creation, drop)
            try:
                _execute_bounded(connection, creation, create)
            except errors.UniqueViolation as error:
                # even an invalid unique index refuses new rows
                _execute_bounded(connection, creation, drop)
                raise MigrationConflict(
                    f"Rows of {creation.table} violate the unique index {creation.index}: {error.diag.message_detail}",
                    "Resolve the duplicate rows with the portal's owner, then run `reconciler migrate` again.",
                ) from error
            if _index_state(connection, creation) != (True, True):
                raise _name_taken(creation)
    return f"{creation.creates} (rebuilt: an earlier build had died)" if rebuilt else creation.creates


def _partitions(connection: Connection, creation: _Creation) -> list[_Partition]:
    """Return a partitioned table and its partitions, from the top; nothing if it is not partitioned."""
    named = {"index": creation.index, "table": creation.table}
    with translated():
        tree = [_Partition(*row) for row in connection.execute(query("partitions"), named)]
    # a partition is a tree of its own
    return [] if tree and tree[0].is_leaf else tree


def _build_on_partitions(connection: Connection, creation: _Creation) -> str:
    """Build an index on a partitioned table, which PostgreSQL does not do concurrently.

    It is built on each partition by itself. Then the index of the whole table is made of them, which takes no time.
    """
    for attempt in _attempts_while_busy():
        with attempt:
            top, *below = _partitions(connection, creation)
            of = {one.oid: creation if one is top else _of_partition(creation, one) for one in (top, *below)}
            missing = [one for one in below if not one.has_index]
            for one in missing:
                if one.is_leaf:
                    _build_index(connection, of[one.oid])
            with transaction(connection) as cursor, _worded(connection, creation.creates):
                for one in (top, *missing):
                    if not one.is_leaf:
                        cursor.execute(
                            of[one.oid].sql.replace(" CONCURRENTLY", "").replace("ON ", "ON ONLY ", 1).encode()
                        )
                for one in missing:
                    attach = f"ALTER INDEX {of[one.parent].index} ATTACH PARTITION {of[one.oid].index}"
                    cursor.execute(attach.encode())
            if _index_state(connection, creation) != (True, True):
                raise MigrationBusy(
                    f"The partitions of {creation.table} changed while the index {creation.index} was being built.",
                    "Run `reconciler migrate` again.",
                )
    return creation.creates


def _of_partition(creation: _Creation, partition: _Partition) -> _Creation:
    """Return the creation of the same index on one partition."""
    name = f"{creation.index.partition('.')[2]}_{partition.oid}"
    sql = creation.sql.replace(creation.index.partition(".")[2], name, 1).replace(creation.table, partition.table, 1)
    return _Creation(f"index {partition.schema}.{name}", partition.table, sql)


def _attempts_while_busy() -> Iterable[stamina.Attempt]:
    return stamina.retry_context(on=_is_temporary, attempts=None, timeout=MAX_BUILD_SECONDS, wait_max=2.0)


def _index_state(connection: Connection, creation: _Creation) -> tuple[bool, bool]:
    """Return whether an index exists and whether it is valid, if no session is building it.

    That is read twice, because a build may end after the catalog is read and before the locks are. An index that is
    invalid both times, while nobody is building, was left by a build that died.

    Raises:
        MigrationBusy: a session is building an index on the same table.
    """
    named = {"index": creation.index, "table": creation.table}
    first, second = (connection.execute(query("index_state"), named).fetchall() for _ in range(2))
    ((oid, is_valid, is_building),) = second
    if is_building or first != second:
        raise MigrationBusy(
            f"Another session is building an index on {creation.table}.",
            "Wait until it is done (pg_stat_progress_create_index shows it), then run `reconciler migrate` again.",
        )
    return oid is not None, bool(is_valid)


def _execute_bounded(connection: Connection, creation: _Creation, statement: bytes) -> None:
    """Run a statement outside a transaction and cancel it after `MAX_BUILD_SECONDS`.

    The request to cancel comes from this process: behind a transaction pooler, a timeout set on the session would
    apply to another client.
    """
    ended, cancelled = threading.Event(), threading.Event()

    def cancel() -> None:
        # repeatedly, because a request to cancel can get lost
        while not ended.wait(MAX_BUILD_SECONDS):
            cancelled.set()
            with suppress(psycopg.Error):
                connection.cancel_safe()

    watch = threading.Thread(target=cancel, daemon=True)
    watch.start()
    try:
        with _worded(connection, creation.creates), _unlimited(connection):
            connection.execute(statement)
    except errors.QueryCanceled as error:
        if not cancelled.is_set():
            raise MigrationHeldUp(
                f"The {creation.creates} was not built: {error.diag.message_primary}",
                "The statement_timeout that the role or the database has set is too short for it: run `reconciler "
                "migrate` past the pooler, or ALTER ROLE ... SET statement_timeout = 0.",
            ) from error
        raise MigrationHeldUp(
            f"The {creation.creates} was not built in time; it waits for every older transaction to end.",
            "End transactions that stay open (pg_stat_activity: xact_start), then run `reconciler migrate` again. "
            "Writes to the table go on meanwhile.",
        ) from error
    finally:
        ended.set()
        watch.join()


@contextmanager
def _unlimited(connection: Connection) -> Iterator[None]:
    """Lift the timeouts that the role or the database has set, unless a pooler stands between.

    Behind one, the session's next transaction may be another client's, and the process that a client is told of is not
    the server's.
    """
    ((pid, *usual),) = connection.execute(query("session")).fetchall()
    if pid != connection.info.backend_pid:
        yield
        return
    names = ("statement", "lock", "transaction")
    connection.execute(query("set_timeouts"), dict.fromkeys(names, "0"))
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute(query("set_timeouts"), dict(zip(names, usual, strict=True)))


@contextmanager
def _build_lock(connection: Connection) -> Iterator[None]:
    """Keep other migrations from building indexes at the same time.

    The lock belongs to a transaction on a connection of its own: a session's lock would get lost behind a transaction
    pooler, and the build itself cannot run inside a transaction. The build does not wait for a transaction that idles
    at READ COMMITTED, which keeps no snapshot. But it would wait for one that happens to ask for the lock just then:
    hence every attempt has a new transaction.
    """
    url = conninfo.make_conninfo(connection.info.dsn, password=connection.info.password or None)
    with connect(url) as guard, ExitStack() as held:
        for attempt in _attempts_while_busy():
            with attempt, ExitStack() as asking:
                cursor = asking.enter_context(transaction(guard))
                if cursor.execute(query("try_build_lock")).fetchone() != (True,):
                    raise MigrationBusy(
                        "Another migration is building indexes on this ledger.",
                        "Wait until it is done, then run `reconciler migrate` again.",
                    )
                # it idles for as long as the build takes, which has a limit of its own
                cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
                held.push(asking.pop_all())
        yield


@contextmanager
def _worded(connection: Connection, words: str) -> Iterator[None]:
    """Turn the errors that a person can do something about into failures that name the object or the step."""
    try:
        yield
    except errors.InsufficientPrivilege as error:
        raise MigrationDenied(
            f"The role {connection.info.user} may not create the {words}: {error.diag.message_primary}",
            AS_OWNER,
        ) from error
    except (
        errors.UndefinedColumn,
        errors.UndefinedTable,
        errors.UndefinedObject,
        errors.WrongObjectType,
        errors.InvalidForeignKey,
    ) as error:
        raise MigrationConflict(
            f"The {words} does not fit the existing tables: {error.diag.message_primary}",
            "Is DATABASE_URL the portal's database? An existing table is never altered: compare it with "
            "sql/schema/001_ledger.sql.",
        ) from error


def _name_taken(creation: _Creation) -> MigrationConflict:
    return MigrationConflict(
        f"The {creation.creates} could not be created: something else has that name.",
        "Look it up (\\d in psql), and rename it.",
    )


def _creations() -> tuple[_Creation, ...]:
    text = "\n".join(FIRST_SCHEMA)
    return tuple(map(_parse, re.split(r"^(?=CREATE |INSERT )", text, flags=re.MULTILINE)[1:]))


def _parse(sql: str) -> _Creation:
    match = _CREATES.match(sql)
    if match is None:
        raise ValueError(f"The migration cannot tell what this statement creates: {sql.splitlines()[0]}")
    kind, name, table, schema, into, id_ = match.groups(default="")
    return _Creation(f"{kind.lower()} {schema}{name}" if kind else f"row {into} {id_}", table, sql)
