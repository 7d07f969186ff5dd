"""What stops a run."""

from __future__ import annotations


class Failure(Exception):  # noqa: N818 - it names what happened to the run, not a kind of Python error
    """What stops a run. The message says what happened and what it means; `remedy` says what to do."""

    exit_code = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


class Refusal(Failure):
    """A safety rule stopped the run: nothing was written."""

    exit_code = 3


class SourceFault(Failure):
    """The source did not show a whole, well-formed list: nothing can be concluded from it."""
