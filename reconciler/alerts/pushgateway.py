"""A Prometheus Pushgateway: where a pass that ends leaves its metrics to be scraped.

They are posted, not put: a Pushgateway replaces then only the metrics that are named, and those of the last success
stay while passes fail. The group is the job alone, since each pass is another pod of it.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import unquote, urlsplit

import urllib3
from prometheus_client import pushadd_to_gateway

from reconciler.alerts import Undelivered
from reconciler.core.model import Mode
from reconciler.metrics import RunMetrics

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta
    from urllib.parse import SplitResult

    from reconciler.core.model import Outcome

TAKEN = {HTTPStatus.OK, HTTPStatus.ACCEPTED}
"""What a Pushgateway answers to metrics that it has taken."""


@dataclass(frozen=True, kw_only=True)
class Pushgateway:
    """A sink that pushes the metrics of a pass.

    Attributes:
        url: where the Pushgateway is; may hold a name and password for basic authentication, which are never shown.
        job: the group that is pushed to, and the label `job` of its metrics.
        period: the time from one pass to the next, as it is meant to be.
        now: the time, in seconds since the epoch.
        timeout: seconds that it may take to connect, or to answer.
    """

    url: str = field(repr=False)
    job: str = "reconciler"
    period: timedelta
    now: Callable[[], float] = field(repr=False)
    timeout: float = 5.0

    name: ClassVar[str] = "pushgateway"
    deduplicates: ClassVar[bool] = True

    def tell(self, outcome: Outcome) -> None:
        """Push what the pass determines, see `reconciler.metrics`. A plan determines nothing, and is not pushed.

        Raises:
            Undelivered: the Pushgateway was not reached, or did not take it.
        """
        if outcome.mode is Mode.PLAN:
            return
        passes = RunMetrics(period=self.period)
        passes.take(outcome, self.now())
        try:
            parts = urlsplit(self.url if "://" in self.url else f"http://{self.url}")
            pushadd_to_gateway(
                parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(),
                job=self.job,
                registry=passes,
                timeout=self.timeout,
                handler=_handler(_authorization(parts)),
            )
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise Undelivered(f"The Pushgateway was not reached: {_why(error)}.") from None


def _why(error: Exception) -> str:
    """Return what is wrong, without the error's own words: they quote the address, of which a password is a part."""
    said = getattr(error.__cause__, "strerror", None)
    if said is None and isinstance(error, urllib3.exceptions.TimeoutError):
        return "no answer in time"
    return said or type(error).__name__


def _authorization(url: SplitResult) -> dict[str, str]:
    """Return the header for the name and password in an address."""
    if url.username is None:
        return {}
    credentials = f"{unquote(url.username)}:{unquote(url.password or '')}"
    return {"Authorization": f"Basic {b64encode(credentials.encode()).decode()}"}


def _handler(authorization: dict[str, str]) -> Callable[..., Callable[[], None]]:
    """Return what sends for prometheus_client: its own handler would follow a redirect, but without the metrics."""

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
                    retries=False,  # nor is a redirect followed
                )
            if answer.status not in TAKEN:
                raise Undelivered(f"The Pushgateway answered {answer.status}; its log says why.")

        return send

    return handler
