"""What a role or a database may have set, none of which may change what a run finds, writes or says."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SHADOWS: Final = """
CREATE SCHEMA shadow;
CREATE FUNCTION shadow.now() RETURNS timestamptz LANGUAGE sql AS $$SELECT timestamptz '1999-01-01Z'$$;
CREATE FUNCTION shadow.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$SELECT timestamptz '1999-01-01Z'$$;
CREATE FUNCTION shadow.lower(text) RETURNS text LANGUAGE sql AS $$SELECT 'shadowed'$$;
CREATE FUNCTION shadow.set_config(text, text, boolean) RETURNS text LANGUAGE sql AS $$SELECT 'shadowed'$$;
CREATE TABLE shadow.staged (tenant_name int);
CREATE TABLE shadow.planned (tenant_name int);
"""
"""What comes first where a search_path names it first."""

SETTINGS: Final = {
    "client_encoding": ("LATIN1", "SQL_ASCII", "EUC_JP"),
    "DateStyle": ("German, DMY", "SQL, MDY", "Postgres, YMD"),
    "IntervalStyle": ("sql_standard", "iso_8601"),
    "TimeZone": ("Pacific/Kiritimati", "America/St_Johns"),
    "search_path": ("shadow, pg_catalog, public, pg_temp", ""),
    "row_security": ("off",),
    "default_transaction_isolation": ("serializable", "read uncommitted"),
    "default_transaction_deferrable": ("on",),
    "statement_timeout": ("300ms",),
    "lock_timeout": ("300ms",),
    "idle_in_transaction_session_timeout": ("300ms",),
    "idle_session_timeout": ("300ms",),
    "transaction_timeout": ("300ms",),
}
"""Values of each setting, none of them its default."""

OTHERS: Final = {
    "standard_conforming_strings": "off",
    "escape_string_warning": "on",
    "backslash_quote": "off",
    "array_nulls": "off",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "xmloption": "document",
    "transform_null_equals": "on",
    "quote_all_identifiers": "on",
    "client_min_messages": "debug1",
    "synchronous_commit": "off",
    "work_mem": "64kB",
    "plan_cache_mode": "force_generic_plan",
    "enable_indexscan": "off",
}
"""What else could matter, all at once."""


@contextmanager
def odd_role(url: str, settings: Mapping[str, str]) -> Iterator[str]:
    """Yield a way to a database as another superuser, for whom these settings hold there."""
    parts, name = urlsplit(url), f"odd_{uuid4().hex}"
    role, database = sql.Identifier(name), sql.Identifier(parts.path.removeprefix("/"))
    with closing(psycopg.connect(url, autocommit=True)) as owner:
        owner.execute(sql.SQL("CREATE ROLE {} LOGIN SUPERUSER PASSWORD 'odd'").format(role))
        try:
            _set(owner, sql.SQL("ALTER ROLE {} IN DATABASE {} SET").format(role, database), settings)
            yield parts._replace(netloc=f"{name}:odd@{parts.netloc.rpartition('@')[2]}").geturl()
        finally:
            owner.execute(
                sql.SQL("REASSIGN OWNED BY {0} TO CURRENT_USER; DROP OWNED BY {0}; DROP ROLE {0}").format(role)
            )


@contextmanager
def odd_database(url: str, settings: Mapping[str, str]) -> Iterator[None]:
    """Let these settings hold for everybody who connects to a database."""
    database = sql.Identifier(urlsplit(url).path.removeprefix("/"))
    with closing(psycopg.connect(url, autocommit=True)) as owner:
        try:
            _set(owner, sql.SQL("ALTER DATABASE {} SET").format(database), settings)
            yield
        finally:
            owner.execute(sql.SQL("ALTER DATABASE {} RESET ALL").format(database))


def _set(owner: psycopg.Connection[Any], of: sql.Composed, settings: Mapping[str, str]) -> None:
    """Set what this version of PostgreSQL knows."""
    known = {setting.lower() for (setting,) in owner.execute("SELECT name FROM pg_settings")}
    for setting, value in settings.items():
        if setting.lower() in known:
            values = value.split(", ") if setting == "search_path" else [value]
            literals = sql.SQL(", ").join(map(sql.Literal, values))
            owner.execute(sql.SQL("{} {} = {}").format(of, sql.Identifier(setting), literals))
