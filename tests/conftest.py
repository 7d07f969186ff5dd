"""A real PostgreSQL for every test that needs one: one server a run, one database without rows a test.

`TEST_DATABASE_URL` names a server to use (as a superuser), else an embedded one is started; `TEST_POSTGRES_VERSION`
chooses its version. `TEST_CITUS_URL` names the coordinator of a Citus cluster: each ledger is distributed there. The
server is shared by all pytest-xdist workers.
"""

from __future__ import annotations

import gc
import os
import subprocess
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
import stamina
import structlog
from hypothesis import HealthCheck, settings
from psycopg import sql

from reconciler.core.errors import Failure
from reconciler.db import connection as database
from reconciler.db import queries
from reconciler.db.migrate import migrate
from reconciler.demo import postgres as embedded
from tests.support import citus, postgres_versions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest_plugins = ["tests.support.fixtures", "tests.support.system", "tests.support.world"]

# how long an example takes says how busy the machine is; examples may share a database
settings.register_profile(
    "tests", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("tests")

_POSTGRES_URL = pytest.StashKey[str]()
_TEMPLATE = pytest.StashKey[str]()


_MEMORY = "/dev/shm"  # noqa: S108 - the server's folder in it is private
_MEMORY_BYTES = 4 * 2**30
"""What the databases, and the log that PostgreSQL keeps of a gigabyte of changes, may take at most."""


class Psql(Protocol):
    """Runs an SQL script of the repository with psql."""

    def __call__(self, url: str, script: str, /, **variables: str) -> str:
        """Return what psql said on standard error."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses the server, so that it can be run alone on another one."""
    for item in items:
        if "postgres_url" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.sql)
        if citus.URL and (reason := citus.CANNOT.get(item.name, citus.CANNOT.get(getattr(item, "originalname", "")))):
            item.add_marker(pytest.mark.skip(reason=f"on Citus {reason}"))
        if not citus.URL and item.get_closest_marker("citus"):
            item.add_marker(pytest.mark.skip(reason="TEST_CITUS_URL names no coordinator"))


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what lives until the end: modules and collected tests."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """Return two workers a core: most tests wait for the server, for another process or for a time limit."""
    return None if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ else 2 * (os.cpu_count() or 1)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Start the server in the controller, before its first worker."""
    node.workerinput["postgres_url"] = _start(node.config)
    node.workerinput["template"] = node.config.stash[_TEMPLATE]


def _start(config: pytest.Config) -> str:
    if _POSTGRES_URL not in config.stash:
        stack = ExitStack()
        config.add_cleanup(stack.close)
        url = citus.URL or os.environ.get("TEST_DATABASE_URL")
        if url is None:
            installed = _installed(os.environ.get("TEST_POSTGRES_VERSION"))
            url = stack.enter_context(embedded.server(installed=installed, base=_memory()))
        config.stash[_POSTGRES_URL] = url
        config.stash[_TEMPLATE] = f"template_{uuid4().hex}"
        stack.callback(citus.on_every_node, url, "DROP DATABASE IF EXISTS {} WITH (FORCE)", config.stash[_TEMPLATE])
    return config.stash[_POSTGRES_URL]


def _memory() -> str:
    """Return a folder in memory for the server's files, if there is one with room; empty is the disk.

    Each test makes, truncates and drops hundreds of files, which costs less there than on a disk.
    """
    try:
        found = os.statvfs(_MEMORY)
    except OSError:
        return ""
    # root's copy of the programs would lie there, too
    is_fit = found.f_bavail * found.f_frsize >= _MEMORY_BYTES and not found.f_flag & getattr(os, "ST_NOEXEC", 0)
    return _MEMORY if is_fit else ""


def _installed(version: str | None) -> Path | None:
    """Return the installation of the version that is asked for; None is the package's own choice."""
    try:
        return postgres_versions.installation(int(version)) if version else None
    except Failure as failure:
        pytest.exit(f"{failure} {failure.remedy}", returncode=pytest.ExitCode.USAGE_ERROR)


def _execute(url: str, statement: str, *names: str) -> None:
    with database.connect(url) as connection:
        connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def _named(url: str, name: str) -> str:
    return urlsplit(url)._replace(path=f"/{name}").geturl()


