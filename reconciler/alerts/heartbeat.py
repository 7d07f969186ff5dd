"""A heartbeat monitor such as healthchecks.io: it raises the alarm when runs fail, hang or are not started at all.

See https://healthchecks.io/docs/http_api/: the plain address means success, `/start` and `/fail` mean what they say,
and `rid` pairs the start of a run with its end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from reconciler.alerts.http import ATTEMPTS, Endpoint
from reconciler.views.findings import summary

if TYPE_CHECKING:
    from uuid import UUID

    from reconciler.alerts.addresses import Proxies
    from reconciler.core.model import Outcome


class Heartbeat:
    """Pings a monitor when a run begins and when it ends. Drift is a success: the job did its work."""

    name: ClassVar[str] = "heartbeat"
    deduplicates: ClassVar[bool] = True

    def __init__(self, url: str, proxies: Proxies | None = None) -> None:
        self._endpoint = Endpoint.at(url, "heartbeat", proxies)

    def begin(self, run_id: UUID) -> None:
        """Report that a run begins, in a single attempt."""
        self._ping("/start", run_id, attempts=1)

    def notify(self, outcome: Outcome) -> None:
        """Report how a run ended, with its summary or with why it was refused or failed."""
        if failure := outcome.failure:
            self._ping("/fail", outcome.run_id, f"{failure}\n{failure.remedy}".strip())
        else:
            self._ping("", outcome.run_id, summary(outcome))

    def _ping(self, path: str, run_id: UUID, text: str = "", attempts: int = ATTEMPTS) -> None:
        self._endpoint.send(
            "POST", path, query=[("rid", str(run_id))], body=text.encode(errors="backslashreplace"), attempts=attempts
        )
