"""Secrets that are planted wherever one can be, and the look for them in everything that comes out.

A test of the faults plants them all, see `tests/faults/conftest.py`. What it prints, logs, stores, sends and shows in
the list of processes is looked at, and so is every output for a traceback.
"""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

MARK: Final = "kanarie"
"""What every planted secret contains."""
PROXY: Final = f"http://me:{MARK}-proxy@127.0.0.1:1"
"""Nobody listens there."""
ENCODED: Final = tuple(
    b64encode(b"-" * before + MARK.encode()).decode()[-(-8 * before // 6) : 8 * (before + len(MARK)) // 6]
    for before in range(3)
)
"""It in base64, as a header of HTTP has it: one for each place within a group of three bytes."""
TRACEBACK: Final = "Traceback (most recent call last)"


def environment(receiver: str) -> Mapping[str, str]:
    """Return variables that hold secrets, whose alerts all go to one receiver, given as host and port."""
    return {
        "HTTP_PROXY": PROXY,
        "HTTPS_PROXY": PROXY,
        "NO_PROXY": "127.0.0.1",
        "RECONCILER_HEARTBEAT_URL": f"http://me:{MARK}-heartbeat@{receiver}/{MARK}-ping?key={MARK}-key",
        "RECONCILER_ALERTMANAGER": f"http://me:{MARK}-alertmanager@{receiver}/{MARK}-prefix",
        "RECONCILER_PUSHGATEWAY": f"http://me:{MARK}-pushgateway@{receiver}",
        "RECONCILER_NOTIFY_URLS": f"json://me:{MARK}-apprise@{receiver}/{MARK}-hook?+X-Key={MARK}-header",
        "RECONCILER_EVENTS": "false",
    }


def with_password(url: str) -> str:
    """Return the address of a ledger with a planted password, which a server that trusts everybody does not ask for."""
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user.partition(':')[0]}:{MARK}-password@{host}").geturl()


def found_in(text: str) -> list[str]:
    """Return what must not be in an output: the lines with a planted secret or a traceback."""
    wrong = (*ENCODED, TRACEBACK)
    return [line for line in text.splitlines() if MARK in line.lower() or any(word in line for word in wrong)]


def look_at(*texts: object) -> None:
    """Fail the test if there is a planted secret or a traceback in an output."""
    found = [line for text in texts for line in found_in(str(text))]
    assert not found, f"an output holds a planted secret, or a traceback: {found}"
