"""SIGTERM ends a run in order, wherever it strikes."""

from __future__ import annotations

import io
import signal
import time
from typing import TYPE_CHECKING

import pytest

from reconciler.cli.run import RAISED_AGAIN_SECONDS, Terminated, terminated_in_order

if TYPE_CHECKING:
    from collections.abc import Callable

LONG = 10.0


class Answer(io.IOBase):
    """What is signalled while it is closed; Python drops what its finalizer raises."""

    def close(self) -> None:
        if not self.closed:
            super().close()
            signal.raise_signal(signal.SIGTERM)


def wait_after(make: Callable[[], object]) -> None:
    """Make something, let go of it at once, and wait."""
    make()
    time.sleep(LONG)


def test_a_signal_ends_what_is_done() -> None:
    with pytest.raises(Terminated), terminated_in_order():
        signal.raise_signal(signal.SIGTERM)


def test_a_signal_that_a_finalizer_drops_comes_again() -> None:
    began = time.monotonic()
    with pytest.raises(Terminated), terminated_in_order():
        wait_after(Answer)
    assert time.monotonic() - began < LONG


def test_what_was_taken_is_not_raised_again() -> None:
    with terminated_in_order():
        with pytest.raises(Terminated) as taken:
            signal.raise_signal(signal.SIGTERM)
        time.sleep(2 * RAISED_AGAIN_SECONDS)
    assert "SIGTERM" in str(taken.value)


def test_the_handlers_are_as_they_were_before() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGALRM)
    with terminated_in_order():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGALRM)) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