@contextmanager
def _fresh(postgres_url: str, template: str) -> Iterator[str]:
    name = f"test_{uuid4().hex}"
    citus.on_every_node(postgres_url, "CREATE DATABASE {} TEMPLATE {}", name, template)
    try:
        yield _named(postgres_url, name)
    finally:
        citus.on_every_node(postgres_url, "DROP DATABASE {} WITH (FORCE)", name)


@pytest.fixture(autouse=True)
def _nothing_global_is_left() -> Iterator[None]:
    """What a test does to logs and retries ends with it: the next one's requests would be repeated without waiting."""
    yield
    structlog.reset_defaults()
    retries_are_real = not stamina.is_testing()
    stamina.set_testing(testing=False)
    assert retries_are_real, "the test left stamina in its testing mode: use set_testing in a with statement"


@pytest.fixture(scope="session")
def postgres_url(pytestconfig: pytest.Config) -> str:
    """The server's maintenance database, as its superuser."""
    workerinput: dict[str, str] | None = getattr(pytestconfig, "workerinput", None)
    return workerinput["postgres_url"] if workerinput else _start(pytestconfig)


@pytest.fixture(scope="session")
def template(pytestconfig: pytest.Config, postgres_url: str, psql: Psql) -> str:
    """The name of the migrated database that the others are copies of: made once, by the first worker that asks."""
    workerinput: dict[str, str] | None = getattr(pytestconfig, "workerinput", None)
    name = workerinput["template"] if workerinput else pytestconfig.stash[_TEMPLATE]
    with database.connect(postgres_url) as connection:
        connection.execute("SELECT pg_advisory_lock(hashtextextended('template', 0))")
        # that nobody may connect to it says that it is finished; and it lets any number of workers copy it at once
        if not connection.execute("SELECT FROM pg_database WHERE datname = %s AND NOT datallowconn", [name]).fetchall():
            citus.on_every_node(postgres_url, "CREATE DATABASE {}", name)
            with database.connect(_named(postgres_url, name)) as fresh:
                migrate(fresh)
            if citus.URL:
                citus.distribute(_named(postgres_url, name), psql)
            citus.on_every_node(postgres_url, "ALTER DATABASE {} ALLOW_CONNECTIONS false", name)
            if citus.URL:
                citus.leave(postgres_url, name)
    return name


# All that a test may have changed but rows: of some catalogs the number and the newest version of the database's own
# entries, whether ANALYZE has been run, relations, schemas and the database's settings. TRUNCATE changes none of it.
_VERSIONS = ", ".join(
    f"(SELECT concat(count(*), ' ', max(xmin::text::bigint)) FROM pg_{catalog} WHERE oid >= 16384)"  # noqa: S608
    for catalog in ("attrdef", "constraint", "extension", "policy", "proc", "rewrite", "trigger")
)
_SHAPE = f"""
    SELECT ARRAY[{_VERSIONS},
        (SELECT count(*)::text FROM pg_statistic WHERE starelid >= 16384),
        (SELECT md5(string_agg(concat(c.oid, relname, relkind, relowner, relacl, reloptions, relrowsecurity, indisvalid,
                                      (SELECT concat(count(*), ' ', max(a.xmin::text::bigint)) FROM pg_attribute a
                                       WHERE attrelid = c.oid)), ',' ORDER BY c.oid))
         FROM pg_class c LEFT JOIN pg_index ON indexrelid = c.oid
         WHERE relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN ('public', 'reconciler'))),
        (SELECT string_agg(concat(nspname, nspacl), ',' ORDER BY oid) FROM pg_namespace WHERE nspname !~ '^pg_'),
        (SELECT string_agg(setconfig::text, ',') FROM pg_db_role_setting
         WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()))]
"""  # noqa: S608 - of the catalogs above
_WITH_ROWS = """
    SELECT string_agg(oid::regclass::text, ', '), coalesce(sum(pg_relation_size(oid)), 0)::bigint
    FROM pg_class
    WHERE relkind = 'r' AND relnamespace IN ('public'::regnamespace, 'reconciler'::regnamespace)
      AND pg_relation_size(oid) > 0 AND oid <> 'reconciler.migrations'::regclass
"""
_MAX_BYTES = 4_000_000
"""Of rows in a database that is used again."""


