"""An embedded PostgreSQL as PostgreSQL comes: what the tests switch off for speed is on again here."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psutil  # type: ignore[import-untyped] # comes with the embedded PostgreSQL, without types

from reconciler.db.connection import connect
from reconciler.demo import postgres as embedded

if TYPE_CHECKING:
    from collections.abc import Iterator


AFTERMATH = 0.05
"""Seconds after which the CPU time of a server process that has ended is known."""


@contextmanager
def durable() -> Iterator[str]:
    """Run a PostgreSQL with its default settings, and yield the URL of its `postgres` database.

    It is reached by TCP, as a ledger is: over loopback, the shortest way that there can be.
    """
    port = _free_port()
    address = ("listen_addresses=127.0.0.1", f"port={port}")
    with embedded.server(None, "fsync=on", "full_page_writes=on", *address):
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres"


def database(url: str, name: str) -> str:
    """Return the URL of another database of the server."""
    return urlsplit(url)._replace(path=f"/{name}").geturl()


def postmaster(url: str) -> int:
    """Return the id of the server's first process."""
    return int((_data(url) / "postmaster.pid").read_text().split()[0])


def cpu_seconds(postmaster: int) -> float:
    """Return the CPU time that all processes of the server have used, those that have ended among them."""
    server = psutil.Process(postmaster)
    ended = server.cpu_times()
    seconds = ended.user + ended.system + ended.children_user + ended.children_system
    for process in server.children():
        try:
            used = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        seconds += used.user + used.system
    return float(seconds)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _data(url: str) -> Path:
    with connect(url) as connection:
        ((folder,),) = connection.execute("SHOW data_directory").fetchall()
    return Path(folder)
