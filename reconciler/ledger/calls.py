"""What the calls have in common: they check their arguments, then run one query of `sql/queries/ledger.sql`.

A check returns the value that the ledger will hold, or raises InvalidArgument before anything is written.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from decimal import Context, Decimal, Inexact, InvalidOperation
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg.rows import scalar_row

from reconciler.core.errors import Failure
from reconciler.core.model import FIRST, LAST, UNKNOWN_ORG
from reconciler.db.citus import refuse_ambiguous_times, whole_results
from reconciler.db.connection import bound_times
from reconciler.db.queries import query

if TYPE_CHECKING:
    from collections.abc import Iterable

    from psycopg.rows import BaseRowFactory

    from reconciler.db.connection import Connection

T = TypeVar("T")


class InvalidArgument(Failure, ValueError):  # noqa: N818 - named like every Failure
    """The ledger cannot hold an argument."""


class NotRecorded(Failure, LookupError):  # noqa: N818 - named like every Failure
    """The row that a call is about is not in the ledger."""


class RowsHidden(Failure):
    """A row-level security policy may hide rows from the connection's role."""


def fetch_rows(connection: Connection, factory: BaseRowFactory[T], name: str, /, **parameters: Any) -> list[T]:
    """Run a query and return its rows, regardless of the connection's own cursors, row factories and loaders."""
    statement = query(name)
    refuse_ambiguous_times(connection)
    with whole_results(connection), psycopg.Cursor(connection, row_factory=factory) as cursor:
        bound_times(cursor)
        refuse_hidden_rows(cursor, _tables(statement))
        cursor.row_factory = factory
        # binary: text depends on DateStyle, and the caller may load numerics as floats
        try:
            cursor.execute(statement, parameters, binary=True)
        except UnicodeEncodeError as error:
            raise InvalidArgument(
                f"The connection's client_encoding cannot carry the character {error.object[error.start]!r}.",
                "Nothing was written. Let the connection use client_encoding=UTF8.",
            ) from error
        return cursor.fetchall()


@cache
def _tables(statement: bytes) -> list[str]:
    """Return the ledger's tables that a query is about."""
    return sorted({name.decode() for name in re.findall(rb"public\.\w+", statement)})


def refuse_hidden_rows(cursor: psycopg.Cursor[Any], tables: list[str]) -> None:
    """Refuse what a policy may hide from this role: a tenant would look unrecorded, and a skill off.

    PostgreSQL's own refusal, row_security = off, is a setting of the caller's session.
    """
    cursor.row_factory = scalar_row
    if hidden := cursor.execute(query("hidden_tables"), {"tables": tables}, binary=True).fetchall():
        raise RowsHidden(
            f"A row-level security policy may hide rows of {', '.join(hidden)} from this role, and what is hidden "
            "looks as if it had never been recorded.",
            "Nothing was written. Call it as a role that sees every row (ALTER ROLE … BYPASSRLS), or take the policy "
            "off the table (ALTER TABLE … DISABLE ROW LEVEL SECURITY).",
        )


def valid_id(name: str, value: object) -> str:
    """Return an id."""
    return valid_text(name, value, "Give the id as the cluster has it.")


def valid_text(name: str, value: object, remedy: str) -> str:
    """Return text that is not empty and that PostgreSQL can store."""
    if not isinstance(value, str):
        problem = f"of type {type(value).__name__}, but must be text"
    elif not value:
        problem = "empty"
    elif "\0" in value:
        problem = "text with a NUL character, which PostgreSQL cannot store"
    elif value != value.encode(errors="replace").decode():
        problem = "text with half a surrogate pair, which UTF-8 cannot encode"
    else:
        return value
    raise InvalidArgument(f"{name} is {problem}.", f"Nothing was written. {remedy}")


def valid_ids(name: str, values: Iterable[str]) -> set[str]:
    """Return a set of ids. A single string is refused: it would count as one id per character."""
    if isinstance(values, str):
        raise InvalidArgument(
            f"{name} is a single string, so each of its characters would become a skill.",
            f'Nothing was written. Give a list: {name}=["{values}"].',
        )
    return {valid_id(name, value) for value in values}


def valid_org(value: str | None) -> str:
    """Return the organisation, or `unknown` if it is None or empty."""
    return UNKNOWN_ORG if value is None or value == "" else valid_id("org", value)


def valid_instant(name: str, value: object) -> datetime:
    """Return an aware datetime in UTC itself, not in a zone like London that has UTC's offset only in winter."""
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise InvalidArgument(
            f"{name} is {value!r}, but an instant is a datetime with a time zone.",
            "Give an aware datetime in UTC, such as datetime.now(UTC).",
        )
    if value.utcoffset() != timedelta(0) or value.tzname() != "UTC":
        raise InvalidArgument(
            f"{name} is {value}, but the ledger's times are in UTC.", "Convert it with .astimezone(UTC)."
        )
    return value


def valid_moment(name: str, value: object) -> datetime:
    """Return an instant at which something can have happened: not a placeholder such as datetime.min."""
    instant = valid_instant(name, value)
    if not FIRST < instant < LAST:
        raise InvalidArgument(
            f"{name} is {instant}: nothing can have happened then.", "Give the time when it happened."
        )
    return instant


def valid_moment_or_now(name: str, value: object) -> datetime | None:
    """Return a moment, or None where the database's clock is to date the row."""
    return None if value is None else valid_moment(name, value)


def valid_selection(since: datetime, until: datetime, tenant: str | None, org: str | None) -> dict[str, Any]:
    """Return which events to read: of a period, which may be empty, and of a tenant, an organisation, or both."""
    period = {"since": valid_instant("since", since), "until": valid_instant("until", until)}
    if until < since:
        raise InvalidArgument(f"until, {until}, is before since, {since}.", "Give the earlier time first.")
    if tenant is None and org is None:
        raise InvalidArgument("Neither a tenant nor an organisation is given.", "Give tenant=…, org=…, or both.")
    return period | {
        "tenant": None if tenant is None else valid_id("tenant", tenant),
        "org": None if org is None else valid_org(org),
    }


def valid_flag(name: str, value: object) -> bool:
    """Return True or False. None is refused: SQL would read it as "leave this setting as it is"."""
    if not isinstance(value, bool):
        raise InvalidArgument(
            f"{name} is {value!r}, but it must be True or False.", "Nothing was written. Give one of the two."
        )
    return value


def valid_amount(name: str, value: object, precision: int, scale: int) -> Decimal:
    """Return the value as numeric(precision, scale). More digits are refused: PostgreSQL would round silently."""
    if not isinstance(value, Decimal):
        raise InvalidArgument(
            f"{name} is {value!r}, of type {type(value).__name__}, but money is Decimal.",
            f'Nothing was written. Give Decimal("{value}"), or better the original value.',
        )
    digits = Context(prec=precision, traps=[Inexact, InvalidOperation])
    try:
        held = value.quantize(Decimal((0, (1,), -scale)), context=digits)
    except (Inexact, InvalidOperation):
        held = None
    if held is None or not held.is_finite() or held < 0:
        raise InvalidArgument(
            f"{name} is {value}, but it must be at least 0 and below {10 ** (precision - scale)}, "
            f"with at most {scale} decimals.",
            "Nothing was written. Round it as the price list does.",
        )
    return held
