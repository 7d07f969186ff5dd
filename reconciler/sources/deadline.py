"""How long a run may still take."""

from __future__ import annotations

import time
from dataclasses import dataclass

from reconciler.model import Failure


class DeadlineExceeded(Failure):
    """The run's time is over."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """The instant by which a run must end, on the monotonic clock.

    Attributes:
        seconds: what the run was given.
        ends: when it ends, in seconds of `time.monotonic`.
    """

    seconds: float
    ends: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Start a deadline that ends `seconds` from now."""
        return cls(seconds, time.monotonic() + seconds)

    def left(self) -> float:
        """Return the seconds that are left.

        Raises:
            DeadlineExceeded: none are.
        """
        left = self.ends - time.monotonic()
        if left <= 0:
            raise self.exceeded()
        return left

    def exceeded(self) -> DeadlineExceeded:
        """Return the failure that says so."""
        return DeadlineExceeded(
            f"The run did not end within its deadline of {self.seconds:g} s; nothing was written.",
            "See in the log what was slow. Where the cluster or the ledger has grown, give --deadline more.",
        )
