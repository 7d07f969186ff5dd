"""Run programs such as Prometheus, and wait for what they do."""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
import urllib3

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE = 30.0
"""Seconds within which everything that a test waits for must happen, on a busy machine."""


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skip the test if one of the programs is not installed."""
    missing = [program for program in programs if not shutil.which(program)]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


def free_address() -> str:
    """Return host and port of an address where nobody listens.

    It lies below the ports that a kernel gives out by itself, which somebody else may get before it is used.
    """
    while True:
        port = random.randrange(20_000, 32_000)  # noqa: S311 - not a secret
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return f"127.0.0.1:{port}"


def get(url: str, **parameters: Any) -> bytes:
    """Return the body of a response; 401 counts as a response."""
    with urllib3.PoolManager() as pool:
        answer = pool.request("GET", url, fields=parameters, timeout=5, retries=False)
    assert answer.status in {200, 401}, answer.data
    return answer.data


def eventually(check: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Return the first true result of the check; one that raises is repeated, too."""
    ends = time.monotonic() + seconds
    while True:
        try:
            result = check()
        except (urllib3.exceptions.HTTPError, AssertionError):
            result = None
        if result:
            return result
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.05)


def settled(check: Callable[[], Any], wanted: object) -> object:
    """Return the result of the check once it is the wanted one, or the last result after `PATIENCE`."""
    ends = time.monotonic() + PATIENCE
    while (result := check()) != wanted and time.monotonic() < ends:
        time.sleep(0.1)
    return result


@contextmanager
def running(ready: str, *command: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the block ends, which begins when the address `ready` answers."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: get(ready))
        yield process
    finally:
        process.kill()
        process.wait(PATIENCE)
