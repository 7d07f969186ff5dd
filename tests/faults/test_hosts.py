"""Several servers behind one DATABASE_URL: the primary is found, and what is none is named.

Each line of the table names the address and what comes of it: `pytest --collect-only -q` prints it.
"""

# ruff: noqa: SLF001 - it starts PostgreSQL's own commands as the embedded server does

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest

from reconciler.db import connection as database
from reconciler.db.migrate import migrate
from reconciler.demo import postgres as embedded
from tests.support.command import invoke

if TYPE_CHECKING:
    from collections.abc import Iterator

WITHIN: Final = 60
"""Seconds for what takes a moment on an idle machine."""


class Pair(NamedTuple):
    """The folders of the sockets of a primary and of its replica, and of one where no server is."""

    primary: str
    replica: str
    nowhere: str


@contextmanager
def replica_of(url: str) -> Iterator[str]:
    """Run a replica, and yield the folder of its socket."""
    folder, user = Path("/tmp", f"replica-{secrets.token_hex(4)}"), embedded._unprivileged_user()  # noqa: S108
    folder.mkdir(0o700)
    try:
        programs = embedded.installation()
        programs = (embedded._within_reach(programs, folder, user) if user else programs) / "bin"
        primary = parse_qs(urlsplit(url).query)["host"][0]
        copy = ("pg_basebackup", "-h", primary, "-U", "postgres", "-D", str(folder / "data"), "-R", "-c", "fast")
        subprocess.run([str(programs / copy[0]), *copy[1:]], check=True, capture_output=True, cwd=folder, **user)
        serve = [str(programs / "postgres"), "-D", str(folder / "data"), "-k", str(folder), "-c", "listen_addresses="]
        with subprocess.Popen(
            serve, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder, **user
        ) as server:
            try:
                _wait_until_up(str(folder))
                yield str(folder)
            finally:
                server.terminate()
                server.wait(WITHIN)
    finally:
        shutil.rmtree(folder)


def _wait_until_up(folder: str) -> None:
    until = time.monotonic() + WITHIN
    while True:
        try:
            with closing(psycopg.connect(host=folder, user="postgres", dbname="postgres")) as replica:
                assert replica.execute("SELECT pg_is_in_recovery()").fetchall() == [(True,)]
                return
        except psycopg.OperationalError:
            assert time.monotonic() < until
            time.sleep(0.05)


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """A migrated primary with a replica."""
    with embedded.server() as url:
        with closing(database.connect(url)) as ledger:
            migrate(ledger)
        with replica_of(url) as replica:
            yield Pair(parse_qs(urlsplit(url).query)["host"][0], replica, "/tmp/nowhere")  # noqa: S108


@pytest.fixture
def tenants(tmp_path: Path) -> str:
    """A file of one tenant."""
    metadata = {"name": "acme", "uid": "1", "generation": 1, "creationTimestamp": "2026-02-01T00:00:00Z"}
    path = tmp_path / "tenants.json"
    path.write_text(
        json.dumps({"apiVersion": "pieced.ch/v1", "kind": "PiecedTenant", "metadata": metadata, "spec": {}})
    )
    return str(path)


ALL: Final = "host={nowhere},{replica},{primary} user=postgres dbname=postgres"


@pytest.mark.parametrize(
    ("address", "code", "said"),
    [
        pytest.param("host={primary} user=postgres", 0, "", id="the primary - done"),
        pytest.param("host={replica} user=postgres", 1, "not a replica", id="a replica - named"),
        pytest.param("postgresql://postgres@/?host={nowhere},{primary}", 0, "", id="a host that is down first - done"),
        pytest.param(ALL, 1, "target_session_attrs=read-write", id="a replica first of those that are up - named"),
        pytest.param(f"{ALL} target_session_attrs=read-write", 0, "", id="read-write among several - done"),
        pytest.param(f"{ALL} target_session_attrs=primary", 0, "", id="the primary among several - done"),
        pytest.param(
            "host={replica} user=postgres target_session_attrs=read-write",
            *(1, "No server fits target_session_attrs"),
            id="no primary among them - named",
        ),
        pytest.param("service=billing", 0, "", id="a service with several hosts - done"),
    ],
)
def test_run(
    pair: Pair,
    tenants: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    address: str,
    code: int,
    said: str,
) -> None:
    services = tmp_path / "services"
    several = f"{ALL} target_session_attrs=read-write".format(**pair._asdict())
    services.write_text("[billing]\n" + several.replace(" ", "\n") + "\n")
    environment = {"DATABASE_URL": address.format(**pair._asdict()), "PGSERVICEFILE": str(services)}
    ran = invoke(monkeypatch, capsys, "run", "--tenants", tenants, environment=environment)
    assert ran.code == code, ran.err
    if said:
        ended = next(line for line in ran.logged if line["event"] in {"run.ended", "command.failed"})
        assert said in ended["remedy"], ended


@pytest.mark.parametrize("command", [pytest.param(("usage", "--month", "2026-02"), id="usage of a replica - shown")])
def test_read(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    """What only reads needs no primary."""
    environment: dict[str, Any] = {"DATABASE_URL": f"host={pair.replica} user=postgres"}
    ran = invoke(monkeypatch, capsys, *command, environment=environment)
    assert ran.code == 0, ran.err
