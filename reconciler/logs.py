"""Structured logs on standard error: JSON for programs, colours for a terminal."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO, cast

import structlog

from reconciler.core.errors import describe, trail

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor

_SILENT = logging.NullHandler()


def configure(level: int = logging.INFO) -> None:
    """Set up structlog: dotted event names, facts as fields, times in UTC."""
    renderer: Processor = structlog.processors.JSONRenderer()
    if is_terminal():
        renderer = structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            without_foreign_text,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _StandardError())),
        cache_logger_on_first_use=False,
    )
    # What a library warns of may quote a token, and without a handler Python prints it as bare text. What matters of it
    # comes as an exception, or as an event that `serve` logs.
    logging.getLogger().addHandler(_SILENT)


def without_foreign_text(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Replace an exception by what it is and where it was: its text may quote a secret, as may a frame's variables."""
    given = event.pop("exc_info", None)
    error = given if isinstance(given, BaseException) else sys.exc_info()[1] if given else None
    if error:
        event.update(exception=describe(error), trail=trail(error))
    return event


def is_terminal() -> bool:
    """Return whether a person reads standard error on a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


class _StandardError:
    """Standard error as it is now, where it can be written: a log line that is lost stops no run."""

    def write(self, text: str) -> None:
        """Write what can be written."""
        with suppress(OSError, ValueError):
            sys.stderr.write(text)

    def flush(self) -> None:
        """Write what was held back."""
        with suppress(OSError, ValueError):
            sys.stderr.flush()
