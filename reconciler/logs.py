"""Structured logs on standard error: JSON for programs, colours for a terminal."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import structlog
from structlog.tracebacks import ExceptionDictTransformer

if TYPE_CHECKING:
    from structlog.typing import Processor


def configure(level: int = logging.INFO) -> None:
    """Set up structlog: dotted event names, facts as fields, times in UTC."""
    # never a frame's local variables: they include the database's password and the cluster's token
    if sys.stderr.isatty():
        plain = structlog.dev.RichTracebackFormatter(show_locals=False)
        renderers: list[Processor] = [structlog.dev.ConsoleRenderer(exception_formatter=plain)]
    else:
        tracebacks = ExceptionDictTransformer(show_locals=False)
        renderers = [structlog.processors.ExceptionRenderer(tracebacks), structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    # `serve` logs its events; without a handler Python would print its messages as bare text
    logging.getLogger("apscheduler").addHandler(logging.NullHandler())
