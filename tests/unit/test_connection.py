"""What is taken for the ledger's address, what a failure of the connection shows, and what it does not."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import errors

from reconciler.db.address import parse_address, shown
from reconciler.db.connection import LedgerDenied, LedgerFault, LedgerMisnamed, LedgerUnreachable, connect, translated
from reconciler.db.failures import LedgerMisencoded, refused

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "hunter2"  # noqa: S105 - the canary
UNREACHABLE = "127.0.0.1"


@pytest.mark.parametrize("password", [SECRET.encode(), b"\xff\xfe"])
def test_no_password_makes_a_failed_connection_crash_or_shows(monkeypatch: pytest.MonkeyPatch, password: bytes) -> None:
    monkeypatch.setitem(os.environb, b"PGPASSWORD", password)
    with pytest.raises(LedgerUnreachable) as failed:
        connect(f"postgresql://reconciler@{UNREACHABLE}:1/ledger")
    assert SECRET not in str(failed.value)


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        pytest.param("postgresql://u:p@h/db\n", {"dbname": "db"}, id="a newline at the end - cut"),
        pytest.param("\t postgres://u:p@h/db \r\n", {"dbname": "db"}, id="white space around it - cut"),
        pytest.param("host=h dbname=db\n", {"dbname": "db"}, id="a newline after key=value - cut"),
        pytest.param("postgresql://u:p@a:1,b:2/db", {"host": "a,b", "port": "1,2"}, id="several hosts - taken"),
        pytest.param("postgresql://u:p@a,b:2/db", {"host": "a,b", "port": ",2"}, id="a port of one host - taken"),
        pytest.param("host=a,b port=5432,", {"port": "5432,"}, id="an empty port - taken"),
        pytest.param("postgresql://u:p@[::1]:1,[::2]/db", {"host": "::1,::2"}, id="IPv6 - taken"),
        pytest.param("postgresql:///db?host=/run/pg&port=6", {"host": "/run/pg"}, id="a socket - taken"),
        pytest.param("postgresql://u@%2Frun%2Fpg/db", {"host": "/run/pg"}, id="a socket in the host's place - taken"),
        pytest.param("service=billing", {"service": "billing"}, id="a service - taken"),
        pytest.param("postgresql://?service=billing", {"service": "billing"}, id="a service in a URL - taken"),
        pytest.param(
            "postgresql://u:p@a,b/db?target_session_attrs=read-write",
            {"target_session_attrs": "read-write"},
            id="target_session_attrs - taken",
        ),
        pytest.param("postgresql://u:p@h/db?sslmode=verify-full", {"sslmode": "verify-full"}, id="sslmode - taken"),
        pytest.param("postgresql://u:p@h/db?ssl=true", {"sslmode": "require"}, id="ssl=true - taken"),
        pytest.param("postgresql://u:pa?s:s@h/db", {"password": "pa?s:s"}, id="? and : in the password - taken"),
        pytest.param("postgresql://u:p%40%2F%23@h/db", {"password": "p@/#"}, id="an escaped password - taken"),
        pytest.param("postgresql://u:p@h/a%40b", {"dbname": "a@b"}, id="an escaped @ in the database - taken"),
        pytest.param("host=h dbname=a@b", {"dbname": "a@b"}, id="an @ in the database of key=value - taken"),
        pytest.param("postgresql://h/db?application_name=a@b", {"host": "h"}, id="an @ in a parameter - taken"),
    ],
)
def test_an_address_that_libpq_takes_is_taken(address: str, parts: dict[str, str]) -> None:
    assert parse_address(address).items() >= parts.items()


UNKNOWN = "DATABASE_URL has a parameter that PostgreSQL does not know: "
MISNAMED = "DATABASE_URL is not a PostgreSQL connection string."
PORT = "A port in DATABASE_URL is not a number from 1 to 65535."


@pytest.mark.parametrize(
    ("address", "said"),
    [
        pytest.param(f"postgresql://u:{SECRET}@h/db?schema=public", f"{UNKNOWN}schema", id="?schema= - named"),
        pytest.param(f"postgresql://u:{SECRET}@h/db?sslmode=require&a%20b=1", f"{UNKNOWN}a b", id="the second - named"),
        pytest.param("host=h schema=public", f"{UNKNOWN}schema", id="schema= in key=value - named"),
        pytest.param(f"host=h schema=x password={SECRET}", f"{UNKNOWN}schema", id="one before the password - named"),
        pytest.param(f"host=h password=a {SECRET}=b", MISNAMED, id="one that may be the password - not named"),
        pytest.param(f"host=h sslpassword=a {SECRET}=b", MISNAMED, id="one that may be a key's password - not named"),
        pytest.param(
            f"postgresql://u@h/db?password=ab&{SECRET}=", MISNAMED, id="one that may be a URL's password - not named"
        ),
        pytest.param(f"postgresql://u:a/b?{SECRET}=c@h/db", MISNAMED, id="a password with / and ? - not shown"),
        pytest.param(f"postgresql://u:a@{SECRET}@h/db", MISNAMED, id="a password with @ - not shown"),
        pytest.param(f"postgresql://u:1/{SECRET}@h/db", MISNAMED, id="a password with / - not shown"),
        pytest.param(f"postgresql://u:{SECRET}/x@h/db", MISNAMED, id="a password that looks like a port - not shown"),
        pytest.param(f"postgresql://u:a%{SECRET}@h/db", MISNAMED, id="a password with % - not shown"),
        pytest.param(f"postgresql+psycopg://u:{SECRET}@h/db", MISNAMED, id="another program's scheme - not shown"),
        pytest.param(f"mysql://u:{SECRET}@h/db", MISNAMED, id="another database's scheme - not shown"),
        pytest.param(f"dbname=postgresql://u:{SECRET}@h/db", MISNAMED, id="a URL as the database - not shown"),
        pytest.param("hello", MISNAMED, id="a word - refused"),
        pytest.param(" \n", MISNAMED, id="nothing - refused"),
        pytest.param(f"postgresql://u:{SECRET}", PORT, id="a password without a host - not shown"),
        pytest.param("postgresql://h:0/db", PORT, id="port 0 - refused"),
        pytest.param("postgresql://h:99999/db", PORT, id="port 99999 - refused"),
        pytest.param("postgresql://a:1,b:x/db", PORT, id="a word among the ports - refused"),
    ],
)
def test_an_address_that_libpq_refuses_is_explained(address: str, said: str) -> None:
    with pytest.raises(LedgerMisnamed) as refusal:
        parse_address(address)
    assert str(refusal.value) == said
    assert refusal.value.exit_code == 64
    assert refusal.value.remedy
    assert SECRET not in f"{refusal.value} {refusal.value.remedy}"
    assert ("password" in refusal.value.remedy) is not said.startswith(UNKNOWN)


def test_all_but_secrets_is_shown_of_an_address() -> None:
    settings = parse_address(f"postgresql://u:{SECRET}@a:1,b:2/db?sslpassword={SECRET}&service=s")
    assert shown(settings) == "service=s host=a,b port=1,2 user=u dbname=db"
    assert shown({}) == "libpq defaults"


@pytest.mark.parametrize("by", ["service file", "password file", "PGPASSWORD", "the URL"])
def test_no_password_is_shown_wherever_it_comes_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, by: str) -> None:
    """Each host of a connection that fails is named with its cause."""
    url = f"postgresql://u@{UNREACHABLE}:1,{UNREACHABLE}:2/{SECRET}-db"
    if by == "service file":
        (tmp_path / "services").write_text(f"[billing]\npassword={SECRET}\n")
        monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
        url += "?service=billing"
    elif by == "password file":
        (tmp_path / "passwords").write_text(f"*:*:*:*:{SECRET}\n")
        (tmp_path / "passwords").chmod(0o600)
        monkeypatch.setenv("PGPASSFILE", str(tmp_path / "passwords"))
    elif by == "PGPASSWORD":
        monkeypatch.setenv("PGPASSWORD", SECRET)
    else:
        url = url.replace("u@", f"u:{SECRET}@")
    with pytest.raises(LedgerUnreachable) as failed:
        connect(url.replace(f"{SECRET}-db", "db"))
    assert SECRET not in f"{failed.value} {failed.value.remedy}"
    assert "port 1 failed" in str(failed.value)
    assert "port 2 failed" in str(failed.value)


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        pytest.param('password authentication failed for user "u"', "the password is wrong", id="28P01 - the password"),
        pytest.param("fe_sendauth: no password supplied", "the password is wrong", id="no password - the password"),
        pytest.param('role "u" does not exist', "existing user", id="28000, no such role - the user"),
        pytest.param('role "u" is not permitted to log in', "ALTER ROLE", id="28000, no login - the role"),
        pytest.param('no pg_hba.conf entry for host "::1"', "pg_hba.conf", id="28000, pg_hba.conf - its line"),
        pytest.param('database "d" does not exist', "existing database", id="3D000 - the database"),
        pytest.param('permission denied for database "d"', "GRANT CONNECT", id="42501 - the right to connect"),
        pytest.param("sorry, too many clients already", "max_connections", id="53300 - the connections"),
        pytest.param('too many connections for role "u"', "CONNECTION LIMIT", id="53300, of the role - its limit"),
        pytest.param("remaining connection slots are reserved", "max_connections", id="53300, reserved - the slots"),
        pytest.param("the database system is starting up", "until the server is up", id="57P03, starting - wait"),
        pytest.param("the database system is in recovery mode", "until the server is up", id="57P03, crashed - wait"),
        pytest.param("session is read-only", "target_session_attrs", id="no primary among the hosts - the attribute"),
        pytest.param('definition of service "s" not found', "service=", id="no such service - the service"),
        pytest.param("server does not support SSL, but SSL was required", "sslmode", id="no TLS - sslmode"),
        pytest.param("certificate verify failed", "sslrootcert", id="another certificate - sslrootcert"),
        pytest.param("unsupported startup parameter: options", "pooler", id="what a pooler refuses - the pooler"),
        pytest.param("failed to resolve host 'h'", "resolve its name", id="no such host - its name"),
        pytest.param("Connection refused", "that the server runs", id="nobody there - the server"),
        pytest.param("Verbindung abgelehnt", "that the server runs", id="in another language - all of it"),
    ],
)
def test_a_refused_connection_names_what_to_do(said: str, remedy: str) -> None:
    failure = refused(psycopg.OperationalError(f"connection failed: FATAL:  {said}"), "host=h", [])
    assert isinstance(failure, LedgerUnreachable)
    assert said in str(failure)
    assert remedy in failure.remedy


def test_an_encoding_without_a_conversion_is_named() -> None:
    said = "FATAL:  conversion between UTF8 and MULE_INTERNAL is not supported"
    failure = refused(psycopg.OperationalError(said), "host=h", [])
    assert isinstance(failure, LedgerMisencoded)
    assert "ENCODING 'UTF8'" in failure.remedy


@pytest.mark.parametrize(
    ("error", "kind", "remedy"),
    [
        pytest.param(errors.DiskFull, LedgerFault, "Make room", id="53100 - the disk"),
        pytest.param(errors.OutOfMemory, LedgerFault, "memory", id="53200 - the memory"),
        pytest.param(errors.TooManyConnections, LedgerUnreachable, "max_connections", id="53300 - the connections"),
        pytest.param(errors.ConfigurationLimitExceeded, LedgerFault, "ALTER ROLE", id="53400 - the limit"),
        pytest.param(errors.ProgramLimitExceeded, LedgerFault, "Shorten it", id="54000 - the value"),
        pytest.param(errors.AdminShutdown, LedgerUnreachable, "server is up", id="57P01 - the server"),
        pytest.param(errors.CrashShutdown, LedgerUnreachable, "server is up", id="57P02 - the server"),
        pytest.param(errors.CannotConnectNow, LedgerUnreachable, "server is up", id="57P03 - the server"),
        pytest.param(errors.LockNotAvailable, LedgerUnreachable, "pg_locks", id="55P03 - who holds the lock"),
        pytest.param(errors.QueryCanceled, LedgerUnreachable, "--deadline", id="57014 - the time"),
        pytest.param(errors.IdleInTransactionSessionTimeout, LedgerUnreachable, "CPU", id="25P03 - this program"),
        pytest.param(errors.DeadlockDetected, LedgerUnreachable, "again", id="40P01 - again"),
        pytest.param(errors.UntranslatableCharacter, LedgerMisencoded, "UTF8", id="22P05 - the encoding"),
        pytest.param(errors.DataCorrupted, LedgerFault, "REINDEX", id="XX001 - the damage"),
        pytest.param(errors.InsufficientPrivilege, LedgerDenied, "roles.sql", id="42501 - the rights"),
        pytest.param(errors.UniqueViolation, LedgerFault, "server's log", id="23505 - the log"),
        pytest.param(psycopg.OperationalError, LedgerUnreachable, "again", id="a lost connection - again"),
        pytest.param(psycopg.ProgrammingError, LedgerFault, "server's log", id="anything else - the log"),
    ],
)
def test_an_error_of_postgresql_names_what_to_do(error: type[psycopg.Error], kind: type[Any], remedy: str) -> None:
    with pytest.raises(kind) as failed, translated():
        raise error("what the server said\nand more")
    assert str(failed.value).endswith(": what the server said")
    assert remedy in failed.value.remedy
