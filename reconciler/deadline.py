"""How long a run may still take."""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from reconciler.core.errors import Failure

if TYPE_CHECKING:
    from collections.abc import Callable

_Result = TypeVar("_Result")


class DeadlineExceeded(Failure):
    """The run did not end in time.

    Attributes:
        seconds: the time that it was given.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"The run did not end within its deadline of {seconds:g} s; nothing was written.",
            "The log shows what was slow. If the cluster or the ledger has grown, raise --deadline.",
        )
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class Deadline:
    """The instant by which a run must end, on the monotonic clock.

    Attributes:
        seconds: the time that the run was given.
        ends: its end, in seconds of `time.monotonic`.
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
            DeadlineExceeded: the time is over.
        """
        left = self.ends - time.monotonic()
        if left <= 0:
            raise self.exceeded()
        return left

    def start(self, call: Callable[[], _Result]) -> Callable[[], _Result]:
        """Call in a separate thread, which is abandoned when the time is over: no socket timeout bounds every wait.

        Returns:
            A function that waits for the result, and raises DeadlineExceeded if it is not there in time.
        """
        done: queue.SimpleQueue[tuple[_Result | None, BaseException | None]] = queue.SimpleQueue()

        def work() -> None:
            try:
                done.put((call(), None))
            except BaseException as error:  # noqa: BLE001 - raised again in the waiting thread
                done.put((None, error))

        def result() -> _Result:
            try:
                # a result that arrived in time counts, however late it is fetched
                value, error = done.get(timeout=max(0.0, self.ends - time.monotonic()))
            except queue.Empty:
                raise self.exceeded() from None
            if error is not None:
                raise error
            return value  # type: ignore[return-value] # no error: there is a value

        threading.Thread(target=work, name="bounded", daemon=True).start()
        return result

    def bound(self, call: Callable[[], _Result]) -> _Result:
        """Call, and wait until the deadline at most.

        Raises:
            DeadlineExceeded: it did not return in time.
        """
        return self.start(call)()

    def exceeded(self) -> DeadlineExceeded:
        """Return the failure of a run that did not end in time."""
        return DeadlineExceeded(self.seconds)
