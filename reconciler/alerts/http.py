"""One HTTP request to a receiver, retried where that may help: it is delivered, or raises `Undelivered`.

The whole address of a receiver may be a secret, as with a webhook, so only its origin is ever shown. For the same
reason urllib3 does not retry by itself, which would log the path, and does not follow redirects.
"""

from __future__ import annotations

import logging
from contextlib import closing
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import stamina
import urllib3

from reconciler import __version__
from reconciler.alerts import Undelivered
from reconciler.alerts.addresses import (
    Proxies,
    Proxy,
    WrongAddress,
    basic_credentials,
    parsed,
    reason_unreached,
    refusal,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

CONNECT_TIMEOUT = 3.0
"""Seconds."""
READ_TIMEOUT = 5.0
"""Seconds without a byte."""
ATTEMPTS = 3
"""How often a request is tried."""
LATEST_ATTEMPT = 8.0
"""Seconds after which no further attempt begins."""

# urllib3 logs the whole address when a response has broken headers
logging.getLogger("urllib3").propagate = False


class _Transient(Undelivered):
    """The receiver could not be notified now; another attempt may succeed."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of a receiver."""

    origin: str
    """Scheme, host and port: the part that may be shown."""
    _path: str = field(repr=False)
    _query: str = field(repr=False)
    _authorization: dict[str, str] = field(repr=False)
    _proxy: Proxy | None = None

    @classmethod
    def at(cls, url: str, whose: str, proxies: Proxies | None = None) -> Endpoint:
        """Return the endpoint for an http or https address, which may contain a user name and password.

        It is reached through the one of the `proxies` that stands before it.

        Raises:
            WrongAddress: `url` is not valid; the message says `whose` it is.
        """
        found = parsed(url.strip())
        if found is None:
            raise WrongAddress(
                f"The address of the {whose} is not valid, so nobody would be notified.",
                "Write it as https://host/path, or https://user:password@host/path.",
            )
        origin, parts = found
        credentials = basic_credentials(parts)
        authorization = {"Authorization": credentials} if credentials else {}
        proxy = proxies.before(parts) if proxies else None
        return cls(origin, parts.path.rstrip("/"), parts.query, authorization, proxy)

    def send(
        self,
        method: str,
        path: str = "",
        *,
        query: Sequence[tuple[str, str]] = (),
        body: bytes | None = None,
        content_type: str = "text/plain; charset=utf-8",
        attempts: int = ATTEMPTS,
        max_bytes: int = 0,
    ) -> bytes:
        """Send a request and return the first `max_bytes` of the response.

        Path and query follow those of the address. It is tried again without a connection or response, at 429 and 5xx.

        Raises:
            Undelivered: the response was not 2xx.
        """
        queries = "&".join(filter(None, (self._query, urlencode(query))))
        target = "?".join(filter(None, (self.origin + self._path + path, queries)))
        headers = {"User-Agent": f"reconciler/{__version__}"} | self._authorization
        if body is not None:
            headers["Content-Type"] = content_type
        retries = stamina.retry_context(
            on=_Transient, attempts=attempts, timeout=LATEST_ATTEMPT, wait_initial=0.2, wait_jitter=0.2, wait_max=2.0
        )
        for attempt in retries:
            with attempt:
                return self._try(method, target, body, headers, max_bytes)
        raise AssertionError

    @property
    def _through(self) -> str:
        """What a message adds about the way to the receiver: what stands there may be at fault."""
        return f" through the {self._proxy}" if self._proxy else ""

    def _try(self, method: str, target: str, body: bytes | None, headers: dict[str, str], max_bytes: int) -> bytes:
        """Send the request once."""
        try:
            with self._proxy.pool() if self._proxy else urllib3.PoolManager() as pool:
                response = pool.request(
                    method,
                    target,
                    body=body,
                    headers=headers,
                    timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT, read=READ_TIMEOUT),
                    retries=False,
                    redirect=False,
                    preload_content=False,
                )
                with closing(response):
                    self._raise_unless_ok(response.status)
                    return response.read(max_bytes) if max_bytes else b""
        except urllib3.exceptions.SSLError as error:
            raise Undelivered(f"No secure connection to {self.origin}{self._through}: {error}.") from None
        except urllib3.exceptions.ProxyError as error:
            raise _Transient(self._proxy.failure(error, self.origin) if self._proxy else "") from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _Transient(f"{self.origin} was not reached{self._through}: {reason_unreached(error)}.") from None

    def _raise_unless_ok(self, status: int) -> None:
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            return
        if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise _Transient(f"{self.origin} {refusal(status, self._through)}")
        raise Undelivered(f"{self.origin} {refusal(status, self._through)}")
