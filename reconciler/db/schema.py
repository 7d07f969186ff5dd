"""The steps by which schema `reconciler` grows, and the check that a database has had them all, and no others.

The first three files of `sql/schema` are what version 0.1.0 created: they are applied where something is missing. Every
later file is a step. It may alter anything of schema `reconciler`, is applied once and in order, is never undone, and
is recorded in `reconciler.migrations`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from reconciler import __version__
from reconciler.core.errors import Failure
from reconciler.db.queries import files_in, query

if TYPE_CHECKING:
    from reconciler.db.connection import Cursor

FIRST_STEP = 4
"""The number of the first file that is a step."""


class LedgerNotMigrated(Failure):
    """The database lacks tables, columns or steps that this version needs."""


class LedgerTooNew(Failure):
    """The schema has had a step that this version does not know."""


class Step(NamedTuple):
    """One numbered step."""

    number: int
    name: str
    """The name of its file, without the ending."""
    sql: bytes


def _read() -> tuple[tuple[str, ...], tuple[Step, ...]]:
    first, steps = [], []
    for file in files_in("schema"):
        name, text = file.name.removesuffix(".sql"), file.read_text(encoding="utf-8")
        if (number := int(name.partition("_")[0])) < FIRST_STEP:
            first.append(text)
        else:
            steps.append(Step(number, name, text.encode()))
    return tuple(first), tuple(steps)


FIRST_SCHEMA, STEPS = _read()
"""The statements of version 0.1.0, a text a file; and the steps since, in order."""


def raise_unless_current(cursor: Cursor) -> None:
    """Raise if the database has not had every step, or has had one that is not known here.

    Raises:
        LedgerNotMigrated: `reconciler migrate` is due.
        LedgerTooNew: a later version has migrated it.
    """
    ((exists, has_steps),) = cursor.execute(query("has_steps")).fetchall()
    last = raise_if_newer(cursor) if has_steps else 0
    if missing := ", ".join(step.name for step in STEPS if step.number > last):
        raise LedgerNotMigrated(
            f"Schema reconciler is older than this version, {__version__}: it lacks {missing}."
            if exists
            else "This database has no schema reconciler: it was never migrated, or DATABASE_URL names the wrong one.",
            "Nothing was observed or written. Run `reconciler migrate` as the owner of the ledger's tables, and then "
            "sql/roles.sql.",
        )


def raise_if_newer(cursor: Cursor) -> int:
    """Return the number of the last step that the database has had, 0 for none; raise `LedgerTooNew` if it is newer."""
    row = cursor.execute(query("last_step")).fetchone()
    number, name, version = row or (0, "", "")
    if number > STEPS[-1].number:
        raise LedgerTooNew(
            f"Schema reconciler is newer than this version, {__version__}: it has had the step {name}.",
            f"Nothing was observed or written. Use reconciler {version} or later: steps are never undone.",
        )
    return int(number)
