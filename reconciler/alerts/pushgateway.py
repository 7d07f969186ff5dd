"""A Prometheus Pushgateway: a run that ends leaves its metrics there to be scraped.

They are posted, not put: POST replaces only the metrics in the request, so those of the last success stay while runs
fail. The group is the job alone, because each run is a new pod.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import urlsplit

import urllib3
from prometheus_client import pushadd_to_gateway

from reconciler.alerts import Undelivered
from reconciler.alerts.addresses import Proxies, Proxy, basic_credentials, reason_unreached, refusal
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
    """A sink that pushes the metrics of a run."""

    url: str = field(repr=False)
    """May contain a user name and password for basic authentication, which are never shown."""
    job: str = "reconciler"
    """The group that is pushed to, and the label `job` of its metrics."""
    period: timedelta
    now: Callable[[], float] = field(repr=False)
    """Returns the time in seconds since the epoch."""
    proxies: Proxies = field(default_factory=Proxies)
    timeout: float = 5.0
    """Seconds that the whole request may take."""

    name: ClassVar[str] = "pushgateway"
    deduplicates: ClassVar[bool] = True

    def notify(self, outcome: Outcome) -> None:
        """Push the metrics that the run updates, see `reconciler.metrics`. A plan updates none and is not pushed."""
        if outcome.mode is Mode.PLAN:
            return
        metrics = RunMetrics(period=self.period)
        metrics.record(outcome, self.now())
        proxy = None
        try:
            parts = urlsplit(self.url if "://" in self.url else f"http://{self.url}")
            proxy = self.proxies.before(parts)
            pushadd_to_gateway(
                parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(),
                job=self.job,
                registry=metrics,
                timeout=self.timeout,
                handler=lambda **request: partial(_send, proxy, basic_credentials(parts), **request),
            )
        except urllib3.exceptions.ProxyError as error:
            raise Undelivered(proxy.failure(error, "the Pushgateway") if proxy else "") from None
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            through = f" through the {proxy}" if proxy else ""
            raise Undelivered(f"The Pushgateway was not reached{through}: {reason_unreached(error)}.") from None


def _send(
    proxy: Proxy | None,
    authorization: str,
    *,
    url: str,
    method: str,
    timeout: float,
    headers: list[tuple[str, str]],
    data: bytes,
) -> None:
    """Send a request of prometheus_client, whose own handler would follow a redirect but drop the metrics."""
    with proxy.pool() if proxy else urllib3.PoolManager() as pool:
        answer = pool.request(
            method,
            url,
            body=data,
            headers=dict(headers) | ({"Authorization": authorization} if authorization else {}),
            timeout=urllib3.Timeout(total=timeout),
            retries=False,  # follows no redirects either
        )
    if answer.status not in ACCEPTED:
        raise Undelivered(f"The Pushgateway {refusal(answer.status, f' through the {proxy}' if proxy else '')}")
