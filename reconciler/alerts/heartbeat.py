"""A heartbeat in the manner of healthchecks.io: it raises the alarm where passes fail, hang, or are not made at all.

See https://healthchecks.io/docs/http_api/: the address as it is means success, `/start` and `/fail` what they say, and
`rid` pairs the beginning of a pass with its end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from reconciler.alerts.http import ATTEMPTS, Endpoint
from reconciler.views.findings import summary

if TYPE_CHECKING:
    from uuid import UUID

    from reconciler.core.model import Outcome


class Heartbeat:
    """Tells a monitor that a pass begins, and how it ended. Drift is a success: the job did what it is for.

    Args:
        url: the address to ping, which is a secret.

    Raises:
        WrongAddress: it is none.
    """

    name: ClassVar[str] = "heartbeat"
    deduplicates: ClassVar[bool] = True

    def __init__(self, url: str) -> None:
        self._endpoint = Endpoint.at(url, "heartbeat")

    def begin(self, run_id: UUID) -> None:
        """Say that a pass begins, trying once.

        Raises:
            Undelivered: it could not be said.
        """
        self._ping("/start", run_id, attempts=1)

    def tell(self, outcome: Outcome) -> None:
        """Say how a pass ended, with its summary or with what stopped it.

        Raises:
            Undelivered: it could not be said.
        """
        if failure := outcome.failure:
            self._ping("/fail", outcome.run_id, f"{failure}\n{failure.remedy}".strip())
        else:
            self._ping("", outcome.run_id, summary(outcome))

    def _ping(self, path: str, run_id: UUID, said: str = "", attempts: int = ATTEMPTS) -> None:
        self._endpoint.send(
            "POST", path, query=[("rid", str(run_id))], body=said.encode(errors="backslashreplace"), attempts=attempts
        )
