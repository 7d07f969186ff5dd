"""What is logged: an exception by its kind and place, and nothing of what libraries say."""

from __future__ import annotations

import subprocess
import sys

import pytest
import structlog
from structlog.testing import capture_logs

from reconciler.core.errors import MAX_TRAIL, Failure, Unforeseen, as_failure, describe
from reconciler.logs import without_foreign_text


def throw(error: Exception) -> None:
    raise error


def raised(error: Exception) -> Exception:
    """Return an exception that was raised here."""
    try:
        throw(error)
    except Exception as caught:  # noqa: BLE001 - of any kind
        return caught
    raise AssertionError


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (ValueError("hush"), "ValueError at "),
        (OSError(28, "hush"), "OSError (No space left on device) at "),
        (OSError("hush"), "OSError at "),
        (KeyError("hush"), "KeyError at "),
        (UnicodeDecodeError("utf-8", b"hush", 0, 1, "hush"), "UnicodeDecodeError at "),
    ],
)
def test_an_exception_is_described_by_its_kind_and_place(error: Exception, shown: str) -> None:
    failure = as_failure(raised(error))
    assert isinstance(failure, Unforeseen)
    assert f"{shown}{__name__}:" in str(failure)
    assert "hush" not in f"{failure} {failure.remedy} {failure.trail}"


def test_a_failure_stays_what_it_is() -> None:
    failure = Failure("known")
    assert as_failure(failure) is failure


def test_an_exception_that_was_never_raised_has_no_place() -> None:
    assert describe(ValueError("hush")) == "ValueError"


def test_an_endless_recursion_leaves_a_short_trail() -> None:
    def recurse() -> None:
        recurse()

    with pytest.raises(RecursionError) as caught:
        recurse()
    assert len(Unforeseen(caught.value).trail) == MAX_TRAIL


@pytest.mark.parametrize("text", ["a\udcffb", "a\0b"])
def test_the_text_of_a_failure_can_be_stored_and_printed(text: str) -> None:
    failure = Failure(text, text)
    for shown in (str(failure), failure.remedy):
        assert "\0" not in shown
        shown.encode()


def test_an_exception_in_the_log_loses_its_text() -> None:
    with capture_logs([without_foreign_text]) as logged:
        try:
            throw(ValueError("hush"))
        except ValueError:
            structlog.get_logger().exception("it.crashed")
        structlog.get_logger().error("it.crashed", exc_info=raised(ValueError("hush")))
        structlog.get_logger().error("it.crashed", exc_info=False)
    assert [line.get("exception", "")[:10] for line in logged] == ["ValueError", "ValueError", ""]
    assert "hush" not in str(logged)


def test_libraries_print_nothing_on_standard_error() -> None:
    """As the official client does, which logs the output of a credential plugin."""
    script = (
        "import logging; from reconciler import logs; logs.configure(); "
        "logging.error('hush'); logging.getLogger('urllib3').warning('hush'); logging.getLogger('x').critical('hush')"
    )
    ran = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert (ran.stdout, ran.stderr) == ("", "")