class _Databases:
    """The migrated databases of one worker, each used again as long as tests leave nothing but rows in it."""

    def __init__(self, postgres_url: str, template: str) -> None:
        self._postgres_url, self._template = postgres_url, template
        self._free: list[str] = []
        self._shape: tuple[Any, ...] | None = None

    def take(self) -> str:
        """Return the URL of a migrated database without rows."""
        if self._free:
            return self._free.pop()
        name = f"test_{uuid4().hex}"
        citus.on_every_node(self._postgres_url, "CREATE DATABASE {} TEMPLATE {}", name, self._template)
        url = _named(self._postgres_url, name)
        if self._shape is None:
            with database.connect(url) as connection:
                self._shape = connection.execute(_SHAPE).fetchone()
        return url

    def give_back(self, url: str) -> None:
        """Empty the database for the next test, or drop it if more than rows is left in it."""
        if self._is_emptied(url):
            self._free.append(url)
        else:
            self._drop(url)

    def close(self) -> None:
        """Drop them all."""
        for url in self._free:
            self._drop(url)

    def _is_emptied(self, url: str) -> bool:
        try:
            with database.connect(url) as connection:
                connection.execute(
                    # what the view pg_stat_activity reads, without what it looks up besides: this follows each test
                    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_get_activity(NULL) "
                    "WHERE datid = (SELECT oid FROM pg_database WHERE datname = current_database()) "
                    "AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
                )
                if connection.execute(_SHAPE).fetchone() != self._shape:
                    return False
                ((tables, size),) = connection.execute(_WITH_ROWS).fetchall()
                if size > _MAX_BYTES:
                    return False
                if citus.URL:
                    tables = ", ".join([*filter(None, [tables]), *citus.DISTRIBUTED])
                connection.execute(f"TRUNCATE {tables} RESTART IDENTITY CASCADE".encode())
                connection.execute("INSERT INTO platform_pricing (id) VALUES (1)")
        except (psycopg.Error, Failure):
            return False
        return True

    def _drop(self, url: str) -> None:
        name = urlsplit(url).path.removeprefix("/")
        citus.on_every_node(self._postgres_url, "DROP DATABASE IF EXISTS {} WITH (FORCE)", name)


@pytest.fixture(scope="session")
def _databases(postgres_url: str, template: str) -> Iterator[_Databases]:
    databases = _Databases(postgres_url, template)
    yield databases
    databases.close()


@pytest.fixture
def ledger_url(_databases: _Databases) -> Iterator[str]:
    """A migrated database without rows."""
    url = _databases.take()
    yield url
    _databases.give_back(url)


@pytest.fixture
def empty_url(postgres_url: str) -> Iterator[str]:
    """A fresh database without tables."""
    with _fresh(postgres_url, "template1") as url:
        yield url


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[psycopg.Connection[Any]]:
    """An open autocommit connection to `ledger_url`."""
    with database.connect(ledger_url) as connection:
        yield connection


@pytest.fixture(scope="session")
def psql() -> Psql:
    """Runs a script of sql/ with the embedded package's psql."""
    program = embedded.installation() / "bin" / "psql"

    def run(url: str, script: str, /, **variables: str) -> str:
        options = [f"--set={name}={value}" for name, value in variables.items()]
        return subprocess.run(
            [program, "--no-psqlrc", "--quiet", *options, "--dbname", url, "--file", str(queries.folder() / script)],
            check=True,
            capture_output=True,
            text=True,
        ).stderr

    return run


@pytest.fixture
def role_url(ledger_url: str, psql: Psql) -> Iterator[str]:
    """`ledger_url` for a login role with no more rights than sql/roles.sql gives."""
    name = password = f"role_{uuid4().hex}"
    with database.connect(ledger_url) as owner:
        owner.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(name), sql.Literal(password)))
    psql(ledger_url, "roles.sql", role=name)
    parts = urlsplit(ledger_url)
    yield parts._replace(netloc=f"{name}:{password}@{parts.netloc.rpartition('@')[2]}").geturl()
    with database.connect(ledger_url) as owner:
        owner.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(name)))
