"""What a command prints of a run and of a failure, where that can be written, and its exit codes."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

import click
import structlog

from reconciler import logs
from reconciler.core.errors import Failure, Unforeseen, describe
from reconciler.core.model import Mode, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from reconciler.cli.options import OutputSettings
    from reconciler.core.model import Outcome

FAILED = 1
"""Exit code of a command that failed."""
DRIFT = 2
"""Exit code of drift found or corrected, with --detailed-exitcode."""
USAGE = 64
"""Exit code of wrong usage or settings (sysexits.h: EX_USAGE)."""
INTERRUPTED = 130
"""Exit code of a command that was interrupted, as a shell reports SIGINT."""

_log = structlog.get_logger("reconciler")


class Unprinted(Failure):
    """What a command found could not be printed."""

    def __init__(self, error: Exception) -> None:
        super().__init__(
            f"The output could not be printed: {self.reason(error)}. This command has written nothing to the ledger.",
            "Let standard output go where it can be written, and run the command again.",
        )

    @staticmethod
    def reason(error: Exception) -> str:
        """Return why standard output could not be written."""
        return getattr(error, "strerror", None) or "standard output is closed"


def show(outcome: Outcome, settings: OutputSettings) -> int:
    """Print what a run found, log how it ended, and return its exit code."""
    from reconciler.views import findings as report

    stands = _stands(outcome)
    if settings.output == "json":
        say(lambda: report.document(outcome), stands=stands, for_programs=True)
    elif outcome.failure is None or outcome.findings:
        say(lambda: report.printed(outcome), stands=stands)
    log_end(outcome)
    if outcome.failure:
        return outcome.failure.exit_code
    return DRIFT if settings.detailed_exitcode and outcome.result is not Result.CLEAN else 0


def _stands(outcome: Outcome) -> str:
    """Return what is true of a run whether or not it can be printed; nothing of a plan, which is only printed."""
    if outcome.failure:
        return f"Run {outcome.run_id} was {'refused' if outcome.result is Result.BLOCKED else 'stopped'}"
    return f"Run {outcome.run_id} was written" if outcome.mode is Mode.RUN else ""


def say(
    text: str | Iterable[str] | Callable[[], str | Iterable[str]],
    *,
    stands: str = "",
    for_programs: bool = False,
    end: str = "\n",
) -> None:
    """Print on standard output, as a whole or in parts: for people in its encoding, for programs in UTF-8.

    `stands` says what the command has done. That is true whether or not it can be printed: then it is said on standard
    error, and the exit code stays what it is. Without it, the output is all that the command is for.

    Raises:
        Unprinted: it cannot be written.
    """
    for part in _rendered(text, stands, end):
        try:
            _write(sys.stdout, part, for_programs=for_programs)
        except BrokenPipeError:
            # the reader has seen enough, as `head` has
            _discard(sys.stdout)
            if not stands:
                raise click.exceptions.Exit(FAILED) from None
            return
        except (OSError, ValueError) as error:
            _discard(sys.stdout)
            if not stands:
                raise Unprinted(error) from None
            _lose(stands, Unprinted.reason(error))
            return


def _rendered(text: str | Iterable[str] | Callable[[], str | Iterable[str]], stands: str, end: str) -> Iterator[str]:
    """Yield the parts as they are made, and the end; what cannot be made is lost if the command has done its work."""
    try:
        made = text() if callable(text) else text
        yield from [made] if isinstance(made, str) else made
    except Exception as error:
        if not stands:
            raise
        _lose(stands, describe(error))
        return
    yield end


def _lose(stands: str, reason: str) -> None:
    _log.warning("output.lost", error=f"{stands}; its output could not be printed: {reason}.")


def _write(stream: TextIO | None, text: str, *, for_programs: bool) -> None:
    from reconciler.views.terminal import encodable

    if stream is None:
        raise ValueError("standard output is closed")
    if for_programs:
        stream.flush()
        stream.buffer.write(text.encode(errors="backslashreplace"))
        stream.buffer.flush()
    else:
        plain = text if stream.isatty() else click.unstyle(text)
        stream.write(encodable(plain, stream.encoding or "utf-8"))
    stream.flush()


def log_end(outcome: Outcome) -> None:
    """Log how a run ended."""
    from reconciler.views import findings as report

    facts = {"run_id": str(outcome.run_id), "mode": outcome.mode, "outcome": outcome.result}
    if outcome.failure:
        complain(outcome.failure, **facts)
    else:
        _log.info("run.ended", **facts, seconds=round(outcome.seconds, 3), **report.counts(outcome))


def complain(failure: Failure, **facts: str) -> None:
    """Say what stopped the command: in words on a terminal, as a log line elsewhere."""
    trail = failure.trail if isinstance(failure, Unforeseen) else ()
    if not logs.is_terminal():
        more = {"trail": trail} if trail else {}
        _log.error("command.failed", **facts, error=str(failure), remedy=failure.remedy, **more)
        return
    from reconciler.views.terminal import visible

    warn(f"{click.style('Error:', fg='red', bold=True)} {visible(str(failure))}")
    for line in filter(None, (failure.remedy, " > ".join(trail))):
        warn(visible(line))


def warn(text: str) -> None:
    """Say something to a person on standard error, if it can be written."""
    with suppress(OSError, ValueError):
        click.echo(text, err=True)


@contextmanager
def standard_streams() -> Iterator[None]:
    """Let a process begin and end well whatever its standard streams are: closed, full or broken."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # else the next file or connection would be given this number, and what is printed would go there
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - until the process ends
    try:
        yield
    finally:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            try:
                stream.flush()
            except (OSError, ValueError):
                _discard(stream)


def _discard(stream: TextIO | None) -> None:
    """Let go what a stream could not write: Python would try again at the end, and change the exit code."""
    with suppress(OSError, ValueError):
        if stream is not None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
            stream.flush()
