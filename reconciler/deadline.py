"""How long a run may still take."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from reconciler.core.errors import Failure

if TYPE_CHECKING:
    from collections.abc import Callable

_Result = TypeVar("_Result")


class DeadlineExceeded(Failure):
    """The run did not end within its `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"The run did not end within its deadline of {seconds:g} s; nothing was written.",
            "The log shows what was slow. If the cluster or the ledger has grown, raise --deadline.",
        )
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class Deadline:
    """The instant by which a run must end, after the seconds that it was given."""

    seconds: float
    ends: float
    """In seconds of `time.monotonic`."""

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Start a deadline that ends `seconds` from now."""
        return cls(seconds, time.monotonic() + seconds)

    def left(self) -> float:
        """Return the seconds that are left; raise DeadlineExceeded if there are none."""
        left = self.ends - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded(self.seconds)
        return left

    def start(self, call: Callable[[], _Result]) -> Callable[[], _Result]:
        """Call in a separate thread, which is abandoned when the time is over: no socket timeout bounds every wait.

        The returned function waits for the result, and raises DeadlineExceeded if it is not there in time.
        """
        done: Future[_Result] = Future()

        def work() -> None:
            try:
                done.set_result(call())
            except BaseException as error:  # noqa: BLE001 - raised again in the waiting thread
                done.set_exception(error)

        def result() -> _Result:
            # a result that arrived in time counts, however late it is fetched
            wait([done], timeout=max(0.0, self.ends - time.monotonic()))
            if not done.done():
                raise DeadlineExceeded(self.seconds)
            return done.result()

        threading.Thread(target=work, name="bounded", daemon=True).start()
        return result

    def bound(self, call: Callable[[], _Result]) -> _Result:
        """Call, and wait until the deadline at most; raise DeadlineExceeded then."""
        return self.start(call)()
