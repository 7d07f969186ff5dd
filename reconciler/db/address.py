"""The ledger's address, as libpq takes it: a URL or `key=value`, with one host or several, or a service's name.

Nothing of a password is shown, not even where the string is wrong and its parts are not what they seem.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

import psycopg
from psycopg import conninfo
from psycopg.pq import Conninfo

from reconciler.db.failures import LedgerMisnamed

_SCHEMES = ("postgresql://", "postgres://")
_SHOWN = ("service", "host", "hostaddr", "port", "user", "dbname")
_MAX_PORT = 2**16 - 1


def parse_address(text: str) -> dict[str, Any]:
    """Return the parts of a connection string; white space around it, such as a Secret's last newline, is cut.

    Raises:
        LedgerMisnamed: libpq would not take it, or unescaped characters in its password make libpq misread it.
    """
    text = text.strip()
    # an unescaped @ or / ends the password early, and the rest of it would be shown as a host, a port or a database
    if _is_misread(text):
        raise _misnamed()
    try:
        settings: dict[str, Any] = {**conninfo.conninfo_to_dict(text)}
    except psycopg.Error:
        # libpq's own message would quote the string, and so the password
        raise _unknown_parameter(text) or _misnamed() from None
    if not text or "://" in str(settings.get("dbname", "")):
        raise _misnamed()
    if not all(not port or (port.isdecimal() and 0 < int(port) <= _MAX_PORT) for port in _ports(settings)):
        raise LedgerMisnamed(
            "A port in DATABASE_URL is not a number from 1 to 65535.",
            "Give the port after the host: postgresql://user:password@host:5432/dbname. If that is a part of the "
            "password, percent-encode characters such as @ / # in it.",
        )
    return settings


def shown(settings: dict[str, Any]) -> str:
    """Return what may be shown of an address."""
    return conninfo.make_conninfo("", **{key: settings[key] for key in _SHOWN if key in settings}) or "libpq defaults"


def secrets(settings: dict[str, Any]) -> list[str]:
    """Return what must never be shown of an address."""
    return [str(settings[key]) for key in _keywords(secret=True) if settings.get(key)]


def _ports(settings: dict[str, Any]) -> list[str]:
    return str(settings.get("port", "")).split(",")


def _keywords(*, secret: bool = False) -> set[str]:
    """Return the parameters that libpq knows, or those of them that hold a secret."""
    # D marks what is for debugging, among it keys that stand for a password
    options = Conninfo.get_defaults()
    return {option.keyword.decode() for option in options if not secret or option.dispchar in {b"*", b"D"}}


def _is_misread(text: str) -> bool:
    """True if an @ of a URL's password is left in what libpq takes for its hosts or its database."""
    if not text.startswith(_SCHEMES):
        return False
    rest = text.partition("://")[2]
    if "@" in rest.partition("/")[0]:
        rest = rest.partition("@")[2]
    return "@" in rest.partition("?")[0]


def _misnamed() -> LedgerMisnamed:
    return LedgerMisnamed(
        "DATABASE_URL is not a PostgreSQL connection string.",
        "Give it as postgresql://user:password@host:5432/dbname; "
        "characters such as @ / # in the password must be percent-encoded.",
    )


def _unknown_parameter(text: str) -> LedgerMisnamed | None:
    """Return the failure that names a parameter which libpq does not know, unless it could be part of a password."""
    if text.startswith(_SCHEMES):
        parameters = text.partition("?")[2]
        if "@" in parameters:
            return None
        # a password with an unescaped & would go on as if it were the next parameter
        before = re.split(r"(?:^|&)(?:ssl)?password=", parameters)[0]
        names = [unquote(pair.partition("=")[0]) for pair in before.split("&") if "=" in pair]
        known = _keywords() | {"ssl"}
    else:
        # a password with an unescaped space would go on as if it were the next keyword
        before = text.partition("pass")[0]
        names = [word.partition("=")[0] for word in before.split() if "=" in word]
        known = _keywords()
    unknown = [name for name in names if name not in known]
    if not unknown:
        return None
    return LedgerMisnamed(
        f"DATABASE_URL has a parameter that PostgreSQL does not know: {unknown[0]}",
        "Take it out: some programs have parameters of their own, such as schema, pgbouncer or connection_limit. "
        "These exist: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS",
    )
