"""What a command takes as a process, from its start to its exit.

    python -m tests.bench.metered COMMAND [ARGUMENT …]

runs it and adds a line about it, in JSON, to what it prints. It is a program of its own because a process is charged
with the memory of the one that it was forked from: this one has next to none.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Use(NamedTuple):
    """What a process used."""

    wall: float
    """Seconds."""
    cpu: float
    """Seconds, of all its threads, in user and system mode."""
    peak: int
    """Bytes of memory, at the most."""


class Ended(NamedTuple):
    """A process that ended well."""

    use: Use
    output: list[str]
    log: list[str]


def run(command: Sequence[object], variables: Mapping[str, str]) -> Ended:
    """Run a command to its end.

    Raises:
        RuntimeError: its exit code is not 0; the message is what it said.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.metered", *map(str, command)],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {done.returncode}: {done.stderr}")
    *output, use = done.stdout.splitlines()
    return Ended(Use(**json.loads(use)), output, done.stderr.splitlines())


def _main(command: Sequence[str]) -> int:
    began = time.perf_counter()
    process = os.posix_spawn(command[0], [*command], os.environ)
    _, status, used = os.wait4(process, 0)
    use = Use(time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)
    print(json.dumps(use._asdict()))  # noqa: T201 - its result
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
