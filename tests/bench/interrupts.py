"""Interrupt `reconciler demo` at random moments, on a busy machine, and count what it leaves behind.

    python tests/bench/interrupts.py --rounds 100

Each round starts a demo with a TMPDIR of its own, sends SIGINT, SIGTERM or SIGKILL to its process group at a random
moment, and waits for every process that works in that folder to end and for the folder to be empty. The exit code is 1
if something was left.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

DEMO = [sys.executable, "-m", "reconciler", "demo"]
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
BUSY = [sys.executable, "-c", "while True: pass"]


@click.command()
@click.option("--rounds", default=100, show_default=True, help="How many demos to interrupt.")
@click.option("--busy", default=3, show_default=True, help="How many processes keep the machine busy meanwhile.")
@click.option("--within", type=float, help="Latest moment, in seconds after the start; default: a whole demo's time.")
@click.option("--seed", default=0, show_default=True, help="Chooses the moments.")
@click.option("--patience", default=60.0, show_default=True, help="Seconds to wait for what SIGKILL leaves to end.")
def main(rounds: int, busy: int, within: float | None, seed: int, patience: float) -> None:
    """Interrupt the demo, and count what is left behind."""
    # a shell's background job ignores SIGINT, and so would every demo that it starts
    signal.signal(signal.SIGINT, signal.default_int_handler)
    choose = random.Random(seed)  # noqa: S311 - it chooses moments
    left: Counter[str] = Counter()
    ended: Counter[str] = Counter()
    slowest = 0.0
    with _load(busy):
        within = within or _time_of_a_demo()
        click.echo(f"Interrupting {rounds} demos within {within:.1f} s of their start, beside {busy} busy processes.")
        for number in range(rounds):
            signum = SIGNALS[number % len(SIGNALS)]
            moment = choose.uniform(0, within)
            with _folder() as folder:
                code, stage = _interrupted(folder, signum, moment)
                ended[f"{signum.name:<8} {stage}"] += 1
                began = time.monotonic()
                # what the demo unwinds itself must be gone when it ends; after SIGKILL, soon
                remains = _remains(folder, patience if signum is signal.SIGKILL or code < 0 else 0)
                slowest = max(slowest, time.monotonic() - began)
                if remains:
                    left[signum.name] += 1
                    click.echo(f"round {number}: {signum.name} after {moment:.2f} s (exit code {code}): {remains}")
    for name, count in sorted(ended.items()):
        click.echo(f"{count:5} {name}")
    click.echo(
        f"Left something behind: {left.total()} of {rounds} {dict(left) or ''}; cleaning up: {slowest:.1f} s at most."
    )
    sys.exit(bool(left))


@contextlib.contextmanager
def _load(processes: int) -> Iterator[None]:
    started = [subprocess.Popen(BUSY) for _ in range(processes)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """Make a folder short enough for a socket's path, and open to the user that root runs the server as."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="i", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o1777)
        yield Path(folder)


def _time_of_a_demo() -> float:
    began = time.monotonic()
    subprocess.run(DEMO, check=True, capture_output=True)
    return time.monotonic() - began


def _interrupted(folder: Path, signum: signal.Signals, moment: float) -> tuple[int, str]:
    """Start a demo, interrupt it, and return its exit code and how far it had come."""
    demo = subprocess.Popen(
        DEMO,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"TMPDIR": str(folder)},
        start_new_session=True,
    )
    time.sleep(moment)
    stage = _stage(folder)
    # the demo may have ended by itself
    with contextlib.suppress(ProcessLookupError):
        os.killpg(demo.pid, signum)
    demo.communicate()
    return demo.returncode, stage


def _stage(folder: Path) -> str:
    found = list(folder.glob("reconciler-*"))
    if not found:
        return "before or after its server"
    lock_file = found[0] / "data" / "postmaster.pid"
    try:
        return "while it runs" if "ready" in lock_file.read_text() else "while the server starts"
    except OSError:
        return "while the server is made"


def _remains(folder: Path, patience: float) -> list[str]:
    """Return the files and processes that are left in a folder after `patience` seconds."""
    until = time.monotonic() + patience
    while True:
        found = [*(path.name for path in folder.iterdir()), *_processes(folder)]
        if not found or time.monotonic() >= until:
            return found
        time.sleep(0.05)


def _processes(folder: Path) -> list[str]:
    """Return the command lines of the processes that work in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(folder) in line or str((process / "cwd").readlink()).startswith(str(folder)):
                found.append(line or "(ended)")
    return found


if __name__ == "__main__":
    main()
