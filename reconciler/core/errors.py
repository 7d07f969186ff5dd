"""What stops a run."""

from __future__ import annotations

import os
from traceback import walk_tb

MAX_TRAIL = 30
"""Places of a trail: a recursion without an end has a thousand."""


class Failure(Exception):  # noqa: N818 - it names what happened to the run, not a kind of Python error
    """What stops a run. The message says what happened and what it means; `remedy` says what to do."""

    exit_code = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(_storable(message))
        self.remedy = _storable(remedy)


def _storable(text: str) -> str:
    """Return text that UTF-8 and PostgreSQL can hold: what is quoted may be no text, as a path of the command line."""
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\x00")


class Refusal(Failure):
    """A safety rule stopped the run: nothing was written."""

    exit_code = 3


class SourceFault(Failure):
    """The source did not show a whole, well-formed list: nothing can be concluded from it."""


class Unforeseen(Failure):
    """An exception that is not a failure: a fault of the reconciler, or of a library that it uses."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(
            f"An error that nobody foresaw stopped it: {describe(error)}.",
            "This is a bug: report it with this message and the output of `reconciler --version`. A run writes all of "
            "its rows or none, and `reconciler status` shows the last ones.",
        )
        self.trail = trail(error)


def as_failure(error: Exception) -> Failure:
    """Return a failure as it is, and every other exception as `Unforeseen`."""
    return error if isinstance(error, Failure) else Unforeseen(error)


def describe(error: BaseException) -> str:
    """Return what an exception is and where it comes from, in our code and in all.

    Its own text is left out, as it may quote anything: a token, a password, the address of a webhook. What has only
    fixed texts is shown: the system's numbers of errors.
    """
    number = error.errno if isinstance(error, OSError) else None
    reason = f" ({os.strerror(number)})" if isinstance(number, int) else ""
    places = trail(error)
    ours = [place for place in places if place.startswith("reconciler.")]
    where = dict.fromkeys((*ours[-1:], *places[-1:]))
    return f"{type(error).__name__}{reason}" + (f" at {', from '.join(where)}" if where else "")


def trail(error: BaseException) -> tuple[str, ...]:
    """Return the last modules and lines that an exception passed through: a traceback without texts."""
    passed = [f"{frame.f_globals.get('__name__')}:{line}" for frame, line in walk_tb(error.__traceback__)]
    return tuple(passed[-MAX_TRAIL:])
