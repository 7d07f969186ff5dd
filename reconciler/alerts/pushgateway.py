"""A Prometheus Pushgateway: a run that ends leaves its metrics there to be scraped.

They are posted, not put: POST replaces only the metrics in the request, so those of the last success stay while runs
fail. The group is the job alone, because each run is a new pod.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import urlsplit

import urllib3
from prometheus_client import pushadd_to_gateway

from reconciler.alerts import Undelivered
from reconciler.alerts.http import basic_authorization, reason_unreached
from reconciler.core.model import Mode
from reconciler.metrics import RunMetrics

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from reconciler.core.model import Outcome

ACCEPTED = {HTTPStatus.OK, HTTPStatus.ACCEPTED}
"""A Pushgateway's answers to metrics that it has stored."""


@dataclass(frozen=True, kw_only=True)
class Pushgateway:
    """A sink that pushes the metrics of a run.

    Attributes:
        url: the address; may contain a user name and password for basic authentication, which are never shown.
        job: the group that is pushed to, and the label `job` of its metrics.
        period: the configured time from one run to the next.
        now: returns the time in seconds since the epoch.
        timeout: seconds that the whole request may take.
    """

    url: str = field(repr=False)
    job: str = "reconciler"
    period: timedelta
    now: Callable[[], float] = field(repr=False)
    timeout: float = 5.0

    name: ClassVar[str] = "pushgateway"
    deduplicates: ClassVar[bool] = True

    def notify(self, outcome: Outcome) -> None:
        """Push the metrics that the run updates, see `reconciler.metrics`. A plan updates none and is not pushed.

        Raises:
            Undelivered: the Pushgateway was not reached or did not accept the metrics.
        """
        if outcome.mode is Mode.PLAN:
            return
        metrics = RunMetrics(period=self.period)
        metrics.record(outcome, self.now())
        try:
            parts = urlsplit(self.url if "://" in self.url else f"http://{self.url}")
            pushadd_to_gateway(
                parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(),
                job=self.job,
                registry=metrics,
                timeout=self.timeout,
                handler=_handler(basic_authorization(parts)),
            )
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise Undelivered(f"The Pushgateway was not reached: {reason_unreached(error)}.") from None


def _handler(authorization: dict[str, str]) -> Callable[..., Callable[[], None]]:
    """Return a handler for prometheus_client, whose own would follow a redirect but drop the metrics."""

    def handler(
        *, url: str, method: str, timeout: float, headers: list[tuple[str, str]], data: bytes
    ) -> Callable[[], None]:
        def send() -> None:
            with urllib3.PoolManager() as pool:
                answer = pool.request(
                    method,
                    url,
                    body=data,
                    headers=dict(headers) | authorization,
                    timeout=urllib3.Timeout(total=timeout),
                    retries=False,  # follows no redirects either
                )
            if answer.status not in ACCEPTED:
                raise Undelivered(f"The Pushgateway answered {answer.status}; its log says why.")

        return send

    return handler
